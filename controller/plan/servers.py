"""The objects that serve a model: servers, Services, the route, the disruption budget, the autoscaler.

Pure builders; which of them is wanted when is decided in `plan/rollout.py` and `plan/traffic.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from controller.api import reports
from controller.api.base import dump
from controller.api.hashes import digest as digest_of
from controller.api.kinds import ModelSpec
from controller.api.meta import (
    ANNOTATION_COMMIT,
    ANNOTATION_DIGEST,
    API_VERSIONS,
    FIELD_MANAGER,
    GROUP,
    LABEL_MANAGED_BY,
    LABEL_MODEL,
    Manifest,
)
from controller.api.pods import Autoscaling
from controller.api.rollout import Analysis, SmokeTest
from controller.plan import naming, pods
from controller.plan.manifests import ONE_THREAD, meta
from controller.plan.pods import PLAIN, SERVER_IMAGE, SHIP, PodSecrets, PodSettings
from controller.plan.predlog import SPOOL, Logged

SERVER_PORT: Final = 8080
COMPARED: Final = 0.1
"""Share of the requests that is compared, and by how much numbers may differ, where the check does not say."""
LABEL_DEPLOYMENT: Final = f"{GROUP}/deployment"
"""On servers: the Deployment that they belong to."""
LABEL_COMPONENT: Final = f"{GROUP}/component"
"""`server` on pods that answer requests: what the Service of a model selects."""
ANNOTATION_ROUTE: Final = f"{GROUP}/route"
"""On routes: hash of the Gateways and host names; another one is applied at once."""
ANNOTATION_COMPARE: Final = f"{GROUP}/compare"
"""On Deployments: with whose answers the servers compare theirs, as they were told when they were made."""
ENV_SMOKE: Final = "MAINSPRING_SMOKE_TEST"
"""Variable of servers: the request that they must answer first, and how."""
ANNOTATION_SERVE: Final = f"{GROUP}/serve"
"""On Deployments: hash of what people chose about the servers; another one is a rolling change."""


def deployment(
    model: ModelSpec,
    owner: Manifest,
    *,
    name: str,
    revision: str,
    run: str,
    digest: str,
    version: str,
    commit: str,
    tracking_uri: str,
    replicas: int,
    runtime: str = "",
    settings: PodSettings = PLAIN,
    log: Logged | None = None,
    compare: str = "",
    smoke: str = "",
) -> Manifest:
    """Build the servers of one revision: fetched by digest, verified before load, ready once they predicted.

    `compare`: what `comparison` wrote; empty: they compare with nobody. `smoke`: what `smoke_test` wrote.
    """
    labels = naming.labels(model.metadata.name, revision)
    pod_labels = {**labels, LABEL_DEPLOYMENT: name, LABEL_COMPONENT: "server"}
    env = {
        "MAINSPRING_MODEL": model.metadata.name,
        "MAINSPRING_REVISION": revision,
        "MAINSPRING_VERSION": version,
        "MAINSPRING_COMMIT": commit,
        **_told_to_compare(compare),
        **({ENV_SMOKE: smoke} if smoke else {}),
        **_told_of_itself(model),
    }
    pod = _server_pod(run, digest, tracking_uri, env)
    serve = serve_digest(model, log, hardened=settings.hardened)
    noted = {ANNOTATION_SERVE: serve} if serve else {}
    if compare:
        noted[ANNOTATION_COMPARE] = compare
    if log is not None:
        pod = _with_log(pod, log, settings)
    extra: Manifest = {}
    if settings.hardened:
        pod = _cluster_server(pod, model, settings, runtime, log)
        # A server is replaced only once its successor is ready: fewer than wanted never answer.
        extra = {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}}
    return {
        "apiVersion": API_VERSIONS["Deployment"],
        "kind": "Deployment",
        "metadata": {
            **meta(name, model.metadata.namespace, labels, owner),
            "annotations": {ANNOTATION_DIGEST: digest, ANNOTATION_COMMIT: commit, **noted},
        },
        "spec": {
            "replicas": replicas,
            **extra,
            "selector": {"matchLabels": {LABEL_DEPLOYMENT: name}},
            "template": {"metadata": {"labels": pod_labels}, "spec": pod},
        },
    }


def _told_of_itself(model: ModelSpec) -> dict[str, str]:
    """Tell servers how they answer: by the model itself, in several processes; what is the default is not told."""
    serving = model.spec.serving
    form = {"MAINSPRING_ACCELERATE": "Off"} if serving.accelerate == "Off" else {}
    return {**form, "MAINSPRING_WORKERS": str(serving.workers)} if serving.workers > 1 else form


def address_of(service: str, namespace: str) -> str:
    """Write the address of a Service inside of the cluster."""
    return f"http://{service}.{namespace}.svc:{SERVER_PORT}"


def comparison(url: str, rule: Analysis) -> str:
    """Write down with whose answers servers compare theirs: what the annotation says, and the servers are told."""
    share, tolerance = (COMPARED if given is None else given for given in (rule.sample, rule.tolerance))
    return json.dumps({"share": share, "tolerance": tolerance, "url": url}, sort_keys=True)


def smoke_test(body: str, rule: SmokeTest) -> str:
    """Write down the request that a server must answer before any other, and how: its variable `ENV_SMOKE`."""
    media = "application/json" if rule.path.endswith(".json") else "text/csv"
    return json.dumps({"body": body, "type": media, "expect": dump(rule.expect)}, sort_keys=True)


def _told_to_compare(compare: str) -> dict[str, str]:
    told = json.loads(compare) if compare else {}
    return {f"MAINSPRING_COMPARE_{name.upper()}": str(value) for name, value in told.items()}


def serve_digest(model: ModelSpec, log: Logged | None = None, *, hardened: bool = True) -> str:
    """Hash what people chose about the servers themselves. Never our own defaults: an upgrade moves nothing.

    Local mode knows no resources, nodes or Secrets: empty there, unless predictions are logged.
    """
    told = _told_of_itself(model)
    if not hardened:
        said = log.digest() if log is not None else ""
        return digest_of({"recipe": 1, "log": said, **told}) if told else said
    serving, login = model.spec.serving, model.spec.registry_secret
    chosen = {"resources": serving.resources, "template": serving.template}
    # Servers that name a Secret which is gone could not be started again.
    named = {"registrySecret": login} if login else {}
    parts = {k: dump(part) if part is not None else None for k, part in chosen.items()}
    logged = {"predictionLog": dict(log.chosen)} if log is not None else {}
    return digest_of({"recipe": 1, **parts, **named, **logged, **told})


def _with_log(pod: Manifest, log: Logged, settings: PodSettings) -> Manifest:
    """Let a server log: it writes the spool; a sidecar ships it, the only container with the store's login.

    Local mode has no sidecars: there the server starts the shipper, and the spool lies outside of the pod.
    """
    server = pod["containers"][0]
    local = not settings.hardened
    server = {**server, "env": [*server["env"], *log.environment(child=local)]}
    if local:
        return {**pod, "containers": [server]}
    mount = {"name": "log", "mountPath": SPOOL}
    server["volumeMounts"] = [*server["volumeMounts"], mount]
    shipper = {
        "name": SHIP,
        "image": SERVER_IMAGE,
        "command": ["python", "-m", "controller.serving.ship_log", "--spool", SPOOL, *log.ship],
        # Started before the server and ended after it: nothing that it wrote is left behind.
        "restartPolicy": "Always",
        "env": ONE_THREAD,
        "volumeMounts": [mount],
    }
    return {
        **pod,
        "initContainers": [*pod["initContainers"], shipper],
        "containers": [server],
        "volumes": [*pod["volumes"], {"name": "log", "emptyDir": {}}],
    }


def _cluster_server(
    pod: Manifest, model: ModelSpec, settings: PodSettings, runtime: str, log: Logged | None
) -> Manifest:
    serving, server = model.spec.serving, pod["containers"][0]
    probe = server["readinessProbe"]
    server |= {
        "env": [*server["env"], {"name": "MAINSPRING_HOST", "value": "0.0.0.0"}],  # noqa: S104 - the pod's own network
        # Ready means: this very artifact is verified, loaded and has predicted.
        "readinessProbe": {**probe, "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 3},
        "startupProbe": {**probe, "periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 600},
        "livenessProbe": {
            "httpGet": {"path": "/health/live", "port": SERVER_PORT},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "lifecycle": {"preStop": {"sleep": {"seconds": pods.SLEEP_S}}},
    }
    built = pods.harden(
        pod,
        settings,
        template=serving.template,
        main=serving.resources,
        runtime=runtime,
        secrets=PodSecrets(registry=model.spec.registry_secret, log=log.secret if log is not None else ""),
    )
    grace = pods.GRACE_S + (pods.SHIP_GRACE_S if log is not None else 0)
    return {**built, "terminationGracePeriodSeconds": grace}


def _server_pod(run: str, digest: str, tracking_uri: str, env: Mapping[str, str]) -> Manifest:
    artifact = f"{reports.ROOT}/artifact"
    mount = {"name": "artifact", "mountPath": artifact}
    fetch = ["python", "-m", "controller.serving.fetch_model", "--run", run, "--digest", digest, "--out", artifact]
    serve = ["python", "-m", "controller.serving.server", "--model", f"{artifact}/model", "--digest", digest]
    return {
        "automountServiceAccountToken": False,
        "initContainers": [
            {
                "name": "fetch-model",
                "image": SERVER_IMAGE,
                "command": fetch,
                "env": [{"name": "MLFLOW_TRACKING_URI", "value": tracking_uri}],
                "volumeMounts": [mount],
            }
        ],
        "containers": [
            {
                "name": "server",
                "image": SERVER_IMAGE,
                "command": serve,
                "env": [*({"name": k, "value": v} for k, v in env.items()), *ONE_THREAD],
                "ports": [{"name": "http", "containerPort": SERVER_PORT}],
                "readinessProbe": {"httpGet": {"path": "/health/ready", "port": SERVER_PORT}},
                "volumeMounts": [{**mount, "readOnly": True}],
            }
        ],
        "volumes": [{"name": "artifact", "emptyDir": {}}],
    }


def service(model: ModelSpec, owner: Manifest, *, name: str, revision: str) -> Manifest:
    """Build the Service of one revision's servers; it has their Deployment's name."""
    return {
        "apiVersion": API_VERSIONS["Service"],
        "kind": "Service",
        "metadata": meta(name, model.metadata.namespace, naming.labels(model.metadata.name, revision), owner),
        "spec": _reaching(servers_of(name)),
    }


def stable_service(model: ModelSpec, owner: Manifest, selector: Mapping[str, str]) -> Manifest:
    """Build the Service of the model: it has the model's name, and outlives every revision."""
    return {
        "apiVersion": API_VERSIONS["Service"],
        "kind": "Service",
        "metadata": _beside(model, owner),
        "spec": _reaching(selector),
    }


