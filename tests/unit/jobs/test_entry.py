"""The frame of every step: exit codes and the words that a person finds in the status of a failed Job."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.reports import PredictTask, Termination
from controller.clients.errors import Conflict, Denied, NotFound, Unavailable
from controller.jobs.entry import TryAgain, WrongInput, bounded, read_task, run_step


def raising(error):
    async def work():
        raise error

    return work


@pytest.fixture
def log(tmp_path, monkeypatch):
    path = tmp_path / "termination"
    monkeypatch.setenv("MAINSPRING_TERMINATION_LOG", str(path))
    return path


@pytest.mark.parametrize(
    ("error", "code", "outcome", "reason"),
    [
        pytest.param(WrongInput("DataInvalid", "no"), 3, "Invalid", "DataInvalid", id="wrong input is final"),
        pytest.param(Denied("no", reason="HostNotAllowed"), 3, "Invalid", "HostNotAllowed", id="refused is final"),
        pytest.param(NotFound("no"), 3, "Invalid", "NotFound", id="not there is final"),
        pytest.param(Unavailable("no"), 1, "Failed", "Unavailable", id="no answer is tried again"),
        pytest.param(Conflict("no"), 1, "Failed", "Conflict", id="a conflict is tried again"),
        pytest.param(TryAgain("Busy", "no"), 1, "Failed", "Busy", id="tried again by its own word"),
        pytest.param(MemoryError(), 1, "Failed", "OutOfMemory", id="memory has a name"),
        pytest.param(OSError(28, "No space left on device", "/a/b"), 1, "Failed", "SystemError", id="a full disk"),
        pytest.param(KeyError("x"), 1, "Failed", "StepFailed", id="a bug is tried again"),
    ],
)
def test_how_a_step_ends(log, capsys, error, code, outcome, reason):
    assert run_step("fetch", raising(error)) == code
    said = json.loads(log.read_text())
    assert (said["outcome"], said["reason"]) == (outcome, reason)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"fetch: {reason}: ")


def test_a_bug_leaves_its_traceback_in_the_log_and_not_in_the_message(log, capsys):
    run_step("fetch", raising(ZeroDivisionError("division by zero")))
    out = capsys.readouterr()
    assert "Traceback" in out.out
    assert "Traceback" not in out.err
    assert json.loads(log.read_text())["message"] == "ZeroDivisionError: division by zero"


def test_secrets_reach_neither_message_nor_stderr(log, capsys):
    run_step("fetch", raising(Unavailable("https://ada:hunter2@example.com does not answer")))
    assert "hunter2" not in log.read_text() + capsys.readouterr().err


def test_a_step_that_is_done_says_so(log):
    async def work():
        return Termination(outcome="Done", run="r1", sha256="sha256:" + "0" * 64)

    assert run_step("evaluate", work) == 0
    assert json.loads(log.read_text())["run"] == "r1"


@given(message=st.text(max_size=3000), run=st.text(max_size=20))
def test_a_termination_message_always_fits_and_can_be_read(message, run):
    data = bounded(Termination(outcome="Invalid", reason="DataInvalid", message=message, run=run))
    assert len(data) <= 512
    said = Termination.model_validate_json(data)
    assert said.reason == "DataInvalid"
    assert message.startswith(said.message.removesuffix("…").rstrip()) or said.message == message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("{", "Invalid JSON", id="no JSON"),
        pytest.param('{"v": 2}', "v: Input should be 1", id="another version"),
        pytest.param('{"probes": 3}', "probes: Extra inputs are not permitted", id="an unknown field"),
        pytest.param(" " * 1_048_577, "more than 1,048,576 bytes", id="too large"),
    ],
)
def test_a_task_is_read_strictly(tmp_path, text, words):
    path = tmp_path / "task.json"
    path.write_text(text)
    with pytest.raises(WrongInput, match=words):
        read_task(path, PredictTask)


def test_a_missing_task_is_final(tmp_path):
    with pytest.raises(WrongInput, match=r"task\.json cannot be read: No such file"):
        read_task(tmp_path / "task.json", PredictTask)
