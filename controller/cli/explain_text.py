"""The parts of every explanation: head, sections, conditions, verdicts, log, events.  Facts in, lines out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from controller.api.conditions import READY, Condition, find
from controller.api.kinds import ModelRevision
from controller.api.meta import Manifest
from controller.api.modelstatus import GateVerdict
from controller.cli.output import age, aligned

GOOD_WHEN_FALSE: Final = frozenset({"Stalled", "Reconciling", "Degraded", "EnvironmentNotIsolated", "Overridden"})
"""Conditions whose True is no good news."""
SUMMARY: Final = ("Ready", "Stalled", "Reconciling")


@dataclass(frozen=True, slots=True)
class LogTail:
    """The last words of a step."""

    revision: str
    step: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that one explanation is written from."""

    manifest: Manifest
    revisions: Mapping[str, ModelRevision] = field(default_factory=dict)
    events: tuple[Manifest, ...] = ()
    """Oldest first."""
    log: LogTail | None = None
    now: datetime


def head(facts: Facts, conditions: tuple[Condition, ...]) -> list[str]:
    """Say which object, how it stands, and the sentence of its summary."""
    meta = facts.manifest["metadata"]
    title = f"{facts.manifest['kind']} {meta['name']} in namespace {meta['namespace']}"
    ready = find(conditions, READY)
    if ready is None:
        return [f"{title}: not looked at yet", "The controller has written no status; is mainspring up running?"]
    word = {"True": "Ready", "False": "not Ready", "Unknown": "unknown"}[ready.status]
    since = age(ready.last_transition_time, facts.now)
    blocked = "Blocked: " if find(conditions, "Stalled") is not None else ""
    lines = [f"{title}: {word}, {ready.reason}, for {since}", f"{blocked}{ready.message}"]
    if ready.observed_generation not in (0, meta.get("generation", 0)):
        lines.append("The object was changed since; the controller has not looked at the change yet.")
    return lines


def section(title: str, pairs: list[tuple[str, str]]) -> list[str]:
    """Write named facts below a title; those without a value are left out, a title without facts too."""
    given = [(name, value) for name, value in pairs if value]
    if not given:
        return []
    width = max(len(name) for name, _ in given)
    return ["", title, *(f"  {name.ljust(width)}   {value}" for name, value in given)]


def to_know(conditions: tuple[Condition, ...], *, but: tuple[str, ...] = ()) -> list[str]:
    """Write every further condition with bad news; the summary's is in the head, those of `but` elsewhere."""
    ready = find(conditions, READY)
    said = ready.message if ready is not None else ""
    bad = [c for c in conditions if c.type not in (*SUMMARY, *but) and _is_bad(c) and c.message != said]
    if not bad:
        return []
    return ["", "To know", *(f"  {c.type} is {c.status} ({c.reason}): {c.message}" for c in bad)]


def _is_bad(condition: Condition) -> bool:
    return condition.status == ("True" if condition.type in GOOD_WHEN_FALSE else "False")


def verdicts(title: str, judged: tuple[GateVerdict, ...]) -> list[str]:
    """Write how every gate judged."""
    if not judged:
        return []
    rows = [(v.gate, f"{v.outcome} (dry run)" if v.dry_run else v.outcome, v.message) for v in judged]
    return ["", title, *aligned(("GATE", "OUTCOME", "MESSAGE"), rows, indent="  ")]


def number(value: float | None, note: str = "") -> str:
    """Write a number, or why there is none."""
    return note if value is None else f"{value:.6g}"


def log_lines(facts: Facts) -> list[str]:
    """Write the last words of the step that failed."""
    if facts.log is None:
        return []
    title = f"Last words of step {facts.log.step} of {facts.log.revision}"
    return ["", title, *(f"  | {line}" for line in facts.log.lines)]


def events(facts: Facts) -> list[str]:
    """Write the newest events, newest last."""
    if not facts.events:
        return []
    rows = [(age(happened(e), facts.now), e.get("reason") or "", e.get("message") or "") for e in facts.events]
    return ["", "Events", *aligned(("AGE", "REASON", "MESSAGE"), rows, indent="  ")]


def happened(event: Manifest) -> str:
    """Say when an event happened, RFC 3339: those of others may have the newer field only."""
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")
