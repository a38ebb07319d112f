"""What an explanation says about orders of people: on the screen of the model, and on their own.

Pure: facts in, lines out.
"""

from __future__ import annotations

from controller.api.base import human_seconds
from controller.api.conditions import ACTIVE, OVERRIDDEN, find, parse_timestamp
from controller.api.kinds import ModelOverride
from controller.api.modelstatus import ModelSpecStatus, OverrideStatus
from controller.cli import explain_text as text
from controller.cli.explain_text import Facts
from controller.cli.output import age


def of_model(facts: Facts, status: ModelSpecStatus) -> list[str]:
    """Say which order holds, whose it is, and what comes after it; nothing where Git rules."""
    taken = status.override
    if taken is None or find(status.conditions, OVERRIDDEN) is None:
        return []
    since = f" ({age(taken.since, facts.now)} ago)" if taken.since else ""
    asked = status.source.wanted if status.source else ""
    return text.section(
        "Ordered by a person",
        [
            ("order", f"{taken.action} {taken.revision}, {taken.state} since {taken.since}{since}"),
            ("by", taken.actor),
            ("because", taken.reason),
            (
                "until",
                f"{taken.expires_at}{_left(taken, facts)}; then {asked or 'what Git asks for'}, as Git asks",
            ),
            ("took from", taken.replaced),
            ("object", f"modeloverride/{taken.name}"),
        ],
    )


def _left(taken: OverrideStatus, facts: Facts) -> str:
    """Say how long it still holds; empty where the end cannot be read."""
    if not taken.expires_at:
        return ""
    return f", in {human_seconds(max((parse_timestamp(taken.expires_at) - facts.now).total_seconds(), 1))}"


def order(facts: Facts, override: ModelOverride) -> list[str]:
    """Explain one order: what it says, and how it stands."""
    meta, spec = override.metadata, override.spec
    active = find(override.status.conditions, ACTIVE)
    title = f"ModelOverride {meta.name} in namespace {meta.namespace}"
    if active is None:
        head = [f"{title}: not looked at yet"]
    else:
        word = {"True": "it holds", "False": "it does not hold", "Unknown": "it waits"}[active.status]
        since = age(active.last_transition_time, facts.now)
        head = [f"{title}: {word}, {active.reason}, for {since}", active.message]
    return head + text.section(
        "Ordered",
        [
            ("model", f"modelspec/{spec.model_ref.name}"),
            ("action", spec.action),
            ("revision", spec.to),
            ("artifact", spec.digest),
            ("by", spec.actor),
            ("because", spec.reason),
            ("until", spec.expires_at),
        ],
    )
