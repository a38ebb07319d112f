"""The MLflow server of local mode: found again, kept apart from its controller, stopped, explained."""

from __future__ import annotations

import json
import os
import signal
import time

import httpx
import pytest

from controller.clients.errors import Unavailable
from controller.local import mlflow_server
from controller.local.mlflow_server import MlflowServer


def test_a_server_is_adopted_survives_its_controller_and_keeps_its_port(tmp_path):
    told: list[str] = []
    server = MlflowServer(tmp_path / "data", tmp_path / "state")
    try:
        uri = server.start(told.append)
        assert told[0] == "starting MLflow (about 6 s)"
        pid = json.loads((tmp_path / "state" / "mlflow.json").read_text())["pid"]
        assert os.getsid(pid) == pid

        again = MlflowServer(tmp_path / "data", tmp_path / "state")
        assert again.start(told.append) == uri
        assert told[-1] == f"MLflow runs already at {uri}"
        assert json.loads((tmp_path / "state" / "mlflow.json").read_text())["pid"] == pid

        refused = httpx.get(
            f"{uri}/api/2.0/mlflow/experiments/get", headers={"Host": "evil.example"}, trust_env=False
        )
        assert refused.status_code == 403

        os.killpg(pid, signal.SIGKILL)
        end = time.monotonic() + 10
        while again.running():
            assert time.monotonic() < end
        assert again.start() == uri
    finally:
        server.stop()
    assert not server.running()
    server.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(uri, trust_env=False)


def test_a_server_that_cannot_start_says_its_last_words(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mlflow.db").write_bytes(b"this is no database, " * 400)
    server = MlflowServer(tmp_path / "data", tmp_path / "state")
    try:
        with pytest.raises(Unavailable, match=r"MLflow (ended at once|answers 500): .+; see .+mlflow\.log"):
            server.start()
    finally:
        server.stop()


def test_a_process_that_took_the_number_of_the_server_is_left_alone(tmp_path):
    server = MlflowServer(tmp_path / "data", tmp_path / "state")
    (tmp_path / "state").mkdir()
    state = {"port": 5000, "pid": os.getpid(), "identity": "an earlier boot/1"}
    (tmp_path / "state" / "mlflow.json").write_text(json.dumps(state))
    assert not server.running()
    server.stop()
    assert mlflow_server._identity(os.getpid())
