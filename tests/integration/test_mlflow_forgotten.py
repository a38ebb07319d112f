"""A server whose starter was killed before it noted the process is found again: never two on one database."""

from __future__ import annotations

from pathlib import Path

from controller.local.mlflow_server import MlflowServer


def test_a_server_that_nobody_noted_is_adopted_and_not_started_a_second_time(tmp_path: Path):
    first = MlflowServer(tmp_path / "data", tmp_path / "state")
    address = first.start()
    noted = tmp_path / "state" / "mlflow.json"
    before = noted.read_bytes()
    noted.unlink()
    second = MlflowServer(tmp_path / "data", tmp_path / "state")

    try:
        assert second.start() == address
        assert noted.read_bytes() == before
    finally:
        second.stop()
    assert not first.running()
