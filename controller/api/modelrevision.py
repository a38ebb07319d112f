"""ModelRevision: one immutable bundle of inputs with its evidence; written by the controller only.

What a ReplicaSet is to a Deployment.  Its name is `<model>-<first 10 hex digits of the inputs hash>`: the same
inputs are the same object, also after a crash, with two controllers, or after `git revert`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from controller.api.base import Lenient, Strict
from controller.api.conditions import Condition
from controller.api.data import Columns, Holdout
from controller.api.modelspec import EnvVar


class PinnedSource(Strict):
    """The code, to the byte."""

    url: str
    """Repository it comes from."""
    commit: str
    """First commit at which these inputs were seen: 40 or 64 hex digits."""
    paths: tuple[str, ...] = ()
    """Selection of files, as in the ModelSpec."""
    files: str
    """Digest over mode, path and content of every selected file."""


class PinnedData(Strict):
    """One dataset, to the byte."""

    name: str
    """Name of the dataset."""
    path: str | None = None
    """File in the repository, or where DVC puts it."""
    pointer: str | None = None
    """The `.dvc` file or dvc.lock that points to the content, where DVC keeps it. In no hash."""
    uri: str | None = None
    """Address outside the repository."""
    digest: str
    """`gitblob:<hex>` of a file in the repository, `md5:<hex>` of one that DVC keeps, else `sha256:<hex>`."""


class PinnedTraining(Strict):
    """The program and its settings."""

    image: str | None = None
    """Image as written in the ModelSpec; absent: the runtime image."""
    command: tuple[str, ...]
    """Program and arguments."""
    params: Annotated[dict[str, Any], Field(max_length=256)] = Field(default_factory=dict)
    """Hyperparameters."""
    seed: int
    """Seed given to the program."""
    env: tuple[EnvVar, ...] = ()
    """Further environment variables."""


class Trigger(Strict):
    """Why the revision was made. In no hash."""

    type: Literal["Commit", "Spec"]
    """Commit: a commit changed code or data. Spec: the ModelSpec changed."""
    message: str = ""
    """One sentence, with the subject of the commit."""
    author: str = ""
    """Author of the commit, as Git says."""


class ModelRevisionSpec(Strict):
    """The inputs. Immutable."""

    model: str
    """Name of the ModelSpec."""
    inputs: str
    """Hash of all that follows except the commit and the trigger: `v1:<64 hex>`."""
    source: PinnedSource
    """The code."""
    data: tuple[PinnedData, ...]
    """The datasets."""
    columns: Columns
    """What the columns mean."""
    holdout: Holdout
    """How the hold-out is split off."""
    training: PinnedTraining
    """The program."""
    trigger: Trigger
    """Why it was made."""


class Attempt(Lenient):
    """One training Job and how it ended."""

    number: int
    """1 for the first."""
    outcome: Literal["Running", "Succeeded", "Failed", "Lost", "Refused"]
    """Failed counts against backoffLimit. Lost (machine or process gone) does not, nor does Refused: a login was,
    before anything was trained."""
    reason: str = ""
    """Why it failed, one word."""
    message: str = ""
    """Why it failed, one sentence."""
    started_at: str = ""
    """RFC 3339."""
    finished_at: str = ""
    """RFC 3339; empty while it runs."""


class Artifact(Lenient):
    """The trained model's files."""

    digest: str
    """sha256 of the manifest, which holds the sha256 of every file."""
    uri: str
    """Where the files are: `mlflow:/<run id>/model`."""
    format: str
    """mlflow, skops, joblib, onnx, xgboost or lightgbm."""
    size_bytes: int
    """All files together."""


class MetricEvidence(Lenient):
    """One metric of the challenger on the hold-out, and its comparison with the champion on the same rows."""

    name: str
    """Name in the metric table."""
    value: float | None = None
    """The challenger's value; absent when it cannot be computed, then `note` says why."""
    champion: float | None = None
    """The champion's value on the same rows."""
    absolute: tuple[float, ...] | None = None
    """Improvement over the champion, metric's unit: quantiles of the paired bootstrap at QUANTILE_GRID."""
    relative: tuple[float, ...] | None = None
    """The same as a share of the champion's value; absent when that is not positive."""
    note: str = ""
    """Why a value is absent."""


class CheckEvidence(Lenient):
    """How one data check came out."""

    name: str
    """Name of the check, or of a built-in one."""
    outcome: Literal["Passed", "Failed"]
    """Passed or Failed."""
    message: str
    """The numbers, one sentence."""


class ProbeEvidence(Lenient):
    """How fast and how large the loaded model is."""

    requests: int
    """How many requests of one row were timed."""
    p50_ms: float
    """Median time in milliseconds."""
    p95_ms: float
    """95th percentile in milliseconds."""
    p99_ms: float
    """99th percentile in milliseconds."""


class BaselineEvidence(Lenient):
    """What a model that learned nothing but the training labels reaches on the hold-out."""

    dummy: str
    """MostFrequent, Prior, Mean or Median."""
    values: dict[str, float] = Field(default_factory=dict)
    """By metric; one that cannot be computed is absent."""
    note: str = ""
    """Why there are no values."""


