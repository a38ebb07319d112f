"""How a challenger takes over: the steps of a canary, and what is measured at each of them.

Read by `plan/canary.py` and `plan/rollout.py`, which decide by it; docs/rollouts.md has the formulas.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Annotated, Final, Literal, Self, get_args

from pydantic import Field, StringConstraints, field_validator, model_validator

from controller.api import git_rules
from controller.api.base import Duration, Name, Strict, seconds, unique_names, within
from controller.api.data import RelativePath

LiveMetric = Literal[
    "request-error-rate",
    "request-duration-p50",
    "request-duration-p95",
    "request-duration-p99",
    "prediction-drift",
    "disagreement",
]
Word = Annotated[str, StringConstraints(max_length=256)]
BuiltInName = Literal[
    "constant-predictions",
    "missing-values",
    "unseen-categories",
    "confidence-collapse",
    "errors-beside-champion",
    "volume",
]
PLACEHOLDERS: Final = ("version", "revision", "model", "namespace")
"""What a query may name, as `{{ .version }}`."""
PLACEHOLDER: Final = f"[{{][{{] *[.]({'|'.join(PLACEHOLDERS)}) *[}}][}}]"
"""One of them, as a regular expression."""
BUILT_IN: Final[tuple[BuiltInName, ...]] = get_args(BuiltInName)
"""The checks that every canary has unless they are disabled, in the order in which status shows them."""


class LiveMargin(Strict):
    """By how much the challenger must beat the champion's own figure of the same time."""

    margin: Annotated[float, Field(ge=-1e6, le=1e6)] = 0.0
    """Smallest improvement, in the metric's unit (Absolute; durations in seconds) or as a share of the champion's
    figure (Relative). Positive is better, whatever the metric's direction; a negative margin tolerates that much
    loss."""
    mode: Literal["Absolute", "Relative"] = "Absolute"
    """Absolute or Relative."""


class SmokeExpect(Strict):
    """What a server must answer to the request of a smoke test."""

    status: Annotated[int, Field(ge=200, le=599)] = 200
    """Status of the answer. Default 200."""
    rows: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """How many predictions."""
    type: Literal["Number", "Text", "Boolean"] | None = None
    """What every prediction is."""
    min: float | None = None
    """Smallest prediction; makes Number of the type."""
    max: float | None = None
    """Largest prediction; makes Number of the type."""
    among: Annotated[tuple[Word, ...], Field(min_length=1, max_length=100)] | None = None
    """Every prediction is one of these, as text."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        wanted = (self.rows, self.type, self.min, self.max, self.among)
        if self.status != 200 and any(w is not None for w in wanted):
            raise ValueError("predictions come with status 200 only")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        if (self.min is not None or self.max is not None) and self.type not in (None, "Number"):
            raise ValueError("min and max go with numbers")
        return self


class SmokeTest(Strict):
    """A request that every server of a challenger must answer as expected before it gets any other."""

    path: RelativePath
    """File of the repository with the body of a request to /invocations: `.json` or `.csv`, at most 64 KiB."""
    expect: SmokeExpect = SmokeExpect()
    """What it must answer. Default: status 200."""

    @field_validator("path")
    @classmethod
    def _path(cls, value: str) -> str:
        if problem := git_rules.path_problem(value):
            raise ValueError(problem)
        if not value.endswith((".json", ".csv")):
            raise ValueError(f"{value} must end in .json or .csv")
        return value


class PrometheusQuery(Strict):
    """A number of a Prometheus server that the operator's settings name."""

    query: Annotated[str, StringConstraints(min_length=1, max_length=4096)]
    """Instant query with one number. `{{ .version }}`, `{{ .revision }}`, `{{ .model }}` and `{{ .namespace }}`
    are those of the model that is measured. No data is Inconclusive."""
    server: (
        Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^https?://[^/@?#\s]+/?$")] | None
    ) = None
    """Address of the server, one of the operator's setting MAINSPRING_PROMETHEUS. Default: the first of them."""
    min: Annotated[float, Field(ge=-1e12, le=1e12)] | None = None
    """Smallest value that passes."""
    max: Annotated[float, Field(ge=-1e12, le=1e12)] | None = None
    """Largest value that passes."""
    direction: Literal["Higher", "Lower"] | None = None
    """With champion: which way is better."""

    @field_validator("query")
    @classmethod
    def _placeholders(cls, value: str) -> str:
        if value.count("{{") != len(re.findall(PLACEHOLDER, value)):
            known = ", ".join(f"{{{{ .{p} }}}}" for p in PLACEHOLDERS)
            raise ValueError(f"what stands between {{{{ and }}}} must be one of {known}")
        return value


