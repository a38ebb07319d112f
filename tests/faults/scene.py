"""One life of a model on a real API server, behind the fault proxy: operators, Git, MLflow, pods that are played.

Four stages: a first commit is served; a worse one is refused; a better one takes over by canary; the first one's
tree is committed again and serves again.  An operator that was killed is started again at once, as a kubelet
would; everything else is left alone.  What it all came to is in `ending.py`.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from controller.api.meta import API_VERSION, Manifest
from tests.cluster.control_plane import ControlPlane
from tests.cluster.fault_proxy import FaultProxy
from tests.faults.player import Player
from tests.support import stories
from tests.support.git_repos import GitServer, Scratch
from tests.support.operator_process import OperatorProcess, condition

STAGES = ("first commit", "worse commit", "better commit", "revert")
QUALITY = (b"50", b"90", b"40", b"50")
REASONS = ("Succeeded", "GateFailed", "Succeeded", "Succeeded")
MODEL = "bikes"
STAGE_S = 120.0
LOOK_S = 0.05
QUIET_S = 1.0
SIGKILLED = -signal.SIGKILL


class Stuck(AssertionError):
    """The story does not go on."""


def spec(url: str, registry: str) -> Manifest:
    """Build the ModelSpec of the story."""
    built = stories.spec(serving={"canary": {"stepWeights": [50], "interval": "1s"}}, registry={"name": registry})
    source = {**built["spec"]["source"], "url": url, "interval": "1s"}
    return {**built, "metadata": {"name": MODEL}, "spec": {**built["spec"], "source": source}}


class Scene:
    """A namespace with all that a story needs; a context that ends it."""

    def __init__(self, plane: ControlPlane, namespace: str, directory: Path, tracking_uri: str) -> None:
        self.plane, self.namespace, self.directory = plane, namespace, directory
        self.tracking_uri = tracking_uri
        self.registry = f"story-{secrets.token_hex(4)}"
        """Name of the registered model: MLflow is shared."""
        self.operators: dict[str, OperatorProcess] = {}
        self.proxies: dict[str, FaultProxy] = {}
        self.roles: dict[str, str] = {}
        """What each revision is in the story."""
        self.commits: list[str] = []
        self.starts = 0
        self.logs: list[Path] = []
        self.settings: dict[str, str] = {}
        self.killed: set[str] = set()
        """Operators whose end by SIGKILL is awaited; any other end is a violation."""
        self._held = contextlib.ExitStack()
        self._client = httpx.Client(
            base_url=plane.url,
            verify=plane._trust(),
            headers={"Authorization": f"Bearer {plane.token}"},
            timeout=30,
            trust_env=False,
        )

    def __enter__(self) -> Scene:
        held = self._held
        held.enter_context(self._client)
        self.repository = Scratch.create(self.directory / "git" / "models.git")
        self.git = held.enter_context(GitServer(self.directory / "git"))
        self.player = held.enter_context(Player(self.plane, self.namespace, self.tracking_uri))
        return self

    def __exit__(self, *args: object) -> None:
        for operator in self.operators.values():
            operator.__exit__()
        self._held.close()

    # -- operators -----------------------------------------------------------------------------------------------

    def operator(self, name: str = "operator", **settings: str) -> OperatorProcess:
        """Start a replica behind a proxy of its own, or start it again; its settings stay."""
        if name not in self.proxies:
            proxy = FaultProxy(self.plane, self.directory, f"{name}-{secrets.token_hex(3)}")
            self.proxies[name] = self._held.enter_context(proxy)
        self.settings |= settings
        self.starts += 1
        place = self.directory / f"run-{self.starts}"
        place.mkdir()
        # The key and the mirrors outlive the process; the log is a new file each time.
        given = {
            "TRACKING_URI": self.tracking_uri,
            "NAMESPACES": self.namespace,
            "LEASE_NAMESPACE": self.namespace,
            "ALLOWED_HOSTS": "127.0.0.1",
            "GIT_PROTOCOLS": "http,https",
            "SIGNING_KEY": str(self.directory / "key.pem"),
            "MIRRORS": str(self.directory / f"{name}-mirrors"),
            **self.settings,
        }
        started = OperatorProcess(place, self.proxies[name].kubeconfig, name, **given)
        self.logs.append(started.log)
        self.operators[name] = started
        return started

    @property
    def proxy(self) -> FaultProxy:
        """The proxy of the only operator."""
        return self.proxies["operator"]

    def kill(self, name: str = "operator") -> None:
        """Kill a replica as a machine that loses power does, and wait until it is no more."""
        self.killed.add(name)
        operator = self.operators[name]
        operator.process.kill()
        operator.process.wait()

    def tend(self) -> None:
        """Start what was killed again; that an operator ends in any other way is a violation."""
        for name, operator in list(self.operators.items()):
            code = operator.process.poll()
            if code is None:
                continue
            if code == SIGKILLED and name in self.killed:
                self.killed.discard(name)
                self.operator(name)
                continue
            raise Stuck(f"{name} ended with {code}:\n{operator.said()[-3000:]}")

    # -- the story -----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Have the repository watched."""
        url = self.git.url("models.git")
        repository = {
            "apiVersion": API_VERSION,
            "kind": "ModelRepository",
            "metadata": {"name": "models", "namespace": self.namespace},
            "spec": {"url": url, "ref": {"branch": "main"}, "path": "deploy", "interval": "1s"},
        }
        self._client.post(self._path("modelrepositories"), json=repository).raise_for_status()

    def commit(self, number: int) -> str:
        """Make the commit of a stage."""
        files = {
            "train.py": b"fit()",
            "quality": QUALITY[number],
            "data.csv": b"1,2",
            "deploy/bikes.yaml": json.dumps(spec(self.git.url("models.git"), self.registry)).encode(),
        }
        commit = self.repository.commit(files, message=STAGES[number])
        self.player.knows(commit, files)
        self.commits.append(commit)
        return commit

    def play(self, number: int, *, within_s: float = STAGE_S) -> None:
        """Play one stage to its end."""
        commit = self.commit(number)
        self.wait(lambda: self.has(commit, REASONS[number]), f"{STAGES[number]}: {REASONS[number]}", within_s)
        wanted = self.model()["status"]["source"]["wanted"]
        self.roles.setdefault(wanted, ("first", "worse", "better", "again")[number])

    def has(self, commit: str, reason: str) -> bool:
        """Tell whether the ModelSpec has come to `reason` with this commit."""
        found = self.model()
        source = (found.get("status") or {}).get("source") or {}
        return source.get("commit") == commit and condition(found, "Ready").get("reason") == reason

    def wait(self, holds: Callable[[], Any], what: str, within_s: float = STAGE_S) -> Any:
        """Wait for a condition, and look after the operators meanwhile."""
        deadline = time.monotonic() + within_s
        while True:
            self.tend()
            with contextlib.suppress(httpx.TransportError):  # the API server itself may be away
                if found := holds():
                    return found
            if time.monotonic() > deadline:
                raise Stuck(f"not within {within_s:.0f} s: {what}\n{self.told()}")
            # The look itself is what is waited for; the pause only spares the two cores.
            time.sleep(LOOK_S)

    def told(self) -> str:
        """Say what a person would look at."""
        ready = condition(self.model(), "Ready")
        logs = "\n".join(f"{log.parent.name}/{log.name}:\n{log.read_text()[-1500:]}" for log in self.logs[-2:])
        return f"Ready: {ready}\n{logs}"

    def quiet(self, seconds: float = QUIET_S) -> bool:
        """Tell whether nobody wrote anything for a while."""
        newest = max((p.at for proxy in self.proxies.values() for p in proxy.writes()), default=0.0)
        return time.monotonic() - newest > seconds

    # -- reading -------------------------------------------------------------------------------------------------

    def model(self) -> Manifest:
        """Read the ModelSpec; empty while there is none."""
        answer = self._client.get(self._path(f"modelspecs/{MODEL}"))
        found: Manifest = answer.json() if answer.is_success else {}
        return found

    def all(self, plural: str) -> list[Manifest]:
        """Read all objects of a kind in the namespace."""
        answer = self._client.get(self._path(plural))
        answer.raise_for_status()
        found: list[Manifest] = answer.json()["items"]
        return found

    def lease(self) -> Manifest:
        """Read the Lease."""
        answer = self._client.get(self._path("leases/mainspring"))
        found: Manifest = answer.json() if answer.is_success else {}
        return found

    def _path(self, what: str) -> str:
        plural = what.partition("/")[0]
        group = {
            "pods": "api/v1",
            "services": "api/v1",
            "events": "api/v1",
            "jobs": "apis/batch/v1",
            "deployments": "apis/apps/v1",
            "leases": "apis/coordination.k8s.io/v1",
        }.get(plural, f"apis/{API_VERSION}")
        return f"/{group}/namespaces/{self.namespace}/{what}"
