"""What every pod on a cluster has, whatever it runs: the "restricted" Pod Security level and our own limits.

Pure: turns the plain pod that `plan/manifests.py` builds into the one that a cluster gets.  Local mode runs the
plain one, since images, users and limits do not exist there.  Nothing here can be changed by a ModelSpec but what
`api/pods.py` names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from controller.api.base import dump
from controller.api.meta import Manifest
from controller.api.pods import PodTemplate, Resources, amount_of

USER: Final = 65532
"""User and group of every process."""
SERVER_IMAGE: Final = "mainspring-server"
"""Image of predict and of servers, by the name that the Dockerfile's target has; local mode needs none."""
JOBS_IMAGE: Final = "mainspring-jobs"
"""Image of fetch, evaluate and, by default, of the training program."""
REGISTRY_SECRET: Final = "mainspring-registry"  # noqa: S105 - the name of a Secret
"""Secret of the namespace with `username` and `password`, or `token`, for the registry; may be absent."""
CREDENTIALS: Final = "/mainspring/credentials"
REGISTRY_CREDENTIALS: Final = f"{CREDENTIALS}/registry"
REGISTRY_VOLUME: Final = "registry-credentials"
GIT_VOLUME: Final = "git-credentials"
LOG_VOLUME: Final = "log-credentials"
SHIP: Final = "ship-log"
"""The container that ships the prediction log."""
DATA_VOLUME: Final = "data-credentials-"
"""Begin of the names of volumes with logins for datasets."""
WITH_REGISTRY: Final = frozenset({"fetch", "evaluate", "fetch-model"})
"""Containers that talk to the registry; no other gets its credentials."""
BY_JOBS: Final = frozenset({"fetch", "evaluate"})
"""Containers that run in our jobs image; `train` runs in its own, all others in the servers' image."""
SLEEP_S: Final = 5
"""How long a server that is told to end is left alone first: endpoints need a moment to forget it."""
GRACE_S: Final = 45
"""Longest time between SIGTERM and SIGKILL of a server: preStop, 3 s of draining, 20 s for requests."""
SHIP_GRACE_S: Final = 60
"""How much longer a server has whose log is to be shipped."""