class Analysis(Strict):
    """One measurement on live requests that every canary step must pass. Exactly one of `metric` and
    `prometheus`."""

    name: Name
    """Name of the measurement, unique in the list."""
    metric: LiveMetric | None = None
    """request-error-rate: share of answers with status 5xx. request-duration-p50, -p95, -p99: that percentile.
    prediction-drift: distance from 0 to 1 between what challenger and champion predict in the same time.
    disagreement: share of rows that both predict differently, of requests that both were given."""
    prometheus: PrometheusQuery | None = None
    """A number of Prometheus, asked for when a measurement ends."""
    max: Annotated[float, Field(ge=0, le=1)] | None = None
    """request-error-rate, disagreement: largest share that passes. prediction-drift: largest distance. 0 to 1."""
    max_duration: Duration | None = None
    """request-duration-*: longest time that passes."""
    sample: Annotated[float, Field(gt=0, le=1)] | None = None
    """disagreement: which share of the challenger's requests the champion is asked, too; at most 20 a second.
    Default 0.1."""
    tolerance: Annotated[float, Field(ge=0, le=1)] | None = None
    """disagreement: by which share of the larger one two predicted numbers may differ. Default 0.1."""
    champion: LiveMargin | None = None
    """request-* and prometheus: comparison with the champion's figure of the same time, beside the limit or
    instead of it."""
    min_requests: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Fewest requests for a judgement; of the champion, too, where it is compared with. Fewer wait; none at all
    pass with reason NoTraffic."""
    failure_limit: Annotated[int, Field(ge=1, le=100)] = 1
    """With how many failed measurements in one step all traffic goes back. More than 1 needs measureEvery. Default
    1: the first."""
    dry_run: bool = False
    """True: measured and shown, and never decides. Default false."""

    @model_validator(mode="after")
    def _limit(self) -> Self:
        if problem := _limit_problem(self):
            raise ValueError(f"analysis {self.name}: {problem}")
        return self


def _limit_problem(rule: Analysis) -> str:
    if (rule.metric is None) == (rule.prometheus is None):
        return "set exactly one of metric and prometheus"
    if rule.metric != "disagreement" and (rule.sample is not None or rule.tolerance is not None):
        return "sample and tolerance go with disagreement"
    if rule.prometheus is not None:
        return _query_problem(rule, rule.prometheus)
    if rule.metric in ("prediction-drift", "disagreement"):
        if rule.max is None or rule.max_duration is not None or rule.champion is not None:
            return f"{rule.metric} takes max: it always compares with the champion"
        return ""
    if rule.metric == "request-error-rate":
        if rule.max_duration is not None or (rule.max is None and rule.champion is None):
            return "request-error-rate takes max, champion or both"
        return ""
    if rule.max is not None or (rule.max_duration is None and rule.champion is None):
        return f"{rule.metric} takes maxDuration, champion or both"
    return ""


def _query_problem(rule: Analysis, asked: PrometheusQuery) -> str:
    if rule.max is not None or rule.max_duration is not None:
        return "with prometheus, max stands inside of it, beside the query"
    if asked.min is None and asked.max is None and rule.champion is None:
        return "prometheus needs min, max or, beside it, champion"
    if asked.min is not None and asked.max is not None and asked.min > asked.max:
        return f"prometheus.min {asked.min} is above max {asked.max}"
    if (asked.direction is None) != (rule.champion is None):
        return "prometheus.direction and champion go together"
    return ""


class BuiltIn(Strict):
    """The checks that every canary has: is the challenger broken in a way that the champion is not?"""

    disabled: Annotated[tuple[BuiltInName, ...], Field(max_length=16)] = ()
    """Checks to leave out: constant-predictions, missing-values, unseen-categories, confidence-collapse,
    errors-beside-champion, volume."""
    dry_run: bool = False
    """True: measured and shown, and never decide. Default false."""


class Canary(Strict):
    """How a challenger takes over: a growing share of the requests, each step with its analysis."""

    step_weights: Annotated[tuple[Annotated[int, Field(ge=1, le=99)], ...], Field(min_length=1, max_length=20)] = (
        10,
        50,
    )
    """Percent of requests to the challenger at each step, growing, 1 to 99. Default [10, 50]."""
    interval: Duration = "10m"
    """Time at each weight. Default 10m."""
    measure_every: Duration | None = None
    """Into which spans a step is cut, each one measurement of errors and durations. Default: the whole step is
    one."""
    analysis: Annotated[tuple[Analysis, ...], Field(max_length=16)] = (
        Analysis(name="errors", metric="request-error-rate", max=0.01),
    )
    """What is measured at each step. Default: at most 1 % errors."""
    built_in: BuiltIn = BuiltIn()
    """Which of the built-in checks apply. Default: all."""
    on_inconclusive: Literal["Hold", "Promote", "Rollback"] = "Hold"
    """What happens when a step's time is over and a measurement could not be judged. Hold: wait for it until the
    deadline, then go back. Promote: go on. Rollback: go back. Default Hold."""
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

    @field_validator("measure_every")
    @classmethod
    def _every(cls, value: str | None) -> str | None:
        return value if value is None else within(value, 1, 604_800)

    @field_validator("analysis")
    @classmethod
    def _unique(cls, value: tuple[Analysis, ...]) -> tuple[Analysis, ...]:
        unique_names("analysis", [a.name for a in value])
        for rule in value:
            if rule.name in BUILT_IN:
                raise ValueError(f"analysis {rule.name}: that is the name of a built-in check")
        if sum(rule.metric == "disagreement" for rule in value) > 1:
            raise ValueError("disagreement comes twice: servers compare by one tolerance")
        return value

    @model_validator(mode="after")
    def _measured(self) -> Self:
        if self.measure_every is not None and seconds(self.measure_every) > seconds(self.interval):
            raise ValueError(f"measureEvery {self.measure_every} is longer than the interval {self.interval}")
        for rule in self.analysis:
            if rule.failure_limit > (most := self.measurements):
                more = "" if self.measure_every else "; set measureEvery"
                raise ValueError(
                    f"analysis {rule.name}: failureLimit {rule.failure_limit} is never reached by {most} "
                    f"measurement{'s' if most > 1 else ''} in a step{more}"
                )
        return self

    @property
    def comparison(self) -> Analysis | None:
        """The check for which servers compare answers; None where there is none."""
        return next((a for a in self.analysis if a.metric == "disagreement"), None)

    @property
    def measurements(self) -> int:
        """Say how many measurements a step has room for."""
        every = self.measure_every or self.interval
        return max(int(seconds(self.interval) / seconds(every) + 1e-9), 1)
