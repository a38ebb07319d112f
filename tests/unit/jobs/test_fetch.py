"""`fetch` as it runs in a Job: on a real Git repository, by its command line, judged by what it leaves behind."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from controller.api.hashes import files_digest
from controller.clients import artifacts
from controller.clients.errors import Unavailable
from controller.jobs import fetch as step
from controller.jobs.fetch_code import script_of
from tests.support.git_repos import Scratch

ROWS = 400


def table(rows=ROWS, start=0):
    lines = [
        f"row-{i},{i % 24},{(i * 37 % 100) / 100},city-{i % 9},{i * 7 % 50 + 0.5}"
        for i in range(start, start + rows)
    ]
    return "id,hour,temp,city,rides\n" + "\n".join(lines) + "\n"


@dataclass
class Job:
    """One Job with a repository of its own; `run` starts the step as the pod does."""

    root: Path
    monkeypatch: Any
    files: dict[str, Any] = field(
        default_factory=lambda: {
            "train.py": b"print('train')\n",
            "README.md": b"# Bikes\n",
            "deploy/bikes.yaml": b"apiVersion: mainspring.dev/v1alpha1\nkind: ModelSpec\n",
            "params.yaml": b"depth: 3\n",
            "data/rides.csv": table().encode(),
        }
    )
    task: dict[str, Any] = field(default_factory=dict)
    code: tuple[str, ...] = ("params.yaml", "train.py")
    models: dict[str, dict[str, bytes]] = field(default_factory=dict)
    runs: int = 0

    def __post_init__(self):
        self.repo = Scratch.create(self.root / "repo.git")

    async def download_model(self, run, dest):
        if run not in self.models:
            raise Unavailable("MLflow does not answer")
        for name, content in self.models[run].items():
            (dest / name).write_bytes(content)

    async def aclose(self):
        """Nothing to close."""

    def blob(self, path):
        return self.repo.git("rev-parse", f"main:{path}")

    def pinned(self, path="data/rides.csv", name="rides"):
        return {"name": name, "path": path, "digest": f"gitblob:{self.blob(path)}"}

    def source(self, commit):
        lines = [("100755" if isinstance(self.files[p], tuple) else "100644", p, self.blob(p)) for p in self.code]
        return {"url": self.repo.url, "commit": commit, "paths": [], "files": files_digest(lines)}

    def run(self, **task):
        commit = self.repo.commit(self.files)
        wanted = {
            "source": self.source(commit),
            "data": task.get("data") or [self.pinned()],
            "columns": {"target": "rides", "id": "id"},
            "holdout": {},
            "checks": [],
            "params": {"depth": 3},
            "command": ["python", "train.py"],
            "pinnedAt": "2026-01-02T00:00:00Z",
        }
        wanted |= task
        self.runs += 1
        self.at = self.root / f"run-{self.runs}"
        self.at.mkdir()
        (self.at / "task.json").write_text(json.dumps(wanted))
        self.monkeypatch.setenv("MAINSPRING_TERMINATION_LOG", str(self.at / "termination"))
        argv = ["--task", str(self.at / "task.json"), "--allow-file-root", str(self.root)]
        for name in ("work", "data", "inputs", "features", "labels", "champion", "output"):
            argv += [f"--{name}", str(self.at / name)]
        return step.main([*argv, "--mirror", str(self.root / "mirrors")], lambda: self)

    @property
    def said(self):
        return json.loads((self.at / "termination").read_text())

    @property
    def facts(self):
        return json.loads((self.at / "labels/facts.json").read_text())

    def parquet(self, path):
        return pd.read_parquet(self.at / path)

    def tree(self, *names):
        found = []
        for name in names:
            found += [p for p in (self.at / name).rglob("*") if p.is_file()]
        return sorted(found)


@pytest.fixture
def job(tmp_path, monkeypatch):
    return Job(tmp_path, monkeypatch)


def test_the_training_gets_exactly_the_pinned_files_its_data_and_its_parameters(job):
    assert job.run() == 0
    left = [str(p.relative_to(job.at)) for p in job.tree("work", "data", "inputs")]
    assert left == ["inputs/params.json", "work/data/rides.csv", "work/params.yaml", "work/train.py"]
    assert json.loads((job.at / "inputs/params.json").read_text()) == {"depth": 3}
    assert job.said["outcome"] == "Done"


def test_training_part_and_holdout_are_all_the_rows_and_share_none(job):
    job.run()
    training = (job.at / "work/data/rides.csv").read_text().splitlines()
    held = job.parquet("labels/labels.parquet")
    original = table().splitlines()
    assert training[0] == original[0]
    kept = [line for i, line in enumerate(original[1:]) if i not in set(held["__row__"])]
    assert training[1:] == kept, "every byte of a kept row is as it was"
    assert 0.12 * ROWS < len(held) < 0.28 * ROWS
    facts = job.facts
    assert (facts["rows"], facts["trainingRows"], facts["holdoutRows"]) == (ROWS, len(kept), len(held))
    assert facts["task"] == "Regression"
    assert facts["dataSha256"] == {"rides": f"sha256:{hashlib.sha256(table().encode()).hexdigest()}"}


def test_features_have_no_target_and_are_the_rows_of_the_labels(job):
    job.run()
    features, labels = job.parquet("features/features.parquet"), job.parquet("labels/labels.parquet")
    assert list(features.columns) == ["id", "hour", "temp", "city"]
    assert list(labels.columns) == ["rides", "id", "__row__"]
    assert list(features["id"]) == list(labels["id"])
    assert list(labels["__row__"]) == sorted(labels["__row__"])


@pytest.mark.parametrize(
    ("columns", "holdout"),
    [
        pytest.param({"target": "rides", "id": "id"}, {}, id="by id"),
        pytest.param({"target": "rides"}, {}, id="by content"),
        pytest.param({"target": "rides", "time": "when"}, {"by": "Time"}, id="by time"),
        pytest.param({"target": "rides"}, {"by": "Group", "column": "group"}, id="by group"),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_no_holdout_row_is_anywhere_that_the_training_mounts(job, columns, holdout, kind):
    frame = pd.DataFrame(
        {
            "id": [f"row-{i:05d}x" for i in range(ROWS)],
            "when": pd.date_range("2026-01-01", periods=ROWS, freq="h").astype(str),
            "group": [f"group-{i // 5:04d}g" for i in range(ROWS)],
            "category": pd.Categorical([f"category-{i:05d}c" for i in range(ROWS)]),
            "rides": [i * 7 % 50 + 0.5 for i in range(ROWS)],
        }
    )
    path = f"data/rides.{kind}"
    file = job.root / f"rides.{kind}"
    frame.to_csv(file, index=False) if kind == "csv" else frame.to_parquet(file, compression="none")
    job.files = {**job.files, path: file.read_bytes()}
    if kind == "parquet":
        del job.files["data/rides.csv"]
    job.repo.commit(job.files)
    assert job.run(columns=columns, holdout=holdout, data=[job.pinned(path)]) == 0
    mounted = b"".join(p.read_bytes() for p in job.tree("work", "data", "inputs"))
    held = job.parquet("labels/labels.parquet")["__row__"]
    assert len(held) >= 20
    for row in held:
        for secret in (frame["id"][row], frame["category"][row]):
            assert secret.encode() not in mounted, f"row {row} of the hold-out reached the training"
    assert frame["id"][next(i for i in range(ROWS) if i not in set(held))].encode() in mounted


def test_a_holdout_dataset_is_never_given_to_the_training_and_nothing_is_split(job):
    job.files["data/later.csv"] = table(60, start=5000).encode()
    job.repo.commit(job.files)
    assert job.run(data=[job.pinned(), job.pinned("data/later.csv", "holdout")]) == 0
    assert (job.at / "work/data/rides.csv").read_text() == table()
    assert not (job.at / "work/data/later.csv").exists()
    assert (job.facts["trainingRows"], job.facts["holdoutRows"]) == (ROWS, 60)


def test_a_further_dataset_comes_whole_but_not_if_it_holds_the_holdout(job):
    job.files["data/zones.csv"] = b"zone,size\na,1\nb,2\n"
    job.repo.commit(job.files)
    assert job.run(data=[job.pinned(), job.pinned("data/zones.csv", "zones")]) == 0
    assert (job.at / "work/data/zones.csv").read_bytes() == b"zone,size\na,1\nb,2\n"
    del job.files["data/zones.csv"]
    job.files["data/all.csv"] = (table() + "row-x,1,0.5,city-1,3.5\n").encode()
    job.repo.commit(job.files)
    assert job.run(data=[job.pinned(), job.pinned("data/all.csv", "all")]) == 3
    assert "hold-out rows are also in dataset all" in job.said["message"]


def test_a_copy_of_the_data_among_the_code_is_refused(job):
    job.files["data/old/copy.csv"] = table().encode()
    job.code = ("data/old/copy.csv", "params.yaml", "train.py")
    assert job.run() == 3
    assert "'data/old/copy.csv' has the same content as dataset rides" in job.said["message"]


def test_other_files_than_pinned_are_refused(job):
    job.code = ("train.py",)
    assert job.run() == 3
    assert job.said["reason"] == "SourceChanged"
    assert "gives 2 files with digest v1:" in job.said["message"]


def test_other_data_than_pinned_is_refused(job):
    job.repo.commit(job.files)
    pinned = job.pinned() | {"digest": "gitblob:" + "0" * 40}
    assert job.run(data=[pinned]) == 3
    assert job.said["reason"] == "DataChanged"
    assert "0000000000 was pinned" in job.said["message"]


def test_a_missing_program_is_named_with_the_nearest_files(job, capsys):
    assert job.run(command=["python", "-u", "trian.py"]) == 3
    assert job.said["reason"] == "EntrypointMissing"
    assert (
        "starts 'trian.py', which is not among the files of the training; nearest: 'train.py'"
        in job.said["message"]
    )
    assert capsys.readouterr().err.count("\n") == 1, "one line, no traceback"


def test_a_program_started_directly_must_be_executable(job):
    assert job.run(command=["./train.py"]) == 3
    assert "git update-index --chmod=+x" in job.said["message"]
    job.files["train.py"] = ("100755", b"#!/usr/bin/env python\n")
    assert job.run(command=["./train.py"]) == 0
    assert os.access(job.at / "work/train.py", os.X_OK)


@pytest.mark.parametrize(
    ("command", "script"),
    [
        pytest.param(
            ["python3.11", "-X", "dev", "src/train.py"], ("src/train.py", False), id="options are passed over"
        ),
        pytest.param(["python", "-m", "pkg.train", "x.py"], (None, False), id="a module is not judged"),
        pytest.param(["python", "-c", "print(1)"], (None, False), id="code in the command is not judged"),
        pytest.param(["python", "/opt/app/train.py"], (None, False), id="a file of the image is not judged"),
        pytest.param(["dvc", "repro"], (None, False), id="another program is not judged"),
        pytest.param(["bash", "run.sh"], ("run.sh", False), id="a shell script"),
        pytest.param([], (None, False), id="no command"),
    ],
)
def test_the_script_of_a_command(command, script):
    assert script_of(command) == script


def test_all_checks_are_told_even_when_one_fails_and_facts_are_left(job):
    checks = [
        {"name": "range", "column": "temp", "min": 0, "max": 0.5},
        {"name": "rows", "minRows": 100},
        {"name": "nulls", "column": "tmp", "maxNullFraction": 0.1},
    ]
    assert job.run(checks=checks) == 3
    assert job.said["reason"] == "DataInvalid"
    assert "temp has 196 of 400 values outside 0 to 0.5 (worst 0.99 at row 28)" in job.said["message"]
    assert "there is no column tmp; nearest: temp" in job.said["message"]
    outcomes = {c["name"]: c["outcome"] for c in job.facts["checks"]}
    assert outcomes == {
        "builtin-target-present": "Passed",
        "builtin-unique-id": "Passed",
        "builtin-features-not-empty": "Passed",
        "builtin-rows": "Passed",
        "builtin-not-constant": "Passed",
        "range": "Failed",
        "rows": "Passed",
        "nulls": "Failed",
    }
    assert not (job.at / "work/data").exists(), "nothing for the training after a failed check"


def test_many_failures_still_fit_the_termination_message(job):
    checks = [{"name": f"c{i}", "column": "é" * 200, "min": 0} for i in range(40)]
    assert job.run(checks=checks) == 3
    raw = (job.at / "termination").read_bytes()
    assert len(raw) <= 512
    assert job.said["message"].startswith("40 of 45 checks failed: c0: there is no column éé")


@pytest.mark.parametrize(
    ("content", "reason", "words"),
    [
        pytest.param(b"", "DataEmpty", "data/rides.csv is empty", id="no byte"),
        pytest.param(b"id,rides\n", "DataEmpty", "has a header with 2 columns and no rows", id="a header only"),
        pytest.param(b"id,x,rides\na,1,2\n", "DataEmpty", "training and", id="one row"),
        pytest.param(
            table().replace("row-7,", "row-8,").encode(),
            "DuplicateIds",
            "id has 1 of 400 values that came before (row 9)",
            id="an id twice",
        ),
        pytest.param(
            table().replace("rides", "ridez").encode(),
            "SchemaMismatch",
            "there is no column rides, the target",
            id="no target",
        ),
        pytest.param(
            b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12\n",
            "LFSPointer",
            "is a Git LFS pointer and not the data",
            id="an LFS pointer",
        ),
    ],
)
def test_data_that_cannot_be_learned_from_has_its_own_reason(job, content, reason, words):
    job.files["data/rides.csv"] = content
    assert job.run() == 3
    assert job.said["reason"] == reason
    assert words in job.said["message"]


def test_a_champion_is_brought_and_verified_and_has_seen_nothing_of_a_grown_dataset(job):
    commit = job.repo.commit(job.files)
    before = {"champion_source": job.source(commit), "champion_data": [job.pinned()]}
    digest = model(job, "run1", {"model.skops": b"old"})
    job.files["data/rides.csv"] = table(ROWS + 40).encode()
    task = {"championSource": before["champion_source"], "championData": before["champion_data"]}
    assert job.run(champion={"run": "run1", "digest": digest}, **task) == 0
    assert (job.at / "champion/model.skops").read_bytes() == b"old"
    assert job.facts["championSeenRows"] == 0


def test_holdout_rows_that_the_champion_has_seen_are_counted_by_its_own_rule(job):
    commit = job.repo.commit(job.files)
    task = {"championSource": job.source(commit), "championData": [job.pinned()]}
    assert job.run(holdout={"seed": 43}, championHoldout={"seed": 42}, **task) == 0
    facts = job.facts
    assert 0.6 * facts["holdoutRows"] < facts["championSeenRows"] < facts["holdoutRows"]


def test_where_the_champions_data_is_gone_all_rows_count_as_seen(job, capsys):
    commit = job.repo.commit(job.files)
    gone = job.pinned() | {"path": "data/gone.csv", "digest": "gitblob:" + "1" * 40}
    assert job.run(championSource=job.source(commit), championData=[gone]) == 0
    assert job.facts["championSeenRows"] == job.facts["holdoutRows"]
    assert "all hold-out rows count as seen" in capsys.readouterr().err


def model(job, run, files):
    where = job.root / run
    where.mkdir()
    for name, content in files.items():
        (where / name).write_bytes(content)
    job.models[run] = files
    return artifacts.manifest_digest(artifacts.build_manifest(where))


def test_a_champion_with_other_bytes_is_refused(job):
    digest = model(job, "run1", {"model.skops": b"old"})
    job.models["run1"] = {"model.skops": b"0ld"}
    assert job.run(champion={"run": "run1", "digest": digest}) == 3
    assert job.said["reason"] == "ManifestMismatch"


def test_without_the_registry_the_step_is_tried_again(job):
    assert job.run(champion={"run": "run1", "digest": "sha256:" + "0" * 64}) == 1
    assert job.said["outcome"] == "Failed"
    assert job.said["message"] == "MLflow does not answer"


def test_evaluate_only_puts_the_artifact_where_training_would_have_left_it(job):
    digest = model(job, "run7", {"model.joblib": b"new"})
    assert job.run(artifact={"run": "run7", "digest": digest}, command=[]) == 0
    assert (job.at / "output/model.joblib").read_bytes() == b"new"
    assert job.tree("work", "data", "inputs") == []
    assert job.facts["holdoutRows"] == len(job.parquet("labels/labels.parquet"))


def test_data_outside_the_repository_comes_by_digest(job):
    file = job.root / "elsewhere.csv"
    file.write_text(table())
    digest = f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    by_uri = {"name": "rides", "uri": f"file://{file}", "digest": digest}
    job.code = ("data/rides.csv", "params.yaml", "train.py")
    job.files["data/rides.csv"] = b"not,the\nsame,1\n"
    assert job.run(data=[by_uri]) == 0
    assert len((job.at / "data/rides.csv").read_text().splitlines()) == job.facts["trainingRows"] + 1
    file.write_text(table().replace("city-3", "city-4"))
    assert job.run(data=[by_uri]) == 3
    assert job.said["reason"] == "DataChanged"


def test_a_file_outside_the_allowed_directories_is_refused(job, tmp_path_factory):
    file = tmp_path_factory.mktemp("other") / "rides.csv"
    file.write_text(table())
    (job.root / "link.csv").symlink_to(file)
    job.code = ("data/rides.csv", "params.yaml", "train.py")
    for path in (file, job.root / "link.csv"):
        assert job.run(data=[{"name": "rides", "uri": f"file://{path}", "digest": "sha256:" + "0" * 64}]) == 3
        assert "outside the directories allowed for local files" in job.said["message"]


def test_a_task_with_an_unknown_field_is_refused_by_name(job):
    assert job.run(chekcs=[]) == 3
    assert job.said["reason"] == "TaskInvalid"
    assert "chekcs: Extra inputs are not permitted" in job.said["message"]


def test_the_step_starts_as_the_pod_starts_it_with_settings_from_the_environment(job):
    assert job.run() == 0
    for name in ("work", "data", "inputs", "features", "labels"):
        shutil.rmtree(job.at / name, ignore_errors=True)
    env = {"PATH": os.environ["PATH"], "MAINSPRING_GIT_FILE_ROOTS": str(job.root)}
    env |= {"MAINSPRING_MIRRORS": str(job.root / "mirrors"), "MAINSPRING_TERMINATION_LOG": str(job.at / "said")}
    command = [sys.executable, "-m", "controller.jobs.fetch", "--task", str(job.at / "task.json")]
    for name in ("work", "data", "inputs", "features", "labels"):
        command += [f"--{name}", str(job.at / name)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    facts = job.facts
    said = f"{facts['trainingRows']} training and {facts['holdoutRows']} hold-out rows"
    assert json.loads((job.at / "said").read_text()) == {"outcome": "Done", "message": said}
    assert subprocess.run(command, env=env, capture_output=True, text=True, check=False).returncode == 1, (
        "what an earlier attempt left is never mixed with the new"
    )
