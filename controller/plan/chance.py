"""What chance alone does to two models that are equal: exact tails, the distance of predictions, intervals.

Pure arithmetic, no tables.  Formulas: Fisher's exact test (hypergeometric tail), the binomial tail, the
Jensen-Shannon distance with its mean and quantile under equality, Newcombe's interval (method 10, 1998).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, inf, lgamma, log, log2, sqrt
from typing import Final

from controller.plan.figures import are_numbers, place

LEVEL: Final = 1e-6
"""How likely chance alone may make one look at one built-in check fail."""
Z: Final = 4.753
"""Quantile of the normal distribution that belongs to `LEVEL`, one-sided."""
LEAST: Final = 5.0
"""Fewest predictions that a cell must be expected to hold in the smaller of two samples."""
MOST_CELLS: Final = 20
"""Most cells of a distance."""
_FAR: Final = 60.0
"""Terms of a tail that are e^60 smaller than the largest add nothing."""


def fisher(a: float, n: float, b: float, m: float) -> float:
    """Say how likely at least `a` of `n` are hits beside `b` of `m`, if both have the same rate.

    Fisher's exact test, one-sided: the hypergeometric tail. Counts are rounded to whole numbers.
    """
    a, n, b, m = round(a), round(n), round(b), round(m)
    k = a + b
    least, most = max(a, k - m, 0), min(k, n)
    if least > most:
        return 0.0
    whole = _choose(n + m, k)
    return _tail([_choose(n, x) + _choose(m, k - x) - whole for x in _terms(least, most)])


def binomial_below(c: float, n: float, share: float) -> float:
    """Say how likely at most `c` of `n` come where each comes with this probability."""
    c, n = round(c), round(n)
    if not 0 < share < 1:
        return 1.0
    terms = range(c, max(c - 2000, -1), -1)
    return _tail([_choose(n, x) + x * log(share) + (n - x) * log(1 - share) for x in terms])


def _terms(least: int, most: int) -> range:
    # Beyond, terms of any tail that matters are too small to add anything.
    return range(least, min(most, least + 20_000) + 1)


def _tail(logs: list[float]) -> float:
    top = max(logs, default=-inf)
    return min(exp(top) * sum(exp(x - top) for x in logs if x > top - _FAR), 1.0) if top > -700 else 0.0


def _choose(n: float, k: float) -> float:
    """Logarithm of the binomial coefficient; -inf where there is none."""
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) if 0 <= k <= n else -inf


def chi_square(freedom: float, z: float) -> float:
    """Approximate a quantile of the chi-square distribution (Wilson and Hilferty, 1931)."""
    part = 2 / (9 * freedom)
    return float(freedom * (1 - part + z * sqrt(part)) ** 3)


def worse_by_at_least(a: float, n: float, b: float, m: float, z: float = 2.326) -> float:
    """Return the lower end of Newcombe's interval for a/n - b/m; `z` 2.326: 99 %, one-sided."""
    p, q = a / n, b / m
    low, high = _wilson(p, n, z)[0], _wilson(q, m, z)[1]
    return p - q - sqrt((p - low) ** 2 + (high - q) ** 2)


def share_at_least(share: float, n: float, z: float = 2.326) -> float:
    """Return the lower end of Wilson's interval for a share of `n`; `z` 2.326: 99 %, one-sided."""
    return _wilson(share, n, z)[0]


def _wilson(p: float, n: float, z: float) -> tuple[float, float]:
    middle, half = p + z * z / (2 * n), z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """How far two sets of predictions are apart."""

    raw: float
    """Jensen-Shannon distance, base 2, 0 to 1."""
    value: float
    """The same without what chance adds on average, 0 to 1."""
    chance: float
    """What equal models stay below, but for one look in a million."""
    cells: int
    """Number of groups that were compared."""


def distance(a: Mapping[str, float], b: Mapping[str, float], n: float, m: float) -> Distance:
    """Measure how far the predictions of two models are apart.

    The square root of the Jensen-Shannon divergence to base 2, over cells that hold at least `LEAST` expected
    predictions of either sample: numbers by neighbouring bins of about equal count, rare classes together. Under
    equality 8 ln 2 · JSD / (1/n + 1/m) is chi-square with K - 1 degrees of freedom: its mean is taken off, its
    quantile is the chance level.

    Args:
        a, b: counts by predicted value, each with at least one.
        n, m: how many of them are independent; rows of one request are alike.
    """
    table = _table(a, b, n, m)
    left, right = sum(x for x, _ in table), sum(y for _, y in table)
    divergence = 0.0
    for x, y in table:
        p, q = x / left, y / right
        middle = (p + q) / 2
        divergence += sum(s * log2(s / middle) / 2 for s in (p, q) if s > 0)
    noise, freedom = (1 / n + 1 / m) / (8 * log(2)), len(table) - 1
    chance = min(noise * chi_square(freedom, Z), 1.0) if freedom else 0.0
    divergence = max(divergence, 0.0)
    corrected = max(divergence - noise * freedom, 0.0)
    return Distance(
        raw=min(sqrt(divergence), 1.0), value=min(sqrt(corrected), 1.0), chance=sqrt(chance), cells=len(table)
    )


def _table(a: Mapping[str, float], b: Mapping[str, float], n: float, m: float) -> list[tuple[float, float]]:
    left, right = sum(a.values()), sum(b.values())
    shares = {v: (a.get(v, 0.0) / left * n + b.get(v, 0.0) / right * m) / (n + m) for v in a.keys() | b.keys()}
    least = max(LEAST / min(n, m), 1 / MOST_CELLS)
    if are_numbers(shares):
        groups = _neighbours(sorted(shares, key=lambda v: place(v) or 0.0), shares, least)
    else:
        groups = [[v] for v in sorted(shares) if shares[v] >= LEAST / min(n, m)]
        rare = [v for v in shares if shares[v] < LEAST / min(n, m)]
        groups += [rare] if rare else []
    return [(sum(a.get(v, 0.0) for v in g), sum(b.get(v, 0.0) for v in g)) for g in groups]


def _neighbours(ordered: list[str], shares: Mapping[str, float], least: float) -> list[list[str]]:
    groups: list[list[str]] = []
    current: list[str] = []
    for value in ordered:
        current.append(value)
        if sum(shares[v] for v in current) >= least:
            groups.append(current)
            current = []
    if current and groups:
        groups[-1] = [*groups[-1], *current]
    elif current:
        groups.append(current)
    return groups
