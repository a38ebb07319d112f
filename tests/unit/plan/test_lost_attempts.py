"""A lost attempt costs none of the allowed ones; lost again and again it is tried more and more rarely."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from controller.api.kinds import ModelRevision, ModelSpec, parse
from controller.api.meta import API_VERSION
from controller.plan.actions import StartTraining
from controller.plan.observed import JobSeen, RevisionSeen
from controller.plan.revision import plan_revision

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
URL = "https://git.example.com/team/line.git"
NAME = "line-0123456789"


def seen(lost: int, since_s: float) -> RevisionSeen:
    """Build a revision whose last attempts, so many, were lost; the newest ended `since_s` seconds ago."""
    attempts = [{"number": n, "outcome": "Lost", "reason": "Lost"} for n in range(1, lost + 1)]
    columns, command = {"target": "y"}, ["python", "train.py"]
    made = {
        "apiVersion": API_VERSION,
        "kind": "ModelRevision",
        "metadata": {"name": NAME, "namespace": "default", "uid": "u"},
        "spec": {
            "model": "line",
            "inputs": "v1:" + "0" * 64,
            "source": {"url": URL, "commit": "a" * 40, "files": "v1:1"},
            "data": [{"name": "train", "path": "rows.csv", "digest": "gitblob:1"}],
            "columns": columns,
            "holdout": {"fraction": 0.2},
            "training": {"command": command, "seed": 42},
            "trigger": {"type": "Commit"},
        },
        "status": {"attempts": attempts},
    }
    wanted = {
        "apiVersion": API_VERSION,
        "kind": "ModelSpec",
        "metadata": {"name": "line", "namespace": "default"},
        "spec": {
            "source": {"url": URL, "ref": {"branch": "main"}},
            "data": [{"name": "train", "path": "rows.csv"}],
            "columns": columns,
            "training": {"command": command, "backoffLimit": 0},
            "gates": [{"name": "error", "metric": "rmse", "max": 2}],
        },
        "status": {"source": {"revision": "main", "commit": "a" * 40, "wanted": NAME}},
    }
    revision, model = parse(made), parse(wanted)
    assert isinstance(revision, ModelRevision), revision
    assert isinstance(model, ModelSpec), model
    ended = (NOW - timedelta(seconds=since_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
    job = JobSeen(name=f"{NAME}-train-{lost}", attempt=lost, outcome="Lost", finished_at=ended)
    return RevisionSeen(manifest=made, revision=revision, model=model, job=job, runtime="r", tracking_uri="t")


@pytest.mark.parametrize(
    ("lost", "since_s", "starts"),
    [
        pytest.param(1, 0, True, id="lost once: at once"),
        pytest.param(2, 1, False, id="lost twice: not at once"),
        pytest.param(2, 6, True, id="lost twice: after 5 s"),
        pytest.param(5, 35, False, id="lost five times: not after half a minute"),
        pytest.param(5, 41, True, id="lost five times: after 40 s"),
        pytest.param(10, 601, True, id="however often: after ten minutes"),
    ],
)
def test_a_lost_attempt_is_tried_again(lost, since_s, starts):
    plan = plan_revision(seen(lost, since_s), NOW)
    begun = [a for a in plan.actions if isinstance(a, StartTraining)]
    assert bool(begun) is starts
    told = next(c for c in plan.conditions if c[0] == "Reconciling")
    if starts:
        assert begun[0].attempt == lost + 1
    else:
        assert told[2] == "RetryBackoff"
        assert "was lost with its process or machine; next attempt in " in told[3]
