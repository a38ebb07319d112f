"""The table of bad metrics and gate records, M01 to M16: nothing that a trainer writes or forges passes a gate.

What the trainer says is told beside what was measured; what was not measured, or measured on something else, never
passes by comparison.
"""

from __future__ import annotations

import json

import pytest

from controller.api.base import dump
from controller.api.gates import Gate
from controller.api.hashes import sha256
from controller.api.reports import Termination
from controller.plan import gates
from controller.plan.verdict import Refused
from controller.reconcile.jobs import read_report
from tests.corpus import standing
from tests.unit.jobs import test_evaluate
from tests.unit.plan.test_judging import ARTIFACT, CHAMPION, evidence

world = test_evaluate.world
LEFT_OUT = "metrics.json: 1 entries were left out"
NOT_READ = "metrics.json was not read"

WRITTEN = [
    ("M01-an empty file", b"", NOT_READ),
    ("M01-two objects", b'{"a": 1} {"a": 2}', NOT_READ),
    ("M01-a comma too many", b'{"a": 1,}', NOT_READ),
    ("M01-UTF-16", '{"a": 1}'.encode("utf-16"), NOT_READ),
    ("M02-NaN", b'{"a": NaN}', LEFT_OUT),
    ("M02-Infinity", b'{"a": -Infinity}', LEFT_OUT),
    ("M02-nan as text", b'{"a": "nan"}', LEFT_OUT),
    ("M02-null", b'{"a": null}', LEFT_OUT),
    ("M03-a number as text", b'{"a": "0.91"}', LEFT_OUT),
    ("M03-true", b'{"a": true}', LEFT_OUT),
    ("M03-a list", b'{"a": [0.91]}', LEFT_OUT),
    ("M03-an object", b'{"a": {"v": 0.91}}', LEFT_OUT),
    ("M04-a number beyond all numbers", b'{"a": 1e400}', LEFT_OUT),
    ("M06-more than a megabyte", b" " * 1_048_577, NOT_READ),
    ("M06-10,000 levels", b"[" * 10_000 + b"]" * 10_000, NOT_READ),
    ("M06-a name twice", b'{"a": 1, "a": 2}', NOT_READ),
    ("M07-a name of 1,000 characters", json.dumps({"a" * 1000: 1}).encode(), LEFT_OUT),
]


@pytest.mark.parametrize(("content", "note"), [pytest.param(*rest, id=name) for name, *rest in WRITTEN])
def test_what_a_trainer_writes_wrongly_is_told_and_counts_for_nothing(world, content, note):
    (world.paths.output / "metrics.json").write_bytes(content)
    assert world.run() == 0
    assert not [n for n in world.runs.metrics if n.startswith("trainer.")]
    assert [n for n in world.report.notes if n.startswith(note)], world.report.notes
    assert world.metric("rmse").value > 4
    standing.report_is(standing.with_report(notes=world.report.notes), "", "", promotes=True)


def test_m08_a_metric_that_claims_to_be_the_gates_is_kept_apart(world):
    (world.paths.output / "metrics.json").write_text('{"rmse": 0.0, "mainspring.rmse": 0.0}')
    assert world.run() == 0
    assert world.runs.metrics["rmse"] == world.metric("rmse").value > 4
    worse = {"name": "rmse", "value": 70.0, "champion": 60.0, "absolute": [-10.0] * 15, "relative": [-0.1] * 15}
    claims = {"metrics": [worse], "trainer": {"rmse": 0.0, "mainspring.rmse": 0.0}}
    standing.report_is(standing.with_report(evidence=claims), "GateFailed", "gate not-worse: rmse 70")


def test_m11_a_champion_that_cannot_predict_any_more_is_no_yardstick(world):
    world.with_champion(world.noisy(10))
    (world.paths.predictions_champion / "predictions.parquet").unlink()
    assert world.run() == 0
    found = world.metric("rmse")
    assert (found.champion, found.absolute) == (None, None)
    (verdict,) = gates.judge(
        [Gate.model_validate({"name": "g", "metric": "rmse", "champion": {"margin": 0}})],
        world.report.evidence,
        ARTIFACT,
        world.task["champion"],
    )
    assert verdict.outcome != "Passed"
    assert "no usable predictions" in verdict.message
    alone = {"metrics": [dump(found)]}
    standing.report_is(standing.with_report(evidence=alone), "GateInconclusive", "no usable predictions")


