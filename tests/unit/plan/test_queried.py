"""What a number of Prometheus decides: a limit, a margin against the champion, or nothing yet."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest

from controller.api.rollout import Analysis
from controller.plan.observed import Queried
from controller.plan.queried import judge, written
from controller.plan.verdict import Unknown

QUERY = 'sum(rate(sales{version="{{ .version }}"}[5m]))'
AWAY = Unknown("PrometheusUnavailable", "Prometheus at http://p did not answer")
LIMIT = {"query": QUERY, "min": 0.5}
HIGHER = {"query": QUERY, "direction": "Higher"}
BESIDE = {"margin": -0.05, "mode": "Relative"}

CASES: dict[str, tuple[dict[str, Any], Queried | None, str, str]] = {
    "above its minimum": ({"prometheus": LIMIT}, Queried(value=0.7), "Passed", "sales 0.7 >= 0.5"),
    "below its minimum": ({"prometheus": LIMIT}, Queried(value=0.4), "Failed", "sales 0.4 < 0.5"),
    "above its maximum": (
        {"prometheus": {"query": QUERY, "max": 1}},
        Queried(value=2.0),
        "Failed",
        "sales 2 > 1",
    ),
    "no data": ({"prometheus": LIMIT}, Queried(value=nan), "Inconclusive", "sales: the query has no data"),
    "infinite": ({"prometheus": LIMIT}, Queried(value=inf), "Inconclusive", "sales: the query has no data"),
    "a server that is away": (
        {"prometheus": LIMIT},
        Queried(value=AWAY),
        "Inconclusive",
        f"sales: {AWAY.message}",
    ),
    "within the margin": (
        {"prometheus": HIGHER, "champion": BESIDE},
        Queried(value=0.97, champion=1.0),
        "Passed",
        "sales 0.97, champion 1: improvement -3.0%, needed -5.0%",
    ),
    "worse than the margin allows": (
        {"prometheus": HIGHER, "champion": BESIDE},
        Queried(value=0.9, champion=1.0),
        "Failed",
        "sales 0.9, champion 1: improvement -10.0%, needed -5.0%",
    ),
    "where less is better": (
        {"prometheus": {**HIGHER, "direction": "Lower"}, "champion": {"margin": 0}},
        Queried(value=0.9, champion=1.0),
        "Passed",
        "sales 0.9, champion 1: improvement +0.1, needed +0",
    ),
    "no data of the champion": (
        {"prometheus": HIGHER, "champion": BESIDE},
        Queried(value=0.9, champion=nan),
        "Inconclusive",
        "sales: the query has no data of the champion",
    ),
    "a share of nothing": (
        {"prometheus": HIGHER, "champion": BESIDE},
        Queried(value=0.9, champion=0.0),
        "Inconclusive",
        "sales: sales 0.9, champion 0; a share of 0 says nothing: use mode Absolute",
    ),
    "not asked": ({"prometheus": LIMIT}, None, "Inconclusive", "sales: judged when the measurement ends"),
}


@pytest.mark.parametrize("what", CASES)
def test_a_number_is_judged(what: str) -> None:
    rule, asked, outcome, message = CASES[what]
    found = judge(Analysis.model_validate({"name": "sales", **rule}), asked, 100, over=True)
    assert (found.outcome, found.message) == (outcome, message)


def test_nothing_is_judged_before_the_measurement_ends_or_without_requests() -> None:
    rule = Analysis.model_validate({"name": "sales", "prometheus": LIMIT})
    assert judge(rule, Queried(value=0.0), 100, over=False).reason == "NotYet"
    assert judge(rule, Queried(value=0.0), 3, over=True).reason == "TooFewRequests"


def test_a_query_names_the_model_that_is_measured() -> None:
    names = {"version": "7", "revision": "bikes-a", "model": "bikes", "namespace": "ml"}
    text = 'x{v="{{ .version }}",r="{{.revision}}",m="{{ .model }}",n="{{ .namespace }}"}'
    assert written(text, names) == 'x{v="7",r="bikes-a",m="bikes",n="ml"}'
