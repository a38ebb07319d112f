"""Translates a pod template into processes on this machine: arguments, environment, directories.

There is no mount namespace here.  A volume is a directory below the pod's own, and whatever names one of a
container's mount paths (a whole path in an argument, an environment value or the working directory) is rewritten
to it.  Images, resources, security contexts and read-only emptyDirs do not exist (`EnvironmentNotIsolated`).
Pure: builds a plan, writes nothing and starts nothing.  What it cannot honour it refuses, it never guesses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

from controller.api.meta import Manifest
from controller.clients.errors import Denied

LOG_BYTES: Final = 10 * 1024 * 1024
"""Largest log file of a container."""
GRACE_S: Final = 30.0
"""Default of terminationGracePeriodSeconds, as in Kubernetes."""
TERMINATION_PATH: Final = "/dev/termination-log"
TERMINATION_ENV: Final = "MAINSPRING_TERMINATION_LOG"
PORT_ENV: Final = "PORT"
"""Tells a server which port to listen on; its containerPort is a wish that two pods here cannot share."""

_VARIABLE: Final = re.compile(r"\$\$|\$\(([A-Za-z_][-A-Za-z0-9_.]*)\)")
_FIELDS: Final = {"metadata.name": "name", "metadata.namespace": "namespace", "status.podIP": "ip"}
_PYTHON: Final = re.compile(r"python(3(\.\d+)?)?")


@dataclass(frozen=True, slots=True)
class Container:
    """One program to run, as `shim.py` reads it."""

    name: str
    init: bool
    argv: list[str]
    cwd: str
    env: dict[str, str]
    termination: str
    """File for its termination message."""
    fallback: bool
    """Whether the end of the log stands in for a missing termination message after a failure."""
    image: str
    output_bytes: int | None = None
    """Most bytes that it may write into the pod's directory; None: as many as it likes."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the shim runs (`plan.json`), and what the runner needs to know about it later."""

    owner: str
    """uid of the Job or Deployment: a namesake made anew has another."""
    template: str
    """Hash of the pod template that this was planned from."""
    restart: bool
    """Whether what ends is started again (servers), or ends the pod (Jobs)."""
    deadline: float | None
    """Seconds after which the pod is stopped."""
    grace: float
    """Seconds between SIGTERM and SIGKILL."""
    port: int | None
    """Port that the server listens on."""
    probe: str | None
    """Path of the readiness probe; None: ready while it runs."""
    containers: list[Container]
    volumes: dict[str, dict[str, str]]
    """Directory of each volume, relative to the pod's → files to put there."""
    log_bytes: int = LOG_BYTES
    """Largest log file of a container."""

    def as_json(self) -> dict[str, Any]:
        """Write it for `plan.json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Plan:
        """Read what `as_json` wrote."""
        return cls(**{**value, "containers": [Container(**c) for c in value["containers"]]})


@dataclass(frozen=True, slots=True)
class Place:
    """Where and as whom a pod runs."""

    namespace: str
    name: str
    directory: PurePosixPath
    python: str
    """The interpreter that stands for `python` of every image."""
    path: str
    """PATH after the interpreter's own directory."""
    extra_env: Mapping[str, str] = field(default_factory=dict)
    """What every container gets besides its spec (proxies of this machine, say)."""
    step_env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """What containers of these names get besides: never what runs the user's code."""
    port: int | None = None


def plan_pod(
    template: Manifest,
    place: Place,
    *,
    owner: str,
    template_hash: str,
    restart: bool,
    deadline: float | None,
    config_map: Callable[[str], Mapping[str, str] | None],
) -> Plan:
    """Plan the processes of a pod.

    Args:
        template: `spec.template` of a Job or Deployment.
        place: where it runs.
        owner: uid of the Job or Deployment.
        template_hash: kept in the plan.
        restart: see `Plan`.
        deadline: see `Plan`.
        config_map: data of a ConfigMap of the namespace by name; None when it is missing.

    Raises:
        Denied: Unsupported or Invalid; the message names the field.
        MissingConfigMap: it may come later.
    """
    spec = template["spec"]
    mains = spec.get("containers", [])
    if len(mains) != 1:
        raise _refuse(place, f"containers: has {len(mains)}; local mode runs exactly one after the initContainers")
    volumes = {v["name"]: _volume(place, v, config_map) for v in spec.get("volumes", [])}
    inits = spec.get("initContainers", [])
    for container in inits:
        if container.get("restartPolicy") == "Always":
            raise _refuse(place, f"initContainers[{container['name']}]: local mode has no sidecars")
    containers = [_container(place, c, True, volumes) for c in inits]
    containers.append(_container(place, mains[0], False, volumes))
    probe = mains[0].get("readinessProbe", {}).get("httpGet")
    return Plan(
        owner=owner,
        template=template_hash,
        restart=restart,
        deadline=deadline,
        grace=float(spec.get("terminationGracePeriodSeconds", GRACE_S)),
        port=place.port,
        probe=str(probe.get("path", "/")) if probe else None,
        containers=containers,
        volumes={f"volumes/{name}": files for name, files in volumes.items()},
    )


class MissingConfigMap(Exception):
    """A volume's ConfigMap is not there (yet)."""

    def __init__(self, name: str) -> None:
        super().__init__(f"ConfigMap {name} does not exist")


