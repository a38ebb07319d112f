"""Reads what stands around the servers of a model: shares of the requests, budget, autoscaler, live numbers."""

from __future__ import annotations

from collections.abc import Sequence

from controller.api.kinds import ModelSpec
from controller.api.meta import LABEL_MODEL, LABEL_REVISION, Key, Manifest
from controller.clients.errors import ClientError
from controller.clients.redact import redact
from controller.plan.observed import Counters, DeploymentSeen
from controller.plan.servers import ANNOTATION_SERVE, LABEL_COMPONENT, LABEL_DEPLOYMENT
from controller.plan.verdict import Unknown
from controller.reconcile.world import World

_DIGEST = "digest="


def deployment(manifest: Manifest) -> DeploymentSeen:
    """Read the servers of one revision."""
    status = manifest.get("status") or {}
    stuck: Manifest = next(
        (c for c in status.get("conditions", ()) if c.get("status") == "False" and c.get("message")), {}
    )
    return DeploymentSeen(
        name=manifest["metadata"]["name"],
        revision=manifest["metadata"]["labels"][LABEL_REVISION],
        replicas=manifest["spec"]["replicas"],
        ready=status.get("readyReplicas", 0),
        message=redact(str(stuck.get("message", ""))),
        serve=(manifest["metadata"].get("annotations") or {}).get(ANNOTATION_SERVE, ""),
        image=manifest["spec"]["template"]["spec"]["containers"][0].get("image", ""),
    )


def shares(deployments: Sequence[Manifest]) -> dict[str, int]:
    """Say which percent of the requests each Deployment gets where whole servers split them; they sum to 100."""
    ready = {d["metadata"]["name"]: (d.get("status") or {}).get("readyReplicas", 0) for d in deployments}
    present = {name: count for name, count in sorted(ready.items()) if count}
    total = sum(present.values())
    found = {name: 100 * count // total for name, count in present.items()}
    for name in sorted(found, key=lambda n: (-(100 * present[n] % total), n))[: 100 - sum(found.values())]:
        found[name] += 1
    return found


async def stable_and_route(
    world: World, key: Key, by_servers: bool
) -> tuple[dict[str, str] | None, Manifest | None]:
    """Read what the Service of the model selects (on a cluster), and the route (where there is one)."""
    route = None if by_servers else await world.kube.get(Key("HTTPRoute", key.namespace, key.name))
    if world.settings.local:
        return None, route
    service = await world.kube.get(Key("Service", key.namespace, key.name))
    return (dict(service["spec"].get("selector") or {}) if service else None), route


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


async def traffic(world: World, parsed: ModelSpec) -> Counters | Unknown:
    """Read what the challenger's servers have counted; empty without a challenger."""
    challenger = parsed.status.challenger
    if challenger is None or challenger.stage not in ("Starting", "Canary"):
        return {}
    labels = {LABEL_MODEL: parsed.metadata.name, LABEL_REVISION: challenger.revision}
    pods = await world.kube.list("Pod", namespace=parsed.metadata.namespace, labels=labels)
    servers = [p for p in pods if LABEL_DEPLOYMENT in p["metadata"]["labels"] and _is_ready(p)]
    try:
        counted = await world.telemetry.counters(servers)
    except ClientError as error:
        return Unknown(error.reason, error.message)
    return {k: v for k, v in counted.items() if not k.partition("|")[2].startswith(_DIGEST)}


async def loaded(world: World, parsed: ModelSpec) -> dict[str, str] | Unknown:
    """Ask each ready server of the champion which artifact it has loaded: digest by pod.

    Local mode asks nobody: a server there is started with its digest by the same process.
    """
    champion = parsed.status.champion
    if world.settings.local or champion is None:
        return {}
    labels = {LABEL_MODEL: parsed.metadata.name, LABEL_REVISION: champion.revision, LABEL_COMPONENT: "server"}
    pods = await world.kube.list("Pod", namespace=parsed.metadata.namespace, labels=labels)
    try:
        counted = await world.telemetry.counters([p for p in pods if _is_ready(p)])
    except ClientError as error:
        return Unknown(error.reason, error.message)
    pairs = (key.partition("|") for key in counted)
    return {pod: key.removeprefix(_DIGEST) for pod, _, key in pairs if key.startswith(_DIGEST)}


def _is_ready(pod: Manifest) -> bool:
    conditions = (pod.get("status") or {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
