"""What chance does: our tails against scipy's, and the distance of predictions between models that are equal."""

from __future__ import annotations

import random
from collections import Counter
from math import log, sqrt

import pytest
from scipy import stats

from controller.api.bins import bin_of
from controller.plan import chance

TABLES = [
    (2, 50, 10, 10_000),
    (30, 60, 3, 600),
    (0, 40, 0, 400),
    (5, 5, 0, 5),
    (200, 1000, 150, 1000),
    (1, 1, 1, 1),
]


@pytest.mark.parametrize("table", TABLES, ids=lambda t: f"{t[0]} of {t[1]} beside {t[2]} of {t[3]}")
def test_the_tail_of_fishers_test_is_scipys(table: tuple[int, int, int, int]) -> None:
    a, n, b, m = table
    want = stats.hypergeom.sf(a - 1, n + m, a + b, n)
    assert chance.fisher(a, n, b, m) == pytest.approx(want, rel=1e-6, abs=1e-300)


@pytest.mark.parametrize(
    ("c", "n", "share"), [(3, 1000, 0.1), (50, 1000, 0.1), (0, 200, 0.5), (4000, 10_000, 0.5)]
)
def test_the_lower_binomial_tail_is_scipys(c: int, n: int, share: float) -> None:
    assert chance.binomial_below(c, n, share) == pytest.approx(stats.binom.cdf(c, n, share), rel=1e-6)


@pytest.mark.parametrize("freedom", [1, 2, 5, 20, 99])
def test_the_quantile_of_chi_square_is_never_below_and_at_most_15_percent_above(freedom: int) -> None:
    want = stats.chi2.isf(stats.norm.sf(chance.Z), freedom)
    assert want <= chance.chi_square(freedom, chance.Z) <= 1.15 * want
    assert stats.norm.sf(chance.Z) == pytest.approx(chance.LEVEL, rel=0.01)


def test_the_interval_of_a_difference_covers_what_it_says() -> None:
    rng, wrong, trials = random.Random(1), 0, 2000
    for _ in range(trials):
        a, b = (sum(rng.random() < 0.1 for _ in range(60)) for _ in range(2))
        wrong += chance.worse_by_at_least(a, 60, b, 60) > 0
    assert wrong <= stats.binom.isf(1e-4, trials, 0.01)


@pytest.mark.parametrize(
    ("a", "b", "want"),
    [
        ({"yes": 500, "no": 500}, {"yes": 500, "no": 500}, 0.0),
        ({"yes": 1000}, {"no": 1000}, 1.0),
        ({"yes": 9000, "no": 1000}, {"yes": 5000, "no": 5000}, None),
    ],
    ids=["equal models have none", "models that never agree have one", "the formula between"],
)
def test_the_distance_is_that_of_jensen_and_shannon(a, b, want) -> None:
    from scipy.spatial.distance import jensenshannon

    found = chance.distance(a, b, sum(a.values()), sum(b.values()))
    values = sorted(a.keys() | b.keys())
    expected = jensenshannon([a.get(v, 0) for v in values], [b.get(v, 0) for v in values], base=2)
    assert found.raw == pytest.approx(expected, abs=1e-9)
    if want is not None:
        assert found.value == pytest.approx(want, abs=0.02)


def draws(rng: random.Random, kind: str, count: int) -> Counter[str]:
    """Draw predictions of one model."""
    if kind == "classes":
        return Counter(rng.choices(["a", "b", "c", "d"], [0.7, 0.2, 0.09, 0.01], k=count))
    if kind == "many classes":
        return Counter(rng.choices([f"c{i}" for i in range(60)], [1 / (i + 1) for i in range(60)], k=count))
    return Counter(bin_of(rng.lognormvariate(5, 0.8)) for _ in range(count))


@pytest.mark.parametrize("kind", ["classes", "many classes", "numbers"])
@pytest.mark.parametrize(("n", "m"), [(50, 450), (200, 200), (300, 2700)])
def test_equal_models_are_apart_as_chance_says(kind: str, n: int, m: int) -> None:
    """On average the corrected divergence is about nothing; above the chance level is, in 300 draws, none."""
    rng, over, sums, raw, corrected = random.Random(7), 0, 0.0, 0.0, 0.0
    for _ in range(300):
        found = chance.distance(draws(rng, kind, n), draws(rng, kind, m), n, m)
        noise = (found.cells - 1) * (1 / n + 1 / m) / (8 * log(2))
        sums += (found.raw**2 - noise) / noise if noise else 0.0
        over += found.raw > found.chance
        raw, corrected = raw + found.raw, corrected + found.value
    assert over == 0
    assert abs(sums / 300) < 0.15
    assert corrected < 0.6 * raw, "what chance adds is taken off"


def test_a_shift_of_numbers_is_seen_through_the_correction() -> None:
    rng = random.Random(3)
    a = Counter(bin_of(rng.lognormvariate(5, 0.8)) for _ in range(1000))
    b = Counter(bin_of(rng.lognormvariate(5.4, 0.8)) for _ in range(1000))
    found = chance.distance(a, b, 1000, 1000)
    # Jensen-Shannon distance of two normal distributions half a deviation apart, by quadrature.
    grid = [i / 100 for i in range(-800, 801)]
    p, q = ([stats.norm.pdf(x, mean) for x in grid] for mean in (0.0, 0.5))
    from scipy.spatial.distance import jensenshannon

    assert found.value == pytest.approx(float(jensenshannon(p, q, base=2)), abs=0.03)
    assert found.value > sqrt(0.02)
