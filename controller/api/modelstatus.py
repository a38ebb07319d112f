"""What the status of a ModelSpec says: what is asked for, what serves, what wants to, and why.

A cache of the ledger and of the world: deleting it loses nothing but a little time.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from controller.api.base import Lenient
from controller.api.conditions import Condition

Outcome = Literal["Passed", "Failed", "Inconclusive"]


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
    counters: dict[str, float] = Field(default_factory=dict)
    """Requests and errors that its servers had counted when the step began."""


class PreviousRevision(Lenient):
    """The last revision that ended, one way or another."""

    revision: str
    """Name of the ModelRevision."""
    verdict: Literal["Rejected", "RolledBack", "Replaced", "Aborted"]
    """How it ended."""
    reason: str
    """Why, one sentence with the numbers."""


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
    judgement: Judgement | None = None
    """The last verdicts."""
    ledger: LedgerStatus | None = None
    """The ledger, as last read."""
    requested_at: str = ""
    """Last value of the annotation that asks for a look at once."""
