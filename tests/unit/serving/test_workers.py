"""Several processes that serve one model: one port, one page of numbers, one readiness, one end."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import joblib
import pytest

from controller.api.reports import Termination
from controller.serving import server
from controller.serving.predict import request_body
from tests.support.processes import is_alive
from tests.support.serving_models import as_artifact, digest_of
from tests.support.serving_process import DEADLINE_S, Process, drained_under_load

JSON = {"content-type": "application/json"}


@pytest.fixture
def where(tmp_path, numeric, table) -> Path:
    artifact = as_artifact(numeric, tmp_path / "artifact")
    (artifact / "sample.json").write_bytes(request_body(table[["age", "income"]].head(1)))
    return artifact


def wait_for(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < until, f"never {what}"


def workers_of(process: Process) -> set[int]:
    """Find the children of the server that serve."""
    pid = process.popen.pid
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def number(process: Process, name: str) -> float:
    page = httpx.get(f"{process.url}/metrics").text
    return sum(float(v) for v in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", page, re.MULTILINE))


def ask(process: Process, body: bytes) -> httpx.Response:
    """Send a request on a connection of its own, which any worker may take."""
    return httpx.post(f"{process.url}/invocations", content=body, headers=JSON, timeout=30)


def test_workers_share_port_numbers_and_readiness_are_replaced_and_end_without_a_loss(where, tmp_path, table):
    body = request_body(table[["age", "income"]])
    with Process(where, digest_of(where), tmp_path, "--drain-s", "3", MAINSPRING_WORKERS="2") as process:
        process.until_ready()
        workers = workers_of(process)
        assert len(workers) == 2
        assert httpx.get(f"{process.url}/metadata").json()["workers"] == 2

        # Whoever answers, the page has the numbers of all; so it does when one has died.
        for n in range(1, 21):
            assert ask(process, body).status_code == 200
            assert number(process, "mainspring_requests_total") == n
        assert number(process, "mainspring_predictions_total") == 20 * len(table)
        victim = min(workers)
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: victim not in workers_of(process) and len(workers_of(process)) == 2, "replaced")
        assert httpx.get(f"{process.url}/health/ready").status_code == 200
        assert number(process, "mainspring_requests_total") == 20

        results = drained_under_load(process, body, 3)
        assert process.popen.wait(DEADLINE_S) == 0
        assert set(results) == {200}
        assert Termination.model_validate_json(process.said.read_bytes()).outcome == "Done"


def test_a_parent_that_is_killed_leaves_no_worker(where, tmp_path):
    with Process(where, digest_of(where), tmp_path, "--workers", "2", "--drain-s", "0") as process:
        process.until_ready()
        workers = workers_of(process)
        process.popen.kill()
        process.popen.wait()
        wait_for(lambda: not any(map(is_alive, workers)), "all ended")


def test_a_model_that_no_worker_can_serve_ends_the_server_with_3_and_says_why(where, tmp_path):
    digest = digest_of(where)
    joblib.dump({"no": "model"}, where / "model" / "model.joblib")
    with Process(where, digest, tmp_path, "--workers", "2") as process:
        _, stderr = process.popen.communicate(timeout=DEADLINE_S)
        assert process.popen.returncode == 3
        said = Termination.model_validate_json(process.said.read_bytes())
        assert (said.outcome, said.reason) == ("Invalid", "ManifestMismatch")
        assert "Traceback" not in stderr


def test_a_port_that_is_taken_is_said(where, tmp_path):
    with Process(where, digest_of(where), tmp_path) as first:
        first.ready()
        second = Process(where, digest_of(where), tmp_path, "--workers", "2", PORT=str(first.port))
        with second:
            _, stderr = second.popen.communicate(timeout=DEADLINE_S)
            assert second.popen.returncode == 1
            assert f"127.0.0.1:{first.port} cannot be taken: Address already in use" in stderr


SLEEPER = """
import time
class Sleeper:
    feature_names_in_ = ("seconds",)
    def predict(self, rows):
        time.sleep(float(rows["seconds"][0]))
        return [1.0]
"""


def test_q21_a_worker_whose_threads_all_hang_is_replaced(tmp_path, monkeypatch):
    code = tmp_path / "artifact" / "model" / "code"
    code.mkdir(parents=True)
    (code / "sleeper.py").write_text(SLEEPER)
    monkeypatch.syspath_prepend(str(code))
    import sleeper  # type: ignore[import-not-found]

    joblib.dump(sleeper.Sleeper(), code.parent / "model.joblib")
    where = tmp_path / "artifact"
    (where / "sample.json").write_text('{"instances": [{"seconds": 0}]}')
    with Process(where, digest_of(where), tmp_path, "--workers", "2", "--timeout-s", "0.3") as process:
        process.until_ready()
        before = workers_of(process)
        assert ask(process, b'{"instances": [{"seconds": 600}]}').status_code == 504
        wait_for(lambda: len(now := workers_of(process)) == 2 and now != before, "replaced")
        wait_for(lambda: ask(process, b'{"instances": [{"seconds": 0}]}').status_code == 200, "answered")


@pytest.mark.parametrize("text", ["0", "65", "-1", "two", ""])
def test_another_number_of_workers_is_refused(text, where, capsys):
    with pytest.raises(SystemExit):
        server.main(["--model", str(where), "--digest", "sha256:" + "0" * 64, "--workers", text])
    assert "workers must be a number from 1 to 64" in capsys.readouterr().err
