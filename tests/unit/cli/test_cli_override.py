"""`mainspring rollback`, `promote` and `abort`: what is written, how it is followed, what a person reads.

The controller beside the verb is the real one, in the simulated world that the state directory was told by.
"""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest

from controller.cli.errors import Failure
from controller.cli.going_back import expiry
from controller.cli.output import utc_now
from controller.local.store import Store
from tests.support.cli_session import mainspring, serving, snapshot, stored, tell
from tests.support.simulation import Simulation

A, BETTER = "bikes-dd1196040a", "bikes-f68bd5cd56"


async def replaced(s: Simulation) -> None:
    """Let a better model have taken over."""
    await serving(s)
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(240)


async def in_canary(s: Simulation) -> None:
    """Let a better model be in its canary."""
    await serving(s)
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(50)


class Beside:
    """A controller that works on a told world while a verb runs: its clock stands where the verb's does."""

    def __init__(self, told: Simulation, state: Path) -> None:
        self.told, self.state = told, state
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.work)

    def work(self) -> None:
        asyncio.run(self.turn())

    async def turn(self) -> None:
        s = self.told
        s.store = Store.open(self.state / "objects.db")
        s.clock.moment = utc_now()
        s.restart()
        while not self.stop.wait(0.02):
            s.clock.moment = utc_now()
            await s.settle()
        s.store.close()

    def __enter__(self) -> Simulation:
        self.thread.start()
        return self.told

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(20)


def orders(state: Path) -> list[dict]:
    """Every ModelOverride that lies in the state."""
    found = json.loads(mainspring(state, "get", "modeloverride", "-o", "json").out or '{"items": []}')
    return list(found["items"]) if "items" in found else [found]


def test_a_rollback_is_followed_until_all_requests_are_there_and_says_what_git_needs(tmp_path):
    told = tell(tmp_path, replaced)
    first, now = (h.commit for h, _ in told.git.commits)
    with Beside(told, tmp_path):
        answer = mainspring(tmp_path, "rollback", "bikes", "--reason", "recall in DE fell", "--for", "4h")
    assert answer.code == 0, answer
    assert f"rollback of bikes from {BETTER} to {A} (version 1, commit {first[:7]})" in answer.lines[0]
    assert [line for line in answer.lines if line.startswith("  +") and A in line], "how it comes along"
    assert [line for line in answer.lines if line.startswith(f"all requests are on {A} after ")]
    assert f"git revert --no-edit {first[:12]}..{now[:12]} && git push" in answer.out
    assert f"spec.source.ref: {{commit: {first}}}" in answer.out
    (made,) = orders(tmp_path)
    status = stored(tmp_path, "ModelSpec", "bikes")["status"]
    assert made["metadata"]["ownerReferences"][0]["name"] == "bikes"
    assert made["spec"]["reason"] == "recall in DE fell"
    assert (status["champion"]["revision"], status["champion"]["weight"]) == (A, 100)


def test_the_screen_of_the_model_and_of_the_order_say_who_why_and_until_when(tmp_path):
    told = tell(tmp_path, replaced)
    with Beside(told, tmp_path):
        mainspring(tmp_path, "rollback", "bikes", "--reason", "recall in DE fell")
    (made,) = orders(tmp_path)
    name, until = made["metadata"]["name"], made["spec"]["expiresAt"]
    screen = mainspring(tmp_path, "explain", "modelspec/bikes").out
    for part in ("Ordered by a person", "recall in DE fell", until, f"modeloverride/{name}", BETTER):
        assert part in screen
    assert "Next: mainspring rollback bikes --end" in screen
    own = mainspring(tmp_path, "explain", f"movr/{name}").out
    assert "it holds, Applied" in own
    assert "Next: mainspring explain modelspec/bikes" in own
    table = mainspring(tmp_path, "get", "movr")
    assert table.lines[0].split() == ["NAME", "MODEL", "ACTION", "TO", "ACTIVE", "REASON", "EXPIRES", "AGE"]
    assert table.lines[1].split()[1:6] == ["bikes", "Rollback", A, "True", "Applied"]


def test_an_order_is_ended_by_the_same_verb(tmp_path):
    told = tell(tmp_path, replaced)
    with Beside(told, tmp_path):
        mainspring(tmp_path, "rollback", "bikes", "--reason", "x")
    answer = mainspring(tmp_path, "rollback", "bikes", "--end")
    assert answer.code == 0, answer
    assert "deleted" in answer.out
    assert orders(tmp_path) == []
    again = mainspring(tmp_path, "rollback", "bikes", "--end")
    assert again.err == "error: no order holds for modelspec/bikes: what Git asks for rules\n"


