"""What a ModelSpec says about its data: the tables, their columns, the hold-out, the checks.

Read by the specs of ModelSpec and ModelRevision, and by the fetch step that carries them out.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from controller.api import git_rules
from controller.api.base import Column, DigestStr, Duration, HashMark, Name, Strict
from controller.api.pods import LocalRef

Scalar = bool | int | float | str
LEAKAGE_SUSPECTED: Final = "LeakageSuspected"
"""A check that passed but begins so has found columns that give the target away: people are told."""
RelativePath = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class Dataset(Strict):
    """One table that the model learns from or is judged on. Exactly one of `path` and `uri`."""

    name: Name
    """Its name; the training program finds it by MAINSPRING_DATA_<NAME>. `holdout` is the hold-out."""
    path: RelativePath | None = None
    """File in the repository at the commit: CSV or parquet. With DVC: its pointer `data/train.csv.dvc`, or the
    path of an out that a dvc.lock lists."""
    uri: Annotated[str, StringConstraints(max_length=2048, pattern=r"^(https|http|file)://")] | None = None
    """Address of a CSV or parquet file outside the repository; needs `digest`."""
    digest: DigestStr | None = None
    """`sha256:…` of the file at `uri`: another content is refused."""
    secret_ref: LocalRef | None = None
    """Secret of the namespace with the login for the server at `uri`, or for DVC's remote; docs/secrets.md says
    which keys it needs. It must carry the label `mainspring.dev/usable-by`. A change does not retrain. Local mode
    has no Secrets."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.path is None) == (self.uri is None):
            raise ValueError("exactly one of path and uri must be set")
        if self.uri is not None and self.digest is None:
            raise ValueError("uri needs digest: without it nobody knows which data the model learned from")
        if self.secret_ref is not None and (self.uri or "").startswith("file:"):
            raise ValueError("secretRef is for servers; a local file takes no login")
        if self.path is not None:
            if self.digest is not None:
                raise ValueError("digest belongs to uri; a file in the repository has Git's own")
            if problem := git_rules.path_problem(self.path):
                raise ValueError(problem)
        return self


class Columns(Strict):
    """What the columns of the data mean."""

    target: Column
    """The column that the model predicts."""
    positive: Scalar | None = None
    """Classification with two classes: the value that counts as positive. Default: the greater one."""
    id: Column | None = None
    """A column that names a row once and for all. It keeps rows on their side of the hold-out split."""
    time: Column | None = None
    """A column with the time of the row: ISO 8601, or numbers that grow with time."""


class ModelColumns(Columns):
    """What the columns of the data mean, and which of them are nobody's business."""

    sensitive: Annotated[tuple[Column, ...], Field(max_length=256), HashMark.SERVE] = ()
    """Columns that are never in the log of predictions as they are: serving.predictionLog.sensitive says whether
    they are left out or hashed. A change retrains nothing; where predictions are logged, servers are replaced."""


class Holdout(Strict):
    """How hold-out rows are chosen when no dataset is named `holdout`. The training never sees them."""

    fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of rows that are held out, above 0 and below 1. Default 0.2."""
    by: Literal["Random", "Time", "Group"] = "Random"
    """Random: by a hash of the id, or of the row. Time: the newest rows. Group: whole groups, by a hash."""
    column: Column | None = None
    """Group: the column whose equal values stay together. Time: default `columns.time`."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 42
    """Seed of the hash. Default 42."""

    @model_validator(mode="after")
    def _column(self) -> Self:
        if self.by == "Group" and self.column is None:
            raise ValueError("by: Group needs column, the column whose equal values stay together")
        if self.by == "Random" and self.column is not None:
            raise ValueError("by: Random takes no column; the id of a row is columns.id")
        return self


class SchemaCheck(Strict):
    """Which columns must be there."""

    columns: Annotated[tuple[Column, ...], Field(max_length=512)] = ()
    """Columns that must be there, besides the target."""
    order: Literal["Ignore", "Enforce"] = "Ignore"
    """Enforce: the columns come in the order given."""
    extra: Literal["Allow", "Refuse"] = "Allow"
    """Refuse: no column but those given and the target."""


class Suite(Strict):
    """Checks that are written in a file of the repository."""

    path: RelativePath
    """A pandera schema as YAML, with pandera's own checks only: it is read as data. The file must be among
    `source.paths`, so that a change of it makes a new revision."""

    @field_validator("path")
    @classmethod
    def _path(cls, value: str) -> str:
        return _ending(value, ".yaml", ".yml")


class Expectations(Strict):
    """Expectations that are written in a file of the repository."""

    path: RelativePath
    """A suite of Great Expectations as JSON (0.18 or 1.x), with its own expectations only: it is read as data, and
    judged where `mainspring[great-expectations]` is installed. The file must be among `source.paths`."""

    @field_validator("path")
    @classmethod
    def _path(cls, value: str) -> str:
        return _ending(value, ".json")


def _ending(path: str, *endings: str) -> str:
    """Refuse a path that leaves the repository or ends otherwise; the first ending is the one that is told."""
    problem = git_rules.path_problem(path)
    if problem or not path.endswith(endings):
        raise ValueError(problem or f"the path {git_rules.shown(path)} does not end in {endings[0]}")
    return path


class Check(Strict):
    """One rule that the data must pass before anything is trained."""

    name: Name
    """Name of the check, unique in the list."""
    column: Column | None = None
    """The column that is checked; `schema`, `pandera`, `greatExpectations` and volume checks need none."""
    schema_: Annotated[SchemaCheck | None, Field(alias="schema")] = None
    """Which columns must be there."""
    type: Literal["Integer", "Number", "String", "Boolean", "Datetime"] | None = None
    """What every value of the column must be."""
    max_null_fraction: Annotated[float, Field(ge=0, le=1)] | None = None
    """Largest share of missing values in the column, 0 to 1."""
    min: float | None = None
    """Smallest value allowed in the column."""
    max: float | None = None
    """Largest value allowed in the column."""
    allowed: Annotated[tuple[Scalar, ...], Field(max_length=1024)] | None = None
    """The only values allowed in the column, missing ones aside."""
    unique: bool | None = None
    """True: no value of the column comes twice."""
    min_rows: Annotated[int, Field(ge=1)] | None = None
    """Fewest rows that the dataset may have."""
    max_change: Annotated[float, Field(gt=0)] | None = None
    """Largest change of the number of rows against the champion's data, as a share: 0.5 is 50 %."""
    max_age: Duration | None = None
    """Oldest that the newest value of `column` (a time) may be when the data is pinned."""
    pandera: Suite | None = None
    """A pandera schema in the repository that the data must fit."""
    great_expectations: Expectations | None = None
    """A suite of Great Expectations in the repository that the data must meet."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        of_column = {
            "type": self.type,
            "maxNullFraction": self.max_null_fraction,
            "min": self.min,
            "max": self.max,
            "allowed": self.allowed,
            "unique": self.unique,
            "maxAge": self.max_age,
        }
        of_table = {
            "schema": self.schema_,
            "minRows": self.min_rows,
            "maxChange": self.max_change,
            "pandera": self.pandera,
            "greatExpectations": self.great_expectations,
        }
        given = [k for k, v in of_column.items() if v is not None]
        if not given and all(v is None for v in of_table.values()):
            raise ValueError(f"check {self.name} checks nothing: set one of {', '.join([*of_column, *of_table])}")
        if given and self.column is None:
            raise ValueError(f"check {self.name}: {given[0]} needs column")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"check {self.name}: min {self.min} is above max {self.max}")
        return self
