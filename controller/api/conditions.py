"""Conditions, and every reason that one may show.

Ready, Reconciling and Stalled follow kstatus: Reconciling and Stalled are present only while True, Ready always.
Words of the field: a condition is a state, a reason a CamelCase fact, the message a sentence with numbers.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, Literal

from controller.api.base import Lenient

ConditionStatus = Literal["True", "False", "Unknown"]
MESSAGE_MAX: Final = 1024
"""Longest message in characters; longer ones are cut with an ellipsis."""


class Condition(Lenient):
    """One statement about an object, as in every Kubernetes API."""

    type: str
    """What it is about: Ready, Stalled, Available, …"""
    status: ConditionStatus
    """True, False or Unknown."""
    observed_generation: int = 0
    """Generation of the spec that this was decided from."""
    last_transition_time: str
    """When `status` last changed, RFC 3339, UTC."""
    reason: str
    """One CamelCase word for programs."""
    message: str = ""
    """One sentence for people, with the numbers, at most 1,024 characters."""


READY: Final = "Ready"
RECONCILING: Final = "Reconciling"
STALLED: Final = "Stalled"
SOURCE_READY: Final = "SourceReady"
DATA_VALID: Final = "DataValid"
TRAINED: Final = "Trained"
GATES_PASSED: Final = "GatesPassed"
AVAILABLE: Final = "Available"
DEGRADED: Final = "Degraded"
SERVED_AS_DECLARED: Final = "ServedAsDeclared"
ENVIRONMENT_NOT_ISOLATED: Final = "EnvironmentNotIsolated"
REGISTERED: Final = "Registered"
PREDICTIONS_LOGGED: Final = "PredictionsLogged"
HEALTHY: Final = "Healthy"
OVERRIDDEN: Final = "Overridden"
ACTIVE: Final = "Active"

Wanted = tuple[str, ConditionStatus, str, str]
"""(type, status, reason, message): a condition before it has a time."""


def timestamp(moment: datetime) -> str:
    """Write a moment as RFC 3339 in UTC with whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_timestamp(text: str) -> datetime:
    """Read what `timestamp` wrote."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def bounded(message: str, limit: int = MESSAGE_MAX) -> str:
    """Cut a message to its limit and keep it on one line."""
    line = " ".join(message.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def merge_conditions(
    old: tuple[Condition, ...], wanted: tuple[Wanted, ...], *, generation: int, now: datetime
) -> tuple[Condition, ...]:
    """Turn wanted statements into conditions; a transition time moves only when the status does.

    Conditions of types that are not wanted any more are dropped. The order is the order wanted.
    """
    before = {c.type: c for c in old}
    merged = []
    for type_, status, reason, message in wanted:
        prior = before.get(type_)
        moved = prior is None or prior.status != status
        merged.append(
            Condition(
                type=type_,
                status=status,
                observed_generation=generation,
                last_transition_time=timestamp(now) if moved or prior is None else prior.last_transition_time,
                reason=reason,
                message=bounded(message),
            )
        )
    return tuple(merged)


def find(conditions: tuple[Condition, ...], type_: str) -> Condition | None:
    """Find the condition of a type; None when it is not there."""
    return next((c for c in conditions if c.type == type_), None)
