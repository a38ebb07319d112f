"""One bad object never delays the others: six kinds of trouble beside one good model, all at the same time."""

from __future__ import annotations

import json
import os
import time

from controller.api.meta import Manifest
from tests.support.git_repos import Scratch
from tests.support.linear_model import FAILS, HANGS, TRAIN, csv, model, rows
from tests.support.local_mode import Local, condition

INVALID = b"""apiVersion: mainspring.dev/v1alpha1
kind: ModelSpec
metadata: {name: typo}
spec:
  source: {url: "https://git.example.com/team/typo.git", ref: {branch: main}}
  data: [{name: train, path: rows.csv}]
  columns: {target: "y"}
  training: {command: [python, train.py]}
  gatez: []
"""
TOGETHER_S = 90.0
"""Far above what the good model needs among the others on two cores, far below the hanging training's hour."""


def program(name: str, **changes) -> dict[str, object]:
    training = {"command": ["python", f"{name}.py"], "backoffLimit": 0, **changes.pop("training", {})}
    return {"training": training, **changes}


def spec(url: str, name: str, **changes) -> bytes:
    manifest = model(url, name, **program(name, **changes))
    manifest["spec"]["source"]["paths"] = [f"{name}.py"]
    return json.dumps(manifest).encode()


def silent_repository(repository: Scratch) -> str:
    """Make a repository that accepts whoever asks and never answers: git waits for the other end of a pipe."""
    silent = Scratch.create(repository.path.parent / "silent.git")
    (silent.path / "HEAD").unlink()
    os.mkfifo(silent.path / "HEAD")
    return silent.url


def test_the_good_model_is_served_while_every_other_one_is_in_trouble(local: Local, repository: Scratch):
    url = repository.url
    lost = json.loads(spec(url, "branchless"))
    lost["spec"]["source"]["ref"] = {"branch": "nowhere"}
    silent = json.loads(spec(silent_repository(repository), "silent"))
    silent["spec"]["source"]["timeout"] = "5s"
    repository.commit(
        {
            "rows.csv": csv(rows()),
            "good.py": TRAIN,
            "fails.py": FAILS,
            "hangs.py": HANGS,
            "branchless.py": TRAIN,
            "deploy/good.yaml": spec(url, "good"),
            "deploy/fails.yaml": spec(url, "fails"),
            "deploy/hangs.yaml": spec(url, "hangs", training={"activeDeadlineSeconds": 20}),
            "deploy/branchless.yaml": json.dumps(lost).encode(),
            "deploy/silent.yaml": json.dumps(silent).encode(),
            "deploy/typo.yaml": INVALID,
        }
    )
    began = time.monotonic()
    local.start("--repo", str(repository.path), "--path", "deploy", "--git-root", str(repository.path.parent))

    local.until_condition("Succeeded", name="good", timeout_s=TOGETHER_S)

    assert time.monotonic() - began < TOGETHER_S
    synced = next(iter(local.all("ModelRepository")))
    assert condition(synced, "Stalled")["message"] == (
        "1 of 6 files were not applied; deploy/typo.yaml: 9:3: spec.gatez: "
        'unknown field "gatez"; did you mean "gates"?'
    )
    assert ready(local, "fails")["reason"] == "TrainingFailed"
    assert (
        "exit code 1: the warehouse has no such table (1 of 1 attempts failed)" in ready(local, "fails")["message"]
    )
    assert ready(local, "branchless")["reason"] == "RefNotFound"
    assert "nowhere" in ready(local, "branchless")["message"]
    hanging = local.until_condition("TrainingFailed", name="hangs", timeout_s=60)
    assert (
        "attempt 1 took longer than training.activeDeadlineSeconds, 20 s; it was ended in step train"
        in condition(hanging, "Ready")["message"]
    )
    unanswered = local.until_condition("GitTimeout", name="silent", timeout_s=60)
    assert "5 s" in condition(unanswered, "Ready")["message"]
    assert ready(local, "good")["status"] == "True"


def ready(local: Local, name: str) -> Manifest:
    return condition(local.model(name), "Ready")
