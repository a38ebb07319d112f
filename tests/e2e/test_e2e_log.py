"""The prediction log in local mode: on by one line, read by one verb, through a new server and a killed one.

The tests build on each other, in order: they share one `mainspring up`.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import httpx
import pytest

from tests.support.git_repos import Scratch
from tests.support.linear_model import TRAIN, csv, model, rows
from tests.support.local_mode import Local, condition

ANSWERED: list[str] = []
"""Ids of the answers of all tests until now."""


def written(repository: Scratch, **serving) -> str:
    manifest = model(repository.url)
    manifest["spec"]["serving"] = {**manifest["spec"].get("serving", {}), **serving}
    manifest["spec"]["columns"]["sensitive"] = ["x2"]
    files = {"train.py": TRAIN, "rows.csv": csv(rows()), "deploy/line.yaml": json.dumps(manifest).encode()}
    return repository.commit(files, message="Fit a line")


@pytest.fixture(scope="module")
def up(shared: Local, shared_repository: Scratch) -> Local:
    commit = written(shared_repository, predictionLog={})
    shared.start("--repo", str(shared_repository.path), "--path", "deploy", "--interval", "1s")
    shared.until_condition("Succeeded", commit=commit)
    return shared


def ask(local: Local, count: int) -> None:
    url = local.model()["status"]["url"]
    with httpx.Client(trust_env=False, timeout=30) as client:
        for _ in range(count):
            name = f"q{len(ANSWERED)}"
            answer = client.post(
                f"{url}/invocations",
                json={"dataframe_records": [{"x1": 2.0, "x2": 1.0}]},
                headers={"x-request-id": name},
            )
            assert answer.status_code == 200, answer.text
            ANSWERED.append(answer.headers["x-request-id"])


def logged(local: Local) -> list[dict]:
    answer = local.run("predictions", "line", "tail", "-l", "100000", "-o", "json")
    assert answer.code == 0, answer
    return list(json.loads(answer.out))


def test_every_answer_is_in_the_log_without_the_sensitive_column(up: Local):
    ask(up, 50)
    up.until("the log to arrive", lambda: len(logged(up)) == 50)
    found = logged(up)
    assert sorted(r["request_id"] for r in found) == sorted(ANSWERED)
    champion = up.model()["status"]["champion"]
    assert {(r["revision"], r["commit"], r["version"]) for r in found} == {
        (champion["revision"], champion["commit"], champion["version"])
    }
    assert {r["inputs.x1"] for r in found} == {2.0}
    assert "inputs.x2" not in found[0]
    assert found[0]["prediction"] == pytest.approx(4.0, abs=1.0)


def test_the_status_says_where_predictions_are(up: Local):
    up.until("the condition", lambda: condition(up.model(), "PredictionsLogged").get("reason") == "Logging")
    told = condition(up.model(), "PredictionsLogged")
    uri = up.model()["status"]["predictionLog"]["uri"]
    assert uri in told["message"]
    assert uri == (up.state / "predictions" / "default" / "line").as_uri()


def test_the_proven_faster_form_serves_and_all_who_are_asked_say_so(up: Local):
    said = up.model()["status"]
    (revision,) = up.all("ModelRevision")
    proof = revision["status"]["evidence"]["form"]
    assert (proof["name"], proof["rows"] > 0, proof["difference"] <= proof["tolerance"]) == (
        "ONNX float64",
        True,
        True,
    )
    assert said["champion"]["form"] == "ONNX float64"
    assert httpx.get(f"{said['url']}/metadata", trust_env=False).json()["form"] == "ONNX float64"


def test_another_log_is_a_rolling_change_that_loses_no_prediction(up: Local, shared_repository: Scratch):
    before = {p["metadata"]["name"] for p in up.all("Pod")}
    written(shared_repository, predictionLog={"retention": "48h"})
    up.until("a new server", lambda: not before & {p["metadata"]["name"] for p in up.all("Pod") if is_server(p)})
    ask(up, 50)
    up.until("the log to arrive", lambda: len(logged(up)) == 100)
    assert sorted(r["request_id"] for r in logged(up)) == sorted(ANSWERED)


def is_server(pod: dict) -> bool:
    return bool(pod["metadata"]["labels"].get("mainspring.dev/component") == "server")


def test_f27_a_killed_server_loses_none_of_its_answers(up: Local):
    ask(up, 25)
    servers = [pid for pid, command in up.processes().items() if "controller.serving.server" in command]
    assert servers
    for pid in servers:
        os.kill(pid, signal.SIGKILL)
    up.until("all of the log", lambda: len(logged(up)) >= 125)
    assert sorted(r["request_id"] for r in logged(up)) == sorted(ANSWERED)


def test_all_of_it_is_a_file_by_one_verb(up: Local, tmp_path: Path):
    answer = up.run("predictions", "line", "export", "--to", str(tmp_path / "line.csv"))
    assert answer.out.startswith("125 predictions of line are in"), answer
