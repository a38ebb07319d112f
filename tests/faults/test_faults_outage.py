"""The API server goes away and comes back: the process stays up, what serves is not touched, all converge (F11).

Half a minute here; `make faults` lets it be away for ten.
"""

from __future__ import annotations

import time

from tests.faults.ending import settled
from tests.faults.outage import STANDS_BY_WITHIN_S, outage
from tests.support.mlflow_shared import tracking_uri

AWAY_S = 30.0
CONVERGED_WITHIN_S = 60.0


def test_away_in_the_middle_of_a_training_the_process_stays_up_and_all_converges(
    control_plane, namespace, tmp_path
):
    found = outage(control_plane, namespace, tmp_path, tracking_uri(), AWAY_S)

    assert found.wrong == []
    assert found.looks > 10
    assert 0 < found.converged_s < CONVERGED_WITHIN_S


def test_an_api_server_that_takes_requests_and_never_answers_is_away_too(scene):
    operator = scene.operator()
    scene.begin()
    scene.play(0)
    scene.proxy.freeze(lambda call: True)
    begun = time.monotonic()
    scene.wait(lambda: operator.ready_as("standby"), "it stands by", STANDS_BY_WITHIN_S)
    stood_by_s = time.monotonic() - begun
    commit = scene.commit(2)
    kept_back = len(scene.proxy.writes())
    # What the process tries now is kept back too; none of it may be a write of a replica that does not lead.
    scene.wait(lambda: time.monotonic() - begun > STANDS_BY_WITHIN_S + 5, "time has passed")

    assert stood_by_s < STANDS_BY_WITHIN_S
    assert len(scene.proxy.writes()) == kept_back
    assert operator.ask("/healthz").text == "alive\n"
    scene.proxy.thaw()
    scene.wait(lambda: scene.has(commit, "Succeeded"), "all converges", CONVERGED_WITHIN_S)
    assert scene.starts == 1


def test_a_slow_api_server_makes_it_slow_and_nothing_else(scene):
    scene.operator()
    scene.proxy.throttle(20_000)
    scene.begin()
    scene.play(0)
    scene.play(2)

    expected = {"champion": "better", "ready": "Succeeded", "trainings": {"better": 1, "first": 1}}
    assert settled(scene, expected) == []
    assert scene.starts == 1
