"""Reads what stands around the servers of a model: shares of the requests, budget, autoscaler, live numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controller.api.kinds import ModelSpec
from controller.api.meta import LABEL_MODEL, LABEL_REVISION, Key, Manifest
from controller.clients.errors import ClientError
from controller.clients.redact import redact
from controller.plan.observed import Counters, DeploymentSeen
from controller.plan.servers import (
    ANNOTATION_COMPARE,
    ANNOTATION_ROUTE,
    ANNOTATION_SERVE,
    ENV_SMOKE,
    LABEL_COMPONENT,
    LABEL_DEPLOYMENT,
)
from controller.plan.verdict import Unknown
from controller.reconcile.jobs import pod_waits
from controller.reconcile.world import World

_DIGEST = "digest="


def deployment(manifest: Manifest, pods: Sequence[Manifest]) -> DeploymentSeen:
    """Read the servers of one revision; the pods of the model say why those that are missing do not start."""
    status = manifest.get("status") or {}
    name, wanted, ready = (
        manifest["metadata"]["name"],
        manifest["spec"]["replicas"],
        status.get("readyReplicas", 0),
    )
    return DeploymentSeen(
        name=name,
        revision=manifest["metadata"]["labels"][LABEL_REVISION],
        replicas=wanted,
        ready=ready,
        message=redact(_why_missing(name, status, pods))[:600] if ready < wanted else "",
        serve=(manifest["metadata"].get("annotations") or {}).get(ANNOTATION_SERVE, ""),
        smoke=_told(manifest, ENV_SMOKE),
        compare=(manifest["metadata"].get("annotations") or {}).get(ANNOTATION_COMPARE, ""),
        image=manifest["spec"]["template"]["spec"]["containers"][0].get("image", ""),
        uid=manifest["metadata"]["uid"],
        version=manifest["metadata"].get("resourceVersion", ""),
    )


def _told(manifest: Manifest, variable: str) -> str:
    """Read a variable of the servers; empty where they have none of that name."""
    env = manifest["spec"]["template"]["spec"]["containers"][0].get("env", ())
    return next((str(e.get("value", "")) for e in env if e["name"] == variable), "")


def _why_missing(name: str, status: Manifest, pods: Sequence[Manifest]) -> str:
    mine = (p for p in pods if p["metadata"]["labels"].get(LABEL_DEPLOYMENT) == name)
    if waits := next((w for w in (pod_waits(p.get("status") or {}) for p in mine) if w), ""):
        return waits
    for condition in status.get("conditions", ()):
        bad = condition.get("status") == ("True" if condition.get("type") == "ReplicaFailure" else "False")
        # That it has fewer than it wants is known, and no reason.
        if bad and condition.get("message") and condition.get("reason") != "MinimumReplicasUnavailable":
            return str(condition["message"])
    return ""


def shares(deployments: Sequence[Manifest]) -> dict[str, int]:
    """Say which percent of the requests each Deployment gets where whole servers split them; they sum to 100."""
    ready = {d["metadata"]["name"]: (d.get("status") or {}).get("readyReplicas", 0) for d in deployments}
    present = {name: count for name, count in sorted(ready.items()) if count}
    total = sum(present.values())
    found = {name: 100 * count // total for name, count in present.items()}
    for name in sorted(found, key=lambda n: (-(100 * present[n] % total), n))[: 100 - sum(found.values())]:
        found[name] += 1
    return found


async def stable(world: World, key: Key) -> dict[str, str] | None:
    """Read what the Service of the model selects; None where there is none, and in local mode."""
    if world.settings.local:
        return None
    service = await world.kube.get(Key("Service", key.namespace, key.name))
    return dict(service["spec"].get("selector") or {}) if service else None


async def has_budget(world: World, key: Key) -> bool:
    """Tell whether there is a disruption budget; local mode has none and needs none."""
    if world.settings.local:
        return False
    return await world.kube.get(Key("PodDisruptionBudget", key.namespace, key.name)) is not None


async def autoscaler(world: World, key: Key) -> tuple[str, int, int, int] | None:
    """Read the autoscaler: Deployment, least and most servers, percent of CPU."""
    if world.settings.local:
        return None
    found = await world.kube.get(Key("HorizontalPodAutoscaler", key.namespace, key.name))
    if found is None:
        return None
    spec = found["spec"]
    resource = spec["metrics"][0].get("resource", {}) if spec.get("metrics") else {}
    percent = resource.get("target", {}).get("averageUtilization", 0)
    return spec["scaleTargetRef"]["name"], spec.get("minReplicas", 1), spec["maxReplicas"], percent


def weights(route: Manifest | None) -> dict[str, int] | None:
    """Read the percent of the requests by Service name; None without a route."""
    if route is None:
        return None
    return {b["name"]: b["weight"] for rule in route["spec"]["rules"] for b in rule["backendRefs"]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What the ready servers of a model say about themselves; each of them is asked once."""

    by_revision: Mapping[str, Counters | Unknown]
    strangers: tuple[str, ...] = ()
    """Pods that get requests of the model though no Deployment made them."""

    def counters(self, parsed: ModelSpec) -> Counters | Unknown:
        """Return what the challenger's servers have counted; empty without a challenger."""
        return _without_digests(self.by_revision.get(_challenger(parsed), {}))

    def counted(self) -> dict[str, Counters | Unknown]:
        """Return what the servers of every revision that was asked have counted."""
        return {revision: _without_digests(found) for revision, found in self.by_revision.items()}

    def loaded(self) -> dict[str, dict[str, str] | Unknown]:
        """Return revision → pod → digest that it says it has loaded; empty where it says none."""
        told: dict[str, dict[str, str] | Unknown] = {}
        for revision, counted in self.by_revision.items():
            if isinstance(counted, Unknown):
                told[revision] = counted
                continue
            pairs = [key.partition("|") for key in counted]
            silent = {pod: "" for pod, _, _ in pairs}
            told[revision] = silent | {p: k.removeprefix(_DIGEST) for p, _, k in pairs if k.startswith(_DIGEST)}
        return told

    def logs(self) -> dict[str, Counters | Unknown]:
        """Return revision → what its servers say of their prediction log."""
        return {revision: _picked(found, logs=True) for revision, found in self.by_revision.items()}


