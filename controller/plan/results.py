"""How the checks of a canary write down what they found.  Pure, and bounded: a status holds all of them."""

from __future__ import annotations

from typing import Any, Final

from controller.api.conditions import bounded
from controller.api.modelstatus import CheckResult, Outcome
from controller.api.rollout import Analysis

MESSAGE_MAX: Final = 300
"""Longest message of a result, characters."""


def result(rule: Analysis, outcome: Outcome, reason: str, message: str, **numbers: Any) -> CheckResult:
    """Write down how a check came out."""
    return CheckResult(
        name=rule.name,
        metric=rule.metric or "prometheus",
        outcome=outcome,
        reason=reason,
        message=bounded(message, MESSAGE_MAX),
        dry_run=rule.dry_run,
        **numbers,
    )


def few(rule: Analysis, requests: float, whose: str = "") -> CheckResult:
    """Say that a check waits for requests."""
    message = f"{rule.name} waits for {rule.min_requests} requests{whose} ({requests:.0f} so far)"
    return result(rule, "Inconclusive", "TooFewRequests", message)
