"""Measures of fairness between groups, from counts: the one place where their formulas are.

Names and definitions are those of fairlearn (MIT): `fairlearn.metrics.demographic_parity_difference` and its
siblings, method `between_groups`, `agg="worst_case"`.  One thing is stricter here: a rate of a group without a row
to compute it from is undefined, where fairlearn takes 0; whoever asks learns why.  Pure arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Group:
    """What is counted of one group: rows, rows that are positive, rows called positive, and both at once."""

    value: str
    rows: int
    positive: int
    selected: int
    true_positive: int


@dataclass(frozen=True, slots=True)
class Found:
    """One measure: its value, the rate it comes from, and the groups with the lowest and the highest rate."""

    value: float
    rate: str
    low: tuple[Group, float]
    high: tuple[Group, float]


SELECTION: Final = "selection rate"
TRUE_POSITIVE: Final = "true positive rate"
FALSE_POSITIVE: Final = "false positive rate"
RATES: Final[Mapping[str, tuple[str, ...]]] = {
    "DemographicParity": (SELECTION,),
    "EqualOpportunity": (TRUE_POSITIVE,),
    "EqualizedOdds": (TRUE_POSITIVE, FALSE_POSITIVE),
}
"""Which rates each notion compares; of several, the worst counts."""


def measure(name: str, groups: Sequence[Group]) -> Found | str:
    """Compute a measure, or say in one sentence why there is none.

    Difference: highest rate minus lowest, 0 to 1, 0 is fair. Ratio: lowest over highest, 0 to 1, 1 is fair.

    Args:
        name: for example EqualizedOddsDifference.
        groups: at least two for a value.
    """
    if len(groups) < 2:
        there = f"only {groups[0].value} with {groups[0].rows:,} rows" if groups else "none"
        return f"two groups are needed, there is {there}"
    is_ratio = name.endswith("Ratio")
    found = []
    for rate in RATES[name.removesuffix("Ratio").removesuffix("Difference")]:
        rates = []
        for group in groups:
            value = _rate(rate, group)
            if value is None:
                kind = "positive" if rate == TRUE_POSITIVE else "negative"
                return f"{group.value} has {group.rows:,} rows and no {kind} one, so it has no {rate}"
            rates.append((group, value))
        low, high = min(rates, key=lambda r: r[1]), max(rates, key=lambda r: r[1])
        if is_ratio and high[1] == 0:
            return f"the {rate} is 0 in every group, so there is no ratio"
        value = low[1] / high[1] if is_ratio else high[1] - low[1]
        found.append(Found(value, rate, low, high))
    return min(found, key=lambda f: f.value) if is_ratio else max(found, key=lambda f: f.value)


def _rate(rate: str, group: Group) -> float | None:
    negative = group.rows - group.positive
    above, below = {
        SELECTION: (group.selected, group.rows),
        TRUE_POSITIVE: (group.true_positive, group.positive),
        FALSE_POSITIVE: (group.selected - group.true_positive, negative),
    }[rate]
    return above / below if below else None