def _reaching(selector: Mapping[str, str]) -> Manifest:
    """Build the spec of a Service of these servers."""
    return {
        "selector": dict(selector),
        "ports": [{"name": "http", "port": SERVER_PORT, "targetPort": SERVER_PORT}],
    }


def budget(model: ModelSpec, owner: Manifest) -> Manifest:
    """Build the disruption budget of the model's servers: nodes are drained one server at a time."""
    return {
        "apiVersion": API_VERSIONS["PodDisruptionBudget"],
        "kind": "PodDisruptionBudget",
        "metadata": _beside(model, owner),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": all_servers(model.metadata.name)}},
    }


def autoscaler(model: ModelSpec, owner: Manifest, name: str, least: int, most: int) -> Manifest:
    """Build the autoscaler of the champion's Deployment; `least` and `most` are equal while it is held still."""
    rule = model.spec.serving.autoscaling or Autoscaling()
    target = {"type": "Utilization", "averageUtilization": rule.target}
    return {
        "apiVersion": API_VERSIONS["HorizontalPodAutoscaler"],
        "kind": "HorizontalPodAutoscaler",
        "metadata": _beside(model, owner),
        "spec": {
            "scaleTargetRef": {"apiVersion": API_VERSIONS["Deployment"], "kind": "Deployment", "name": name},
            "minReplicas": least,
            "maxReplicas": most,
            "metrics": [{"type": "Resource", "resource": {"name": rule.metric, "target": target}}],
        },
    }


