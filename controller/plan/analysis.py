"""Measures what the analysis of a ModelSpec asks for: one check, one span of time, one of three outcomes.

Pure: counts in, a result with its numbers out.  Whether a result moves traffic is `canary.py`'s to say.
"""

from __future__ import annotations

from dataclasses import dataclass

from controller.api.base import seconds
from controller.api.conditions import bounded
from controller.api.modelstatus import CheckResult
from controller.api.rollout import Analysis, LiveMargin
from controller.plan import chance, queried
from controller.plan.figures import Sums, independent, percentile, predictions
from controller.plan.observed import Queried
from controller.plan.results import MESSAGE_MAX, few, result


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What the servers of both models counted in the same span of time."""

    challenger: Sums
    champion: Sums | None
    """None: it could not be read."""
    restarted: bool = False
    """A server of the challenger was started anew meanwhile: what it had counted is lost."""

    @property
    def requests(self) -> float:
        """Requests that the challenger answered."""
        return self.challenger.get("requests", 0.0)

    @property
    def beside(self) -> float:
        """Requests that the champion answered; 0 where that is not known."""
        return (self.champion or {}).get("requests", 0.0)


def measure(
    rule: Analysis,
    part: Window,
    step: Window,
    *,
    first: bool = True,
    over: bool = True,
    asked: Queried | None = None,
) -> CheckResult:
    """Measure one check.

    Args:
        rule: the check.
        part: what was counted in the measurement that is going on: errors and durations are judged by it.
        step: what was counted since the step began: predictions are judged by it.
        first: no measurement of this step has ended yet.
        over: the measurement ends with this look.
        asked: what Prometheus says; None: it was not asked.
    """
    if rule.prometheus is not None:
        return queried.judge(rule, asked, step.requests, over=over)
    if rule.metric == "prediction-drift":
        return _drift(rule, step)
    if rule.metric == "disagreement":
        return _disagreement(rule, step)
    if part.requests < rule.min_requests:
        if first:
            return few(rule, part.requests)
        message = f"{part.requests:.0f} requests since the last measurement, too few for another"
        return result(rule, "Passed", "MeasuredBefore", message)
    if rule.metric == "request-error-rate":
        return _errors(rule, part)
    return _duration(rule, part)


def _errors(rule: Analysis, window: Window) -> CheckResult:
    n, errors = window.requests, window.challenger.get("errors", 0.0)
    rate = errors / n
    text = f"error rate {rate:.1%}"
    if rule.max is not None and rate > rule.max:
        return result(rule, "Failed", "AboveMaximum", f"{text} > {rule.max:.1%} of {n:.0f} requests", value=rate)
    limit = f" <= {rule.max:.1%}" if rule.max is not None else ""
    text = f"{text}{limit} of {n:.0f} requests"
    if rule.champion is None:
        return result(rule, "Passed", "Passed", text, value=rate)
    if (unknown := _no_champion(rule, window)) is not None:
        return unknown.model_copy(update={"value": rate})
    m, b = window.beside, (window.champion or {}).get("errors", 0.0)
    text = f"{text}, champion {b / m:.1%} of {m:.0f}"
    found = _compared(rule, rule.champion, rate, b / m, text, unit="%")
    if found.outcome != "Failed":
        return found
    margin = rule.champion.margin * (b / m if rule.champion.mode == "Relative" else 1.0)
    if chance.worse_by_at_least(errors, n, b, m) > -margin:
        return found
    message = f"{found.message}; so few requests may differ by chance"
    return found.model_copy(
        update={"outcome": "Inconclusive", "reason": "MayBeChance", "message": bounded(message, MESSAGE_MAX)}
    )


def _duration(rule: Analysis, window: Window) -> CheckResult:
    word = str(rule.metric).rpartition("-")[2]
    share = int(word[1:]) / 100
    value = percentile(window.challenger, share)
    if value is None:
        return result(rule, "Inconclusive", "TooFewRequests", f"{rule.name}: no duration was counted")
    text = f"{word} {value * 1000:.0f} ms"
    if rule.max_duration is not None and value > seconds(rule.max_duration):
        message = f"{text} > {rule.max_duration} of {window.requests:.0f} requests"
        return result(rule, "Failed", "AboveMaximum", message, value=value)
    if rule.max_duration is not None:
        text = f"{text} <= {rule.max_duration}"
    if rule.champion is None:
        return result(rule, "Passed", "Passed", text, value=value)
    if (unknown := _no_champion(rule, window)) is not None:
        return unknown.model_copy(update={"value": value})
    beside = percentile(window.champion or {}, share)
    if beside is None:
        return result(rule, "Inconclusive", "ChampionUnknown", f"{rule.name}: the champion counted no duration")
    return _compared(rule, rule.champion, value, beside, f"{text}, champion {beside * 1000:.0f} ms", unit="ms")


def _drift(rule: Analysis, window: Window) -> CheckResult:
    assert rule.max is not None
    if window.requests < rule.min_requests:
        return few(rule, window.requests)
    if (unknown := _no_champion(rule, window)) is not None:
        return unknown
    a, b = predictions(window.challenger), predictions(window.champion or {})
    if not a or not b:
        whose = "the challenger's" if not a else "the champion's"
        message = f"{rule.name}: {whose} servers counted no prediction"
        return result(rule, "Inconclusive", "NoPredictions", message)
    n, m = independent(window.challenger), independent(window.champion or {})
    found = chance.distance(a, b, max(n, 1.0), max(m, 1.0))
    of = f"of {n:.0f} and {m:.0f} requests' predictions"
    chances = f"equal models stay below {found.chance:.3f}"
    if found.value <= rule.max:
        text = f"distance {found.value:.3f} <= {rule.max:g} {of} ({chances})"
        return result(rule, "Passed", "Passed", text, value=found.value)
    text = f"distance {found.value:.3f} > {rule.max:g} {of} ({chances}"
    if found.raw > found.chance:
        return result(rule, "Failed", "AboveMaximum", f"{text})", value=found.value)
    message = f"{rule.name}: {text}, so this may be chance)"
    return result(rule, "Inconclusive", "MayBeChance", message, value=found.value)


def _disagreement(rule: Analysis, window: Window) -> CheckResult:
    assert rule.max is not None
    n, rows = window.challenger.get("compared_requests", 0.0), window.challenger.get("compared", 0.0)
    if n < rule.min_requests or not rows:
        return few(rule, n, " that both models were given")
    share = window.challenger.get("disagreed", 0.0) / rows
    of = f"of {rows:.0f} rows in {n:.0f} requests that both were given"
    if share <= rule.max:
        return result(rule, "Passed", "Passed", f"disagreement {share:.1%} <= {rule.max:.1%} {of}", value=share)
    text = f"disagreement {share:.1%} > {rule.max:.1%} {of}"
    # Rows of one request are alike: it counts as one observation.
    if chance.share_at_least(share, n) > rule.max:
        return result(rule, "Failed", "AboveMaximum", text, value=share)
    message = f"{rule.name}: {text}; so few requests may differ by chance"
    return result(rule, "Inconclusive", "MayBeChance", message, value=share)


def _no_champion(rule: Analysis, window: Window) -> CheckResult | None:
    if window.champion is None:
        message = f"{rule.name}: the champion's figures could not be read when the step began"
        return result(rule, "Inconclusive", "ChampionUnknown", message)
    if window.beside < rule.min_requests:
        return few(rule, window.beside, " of the champion")
    return None


def _compared(
    rule: Analysis, margin: LiveMargin, value: float, beside: float, text: str, *, unit: str
) -> CheckResult:
    """Compare a figure of which less is better with the champion's."""
    gain = beside - value
    if margin.mode == "Relative":
        if beside > 0:
            gain /= beside
        elif value > 0:
            message = f"{rule.name}: {text}; a share of 0 says nothing: use mode Absolute"
            return result(rule, "Inconclusive", "ChampionIsZero", message, value=value, champion=beside)
        shown = f"improvement {gain:+.1%}, needed {margin.margin:+.1%}"
    elif unit == "%":
        shown = f"improvement {gain * 100:+.2f} points, needed {margin.margin * 100:+.2f}"
    else:
        shown = f"improvement {gain * 1000:+.0f} ms, needed {margin.margin * 1000:+.0f} ms"
    numbers = {"value": value, "champion": beside}
    if gain >= margin.margin - 1e-12:
        return result(rule, "Passed", "Passed", f"{text}: {shown}", **numbers)
    return result(rule, "Failed", "BelowChampion", f"{text}: {shown}", **numbers)
