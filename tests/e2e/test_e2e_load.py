"""Steady load while everything changes: canaries, ways back, servers that end, a store of the log that is away.

No request fails, and by id what was answered is what is logged, both ways. `MAINSPRING_LOAD_MINUTES` says for how
long (default 1; `make load` takes 10): rounds begin until the time is over, and the last one ends as all others.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.support.git_repos import Scratch
from tests.support.linear_model import TRAIN, csv, model, rows
from tests.support.local_mode import Local

MINUTES = float(os.environ.get("MAINSPRING_LOAD_MINUTES", "1"))
CLIENTS = 4
PAUSE_S = 0.01
SERVING = {
    "minReplicas": 2,
    "predictionLog": {},
    "canary": {"stepWeights": [30], "interval": "3s"},
}


@dataclass
class Load:
    """Clients that ask without an end, each with kept connections, and remember every id."""

    url: str
    answered: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    revisions: Counter[str] = field(default_factory=Counter)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(40)

    def _run(self, number: int) -> None:
        count = 0
        with httpx.Client(timeout=30.0, trust_env=False) as client:
            while not self._stop.wait(PAUSE_S):
                name, count = f"c{number}-{count}", count + 1
                body = {"dataframe_records": [{"x1": count % 10 / 2, "x2": 1.0 + number}]}
                try:
                    answer = client.post(f"{self.url}/invocations", json=body, headers={"x-request-id": name})
                except httpx.HTTPError as error:
                    self.failed.append(f"{name}: {type(error).__name__}: {error}")
                    continue
                if answer.status_code == 200 and answer.headers["x-request-id"] == name:
                    self.answered.append(name)
                    self.revisions[answer.headers["x-mainspring-revision"]] += 1
                else:
                    self.failed.append(f"{name}: {answer.status_code}: {answer.text[:200]}")


@dataclass
class Day:
    """What runs, what is asked of it, and how often each thing happened."""

    local: Local
    repository: Scratch
    load: Load
    happened: Counter[str] = field(default_factory=Counter)
    number: int = 0

    @property
    def champion(self) -> str:
        return str(self.local.model()["status"]["champion"]["revision"])

    def commit(self) -> str:
        """Ask for a model that is as good, from other code."""
        self.number += 1
        return commit(self.repository, self.number)

    def server(self) -> int:
        """Find a server's process."""
        found = [pid for pid, command in self.local.processes().items() if is_server(command)]
        assert found
        return min(found)


def is_server(command: str) -> bool:
    return "-m controller.serving.server" in command and "shim" not in command


def commit(repository: Scratch, number: int) -> str:
    spec = json.dumps(model(repository.url, serving=SERVING)).encode()
    code = TRAIN + f"# the {number}th\n".encode()
    return repository.commit({"train.py": code, "rows.csv": csv(rows()), "deploy/line.yaml": spec})


def promoted(day: Day) -> None:
    """A canary under load ends with another champion."""
    before = day.champion
    made = day.commit()
    day.local.until_condition("Succeeded", commit=made, timeout_s=180)
    assert day.champion != before
    day.happened["promoted by canary"] += 1


def reverted(day: Day) -> None:
    """`git revert` brings the former champion back and trains nothing."""
    jobs = len(day.local.jobs())
    before = day.champion
    made = commit(day.repository, day.number - 1)
    day.local.until_condition("Succeeded", commit=made, timeout_s=120)
    assert day.champion != before
    assert len(day.local.jobs()) == jobs
    day.happened["reverted in Git"] += 1


def rolled_back(day: Day) -> None:
    """A person's order goes back at once, and ends."""
    promoted(day)
    before = day.champion
    answer = day.local.run(
        *("rollback", "line", "--reason", "it is a rehearsal", "--timeout", "90"), timeout_s=120
    )
    assert answer.code == 0, answer
    assert day.champion != before
    assert day.local.run("rollback", "line", "--end").code == 0
    day.local.until_condition("Succeeded", timeout_s=120)
    day.happened["rolled back by order, and on again"] += 1


def ended(day: Day) -> None:
    """A server is told to end, as a pod is that is deleted, and another one comes."""
    pid = day.server()
    os.kill(pid, signal.SIGTERM)
    day.local.until("the end of the server", lambda: not Path(f"/proc/{pid}").exists() or pid != day.server())
    day.happened["servers ended"] += 1


def store_away(day: Day) -> None:
    """The folder of the log is a file for a while: nothing can be shipped."""
    folder = day.local.state / "predictions"
    aside = folder.with_name("predictions-aside")
    count = len(day.load.answered)
    folder.rename(aside)
    folder.write_text("not a folder")
    day.local.until("answers without the store", lambda: len(day.load.answered) > count + 200)
    folder.unlink()
    aside.rename(folder)
    day.happened["store away and back"] += 1


@pytest.fixture
def day(local: Local, repository: Scratch) -> Iterator[Day]:
    first = commit(repository, 0)
    local.start("--repo", str(repository.path), "--path", "deploy", "--interval", "1s")
    local.until_condition("Succeeded", commit=first, timeout_s=180)
    made = Day(local, repository, Load(local.model()["status"]["url"]))
    made.load.start()
    yield made
    made.load.stop()


def logged(local: Local) -> Counter[str]:
    """Count the ids in the log, by the verb that people use."""
    file = local.state.with_name("logged.jsonl")
    answer = local.run("predictions", "line", "export", "--to", str(file), timeout_s=300)
    assert answer.code == 0, answer
    return Counter(json.loads(line)["request_id"] for line in file.read_text().splitlines())


def test_nothing_is_lost_while_everything_changes(day: Day) -> None:
    until = time.monotonic() + MINUTES * 60
    while time.monotonic() < until or not day.happened:
        for act in (promoted, reverted, ended, store_away, rolled_back):
            act(day)
            assert day.load.failed == [], (act.__name__, day.happened)
    day.load.stop()
    assert day.load.failed == []
    answered = set(day.load.answered)
    assert len(answered) == len(day.load.answered)
    day.local.until("the whole log", lambda: len(logged(day.local)) >= len(answered), timeout_s=180)
    found = logged(day.local)
    assert set(found) - answered == set(), "logged, and never answered"
    assert answered - set(found) == set(), "answered, and never logged"
    assert not [name for name, count in found.items() if count > 1]
    assert len(day.load.revisions) >= 3
    told = ", ".join(f"{count} {what}" for what, count in day.happened.items())
    print(f"\n{len(answered):,} requests answered, 0 failed, all of them logged once; {told}")