def _without_digests(found: Counters | Unknown) -> Counters | Unknown:
    return _picked(found, logs=False)


def _picked(found: Counters | Unknown, *, logs: bool) -> Counters | Unknown:
    """Pick what is said of the log, or what was counted of the requests."""
    if isinstance(found, Unknown):
        return found
    names = ((key, key.partition("|")[2]) for key in found)
    kept = (k for k, name in names if (name.startswith("log=") or name == "lost") == logs)
    return {k: found[k] for k in kept if not k.partition("|")[2].startswith(_DIGEST)}


def attached(route: Manifest | None) -> str:
    """Read with which Gateways and host names a route was applied, as a hash."""
    return str(((route or {}).get("metadata", {}).get("annotations") or {}).get(ANNOTATION_ROUTE, ""))


async def pods(world: World, parsed: ModelSpec) -> tuple[Manifest, ...]:
    """Read the pods of a model: servers, and those of its trainings."""
    labels = {LABEL_MODEL: parsed.metadata.name}
    return await world.kube.list("Pod", namespace=parsed.metadata.namespace, labels=labels)


async def figures(world: World, parsed: ModelSpec, pods: Sequence[Manifest]) -> Figures:
    """Ask the ready servers of a model for their figures.

    Local mode asks only while there is a challenger or predictions are logged, and only its servers and the
    champion's: a server there is started with its digest by the same process.
    """
    local, challenger = world.settings.local, _challenger(parsed)
    champion = parsed.status.champion.revision if parsed.status.champion else ""
    logs = parsed.spec.serving.prediction_log
    compared = {challenger, champion} if challenger or (logs is not None and logs.on) else set()
    by_revision: dict[str, list[Manifest]] = {}
    for pod in pods:
        labels = pod["metadata"]["labels"]
        revision = labels.get(LABEL_REVISION, "")
        if LABEL_DEPLOYMENT in labels and _is_ready(pod) and _is_made(pod) and (not local or revision in compared):
            by_revision.setdefault(revision, []).append(pod)
    found = {revision: await _counters(world, some) for revision, some in by_revision.items()}
    answering = [p for p in pods if p["metadata"]["labels"].get(LABEL_COMPONENT) == "server" and _is_ready(p)]
    strangers = () if local else tuple(p["metadata"]["name"] for p in answering if not _is_made(p))
    return Figures(by_revision=found, strangers=strangers)


def _challenger(parsed: ModelSpec) -> str:
    challenger = parsed.status.challenger
    return challenger.revision if challenger is not None and challenger.stage in ("Starting", "Canary") else ""


async def _counters(world: World, pods: Sequence[Manifest]) -> Counters | Unknown:
    try:
        return await world.telemetry.counters(pods)
    except ClientError as error:
        return Unknown(error.reason, error.message)


def _is_made(pod: Manifest) -> bool:
    """Tell whether something made this pod; one that a person made by hand has no controller."""
    return any(o.get("controller") for o in pod["metadata"].get("ownerReferences", ()))


def _is_ready(pod: Manifest) -> bool:
    conditions = (pod.get("status") or {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
