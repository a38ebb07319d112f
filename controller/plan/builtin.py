"""The checks that every canary has: is the challenger broken in a way in which the champion is not?

Pure.  Each fails only when the difference is large and chance explains it less than once in a million looks
(`chance.LEVEL`), and only from `LEAST` independent predictions on either side.  What cannot be judged is shown and
holds nothing up.  Rows of one request are alike, so a request counts once, however many rows it has.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, sqrt
from typing import Final

from controller.api.conditions import bounded
from controller.api.modelstatus import CheckResult, Outcome
from controller.api.rollout import BUILT_IN, BuiltIn, BuiltInName
from controller.plan import chance
from controller.plan.analysis import Window
from controller.plan.figures import Sums, independent, predictions, spread
from controller.plan.results import MESSAGE_MAX

LEAST: Final = 50
"""Fewest requests of both models for a judgement."""
POINTS: Final = 0.01
"""By how much more errors fail, as a share of the requests."""
PER_ROW: Final = 0.05
"""By how many more missing values or unseen categories per row."""
CONFIDENCE: Final = 0.1
"""By how much a lower mean of the highest class probability."""
EXPECTED: Final = 50
"""From how many expected requests on their absence means something."""

Judged = tuple[Outcome, str, str, float | None, float | None]
"""(outcome, reason, message, challenger's figure, champion's figure)."""


def check(rule: BuiltIn, step: Window, *, weight: int, exact: bool, over: bool) -> tuple[CheckResult, ...]:
    """Apply the built-in checks to what was counted since the step began.

    Args:
        rule: which apply.
        step: the counts.
        weight: percent of the requests that the challenger is to get.
        exact: requests are split one by one; False: connections are, as whole servers do.
        over: the step's time is over.
    """
    table: dict[BuiltInName, Callable[[], Judged]] = {
        "constant-predictions": lambda: _constant(step),
        "missing-values": lambda: _per_row(step, "missing", "missing values", PER_ROW),
        "unseen-categories": lambda: _per_row(step, "unseen", "unseen categories", PER_ROW),
        "confidence-collapse": lambda: _confidence(step),
        "errors-beside-champion": lambda: _errors(step),
        "volume": lambda: _volume(step, weight, exact=exact, over=over),
    }
    return tuple(_result(name, table[name](), rule.dry_run) for name in BUILT_IN if name not in rule.disabled)


def starved(step: Window, weight: int) -> str:
    """Say that no request came though the champion had many; empty where that is not so."""
    expected = step.beside * weight / (100 - weight)
    if step.requests or expected < EXPECTED:
        return ""
    came = f"no request came to the challenger, and {step.beside:,.0f} to the champion"
    return f"{came}: about {expected:,.0f} should have"


def _result(name: BuiltInName, judged: Judged, dry_run: bool) -> CheckResult:
    outcome, reason, message, value, champion = judged
    return CheckResult(
        name=name,
        metric=name,
        outcome=outcome,
        reason=reason,
        message=bounded(message, MESSAGE_MAX),
        value=value,
        champion=champion,
        built_in=True,
        dry_run=dry_run,
    )


def _wait(what: str) -> Judged:
    return "Inconclusive", "TooFewRequests", what, None, None


def _sides(step: Window, name: str) -> tuple[Sums, Sums, float, float] | Judged:
    """Give both sides and their numbers of independent predictions, or say what is missing."""
    if step.champion is None:
        return _wait("the champion's figures could not be read when the step began")
    n, m = independent(step.challenger), independent(step.champion)
    if name != "requests" and not step.challenger.get(name):
        return _wait("the challenger has predicted nothing yet")
    if min(n, m) < LEAST:
        return _wait(f"{n:.0f} requests and the champion's {m:.0f}: it takes {LEAST} of both")
    return step.challenger, step.champion, n, m


def _constant(step: Window) -> Judged:
    sides = _sides(step, "rows")
    if len(sides) == 5:
        return sides
    a, b = predictions(sides[0]), predictions(sides[1])
    n, m = sides[2], sides[3]
    if not a or not b:
        return _wait("predictions are not counted by value")
    if len(a) > 1:
        return "Passed", "Passed", f"{len(a)} different predictions in {n:.0f} requests", float(len(a)), None
    (only,) = a
    other = (1 - b.get(only, 0.0) / sum(b.values())) * m
    text = f"only {only!r} was predicted in {n:.0f} requests"
    beside = f"the champion predicted something else in {other:.0f} of {m:.0f}"
    if chance.fisher(other, m, 0, n) < chance.LEVEL:
        return "Failed", "Constant", f"{text}; {beside}", 1.0, float(len(b))
    return "Passed", "Passed", f"{text}; {beside}: no less than chance", 1.0, float(len(b))


def _per_row(step: Window, name: str, what: str, more: float) -> Judged:
    """Compare how often something happens per row; several columns of one row may have it."""
    sides = _sides(step, "rows")
    if len(sides) == 5:
        return sides
    rate, beside = (s.get(name, 0.0) / max(s.get("rows", 0.0), 1.0) for s in sides[:2])
    n, m = sides[2], sides[3]
    text = f"{what} per row {rate:.2f} in {n:.0f} requests, champion {beside:.2f} in {m:.0f}"
    # What lies between 0 and 1 varies no more than a coin of the same mean: the test errs on the safe side.
    scale = max(ceil(max(rate, beside)), 1)
    unlikely = chance.fisher(rate / scale * n, n, beside / scale * m, m) < chance.LEVEL
    if rate - beside > more and unlikely:
        return "Failed", "WorseThanChampion", f"{text}: more than {more:g} more", rate, beside
    return "Passed", "Passed", text, rate, beside


def _errors(step: Window) -> Judged:
    sides = _sides(step, "requests")
    if len(sides) == 5:
        return sides
    n, m = step.requests, step.beside
    a, b = (s.get("errors", 0.0) for s in sides[:2])
    rate, beside = a / n, b / m
    text = f"errors {rate:.1%} of {n:.0f} requests, champion {beside:.1%} of {m:.0f}"
    if rate - beside > POINTS and chance.fisher(a, n, b, m) < chance.LEVEL:
        return "Failed", "WorseThanChampion", f"{text}: more than {POINTS:.0%} worse", rate, beside
    return "Passed", "Passed", text, rate, beside


def _confidence(step: Window) -> Judged:
    sides = _sides(step, "rows")
    if len(sides) == 5:
        return sides
    mine, its = spread(sides[0]), spread(sides[1])
    n, m = sides[2], sides[3]
    if not mine[0] or not its[0]:
        return _wait("the models give no probabilities")
    text = f"mean confidence {mine[1]:.2f} in {n:.0f} requests, champion {its[1]:.2f} in {m:.0f}"
    # Half a step of the histogram is added to both spreads: rounding must not look like certainty.
    error = sqrt((mine[2] + 0.025**2) / n + (its[2] + 0.025**2) / m)
    if its[1] - mine[1] > CONFIDENCE and its[1] - mine[1] > chance.Z * error:
        return "Failed", "Collapsed", f"{text}: more than {CONFIDENCE:g} less", mine[1], its[1]
    return "Passed", "Passed", text, mine[1], its[1]


def _volume(step: Window, weight: int, *, exact: bool, over: bool) -> Judged:
    if step.champion is None:
        return _wait("the champion's figures could not be read when the step began")
    requests, beside = step.requests, step.beside
    expected = (requests + beside) * weight / 100
    text = f"{requests:,.0f} requests where {weight}% of {requests + beside:,.0f} are {expected:,.0f}"
    if not exact:
        return _wait(f"{text}; whole servers split connections, not requests")
    if expected < EXPECTED:
        return _wait(f"{text}: it takes {EXPECTED}")
    if not over:
        return _wait(f"{text}; judged when the step's time is over")
    if step.restarted:
        return _wait(f"{text}; a server was started anew, and what it had counted is lost")
    few = chance.binomial_below(requests, requests + beside, weight / 100) < chance.LEVEL
    if requests < expected / 2 and few:
        return "Failed", "TooFewRequests", f"{text}: less than half", requests, beside
    return "Passed", "Passed", text, requests, beside
