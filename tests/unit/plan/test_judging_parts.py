"""Gates by slice, by group, against a baseline, by the trainer's word, by a report, by expression; dry runs."""

from __future__ import annotations

from typing import Any

import pytest

from controller.api.gates import Gate
from controller.api.modelrevision import Artifact, Evidence
from controller.api.modelspec import ModelSpecSpec
from controller.plan import gates, pinning
from controller.plan.verdict import passed_of, worst

CHAMPION = "sha256:" + "c" * 64
ARTIFACT = Artifact(digest="sha256:" + "a" * 64, uri="mlflow:/r/model", format="skops", size_bytes=3 * 2**20)


def spread(gain: float, width: float) -> list[float]:
    """Quantiles at SLICE_GRID of a gain that is known to +- width."""
    return [gain + width * (i - 6) / 6 if i < 6 else gain + width * (i - 6) / 9 for i in range(16)]


def part(
    value: str,
    rows: int,
    metric: float | None = 0.8,
    champion: float | None = 0.78,
    width: float = 0.01,
    **more: Any,
):
    gain = 0.0 if metric is None or champion is None else metric - champion
    return {
        "value": value,
        "rows": rows,
        "metric": metric,
        "champion": champion,
        "absolute": spread(gain, width),
        **more,
    }


def slices(*table: dict[str, Any], column: str = "country", **more: Any) -> dict[str, Any]:
    return {"slices": [{"column": column, "metric": "recall", "table": list(table), **more}]}


def group(value: str, rows: int, positive: int, selected: int, both: int) -> dict[str, Any]:
    return {"value": value, "rows": rows, "positive": positive, "selected": selected, "truePositive": both}


def groups(*table: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"groups": [{"column": "gender", "table": list(table), **more}]}


FAIR = [group("f", 500, 200, 200, 160), group("m", 1500, 600, 660, 510)]


def scan(**counts: int) -> dict[str, Any]:
    return {"scans": [{"path": "scan.sarif", "format": "SARIF", "counts": counts}]}


def evidence(**changes: Any) -> Evidence:
    base: dict[str, Any] = {
        "artifact": ARTIFACT.digest,
        "holdout": "sha256:" + "b" * 64,
        "champion": CHAMPION,
        "runtime": "sim",
        "checksHash": "v1:checks",
        "task": "Classification",
        "holdoutRows": 2000,
        "trainingRows": 8000,
        "metrics": [
            {"name": "f1", "value": 0.8, "champion": 0.75},
            {"name": "recall", "value": 0.8, "champion": 0.78},
            {"name": "roc_auc", "note": "the model gives no class probabilities"},
        ],
        "baselines": [
            {"dummy": "MostFrequent", "values": {"f1": 0.5, "recall": 1.0}},
            {"dummy": "Prior", "values": {"f1": 0.0}},
        ],
        "trainer": {"f1": 0.99, "churn.score": 0.91, "accuracy": 1.7},
        "report": "sha256:" + "d" * 64,
    }
    return Evidence.model_validate({**base, **changes})


SLICED = {"metric": "recall", "slices": ["country"], "minRows": 300}
SURE = {"margin": -0.01, "mode": "Absolute", "confidence": 0.95}

