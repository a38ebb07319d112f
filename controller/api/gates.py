"""What a ModelSpec says about judging and serving: gates before traffic, and servers (canary: `rollout.py`).

Read by `plan/gates.py` and `plan/rollout.py`, which decide by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, ValidationInfo, field_validator, model_validator

from controller.api import expressions, git_rules
from controller.api.base import Column, Duration, HashMark, Name, Size, Strict
from controller.api.data import RelativePath
from controller.api.metrics import METRICS, Task
from controller.api.pods import Autoscaling, PodTemplate, Resources, RouteSpec
from controller.api.predictionlog import PredictionLog
from controller.api.rollout import Canary, SmokeTest

Fairness = Literal[
    "DemographicParityDifference",
    "DemographicParityRatio",
    "EqualizedOddsDifference",
    "EqualizedOddsRatio",
    "EqualOpportunityDifference",
    "EqualOpportunityRatio",
]
"""Measures of fairness between groups, named as in fairlearn."""


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


class Baseline(Strict):
    """A model that learned nothing but the training labels; a challenger should beat it by far."""

    dummy: Literal["MostFrequent", "Prior", "Mean", "Median"]
    """MostFrequent: always the commonest class of the training labels. Prior: the same, with the shares of the
    classes as probabilities. Mean, Median: always that number of the training labels."""


class ScanReport(Strict):
    """A report of a scanner that the training program left: SARIF, Trivy JSON or Grype JSON."""

    path: Annotated[RelativePath, HashMark.EVIDENCE]
    """File below MAINSPRING_OUTPUT. A change measures again; nothing is trained."""
    max_severity: Literal["None", "Low", "Medium", "High"]
    """The worst finding that passes; what has no known severity passes nowhere."""

    @field_validator("path")
    @classmethod
    def _path(cls, value: str) -> str:
        if problem := git_rules.path_problem(value):
            raise ValueError(problem)
        return value


class Gate(Strict):
    """One rule that a challenger must pass before it serves. Exactly one of: a limit, `champion`, `baseline`,
    `probe`, `fairness`, `report`, `cel`."""

    name: Name
    """Name of the gate, unique in the list."""
    from_: Annotated[Literal["Evaluator", "Trainer"] | None, Field(alias="from")] = None
    """Whose number is judged. Evaluator: computed by ours on the hold-out. Trainer: what the training program
    wrote into metrics.json; nobody checks it, and status shows that. Default Evaluator."""
    metric: Annotated[str, StringConstraints(max_length=128)] | None = None
    """Metric of the table (`mainspring validate` names them), or of metrics.json with `from: Trainer`."""
    direction: Literal["Higher", "Lower"] | None = None
    """With `from: Trainer`: which way is better. Higher takes min, Lower takes max."""
    min: float | None = None
    """Smallest value that passes."""
    max: float | None = None
    """Largest value that passes."""
    champion: ChampionMargin | None = None
    """Comparison with the model that serves now."""
    baseline: Baseline | None = None
    """Comparison with a model that learned nothing but the training labels."""
    margin: Annotated[float, Field(ge=-1e12, le=1e12)] | None = None
    """With `baseline`: smallest improvement over it; positive is better. Default 0."""
    mode: Literal["Absolute", "Relative"] | None = None
    """With `baseline`: Absolute, in the metric's unit, or Relative, as a share of its value. Default Absolute."""
    slices: Annotated[tuple[Column, ...] | None, Field(min_length=1, max_length=4), HashMark.EVIDENCE] = None
    """Columns whose values each make a slice of the hold-out; the limit or `champion` holds in every one. A change
    measures again; nothing is trained."""
    fairness: Fairness | None = None
    """Largest difference, or smallest ratio, between groups of rows; names and formulas are those of fairlearn."""
    by: Annotated[Column | None, HashMark.EVIDENCE] = None
    """With `fairness`: the column whose values are the groups. A change measures again; nothing is trained."""
    min_rows: Annotated[int, Field(ge=2, le=1_000_000_000)] | None = None
    """With `slices` or `fairness`: fewest hold-out rows of a slice or group that is judged. Default 100."""
    probe: Probe | None = None
    """Limits on latency and size."""
    report: ScanReport | None = None
    """Limit on the findings of a scanner."""
    cel: Annotated[str, StringConstraints(min_length=1, max_length=4096)] | None = None
    """Expression of the Common Expression Language that must be true. It sees metrics, champion and improvement
    (by metric), data (holdout.rows, training.rows) and model (sizeBytes, p50Ms, p95Ms, p99Ms)."""
    dry_run: bool | None = None
    """True: judged and shown, and never decides. Default false."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if problem := kind_problem(self) or part_problem(self):
            raise ValueError(f"gate {self.name}: {problem}")
        return self

    @field_validator("metric")
    @classmethod
    def _known(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("from_") != "Trainer" and value not in METRICS:
            raise ValueError(_unknown_metric(value))
        return value

    @field_validator("cel")
    @classmethod
    def _expression(cls, value: str | None) -> str | None:
        if value is not None and (problem := expressions.problem(value)):
            raise ValueError(problem)
        return value


DEFAULT_MIN_ROWS: Final = 100
"""Fewest rows of a slice or group that is judged, where the gate does not say."""


def own_metric(gate: Gate) -> str | None:
    """Name the metric of the table that a gate judges; None where it judges something else."""
    return gate.metric if gate.from_ != "Trainer" else None


def task_of_gates(gates: Sequence[Gate]) -> tuple[Task, ...]:
    """Say which parts of the metric table gates use: none, one, or, which is a mistake, both."""
    found = {METRICS[m].task for g in gates if (m := own_metric(g))}
    found |= {"Classification" for g in gates if g.fairness}
    return tuple(sorted(found))


def kind_problem(gate: Gate) -> str:
    """Say what is wrong with the choice of what a gate judges; empty when nothing is."""
    limited = gate.min is not None or gate.max is not None
    kinds = {
        "min/max": limited and gate.fairness is None,
        "champion": gate.champion is not None,
        "baseline": gate.baseline is not None,
        "probe": gate.probe is not None,
        "fairness": gate.fairness is not None,
        "report": gate.report is not None,
        "cel": gate.cel is not None,
    }
    if list(kinds.values()).count(True) != 1:
        return f"set exactly one of {', '.join(kinds)}"
    kind = next(k for k, given in kinds.items() if given)
    of_metric = kind in ("min/max", "champion", "baseline")
    if of_metric and gate.metric is None:
        return "it needs metric"
    if not of_metric and gate.metric is not None:
        return f"{kind} takes no metric"
    if gate.slices is not None and kind not in ("min/max", "champion"):
        return "slices go with min/max or champion"
    if gate.min is not None and gate.max is not None and gate.min > gate.max:
        return f"min {gate.min} is above max {gate.max}"
    return ""


def part_problem(gate: Gate) -> str:
    """Say which part of a gate does not go with what it judges; empty when all do."""
    if gate.min_rows is not None and gate.slices is None and gate.fairness is None:
        return "minRows goes with slices or fairness"
    if gate.baseline is None and (gate.margin is not None or gate.mode is not None):
        return "margin and mode go with baseline; those of champion stand inside of it"
    if gate.baseline is not None and gate.metric in METRICS:
        classes = METRICS[gate.metric].task == "Classification"
        if classes != (gate.baseline.dummy in ("MostFrequent", "Prior")):
            return "dummy MostFrequent and Prior go with metrics of classes, Mean and Median with those of numbers"
    if (gate.fairness is None) != (gate.by is None):
        return "fairness and by go together"
    if gate.fairness is not None:
        ratio = gate.fairness.endswith("Ratio")
        limit, other = (gate.min, gate.max) if ratio else (gate.max, gate.min)
        if limit is None or other is not None or not 0 <= limit <= 1:
            return f"{gate.fairness} takes {'min' if ratio else 'max'}, from 0 to 1"
    return _trainer_problem(gate)


def _trainer_problem(gate: Gate) -> str:
    if gate.from_ != "Trainer":
        return "direction goes with from: Trainer" if gate.direction is not None else ""
    if gate.metric is None or gate.champion or gate.baseline or gate.slices:
        return "from: Trainer goes with metric and min/max only: the trainer's number was not measured by us"
    if gate.direction is None:
        return "from: Trainer needs direction: Higher or Lower"
    wanted, other = (gate.min, gate.max) if gate.direction == "Higher" else (gate.max, gate.min)
    if wanted is None or other is not None:
        return "direction: Higher takes min, direction: Lower takes max"
    return ""


class RollbackWindow(Strict):
    """How far back a revision may lie to serve again without a canary."""

    revisions: Annotated[int, Field(ge=0, le=100)]
    """How many champions before the one of now, 0 to 100. 0: going back takes the canary too."""


class Serving(Strict):
    """How the champion is served."""

    min_replicas: Annotated[int, Field(ge=1, le=100)] = 1
    """How many servers of the champion run, 1 to 100. Default 1."""
    max_replicas: Annotated[int, Field(ge=1, le=100)] | None = None
    """How many servers an autoscaler may make of it. Default: none is made, minReplicas run."""
    autoscaling: Autoscaling | None = None
    """When servers are added, where maxReplicas is set. Default: at 70 % CPU."""
    resources: Resources | None = None
    """What a server asks for and may take. Default: the operator's setting. Local mode has no limits."""
    template: PodTemplate | None = None
    """Where the pods of the servers run."""
    route: RouteSpec | None = None
    """Gateways that split the requests by exact weights. Default: whole servers split them."""
    prediction_log: PredictionLog | None = None
    """Which predictions are kept, and where. Default: none. A change replaces the servers one by one."""
    accelerate: Literal["Auto", "Off"] = "Auto"
    """Auto: a faster form of the model answers, where it predicted the whole hold-out as the model does; status
    says which. Off: the model itself answers. A change replaces the servers one by one. Default Auto."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """How many processes of a server answer, 1 to 64; each holds the model, so memory grows with them. A change
    replaces the servers one by one. Default 1."""
    smoke_test: SmokeTest | None = None
    """A request that every server of a challenger must answer before it gets any other. Default: none."""
    canary: Canary = Canary()
    """How a challenger takes over."""
    rollback_window: RollbackWindow | None = None
    """Which former champions skip the canary when Git asks for them again (`git revert`); older ones take it, and
    neither is trained or judged anew. Default: every one of the same bytes skips. Orders of people
    (ModelOverride) do not depend on it."""

    @model_validator(mode="after")
    def _replicas(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise ValueError(f"maxReplicas {self.max_replicas} is below minReplicas {self.min_replicas}")
        if self.autoscaling is not None and self.max_replicas is None:
            raise ValueError("autoscaling needs maxReplicas")
        return self


def _unknown_metric(value: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(value, METRICS, n=1)
    hint = f'; did you mean "{near[0]}"?' if near else "."
    return f'"{value}" is not a known metric{hint} Known: {", ".join(METRICS)}'
