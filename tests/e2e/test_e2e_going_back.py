"""Going back by hand with real servers and steady requests: while Git is away, and while MLflow is down.

The tests build on each other, in order: they share one `mainspring up`. Seconds are measured and bounded by what
the README promises; no request may be lost.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator

import pytest

from tests.support.crash_story import Traffic
from tests.support.git_repos import Scratch
from tests.support.linear_model import TRAIN, csv, model, rows
from tests.support.local_mode import Answer, Local, condition

BETTER = TRAIN + b"# with another seed\n"
NEXT = TRAIN + b"# with yet another seed\n"
WITHIN_S = 60.0


class Day:
    """The running system, its repository, and steady requests."""

    def __init__(self, local: Local, repository: Scratch) -> None:
        self.local, self.repository, self.traffic = local, repository, Traffic()

    def commit(self, code: bytes, interval: str = "2s") -> str:
        serving = {"canary": {"stepWeights": [50], "interval": interval}}
        spec = json.dumps(model(self.repository.url, serving=serving)).encode()
        return self.repository.commit({"train.py": code, "rows.csv": csv(rows()), "deploy/line.yaml": spec})

    def champion(self) -> str:
        return str(self.local.model()["status"]["champion"]["revision"])

    def order(self, verb: str, *more: str) -> tuple[Answer, float]:
        """Order something and follow it; returns the answer and the seconds that it says it took."""
        answer = self.local.run(
            verb, "line", "--reason", "recall in DE fell", "--timeout", "90", *more, timeout_s=120
        )
        assert answer.code == 0, answer
        took = re.search(r" after ([0-9.]+) s$", answer.out, re.MULTILINE)
        assert took, answer
        return answer, float(took[1])

    def answers(self, revision: str) -> None:
        """Wait until what answers is this revision, and nothing was lost so far."""
        self.local.until(f"an answer of {revision}", lambda: self.traffic.revision == revision)
        assert self.traffic.lost == []


@pytest.fixture(scope="module")
def day(shared: Local, shared_repository: Scratch) -> Iterator[Day]:
    made = Day(shared, shared_repository)
    first = made.commit(TRAIN)
    shared.start("--repo", str(shared_repository.path), "--path", "deploy", "--interval", "1s")
    shared.until_condition("Succeeded", commit=first)
    made.traffic.start(shared.model()["status"]["url"])
    yield made
    made.traffic.stop()


def test_a_person_goes_back_while_git_is_away_within_a_minute_and_loses_no_request(day: Day):
    first = day.champion()
    better = day.commit(BETTER)
    day.local.until_condition("Succeeded", commit=better)
    second = day.champion()
    assert second != first
    away = day.repository.path.with_name("away.git")
    day.repository.path.rename(away)
    try:
        answer, took = day.order("rollback")
        day.answers(first)
    finally:
        away.rename(day.repository.path)
    assert took < WITHIN_S
    assert f"rollback of line from {second} to {first}" in answer.out
    assert "git revert --no-edit" in answer.out
    assert day.local.jobs() == day.local.jobs(first) + day.local.jobs(second), "nothing was trained for it"
    print(f"rollback: all requests on the former champion after {took:.1f} s")


def test_everybody_can_see_who_ordered_it_and_why(day: Day):
    said = day.local.until_condition("Overridden")
    assert "recall in DE fell" in condition(said, "Overridden")["message"]
    screen = day.local.run("explain", "modelspec/line").out
    assert "Ordered by a person" in screen
    assert "recall in DE fell" in screen
    history = day.local.run("history", "line").out.splitlines()
    assert "RolledBack" in history[-1]
    assert "by order of" in history[-1]


def test_git_rules_again_when_the_order_is_ended(day: Day):
    first = day.champion()
    assert day.local.run("rollback", "line", "--end").code == 0
    said = day.local.until_condition("Succeeded")
    second = said["status"]["champion"]["revision"]
    assert second != first
    day.answers(second)


def test_a_challenger_is_taken_out_while_mlflow_is_down(day: Day):
    champion = day.champion()
    day.commit(NEXT, interval="60s")
    day.local.until(
        "the canary", lambda: (day.local.model()["status"].get("challenger") or {}).get("weight") == 50
    )
    challenger = day.local.model()["status"]["challenger"]["revision"]
    server = json.loads((day.local.state / "mlflow.json").read_text())
    os.killpg(server["pid"], signal.SIGKILL)
    answer, took = day.order("abort")
    assert took < WITHIN_S
    assert f"{challenger} gets no requests; all are on {champion} after" in answer.out
    day.answers(champion)
    print(f"abort: all requests on the champion after {took:.1f} s")
