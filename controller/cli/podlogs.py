"""Finds and reads what containers have written: files in local mode, the API server's logs on a cluster.

Read only, and only the end of a log: it may have ten megabytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from controller.api.meta import Manifest
    from controller.clients.kube import KubeClient

STEPS: Final = ("fetch", "train", "predict-champion", "predict", "evaluate")
"""Containers of a training Job, in the order in which they run."""
TAIL_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Log:
    """One log: of a container in a pod."""

    pod: str
    container: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One training that has run or runs: its number, and the logs of its steps in the order in which they ran."""

    number: int
    logs: tuple[Log, ...]


class Logs(Protocol):
    """The logs of a session."""

    async def attempt(self, namespace: str, revision: str) -> Attempt | None:
        """Find the newest training of a revision."""
        ...

    async def servers(self, namespace: str, revisions: Sequence[str]) -> list[Log]:
        """Find the logs of the servers of revisions."""
        ...

    async def tail(self, namespace: str, log: Log, lines: int) -> list[str]:
        """Read the last lines of a log; empty when nothing was written."""
        ...


@dataclass(frozen=True, slots=True)
class LocalLogs:
    """Logs of local mode: `<root>/<namespace>/<pod>/<container>.log`."""

    root: Path

    async def attempt(self, namespace: str, revision: str) -> Attempt | None:
        """Find the newest training of a revision."""
        from controller.plan.naming import training_of

        pods = _directories(self.root / namespace)
        numbered = ((training_of(revision, p.name.rpartition("-")[0]), p) for p in pods)
        found = max(((number, p) for number, p in numbered if number is not None), default=None)
        if found is None:
            return None
        there = [p.stem for p in found[1].glob("*.log")]
        steps = [s for s in STEPS if s in there] + sorted(set(there) - set(STEPS))
        return Attempt(found[0], tuple(Log(found[1].name, s) for s in steps))

    async def servers(self, namespace: str, revisions: Sequence[str]) -> list[Log]:
        """Find the logs of the servers of revisions, whose pods are named `<revision>-<6 hex>-<n>`."""
        return [
            Log(pod.name, log.stem)
            for revision in revisions
            for pod in _directories(self.root / namespace)
            if re.fullmatch(re.escape(revision) + r"-[0-9a-f]{6}-.+", pod.name)
            for log in sorted(pod.glob("*.log"))
        ]

    async def tail(self, namespace: str, log: Log, lines: int) -> list[str]:
        """Read the last lines of a file; empty when it is not there."""
        return file_tail(self.root / namespace / log.pod / f"{log.container}.log", lines)


@dataclass(frozen=True, slots=True)
class ClusterLogs:
    """Logs of pods, through the API server. A pod that is gone has none."""

    kube: KubeClient

    async def attempt(self, namespace: str, revision: str) -> Attempt | None:
        """Find the newest training of a revision whose pod is still there."""
        from controller.api.meta import LABEL_JOB_NAME
        from controller.plan.naming import training_of

        found = [
            (number, pod["metadata"]["creationTimestamp"], index, pod)
            for index, pod in enumerate(await self._pods(namespace, revision))
            if (number := training_of(revision, pod["metadata"].get("labels", {}).get(LABEL_JOB_NAME, "")))
        ]
        if not found:
            return None
        number, _, _, pod = max(found, key=lambda row: row[:3])
        return Attempt(number, tuple(Log(pod["metadata"]["name"], c) for c in started(pod)))

    async def servers(self, namespace: str, revisions: Sequence[str]) -> list[Log]:
        """Find the logs of the servers of revisions: the pods that no Job has."""
        from controller.api.meta import LABEL_JOB_NAME

        return [
            Log(pod["metadata"]["name"], container)
            for revision in revisions
            for pod in await self._pods(namespace, revision)
            if LABEL_JOB_NAME not in pod["metadata"].get("labels", {})
            for container in started(pod)
        ]

    async def tail(self, namespace: str, log: Log, lines: int) -> list[str]:
        """Read the last lines of a container's log."""
        from controller.clients.kube_access import log_tail

        return await log_tail(self.kube.rest, namespace, log.pod, log.container, lines)

    async def _pods(self, namespace: str, revision: str) -> tuple[Manifest, ...]:
        from controller.api.meta import LABEL_REVISION

        return await self.kube.list("Pod", namespace=namespace, labels={LABEL_REVISION: revision})


def started(pod: Manifest) -> list[str]:
    """Name the containers of a pod that run or have run, in the order in which they do."""
    status: dict[str, Any] = pod.get("status") or {}
    states = {
        s["name"]: {**(s.get("state") or {}), **(s.get("lastState") or {})}
        for part in ("initContainerStatuses", "containerStatuses")
        for s in status.get(part) or ()
    }
    spec = pod["spec"]
    order = [c["name"] for c in (*(spec.get("initContainers") or ()), *spec["containers"])]
    return [name for name in order if {"running", "terminated"} & set(states.get(name, ()))]


def file_tail(file: Path, lines: int) -> list[str]:
    """Read the last lines of a file; empty when it is not there."""
    if lines <= 0 or not file.is_file():
        return []
    with file.open("rb") as log:
        size = log.seek(0, 2)
        log.seek(max(0, size - TAIL_BYTES))
        text = log.read().decode("utf-8", "replace")
    return text.splitlines()[-lines:]


def _directories(pods: Path) -> list[Path]:
    return sorted(p for p in pods.iterdir() if p.is_dir()) if pods.is_dir() else []
