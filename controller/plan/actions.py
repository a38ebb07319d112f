"""Every action there is.  `reconcile/apply.py` carries them out, `cli/plan.py` prints them; both end their
`match` with `assert_never`, so that the type checker names a reader that forgot one.

Every action says why, and in its docstring why doing it twice is safe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from controller.api.conditions import Wanted
from controller.api.kinds import ModelRevision
from controller.api.meta import Key, Manifest
from controller.api.modelstatus import GateVerdict
from controller.api.statements import LedgerEntry
from controller.plan.verdict import Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRevision:
    """Create the ModelRevision of these inputs. Repeat: the name is the hash of the inputs; it exists or not."""

    manifest: Manifest
    why: Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTraining:
    """Make the MLflow run of this attempt and the Job with its task. Repeat: run and Job are found by name."""

    revision: ModelRevision
    attempt: int
    tasks: Mapping[str, dict[str, Any]]
    """One task per step, the run's id still missing in that of `evaluate`."""
    manifest: Manifest
    """The Job."""
    experiment: str
    environment: str
    """Of the model: two of one name share no run and no version."""
    why: Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseRun:
    """Close the MLflow run of an attempt that failed. Repeat: the run is found by tag, its status set again."""

    experiment: str
    environment: str
    revision: str
    attempt: int
    status: Literal["FAILED", "KILLED"]
    why: Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterVersion:
    """Close the run and register the model as a version. Repeat: the version is found by the revision's tag."""

    registry_name: str
    environment: str
    revision: str
    run: str
    tags: Mapping[str, str]
    why: Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordVerdict:
    """Append a signed entry to the ledger. Repeat: the sequence number admits one entry only."""

    entry: LedgerEntry
    statement: Mapping[str, Any] | None
    """Lineage statement to sign beside it, for Admitted and Rejected."""
    why: Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyManifest:
    """Apply a Deployment or a Service. Repeat: server-side apply of the same fields changes nothing."""

    manifest: Manifest
    why: Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class SetWeights:
    """Apply the route with these shares of the requests. Repeat: the same route changes nothing."""

    manifest: Manifest
    weights: Mapping[str, int]
    why: Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteManifest:
    """Delete one of our objects. Repeat: gone already is fine; the uid protects one made anew."""

    key: Key
    uid: str | None
    why: Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAlias:
    """Point the registry's alias at the champion. Repeat: an alias names one version."""

    registry_name: str
    alias: str
    version: str
    why: Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpireJob:
    """Let a Job whose result was taken in be deleted after a while. Repeat: the same number changes nothing."""

    key: Key
    after_s: int
    why: Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyModelSpec:
    """Apply a ModelSpec as its file says. Repeat: server-side apply of the same fields changes nothing."""

    manifest: Manifest
    why: Cause


Action = (
    CreateRevision
    | StartTraining
    | CloseRun
    | RegisterVersion
    | RecordVerdict
    | ApplyManifest
    | SetWeights
    | DeleteManifest
    | SetAlias
    | ExpireJob
    | ApplyModelSpec
)


S = TypeVar("S")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Generic[S]):
    """What to do now, what to say, and when to look again.

    `next_s`: seconds until the next look even if nothing changes; None: only a change matters. A plan without
    actions is false, so that a test for a fixpoint reads `assert not plan`.
    """

    actions: tuple[Action, ...] = ()
    conditions: tuple[Wanted, ...] = ()
    status: S
    verdicts: tuple[GateVerdict, ...] = ()
    next_s: float | None = None

    def __bool__(self) -> bool:
        """Tell whether there is anything to do."""
        return bool(self.actions)