class SliceEvidence(Lenient):
    """One metric of both models on the rows of one slice."""

    value: str
    """The column's value in these rows; empty where it is missing."""
    rows: int
    """Hold-out rows of the slice."""
    metric: float | None = None
    """The challenger's; absent when it cannot be computed, then `note` says why."""
    champion: float | None = None
    """The champion's on the same rows."""
    absolute: tuple[float, ...] | None = None
    """Improvement over the champion: quantiles of the paired bootstrap at SLICE_GRID."""
    relative: tuple[float, ...] | None = None
    """The same as a share of the champion's value."""
    note: str = ""
    """Why a value is absent."""


class LeftOut(Lenient):
    """Values of a column that are not in its table: it holds those with the most rows."""

    count: int = 0
    """How many."""
    rows: int = 0
    """Their rows together."""
    most: int = 0
    """Rows of the largest of them."""


class SlicesEvidence(Lenient):
    """One metric in the slices that a column makes."""

    column: str
    """The column."""
    metric: str
    """The metric."""
    table: tuple[SliceEvidence, ...] = ()
    """Slices, most rows first."""
    left_out: LeftOut = LeftOut()
    """What the table does not hold."""
    note: str = ""
    """Why there is no table."""


class GroupCounts(Lenient):
    """What is counted of one group; every measure of fairness follows from it."""

    value: str
    """The column's value in these rows; empty where it is missing."""
    rows: int
    """Hold-out rows."""
    positive: int
    """Rows whose truth is positive."""
    selected: int
    """Rows called positive."""
    true_positive: int
    """Rows that are both."""


class GroupsEvidence(Lenient):
    """The groups that a column makes."""

    column: str
    """The column."""
    table: tuple[GroupCounts, ...] = ()
    """Groups, most rows first."""
    left_out: LeftOut = LeftOut()
    """What the table does not hold."""
    note: str = ""
    """Why there is no table."""


class ScanEvidence(Lenient):
    """The findings of a scanner's report that the training left, counted by severity."""

    path: str
    """File below the training's output."""
    format: str = ""
    """SARIF, Trivy or Grype."""
    counts: dict[str, int] = Field(default_factory=dict)
    """Critical, High, Medium, Low and Unknown: findings."""
    sha256: str = ""
    """Of the file."""
    note: str = ""
    """Why it could not be read."""


class FasterForm(Lenient):
    """Another form of the model that predicts the same, sooner; or why there is none."""

    name: str = ""
    """What it is, for example `ONNX float64`; empty: the model serves as it is."""
    rows: int = 0
    """Hold-out rows that were predicted by both; rows that the form leaves to the model are not among them."""
    difference: float = 0.0
    """Largest difference: of a predicted number, as a part of it; of a probability, where there are classes."""
    tolerance: float = 0.0
    """Largest difference that was allowed. Classes must be the same."""
    why: str = ""
    """Why there is none."""


class Evidence(Lenient):
    """The numbers that decide, from the evaluator. The full report is in the MLflow run."""

    artifact: str
    """Digest of the challenger's artifact."""
    holdout: str
    """Digest of the hold-out rows."""
    champion: str = ""
    """Digest of the champion's artifact it was compared with; empty without one."""
    runtime: str
    """Environment of predict and serve: image digest, or interpreter and packages in local mode."""
    checks_hash: str
    """Hash of the checks that the data passed."""
    task: Literal["Classification", "Regression"]
    """Which part of the metric table applies."""
    holdout_rows: int
    """Number of hold-out rows."""
    training_rows: int
    """Number of rows the training saw."""
    champion_seen_fraction: float = 0.0
    """Share of the hold-out rows that the champion was trained on; above 1 % comparisons are inconclusive."""
    metrics: tuple[MetricEvidence, ...] = ()
    """Every metric of the task."""
    checks: tuple[CheckEvidence, ...] = ()
    """Every data check."""
    probe: ProbeEvidence | None = None
    """Latency; absent when it was not measured."""
    baselines: tuple[BaselineEvidence, ...] = ()
    """Models that learned nothing, on the same rows."""
    slices: tuple[SlicesEvidence, ...] = ()
    """What the gates by slice ask for."""
    groups: tuple[GroupsEvidence, ...] = ()
    """What the gates of fairness ask for."""
    scans: tuple[ScanEvidence, ...] = ()
    """What the gates on reports ask for."""
    form: FasterForm | None = None
    """A faster form of the model; absent in evidence that did not look for one."""
    trainer: dict[str, float] | None = None
    """The trainer's own numbers by name; nobody checked them. Absent in evidence that did not look for them."""
    trainer_note: str = ""
    """What of them was left out, and why."""
    measures: str = ""
    """Hash of the slices, groups and reports that were asked for; empty for none."""
    report: str
    """sha256 of the full report in the run."""


class ModelRevisionStatus(Lenient):
    """What is known about the revision."""

    observed_generation: int = -1
    """Generation that the status speaks of; -1 before the first look."""
    conditions: tuple[Condition, ...] = ()
    """Ready (may be judged), DataValid, Trained, Registered, Reconciling or Stalled."""
    attempts: tuple[Attempt, ...] = ()
    """The last training Jobs, newest last."""
    run: str = ""
    """MLflow run id."""
    version: str = ""
    """Version of the registered model."""
    images: Annotated[dict[str, str], Field(max_length=8)] = Field(default_factory=dict)
    """The image that each step of the Job really ran, by digest, as the node reports it. Empty in local mode."""
    artifact: Artifact | None = None
    """The trained model."""
    evidence: Evidence | None = None
    """The numbers that decide."""