ABSOLUTE = [
    ("M02-no value", {"metric": "mae", "max": 1}, {}, "Failed"),
    ("M04-the limit itself", {"metric": "rmse", "max": 48.0}, {}, "Passed"),
    ("M04-just above", {"metric": "rmse", "max": 47.9999999999}, {}, "Failed"),
    ("M09-the first model", {"metric": "rmse", "champion": {"margin": 1}}, {"champion": ""}, "Passed"),
    (
        "M10-a champion that was measured in another evaluation",
        {"metric": "rmse", "champion": {"margin": 1}},
        {"champion": "sha256:" + "9" * 64},
        "Inconclusive",
    ),
    (
        "M12-inside the noise",
        {"metric": "rmse", "champion": {"margin": 1, "confidence": 0.95}},
        {},
        "Inconclusive",
    ),
    ("M13-no latency was measured", {"probe": {"p95": "40ms"}}, {"probe": None}, "Failed"),
]


def judged_so(gate, changes, outcome):
    """Judge the same once more where a champion serves."""
    measured = {k: v for k, v in dump(evidence(**changes)).items() if k in ("metrics", "probe")}
    change = standing.with_report(evidence={"probe": None, **measured})
    reason = {"Failed": "GateFailed", "Inconclusive": "GateInconclusive"}.get(outcome, "")
    if "champion" in changes:
        # It is measured once more, against the champion of now, and judged by that.
        foreign = standing.with_report(evidence={"champion": changes["champion"]})
        reports = iter([foreign])
        change, reason = (lambda data: next(reports, bytes)(data)), ""
    standing.report_is(change, reason, "", promotes=not reason, gates=[{"name": "g", **gate}])


@pytest.mark.parametrize(
    ("gate", "changes", "outcome"), [pytest.param(*rest, id=name) for name, *rest in ABSOLUTE]
)
def test_a_gate_never_passes_by_what_is_not_there(gate, changes, outcome):
    champion = "" if changes.get("champion") == "" else CHAMPION
    (verdict,) = gates.judge([Gate.model_validate({"name": "g", **gate})], evidence(**changes), ARTIFACT, champion)
    assert verdict.outcome == outcome, verdict
    assert verdict.message.isprintable()
    judged_so(gate, {k: v for k, v in changes.items() if v != ""}, outcome)


def test_m05_a_number_that_cannot_be_is_none():
    gate = {"name": "g", "metric": "accuracy", "from": "Trainer", "direction": "Higher", "min": 0.9}
    claims = {"metrics": {"accuracy": 1.7}}
    change = standing.with_report(evidence={"trainer": claims["metrics"]})
    (verdict,) = gates.judge([Gate.model_validate(gate)], evidence(trainer=claims["metrics"]), ARTIFACT, CHAMPION)
    assert (verdict.outcome, verdict.reason) == ("Failed", "MetricOutOfRange")
    assert "the trainer's accuracy 1.7 cannot be" in verdict.message
    standing.report_is(change, "GateFailed", "gate g: the trainer's accuracy 1.7 cannot be", gates=[gate])


RECORDS = [
    ("M14-the record of another artifact", "bikes-0000000000", "r1", lambda data: data, "speaks of"),
    ("M14-the record of another run", "line-1", "r2", lambda data: data, "speaks of|cannot be read"),
    ("M16-half a record", "line-1", "r1", lambda data: data[: len(data) // 2], "has digest"),
    ("M16-no record", "line-1", "r1", lambda data: b"", "has digest"),
    ("M16-two records", "line-1", "r1", lambda data: data + data, "has digest"),
]


@pytest.mark.parametrize(
    ("revision", "run", "change", "words"), [pytest.param(*rest, id=name) for name, *rest in RECORDS]
)
def test_only_the_record_that_the_evaluator_named_counts(world, revision, run, change, words):
    assert world.run() == 0
    data = world.runs.files["mainspring/report.json"]
    said = Termination(outcome="Done", run=run, sha256=sha256(data))
    found = read_report(change(data), said, revision)
    assert isinstance(found, Refused)
    assert any(word in found.message for word in words.split("|")), found.message
    others = {"revision": revision} if revision != "line-1" else {"run": run} if run != "r1" else {}
    named = standing.with_report(**others)
    standing.report_is(lambda right: change(named(right)), "ReportInvalid", "the report ", forged=not others)
