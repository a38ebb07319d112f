"""What a ModelSpec says about judging and serving: gates before traffic, the canary and its analysis.

Read by `plan/gates.py` and `plan/rollout.py`, which decide by it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from controller.api.base import Duration, Name, Size, Strict, unique_names, within
from controller.api.metrics import METRICS


class ChampionMargin(Strict):
    """By how much the challenger must beat the champion on the same hold-out rows."""

    margin: Annotated[float, Field(ge=-1e12, le=1e12)] = 0.0
    """Smallest improvement, in the metric's unit (Absolute) or as a share of the champion's value (Relative).
    Positive is better, whatever the metric's direction; a negative margin tolerates that much loss."""
    mode: Literal["Absolute", "Relative"] = "Absolute"
    """Absolute or Relative."""
    confidence: Annotated[float, Field(ge=0.8, le=0.995)] | None = None
    """How sure the comparison must be, one-sided, 0.8 to 0.995, by a paired bootstrap. Absent: the measured
    improvement alone decides."""
    required: bool = False
    """True: a first model, without a champion to compare with, does not pass. Default false."""


class Probe(Strict):
    """Limits on how fast and how large the loaded model is, measured by our own loader on hold-out rows."""

    p50: Duration | None = None
    """Longest median time of one request with one row."""
    p95: Duration | None = None
    """Longest 95th percentile of the time of one request."""
    p99: Duration | None = None
    """Longest 99th percentile of the time of one request."""
    max_model_size: Size | None = None
    """Largest size of the model's files together."""
    requests: Annotated[int, Field(ge=20, le=10_000)] = 200
    """How many requests are timed, 20 to 10000. Default 200."""


class Gate(Strict):
    """One rule that a challenger must pass before it serves. Exactly one of: a limit, `champion`, `probe`."""

    name: Name
    """Name of the gate, unique in the list."""
    metric: Annotated[str, StringConstraints(max_length=63)] | None = None
    """Metric of the table (`mainspring validate` names them), computed by our evaluator on the hold-out."""
    min: float | None = None
    """Smallest value that passes."""
    max: float | None = None
    """Largest value that passes."""
    champion: ChampionMargin | None = None
    """Comparison with the model that serves now."""
    probe: Probe | None = None
    """Limits on latency and size."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        limited = self.min is not None or self.max is not None
        if [limited, self.champion is not None, self.probe is not None].count(True) != 1:
            raise ValueError(f"gate {self.name}: set exactly one of min/max, champion, probe")
        if self.probe is None and self.metric is None:
            raise ValueError(f"gate {self.name} needs metric")
        if self.probe is not None and self.metric is not None:
            raise ValueError(f"gate {self.name}: probe takes no metric")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"gate {self.name}: min {self.min} is above max {self.max}")
        return self

    @field_validator("metric")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and value not in METRICS:
            raise ValueError(_unknown_metric(value))
        return value


class Analysis(Strict):
    """One measurement on the challenger's live requests that every canary step must pass."""

    name: Name
    """Name of the measurement, unique in the list."""
    metric: Literal["request-error-rate", "request-duration-p95"]
    """request-error-rate: share of answers with status 5xx. request-duration-p95: 95th percentile."""
    max: Annotated[float, Field(ge=0, le=1)] | None = None
    """request-error-rate: largest share that passes, 0 to 1."""
    max_duration: Duration | None = None
    """request-duration-p95: longest time that passes."""
    min_requests: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Fewest requests in the step for a judgement. Fewer wait; none at all pass with reason NoTraffic."""

    @model_validator(mode="after")
    def _limit(self) -> Self:
        if self.metric == "request-error-rate" and (self.max is None or self.max_duration is not None):
            raise ValueError(f"analysis {self.name}: request-error-rate takes max")
        if self.metric == "request-duration-p95" and (self.max_duration is None or self.max is not None):
            raise ValueError(f"analysis {self.name}: request-duration-p95 takes maxDuration")
        return self


class Canary(Strict):
    """How a challenger takes over: a growing share of the requests, each step with its analysis."""

    step_weights: Annotated[tuple[Annotated[int, Field(ge=1, le=99)], ...], Field(min_length=1, max_length=20)] = (
        10,
        50,
    )
    """Percent of requests to the challenger at each step, growing, 1 to 99. Default [10, 50]."""
    interval: Duration = "10m"
    """Time at each weight. Default 10m."""
    analysis: Annotated[tuple[Analysis, ...], Field(max_length=16)] = (
        Analysis(name="errors", metric="request-error-rate", max=0.01),
    )
    """What is measured at each step. Default: at most 1 % errors."""
    progress_deadline_seconds: Annotated[int, Field(ge=1, le=604_800)] = 14_400
    """Longest time of the whole rollout in seconds, then all traffic goes back. Default 14400."""

    @field_validator("step_weights")
    @classmethod
    def _growing(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(b <= a for a, b in pairwise(value)):
            raise ValueError(f"stepWeights must grow from step to step, not {list(value)}")
        return value

    @field_validator("interval")
    @classmethod
    def _interval(cls, value: str) -> str:
        return within(value, 1, 604_800)

    @field_validator("analysis")
    @classmethod
    def _unique(cls, value: tuple[Analysis, ...]) -> tuple[Analysis, ...]:
        unique_names("analysis", [a.name for a in value])
        return value


class Serving(Strict):
    """How the champion is served."""

    min_replicas: Annotated[int, Field(ge=1, le=100)] = 1
    """How many servers of the champion run, 1 to 100. Default 1."""
    canary: Canary = Canary()
    """How a challenger takes over."""


def _unknown_metric(value: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(value, METRICS, n=1)
    hint = f'; did you mean "{near[0]}"?' if near else "."
    return f'"{value}" is not a known metric{hint} Known: {", ".join(METRICS)}'
