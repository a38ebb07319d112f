"""One canary step: a breach needs no patience, a pass needs its interval and its requests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.api.conditions import timestamp
from controller.api.modelstatus import ChallengerStatus
from controller.api.rollout import Canary
from controller.plan.canary import Live, Step, begin
from controller.plan.canary import judge_step as judged
from controller.plan.figures import percentile, since, summed
from controller.plan.verdict import Unknown

BEGAN = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
RULE = Canary.model_validate(
    {
        "stepWeights": [10, 50],
        "interval": "60s",
        "progressDeadlineSeconds": 600,
        "analysis": [
            {"name": "errors", "metric": "request-error-rate", "max": 0.01},
            {"name": "latency", "metric": "request-duration-p95", "maxDuration": "100ms"},
        ],
    }
)
CHALLENGER = ChallengerStatus(
    revision="bikes-b", stage="Canary", step=0, weight=10, since=timestamp(BEGAN), started_at=timestamp(BEGAN)
)


def judge_step(rule: Canary, challenger: ChallengerStatus, traffic: Any, ready: int, now: datetime) -> Step:
    return judged(rule, challenger, Live(traffic=traffic, beside={}, ready=ready), now)


def counted(requests: float, errors: float = 0.0, slow: float = 0.0) -> dict[str, float]:
    return {
        "p-0|requests": requests,
        "p-0|errors": errors,
        "p-0|le=0.05": requests - slow,
        "p-0|le=0.5": requests,
        "p-0|le=inf": requests,
    }


CASES: dict[str, tuple[Any, float, int, str, str]] = {
    "inside the interval it holds": (counted(100), 30, 1, "Hold", "Progressing"),
    "after the interval with good numbers it goes on": (counted(100), 61, 1, "Next", "AnalysisPassed"),
    "errors above the limit roll back at once": (counted(100, errors=2), 5, 1, "RollBack", "AnalysisFailed"),
    "slow answers roll back at once": (counted(100, slow=20), 5, 1, "RollBack", "AnalysisFailed"),
    "few errors of too few requests decide nothing yet": (counted(19, errors=1), 5, 1, "Hold", "Progressing"),
    "no request at all passes": (counted(0), 61, 1, "Next", "NoTraffic"),
    "some but too few requests hold": (counted(5), 61, 1, "Hold", "TooFewRequests"),
    "too few requests until the deadline roll back": (counted(5), 601, 1, "RollBack", "TooFewRequests"),
    "unknown numbers hold, they are never zero": (Unknown("X", "no answer"), 61, 1, "Hold", "TelemetryUnknown"),
    "unknown numbers until the deadline roll back": (
        Unknown("X", "no answer"),
        601,
        1,
        "RollBack",
        "ProgressDeadlineExceeded",
    ),
    "a challenger without a ready server holds": (counted(100), 61, 0, "Hold", "TelemetryUnknown"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_step_is_judged(name: str) -> None:
    traffic, after_s, ready, do, reason = CASES[name]
    step = judge_step(RULE, CHALLENGER, traffic, ready, BEGAN + timedelta(seconds=after_s))
    assert (step.do, step.reason) == (do, reason)


def test_a_breach_says_the_numbers_and_the_limit() -> None:
    step = judge_step(RULE, CHALLENGER, counted(100, errors=2), 1, BEGAN + timedelta(seconds=5))
    assert step.message == "canary 10% of bikes-b: errors: error rate 2.0% > 1.0% of 100 requests"


def test_only_what_was_counted_in_the_step_is_judged() -> None:
    before = CHALLENGER.model_copy(update={"counters": counted(1000, errors=500)})
    step = judge_step(RULE, before, counted(1100, errors=500), 1, BEGAN + timedelta(seconds=61))
    assert step.do == "Next"


def test_a_server_that_was_started_anew_counts_from_zero() -> None:
    assert since({"p|requests": 7.0}, {"p|requests": 100.0}) == {"p|requests": 7.0}


def test_a_percentile_is_read_inside_its_bucket() -> None:
    counts = {"p|le=0.1": 50.0, "p|le=0.2": 100.0, "p|le=inf": 100.0}
    assert percentile(summed(counts), 0.95) == pytest.approx(0.19)
    assert percentile({"le=0.1": 0.0, "le=inf": 0.0}, 0.95) is None


def measured(**changes: Any) -> Canary:
    """Build a rule with three measurements of 20 s in a step."""
    rule = {
        "interval": "60s",
        "measureEvery": "20s",
        "analysis": [
            {"name": "errors", "metric": "request-error-rate", "max": 0.05, "failureLimit": 2},
            {"name": "same", "metric": "disagreement", "max": 0.1, "minRequests": 1000},
        ],
        **changes,
    }
    return Canary.model_validate(rule)


def looks(rule: Canary, counts: list[tuple[float, dict[str, float]]]) -> list[Step]:
    """Look at a step at several moments, each with what the look before has remembered."""
    challenger = CHALLENGER.model_copy(update=begin(rule, Live(traffic=counted(0), beside={}, ready=1), BEGAN))
    steps = []
    for after_s, traffic in counts:
        steps.append(
            judged(rule, challenger, Live(traffic=traffic, beside={}, ready=1), BEGAN + timedelta(seconds=after_s))
        )
        challenger = steps[-1].challenger
    return steps


def test_a_check_fails_once_in_a_measurement_however_often_it_is_looked_at() -> None:
    bad = counted(40, errors=10)
    steps = looks(measured(), [(5, bad), (6, bad), (19, bad), (20, bad), (21, bad), (30, counted(70, errors=10))])
    assert [s.do for s in steps] == ["Hold"] * 6
    assert steps[-1].challenger.failures == {"errors": 1}
    assert steps[-1].message.endswith("70 requests so far; errors failed in 1 of 2 measurements")


def test_failed_measurements_add_up_although_another_check_still_waits() -> None:
    steps = looks(measured(), [(20, counted(40, errors=10)), (40, counted(80, errors=20))])
    assert [s.do for s in steps] == ["Hold", "RollBack"]
    assert "errors: error rate 25.0% > 5.0% of 40 requests (2 failed measurements)" in steps[-1].message


def test_a_measurement_goes_on_until_it_has_enough_requests() -> None:
    steps = looks(
        measured(), [(20, counted(5, errors=5)), (25, counted(30, errors=5)), (26, counted(60, errors=5))]
    )
    assert [s.challenger.failures.get("errors", 0) for s in steps] == [0, 1, 1]
    assert [s.challenger.measurement.since for s in steps if s.challenger.measurement] == [
        timestamp(BEGAN),
        timestamp(BEGAN + timedelta(seconds=25)),
        timestamp(BEGAN + timedelta(seconds=25)),
    ]


def test_a_step_that_ends_between_two_measurements_goes_by_those_that_ended() -> None:
    rule = measured(analysis=[{"name": "errors", "metric": "request-error-rate", "max": 0.05}])
    steps = looks(rule, [(50, counted(40)), (61, counted(45))])
    assert (steps[-1].do, steps[-1].results[0].reason) == ("Next", "MeasuredBefore")


DOUBTS = {"Hold": ("Hold", 61), "Promote": ("Next", 61), "Rollback": ("RollBack", 61)}


@pytest.mark.parametrize("asked", DOUBTS)
def test_what_cannot_be_judged_ends_as_asked(asked: str) -> None:
    do, after_s = DOUBTS[asked]
    rule = RULE.model_copy(update={"on_inconclusive": asked})
    step = judge_step(rule, CHALLENGER, counted(5), 1, BEGAN + timedelta(seconds=after_s))
    assert (step.do, step.reason) == (do, "TooFewRequests")


BESIDE: dict[str, tuple[dict[str, Any], dict[str, float], str, str]] = {
    "as good as the champion": (
        {"metric": "request-error-rate", "champion": {"margin": 0}},
        counted(100, errors=5),
        "Passed",
        "error rate 5.0% of 100 requests, champion 5.0% of 1000: improvement +0.00 points, needed +0.00",
    ),
    "worse than chance explains": (
        {"metric": "request-error-rate", "champion": {"margin": -0.01}},
        counted(100, errors=25),
        "Failed",
        "error rate 25.0% of 100 requests, champion 5.0% of 1000: improvement -20.00 points, needed -1.00",
    ),
    "worse, and perhaps by chance": (
        {"metric": "request-error-rate", "champion": {"margin": -0.01}},
        counted(100, errors=8),
        "Inconclusive",
        "error rate 8.0% of 100 requests, champion 5.0% of 1000: improvement -3.00 points, needed -1.00; "
        "so few requests may differ by chance",
    ),
    "slower than the margin allows": (
        {"metric": "request-duration-p95", "champion": {"margin": -0.2, "mode": "Relative"}},
        counted(100, slow=50),
        "Failed",
        "p95 455 ms, champion 48 ms: improvement -857.9%, needed -20.0%",
    ),
}


@pytest.mark.parametrize("what", BESIDE)
def test_a_figure_is_held_to_the_champions_of_the_same_time(what: str) -> None:
    check, traffic, outcome, message = BESIDE[what]
    rule = Canary.model_validate({"interval": "60s", "analysis": [{"name": "a", **check}]})
    champion = {k.replace("p-0", "c-0"): v for k, v in counted(1000, errors=50).items()}
    before = dict.fromkeys(champion, 0.0) | {"c-0|requests": 0.0}
    challenger = CHALLENGER.model_copy(update={"beside": before})
    live = Live(traffic=traffic, beside=champion, ready=1)
    found = judged(rule, challenger, live, BEGAN + timedelta(seconds=30)).results[0]
    assert (found.outcome, found.message) == (outcome, message)


def test_a_champion_whose_figures_are_unknown_leaves_the_comparison_open() -> None:
    rule = Canary.model_validate(
        {"interval": "60s", "analysis": [{"name": "a", "metric": "prediction-drift", "max": 0.1}]}
    )
    live = Live(traffic=counted(100), beside=Unknown("X", "no answer"), ready=1)
    step = judged(rule, CHALLENGER, live, BEGAN + timedelta(seconds=61))
    assert (step.do, step.reason) == ("Hold", "AnalysisInconclusive")
    assert "the champion's figures could not be read" in step.message
