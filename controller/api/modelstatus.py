"""What the status of a ModelSpec says: what is asked for, what serves, what wants to, and why.

A cache of the ledger and of the world: deleting it loses nothing but a little time.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from controller.api.base import Lenient
from controller.api.conditions import Condition
from controller.api.predictionlog import PredictionLogStatus

Outcome = Literal["Passed", "Failed", "Inconclusive"]
FIGURES_MAX: Final = 20_000
"""Most counters that a status remembers: those of a hundred servers."""


class SourceStatus(Lenient):
    """The commit that Git asks for."""

    revision: str
    """`main@sha1:<40 hex>`."""
    commit: str
    """Full commit."""
    author: str = ""
    """Author, as Git says."""
    subject: str = ""
    """First line of the commit's message."""
    wanted: str = ""
    """Name of the ModelRevision that the commit asks for."""


class DataStatus(Lenient):
    """One dataset that a revision learned from."""

    name: str
    """Name of the dataset."""
    digest: str
    """Digest of its content."""


class GateVerdict(Lenient):
    """How one gate judged one revision."""

    gate: str
    """Name of the gate."""
    outcome: Outcome
    """Passed, Failed or Inconclusive."""
    reason: str
    """One word, for example BelowMinimum."""
    message: str
    """Value, limit, margin and n, one sentence."""
    dry_run: bool = False
    """True: shown only; it decides nothing."""


class Judgement(Lenient):
    """All verdicts over one revision, and what they were decided from."""

    revision: str
    """The revision that was judged."""
    outcome: Outcome
    """Failed if one failed, else Inconclusive if one was, else Passed."""
    gate_hash: str
    """Hash of the gates."""
    evidence: str
    """sha256 of the report that was judged."""
    champion: str = ""
    """Digest of the champion that it was compared with."""
    admitted: bool = False
    """True: passed, and the ledger says so; then champion gates are not judged again."""
    verdicts: tuple[GateVerdict, ...] = ()
    """One per gate, in the order of the spec."""


class ServedRevision(Lenient):
    """The champion: which revision serves, from which commit, on which data, why it was let through."""

    revision: str
    """Name of the ModelRevision."""
    version: str = ""
    """Version in the registry."""
    digest: str = ""
    """Digest of the artifact."""
    commit: str = ""
    """Commit of the code."""
    data: tuple[DataStatus, ...] = ()
    """Data it learned from."""
    trigger: str = ""
    """Why it was trained."""
    gates: str = ""
    """Gates passed of all, `3/3`."""
    weight: int = 100
    """Percent of the requests."""
    since: str = ""
    """When it became champion, RFC 3339."""
    evidence: str = ""
    """Where the full report is: `mlflow:/<run>/mainspring/report.json`."""
    runtime: str = ""
    """Environment that it was judged in; its servers are named by it."""
    form: str = ""
    """Faster form of the model that its servers answer with, for example `ONNX float64`; empty: the model itself.
    A server that finds that form wanting says so in its log and in the label `form` of mainspring_model_info."""


class CheckResult(Lenient):
    """What one check of a canary step says."""

    name: str
    """Name of the check."""
    metric: str
    """What it measures; for built-in checks their own name."""
    outcome: Outcome
    """Passed, Failed or Inconclusive."""
    reason: str
    """One word, for example AboveMaximum."""
    message: str
    """Value, limit and number of requests, one sentence."""
    value: float | None = None
    """The challenger's figure."""
    champion: float | None = None
    """The champion's figure of the same time, where there is one."""
    failures: int = 0
    """Failed measurements in this step."""
    built_in: bool = False
    """True: a check that every canary has."""
    dry_run: bool = False
    """True: shown only; it decides nothing."""


class StepNumbers(Lenient):
    """What was measured at one step of a canary."""

    weight: int
    """Percent of the requests that the challenger got."""
    requests: int
    """Requests that the challenger answered in the step."""
    champion_requests: int | None = None
    """Requests that the champion answered in the same time; absent: not known."""
    numbers: Annotated[dict[str, float], Field(max_length=64)] = Field(default_factory=dict)
    """Figures of the challenger by name of the check."""


class AnalysisStatus(Lenient):
    """The last canary in numbers: the checks of its last step, and the figures of all steps."""

    revision: str
    """The challenger."""
    weight: int
    """Percent of the requests at the last step."""
    since: str
    """When that step began, RFC 3339."""
    passed: str = ""
    """Checks passed of all that decide, `6/7`."""
    checks: Annotated[tuple[CheckResult, ...], Field(max_length=64)] = ()
    """One per check of the last step."""
    steps: Annotated[tuple[StepNumbers, ...], Field(max_length=20)] = ()
    """One per step, in their order; the last one may be going on."""


