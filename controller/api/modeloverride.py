"""ModelOverride: what a person orders for a while, against or beside what Git asks for.

It names exact bytes, says who wants it and why, and ends by itself; then Git rules again.  An override never
changes: who wants something else makes another one, and the newest rules.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final, Literal

from pydantic import StringConstraints, field_validator

from controller.api.base import MODEL_NAME_MAX, MODEL_NAME_PATTERN, Lenient, Name, Sha256, Strict
from controller.api.conditions import Condition, parse_timestamp

Action = Literal["Rollback", "Promote", "Abort"]
LONGEST: Final = timedelta(days=7)
"""An override holds at most this long after it was made, whatever it says."""
MOMENT_PATTERN: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"


class ModelRef(Strict):
    """A ModelSpec of the same namespace."""

    name: Annotated[str, StringConstraints(pattern=MODEL_NAME_PATTERN, max_length=MODEL_NAME_MAX)]
    """Name of the ModelSpec."""


class ModelOverrideSpec(Strict):
    """What is ordered. It never changes; another order is another object."""

    model_ref: ModelRef
    """The model."""
    action: Action
    """Rollback: `to` serves all requests, nothing is trained, and what Git asks for waits. Promote: `to`, which
    has passed its gates, becomes champion without the rest of its canary. Abort: `to` gets no requests."""
    to: Name
    """Name of the ModelRevision that the order is about."""
    digest: Sha256
    """Digest of its artifact; other bytes under this name are not meant."""
    actor: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    """Who orders it. On a cluster the name that the API server knows the writer by; another one is refused."""
    reason: Annotated[str, StringConstraints(min_length=1, max_length=512)]
    """Why, one sentence; it stands in the condition and in the ledger."""
    expires_at: Annotated[str, StringConstraints(pattern=MOMENT_PATTERN, max_length=20)]
    """When it ends and Git rules again: RFC 3339 in UTC, `2026-03-02T12:00:00Z`. At most 7 days after it was made:
    what lies later counts as that."""

    @field_validator("reason")
    @classmethod
    def _said(cls, value: str) -> str:
        if not value.strip(" \t\n\v\f\r"):
            raise ValueError("must say why")
        return value

    @field_validator("expires_at")
    @classmethod
    def _moment(cls, value: str) -> str:
        try:
            parse_timestamp(value)
        except ValueError:
            raise ValueError("must be a time, RFC 3339 in UTC: 2026-03-02T12:00:00Z") from None
        return value


class ModelOverrideStatus(Lenient):
    """How it stands."""

    observed_generation: int = -1
    """Generation that the status speaks of; -1 before the first look."""
    conditions: tuple[Condition, ...] = ()
    """Active: True while it rules, with what it does; False with why it does not, or not any more."""
    requested_at: str = ""
    """Last value of the annotation that asks for a look at once."""
