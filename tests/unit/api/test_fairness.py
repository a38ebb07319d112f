"""Fairness between groups: the numbers of fairlearn, and a reason where there is no number."""

from __future__ import annotations

import pytest

from controller.api.fairness import Found, Group, measure

# The example of fairlearn's user guide on disparity metrics, counted: rows, positive, selected, both.
GUIDE = [Group("a", 8, 5, 5, 4), Group("b", 7, 4, 4, 3), Group("c", 5, 3, 2, 2)]

# What fairlearn 0.15.0 computes for it, method between_groups, agg worst_case.
FAIRLEARN = {
    "DemographicParityDifference": 0.225,
    "DemographicParityRatio": 0.64,
    "EqualizedOddsDifference": 1 / 3,
    "EqualizedOddsRatio": 0.0,
    "EqualOpportunityDifference": 2 / 15,
    "EqualOpportunityRatio": 5 / 6,
}


@pytest.mark.parametrize("name", FAIRLEARN)
def test_the_numbers_are_those_of_fairlearn(name: str) -> None:
    found = measure(name, GUIDE)
    assert isinstance(found, Found)
    assert found.value == pytest.approx(FAIRLEARN[name])


def test_of_two_rates_the_worse_one_is_told_with_its_groups() -> None:
    found = measure("EqualizedOddsDifference", GUIDE)
    assert isinstance(found, Found)
    assert (found.rate, found.low[0].value, found.high[0].value) == ("false positive rate", "c", "a")


@pytest.mark.parametrize(
    ("name", "groups", "words"),
    [
        pytest.param("DemographicParityDifference", [], "two groups are needed, there is none", id="no group"),
        pytest.param(
            "DemographicParityDifference",
            GUIDE[:1],
            "there is only a with 8 rows",
            id="one group is compared with nobody",
        ),
        pytest.param(
            "EqualOpportunityDifference",
            [GUIDE[0], Group("d", 9, 0, 3, 0)],
            "d has 9 rows and no positive one, so it has no true positive rate",
            id="a rate without a row",
        ),
        pytest.param(
            "DemographicParityRatio",
            [Group("a", 5, 1, 0, 0), Group("b", 5, 1, 0, 0)],
            "the selection rate is 0 in every group",
            id="a ratio of zeros",
        ),
    ],
)
def test_what_cannot_be_computed_says_why(name: str, groups: list[Group], words: str) -> None:
    found = measure(name, groups)
    assert isinstance(found, str)
    assert words in found
