"""Local mode as people run it: `mainspring up` as a process of its own, the verbs beside it, and an end to it all.

Whatever a test does, no process of its state directory outlives it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller.api.meta import LABEL_REVISION, Manifest

WAIT_S = 90.0
COMMAND = [sys.executable, "-m", "controller"]


@dataclass(frozen=True)
class Answer:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str


@dataclass
class Local:
    """One state directory and what runs on it."""

    state: Path
    data: Path
    log: Path
    up: subprocess.Popen[bytes] | None = None
    env: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, stdin: str | None = None, timeout_s: float = 60) -> Answer:
        """Run a verb to its end."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            env=self._env(),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def settle(self, *arguments: str, timeout_s: float = WAIT_S) -> Answer:
        """Run `up --until-settled` to its end."""
        return self.run("up", "--until-settled", "--timeout", str(timeout_s), *arguments, timeout_s=timeout_s + 60)

    def start(self, *arguments: str) -> None:
        """Start `up`, or start it again."""
        with self.log.open("ab") as output:
            self.up = subprocess.Popen(
                [*COMMAND, "up", *arguments], env=self._env(), stdout=output, stderr=output, start_new_session=True
            )

    def signal(self, number: int) -> int:
        """Send `up` a signal and wait for its end; returns its exit code."""
        assert self.up is not None
        self.up.send_signal(number)
        return self.up.wait(60)

    def get(self, *what: str) -> Manifest:
        """Read one object; empty when it is not there (yet)."""
        answer = self.run("get", *what, "-o", "json")
        return json.loads(answer.out) if answer.code == 0 and answer.out else {}

    def all(self, kind: str) -> list[Manifest]:
        """Read all objects of a kind from the store, as any reader can."""
        return _read(self.state / "objects.db", kind)

    def model(self, name: str = "line") -> Manifest:
        """Read a ModelSpec; empty when it is not there (yet)."""
        return next((m for m in self.all("ModelSpec") if m["metadata"]["name"] == name), {})

    def jobs(self, revision: str = "") -> list[str]:
        """Name the Jobs, all or of one revision."""
        found = self.all("Job")
        return [j["metadata"]["name"] for j in found if revision in ("", j["metadata"]["labels"][LABEL_REVISION])]

    def until(self, what: str, ready: Callable[[], Any], *, timeout_s: float = WAIT_S) -> Any:
        """Wait for something; fails with what `up` said last when it does not come, or `up` ends."""
        end = time.monotonic() + timeout_s
        while not (found := ready()):
            assert self.up is None or self.up.poll() is None, f"up ended before: {what}\n{self._told()}"
            assert time.monotonic() < end, f"waited {timeout_s:.0f} s for: {what}\n{self._told()}"
            time.sleep(0.1)
        return found

    def until_condition(
        self, reason: str, *, name: str = "line", commit: str = "", type_: str = "Ready", timeout_s: float = WAIT_S
    ) -> Manifest:
        """Wait until a condition of a ModelSpec has this reason, for this commit; returns the ModelSpec."""

        def ready() -> Manifest | None:
            found = self.model(name)
            source = (found.get("status") or {}).get("source") or {}
            good = condition(found, type_).get("reason") == reason and commit in ("", source.get("commit"))
            return found if good else None

        what = f"{name} to be {reason} at {commit[:7] or 'any commit'}"
        found: Manifest = self.until(what, ready, timeout_s=timeout_s)
        return found

    def processes(self) -> dict[int, str]:
        """List the processes that have to do with this state: by command, directory, environment or open files."""
        return _processes((str(self.state), str(self.data)))

    def end(self) -> None:
        """End `up` and everything that it left."""
        if self.up is not None and self.up.poll() is None:
            self.up.kill()
            self.up.wait()
        end = time.monotonic() + 10
        while (left := self.processes()) and time.monotonic() < end:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):  # it ended between the look and the signal
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        assert not left

    def _told(self) -> str:
        log = self.log.read_text(errors="replace") if self.log.exists() else ""
        said = [
            f"{m['kind']} {m['metadata']['name']}: {condition(m, 'Ready')}"
            for kind in ("ModelRepository", "ModelSpec", "ModelRevision")
            for m in self.all(kind)
        ]
        return "\n".join([log[-3000:], *said])

    def _env(self) -> dict[str, str]:
        kept: Mapping[str, str] = {k: v for k, v in os.environ.items() if not k.startswith("MAINSPRING_")}
        paths = {"MAINSPRING_STATE": str(self.state), "MAINSPRING_DATA": str(self.data)}
        return {**kept, **paths, **self.env}


def condition(manifest: Manifest, type_: str) -> Manifest:
    """Find a condition; empty when it is not there."""
    conditions = (manifest.get("status") or {}).get("conditions", ())
    return next((c for c in conditions if c["type"] == type_), {})


def fresh(directory: Path, mlflow: Path | None = None) -> Local:
    """Name the directories of a new state, with MLflow's tables made already when a template is given."""
    data = directory / "data"
    data.mkdir(parents=True)
    if mlflow is not None:
        shutil.copytree(mlflow, data / "mlflow")
    return Local(directory / "state", data, directory / "up.log")


def _read(database: Path, kind: str) -> list[Manifest]:
    import asyncio

    from controller.local.store import Store

    if not database.exists():
        return []
    store = Store.open(database)
    try:
        return list(asyncio.run(store.list(kind)))
    finally:
        store.close()


def _processes(marks: tuple[str, ...]) -> dict[int, str]:
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # it ended meanwhile, or is another user's
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            command = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            known = [
                command,
                (entry / "environ").read_bytes().decode(errors="replace"),
                str((entry / "cwd").readlink()),
            ]
            if state not in "ZX" and any(mark in text for mark in marks for text in known):
                found[int(entry.name)] = command.strip()
    return found
