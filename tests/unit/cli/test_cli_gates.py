"""`mainspring gates`, `compare` and `trace`: why a model was let through, what differs, where it comes from."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controller.api.meta import Key
from tests.support.cli_session import mainspring, model, refused, serving, snapshot, tell
from tests.support.simulation import Simulation

FIRST, WORSE = "bikes-dd1196040a", "bikes-4b78198ae3"


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    state = tmp_path_factory.mktemp("state")
    tell(state, refused)
    return state


def test_gates_show_what_they_ask_and_how_they_judge_challenger_and_champion(told):
    answer = mainspring(told, "gates", "bikes")
    assert answer.code == 0, answer.err
    assert answer.lines == [
        "Gates of modelspec/bikes",
        "GATE          ASKS",
        "good-enough   rmse <= 100",
        "not-worse     rmse against the champion >= +0",
        "",
        f"Challenger {WORSE}: Failed, on 1,729 hold-out rows",
        "GATE          OUTCOME   REASON         MESSAGE",
        "good-enough   Failed    AboveMaximum   rmse 120 > 100 on 1,729 hold-out rows",
        "not-worse     Failed    MarginMissed   rmse 120 against the champion's 60 on the same 1,729 rows: "
        "improvement -60, needed +0",
        "",
        f"Champion {FIRST}, on 1,729 hold-out rows, by the gates of now; "
        "what compares with the champion is left out",
        "GATE          OUTCOME   REASON         MESSAGE",
        "good-enough   Passed    WithinLimits   rmse 60 <= 100 on 1,729 hold-out rows",
    ]


def test_gates_of_one_revision_as_json_have_its_evidence(told):
    found = json.loads(mainspring(told, "gates", WORSE, "-o", "json").out)
    (one,) = found["revisions"]
    assert one["revision"] == WORSE
    assert one["evidence"]["metrics"][0]["value"] == 120
    assert [v["outcome"] for v in one["verdicts"]] == ["Failed", "Failed"]


KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "by slice": (
        {"metric": "rmse", "max": 150, "slices": ["weekday"], "minRows": 300},
        "rmse <= 150 in every slice by weekday of 300 rows",
    ),
    "against a baseline": (
        {"metric": "rmse", "baseline": {"dummy": "Mean"}, "margin": 0.2, "mode": "Relative"},
        "rmse against the baseline Mean >= +20.00%",
    ),
    "by the trainer's word": (
        {"metric": "loss", "from": "Trainer", "direction": "Lower", "max": 2, "dryRun": True},
        "the trainer's loss <= 2 (dry run)",
    ),
    "by a report": (
        {"report": {"path": "scan.sarif", "maxSeverity": "Low"}},
        "no finding above Low in scan.sarif",
    ),
    "by an expression": ({"cel": "metrics.rmse <\n  75.0"}, "metrics.rmse < 75.0"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_gate_says_what_it_asks(tmp_path, kind):
    rule, words = KINDS[kind]

    async def story(s: Simulation) -> None:
        await s.store.apply(model(gates=[{"name": "g", **rule}]))

    tell(tmp_path, story)
    answer = mainspring(tmp_path, "gates", "bikes")
    assert f"g      {words}" in answer.lines or f"g                         {words}" in answer.lines, answer.out
    assert answer.lines[-1] == "nothing was judged yet"


def test_a_dry_run_is_marked(tmp_path):
    async def story(s: Simulation) -> None:
        s.git.commit("Predict bikes", {"train.py": b"fit()", "quality": b"60", "data.csv": b"1,2"})
        await s.store.apply(model(gates=[{"name": "tight", "metric": "rmse", "max": 1, "dryRun": True}]))
        await s.run(60)

    tell(tmp_path, story)
    for verb in (("gates", "bikes"), ("explain", "modelspec/bikes")):
        assert "Failed (dry run)" in mainspring(tmp_path, *verb).out


@pytest.mark.parametrize("names", [(FIRST, WORSE), ("c506f45", "80a9605"), (f"modelrevision/{FIRST}", "80a9605")])
def test_two_revisions_or_commits_are_compared(told, names):
    answer = mainspring(told, "compare", *names)
    assert answer.code == 0, answer.err
    words = [" ".join(line.split()) for line in answer.lines]
    assert words[0] == f"{FIRST} and {WORSE}"
    assert "Both were measured on the same 1,729 hold-out rows." in words
    assert "rmse 60 120 worse by 60" in words
    assert any(w.startswith("files ") for w in words)
    assert not any(w.startswith(("command", "seed")) for w in words), "what is the same is not shown"


def test_a_revision_is_the_same_as_itself(told):
    answer = mainspring(told, "compare", FIRST, FIRST)
    assert "the same inputs" in answer.lines


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bikes-0000000000", 'no revision "bikes-0000000000" in namespace default; there is: '),
        ("ffffffff", "was first made by commit ffffffff; there is: bikes-dd1196040a (c506f45), "),
    ],
)
def test_what_is_not_there_is_said_with_what_is(told, name, words):
    answer = mainspring(told, "compare", name, FIRST)
    assert answer.code == 1
    assert words in answer.err


def test_one_commit_of_two_models_needs_a_name(tmp_path):
    async def story(s: Simulation) -> None:
        await serving(s)
        await s.store.apply(model("trikes"))
        await s.run(60)

    tell(tmp_path, story)
    answer = mainspring(tmp_path, "compare", "c506f45", "c506f45")
    assert answer.code == 2
    assert "; say which" in answer.err


@pytest.mark.parametrize(
    "link", ["modelspec/bikes", "run", "deployment", "job", "commit/c506f45", f"mrev/{FIRST}"]
)
def test_a_chain_is_found_from_any_of_its_links(told, link):
    chain = json.loads(mainspring(told, "trace", "modelspec/bikes", "-o", "json").out)[0]
    links = {entry["link"]: entry["value"] for entry in chain["links"]}
    names = {
        "run": f"run/{links['run'].removeprefix('mlflow:/')}",
        "deployment": f"deployment/{links['server'].partition(',')[0]}",
        "job": f"job/{links['job'].partition(',')[0]}",
    }
    answer = mainspring(told, "trace", names.get(link, link))
    assert answer.code == 0, answer.err
    assert answer.lines[0] == f"Trace of modelrevision/{FIRST}"
    assert answer.lines[-1] == "  every digest fits the next link"
    text = " ".join(answer.out.split())
    for part in (
        "commit c506f45",
        "data train gitblob:",
        "version 1 of bikes",
        "1 of 1 servers ready, 100% of the requests",
    ):
        assert part in text


def test_a_server_of_other_bytes_is_found_out(tmp_path):
    async def story(s: Simulation) -> None:
        await serving(s)
        (server,) = await s.store.list("Deployment")
        other = "sha256:" + "0" * 64
        await s.store.annotate(
            Key("Deployment", "default", server["metadata"]["name"]), {"mainspring.dev/digest": other}
        )
        template = server["spec"]["template"]["metadata"]
        assert "mainspring.dev/digest" in {
            **(server["metadata"].get("annotations") or {}),
            **(template.get("annotations") or {}),
        }

    tell(tmp_path, story)
    answer = mainspring(tmp_path, "trace", "modelspec/bikes")
    assert answer.code == 1
    assert "DOES NOT FIT: bikes-dd1196040a" in answer.out


@pytest.mark.parametrize(
    ("target", "code", "words"),
    [
        ("bikes", 2, "write KIND/NAME: modelspec, modelrevision, deployment, job, pod, run, commit"),
        ("run/unknown", 1, "no revision in namespace default is of run unknown"),
        ("pod/unknown", 1, "pod/unknown in namespace default is not there or of no known revision"),
    ],
)
def test_a_link_that_leads_nowhere_is_told(told, target, code, words):
    answer = mainspring(told, "trace", target)
    assert (answer.code, words in answer.err) == (code, True), answer.err


def test_the_tables_behind_slices_are_kept_and_shown(tmp_path):
    async def story(s: Simulation) -> None:
        s.git.commit("Predict bikes", {"train.py": b"fit()", "quality": b"60", "data.csv": b"1,2"})
        rule = {"name": "g", "metric": "rmse", "max": 150, "slices": ["weekday"]}
        await s.store.apply(model(gates=[rule]))
        await s.run(60)

    tell(tmp_path, story)
    words = [" ".join(line.split()) for line in mainspring(tmp_path, "explain", f"modelrevision/{FIRST}").lines]
    start = words.index("rmse by weekday")
    assert words[start + 1 : start + 3] == ["SLICE ROWS VALUE CHAMPION", "weekend 500 70"]


def test_a_plan_says_that_more_is_asked_than_was_measured(told, tmp_path):
    rule = {"name": "g", "metric": "rmse", "max": 150, "slices": ["weekday"]}
    file = tmp_path / "model.yaml"
    file.write_text(json.dumps(model(gates=[rule])))
    answer = mainspring(told, "plan", "-f", str(file))
    assert "(rmse by weekday): gates ask for what was not measured" in answer.out


def test_looking_back_writes_nothing(told):
    before = snapshot(told)
    for verb in (("gates", "bikes"), ("compare", FIRST, WORSE), ("trace", "modelspec/bikes")):
        mainspring(told, *verb)
    assert snapshot(told) == before
