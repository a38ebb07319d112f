"""A watch that shows the past, shows too little or too much, or nothing at all, changes no outcome (F3 to F7)."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.cluster.fault_rules import GONE, Answer, Past, ends_with, repeated, swapped
from tests.faults.crashes import history
from tests.faults.ending import settled

MADE = ("jobs", "modelrevisions", "deployments")


def is_watch(call):
    return call.verb == "watch"


def is_list(call):
    return call.verb == "list"


def is_spec(call):
    return call.verb == "patch" and call.resource == "modelspecs" and not call.sub


def version(scene):
    """Read the present version of the whole store."""
    return scene.plane.request("GET", f"/api/v1/namespaces/{scene.namespace}/pods")["metadata"]["resourceVersion"]


def made(scene):
    """Count what was made, by kind."""
    return Counter(p.call.resource for p in scene.proxy.writes() if p.code == 201 and p.call.resource in MADE)


REPEATS = 20
"""Writes of an operator that is kept in the past, after which it is let out."""


def test_started_with_a_view_of_the_past_it_repeats_nothing(scene):
    """F3: the list is older than what the operator itself has done; the watch catches up later."""
    scene.operator()
    scene.begin()
    pasts = [version(scene)]
    for number in range(4):
        scene.play(number)
        pasts.append(version(scene))
    assert settled(scene) == []
    for past in pasts[:-1]:
        scene.proxy.freeze(is_watch)
        # Else the ModelRepository brings the ModelSpec up to date before anybody has looked at the old one.
        scene.proxy.on(is_spec, Answer(503, "ServiceUnavailable"), times=None)
        scene.proxy.on(lambda call: is_list(call) and call.resource != "leases", Past(past), times=None)
        scene.kill()
        asked = len(scene.proxy.passed)
        # It has seen the past and acted on it as far as it would.
        scene.wait(
            lambda asked=asked: (
                any(
                    (p.call.verb == "patch" and p.call.sub == "status") or p.call.is_write
                    for p in scene.proxy.passed[asked:]
                )
                or scene.operators["operator"].ready_as("leader")
            ),
            "it works from the past",
        )
        # Kept in the past it may ask again and again for what is done already; enough of that is enough.
        begun = len(scene.proxy.writes())
        scene.wait(
            lambda begun=begun: scene.quiet(2.0) or len(scene.proxy.writes()) > begun + REPEATS,
            "it has done what it would",
        )
        scene.proxy.rules.clear()
        scene.proxy.thaw()
        scene.proxy.cut()
        # With them the ledger, which nobody can take anything back from: the former champion stays a former one.
        assert settled(scene) == [], past
    assert history(scene) == []
    assert [str(p.call) for p in scene.proxy.writes() if p.code == 422] == [], "nothing of the past was refused"


def test_what_was_never_seen_is_taken_from_what_is_there(scene):
    """F4: servers go and come, a Job ends, while the watch brings nothing; the events between are lost."""
    scene.operator()
    scene.begin()
    scene.play(0)
    scene.proxy.freeze(lambda call: is_watch(call) and call.resource in ("jobs", "pods", "deployments"))
    before = made(scene)
    deployment = scene.all("deployments")[0]["metadata"]["name"]
    path = f"/apis/apps/v1/namespaces/{scene.namespace}/deployments/{deployment}"
    for replicas in (0, 1):
        body = {"spec": {"replicas": replicas}}
        scene.plane.request("PATCH", path, body, kind="application/merge-patch+json")
        scene.wait(
            lambda wanted=replicas: scene.all("deployments")[0]["status"].get("readyReplicas", 0) == wanted,
            f"{replicas} servers",
        )
    commit = scene.commit(1)
    scene.wait(
        lambda: len(scene.all("jobs")) == 2 and all(_ended(j) for j in scene.all("jobs")), "the Job has ended"
    )
    # What was kept back is lost with its connection; the list that follows shows the last state only.
    scene.proxy.on(is_watch, Answer(410, "Expired"), times=3)
    scene.proxy.cut()
    scene.proxy.thaw()
    scene.wait(lambda: scene.has(commit, "GateFailed"), "the verdict")

    assert made(scene) - before == Counter({"jobs": 1, "modelrevisions": 1})
    assert sum(scene.player.trained.values()) == 2
    assert history(scene) == []


def _ended(job):
    return any(c["type"] == "Complete" for c in (job.get("status") or {}).get("conditions", ()))


@pytest.mark.parametrize(
    "how",
    [
        pytest.param("silent", id="open and silent"),
        pytest.param("cut", id="cut in the middle of a line, again and again"),
    ],
)
def test_a_deaf_watch_is_noticed_and_a_new_start_finds_all(scene, how):
    """F5."""
    operator = scene.operator(DEAF_AFTER="5")
    scene.begin()
    scene.play(0)
    if how == "silent":
        scene.proxy.freeze(is_watch)
        said = scene.wait(
            lambda: (answer := operator.ask("/healthz")) is not None and answer.status_code == 503 and answer.text,
            "the probe says so",
            30,
        )
        assert said.startswith("the watch is deaf")
        scene.commit(1)
        # As the kubelet does when the probe fails.
        scene.kill()
        scene.proxy.thaw()
    else:
        for _ in range(3):
            scene.wait(lambda: scene.proxy.cut(is_watch, half=True) > 3, "watches are cut")
    commit = scene.commit(2)
    scene.wait(lambda: scene.has(commit, "Succeeded"), "the canary has ended")
    assert history(scene) == []


@pytest.mark.parametrize(
    "alter",
    [
        pytest.param(repeated(3), id="every event comes three times"),
        pytest.param(swapped(), id="every second event comes before the one that came first"),
        pytest.param(ends_with(GONE, 2), id="the watch is too old after every second event"),
    ],
)
def test_repeated_reordered_and_expired_events_change_nothing(scene, alter):
    """F6, F7."""
    scene.operator()
    scene.proxy.on(is_watch, alter, times=None)
    scene.begin()
    for number in range(4):
        scene.play(number)

    assert settled(scene) == []
    assert history(scene) == []
    assert made(scene) == Counter({"jobs": 3, "modelrevisions": 3, "deployments": 3})
    altered = [p for p in scene.proxy.calls(is_watch) if p.fault == "Alter"]
    assert len(altered) > 7
