"""What a training Job's steps are told (tasks) and tell back (reports): JSON, versioned, strict.

Tasks hold no secret.  A report is hostile text until it was parsed: size first, then fields.  Paths are those
inside the pod; local mode maps them to directories of its own.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from controller.api.base import Lenient, Strict
from controller.api.data import Check, Columns, Holdout
from controller.api.modelrevision import (
    Artifact,
    CheckEvidence,
    Evidence,
    FasterForm,
    PinnedData,
    PinnedSource,
    ScanEvidence,
)

VERSION: Final = 1
REPORT_MAX_BYTES: Final = 1_048_576
"""Largest full report that is read."""
TERMINATION_MAX_BYTES: Final = 512
"""Longest termination message; the kubelet divides 12 KiB by the number of containers."""
WRONG_INPUT: Final = 3
"""Exit code of our own containers when trying again cannot help."""

ROOT: Final = "/mainspring"
TASK_FILE: Final = f"{ROOT}/task.json"
"""The step's own task; no step sees another's."""
WORK: Final = f"{ROOT}/work"
"""Exactly the hashed files, with the training part of each dataset at its own path.
fetch writes, train works here."""
EXTRA_DATA: Final = f"{ROOT}/data"
"""Datasets that come by `uri`, training part, `<name>.csv` or `<name>.parquet`. fetch writes, train reads."""
INPUTS: Final = f"{ROOT}/inputs"
"""`params.json`. fetch writes, train reads."""
CODE: Final = f"{ROOT}/code"
"""The Python files of the commit, for a model that names their classes. fetch writes, predict and evaluate read;
no training sees it."""
FEATURES: Final = f"{ROOT}/features"
"""Hold-out rows without the target, `features.parquet`, in a fixed order. fetch writes, predict reads."""
LABELS: Final = f"{ROOT}/labels"
"""`labels.parquet` (target, and id, time, group where named; same order), `training.parquet` (a sample of at most
10,000 training rows for the profile) and `facts.json` (`Facts`). fetch writes, evaluate reads."""
CHAMPION: Final = f"{ROOT}/champion"
"""The champion's artifact. fetch writes, predict-champion reads."""
OUTPUT: Final = f"{ROOT}/output"
"""What the training leaves. train writes, predict and evaluate read."""
PREDICTIONS: Final = f"{ROOT}/predictions"
"""`predictions.parquet` and `facts.json` (`PredictFacts`) of the challenger. predict writes, evaluate reads."""
PREDICTIONS_CHAMPION: Final = f"{ROOT}/predictions-champion"
"""The same of the champion."""


class ArtifactRef(Strict):
    """A model's files in the registry."""

    run: str
    """MLflow run that holds them, below the artifact path `model`."""
    digest: str
    """sha256 of the manifest: nothing else is loaded."""


class FetchTask(Strict):
    """What `fetch` does: code, data, split, checks, and the champion's artifact."""

    v: Literal[1] = 1
    """Version of the format."""
    source: PinnedSource
    """Code: exactly these files, whose digest must come out the same."""
    data: tuple[PinnedData, ...]
    """Data: exactly this content."""
    columns: Columns
    """Meaning of the columns."""
    holdout: Holdout
    """How the hold-out is split off."""
    checks: tuple[Check, ...]
    """What the data must pass."""
    params: dict[str, Any]
    """Written to params.json."""
    command: tuple[str, ...] = ()
    """The training command; a script named in it must be among the files."""
    champion: ArtifactRef | None = None
    """The champion to compare with."""
    champion_data: tuple[PinnedData, ...] = ()
    """The champion's datasets by path or uri, to count hold-out rows that it has seen."""
    champion_source: PinnedSource | None = None
    """Where the champion's datasets by path are."""
    champion_columns: Columns | None = None
    """Meaning of the columns of the champion's data; None: as `columns`."""
    champion_holdout: Holdout | None = None
    """How the champion's hold-out was split off; None: as `holdout`."""
    champion_rows: int | None = None
    """Rows of the champion's data, for `maxChange`."""
    artifact: ArtifactRef | None = None
    """Evaluate-only: the challenger's artifact, put where training would have left it."""
    pinned_at: str = ""
    """Moment that `maxAge` counts from, RFC 3339."""


class TargetFacts(Lenient):
    """The labels of the training rows, as far as a model that learned nothing else needs them."""

    counts: Annotated[dict[str, int], Field(max_length=1000)] = Field(default_factory=dict)
    """Classification: rows by class, written as text; empty above 1,000 classes."""
    mean: float | None = None
    """Regression: their mean."""
    median: float | None = None
    """Regression: their median."""


class Facts(Lenient):
    """What `fetch` found."""

    v: Literal[1] = 1
    """Version of the format."""
    task: Literal["Classification", "Regression"] | None = None
    """Kind of target as the data shows it."""
    rows: int
    """Rows of the first dataset."""
    training_rows: int
    """Rows that the training sees."""
    holdout_rows: int
    """Rows held out."""
    holdout_digest: str
    """Digest of the hold-out rows, order included."""
    champion_seen_rows: int = 0
    """Hold-out rows that were among the champion's training rows."""
    checks: tuple[CheckEvidence, ...] = ()
    """How every check came out."""
    target: TargetFacts | None = None
    """The labels of the training rows."""
    data_sha256: dict[str, str] = Field(default_factory=dict)
    """sha256 of every dataset's bytes."""


