"""What a training program does wrong reaches its ModelRevision with the right reason, and in words that help.

Every program runs as in a real Job, with the real predict step after it; all at once, and each is judged by what
the decisions make of its Job.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from controller.api import reports
from controller.api.kinds import ModelRevision, ModelSpec, parse
from controller.api.meta import API_VERSION, Manifest
from controller.api.reports import PredictTask
from controller.plan.manifests import training_job
from controller.plan.observed import JobSeen, RevisionSeen
from controller.plan.revision import plan_revision
from controller.reconcile.jobs import job_seen
from tests.corpus import standing
from tests.corpus.training.training_cases import CASES, DAEMON_SLEEPS_S, Case
from tests.unit.local.runner_world import World, manifest, processes_in, until

NAMES = {case.id: f"line-{number:010x}" for number, case in enumerate(CASES)}


def revision(name: str, program: str) -> tuple[ModelRevision, Manifest]:
    spec = {
        "model": "line",
        "inputs": "v1:" + "0" * 64,
        "source": {"url": "https://git.example.com/team/line.git", "commit": "a" * 40, "files": "v1:1"},
        "data": [{"name": "train", "path": "rows.csv", "digest": "gitblob:1"}],
        "columns": {"target": "y"},
        "holdout": {"fraction": 0.2},
        "training": {"command": ["python", "-c", program], "seed": 42},
        "trigger": {"type": "Commit"},
    }
    made = {
        "apiVersion": API_VERSION,
        "kind": "ModelRevision",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }
    parsed = parse(made)
    assert isinstance(parsed, ModelRevision), parsed
    return parsed, made


def wanted() -> ModelSpec:
    """Build the ModelSpec that wants every revision, and tries none of them again."""
    found = parse(
        {
            "apiVersion": API_VERSION,
            "kind": "ModelSpec",
            "metadata": {"name": "line", "namespace": "default"},
            "spec": {
                "source": {"url": "https://git.example.com/team/line.git", "ref": {"branch": "main"}},
                "data": [{"name": "train", "path": "rows.csv"}],
                "columns": {"target": "y"},
                "training": {"command": ["python", "train.py"], "backoffLimit": 0},
                "gates": [{"name": "error", "metric": "rmse", "max": 2}],
            },
        }
    )
    assert isinstance(found, ModelSpec), found
    return found


def job_of(case: Case, owner: Manifest, features: Path) -> tuple[Manifest, Manifest]:
    """Build the Job that the controller makes, with its tasks; fetch and evaluate are stood in for."""
    parsed, _ = revision(NAMES[case.id], case.program)
    job = training_job(
        parsed, owner, attempt=1, deadline_s=case.deadline_s, tracking_uri="", champion="", checks=""
    )
    pod = job["spec"]["template"]["spec"]
    pod["terminationGracePeriodSeconds"] = 1
    steps = {c["name"]: c for c in (*pod["initContainers"], *pod["containers"])}
    steps["fetch"]["command"] = ["cp", str(features), f"{reports.FEATURES}/features.parquet"]
    steps["evaluate"]["command"] = ["true"]
    task = PredictTask().model_dump_json(by_alias=True)
    tasks = {f"{step}.json": task for step in ("fetch", "predict", "evaluate")}
    config = {**manifest("ConfigMap", job["metadata"]["name"], {}), "data": tasks}
    del config["spec"]
    return job, config


def daemons() -> list[str]:
    """List processes that a program left behind without anything that tells whose they are."""
    commands = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.parent.is_dir()]
    return [c.decode() for c in commands if c.split(b"\0")[:2] == [b"sleep", DAEMON_SLEEPS_S.encode()]]


async def ended(world: World, name: str) -> None:
    async def over() -> bool:
        return bool((await world.status("Job", name)).get("conditions"))

    await until(over, f"Job {name} ends", seconds=120)


@dataclass(frozen=True)
class Played:
    """A Job that has ended: what the controller reads of it, and what there is to read."""

    job: JobSeen
    statuses: tuple[Manifest, Manifest]
    """Of the Job and of its pod."""


async def play(path: Path, features: Path) -> dict[str, Played]:
    """Run all programs, each in a Job of its own; returns how each ended."""
    world = World(path)
    world.runner = world.new_runner(output_bytes=64 * 2**20)
    found = {}
    async with world.running():
        for case in CASES:
            # Without its owner a Job is deleted at once.
            owner = await world.store.apply(revision(NAMES[case.id], case.program)[1])
            job, config = job_of(case, owner, features)
            await world.store.apply(config)
            await world.store.apply(job)
        for case in CASES:
            await ended(world, f"{NAMES[case.id]}-train-1")
    for case in CASES:
        name = f"{NAMES[case.id]}-train-1"
        job, pod = await world.get("Job", name), await world.get("Pod", f"{name}-0")
        found[case.id] = Played(job_seen(job, pod), (job["status"], pod["status"]))
    left = [*processes_in(path / "run" / "pods"), *daemons()]
    await world.runner.stop_all()
    world.store.close()
    assert left == []
    return found


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Played]:
    place = tmp_path_factory.mktemp("programs")
    features = tmp_path_factory.mktemp("features") / "features.parquet"
    pd.DataFrame({"x": [1.0, 2.0, 3.0]}).to_parquet(features)
    return asyncio.run(play(place, features))


@pytest.mark.parametrize("case", CASES, ids=[c.id for c in CASES])
def test_a_training_program(played: dict[str, Played], case: Case):
    job = played[case.id].job
    if not case.reason:
        assert job.outcome == "Succeeded", job
        standing.challenger_is_fine()
        return
    parsed, made = revision(NAMES[case.id], case.program)
    seen = RevisionSeen(manifest=made, revision=parsed, model=wanted(), job=job, runtime="r", tracking_uri="t")
    plan = plan_revision(seen, datetime.now(UTC))
    said = {kind: (reason, message) for kind, status, reason, message in plan.conditions if status != "True"}
    reason, message = said["Trained"]
    assert reason == case.reason, message
    assert re.fullmatch(case.says, message), message
    assert message.isprintable()
    assert "Traceback" not in message
    assert not [a for a in plan.actions if type(a).__name__ == "StartTraining"], "it is not tried again"
    attempt = plan.status.attempts[-1]
    assert (attempt.outcome, attempt.reason) == ("Failed", case.reason)
    told = next(message for kind, _, _, message in plan.conditions if kind == "Ready")
    assert message in told
    start = message.partition(f", {case.deadline_s} s")[0][:200].rstrip(" :").removeprefix("attempt 1 ")
    reached = standing.job_ends(*played[case.id].statuses, case.reason, start[:60])
    assert reached is not None
    assert start in reached.message
