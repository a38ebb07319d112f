"""`mainspring explain`: what is served, from which commit, on which data, why it was let through, what blocks."""

from __future__ import annotations

import json

import pytest

from controller.api.meta import API_VERSION
from tests.support.cli_session import failed, mainspring, model, put, refused, serving, tell

FIRST = "bikes-dd1196040a"


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """One state per story, told once."""
    known = {}

    def tell_once(story):
        if story not in known:
            known[story] = tmp_path_factory.mktemp(story.__name__)
            tell(known[story], story)
        return known[story]

    return tell_once


def test_one_screen_says_what_serves_from_where_on_what_and_why(told):
    out = mainspring(told(serving), "explain", "mspec/bikes").out
    assert f"\n  revision      {FIRST}, version 1, 100% of the requests, since 2026-03-02T08:00:30Z (" in out
    assert "\n  commit        c506f45455933c98fab1a4caebd8be4c950a14e5\n" in out
    assert "\n  data          train gitblob:2219fecb861ae82ba2706e49a065c8d155e9f2a6\n" in out
    assert "\n  trained       because of first commit c506f45: Predict bikes\n" in out
    assert "\n  let through   2 of 2 gates passed: rmse 60 on 1,729 hold-out rows\n" in out
    assert "\n  url           http://127.0.0.1:8080/default/bikes\n" in out
    assert "\n  author     Jo Doe <jo@example.com>\n" in out


def test_every_gate_is_shown_with_its_numbers(told):
    lines = mainspring(told(serving), "explain", "bikes").lines
    at = lines.index(f"Gates over {FIRST}: Passed, admitted")
    assert lines[at + 1 : at + 4] == [
        "  GATE          OUTCOME   MESSAGE",
        "  good-enough   Passed    rmse 60 <= 100 on 1,729 hold-out rows",
        "  not-worse     Passed    first model of this name: there is no champion to compare with",
    ]
    assert lines[-1] == "Next: mainspring predict bikes --data rows.csv"


@pytest.mark.parametrize(
    ("columns", "rows"),
    [(["temp", "hr"], '--row \'{"temp": "…", "hr": "…"}\''), (["a", "b", "c", "d", "e"], "--data rows.csv")],
    ids=["a few columns are written out", "many come from a file"],
)
def test_the_example_of_a_prediction_has_the_columns_that_the_checks_name(columns, rows, tmp_path):
    checks = [{"name": "columns", "schema": {"columns": [*columns, "bikers"]}}]
    ready = condition("Ready", "True", "Succeeded", "serves")
    status = {"observedGeneration": 1, "stage": "Serving", "conditions": [ready], "champion": {"revision": FIRST}}
    put(tmp_path, model(checks=checks), statuses={"bikes": status})
    assert mainspring(tmp_path, "explain", "bikes").lines[-1] == f"Next: mainspring predict bikes {rows}"


def test_a_refusal_says_the_numbers_first_and_that_the_champion_stays(told):
    answer = mainspring(told(refused), "explain", "bikes")
    assert answer.lines[0].startswith("ModelSpec bikes in namespace default: not Ready, GateFailed, for ")
    assert answer.lines[1] == (
        "Blocked: bikes-4b78198ae3 was refused: gate good-enough: rmse 120 > 100 on 1,729 hold-out rows; "
        "gate not-worse: rmse 120 against the champion's 60 on the same 1,729 rows: improvement -60, needed +0. "
        f"{FIRST} keeps serving."
    )
    assert f"\n  revision      {FIRST}, version 1, 100% of the requests" in answer.out
    assert "\nGates over bikes-4b78198ae3: Failed\n" in answer.out
    assert answer.lines[-1].startswith("Next: mainspring history bikes   # then push a better commit")


def test_a_failed_training_shows_the_last_words_of_its_step(told, tmp_path):
    state = told(failed)
    pods = state / "pods" / "default"
    for attempt, step, words in ((1, "train", "an older attempt"), (2, "fetch", "done"), (2, "train", "")):
        directory = pods / f"bikes-d494407cfd-train-{attempt}-0"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{step}.log").write_text(words)
    many = "".join(f"line {n}\n" for n in range(1, 41)) + "ValueError: no such column: \x1b[31mtemp\n"
    (pods / "bikes-d494407cfd-train-2-0" / "train.log").write_text(many)
    lines = mainspring(state, "explain", "bikes").lines
    at = lines.index("Last words of step train of bikes-d494407cfd")
    shown = lines[at + 1 : lines.index("", at)]
    assert len(shown) == 15
    assert shown[0] == "  | line 27"
    assert shown[-1] == "  | ValueError: no such column: \N{REPLACEMENT CHARACTER}[31mtemp"
    assert lines[-1] == "Next: mainspring logs modelspec/bikes --step train"


def test_the_newest_eight_events_are_shown_newest_last(told):
    lines = mainspring(told(refused), "explain", "bikes").lines
    at = lines.index("Events")
    rows = lines[at + 2 : lines.index("", at)]
    assert len(rows) == 8
    assert "bikes-4b78198ae3 was refused: gate good-enough" in rows[-1]


