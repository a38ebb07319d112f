"""One life of a model, played with real processes while its controller is killed at chosen writes.

Four stages: a first commit is served; a worse one is refused; a better one takes over by canary; the first one's
tree is committed again and serves again.  Requests go through the router all the time from the first answer on.
A killed controller is started again at once, as an init system would; everything else is left alone.  What it all
came to is read from the objects, from MLflow and from the ledger, in words that do not differ from run to run.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from controller.local.mlflow_server import MlflowServer
from tests.support import crashing_operator
from tests.support.crash_end import end_state
from tests.support.git_repos import Scratch
from tests.support.linear_model import TRAIN, csv, model, rows
from tests.support.local_mode import Local, condition, fresh

Point = tuple[int, str, int, str]
"""Stage, name of the write, its occurrence in that stage, "before" or "after"."""
STAGES = ("first commit", "worse commit", "better commit", "revert")
STAGE_S = 300.0
"""Longest wait for the end of a stage."""
QUIET_S = 1.0
"""A stage has settled when nothing was written for that long."""
END_QUIET_S, END_S = 8.0, 60.0
"""The end is read when nothing was written for so long, or when it is as expected; and how long it may take."""
REQUEST_EVERY_S = 0.1
_ROWS = csv(rows())
_COUNT_RUNS = b"open(%r, 'a').write('trained\\n')\n"


@dataclass
class Outcome:
    """What a run came to."""

    state: dict[str, Any] = field(default_factory=dict)
    killed: list[Point] = field(default_factory=list)
    problem: str = ""
    lost: list[str] = field(default_factory=list)
    answered: int = 0
    seconds: float = 0.0
    stage_seconds: list[float] = field(default_factory=list)


class Stuck(Exception):
    """The story does not go on."""


@dataclass
class Traffic:
    """Steady requests to the model, from a thread of their own."""

    url: str = ""
    answered: int = 0
    lost: list[str] = field(default_factory=list)
    revision: str = ""
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self, url: str) -> None:
        self.url = url
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(40)

    def _run(self) -> None:
        body = {"dataframe_records": [{"x1": 1.0, "x2": 2.0}]}
        with httpx.Client(timeout=30.0, trust_env=False) as client:
            while not self._stop.wait(REQUEST_EVERY_S):
                try:
                    answer = client.post(f"{self.url}/invocations", json=body)
                except httpx.HTTPError as error:
                    self.lost.append(f"{type(error).__name__}: {error}")
                    continue
                if answer.status_code == 200 and "predictions" in answer.text:
                    self.answered += 1
                    self.revision = answer.headers.get("x-mainspring-revision", "")
                else:
                    self.lost.append(f"{answer.status_code}: {answer.text[:200]}")


class Play:
    """One run of the story in directories of its own."""

    def __init__(
        self,
        home: Path,
        name: str,
        points: list[Point],
        *,
        mlflow: Path,
        shared: MlflowServer | None = None,
        expected: dict[str, Any] | None = None,
    ) -> None:
        """Prepare a run.

        Args:
            home: directory, not there yet.
            name: of the registered model; its own for each run on a shared server.
            points: where the controller is killed.
            mlflow: MLflow's directory with its tables made, copied when there is no shared server.
            shared: a server that runs already and is adopted as if an earlier controller had started it.
            expected: what it should come to; None waits until nothing changes any more.
        """
        self.expected = expected
        self.name = name
        self.points = points
        self.local: Local = fresh(home, None if shared else mlflow)
        self.repository = Scratch.create(home / "models.git")
        self.traffic = Traffic()
        self.outcome = Outcome()
        self._journal, self._stage, self._trained = home / "journal", home / "stage", home / "trained"
        if shared is not None:
            self.local.state.mkdir(parents=True)
            shutil.copy(shared.log.with_name("mlflow.json"), self.local.state / "mlflow.json")
        self._commits: list[str] = []
        self._roles: dict[str, str] = {}
        self._until = 0.0

    def run(self) -> Outcome:
        """Play it to the end; whatever happens, nothing of it is left running."""
        began = time.monotonic()
        try:
            for number in range(len(STAGES)):
                stage_began = time.monotonic()
                self._play(number)
                self.outcome.stage_seconds.append(round(time.monotonic() - stage_began, 1))
            self.outcome.state = self._end_state()
        except Stuck as stuck:
            self.outcome.problem = str(stuck)
        finally:
            self.traffic.stop()
            self.local.end()
        noted = [json.loads(line) for line in self._journal.read_text().splitlines()]
        self.outcome.killed = [
            (n["stage"], n["name"], n["occurrence"], n["killed"]) for n in noted if "killed" in n
        ]
        self.outcome.lost, self.outcome.answered = self.traffic.lost, self.traffic.answered
        self.outcome.seconds = round(time.monotonic() - began, 1)
        return self.outcome

    def writes(self) -> list[tuple[int, str, int]]:
        """List what was written, in order."""
        noted = [json.loads(line) for line in self._journal.read_text().splitlines()]
        return [(n["stage"], n["name"], n["occurrence"]) for n in noted if "killed" not in n]

    def _play(self, number: int) -> None:
        self._stage.write_text(str(number))
        use, alpha = (["x1"], 1.0) if number == 1 else (["x1", "x2"], 0.1 if number == 2 else 1.0)
        spec = model(
            self.repository.url,
            training={"command": ["python", "train.py"], "params": {"alpha": alpha, "use": use}},
            serving={"canary": {"stepWeights": [50], "interval": "1s"}},
            registry={"name": self.name},
        )
        program = TRAIN + _COUNT_RUNS % str(self._trained)
        files: dict[str, bytes | tuple[str, bytes]] = {
            "train.py": program,
            "rows.csv": _ROWS,
            "deploy/line.yaml": json.dumps(spec).encode(),
        }
        commit = self.repository.commit(files, message=STAGES[number])
        self._commits.append(commit)
        self._until = time.monotonic() + STAGE_S
        if self.local.up is None:
            self._start()
        reason = "GateFailed" if number == 1 else "Succeeded"
        self._wait(f"{STAGES[number]} to be {reason}", lambda: self._is(reason, commit))
        found = self.local.model()
        wanted = found["status"]["source"]["wanted"]
        self._roles.setdefault(wanted, ("first", "worse", "better", "again")[number])
        if not self.traffic.url:
            self.traffic.start(found["status"]["url"])
        self._wait(f"{STAGES[number]} to settle", self._is_quiet)

    def _is(self, reason: str, commit: str) -> bool:
        found = self.local.model()
        source = (found.get("status") or {}).get("source") or {}
        return condition(found, "Ready").get("reason") == reason and source.get("commit") == commit

    def _is_quiet(self, seconds: float = QUIET_S) -> bool:
        return time.time() - self._journal.stat().st_mtime > seconds

    def _wait(self, what: str, ready: Callable[[], bool]) -> None:
        while not ready():
            self._tend()
            if time.monotonic() > self._until:
                raise Stuck(f"waited {STAGE_S:.0f} s for {what}: {self._told()}")
            time.sleep(0.1)
        self._tend()

    def _tend(self) -> None:
        """Start the controller again when it was killed; that it ends in any other way is a violation."""
        assert self.local.up is not None
        code = self.local.up.poll()
        if code == -signal.SIGKILL:
            self._start()
        elif code is not None:
            raise Stuck(f"the controller ended with code {code}: {self._told()}")

    def _start(self) -> None:
        command = [sys.executable, crashing_operator.__file__, str(self._journal), str(self._stage)]
        command += [json.dumps(self.points), "up", "--repo", str(self.repository.path), "--path", "deploy"]
        command += ["--interval", "1s"]
        with self.local.log.open("ab") as output:
            self.local.up = subprocess.Popen(
                command, env=self.local._env(), stdout=output, stderr=output, start_new_session=True
            )

    def _told(self) -> str:
        return self.local._told()[-2500:]

    def _end_state(self) -> dict[str, Any]:
        """Read what it came to, once it is what is expected or nothing more will change."""
        until = time.monotonic() + END_S
        while True:
            self._tend()
            found = end_state(self.local, self.name, self._roles, self.traffic.revision, self._trained)
            good = found == self.expected if self.expected is not None else self._is_quiet(END_QUIET_S)
            if good or time.monotonic() > until:
                return found
            time.sleep(0.5)
