"""The checks that every canary has: each finds what it is for, and equal models trip none of them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping

import pytest
from scipy import stats

from controller.api.modelstatus import CheckResult
from controller.api.rollout import BUILT_IN, BuiltIn
from controller.plan import builtin, chance
from controller.plan.analysis import Window
from controller.plan.figures import Sums

CONFIDENCES = tuple(round(0.05 * step, 2) for step in range(1, 21))


def side(
    requests: int,
    predicted: Mapping[str, float] | None = None,
    *,
    errors: int = 0,
    unseen: int = 0,
    missing: int = 0,
    confidence: Mapping[float, float] | None = None,
    rows_each: int = 1,
) -> dict[str, float]:
    """Build the counts of one model; shares of predictions and of confidences by value."""
    rows = requests * rows_each
    counts: dict[str, float] = {"requests": requests, "errors": errors, "rows": rows, "unseen": unseen}
    counts["missing"] = missing
    counts |= {f"p={k}": v * rows for k, v in (predicted or {"no": 0.7, "yes": 0.3}).items() if v}
    seen = 0.0
    for bound in CONFIDENCES:
        seen += (confidence or {0.9: 0.5, 0.95: 0.5}).get(bound, 0.0) * rows
        counts[f"conf_le={bound}"] = seen
    counts["conf_le=inf"] = seen
    return counts


def judged(challenger: Sums, champion: Sums | None, **options) -> dict[str, CheckResult]:
    rule = options.pop("rule", BuiltIn())
    settings = {"weight": 10, "exact": True, "over": True, **options}
    found = builtin.check(rule, Window(challenger=challenger, champion=champion), **settings)
    return {c.name: c for c in found}


CHAMPION = side(900)
BROKEN = {
    "one class for everybody": (
        "constant-predictions",
        side(100, {"no": 1.0}),
        "only 'no' was predicted in 100 requests; the champion predicted something else in 270 of 900",
    ),
    "a column that nobody sends": (
        "missing-values",
        side(100, missing=120),
        "missing values per row 1.20 in 100 requests, champion 0.00 in 900: more than 0.05 more",
    ),
    "categories that the challenger does not know": (
        "unseen-categories",
        side(100, unseen=40),
        "unseen categories per row 0.40 in 100 requests, champion 0.00 in 900: more than 0.05 more",
    ),
    "a model that is sure of nothing any more": (
        "confidence-collapse",
        side(100, confidence={0.55: 1.0}),
        "mean confidence 0.53 in 100 requests, champion 0.90 in 900: more than 0.1 less",
    ),
    "errors that the champion has not": (
        "errors-beside-champion",
        side(100, errors=12),
        "errors 12.0% of 100 requests, champion 0.0% of 900: more than 1% worse",
    ),
    "requests that do not come": (
        "volume",
        side(10),
        "10 requests where 10% of 910 are 91: less than half",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_challenger_is_found_and_the_numbers_are_said(what: str) -> None:
    name, challenger, message = BROKEN[what]
    found = judged(challenger, CHAMPION)
    assert found[name].outcome == "Failed"
    assert found[name].message == message
    others = [c.name for c in found.values() if c.outcome == "Failed" and c.name != name]
    assert others == []


def test_every_check_is_tried_here() -> None:
    assert {name for name, _, _ in BROKEN.values()} == set(BUILT_IN)


UNJUDGED: dict[str, tuple[Sums, Sums | None, dict[str, bool]]] = {
    "too few requests": (side(20, {"no": 1.0}), CHAMPION, {}),
    "a champion without requests": (side(100, {"no": 1.0}, errors=50), side(0), {}),
    "a champion whose figures could not be read": (side(100, {"no": 1.0}, errors=50), None, {}),
    "one request with many rows, which are alike": (side(1, {"no": 1.0}, rows_each=5000), CHAMPION, {}),
}


@pytest.mark.parametrize("what", UNJUDGED)
def test_what_cannot_be_judged_fails_nothing(what: str) -> None:
    challenger, champion, options = UNJUDGED[what]
    assert {c.outcome for c in judged(challenger, champion, **options, over=False).values()} == {"Inconclusive"}


def test_a_champion_that_is_as_constant_is_no_reason() -> None:
    found = judged(side(100, {"no": 1.0}), side(900, {"no": 0.999, "yes": 0.001}))
    assert found["constant-predictions"].outcome == "Passed"


def test_volume_is_not_judged_when_a_server_has_forgotten_what_it_counted() -> None:
    window = Window(challenger=side(0), champion=side(855), restarted=True)
    found = builtin.check(BuiltIn(), window, weight=10, exact=True, over=True)
    volume = next(c for c in found if c.name == "volume")
    assert volume.outcome == "Inconclusive"
    assert "0 requests where 10% of 855 are 86; a server was started anew" in volume.message


def test_volume_is_not_judged_where_connections_are_split() -> None:
    found = judged(side(10), CHAMPION, exact=False)
    assert found["volume"].outcome == "Inconclusive"
    assert "whole servers split connections" in found["volume"].message


def test_a_check_that_is_disabled_is_not_there_and_a_dry_run_says_so() -> None:
    found = judged(side(100, errors=50), CHAMPION, rule=BuiltIn(disabled=("volume",), dry_run=True))
    assert "volume" not in found
    assert found["errors-beside-champion"].outcome == "Failed"
    assert all(c.dry_run and c.built_in for c in found.values())


def drawn(rng: random.Random, requests: int, shape: str) -> dict[str, float]:
    """Draw the counts of one model on requests of one row."""
    weights = {
        "two classes": [0.7, 0.3, 0.0],
        "nearly one class": [0.98, 0.02, 0.0],
        "with nan": [0.7, 0.25, 0.05],
    }
    predicted = Counter(rng.choices(["no", "yes", "nan"], weights[shape], k=requests))
    confidence = Counter(rng.choices(CONFIDENCES[-7:], [1, 1, 2, 3, 4, 5, 6], k=requests))
    shares = {k: v / max(requests, 1) for k, v in confidence.items()}
    errors, unseen = (sum(rng.random() < share for _ in range(requests)) for share in (0.02, 0.1))
    counts = side(requests, {"no": 0.0}, errors=errors, unseen=unseen, confidence=shares)
    return {k: v for k, v in counts.items() if not k.startswith("p=")} | {
        f"p={k}": v for k, v in predicted.items()
    }


def added(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    return {k: a.get(k, 0.0) + b.get(k, 0.0) for k in a.keys() | b.keys()}


LOOKS, ROLLOUTS = 12, 150
STATED = 1e-3
"""Share of rollouts of equal models in which docs/rollouts.md allows a false alarm."""


@pytest.mark.parametrize("shape", ["two classes", "nearly one class", "with nan"])
def test_equal_models_trip_no_check_however_often_they_are_looked_at(shape: str) -> None:
    """Both models draw from one distribution; the counts grow, and every look judges all of them."""
    rng, alarms = random.Random(shape), 0
    for _ in range(ROLLOUTS):
        challenger: dict[str, float] = {}
        champion: dict[str, float] = {}
        alarmed = False
        for look in range(LOOKS):
            mine = sum(rng.random() < 0.1 for _ in range(150))
            challenger = added(challenger, drawn(rng, mine, shape))
            champion = added(champion, drawn(rng, 150 - mine, shape))
            found = judged(challenger, champion, over=look == LOOKS - 1)
            alarmed |= any(c.outcome == "Failed" for c in found.values())
        alarms += alarmed
    assert alarms <= stats.binom.isf(1e-4, ROLLOUTS, STATED)


def test_chance_alone_is_as_rare_as_its_level_says() -> None:
    """The test behind the checks, at a level that can be counted: one look in a hundred, and not more."""
    rng, hits, trials = random.Random(11), 0, 4000
    for _ in range(trials):
        a = sum(rng.random() < 0.08 for _ in range(60))
        b = sum(rng.random() < 0.08 for _ in range(240))
        hits += chance.fisher(a, 60, b, 240) < 0.01
    assert hits <= stats.binom.isf(1e-4, trials, 0.01)