def test_a_promotion_is_followed_until_it_is_champion(tmp_path):
    told = tell(tmp_path, in_canary)
    with Beside(told, tmp_path):
        answer = mainspring(tmp_path, "promote", "bikes", "--reason", "fixes a leak")
    assert answer.code == 0, answer
    assert f"all requests are on {BETTER} after " in answer.out
    assert "Nothing to do in Git: it asks for this revision." in answer.out


def test_an_abort_is_followed_until_nothing_goes_there(tmp_path):
    told = tell(tmp_path, in_canary)
    first, now = (h.commit for h, _ in told.git.commits)
    with Beside(told, tmp_path):
        answer = mainspring(tmp_path, "abort", "bikes", "--reason", "odd answers")
    assert answer.code == 0, answer
    assert f"{BETTER} gets no requests; all are on {A} after " in answer.out
    assert f"git revert --no-edit {first[:12]}..{now[:12]}" in answer.out


def test_what_is_refused_is_said_with_the_reason(tmp_path):
    told = tell(tmp_path, replaced)
    with Beside(told, tmp_path):
        answer = mainspring(tmp_path, "abort", "bikes", "--to", BETTER, "--reason", "x")
    assert answer.code == 1
    assert f"IsChampion: {BETTER} is the champion; mainspring rollback gives its requests to another" in answer.err


def test_a_dry_run_shows_what_would_be_done_and_writes_nothing(tmp_path):
    tell(tmp_path, replaced)
    before = snapshot(tmp_path)
    answer = mainspring(tmp_path, "rollback", "bikes", "--reason", "x", "--dry-run")
    assert answer.code == 0, answer
    assert f"Deployment {A}" in answer.out
    assert answer.lines[-1] == "Nothing was changed."
    assert snapshot(tmp_path) == before
    assert orders(tmp_path) == []


def test_nobody_who_follows_alone_waits_for_ever(tmp_path):
    tell(tmp_path, replaced)
    answer = mainspring(tmp_path, "rollback", "bikes", "--reason", "x", "--timeout", "0.3")
    assert answer.code == 1
    assert "not done after 0.3 s, and the order stays" in answer.err
    assert "is mainspring up running?" in answer.err


WHY = ("--reason", "x")


@pytest.mark.parametrize(
    ("story", "args", "code", "says"),
    [
        pytest.param(replaced, ["rollback"], 2, "why? mainspring rollback bikes --reason", id="no reason"),
        pytest.param(replaced, ["rollback", *WHY, "--for", "8d"], 2, "1m to 168h", id="days are no unit"),
        pytest.param(replaced, ["rollback", *WHY, "--for", "169h"], 2, "1m to 168h", id="longer than seven days"),
        pytest.param(replaced, ["rollback", *WHY, "--to", "bikes-0"], 1, A, id="a revision that is not there"),
        pytest.param(replaced, ["abort", *WHY], 1, "is on its way", id="nothing to abort"),
        pytest.param(serving, ["rollback", *WHY], 1, "no healthy champion", id="nothing was champion before"),
        pytest.param(in_canary, ["rollback", *WHY], 2, "mainspring abort bikes", id="a canary is what is meant"),
        pytest.param(replaced, ["rollback", "--end", *WHY], 2, "--end takes no", id="an end needs no reason"),
    ],
)
def test_what_cannot_be_ordered_is_said_before_anything_is_written(tmp_path, story, args, code, says):
    tell(tmp_path, story)
    answer = mainspring(tmp_path, args[0], "bikes", *args[1:])
    assert answer.code == code, answer
    assert says in answer.err
    assert orders(tmp_path) == []


def test_a_suspended_model_takes_no_order(tmp_path):
    tell(tmp_path, replaced)
    mainspring(tmp_path, "suspend", "bikes")
    answer = mainspring(tmp_path, "rollback", "bikes", "--reason", "x")
    assert "mainspring resume bikes" in answer.err


@pytest.mark.parametrize("span", ["1m", "4h", "168h", "1h30m"])
def test_a_span_is_read_as_everywhere_else(span):
    assert expiry(span, utc_now()).endswith("Z")


@pytest.mark.parametrize("span", ["", "4", "59s", "7d", "168h1s", "-1h", "4h "])
def test_a_span_that_is_none_is_refused(span):
    with pytest.raises(Failure, match="a duration from 1m to 168h"):
        expiry(span, utc_now())