class PredictTask(Strict):
    """What `predict` and `predict-champion` do: verify, load, predict the hold-out, time single requests."""

    v: Literal[1] = 1
    """Version of the format."""
    digest: str | None = None
    """The manifest digest that the artifact must have; None for a challenger that was just trained."""
    probe_requests: int = 0
    """How many single requests are timed; 0 for none."""
    scores: bool = False
    """True: also class probabilities, where the model gives them."""


class PredictFacts(Lenient):
    """What `predict` found."""

    v: Literal[1] = 1
    """Version of the format."""
    digest: str
    """Manifest digest of the artifact that was loaded."""
    format: str
    """mlflow, skops, joblib, onnx, xgboost or lightgbm."""
    packages: dict[str, str] = Field(default_factory=dict)
    """Versions that the artifact states it was trained with, where it does."""
    rows: int
    """Rows predicted."""
    columns: tuple[str, ...] = ()
    """Columns of predictions.parquet: `prediction`, and `score:<class>` where the model gives them."""
    p50_ms: float | None = None
    """Median time of one request, milliseconds."""
    p95_ms: float | None = None
    """95th percentile, milliseconds."""
    p99_ms: float | None = None
    """99th percentile, milliseconds."""
    requests: int = 0
    """How many were timed."""
    form: FasterForm | None = None
    """A faster form of the model, compared with it on all rows."""


class SliceAsked(Strict):
    """One metric in the slices that one column makes."""

    metric: str
    """Name in the metric table."""
    column: str
    """Column of the hold-out."""


class Measures(Strict):
    """What gates ask for besides the metrics on all rows; its hash tells whether evidence has it."""

    slices: tuple[SliceAsked, ...] = ()
    """Metrics by slice."""
    groups: tuple[str, ...] = ()
    """Columns whose groups are counted."""
    scans: tuple[str, ...] = ()
    """Reports of scanners, below the training's output."""
    hash: str = ""
    """Hash of all of it; empty for nothing."""


class KnownOutput(Strict):
    """What earlier evidence says of files that only the training's own Job could read."""

    scans: tuple[ScanEvidence, ...] = ()
    """Reports of scanners."""
    trainer: dict[str, float] | None = None
    """The trainer's own numbers."""
    trainer_note: str = ""
    """What of them was left out."""


class EvaluateTask(Strict):
    """What `evaluate` does: metrics, comparison, manifest, profile; writes all of it to the MLflow run."""

    v: Literal[1] = 1
    """Version of the format."""
    tracking_uri: str
    """MLflow server."""
    run: str
    """Run of this attempt, made by the controller."""
    revision: str
    """Name of the ModelRevision."""
    columns: Columns
    """Meaning of the columns."""
    holdout: Holdout
    """How rows are grouped for the bootstrap."""
    task: Literal["Classification", "Regression"] | None = None
    """From the gates' metrics; None: as the data shows."""
    champion: str = ""
    """Digest of the champion's artifact; empty without one."""
    champion_name: str = ""
    """Name of the champion's revision."""
    runtime: str
    """Environment of predict and serve."""
    checks_hash: str
    """Hash of the checks."""
    measures: Measures = Measures()
    """What the gates ask for besides the metrics on all rows."""
    known: KnownOutput | None = None
    """Evaluate-only: what was read of the training's output when it was there."""
    seed: int = 42
    """Seed of the bootstrap."""
    resamples: Annotated[int, Field(ge=100, le=10_000)] = 2000
    """Number of bootstrap resamples."""


class Report(Lenient):
    """The full report: artifact `mainspring/report.json` of the run."""

    v: Literal[1] = 1
    """Version of the format."""
    revision: str
    """Name of the ModelRevision."""
    run: str
    """MLflow run."""
    artifact: Artifact
    """The model's files; also in the run."""
    manifest: tuple[tuple[str, int, str], ...]
    """(path, bytes, sha256) of every file of the artifact."""
    evidence: Evidence
    """The numbers that decide; its `report` is empty here."""
    packages: dict[str, str] = Field(default_factory=dict)
    """Versions that the artifact states."""
    data_sha256: dict[str, str] = Field(default_factory=dict)
    """sha256 of every dataset's bytes."""
    profile: dict[str, Any] = Field(default_factory=dict)
    """Per feature and for predictions: counts, nulls, quantiles or frequent values; for later drift checks."""
    notes: tuple[str, ...] = ()
    """What was left out and why: of the comparison, of the trainer's own numbers, of the profile."""


class Termination(Lenient):
    """A step's termination message, at most 512 bytes."""

    v: Literal[1] = 1
    """Version of the format."""
    outcome: Literal["Done", "Invalid", "Failed"]
    """Done; Invalid: wrong input, do not retry; Failed: try again."""
    reason: str = ""
    """One word, for example DataInvalid."""
    message: str = ""
    """One sentence."""
    run: str = ""
    """evaluate: the MLflow run."""
    sha256: str = ""
    """evaluate: digest of the full report, `sha256:<64 hex>`."""
