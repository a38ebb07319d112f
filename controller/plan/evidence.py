"""What a canary has shown, as an entry of the ledger keeps it: its last step's verdicts, the numbers of all steps.

Pure, and bounded: 32 verdicts, 256 numbers.
"""

from __future__ import annotations

from typing import Any, Final

from controller.api.modelstatus import GateVerdict
from controller.plan.round import Round

NUMBERS: Final = 256
"""Most numbers in an entry of the ledger."""


def fields(r: Round, revision: str) -> dict[str, Any]:
    """Return what an entry of the ledger says about the canary of a revision; nothing where it had none."""
    told = r.status.analysis
    if told is None or told.revision != revision:
        return {}
    verdicts = tuple(
        GateVerdict(gate=c.name, outcome=c.outcome, reason=c.reason, message=c.message, dry_run=c.dry_run)
        for c in told.checks
    )
    numbers: dict[str, float] = {}
    # The last step decided: where there is no room for all, the first ones are left out.
    for number, step in reversed(list(enumerate(told.steps, start=1))):
        mine = {"weight": float(step.weight), "requests": float(step.requests), **step.numbers}
        if len(numbers) + len(mine) > NUMBERS:
            break
        numbers |= {f"step{number}.{name}": value for name, value in mine.items()}
    return {"gates": verdicts, "evidence": numbers}