STEP: Final = Resources(requests={"cpu": "100m", "memory": "512Mi"}, limits={"memory": "4Gi"})
TRAINING: Final = Resources(requests={"cpu": "500m", "memory": "1Gi"}, limits={"memory": "4Gi"})
SHIPPER: Final = Resources(requests={"cpu": "20m", "memory": "128Mi"}, limits={"memory": "1Gi"})
SERVER: Final = Resources(requests={"cpu": "100m", "memory": "512Mi"}, limits={"memory": "2Gi"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSettings:
    """The operator's settings for pods."""

    hardened: bool = False
    """True on a cluster."""
    jobs_image: str = JOBS_IMAGE
    """Image of fetch and evaluate, and of a training program that names none."""
    server_image: str = SERVER_IMAGE
    """Image of predict and of servers, where a revision has none pinned yet."""
    pull_policy: str = "IfNotPresent"
    """imagePullPolicy of all containers."""
    pull_secrets: tuple[str, ...] = ()
    """Secrets of the model's namespace for pulling our own images."""
    step: Resources = STEP
    """Of our own containers of a training Job."""
    training: Resources = TRAINING
    """Of a training program that says nothing."""
    server: Resources = SERVER
    """Of a server whose ModelSpec says nothing."""
    shipper: Resources = SHIPPER
    """Of the container beside a server that ships its prediction log."""
    log_store: str = ""
    """Where predictions are kept of which the ModelSpec does not say it, as a URI; empty: nowhere."""
    log_spool: str = ""
    """Directory of the spools in local mode."""
    log_age_s: float = 60.0
    """How old predictions get before they are shipped, seconds."""
    volume_limit: str = "20Gi"
    """sizeLimit of each volume: what fills the disk is evicted."""
    fetch_env: Mapping[str, str] = field(default_factory=dict)
    """What `fetch` is told about the networks: allowed hosts, protocols."""
    trusted_keys: str = ""
    """Public keys (PEM) that may have signed what is served; `fetch-model` believes no other."""
    keep_jobs_s: int = 86_400
    """How long a Job whose result was taken in is kept, seconds."""


PLAIN: Final = PodSettings()
"""Pods as local mode runs them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSecrets:
    """Names of the Secrets of the namespace that a pod mounts, each in the one container that needs it."""

    registry: str = ""
    """For MLflow; empty: the well-known one, which may be absent."""
    git: str = ""
    """For the repository; empty: none."""
    data: Mapping[str, str] = field(default_factory=dict)
    """By dataset."""
    log: str = ""
    """For the store of the prediction log; empty: none."""

    def mounts(self, container: str) -> list[tuple[str, str, Manifest]]:
        """List what a container mounts: volume, path, and the volume's source."""
        found: list[tuple[str, str, Manifest]] = []
        if container in WITH_REGISTRY:
            source = _source(self.registry) if self.registry else {**_source(REGISTRY_SECRET), "optional": True}
            found.append((REGISTRY_VOLUME, REGISTRY_CREDENTIALS, source))
        if container == "fetch" and self.git:
            found.append((GIT_VOLUME, f"{CREDENTIALS}/git", _source(self.git)))
        if container == SHIP and self.log:
            # Optional: servers come up although the log's Secret is gone.
            found.append((LOG_VOLUME, f"{CREDENTIALS}/log", {**_source(self.log), "optional": True}))
        if container == "fetch":
            by_name = enumerate(sorted(self.data.items()))
            found += [(f"{DATA_VOLUME}{i}", f"{CREDENTIALS}/data/{n}", _source(s)) for i, (n, s) in by_name]
        return found


def _source(name: str) -> Manifest:
    return {"secretName": name, "defaultMode": 0o440}


NO_SECRETS: Final = PodSecrets()


def harden(
    pod: Manifest,
    settings: PodSettings,
    *,
    template: PodTemplate | None,
    main: Resources | None,
    runtime: str = "",
    secrets: PodSecrets = NO_SECRETS,
) -> Manifest:
    """Build the pod that a cluster gets.

    Args:
        pod: spec of the plain pod.
        settings: the operator's.
        template: where people want it to run.
        main: resources of `train` or `server`.
        runtime: image of predict and of servers that was pinned; empty: the operator's.
        secrets: what its steps log in with.
    """
    settings = replace(settings, server_image=runtime or settings.server_image)
    steps = pod.get("initContainers", [])
    containers = pod["containers"]
    names = [c["name"] for c in (*steps, *containers)]
    volumes = [_bounded(v, settings) for v in pod["volumes"]]
    # Each has its own: what fetch leaves in a common one would be read by the training.
    volumes += [{"name": f"tmp-{n}", "emptyDir": {"sizeLimit": settings.volume_limit}} for n in names]
    mounted = {volume: source for n in names for volume, _, source in secrets.mounts(n)}
    volumes += [{"name": volume, "secret": source} for volume, source in mounted.items()]
    hardened = {
        **pod,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(c, settings, main, secrets) for c in containers],
        "volumes": volumes,
    }
    if steps:
        hardened["initContainers"] = [_container(c, settings, main, secrets) for c in steps]
    return {**hardened, **_placed(template, settings)}


def _container(
    container: Manifest, settings: PodSettings, main: Resources | None, secrets: PodSecrets
) -> Manifest:
    name = container["name"]
    # By its role and not by its image: whatever image was pinned is the one that runs.
    image = settings.jobs_image if name in BY_JOBS else settings.server_image
    if name == "train":
        image = settings.jobs_image if container["image"] == JOBS_IMAGE else container["image"]
    env = [{"name": n, "value": v} for n, v in (("HOME", "/tmp"), ("TMPDIR", "/tmp"))]  # noqa: S108 - its own volume
    env += [{"name": "MPLCONFIGDIR", "value": "/tmp/matplotlib"}]  # noqa: S108
    told: Mapping[str, str] = settings.fetch_env if name == "fetch" else {}
    if name == "fetch-model":
        told = {"MAINSPRING_TRUSTED_KEYS": settings.trusted_keys}
    env += [{"name": n, "value": v} for n, v in told.items()]
    mounts = [*container.get("volumeMounts", []), {"name": f"tmp-{name}", "mountPath": "/tmp"}]  # noqa: S108
    credentials = secrets.mounts(name)
    mounts += [{"name": volume, "mountPath": path, "readOnly": True} for volume, path, _ in credentials]
    if credentials:
        env.append({"name": "MAINSPRING_CREDENTIALS", "value": CREDENTIALS})
    own = {"train": settings.training, "server": settings.server, SHIP: settings.shipper}
    default = own.get(name, settings.step)
    wanted = _filled(main, default) if main and name in ("train", "server") else default
    return {
        **container,
        "image": image,
        "imagePullPolicy": settings.pull_policy,
        "env": [*container.get("env", []), *env],
        "volumeMounts": mounts,
        "resources": {k: v for k, v in dump(wanted).items() if v},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _filled(main: Resources, default: Resources) -> Resources:
    """Add what a ModelSpec leaves out, so that every container has a limit; never below what it asks for."""
    requests = {k: v for k, v in default.requests.items() if k not in main.limits}
    limits = {k: max(v, main.requests.get(k, v), key=amount_of) for k, v in default.limits.items()}
    return Resources(requests={**requests, **main.requests}, limits={**limits, **main.limits})


def _bounded(volume: Manifest, settings: PodSettings) -> Manifest:
    if "emptyDir" not in volume:
        return volume
    return {**volume, "emptyDir": {**volume["emptyDir"], "sizeLimit": settings.volume_limit}}


def _placed(template: PodTemplate | None, settings: PodSettings) -> dict[str, Any]:
    wanted = dump(template) if template is not None else {}
    secrets = [*wanted.get("imagePullSecrets", []), *({"name": n} for n in settings.pull_secrets)]
    placed = {
        "nodeSelector": wanted.get("nodeSelector"),
        "tolerations": wanted.get("tolerations"),
        "priorityClassName": wanted.get("priorityClassName"),
        "imagePullSecrets": secrets,
    }
    return {k: v for k, v in placed.items() if v}


FAILURE_POLICY: Final[Manifest] = {
    "rules": [{"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
}
"""A pod that Kubernetes itself took away ends its Job at once, and the Job says so: that costs no attempt."""
