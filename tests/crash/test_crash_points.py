"""Killed by SIGKILL at writes that matter most, with real processes, the story ends the same.

Eight of the points that `make crash` enumerates; two runs of four, one in each stage.  The end is stated here in
full, so that it says what "the same" means: each model trained once, registered once, recorded once, and served.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.local.mlflow_server import MlflowServer
from tests.crash.crash_enumeration import differences
from tests.support.crash_story import Play, Point

END = {
    "champion": "first",
    "bytes of the champion": True,
    "answers": "first",
    "ready": "Succeeded",
    "challenger": "",
    "route": ["first 100"],
    "servers": ["first: 1 wanted, 1 ready"],
    "pods": {
        "job of better Succeeded": 1,
        "job of first Succeeded": 1,
        "job of worse Succeeded": 1,
        "server of first Running": 1,
    },
    "processes": {"controller": 1, "router": 1, "shim": 2},
    "revisions": {
        "better": ["3", "attempt 1 Succeeded"],
        "first": ["1", "attempt 1 Succeeded"],
        "worse": ["2", "attempt 1 Succeeded"],
    },
    "jobs": {"better Complete": 1, "first Complete": 1, "worse Complete": 1},
    "key and note in their places": True,
    "training programs run": 3,
    "ledger": [
        "1 Admitted first, champion ",
        "2 Promoted first, champion first",
        "3 Rejected worse, champion first",
        "4 Admitted better, champion first",
        "5 Promoted better, champion better",
        "6 Promoted first, champion first",
    ],
    "bytes of the ledger": True,
    "ledger runs": 1,
    "versions": {"1": "first", "2": "worse", "3": "better"},
    "aliases": {"default-champion": "1"},
    "runs": ["better attempt 1 FINISHED", "first attempt 1 FINISHED", "worse attempt 1 FINISHED"],
}
RUNS: dict[str, list[Point]] = {
    "half-done records": [
        (0, "controller: mlflow runs/create", 1, "after"),
        (1, "controller: mlflow put ledger/000003.json", 1, "after"),
        (2, "controller: mlflow model-versions/create", 1, "after"),
        (3, "controller: mlflow runs/set-tag mainspring.ledger.000006", 1, "after"),
    ],
    "half-done processes and traffic": [
        (0, "runner: start shim line-train-1-0", 1, "after"),
        (1, "runner: start shim line-train-1-0", 1, "before"),
        (2, "controller: apply HTTPRoute", 2, "after"),
        (3, "runner: file rename to router/routes.json", 1, "before"),
    ],
}


@pytest.fixture(scope="module")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's directory with its tables."""
    home = tmp_path_factory.mktemp("mlflow")
    server = MlflowServer(home / "data", home / "state")
    server.start()
    server.stop()
    return home / "data"


@pytest.mark.parametrize("name", RUNS)
def test_killed_at_any_write_it_ends_the_same(name: str, tmp_path: Path, mlflow_template: Path):
    play = Play(tmp_path / "run", "line-crash", RUNS[name], mlflow=mlflow_template, expected=END)

    outcome = play.run()

    assert differences(outcome, END) == []
    assert sorted(outcome.killed) == RUNS[name]
    assert outcome.answered > 50
