"""One canary step: a breach needs no patience, a pass needs its interval and its requests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.api.conditions import timestamp
from controller.api.modelstatus import ChallengerStatus
from controller.api.rollout import Canary
from controller.plan.canary import Live, Step
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
