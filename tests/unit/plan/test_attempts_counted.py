"""How attempts are counted: failures against the limit, lost ones against nothing, however many there were."""

from __future__ import annotations

import pytest

from controller.api.modelrevision import Attempt
from controller.plan.attempts import ATTEMPTS_KEPT, failures, in_a_row, with_attempt
from controller.plan.observed import JobSeen

OUTCOMES = {"F": "Failed", "L": "Lost", "S": "Succeeded"}


def after(outcomes: str) -> tuple[Attempt, ...]:
    """Let attempts end one after the other, one letter each."""
    attempts: tuple[Attempt, ...] = ()
    for number, letter in enumerate(outcomes, start=1):
        attempts = with_attempt(
            attempts, JobSeen(name=f"m-train-{number}", attempt=number, outcome=OUTCOMES[letter])
        )
    return attempts


@pytest.mark.parametrize(
    ("outcomes", "failed"),
    [
        pytest.param("", 0, id="none was made"),
        pytest.param("F", 1, id="one failed"),
        pytest.param("FSF", 1, id="what failed before a success counts no more"),
        pytest.param("FLF", 2, id="a lost one is no success"),
        pytest.param("F" * 11, 11, id="eleven, so that backoffLimit: 10 ends"),
        pytest.param("FL" * 11, 11, id="eleven among as many lost ones"),
        pytest.param("F" * 11 + "L" * 20, 11, id="eleven before twenty lost ones"),
        pytest.param("F" * 30 + "L", 19, id="a person asked again and again"),
    ],
)
def test_failed_attempts_are_counted(outcomes: str, failed: int) -> None:
    attempts = after(outcomes)
    assert failures(attempts) == failed
    assert len(attempts) <= ATTEMPTS_KEPT
    if outcomes:
        assert attempts[-1].number == len(outcomes), "the newest attempt is always kept"


def test_lost_attempts_are_counted_for_their_pause_also_after_many_failures() -> None:
    assert in_a_row(after("F" * 11 + "L" * 20), "Lost") >= 8