class Measurement(Lenient):
    """Where a measurement within a step began."""

    since: str
    """When, RFC 3339."""
    counters: Annotated[dict[str, float], Field(max_length=FIGURES_MAX)] = Field(default_factory=dict)
    """Requests, errors and durations that the challenger's servers had counted then."""
    beside: Annotated[dict[str, float], Field(max_length=FIGURES_MAX)] | None = None
    """The same of the champion's servers; absent: they could not be read."""


class ChallengerStatus(Lenient):
    """A revision on its way."""

    revision: str
    """Name of the ModelRevision."""
    stage: Literal["Training", "Judging", "Starting", "Canary"]
    """Training, Judging, Starting (its servers come up) or Canary."""
    weight: int = 0
    """Percent of the requests it gets."""
    step: int = 0
    """Index of the canary step it is in, from 0."""
    since: str = ""
    """When this step began, RFC 3339; empty outside a canary."""
    started_at: str = ""
    """When its rollout began, RFC 3339."""
    counters: Annotated[dict[str, float], Field(max_length=FIGURES_MAX)] = Field(default_factory=dict)
    """What its servers had counted when the step began, `<pod>|<name>`; without zeros."""
    beside: Annotated[dict[str, float], Field(max_length=FIGURES_MAX)] | None = None
    """What the champion's servers had counted then; absent: they could not be read."""
    cells: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    """How predicted values are counted together in this step; empty: each for itself."""
    measurement: Measurement | None = None
    """The measurement of errors and durations that is going on, where a step has several."""
    failures: Annotated[dict[str, int], Field(max_length=64)] = Field(default_factory=dict)
    """Failed measurements of this step, by check."""
    failed: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    """Checks that have failed in the measurement that is going on: they are not counted twice."""


class PreviousRevision(Lenient):
    """The last revision that ended, one way or another."""

    revision: str
    """Name of the ModelRevision."""
    verdict: Literal["Rejected", "RolledBack", "Replaced", "Aborted"]
    """How it ended."""
    reason: str
    """Why, one sentence with the numbers."""


class FormerChampion(Lenient):
    """A revision that was champion once, with all that is needed to serve it again."""

    revision: str
    """Name of the ModelRevision."""
    version: str = ""
    """Version in the registry."""
    digest: str = ""
    """Digest of the artifact."""
    commit: str = ""
    """Commit of the code."""
    run: str = ""
    """MLflow run that holds the artifact."""
    runtime: str = ""
    """Environment that it was judged in."""
    problem: str = ""
    """Why it must not serve again: it was rolled back or rejected since. Empty: it may."""


class OverrideStatus(Lenient):
    """The order of a person that was taken up last."""

    name: str
    """Name of the ModelOverride."""
    uid: str
    """Its identity."""
    action: Literal["Rollback", "Promote", "Abort"]
    """What it orders."""
    revision: str
    """The revision that it is about."""
    actor: str = ""
    """Who orders it."""
    reason: str = ""
    """Why."""
    expires_at: str = ""
    """When it ends, RFC 3339."""
    state: Literal["Starting", "Applied", "Refused"]
    """Starting: what it needs comes up. Applied: it is so. Refused: it could not be done."""
    since: str = ""
    """When this state began, RFC 3339."""
    replaced: str = ""
    """The revision that it took the requests from."""


class LedgerStatus(Lenient):
    """How much of the ledger this status has taken in."""

    entries: int = 0
    """Number of valid entries."""
    ignored: int = 0
    """Number of entries that are forged, foreign or damaged."""


class ModelSpecStatus(Lenient):
    """What is."""

    observed_generation: int = -1
    """Generation that the status speaks of; -1 before the first look."""
    conditions: tuple[Condition, ...] = ()
    """Ready, Reconciling or Stalled, SourceReady, DataValid, Trained, GatesPassed, Available."""
    stage: str = ""
    """One word for people: Training, Judging, Canary, Serving, Stalled, Suspended, Waiting."""
    url: str = ""
    """Where requests go."""
    source: SourceStatus | None = None
    """The commit that Git asks for."""
    champion: ServedRevision | None = None
    """What serves."""
    challenger: ChallengerStatus | None = None
    """What is on its way."""
    previous: PreviousRevision | None = None
    """What ended last."""
    former: tuple[FormerChampion, ...] = ()
    """Champions before, newest first, at most 5: where `mainspring rollback` may go while MLflow is down."""
    override: OverrideStatus | None = None
    """The order of a person that was taken up last."""
    judgement: Judgement | None = None
    """The last verdicts."""
    analysis: AnalysisStatus | None = None
    """What was measured in the last canary."""
    ledger: LedgerStatus | None = None
    """The ledger, as last read."""
    prediction_log: PredictionLogStatus | None = None
    """Where predictions are logged; absent when they are not."""
    requested_at: str = ""
    """Last value of the annotation that asks for a look at once."""
