"""Gates judge evidence: what passes, what fails, what nobody can tell yet, and the words that people read."""

from __future__ import annotations

from typing import Any

import pytest

from controller.api.gates import Gate
from controller.api.modelrevision import Artifact, Evidence
from controller.plan import gates

CHAMPION = "sha256:" + "c" * 64
SPREAD = [-3.0, -2.5, -2.0, -1.5, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 5.5, 6.0, 6.5, 7.0]


def evidence(**changes: Any) -> Evidence:
    base: dict[str, Any] = {
        "artifact": "sha256:" + "a" * 64,
        "holdout": "sha256:" + "b" * 64,
        "champion": CHAMPION,
        "runtime": "sim",
        "checksHash": "v1:checks",
        "task": "Regression",
        "holdoutRows": 2000,
        "trainingRows": 8000,
        "metrics": [
            {
                "name": "rmse",
                "value": 48.0,
                "champion": 50.0,
                "absolute": SPREAD,
                "relative": [s / 50 for s in SPREAD],
            },
            {"name": "r2", "value": 0.8, "champion": -0.1, "absolute": SPREAD},
            {"name": "mae", "note": "the model left no predictions"},
        ],
        "probe": {"requests": 200, "p50Ms": 2.0, "p95Ms": 41.0, "p99Ms": 60.0},
        "report": "sha256:" + "d" * 64,
    }
    return Evidence.model_validate({**base, **changes})


ARTIFACT = Artifact(digest="sha256:" + "a" * 64, uri="mlflow:/r/model", format="skops", size_bytes=3 * 2**20)

