"""What a ModelSpec says about the log of its predictions: what of them, how many, where, how long.

Read by the specs of ModelSpec; `plan/predlog.py` turns it into what servers and shippers are told.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from controller.api.base import Duration, Lenient, Strict, seconds
from controller.api.pods import LocalRef

URI_PATTERN: Final = (
    r"^(file:///[^?#@\s]*[^?#@/\s]/?|(s3|gs|az)://[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9](/[^?#@\s]*)?)$"
)
RETENTION: Final = ("24h", "87600h")
"""Shortest and longest time that predictions are kept: a day, as they are deleted by days, and ten years."""


class LogStorage(Strict):
    """Where predictions are kept."""

    uri: Annotated[str, StringConstraints(max_length=1024, pattern=URI_PATTERN)]
    """`s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`; in local mode also
    `file:///directory`. One place may serve several models."""
    secret_ref: LocalRef | None = None
    """Secret of the namespace with the login for the store; docs/secrets.md says which keys it needs. It must
    carry the label `mainspring.dev/usable-by`. Default: what the pod's own identity may do. Local mode has no
    Secrets."""

    @model_validator(mode="after")
    def _login(self) -> Self:
        if self.secret_ref is not None and self.uri.startswith("file:"):
            raise ValueError("secretRef is for stores of objects; a directory takes no login")
        return self


class PredictionLog(Strict):
    """Every prediction, kept as typed parquet by day and revision. docs/prediction-log.md says how to read it."""

    mode: Literal["All", "Request", "Response", "Off"] = "All"
    """All: inputs, predictions and probabilities. Request: inputs only. Response: predictions only. Off: nothing
    is logged. Default All, where predictionLog is given; without it nothing is logged."""
    sample: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the requests that is logged, above 0 and at most 1; the id of a request decides. Default 1."""
    sensitive: Literal["Drop", "Hash"] = "Drop"
    """What becomes of `columns.sensitive`. Drop (default): they are not in the log. Hash: equal values have equal
    hashes, which whoever can guess a value can check."""
    storage: LogStorage | None = None
    """Where it is kept. Needed on a cluster; default in local mode: a directory of the state directory."""
    retention: Duration | None = None
    """How long predictions are kept, at least 24h; whole days are deleted, every few hours. Default: for ever."""

    @field_validator("retention")
    @classmethod
    def _span(cls, value: str | None) -> str | None:
        low, high = RETENTION
        if value is not None and not seconds(low) <= seconds(value) <= seconds(high):
            raise ValueError(f"{value} is outside {low} to {high}: whole days are deleted")
        return value

    @property
    def on(self) -> bool:
        """Tell whether anything is to be logged."""
        return self.mode != "Off"


class PredictionLogStatus(Lenient):
    """Where the log of predictions goes."""

    uri: str
    """The store: below it are `day=…/revision=…`."""
