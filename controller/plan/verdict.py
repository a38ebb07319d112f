"""The two words of every decision: why we act (`Cause`), and what could not be seen (`Unknown`, `Refused`).

How a gate came out is a `GateVerdict` of the language, since status shows it; here is only how many become one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from controller.api.gates import ChampionMargin, Gate
from controller.api.modelstatus import GateVerdict, Outcome


@dataclass(frozen=True, slots=True)
class Cause:
    """Why something is done: a word for programs, a sentence with numbers for people."""

    reason: str
    message: str

    def __str__(self) -> str:
        """Write it as transcripts and `mainspring plan` show it."""
        return f"{self.reason}: {self.message}"


@dataclass(frozen=True, slots=True)
class Unknown:
    """Something that could not be read just now; time may help. Differs from None, which is "not there"."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Something that will not be read until a person acts."""

    reason: str
    message: str


def deciding(verdicts: Iterable[GateVerdict]) -> tuple[GateVerdict, ...]:
    """Leave out what is only shown: gates with `dryRun: true`."""
    return tuple(v for v in verdicts if not v.dry_run)


def passed_of(verdicts: Iterable[GateVerdict]) -> tuple[int, int]:
    """Count the gates that passed, and all that decide."""
    found = deciding(verdicts)
    return sum(v.outcome == "Passed" for v in found), len(found)


def worst(verdicts: Iterable[GateVerdict]) -> Outcome:
    """Sum up the verdicts that decide: Failed if one failed, else Inconclusive if one was, else Passed."""
    outcomes = {v.outcome for v in deciding(verdicts)}
    if "Failed" in outcomes:
        return "Failed"
    return "Inconclusive" if "Inconclusive" in outcomes else "Passed"


def judged(gate: Gate, outcome: Outcome, reason: str, message: str) -> GateVerdict:
    """Write down how a gate judged."""
    return judged_as(gate.name, outcome, reason, message)


def judged_as(name: str, outcome: Outcome, reason: str, message: str) -> GateVerdict:
    """Write down how something judged that is no gate of the spec."""
    return GateVerdict(gate=name, outcome=outcome, reason=reason, message=message)


def amount(value: float, rule: ChampionMargin) -> str:
    """Write an improvement or a margin: a share in percent, or a number with its sign."""
    return f"{value:+.2%}" if rule.mode == "Relative" else f"{value:+.4g}"


def rows_needed(rows: int, gain: float, low: float, margin: float, *, of: str = "hold-out rows") -> str:
    """Say how many rows would decide: the interval's half-width shrinks with the root of the number of rows."""
    distance, half = gain - margin, gain - low
    if distance <= 0 or half <= 0:
        return ""
    return f"; about {round(rows * (half / distance) ** 2, -2):,.0f} {of} would decide"
