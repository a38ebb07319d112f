"""`mainspring history` and `mainspring logs`: what was decided, and what programs have written."""

from __future__ import annotations

import asyncio
import json

import pytest

from controller.cli.history import show_ledger
from controller.cli.output import Form
from controller.plan.ledger import Ledger
from tests.support.cli_session import mainspring, model, put, refused, tell


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    state = tmp_path_factory.mktemp("state")
    return state, tell(state, refused)


def test_every_decision_is_listed_with_its_number_and_numbers(told, capsys):
    ledger = asyncio.run(told[1].world.ledger.read("bikes", "default"))
    show_ledger(ledger, Form.TEXT)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["SEQ", "AT", "DECISION", "REVISION", "COMMIT", "VERSION", "REASON"]
    assert [line.split()[:6] for line in lines[1:]] == [
        ["1", "2026-03-02T08:00:30Z", "Admitted", "bikes-dd1196040a", "c506f45", "1"],
        ["2", "2026-03-02T08:00:30Z", "Promoted", "bikes-dd1196040a", "c506f45", "1"],
        ["3", "2026-03-02T08:01:30Z", "Rejected", "bikes-4b78198ae3", "80a9605", "2"],
    ]
    assert "GateFailed: gate good-enough: rmse 120 > 100" in lines[3]


def test_json_has_whole_entries_and_the_champion(told, capsys):
    ledger = asyncio.run(told[1].world.ledger.read("bikes", "default"))
    show_ledger(ledger, Form.JSON)
    found = json.loads(capsys.readouterr().out)
    assert (found["source"], found["champion"]) == ("ledger", "bikes-dd1196040a")
    assert [e["seq"] for e in found["entries"]] == [1, 2, 3]
    assert found["entries"][2]["gates"][0]["message"] == "rmse 120 > 100 on 1,729 hold-out rows"


def test_entries_that_do_not_count_are_warned_of(capsys):
    show_ledger(Ledger(problems=("Ledger entry 2 is ignored: not signed by a trusted key.",)), Form.TEXT)
    shown = capsys.readouterr()
    assert shown.out == "no decision yet: the ledger is empty\n"
    assert shown.err == "warning: Ledger entry 2 is ignored: not signed by a trusted key.\n"


def test_without_a_registry_the_objects_are_asked_and_that_is_said(told):
    answer = mainspring(told[0], "history", "bikes")
    assert answer.code == 0
    assert answer.err.startswith("the registry does not answer (")
    assert answer.err.endswith("); this is what the objects remember\n")
    assert answer.lines[1].split()[1:] == [
        *("Champion", "bikes-dd1196040a", "c506f45", "1"),
        *("since", "2026-03-02T08:00:30Z,", "gates", "2/2"),
    ]
    assert answer.lines[2].split()[1:5] == ["Rejected", "bikes-4b78198ae3", "80a9605", "2"]


def test_what_the_objects_remember_comes_as_json_too(told):
    found = json.loads(mainspring(told[0], "history", "bikes", "-o", "json").out)
    assert (found["source"], found["champion"]) == ("objects", "bikes-dd1196040a")
    assert [e["kind"] for e in found["entries"]] == ["Champion", "Rejected"]


@pytest.fixture
def written(tmp_path):
    status = {
        "observedGeneration": 1,
        "source": {"revision": "main@sha1:1", "commit": "1", "wanted": "bikes-0123456789"},
        "champion": {"revision": "bikes-aaaaaaaaaa"},
    }
    put(tmp_path, model(), statuses={"bikes": status})
    pods = tmp_path / "pods" / "default"
    for pod, name, text in (
        ("bikes-0123456789-train-2-0", "fetch", "two\n"),
        ("bikes-0123456789-train-10-0", "train", "fitting\ndone\n"),
        ("bikes-0123456789-train-10-0", "fetch", "ten\n"),
        ("bikes-0123456789-train-10-0", "evaluate", "rmse 60\n"),
        ("bikes-aaaaaaaaaa-0a1b2c-0", "server", "GET /health/ready\n"),
    ):
        (pods / pod).mkdir(parents=True, exist_ok=True)
        (pods / pod / f"{name}.log").write_text(text)
    return tmp_path


def test_the_newest_attempt_is_shown_step_by_step_in_order(written):
    title = "bikes-0123456789, attempt 10, step"
    assert mainspring(written, "logs", "bikes").lines == [
        *(f"==> {title} fetch <==", "ten", ""),
        *(f"==> {title} train <==", "fitting", "done", ""),
        *(f"==> {title} evaluate <==", "rmse 60"),
    ]


def test_one_step_is_shown_bare_and_only_its_last_lines(written):
    assert mainspring(written, "logs", "bikes", "--step", "train", "--lines", "1").out == "done\n"


def test_servers_have_logs_too(written):
    assert mainspring(written, "logs", "bikes", "--servers").out == "GET /health/ready\n"


def test_a_step_that_wrote_nothing_is_answered_with_those_that_did(written):
    answer = mainspring(written, "logs", "bikes", "--step", "predict")
    assert answer.code == 1
    assert answer.err == (
        "error: attempt 10 of bikes-0123456789 has no log of step predict; there is: fetch, train, evaluate\n"
    )


def test_a_model_without_a_training_says_where_to_look(tmp_path):
    put(tmp_path, model())
    answer = mainspring(tmp_path, "logs", "bikes")
    assert (
        answer.err == "error: modelspec/bikes has asked for no training yet; mainspring explain modelspec/bikes\n"
    )
