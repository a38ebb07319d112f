"""The two words of every decision: why we act (`Cause`), and what could not be seen (`Unknown`, `Refused`).

How a gate came out is a `GateVerdict` of the language, since status shows it; here is only how many become one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

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


def worst(verdicts: Iterable[GateVerdict]) -> Outcome:
    """Sum up verdicts: Failed if one failed, else Inconclusive if one was, else Passed."""
    outcomes = {v.outcome for v in verdicts}
    if "Failed" in outcomes:
        return "Failed"
    return "Inconclusive" if "Inconclusive" in outcomes else "Passed"
