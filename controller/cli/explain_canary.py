"""What an explanation says about the last canary: every check of its last step, and the figures of all steps.

Pure: a status in, lines out.
"""

from __future__ import annotations

from controller.api.modelstatus import AnalysisStatus, CheckResult
from controller.cli.output import aligned

FIGURES_SHOWN = 6
"""Most figures of one step in a line."""


def lines(told: AnalysisStatus | None) -> list[str]:
    """Write the tables; nothing where there was no canary."""
    if told is None:
        return []
    rows = [(c.name, _outcome(c), c.message) for c in told.checks]
    title = f"Measured in the canary of {told.revision}, at {told.weight}% since {told.since}"
    out = ["", title, *aligned(("CHECK", "OUTCOME", "MESSAGE"), rows, indent="  ")]
    if len(told.steps) > 1:
        steps = [
            (
                f"{s.weight}%",
                f"{s.requests:,}",
                "" if s.champion_requests is None else f"{s.champion_requests:,}",
                ", ".join(f"{name} {value:.4g}" for name, value in list(s.numbers.items())[:FIGURES_SHOWN]),
            )
            for s in told.steps
        ]
        out += ["", "Its steps", *aligned(("WEIGHT", "REQUESTS", "CHAMPION'S", "FIGURES"), steps, indent="  ")]
    return out


def _outcome(check: CheckResult) -> str:
    notes = [note for note, given in (("built in", check.built_in), ("dry run", check.dry_run)) if given]
    return f"{check.outcome} ({', '.join(notes)})" if notes else check.outcome
