"""`mainspring up --until-settled`, as a pipeline uses it: its exit code says how it ended."""

from __future__ import annotations

import json

from tests.support.git_repos import Scratch
from tests.support.linear_model import TRAIN, csv, model, rows
from tests.support.local_mode import Local, condition

DATA = csv(rows())


def files(repository: Scratch, **changes) -> dict[str, bytes]:
    manifest = json.dumps(model(repository.url, **changes)).encode()
    return {"train.py": TRAIN, "rows.csv": DATA, "deploy/line.yaml": manifest}


def test_ends_with_0_when_what_git_asks_for_serves_then_with_1_when_the_next_commit_is_refused(
    local: Local, repository: Scratch
):
    repository.commit(files(repository))
    arguments = ("--repo", str(repository.path), "--path", "deploy")

    first = local.settle(*arguments)

    assert first.code == 0, first
    assert "ModelRepository models: Succeeded: 1 ModelSpec of main@sha1:" in first.out
    assert "serves all requests, as main@sha1:" in first.out
    assert first.err == ""
    served = local.model()["status"]["champion"]

    repository.commit(files(repository, training={"command": ["python", "train.py"], "params": {"use": ["x2"]}}))
    second = local.settle(*arguments)

    assert second.code == 1, second
    assert "was refused: gate error: rmse " in second.out
    assert f"{served['revision']} keeps serving" in second.out
    assert local.model()["status"]["champion"]["digest"] == served["digest"]
    assert local.processes() == {}


def test_ends_with_4_when_the_time_is_over(local: Local, repository: Scratch):
    repository.commit(files(repository))

    late = local.settle("--repo", str(repository.path), "--path", "deploy", timeout_s=1)

    assert late.code == 4, late
    assert local.processes() == {}
    assert condition(local.model(), "Ready").get("status") != "True"