CASES: dict[str, tuple[dict[str, Any], dict[str, Any], str, str, list[str]]] = {
    "a model that beats its baseline passes with both numbers": (
        {"metric": "f1", "baseline": {"dummy": "MostFrequent"}, "margin": 0.1},
        {},
        "Passed",
        "MarginMet",
        ["f1 0.8 against 0.5 of the baseline MostFrequent on 2,000 hold-out rows: improvement +0.3, needed +0.1"],
    ),
    "a model that is hardly better than nothing fails": (
        {"metric": "f1", "baseline": {"dummy": "MostFrequent"}, "margin": 0.7, "mode": "Relative"},
        {},
        "Failed",
        "MarginMissed",
        ["improvement +60.00%, needed +70.00%"],
    ),
    "a share of a baseline of 0 says nothing": (
        {"metric": "f1", "baseline": {"dummy": "Prior"}, "margin": 0.1, "mode": "Relative"},
        {},
        "Inconclusive",
        "BaselineNotPositive",
        ["f1 of the baseline is 0"],
    ),
    "evidence of before baselines were measured is renewed": (
        {"metric": "f1", "baseline": {"dummy": "Prior"}},
        {"baselines": []},
        "Inconclusive",
        "EvidenceOutdated",
        ["not measured yet"],
    ),
    "a limit that holds in every slice passes and names the nearest": (
        {**SLICED, "min": 0.7},
        slices(part("DE", 900, 0.8), part("FR", 700, 0.75), part("LU", 20, 0.1)),
        "Passed",
        "WithinLimits",
        [
            "recall holds in all 2 slices; the worst is 0.75 >= 0.7 in country=FR with 700 rows",
            "1 slice of fewer than 300 rows (20 rows together) not judged",
        ],
    ),
    "a limit that one slice misses fails with the worst": (
        {**SLICED, "min": 0.7},
        slices(part("DE", 900, 0.8), part("FR", 700, 0.65), part("", 400, 0.6)),
        "Failed",
        "BelowMinimum",
        ["recall misses in 2 of 3 slices; the worst is 0.6 < 0.7 in country=(missing) with 400 rows"],
    ),
    "too few rows in every slice pass nothing": (
        {**SLICED, "min": 0.7},
        slices(part("DE", 200, 0.8), part("FR", 100, 0.9)),
        "Inconclusive",
        "TooFewRows",
        ["no slice by country has 300 hold-out rows; the largest has 200"],
    ),
    "a large slice that was not measured is not passed over": (
        {**SLICED, "min": 0.7},
        slices(part("DE", 900, 0.8), leftOut={"count": 60, "rows": 20_000, "most": 350}),
        "Inconclusive",
        "TooManySlices",
        ["country has 61 values, and only the 1 largest are measured; one of 350 rows is not"],
    ),
    "a column that is not there fails": (
        {**SLICED, "min": 0.7},
        slices(note="the hold-out has no column country"),
        "Failed",
        "SlicesNotComputable",
        ["slices by country: the hold-out has no column country"],
    ),
    "a slice in which the metric is undefined fails": (
        {**SLICED, "min": 0.7},
        slices(part("DE", 900), part("FR", 400, None, note="no row is positive")),
        "Failed",
        "MetricMissing",
        ["country=FR with 400 rows, which has no value: no row is positive"],
    ),
    "slices that were not asked for yet are measured": (
        {**SLICED, "min": 0.7},
        {},
        "Inconclusive",
        "EvidenceOutdated",
        ["recall by country was not measured yet"],
    ),
    "no slice worse than the champion passes, with the correction": (
        {**SLICED, "champion": SURE},
        slices(part("DE", 900), part("FR", 700)),
        "Passed",
        "MarginMet",
        [
            "lower bounds at 95.0% confidence, upper ones at 97.50% each, corrected for 2 slices (Bonferroni)",
            "improvement +0.02, needed -0.01, between",
        ],
    ),
    "a slice that is worse beyond doubt fails": (
        {**SLICED, "champion": SURE},
        slices(part("DE", 900), part("FR", 700, 0.7, 0.8, 0.02)),
        "Failed",
        "MarginMissed",
        ["misses in 1 of 2 slices; the worst is 0.7 against the champion's 0.8 in country=FR"],
    ),
    "a slice that may be worse decides nothing": (
        {**SLICED, "champion": SURE},
        slices(part("DE", 900), part("FR", 700, 0.78, 0.8, 0.1)),
        "Inconclusive",
        "MarginUncertain",
        ["is not decided in 1 of 2 slices; the worst is 0.78 against the champion's 0.8"],
    ),
    "a slice that seems no worse but on too few rows decides nothing, and says how many would": (
        {**SLICED, "champion": SURE},
        slices(part("DE", 900), part("FR", 700, 0.8, 0.8, 0.1)),
        "Inconclusive",
        "MarginUncertain",
        ["improvement +0, needed -0.01, between -0.05 and +0.04444; about 17,500 such rows would decide"],
    ),
    "without a confidence the measured improvement decides": (
        {**SLICED, "champion": {"margin": -0.01}},
        slices(part("DE", 900), part("FR", 700, 0.78, 0.8, 0.1)),
        "Failed",
        "MarginMissed",
        ["improvement -0.02, needed -0.01"],
    ),
    "groups that are treated alike pass": (
        {"fairness": "EqualizedOddsDifference", "by": "gender", "max": 0.1, "minRows": 300},
        groups(*FAIR, group("x", 3, 1, 1, 1)),
        "Passed",
        "WithinLimits",
        [
            "EqualizedOddsDifference by gender 0.05 <= 0.1: true positive rate from 0.8 (gender=f, 500 rows) to "
            "0.85 (gender=m, 1,500 rows)",
            "1 group of fewer than 300 rows (3 rows together) left out",
        ],
    ),
    "groups that are not treated alike fail": (
        {"fairness": "DemographicParityRatio", "by": "gender", "min": 0.95},
        groups(*FAIR),
        "Failed",
        "BelowMinimum",
        ["DemographicParityRatio by gender 0.9091 < 0.95: selection rate from 0.4 (gender=f"],
    ),
    "one group only cannot be fair": (
        {"fairness": "DemographicParityDifference", "by": "gender", "max": 0.1},
        groups(FAIR[0]),
        "Failed",
        "FairnessNotComputable",
        ["two groups are needed, there is only gender=f with 500 rows"],
    ),
    "a second group of one row cannot be compared": (
        {"fairness": "DemographicParityDifference", "by": "gender", "max": 0.1},
        groups(FAIR[0], group("m", 1, 1, 1, 1)),
        "Failed",
        "FairnessNotComputable",
        ["1 group of fewer than 100 rows (1 rows together) left out"],
    ),
    "a protected column that is not there fails": (
        {"fairness": "DemographicParityDifference", "by": "gender", "max": 0.1},
        groups(note="the hold-out has no column gender"),
        "Failed",
        "FairnessNotComputable",
        ["the hold-out has no column gender"],
    ),
    "groups that were not asked for yet are counted": (
        {"fairness": "DemographicParityDifference", "by": "gender", "max": 0.1},
        {},
        "Inconclusive",
        "EvidenceOutdated",
        ["the groups of gender were not counted yet"],
    ),
    "a report without serious findings passes and says whose it is": (
        {"report": {"path": "scan.sarif", "maxSeverity": "Medium"}},
        scan(Medium=3, Low=10),
        "Passed",
        "WithinLimits",
        ["no finding above Medium in the SARIF report scan.sarif that the training left: 3 Medium, 10 Low"],
    ),
    "a report with a serious finding fails": (
        {"report": {"path": "scan.sarif", "maxSeverity": "Medium"}},
        scan(Critical=1, High=2, Low=10),
        "Failed",
        "SeverityExceeded",
        ["3 findings above Medium in the SARIF report scan.sarif that the training left: 1 Critical, 2 High, 10"],
    ),
    "a finding of unknown severity may be the worst": (
        {"report": {"path": "scan.sarif", "maxSeverity": "High"}},
        scan(Unknown=1),
        "Failed",
        "SeverityExceeded",
        ["1 finding above High"],
    ),
    "a report that is not there fails": (
        {"report": {"path": "scan.sarif", "maxSeverity": "High"}},
        {"scans": [{"path": "scan.sarif", "note": "the training left no such file in MAINSPRING_OUTPUT"}]},
        "Failed",
        "ReportNotReadable",
        ["scan.sarif: the training left no such file"],
    ),
    "the trainer's number is judged and shown as his": (
        {"metric": "churn.score", "from": "Trainer", "direction": "Higher", "min": 0.9},
        {},
        "Passed",
        "WithinLimits",
        ["churn.score 0.91 >= 0.9, by the trainer's own word, which nobody checked"],
    ),
    "a number that the trainer did not write fails with those there are": (
        {"metric": "loss", "from": "Trainer", "direction": "Lower", "max": 0.9},
        {"trainerNote": "metrics.json was not read: it is not JSON in UTF-8"},
        "Failed",
        "MetricMissing",
        ["the trainer wrote no loss; there are: accuracy, churn.score, f1 (metrics.json was not read"],
    ),
    "a number that cannot be is none": (
        {"metric": "accuracy", "from": "Trainer", "direction": "Higher", "min": 0.9},
        {},
        "Failed",
        "MetricOutOfRange",
        ["the trainer's accuracy 1.7 cannot be"],
    ),
    "the trainer's number never stands for ours": (
        {"metric": "f1", "min": 0.9},
        {},
        "Failed",
        "BelowMinimum",
        ["f1 0.8 < 0.9"],
    ),
    "an expression passes with the values it used": (
        {"cel": "metrics.f1 >= 0.8 && improvement.f1 > 0.01 && data.holdout.rows >= 2000"},
        {},
        "Passed",
        "ExpressionTrue",
        ["is true with metrics.f1 = 0.8, improvement.f1 = 0.05, data.holdout.rows = 2000"],
    ),
    "an expression that is false fails": (
        {"cel": "model.sizeBytes < 1000"},
        {},
        "Failed",
        "ExpressionFalse",
        ["model.sizeBytes < 1000 is false with model.sizeBytes = 3,145,728"],
    ),
    "an expression over what was not measured fails": (
        {"cel": "!(metrics.roc_auc < 0.9)"},
        {},
        "Failed",
        "ExpressionError",
        ["there is no value roc_auc", "metrics.roc_auc = missing"],
    ),
    "an expression about another champion waits for new evidence": (
        {"cel": "champion.f1 < 0.9"},
        {"champion": "sha256:" + "e" * 64},
        "Inconclusive",
        "EvidenceOutdated",
        ["compares with another champion"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_gate_judges(case: str) -> None:
    rule, changes, outcome, reason, words = CASES[case]
    gate = Gate.model_validate({"name": "g", **rule})
    (verdict,) = gates.judge([gate], evidence(**changes), ARTIFACT, CHAMPION)
    assert (verdict.outcome, verdict.reason) == (outcome, reason), verdict.message
    for text in words:
        assert text in verdict.message, verdict.message


def test_a_dry_run_is_shown_and_decides_nothing() -> None:
    dry = Gate.model_validate({"name": "try", "metric": "f1", "min": 0.99, "dryRun": True})
    real = Gate.model_validate({"name": "real", "metric": "f1", "min": 0.5})
    found = gates.judge([dry, real], evidence(), ARTIFACT, CHAMPION)
    assert [(v.gate, v.outcome, v.dry_run) for v in found] == [("try", "Failed", True), ("real", "Passed", False)]
    assert (worst(found), passed_of(found)) == ("Passed", (1, 1))


def test_a_dry_run_asks_for_no_measurement() -> None:
    dry = Gate.model_validate(
        {"name": "try", "fairness": "EqualizedOddsRatio", "by": "gender", "min": 0.8, "dryRun": True}
    )
    (found,) = gates.judge([dry], evidence(), ARTIFACT, CHAMPION)
    assert found.reason == "NotMeasured"


def test_a_dry_run_against_the_champion_does_not_take_the_place_of_the_default_comparison() -> None:
    rule = {"name": "try", "metric": "f1", "champion": {"margin": 0.5}, "dryRun": True}
    names = [g.name for g in gates.effective_gates([Gate.model_validate(rule)])]
    assert names == ["try", "not-worse-than-champion"]


def test_the_trainers_metric_is_not_compared_with_the_champion_by_default() -> None:
    rule = {"name": "said", "metric": "f1", "from": "Trainer", "direction": "Higher", "min": 0.5}
    assert [g.name for g in gates.effective_gates([Gate.model_validate(rule)])] == ["said"]


def test_a_revision_that_was_admitted_is_not_compared_again_by_an_expression_either() -> None:
    rules = [{"name": "a", "cel": "improvement.f1 > 0.0"}, {"name": "b", "cel": "metrics.f1 > 0.5"}]
    kept = gates.absolute_only([Gate.model_validate(r) for r in rules])
    assert [g.name for g in kept] == ["b"]


SPEC: dict[str, Any] = {
    "source": {"url": "https://git.example.com/churn.git", "ref": {"branch": "main"}},
    "data": [{"name": "train", "path": "train.csv"}],
    "columns": {"target": "churned"},
    "training": {"command": ["python", "train.py"]},
}
ASKED: list[dict[str, Any]] = [
    {"name": "slices", "metric": "recall", "min": 0.7, "slices": ["country", "age"]},
    {"name": "fair", "fairness": "EqualizedOddsDifference", "by": "gender", "max": 0.1},
    {"name": "scan", "report": {"path": "scan.sarif", "maxSeverity": "Low"}},
]


def hashes_of(*rules: dict[str, Any]) -> tuple[str, str, str]:
    spec = ModelSpecSpec.model_validate({**SPEC, "gates": list(rules)})
    return pinning.gate_hash(spec), pinning.checks_hash(spec), pinning.measures(spec).hash


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        pytest.param({0: {"min": 0.8}}, (True, False, False), id="a limit is judged again"),
        pytest.param({0: {"minRows": 50}}, (True, False, False), id="fewest rows are judged again"),
        pytest.param(
            {1: {"fairness": "EqualizedOddsRatio", "max": None, "min": 0.8}},
            (True, False, False),
            id="another measure of fairness",
        ),
        pytest.param(
            {2: {"report": {"path": "scan.sarif", "maxSeverity": "High"}}}, (True, False, False), id="severity"
        ),
        pytest.param({0: {"slices": ["country"]}}, (False, False, True), id="other slices are measured"),
        pytest.param({1: {"by": "region"}}, (False, False, True), id="other groups are counted"),
        pytest.param(
            {2: {"report": {"path": "b.json", "maxSeverity": "Low"}}},
            (False, False, True),
            id="another report is read",
        ),
        pytest.param({0: {"metric": "precision"}}, (True, False, True), id="another metric by slice is both"),
    ],
)
def test_a_change_of_a_gate_judges_again_or_measures_again(
    change: dict[int, Any], moved: tuple[bool, ...]
) -> None:
    after = [
        {k: v for k, v in {**rule, **change.get(i, {})}.items() if v is not None} for i, rule in enumerate(ASKED)
    ]
    assert tuple(a != b for a, b in zip(hashes_of(*ASKED), hashes_of(*after), strict=True)) == moved


def test_nothing_asked_for_has_no_hash_so_that_evidence_of_before_stays_good() -> None:
    assert hashes_of({"name": "a", "metric": "f1", "min": 0.5})[2] == ""
