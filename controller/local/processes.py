"""One pod's directory and the processes behind it: prepare, start, look, stop, remove.

The directory is the only truth: it is complete from the moment it exists, its shim runs at most once, and whoever
looks later (another controller, after a SIGKILL) sees the same.  A process is only ever signalled after its
start time matched, or because its own environment names the directory.  Decides nothing: that is the runner's.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from controller.local import shim
from controller.local.pods import TERMINATION_ENV, Plan

RETRY_S = 2.0
"""A shim that died before it ran anything is started again after that long."""

log = logging.getLogger("mainspring.runner")

State = Literal["New", "Running", "Done", "Lost"]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a pod's directory and the process table say at one moment."""

    plan: Plan
    state: State
    """New: nothing ran yet. Lost: the shim is gone without having said how it ended."""
    started_at: str
    """When the shim started, RFC 3339; empty while New."""
    runs: dict[str, dict[str, Any]]
    """Newest start of each container: count, startedAt, pid."""
    exits: dict[str, dict[str, Any]]
    """Newest end of each container: count, exitCode, startedAt, finishedAt, message."""
    done: dict[str, Any]
    """outcome, reason, finishedAt; empty until the pod has ended by itself."""
    stop: dict[str, Any]
    """When and why it was decided to stop this pod; empty if it was not."""

    def running(self, container: str) -> bool:
        """Tell whether a container runs now."""
        run, ended = self.runs.get(container), self.exits.get(container)
        if self.state != "Running" or run is None:
            return False
        return ended is None or int(ended["count"]) < int(run["count"])


