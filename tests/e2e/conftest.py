"""Local mode as users run it, on directories of its own; nothing of it is left when a test ends."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.local.mlflow_server import MlflowServer
from tests.support.git_repos import Scratch
from tests.support.local_mode import Local, fresh


@pytest.fixture(scope="session", autouse=True)
def _ended_like_ctrl_c() -> Iterator[None]:
    """Let fixtures clean up when a test run is told to stop: pytest does so after SIGINT only."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's directory with its tables: making them takes longer than everything else of a start."""
    home = tmp_path_factory.mktemp("mlflow")
    server = MlflowServer(home / "data", home / "state")
    server.start()
    server.stop()
    return home / "data"


@pytest.fixture
def local(tmp_path: Path, mlflow_template: Path) -> Iterator[Local]:
    """A state directory that is not there yet."""
    made = fresh(tmp_path / "local", mlflow_template)
    yield made
    made.end()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> Iterator[Local]:
    """The same for all tests of a module, which build on each other."""
    made = fresh(tmp_path_factory.mktemp("shared"), mlflow_template)
    yield made
    made.end()


@pytest.fixture
def repository(tmp_path: Path) -> Scratch:
    """An empty Git repository."""
    return Scratch.create(tmp_path / "models.git")


@pytest.fixture(scope="module")
def shared_repository(tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    """The same for all tests of a module."""
    return Scratch.create(tmp_path_factory.mktemp("git") / "models.git")
