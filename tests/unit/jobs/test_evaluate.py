"""`evaluate` on real files: what it measures, what it refuses, what it leaves in the run."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from controller.api.hashes import sha256
from controller.api.metrics import METRICS, QUANTILE_GRID, improvement
from controller.api.reports import EvaluateTask, Report
from controller.clients import artifacts
from controller.clients.errors import Unavailable
from controller.jobs.entry import run_step
from controller.jobs.evaluate import Paths, work

ROWS = 480
LOW = QUANTILE_GRID.index(0.05)


class RecordedRuns:
    """A registry that keeps what it is given; `down` says from which call on it does not answer."""

    def __init__(self, down: int = 99):
        self.files: dict[str, bytes] = {}
        self.metrics: dict[str, float] = {}
        self.closed = False
        self.calls: list[str] = []
        self.down = down

    def _call(self, what):
        self.calls.append(what)
        if len(self.calls) > self.down:
            raise Unavailable("MLflow does not answer: connection refused")

    async def upload(self, run_id, artifact_path, files):
        if isinstance(files, Path):
            files = {str(p.relative_to(files)): p.read_bytes() for p in files.rglob("*") if p.is_file()}
        self._call(f"upload {artifact_path}: {', '.join(files)}")
        self.files |= {f"{artifact_path}/{name}": content for name, content in files.items()}

    async def log_metrics(self, run_id, metrics):
        self._call("log metrics")
        self.metrics |= metrics

    async def aclose(self):
        self.closed = True


class World:
    """The directories of a Job after its earlier steps, made of real parquet and JSON files."""

    def __init__(self, root: Path, monkeypatch):
        self.root = root
        self.paths = Paths(*(root / n for n in ("labels", "features", "output", "predictions", "champion")))
        for directory in (root / n for n in ("labels", "features", "output", "predictions", "champion")):
            directory.mkdir()
        self.termination = root / "termination"
        monkeypatch.setenv("MAINSPRING_TERMINATION_LOG", str(self.termination))
        rng = np.random.default_rng(0)
        self.rng = rng
        self.time = pd.Timestamp("2011-10-01") + pd.to_timedelta(np.arange(ROWS), unit="h")
        self.target = pd.Series(100 + 50 * np.sin(np.arange(ROWS) / 4) + rng.normal(0, 5, ROWS))
        self.task = {
            "trackingUri": "http://registry.example",
            "run": "run-1",
            "revision": "bikes-0123456789",
            "columns": {"target": "y", "time": "time"},
            "holdout": {"by": "Time"},
            "champion": "",
            "runtime": "python-3.11",
            "checksHash": "v1:00",
            "resamples": 400,
        }
        (self.paths.output / "model.joblib").write_bytes(b"not loaded by anybody")
        self.runs = RecordedRuns()

    def digest(self):
        located = artifacts.locate(self.paths.output)
        return artifacts.manifest_digest(artifacts.build_manifest(located.root, located.files))

    def fetched(self, **facts):
        times = self.time.astype(str)
        labels = pd.DataFrame({"y": self.target, "time": times})
        labels.to_parquet(self.paths.labels / "labels.parquet")
        features = pd.DataFrame({"x": np.arange(len(labels), dtype=float), "time": times})
        features.to_parquet(self.paths.features / "features.parquet")
        features.assign(y=1.0).to_parquet(self.paths.labels / "training.parquet")
        facts = {
            "rows": 2400,
            "trainingRows": 1920,
            "holdoutRows": len(labels),
            "holdoutDigest": "sha256:ab",
            "checks": [{"name": "volume", "outcome": "Passed", "message": "2400 rows"}],
            "dataSha256": {"train": "sha256:cd"},
            **facts,
        }
        (self.paths.labels / "facts.json").write_text(json.dumps(facts))

    def predicted(self, values, directory=None, *, scores=None, **facts):
        directory = directory or self.paths.predictions
        frame = pd.DataFrame({"prediction": values, **(scores or {})})
        frame.to_parquet(directory / "predictions.parquet")
        facts = {
            "digest": self.digest(),
            "format": "joblib",
            "rows": len(frame),
            "columns": list(frame.columns),
            "p50Ms": 1.5,
            "p95Ms": 2.5,
            "p99Ms": 4.0,
            "requests": 200,
            **facts,
        }
        (directory / "facts.json").write_text(json.dumps(facts))

    def with_champion(self, values, **facts):
        self.task |= {"champion": "sha256:" + "c" * 64, "championName": "bikes-champion00"}
        self.predicted(values, self.paths.predictions_champion, **{"digest": self.task["champion"], **facts})

    def run(self):
        EvaluateTask.model_validate(self.task)
        (self.root / "task.json").write_text(json.dumps(self.task))
        code = run_step("evaluate", work(self.root / "task.json", self.paths, lambda uri: self.runs))
        self.said = json.loads(self.termination.read_bytes())
        return code

    @property
    def report(self):
        return Report.model_validate_json(self.runs.files["mainspring/report.json"])

    def metric(self, name):
        return next(m for m in self.report.evidence.metrics if m.name == name)

    def noisy(self, spread):
        return self.target + np.random.default_rng(int(spread * 10)).normal(0, spread, ROWS)


@pytest.fixture
def world(tmp_path, monkeypatch):
    world = World(tmp_path, monkeypatch)
    world.fetched()
    world.predicted(world.noisy(5))
    return world


def test_everything_a_decision_needs_is_in_the_run_and_the_termination_names_it(world):
    world.with_champion(world.noisy(10))
    assert world.run() == 0
    assert world.said == {
        "outcome": "Done",
        "run": "run-1",
        "sha256": sha256(world.runs.files["mainspring/report.json"]),
    }
    beside = {f"mainspring/{name}.json" for name in ("manifest", "report", "trainer")}
    assert set(world.runs.files) == {"model/model.joblib", *beside}
    manifest = world.runs.files["mainspring/manifest.json"]
    assert "sha256:" + hashlib.sha256(manifest).hexdigest() == world.report.artifact.digest == world.digest()
    evidence = world.report.evidence
    assert (evidence.report, evidence.holdout_rows, evidence.training_rows) == ("", 480, 1920)
    assert evidence.probe.p95_ms == 2.5
    assert [m.name for m in evidence.metrics] == [m.name for m in METRICS.values() if m.task == "Regression"]
    assert world.report.profile["prediction"]["kind"] == "Numeric"
    assert set(world.report.profile["training"]) == {"x", "time", "y"}
    assert world.runs.metrics["rmse"] == world.metric("rmse").value
    assert world.runs.metrics["champion.rmse"] == world.metric("rmse").champion
    assert world.report.artifact.uri == "mlflow:/run-1/model"


def test_the_report_is_written_last_so_that_it_never_speaks_of_files_that_are_not_there(world):
    world.run()
    assert world.runs.calls == [
        "upload model: model.joblib",
        "log metrics",
        "upload mainspring: manifest.json, trainer.json",
        "upload mainspring: report.json",
    ]
    assert world.runs.closed


def test_the_same_inputs_give_the_same_report_to_the_byte(world):
    world.with_champion(world.noisy(10))
    world.run()
    first = world.runs.files["mainspring/report.json"]
    world.run()
    assert world.runs.files["mainspring/report.json"] == first


def test_a_better_challenger_is_better_beyond_doubt_and_a_worse_one_is_not(world):
    world.with_champion(world.noisy(10))
    world.run()
    for name in ("rmse", "mae", "r2"):
        found = world.metric(name)
        assert improvement(METRICS[name], found.value, found.champion) > 0
        assert found.absolute[LOW] > 0
    assert 0.3 < world.metric("rmse").relative[LOW] < 0.6
    world.with_champion(world.noisy(2))
    world.run()
    assert world.metric("rmse").absolute[-1] < 0


def test_hours_are_drawn_by_the_day_when_the_hold_out_is_by_time(world):
    world.time = pd.DatetimeIndex(np.repeat(world.time[:1], ROWS))
    world.fetched()
    world.with_champion(world.noisy(10))
    assert world.run() == 0
    found = world.metric("rmse")
    assert found.absolute is None
    assert found.champion is not None
    assert found.note == "only 1 blocks of 22 rows: at least 10 are needed to say how sure the difference is"


def nan_in(values):
    values = values.copy()
    values.iloc[7:10] = np.nan
    return values


HOSTILE = [
    (
        "NaN among the predictions",
        lambda w: w.predicted(nan_in(w.target)),
        "PredictionsInvalid",
        "3 of 480 predictions are not finite numbers; the first is in row 7",
    ),
    (
        "infinity among the predictions",
        lambda w: w.predicted(w.target.replace(w.target[3], np.inf)),
        "PredictionsInvalid",
        "1 of 480 predictions are not finite numbers; the first is in row 3",
    ),
    (
        "a row too few",
        lambda w: w.predicted(w.target[1:]),
        "PredictionsInvalid",
        "479 predictions for 480 hold-out rows",
    ),
    (
        "numbers written as text",
        lambda w: w.predicted(w.target.astype(str)),
        "PredictionsInvalid",
        "predictions are text, not numbers",
    ),
    (
        "no predictions at all",
        lambda w: (w.paths.predictions / "predictions.parquet").unlink(),
        "PredictionsInvalid",
        "predictions.parquet of the predict step is not there",
    ),
    (
        "a text file instead of parquet",
        lambda w: (w.paths.predictions / "predictions.parquet").write_text("1,2"),
        "PredictionsInvalid",
        "predictions.parquet cannot be read (ArrowInvalid)",
    ),
    (
        "a link instead of a file",
        lambda w: (
            (w.paths.predictions / "facts.json").unlink(),
            (w.paths.predictions / "facts.json").symlink_to("/etc/hostname"),
        ),
        "PredictionsInvalid",
        "facts.json of the predict step is not there",
    ),
    (
        "facts that are no JSON",
        lambda w: (w.paths.predictions / "facts.json").write_text("{"),
        "PredictionsInvalid",
        "facts.json of the predict step cannot be read",
    ),
    (
        "another column name",
        lambda w: pd.DataFrame({"y": w.target}).to_parquet(w.paths.predictions / "predictions.parquet"),
        "PredictionsInvalid",
        "columns must be prediction and score:<class>, not y",
    ),
    (
        "a model changed after it predicted",
        lambda w: (w.paths.output / "model.joblib").write_bytes(b"swapped"),
        "ArtifactChanged",
        "they were changed in between",
    ),
    (
        "code slipped in beside the model",
        lambda w: ((w.paths.output / "code").mkdir(), (w.paths.output / "code" / "a.py").write_text("")),
        "ArtifactChanged",
        "the model's 2 files have digest",
    ),
    (
        "no model left",
        lambda w: (w.paths.output / "model.joblib").rename(w.paths.output / "best.pkl"),
        "ModelMissing",
        "there is best.pkl",
    ),
    (
        "a link as the model",
        lambda w: (
            (w.paths.output / "model.joblib").unlink(),
            (w.paths.output / "model.joblib").symlink_to("/etc/hostname"),
        ),
        "ArtifactRefused",
        "'model.joblib' is a link",
    ),
    (
        "labels that are missing",
        lambda w: (w.target.__setitem__(slice(0, 4), np.nan), w.fetched()),
        "DataInvalid",
        "the target y is missing in 4 of 480 hold-out rows",
    ),
    (
        "text as the target of a regression",
        lambda w: (w.__dict__.update(target=w.target.astype(str)), w.task.update(task="Regression"), w.fetched()),
        "TaskMismatch",
        "the gates use metrics of numbers, but the target y is text",
    ),
]


@pytest.mark.parametrize(("harm", "reason", "message"), [h[1:] for h in HOSTILE], ids=[h[0] for h in HOSTILE])
def test_wrong_input_ends_with_3_and_numbers_and_nothing_reaches_the_run(world, harm, reason, message):
    harm(world)
    assert world.run() == 3
    assert (world.said["outcome"], world.said["reason"]) == ("Invalid", reason)
    assert message in world.said["message"]
    assert world.runs.calls == []


BROKEN_CHAMPIONS = [
    (
        "its predictions are missing",
        lambda w: (w.paths.predictions_champion / "predictions.parquet").unlink(),
        "predictions.parquet of the predict step is not there",
    ),
    (
        "it predicts NaN",
        lambda w: w.with_champion(nan_in(w.target)),
        "3 of 480 predictions are not finite numbers; the first is in row 7",
    ),
    ("it predicts too few rows", lambda w: w.with_champion(w.target[9:]), "471 predictions for 480 hold-out rows"),
    (
        "another model predicted in its place",
        lambda w: w.with_champion(w.noisy(10), digest="sha256:ee"),
        "they come from another artifact than the champion's",
    ),
]


@pytest.mark.parametrize(("harm", "why"), [b[1:] for b in BROKEN_CHAMPIONS], ids=[b[0] for b in BROKEN_CHAMPIONS])
def test_a_broken_champion_leaves_the_comparison_out_and_says_so(world, harm, why):
    world.with_champion(world.noisy(10))
    harm(world)
    assert world.run() == 0
    found = world.metric("rmse")
    assert found.value is not None
    assert (found.champion, found.absolute, found.relative) == (None, None, None)
    assert found.note == f"no comparison: the champion bikes-champion00 has no usable predictions: {why}"
    assert world.report.evidence.champion == world.task["champion"]


@pytest.mark.parametrize("down", [0, 1, 2, 3])
def test_a_registry_that_goes_away_is_tried_again(world, down):
    world.runs.down = down
    assert world.run() == 1
    assert world.said["outcome"] == "Failed"
    assert world.said["message"] == "MLflow does not answer: connection refused"
    assert "mainspring/report.json" not in world.runs.files


def test_rows_in_another_order_than_the_labels_are_noticed(world):
    features = pd.read_parquet(world.paths.features / "features.parquet")
    features.iloc[::-1].reset_index(drop=True).to_parquet(world.paths.features / "features.parquet")
    assert world.run() == 1
    assert (
        "features.parquet and labels.parquet differ in time: they are not the same rows" in world.said["message"]
    )


def test_rows_that_the_champion_has_seen_are_told_as_a_share(world):
    world.fetched(championSeenRows=48)
    world.with_champion(world.noisy(10))
    world.run()
    assert world.report.evidence.champion_seen_fraction == 0.1


# --- the trainer's own numbers


def test_a_trainer_cannot_pass_its_numbers_off_as_ours(world):
    (world.paths.output / "metrics.json").write_text(
        '{"rmse": 0.001, "loss": NaN, "note": "good", "ok": true, "e": 1e400}'
    )
    assert world.run() == 0
    assert world.runs.metrics["trainer.rmse"] == 0.001
    assert world.runs.metrics["rmse"] == world.metric("rmse").value > 4
    assert sorted(n for n in world.runs.metrics if n.startswith("trainer.")) == ["trainer.rmse"]
    assert world.report.notes == (
        "metrics.json: 4 entries were left out: not a finite number, an unusual name, or beyond 200",
    )


FORGED = [
    ("not JSON", b"rmse=1", "metrics.json was not read: it is not JSON in UTF-8"),
    ("UTF-16", '{"a": 1}'.encode("utf-16"), "metrics.json was not read: it is not JSON in UTF-8"),
    ("a list", b"[1]", "metrics.json was not read: it is not an object of names and numbers"),
    ("a name twice", b'{"a": 1, "a": 2}', "metrics.json was not read: a name comes twice in it"),
    ("nested without end", b"[" * 200_000, "metrics.json was not read: it is not JSON in UTF-8"),
    ("too large", b" " * 1_048_577, "metrics.json was not read: it has 1,048,577 bytes, more than 1,048,576"),
    (
        "too many",
        json.dumps({f"m{i}": i for i in range(205)}).encode(),
        "metrics.json: 5 entries were left out: not a finite number, an unusual name, or beyond 200",
    ),
]


@pytest.mark.parametrize(("content", "note"), [f[1:] for f in FORGED], ids=[f[0] for f in FORGED])
def test_forged_metrics_decide_nothing_and_fail_nothing(world, content, note):
    (world.paths.output / "metrics.json").write_bytes(content)
    assert world.run() == 0
    assert world.report.notes == (note,)


def tracking_file(path, statements):
    path.parent.mkdir()
    with sqlite3.connect(path) as database:
        for statement in statements:
            database.execute(statement)
    database.close()


TABLES = (
    "CREATE TABLE runs (run_uuid TEXT, start_time INTEGER)",
    "CREATE TABLE latest_metrics (key TEXT, value REAL, is_nan BOOLEAN, run_uuid TEXT)",
    "CREATE TABLE params (key TEXT, value TEXT, run_uuid TEXT)",
    "INSERT INTO runs VALUES ('old', 1), ('new', 2)",
    "INSERT INTO latest_metrics VALUES ('loss', 9, 0, 'old'), ('loss', 0.5, 0, 'new'), ('bad', 0, 1, 'new')",
    "INSERT INTO params VALUES ('depth', '6', 'new'), ('depth', '9', 'old')",
)


def test_the_last_run_of_a_tracking_file_comes_along(world):
    tracking_file(world.paths.output / "mlflow" / "mlflow.db", TABLES)
    assert world.run() == 0
    assert world.runs.metrics["trainer.loss"] == 0.5
    assert json.loads(world.runs.files["mainspring/trainer.json"])["params"] == {"trainer.depth": "6"}
    assert "trainer.bad" not in world.runs.metrics


def test_a_tracking_file_that_never_ends_is_given_up(world):
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    endless = f"{numbers} SELECT i AS run_uuid, 1 AS start_time FROM n"
    tracking_file(world.paths.output / "mlflow" / "mlflow.db", [f"CREATE VIEW runs AS {endless}"])
    assert world.run() == 0
    assert world.report.notes == ("mlflow.db was not read: OperationalError",)


# --- classes

CLASS_TARGETS = [
    ("numbers, model answers booleans", lambda y: y.astype(int), lambda p: p.astype(bool), ("score:0", "score:1")),
    (
        "numbers, model answers floats",
        lambda y: y.astype(int),
        lambda p: p.astype(float),
        ("score:0.0", "score:1.0"),
    ),
    ("booleans, model answers numbers", lambda y: y.astype(bool), lambda p: p.astype(int), ("score:0", "score:1")),
    (
        "booleans, model answers booleans",
        lambda y: y.astype(bool),
        lambda p: p.astype(bool),
        ("score:False", "score:True"),
    ),
    (
        "text",
        lambda y: y.map({0: "no", 1: "yes"}),
        lambda p: p.map({0: "no", 1: "yes"}),
        ("score:no", "score:yes"),
    ),
]


@pytest.mark.parametrize(
    ("truth", "answers", "names"), [c[1:] for c in CLASS_TARGETS], ids=[c[0] for c in CLASS_TARGETS]
)
def test_a_class_is_the_same_class_whatever_type_it_is_written_in(world, truth, answers, names):
    y = pd.Series(world.rng.integers(0, 2, ROWS))
    chance = (0.6 * y + 0.4 * world.rng.random(ROWS)).to_numpy()
    called = pd.Series((chance > 0.5).astype(int))
    world.target = truth(y)
    world.fetched()
    world.predicted(answers(called), scores={names[0]: 1 - chance, names[1]: chance})
    assert world.run() == 0
    assert world.report.evidence.task == "Classification"
    assert world.metric("accuracy").value == pytest.approx((called == y).mean())
    assert world.metric("precision").value == pytest.approx((y[called == 1] == 1).mean())
    assert world.metric("roc_auc").value > 0.9
    assert world.metric("log_loss").value == pytest.approx(-np.log(np.where(y == 1, chance, 1 - chance)).mean())


def test_columns_positive_turns_the_question_round(world):
    y = pd.Series(np.where(world.rng.random(ROWS) < 0.2, "churned", "stayed"))
    world.target = y
    world.fetched()
    world.predicted(pd.Series(np.where(world.rng.random(ROWS) < 0.5, "churned", "stayed")))
    world.run()
    assert world.metric("recall").value == pytest.approx(
        (
            pd.read_parquet(world.paths.predictions / "predictions.parquet").prediction[y == "stayed"] == "stayed"
        ).mean()
    )
    world.task["columns"]["positive"] = "churned"
    world.run()
    assert world.metric("precision").value == pytest.approx(0.2, abs=0.08)
    assert world.metric("roc_auc").note == "the model gives no class probabilities"


def test_scores_with_nan_are_refused_with_the_column(world):
    y = pd.Series(world.rng.integers(0, 2, ROWS))
    world.target = y
    world.fetched()
    world.predicted(y, scores={"score:1": np.full(ROWS, np.nan)})
    assert world.run() == 3
    assert world.said["message"] == "480 of 480 values of score:1 are not finite numbers; the first is in row 0"


def test_the_step_imports_nothing_that_loads_models():
    code = "import sys, controller.jobs.evaluate; print(*sorted(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"sklearn", "skops", "joblib", "mlflow"} & set(ran.stdout.split())


def test_four_classes_are_measured_and_the_questions_of_two_are_refused(world):
    world.target = pd.Series(world.rng.choice(list("abcd"), ROWS))
    world.fetched()
    world.predicted(world.target.where(world.rng.random(ROWS) < 0.8, "a"))
    assert world.run() == 0
    assert world.metric("balanced_accuracy").value > 0.7
    assert world.metric("f1").note == "needs two classes or columns.positive; there are 4: a, b, c, d"


def test_a_class_that_the_hold_out_does_not_show_is_simply_wrong(world):
    world.target = pd.Series(world.rng.choice(["no", "yes"], ROWS))
    world.fetched()
    world.predicted(pd.Series(["maybe", *world.target[1:]]))
    assert world.run() == 0
    assert world.metric("accuracy").value == pytest.approx(1 - 1 / ROWS)
    assert world.metric("precision").value == 1.0


def test_groups_are_drawn_whole_when_the_hold_out_is_by_group(world):
    world.task |= {"holdout": {"by": "Group", "column": "shop"}}
    labels = pd.read_parquet(world.paths.labels / "labels.parquet")
    labels.assign(shop=[f"s{i % 4}" for i in range(ROWS)]).to_parquet(world.paths.labels / "labels.parquet")
    world.with_champion(world.noisy(10))
    assert world.run() == 0
    expected = "only 4 groups: at least 10 are needed to say how sure the difference is"
    assert world.metric("rmse").note == expected


def test_a_report_that_would_be_too_large_leaves_profiles_out_and_says_so(world):
    features = pd.read_parquet(world.paths.features / "features.parquet")
    places = [f"{'a long name of a place ' * 4}{i % 40:02}" for i in range(ROWS)]
    wide = features.assign(**{f"column{i}": places for i in range(280)})
    wide.to_parquet(world.paths.features / "features.parquet")
    assert world.run() == 0
    assert len(world.runs.files["mainspring/report.json"]) <= 1_048_576
    assert world.report.profile["holdout"] == {}
    assert world.report.notes[0].startswith(
        "the profile of the holdout columns was left out: the report would have"
    )


def test_a_model_in_a_directory_is_kept_with_all_its_files(world):
    (world.paths.output / "model.joblib").unlink()
    (world.paths.output / "model").mkdir()
    (world.paths.output / "model" / "MLmodel").write_text("flavors: {}")
    (world.paths.output / "model" / "model.skops").write_bytes(b"x")
    world.predicted(world.noisy(5))
    assert world.run() == 0
    assert {"model/MLmodel", "model/model.skops"} <= set(world.runs.files)
    assert world.report.artifact.format == "mlflow"


def test_the_profile_never_holds_the_id_of_a_row(world):
    world.task["columns"]["id"] = "x"
    assert world.run() == 0
    assert "x" not in world.report.profile["holdout"]
    assert "x" not in world.report.profile["training"]