def test_a_revision_says_what_it_was_made_from_and_measured(told):
    out = mainspring(told(refused), "explain", "mrev/bikes-4b78198ae3").out
    assert "\n  because of   commit 80a9605: Try a shallow tree\n" in out
    assert "\n  inputs       v1:4b78198ae3" in out
    assert "\nMeasured on 1,729 hold-out rows, 6,916 training rows\n" in out
    assert "\n  rmse     120     60\n" in out
    assert out.endswith("Next: mainspring explain modelspec/bikes   # whether it may serve\n")


def test_a_failed_revision_lists_its_attempts(told):
    out = mainspring(told(failed), "explain", "bikes-d494407cfd").out
    said = "the training program ended with exit code 1: ValueError: no such column: temp"
    assert f"\n  1    Failed    TrainingFailed   {said}\n" in out
    assert f"\n  2    Failed    TrainingFailed   {said}\n" in out


def test_json_has_the_status_the_events_and_the_next_command(told):
    found = json.loads(mainspring(told(refused), "explain", "bikes", "-o", "json").out)
    assert found["status"]["champion"]["revision"] == FIRST
    assert [v["outcome"] for v in found["status"]["judgement"]["verdicts"]] == ["Failed", "Failed"]
    assert found["events"][-1]["reason"] == "GateFailed"
    assert found["next"].startswith("mainspring history bikes")


def condition(type_, status, reason, message):
    moment = "2026-03-02T08:00:00Z"
    return {"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": moment}


REPOSITORY = {
    "apiVersion": API_VERSION,
    "kind": "ModelRepository",
    "metadata": {"name": "team"},
    "spec": {"url": "https://git.example.com/team/models.git", "ref": {"branch": "main"}, "path": "prod"},
}


def test_a_repository_names_its_objects_and_the_position_of_every_problem(tmp_path):
    text = "1 of 2 files were not applied; prod/b.yaml: 7:3: spec.gates: wrong"
    status = {
        "observedGeneration": 1,
        "revision": "main@sha1:c506f45455933c98fab1a4caebd8be4c950a14e5",
        "subject": "Add bees",
        "conditions": [
            condition("Ready", "False", "InvalidFile", text),
            condition("Stalled", "True", "InvalidFile", text),
        ],
        "objects": [{"kind": "ModelSpec", "name": "ants", "file": "prod/a.yaml"}],
        "problems": [{"file": "prod/b.yaml", "severity": "Error", "message": "7:3: spec.gates: wrong"}],
    }
    put(tmp_path, REPOSITORY, statuses={"team": status})
    out = mainspring(tmp_path, "explain", "mrepo/team").out
    assert f"\nBlocked: {text}\n" in out
    assert "\n  source     https://git.example.com/team/models.git, main, path prod\n" in out
    assert "\n  modelspec/ants   prod/a.yaml\n" in out
    assert "\n  prod/b.yaml:7:3: spec.gates: wrong (Error)\n" in out
    assert out.endswith("Next: mainspring validate   # in a clone of the repository; then push\n")


@pytest.mark.parametrize(
    ("spec", "status", "said", "following"),
    [
        ({}, None, "not looked at yet", "mainspring up   # nobody has looked at the object yet"),
        (
            {"suspend": True},
            {
                "observedGeneration": 1,
                "conditions": [condition("Ready", "False", "Suspended", "spec.suspend is true")],
            },
            "\n  suspended   yes: nothing is decided\n",
            "mainspring resume modelspec/bikes",
        ),
        (
            {},
            {
                "observedGeneration": 1,
                "stage": "Training",
                "conditions": [condition("Ready", "False", "Training", "…")],
            },
            "\nServed\n  nothing yet\n",
            "mainspring logs modelspec/bikes",
        ),
        (
            {},
            {
                "observedGeneration": 1,
                "stage": "Canary",
                "conditions": [condition("Ready", "False", "Progressing", "canary 10%")],
                "challenger": {"revision": "bikes-2", "stage": "Canary", "weight": 10, "step": 0, "since": "now"},
            },
            "\n  weight     10% of the requests, step 1 of 2\n",
            "mainspring get modelspec/bikes --watch",
        ),
    ],
    ids=["never looked at", "suspended", "training", "in a canary"],
)
def test_the_next_command_fits_how_the_model_stands(spec, status, said, following, tmp_path):
    put(tmp_path, model(**spec), statuses={"bikes": status} if status else None)
    answer = mainspring(tmp_path, "explain", "bikes")
    assert said in answer.out
    assert answer.lines[-1] == f"Next: {following}"


def test_a_change_that_nobody_has_looked_at_is_said(tmp_path):
    ready = {**condition("Ready", "True", "Succeeded", "serves"), "observedGeneration": 1}
    put(tmp_path, model(), statuses={"bikes": {"observedGeneration": 1, "conditions": [ready]}})
    put(tmp_path, model(suspend=True))
    out = mainspring(tmp_path, "explain", "bikes").out
    assert "\nThe object was changed since; the controller has not looked at the change yet.\n" in out


def test_a_name_that_several_objects_have_needs_its_kind(tmp_path):
    put(tmp_path, model("team"), REPOSITORY)
    answer = mainspring(tmp_path, "explain", "team")
    assert answer.code == 2
    assert answer.err == 'error: "team" is the name of modelspec/team and modelrepository/team; say which\n'
