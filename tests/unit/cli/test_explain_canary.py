"""`mainspring explain` shows what a canary has measured, check by check and step by step."""

from __future__ import annotations

from controller.api.modelstatus import AnalysisStatus, CheckResult, StepNumbers
from controller.cli.explain_canary import lines

TOLD = AnalysisStatus(
    revision="bikes-b",
    weight=50,
    since="2026-03-02T08:02:30Z",
    passed="1/2",
    checks=(
        CheckResult(name="errors", metric="request-error-rate", outcome="Passed", reason="Passed", message="fine"),
        CheckResult(
            name="volume", metric="volume", outcome="Failed", reason="TooFewRequests", message="few", built_in=True
        ),
        CheckResult(name="p99", metric="x", outcome="Failed", reason="AboveMaximum", message="slow", dry_run=True),
    ),
    steps=(
        StepNumbers(weight=10, requests=60, champion_requests=540, numbers={"errors": 0.0, "p99": 0.0213}),
        StepNumbers(weight=50, requests=1300, numbers={"errors": 0.01}),
    ),
)


def test_every_check_and_every_step_is_shown() -> None:
    assert lines(TOLD) == [
        "",
        "Measured in the canary of bikes-b, at 50% since 2026-03-02T08:02:30Z",
        "  CHECK    OUTCOME             MESSAGE",
        "  errors   Passed              fine",
        "  volume   Failed (built in)   few",
        "  p99      Failed (dry run)    slow",
        "",
        "Its steps",
        "  WEIGHT   REQUESTS   CHAMPION'S   FIGURES",
        "  10%      60         540          errors 0, p99 0.0213",
        "  50%      1,300                   errors 0.01",
    ]


def test_nothing_is_shown_without_a_canary() -> None:
    assert lines(None) == []
