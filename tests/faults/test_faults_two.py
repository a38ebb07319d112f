"""Two operators at once never both act, whatever becomes of the leader (F12)."""

from __future__ import annotations

import signal

import pytest

from tests.faults.crashes import history
from tests.faults.ending import settled

TAKES_OVER_WITHIN_S = 40.0


def leader(scene):
    """Name the replica that leads; empty while none does."""
    found = [
        name for name, one in scene.operators.items() if one.process.poll() is None and one.ready_as("leader")
    ]
    return found[0] if len(found) == 1 else ""


def two(scene):
    """Start two replicas and wait until the first leads and the second stands by."""
    scene.operator("first")
    scene.wait(lambda: leader(scene) == "first", "the first leads")
    scene.operator("second")
    scene.wait(lambda: scene.operators["second"].ready_as("standby"), "the second stands by")


def terms(scene):
    """List who wrote, in order of time: each replica once for every unbroken row of its writes."""
    writes = sorted(
        (passed.at, name)
        for name, proxy in scene.proxies.items()
        for passed in proxy.writes()
        if passed.code and passed.call.resource != "events"
    )
    return [name for index, (_, name) in enumerate(writes) if index == 0 or writes[index - 1][1] != name]


def stop(scene):
    scene.operators["first"].process.send_signal(signal.SIGSTOP)


def go_on(scene):
    scene.operators["first"].process.send_signal(signal.SIGCONT)


def part(scene):
    scene.proxies["first"].away()


def join(scene):
    scene.proxies["first"].back()


@pytest.mark.parametrize(
    ("lose", "find"),
    [
        pytest.param(stop, go_on, id="the leader stands still and goes on later"),
        pytest.param(part, join, id="the leader is cut off from the API server and joined again later"),
    ],
)
def test_of_two_replicas_one_acts_and_the_other_takes_over(scene, lose, find):
    two(scene)
    scene.begin()
    scene.play(0)
    scene.commit(1)
    scene.wait(lambda: len(scene.all("jobs")) == 2, "the second training has begun")
    lose(scene)
    scene.wait(lambda: scene.operators["second"].ready_as("leader"), "the second leads", TAKES_OVER_WITHIN_S)
    scene.wait(lambda: scene.has(scene.commits[-1], "GateFailed"), "the verdict")
    scene.roles[scene.model()["status"]["source"]["wanted"]] = "worse"
    find(scene)
    scene.wait(lambda: scene.operators["first"].ready_as("standby"), "the first stands by")
    scene.play(2)
    scene.play(3)

    assert settled(scene) == []
    assert history(scene) == []
    assert terms(scene) == ["first", "second"]
    assert scene.operators["first"].process.poll() is None
    assert scene.starts == 2


def test_the_leader_is_killed_in_every_stage_and_the_other_goes_on(scene):
    two(scene)
    scene.begin()
    for number in range(4):
        scene.commit(number)
        now = scene.wait(lambda: leader(scene), "one leads")
        scene.kill(now)
        commit = scene.commits[-1]
        reason = ("Succeeded", "GateFailed", "Succeeded", "Succeeded")[number]
        scene.wait(lambda commit=commit, reason=reason: scene.has(commit, reason), f"stage {number}")
        role = ("first", "worse", "better", "first")[number]
        scene.roles.setdefault(scene.model()["status"]["source"]["wanted"], role)

    assert settled(scene) == []
    assert history(scene) == []
