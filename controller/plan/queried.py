"""Judges what Prometheus says about a challenger, and writes the queries that it is asked.

Pure: numbers in, a result out.  A query often looks back over a while, so that it is judged when a measurement
ends and not before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite

from controller.api.modelstatus import CheckResult
from controller.api.rollout import PLACEHOLDER, Analysis, LiveMargin, PrometheusQuery
from controller.plan.observed import Queried
from controller.plan.results import few, result
from controller.plan.verdict import Unknown


def written(query: str, values: Mapping[str, str]) -> str:
    """Put the names of a model into a query.

    >>> written('sum(x{version="{{ .version }}"})', {"version": "7"})
    'sum(x{version="7"})'
    """
    return re.sub(PLACEHOLDER, lambda m: values[m[1]], query)


def judge(rule: Analysis, asked: Queried | None, requests: float, *, over: bool) -> CheckResult:
    """Judge a number of Prometheus.

    Args:
        rule: the check.
        asked: what the server said about the challenger and the champion; None: it was not asked.
        requests: that the challenger answered in this step.
        over: the measurement ends with this look.
    """
    assert rule.prometheus is not None
    if requests < rule.min_requests:
        return few(rule, requests)
    if not over or asked is None:
        return result(rule, "Inconclusive", "NotYet", f"{rule.name}: judged when the measurement ends")
    value = asked.value
    if isinstance(value, Unknown):
        return result(rule, "Inconclusive", value.reason, f"{rule.name}: {value.message}")
    if not isfinite(value):
        return result(rule, "Inconclusive", "NoData", f"{rule.name}: the query has no data")
    text, limits = f"{rule.name} {value:.6g}", rule.prometheus
    if limits.max is not None and value > limits.max:
        return result(rule, "Failed", "AboveMaximum", f"{text} > {limits.max:g}", value=value)
    if limits.min is not None and value < limits.min:
        return result(rule, "Failed", "BelowMinimum", f"{text} < {limits.min:g}", value=value)
    text += f" >= {limits.min:g}" if limits.min is not None else ""
    text += f" <= {limits.max:g}" if limits.max is not None else ""
    if rule.champion is None:
        return result(rule, "Passed", "Passed", text, value=value)
    return _beside(rule, limits, rule.champion, value, asked.champion, text)


def _beside(
    rule: Analysis,
    limits: PrometheusQuery,
    margin: LiveMargin,
    value: float,
    champion: float | Unknown | None,
    text: str,
) -> CheckResult:
    if isinstance(champion, Unknown):
        return result(rule, "Inconclusive", champion.reason, f"{rule.name}: {champion.message}", value=value)
    if champion is None or not isfinite(champion):
        message = f"{rule.name}: the query has no data of the champion"
        return result(rule, "Inconclusive", "ChampionUnknown", message, value=value)
    gain = (value - champion) * (1 if limits.direction == "Higher" else -1)
    text = f"{text}, champion {champion:.6g}"
    if margin.mode == "Relative":
        if champion <= 0:
            message = f"{rule.name}: {text}; a share of {champion:g} says nothing: use mode Absolute"
            return result(rule, "Inconclusive", "ChampionIsZero", message, value=value, champion=champion)
        gain /= champion
        text = f"{text}: improvement {gain:+.1%}, needed {margin.margin:+.1%}"
    else:
        text = f"{text}: improvement {gain:+.6g}, needed {margin.margin:+g}"
    if gain >= margin.margin - 1e-12:
        return result(rule, "Passed", "Passed", text, value=value, champion=champion)
    return result(rule, "Failed", "BelowChampion", text, value=value, champion=champion)
