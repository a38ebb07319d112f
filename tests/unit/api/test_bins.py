"""The bins of predicted numbers: few, the same for everybody, narrow where numbers are, and without a gap."""

from __future__ import annotations

from itertools import pairwise
from math import inf, nextafter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.bins import EDGES, NAMES, bin_of, bounds


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_lies_within_the_bounds_of_its_bin(x):
    low, high = bounds(bin_of(x))
    assert low <= x < high


def test_there_are_at_most_600_bins_without_a_gap_and_each_has_a_name_of_its_own():
    assert len(NAMES) == len(set(NAMES)) == len(EDGES) + 1 <= 600
    ends = [bounds(name) for name in NAMES]
    assert (ends[0][0], ends[-1][1]) == (-inf, inf)
    assert all(left[1] == right[0] for left, right in pairwise(ends))


@pytest.mark.parametrize("sign", [1, -1], ids=["positive", "negative"])
def test_no_number_is_further_than_5_percent_from_the_middle_of_its_bin(sign):
    for name in NAMES:
        low, high = bounds(name)
        if 0 < low * sign < inf and 0 < high * sign < inf:
            assert max(abs(low), abs(high)) / abs((low + high) / 2) == pytest.approx(1.05)
            assert float(name) == pytest.approx((low + high) / 2, rel=1e-3)


@pytest.mark.parametrize(
    ("x", "name"),
    [
        pytest.param(0.0, "0", id="zero"),
        pytest.param(-0.0, "0", id="minus zero"),
        pytest.param(nextafter(1e-4, 0), "0", id="all but nothing"),
        pytest.param(5e-324, "0", id="the smallest number"),
        pytest.param(8e8, "7.729e+08", id="the largest that have bins"),
        pytest.param(1e9, "inf", id="more than is told apart"),
        pytest.param(-1.7e308, "-inf", id="less than is told apart"),
    ],
)
def test_what_is_very_small_or_very_large_has_a_bin_too(x, name):
    assert bin_of(x) == name


def test_an_unknown_name_has_no_bounds():
    with pytest.raises(KeyError):
        bounds("yes")
