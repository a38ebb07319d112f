"""The server as people run it: a process that becomes ready, answers, refuses a changed model, ends politely."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx
import pytest

from controller.api.reports import Termination
from controller.serving.predict import request_body
from tests.support.serving_models import as_artifact, digest_of
from tests.support.serving_process import DEADLINE_S, Process, drained_under_load


@pytest.fixture
def where(tmp_path, pipeline, table) -> Path:
    artifact = as_artifact(pipeline, tmp_path / "artifact")
    (artifact / "sample.json").write_bytes(request_body(table.head(1)))
    return artifact


def test_a_server_becomes_ready_and_says_in_every_answer_who_it_is(where, tmp_path, pipeline, table):
    digest = digest_of(where)
    with Process(where, digest, tmp_path) as server:
        answers = [server.ready()]
        body = request_body(table)
        headers = {"content-type": "application/json"}
        answers.append(httpx.post(f"{server.url}/invocations", content=body, headers=headers))
        assert answers[-1].json() == {"predictions": pipeline.predict(table).tolist()}
        answers.append(httpx.post(f"{server.url}/invocations", content=b"", headers=headers))
        paths = ("/metadata", "/metrics", "/nothing", "/version", "/health/live")
        answers += [httpx.get(server.url + path) for path in paths]
        for answer in answers:
            assert answer.headers["x-mainspring-model"] == "churn"
            assert answer.headers["x-mainspring-revision"] == "churn-0123456789"
            assert answer.headers["x-mainspring-version"] == "7"
            assert answer.headers["x-mainspring-commit"] == "a" * 40
        assert [a.status_code for a in answers] == [200, 200, 400, 200, 200, 404, 200, 200]
        metadata = httpx.get(f"{server.url}/metadata").json()
        assert (metadata["digest"], metadata["columns"]) == (digest, ["age", "income", "city"])
        assert metadata["since"]
        too_large = httpx.post(f"{server.url}/invocations", content=b" " * (16 * 2**20 + 1), headers=headers)
        assert too_large.status_code == 413


def test_a_server_listens_on_this_machine_only_unless_told_otherwise(where, tmp_path):
    with Process(where, digest_of(where), tmp_path) as server:
        server.ready()
        listening = f":{server.port:04X}"
        lines = Path("/proc/net/tcp").read_text().splitlines()
        ours = [line.split()[1] for line in lines if listening in line.split()[1] and line.split()[3] == "0A"]
        assert ours == [f"0100007F{listening}"]


@pytest.mark.parametrize("change", ["flip", "add"], ids=["Q22 a byte is flipped", "Q22 a file is added"])
def test_a_changed_model_is_not_served_and_the_process_ends_with_3(change, where, tmp_path):
    digest = digest_of(where)
    victim = where / "model" / "model.joblib"
    if change == "flip":
        data = bytearray(victim.read_bytes())
        data[-1] ^= 1
        victim.write_bytes(bytes(data))
    else:
        shutil.copy(victim, where / "model" / "more.pkl")
    with Process(where, digest, tmp_path) as server:
        _, stderr = server.popen.communicate(timeout=DEADLINE_S)
        assert server.popen.returncode == 3
        assert "ManifestMismatch" in stderr
        assert digest in stderr
        assert "Traceback" not in stderr
        ended = Termination.model_validate_json(server.said.read_bytes())
        assert (ended.outcome, ended.reason) == ("Invalid", "ManifestMismatch")


def test_the_model_on_disk_may_go_while_it_is_served(where, tmp_path, table):
    with Process(where, digest_of(where), tmp_path) as server:
        assert server.ready().text == "ready"
        shutil.rmtree(where)
        answer = httpx.post(
            f"{server.url}/invocations", content=request_body(table), headers={"content-type": "application/json"}
        )
        assert answer.status_code == 200


def test_q23_sigterm_under_load_loses_no_request(where, tmp_path, table):
    """Clients go on until the server asks them to leave, as a router does that watches readiness."""
    body = request_body(table)
    with Process(where, digest_of(where), tmp_path, "--drain-s", "5") as server:
        server.ready()
        results = drained_under_load(server, body, 4)
        unready = httpx.get(f"{server.url}/health/ready")
        assert (unready.status_code, unready.text) == (503, "not ready: ending")
        assert server.popen.wait(DEADLINE_S) == 0
        assert set(results) == {200}
        assert len(results) >= 4 * 6
        assert Termination.model_validate_json(server.said.read_bytes()).outcome == "Done"