def _volume(
    place: Place, volume: Manifest, config_map: Callable[[str], Mapping[str, str] | None]
) -> dict[str, str]:
    if "emptyDir" in volume:
        return {}
    if "configMap" not in volume:
        kind = next((key for key in volume if key != "name"), "nothing")
        raise _refuse(place, f"volumes[{volume['name']}]: {kind}; local mode has emptyDir and configMap")
    source = volume["configMap"]
    found = config_map(source["name"])
    if found is None:
        if source.get("optional"):
            return {}
        raise MissingConfigMap(source["name"])
    data = dict(found)
    if "items" in source:
        data = {item["path"]: data[item["key"]] for item in source["items"] if item["key"] in data}
    for path in data:
        _inside(place, f"volumes[{volume['name']}].configMap", path)
    return data


def _inside(place: Place, where: str, path: str) -> PurePosixPath:
    found = PurePosixPath(path)
    if found.is_absolute() or ".." in found.parts:
        raise _refuse(place, f"{where}: {path} leaves its volume")
    return found


def _container(place: Place, container: Manifest, init: bool, volumes: Mapping[str, object]) -> Container:
    name = container["name"]
    if not container.get("command"):
        raise _refuse(place, f"containers[{name}].command: is required; local mode has no images with one")
    scratch = place.directory / "scratch" / name
    termination = str(place.directory / f"{name}.termination")
    mapping = {container.get("terminationMessagePath", TERMINATION_PATH): termination}
    for mount in container.get("volumeMounts", []):
        if mount["name"] not in volumes:
            raise _refuse(place, f"containers[{name}].volumeMounts: there is no volume {mount['name']}")
        sub = _inside(place, f"containers[{name}].volumeMounts: subPath", mount.get("subPath", ""))
        mapping[mount["mountPath"]] = str(place.directory / "volumes" / mount["name"] / sub)
    rewrite = rewriter(mapping)
    given = _environment(place, container)
    env = {**_base(place, scratch), **place.extra_env, **place.step_env.get(name, {})}
    env |= {key: rewrite(expand(value, given)) for key, value in given.items()}
    env[TERMINATION_ENV] = termination
    if not init and place.port is not None:
        env[PORT_ENV] = str(place.port)
    argv = [rewrite(expand(a, given)) for a in [*container["command"], *container.get("args", [])]]
    if _PYTHON.fullmatch(argv[0]):
        argv[0] = place.python
    return Container(
        name=name,
        init=init,
        argv=argv,
        cwd=rewrite(container["workingDir"]) if "workingDir" in container else str(scratch / "home"),
        env=env,
        termination=termination,
        fallback=container.get("terminationMessagePolicy") == "FallbackToLogsOnError",
        image=container.get("image", ""),
    )


def _base(place: Place, scratch: PurePosixPath) -> dict[str, str]:
    return {
        "PATH": f"{PurePosixPath(place.python).parent}:{place.path}",
        "HOME": str(scratch / "home"),
        "TMPDIR": str(scratch / "tmp"),
        "MPLCONFIGDIR": str(scratch / "tmp" / "matplotlib"),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
    }


def _environment(place: Place, container: Manifest) -> dict[str, str]:
    facts = {"name": place.name, "namespace": place.namespace, "ip": "127.0.0.1"}
    where = f"containers[{container['name']}]"
    if container.get("envFrom"):
        raise _refuse(place, f"{where}.envFrom: local mode has only env with a value")
    found = {}
    for item in container.get("env", []):
        source = item.get("valueFrom")
        if source is None:
            found[item["name"]] = str(item.get("value", ""))
            continue
        path = source.get("fieldRef", {}).get("fieldPath")
        if path not in _FIELDS:
            raise _refuse(place, f"{where}.env[{item['name']}]: local mode has only {', '.join(_FIELDS)}")
        found[item["name"]] = facts[_FIELDS[path]]
    return found


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$(NAME)` as the kubelet does; unknown names stay, `$$` is a dollar sign.

    >>> expand('--seed=$(SEED) $(date) $$(SEED)', {'SEED': '42'})
    '--seed=42 $(date) $(SEED)'
    """

    def value(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else variables.get(match[1], match[0])

    return _VARIABLE.sub(value, text)


def rewriter(mapping: Mapping[str, str]) -> Callable[[str], str]:
    """Build the function that replaces paths, wherever a whole path stands in a text.

    >>> local = rewriter({'/mainspring/inputs': '/pod/inputs', '/mainspring/inputs/data': '/pod/data'})
    >>> local('--out=/mainspring/inputs/a.csv'), local('sqlite:////mainspring/inputs/data/x.db')
    ('--out=/pod/inputs/a.csv', 'sqlite:////pod/data/x.db')
    >>> local('/mainspring/inputs-of-all'), local('https://host/mainspring/inputs')
    ('/mainspring/inputs-of-all', 'https://host/mainspring/inputs')
    """
    if not mapping:
        return str
    real = {path.rstrip("/"): target for path, target in mapping.items()}
    longest_first = sorted(real, key=len, reverse=True)
    paths = "|".join(re.escape(path) for path in longest_first)
    found = re.compile(rf"""(^|[\s=:,;"'(<>|&]|:///?)({paths})(?=$|[/\s:,;"')<>|&])""")
    return lambda text: found.sub(lambda match: match[1] + real[match[2]], text)


def _refuse(place: Place, problem: str) -> Denied:
    return Denied(f"Pod {place.namespace}/{place.name}: {problem}", reason="Unsupported")