def _beside(model: ModelSpec, owner: Manifest) -> Manifest:
    """Build the metadata of what there is one of: it has the model's name, and outlives every revision."""
    labels = {LABEL_MANAGED_BY: FIELD_MANAGER, LABEL_MODEL: model.metadata.name}
    return meta(model.metadata.name, model.metadata.namespace, labels, owner)


def all_servers(model: str) -> dict[str, str]:
    """Select every server of a model, of whichever revision.

    Only pods that are watched: whatever gets requests is seen, also where nobody of ours made it.
    """
    return {LABEL_MANAGED_BY: FIELD_MANAGER, LABEL_MODEL: model, LABEL_COMPONENT: "server"}


def servers_of(deployment: str) -> dict[str, str]:
    """Select the servers of one Deployment, and only such as are watched."""
    return {LABEL_MANAGED_BY: FIELD_MANAGER, LABEL_DEPLOYMENT: deployment}


def route(model: ModelSpec, owner: Manifest, weights: Mapping[str, int]) -> Manifest:
    """Build the route of a model: percent of the requests by Service name; the percents sum to 100."""
    assert sum(weights.values()) == 100, f"weights must sum to 100, not {dict(weights)}"
    hash_ = attached_digest(model)
    noted = {"annotations": {ANNOTATION_ROUTE: hash_}} if hash_ else {}
    return {
        "apiVersion": API_VERSIONS["HTTPRoute"],
        "kind": "HTTPRoute",
        "metadata": {**_beside(model, owner), **noted},
        "spec": {
            **_attached(model),
            "rules": [
                {
                    "backendRefs": [
                        {"name": name, "port": SERVER_PORT, "weight": weight} for name, weight in weights.items()
                    ]
                }
            ],
        },
    }


def attached_digest(model: ModelSpec) -> str:
    """Hash the Gateways and host names that a ModelSpec names; empty where it names none."""
    wanted = _attached(model)
    return digest_of({"recipe": 1, **wanted}) if wanted else ""


def _attached(model: ModelSpec) -> Manifest:
    """Attach the route to the Gateways that the ModelSpec names; local mode's router needs none."""
    wanted = model.spec.serving.route
    if wanted is None:
        return {}
    names = {"hostnames": list(wanted.hostnames)} if wanted.hostnames else {}
    return {"parentRefs": [dump(g) for g in wanted.gateway_refs], **names}
