"""Profiles: right numbers, bounded, and nobody's e-mail address in them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from controller.api.hashes import canonical
from controller.stats.profile import profile


def test_numbers_have_counts_moments_and_21_quantiles():
    found = profile(pd.Series([*range(101), None]))
    assert (found["kind"], found["count"], found["nulls"]) == ("Numeric", 102, 1)
    assert (found["mean"], found["min"], found["max"]) == (50, 0, 100)
    assert found["std"] == pytest.approx(np.arange(101).std(ddof=1))
    assert found["quantiles"] == list(range(0, 101, 5))


def test_infinite_values_are_counted_and_kept_out_of_the_moments():
    found = profile(pd.Series([1.0, 3.0, np.inf]))
    assert (found["infinite"], found["mean"]) == (1, 2.0)


def test_the_fifty_most_frequent_values_are_named_and_the_rest_is_other():
    found = profile(pd.Series([f"city{i:02}" for i in range(60) for _ in range(5 + (i < 50))]))
    assert found["distinct"] == 60
    assert list(found["values"]) == [f"city{i:02}" for i in range(50)]
    assert found["other"] == 50


def test_text_that_few_rows_share_is_never_named():
    found = profile(pd.Series([f"person{i}@example.com" for i in range(100)] + ["shop"] * 5))
    assert found["values"] == {"shop": 5}
    assert (found["distinct"], found["other"]) == (101, 100)


COLUMNS = [
    ("nothing but nulls", pd.Series([None, None], dtype=float), "Numeric"),
    ("no rows", pd.Series([], dtype=float), "Numeric"),
    ("no rows of text", pd.Series([], dtype=object), "Categorical"),
    ("sums beyond the largest float", pd.Series([1.7e308, 1.7e308]), "Numeric"),
    ("booleans", pd.Series([True, False]), "Categorical"),
    ("nullable integers", pd.Series([1, None], dtype="Int64"), "Numeric"),
    ("times", pd.Series(pd.date_range("2011-01-01", periods=3, tz="UTC")), "Time"),
    ("very long text", pd.Series(["x" * 10_000] * 9), "Categorical"),
    ("mixed values", pd.Series([1, "a", None] * 5, dtype=object), "Categorical"),
]


@pytest.mark.parametrize(("column", "kind"), [c[1:] for c in COLUMNS], ids=[c[0] for c in COLUMNS])
def test_every_column_has_a_profile_that_json_can_carry(column, kind):
    found = profile(column)
    assert found["kind"] == kind
    assert found["count"] == len(column)
    assert len(canonical(found)) < 1000