class PodDirectory:
    """`<root>/pods/<namespace>/<pod>/`: see the module, and `shim.py` for its files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._child: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._final: tuple[tuple[int, int], Seen] | None = None

    @property
    def name(self) -> str:
        """Name of the pod."""
        return self.path.name

    @property
    def namespace(self) -> str:
        """Namespace of the pod."""
        return self.path.parent.name

    def exists(self) -> bool:
        """Tell whether there is such a pod."""
        return self.path.is_dir()

    def prepare(self, plan: Plan) -> None:
        """Make the directory with its volumes, all at once; one that exists already stays as it is."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=self.path.parent))
        for volume, files in plan.volumes.items():
            (draft / volume).mkdir(parents=True, exist_ok=True)
            for name, text in files.items():
                file = draft / volume / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
                file.chmod(0o444)
        for container in plan.containers:
            for part in ("home", "tmp"):
                (draft / "scratch" / container.name / part).mkdir(parents=True)
        shim.write_json(str(draft / "plan.json"), plan.as_json())
        try:
            draft.rename(self.path)
        except OSError:
            shutil.rmtree(draft, ignore_errors=True)
            if not self.exists():
                raise

    def start(self) -> None:
        """Start the shim, detached; does nothing while one that was started just now is coming up."""
        if self._child is not None and (self._child.poll() is None or time.monotonic() - self._started < RETRY_S):
            return
        if self._child is not None:
            log.warning(
                "the shim of %s ended with code %s before it ran anything, it is started again; see %s",
                self.path.name,
                self._child.returncode,
                self.path / "shim.out",
            )
        self._started = time.monotonic()
        with (self.path / "shim.out").open("ab") as output:
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-S", shim.__file__, str(self.path)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.path,
                env={"LANG": "C.UTF-8"},
                start_new_session=True,
            )

    def look(self) -> Seen | None:
        """Read the present state; None when the directory is gone or was never complete."""
        if self._child is not None:
            self._child.poll()
        try:
            found = (self.path / "plan.json").stat()
        except FileNotFoundError:
            return None
        # Inodes are used again at once, so the time belongs to it: a namesake's end is not this one's.
        stamp = (found.st_ino, found.st_ctime_ns)
        if self._final is not None and self._final[0] == stamp:
            # Nothing but the wish to remove it changes any more; there may be hundreds of these.
            return replace(self._final[1], stop=self._read("stop.json"))
        plan = self._read("plan.json")
        if not plan:
            return None
        parsed = Plan.from_json(plan)
        # Alive is asked before `done.json` is read: it may end between the two, and must not look lost.
        me = self._read("shim.json")
        alive = bool(me) and shim.identity(int(me["pid"])) == me["identity"]
        done = self._read("done.json")
        state: State = "Done" if done else "Running" if alive else "Lost" if me else "New"
        names = [c.name for c in parsed.containers]
        seen = Seen(
            plan=parsed,
            state=state,
            started_at=me.get("startedAt", ""),
            runs={name: run for name in names if (run := self._read(f"{name}.run.json"))},
            exits={name: ended for name in names if (ended := self._read(f"{name}.exit.json"))},
            done=done,
            stop=self._read("stop.json"),
        )
        if state == "Done":
            self._final = (stamp, seen)
        return seen

    def mark_stop(self, mark: dict[str, Any]) -> None:
        """Remember that this pod is to be stopped, also for a controller that comes after us."""
        shim.write_json(str(self.path / "stop.json"), mark)

    def busy(self) -> bool:
        """Tell whether the shim lives, or is coming up."""
        if self._child is not None and self._child.poll() is None:
            return True
        me = self._read("shim.json")
        return bool(me) and shim.identity(int(me["pid"])) == me["identity"]

    def terminate(self) -> bool:
        """Ask the shim to stop its container and end; tell whether there was one to ask."""
        return self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the shim and every process it left."""
        self._signal(signal.SIGKILL)
        for pid in self.stragglers():
            with contextlib.suppress(ProcessLookupError):  # it ended between the look and the signal
                os.kill(pid, signal.SIGKILL)

    def stragglers(self) -> list[int]:
        """List the processes whose environment says that they belong to this pod."""
        mark = f"{TERMINATION_ENV}={self.path}/".encode()
        return [pid for pid, environment in _environments() if any(e.startswith(mark) for e in environment)]

    def remove(self, trash: Path) -> None:
        """Remove the directory, at once for everybody who looks."""
        trash.mkdir(parents=True, exist_ok=True, mode=0o700)
        target = Path(tempfile.mkdtemp(dir=trash)) / self.path.name
        try:
            self.path.rename(target)
        except FileNotFoundError:
            target = target.parent
        self._final = None
        if self._child is not None and self._child.poll() is not None:
            self._child = None
        empty_trash(trash)

    def _signal(self, number: int) -> bool:
        me = self._read("shim.json")
        told = bool(me) and shim.identity(int(me["pid"])) == me["identity"]
        if told:
            with contextlib.suppress(ProcessLookupError):  # it ended between the look and the signal
                os.kill(int(me["pid"]), number)
        elif self._child is not None and number == signal.SIGKILL:
            self._child.kill()
        if self._child is not None:
            self._child.poll()
        return told

    def _read(self, name: str) -> dict[str, Any]:
        try:
            found = json.loads((self.path / name).read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def empty_trash(trash: Path) -> None:
    """Delete what was removed, directories that a program made read-only included."""

    def permit(function: Any, path: str, _error: object) -> None:
        with contextlib.suppress(OSError):  # what cannot be deleted stays in the trash, for the next time
            Path(path).parent.chmod(0o700)
            Path(path).chmod(0o700)
            function(path)

    for item in trash.iterdir():
        shutil.rmtree(item, onerror=permit)


def _environments() -> Iterator[tuple[int, list[bytes]]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):  # ended, or another user's
                yield int(entry.name), (entry / "environ").read_bytes().split(b"\0")


class Directories:
    """All pods of one root; keeps one `PodDirectory` per pod, so that children are reaped."""

    def __init__(self, root: Path) -> None:
        self._root = root / "pods"
        self.trash = root / "trash"
        self._known: dict[tuple[str, str], PodDirectory] = {}

    def pod(self, namespace: str, name: str) -> PodDirectory:
        """Return the directory of a pod, whether it exists or not."""
        key = (namespace, name)
        if key not in self._known:
            self._known[key] = PodDirectory(self._root / namespace / name)
        return self._known[key]

    def present(self) -> list[PodDirectory]:
        """List the pods that have a directory, in order of namespace and name."""
        paths = sorted(p for p in self._root.glob("*/*") if not p.name.startswith("."))
        return [self.pod(p.parent.name, p.name) for p in paths]

    def clear_drafts(self) -> None:
        """Throw away what a controller that was killed had not finished preparing."""
        for draft in self._root.glob("*/.draft-*"):
            shutil.rmtree(draft, ignore_errors=True)