CASES: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "a value within its limits passes": (
        {"metric": "rmse", "max": 50},
        "Passed",
        "WithinLimits",
        "rmse 48 <= 50 on 2,000 hold-out rows",
    ),
    "a value above its limit fails with both numbers": (
        {"metric": "rmse", "max": 40},
        "Failed",
        "AboveMaximum",
        "rmse 48 > 40 on 2,000 hold-out rows",
    ),
    "a value below its limit fails": (
        {"metric": "r2", "min": 0.9},
        "Failed",
        "BelowMinimum",
        "r2 0.8 < 0.9 on 2,000 hold-out rows",
    ),
    "a metric that never arrived fails and names those present": (
        {"metric": "mape", "max": 1},
        "Failed",
        "MetricMissing",
        "mape was not measured; there are: rmse, r2, mae",
    ),
    "a metric without a value fails and says why": (
        {"metric": "mae", "max": 1},
        "Failed",
        "MetricMissing",
        "mae has no value: the model left no predictions",
    ),
    "a margin that is met passes": (
        {"metric": "rmse", "champion": {"margin": 1}},
        "Passed",
        "MarginMet",
        "rmse 48 against the champion's 50 on the same 2,000 rows: improvement +2, needed +1",
    ),
    "a margin that is missed fails": (
        {"metric": "rmse", "champion": {"margin": 0.05, "mode": "Relative"}},
        "Failed",
        "MarginMissed",
        "rmse 48 against the champion's 50 on the same 2,000 rows: improvement +4.00%, needed +5.00%",
    ),
    "a relative margin needs a champion above zero": (
        {"metric": "r2", "champion": {"margin": 0.05, "mode": "Relative"}},
        "Inconclusive",
        "ChampionNotPositive",
        "r2 of the champion is -0.1; a relative margin needs one above 0",
    ),
    "a lower bound above the margin passes with confidence": (
        {"metric": "rmse", "champion": {"margin": -2, "confidence": 0.95}},
        "Passed",
        "MarginMet",
        "rmse 48 against the champion's 50 on the same 2,000 rows: improvement +2, needed -2; "
        "at 95.0% confidence between -1.5 and +5.5",
    ),
    "an upper bound below the margin fails with confidence": (
        {"metric": "rmse", "champion": {"margin": 6, "confidence": 0.95}},
        "Failed",
        "MarginMissed",
        "rmse 48 against the champion's 50 on the same 2,000 rows: improvement +2, needed +6; "
        "at 95.0% confidence between -1.5 and +5.5",
    ),
    "a margin inside the interval is inconclusive and says how many rows would decide": (
        {"metric": "rmse", "champion": {"margin": 1, "confidence": 0.95}},
        "Inconclusive",
        "MarginUncertain",
        "rmse 48 against the champion's 50 on the same 2,000 rows: improvement +2, needed +1; "
        "at 95.0% confidence between -1.5 and +5.5; about 24,500 hold-out rows would decide",
    ),
    "latency above its limit fails and names how it was measured": (
        {"probe": {"p95": "40ms", "maxModelSize": "10Mi"}},
        "Failed",
        "ProbeLimit",
        "size 3.0 MiB <= 10Mi, p95 41 ms > 40ms (200 requests of one row)",
    ),
    "a model that is too large fails": (
        {"probe": {"maxModelSize": "1Mi"}},
        "Failed",
        "ProbeLimit",
        "size 3.0 MiB > 1Mi (200 requests of one row)",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_gate_judges(name: str) -> None:
    fields, outcome, reason, message = CASES[name]
    gate = Gate.model_validate({"name": "g", **fields})
    (verdict,) = gates.judge([gate], evidence(), ARTIFACT, CHAMPION)
    assert (verdict.outcome, verdict.reason, verdict.message) == (outcome, reason, message)


AGAINST_CHAMPION = Gate.model_validate({"name": "g", "metric": "rmse", "champion": {"margin": 0}})


def test_a_first_model_passes_champion_gates_unless_one_is_required() -> None:
    (verdict,) = gates.judge([AGAINST_CHAMPION], evidence(champion=""), ARTIFACT, "")
    assert (verdict.outcome, verdict.reason) == ("Passed", "NoChampion")
    required = Gate.model_validate({"name": "g", "metric": "rmse", "champion": {"required": True}})
    (verdict,) = gates.judge([required], evidence(champion=""), ARTIFACT, "")
    assert (verdict.outcome, verdict.reason) == ("Failed", "NoChampion")


def test_evidence_against_another_champion_decides_nothing() -> None:
    (verdict,) = gates.judge([AGAINST_CHAMPION], evidence(), ARTIFACT, "sha256:" + "e" * 64)
    assert (verdict.outcome, verdict.reason) == ("Inconclusive", "EvidenceOutdated")


def test_a_champion_that_has_seen_the_holdout_is_no_yardstick() -> None:
    (verdict,) = gates.judge([AGAINST_CHAMPION], evidence(championSeenFraction=0.02), ARTIFACT, CHAMPION)
    assert (verdict.outcome, verdict.reason) == ("Inconclusive", "ChampionSawHoldout")
    assert verdict.message == "the champion was trained on 2.0% of the hold-out rows (limit 1 %)"


def test_all_gates_are_judged_even_when_the_first_has_failed() -> None:
    wanted = [
        Gate.model_validate({"name": "one", "metric": "rmse", "max": 1}),
        Gate.model_validate({"name": "two", "metric": "rmse", "max": 100}),
    ]
    verdicts = gates.judge(wanted, evidence(), ARTIFACT, CHAMPION)
    assert [(v.gate, v.outcome) for v in verdicts] == [("one", "Failed"), ("two", "Passed")]


def test_without_a_champion_gate_not_being_worse_is_asked_for() -> None:
    added = gates.effective_gates([Gate.model_validate({"name": "floor", "metric": "rmse", "max": 100})])
    assert [g.name for g in added] == ["floor", "not-worse-than-champion"]
    (_, verdict) = gates.judge(added, evidence(), ARTIFACT, CHAMPION)
    assert verdict.outcome == "Inconclusive"
    assert "needed -2.00%" in verdict.message


def test_data_checks_are_one_verdict_more() -> None:
    passed = {"name": "rows", "outcome": "Passed", "message": "10,000 rows"}
    failed = {"name": "nulls", "outcome": "Failed", "message": "check nulls failed: 3 of 10 are null"}
    (verdict,) = gates.judge_checks(evidence(checks=[passed]), "v1:checks")
    assert (verdict.outcome, verdict.message) == ("Passed", "1 of 1 checks passed on 10,000 rows")
    (verdict,) = gates.judge_checks(evidence(checks=[passed, failed]), "v1:checks")
    assert (verdict.outcome, verdict.message) == (
        "Failed",
        "1 of 2 checks failed: check nulls failed: 3 of 10 are null",
    )
    (verdict,) = gates.judge_checks(evidence(checks=[passed]), "v1:others")
    assert (verdict.outcome, verdict.reason) == ("Inconclusive", "EvidenceOutdated")
