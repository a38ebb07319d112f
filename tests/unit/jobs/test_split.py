"""The hold-out split: a row that a model was judged on is never learned from, in no later version of the data."""

from __future__ import annotations

import time

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.api.data import Columns, Holdout
from controller.jobs import split
from controller.jobs.entry import WrongInput
from controller.jobs.tables import read_table

KEYS = st.lists(st.binary(min_size=1, max_size=12), min_size=1, max_size=200)
FRACTIONS = st.floats(min_value=0.01, max_value=0.99)


def read(tmp_path, text, columns, holdout, name="t.csv"):
    path = tmp_path / name
    path.write_text(text)
    return read_table(path, "t", place=name, keep=split.needed_columns(columns, holdout))


@settings(max_examples=60, deadline=None)
@given(old=KEYS, new=KEYS, seed=st.integers(0, 2**31 - 1), fraction=FRACTIONS)
def test_appending_rows_moves_no_old_row(old, new, seed, fraction):
    before = split.hashed(old, seed, fraction)
    assert split.hashed(old + new, seed, fraction)[: len(old)] == before
    assert split.hashed(new + old, seed, fraction)[len(new) :] == before


@settings(max_examples=60, deadline=None)
@given(keys=KEYS, seed=st.integers(0, 2**31 - 1), fraction=FRACTIONS)
def test_equal_rows_are_on_the_same_side_so_that_no_content_is_on_both(keys, seed, fraction):
    keys = keys + keys[: len(keys) // 2]
    mask = split.hashed(keys, seed, fraction)
    held = {k for k, m in zip(keys, mask, strict=True) if m}
    learned = {k for k, m in zip(keys, mask, strict=True) if not m}
    assert not held & learned


@settings(max_examples=60, deadline=None)
@given(keys=KEYS, seed=st.integers(0, 2**31 - 1), low=FRACTIONS, high=FRACTIONS)
def test_a_larger_fraction_only_adds_rows_to_the_holdout(keys, seed, low, high):
    low, high = sorted((low, high))
    pairs = zip(split.hashed(keys, seed, low), split.hashed(keys, seed, high), strict=True)
    assert all(bigger or not smaller for smaller, bigger in pairs)


@settings(max_examples=60, deadline=None)
@given(times=st.lists(st.integers(0, 50).map(float), min_size=2, max_size=200), fraction=FRACTIONS)
def test_the_newest_are_held_out_and_rows_of_one_time_stay_together(times, fraction):
    mask = split.newest(pd.Series(times).to_numpy(), fraction)
    held = [t for t, m in zip(times, mask, strict=True) if m]
    learned = [t for t, m in zip(times, mask, strict=True) if not m]
    assert not held or not learned or min(held) > max(learned)
    if len(set(times)) > 1:
        assert held
        assert learned


def test_the_recipe_stands_still():
    mask = split.hashed([f"row-{i}".encode() for i in range(64)], 42, 0.5)
    sides = int("".join("01"[held] for held in mask), 2)
    assert f"{sides:016x}" == "a3eeccf0c2126fac", "another recipe shows trained models rows that they know"


def test_the_share_is_about_the_fraction():
    mask = split.hashed([str(i).encode() for i in range(20_000)], 42, 0.2)
    assert 0.19 < sum(mask) / len(mask) < 0.21


def test_an_id_keeps_its_side_when_its_values_are_corrected_and_another_column_becomes_empty(tmp_path):
    columns, holdout = Columns(target="y", id="id"), Holdout(fraction=0.5)
    text = "id,x,y\n" + "".join(f"{i},{i},1\n" for i in range(200))
    corrected = "y,id,x\n" + "".join(f"2,{i},\n" for i in range(200)) + "2,,7\n"
    before = split.choose(read(tmp_path, text, columns, holdout), columns, holdout)
    after = split.choose(read(tmp_path, corrected, columns, holdout), columns, holdout)
    assert after[:200] == before


def test_without_an_id_a_row_keeps_its_side_when_columns_or_rows_are_reordered(tmp_path):
    columns, holdout = Columns(target="y"), Holdout(fraction=0.5)
    text = "x,y\n" + "".join(f"{i},{i % 3}\n" for i in range(100))
    turned = "y,x\n" + "".join(f"{i % 3},{i}\n" for i in reversed(range(100))) + "0,\n"
    before = split.choose(read(tmp_path, text, columns, holdout), columns, holdout)
    after = split.choose(read(tmp_path, turned, columns, holdout), columns, holdout)
    assert after[:100][::-1] == before


def test_the_same_rows_in_parquet_are_on_the_same_side_by_id(tmp_path):
    columns, holdout = Columns(target="y", id="id"), Holdout(fraction=0.5)
    frame = pd.DataFrame({"id": range(300), "y": [0.5] * 300})
    by_csv = split.choose(read(tmp_path, frame.to_csv(index=False), columns, holdout), columns, holdout)
    path = tmp_path / "t.parquet"
    pd.concat([frame, pd.DataFrame({"id": [None], "y": [1.0]})]).to_parquet(path, index=False)
    table = read_table(path, "t", place="t.parquet", keep=["id"])
    assert split.choose(table, columns, holdout)[:300] == by_csv


def test_groups_stay_whole_and_on_their_side(tmp_path):
    columns, holdout = Columns(target="y"), Holdout(by="Group", column="g", fraction=0.4)
    text = "g,y\n" + "".join(f"g{i % 30},{i}\n" for i in range(300))
    more = text + "".join(f"g{i % 33},{i}\n" for i in range(300, 330))
    before = split.choose(read(tmp_path, text, columns, holdout), columns, holdout)
    after = split.choose(read(tmp_path, more, columns, holdout), columns, holdout)
    assert after[:300] == before
    assert all(before[i] == before[i % 30] for i in range(300))


@pytest.mark.parametrize(
    "times",
    [
        pytest.param([f"2026-01-{d:02d}" for d in range(1, 11)], id="dates"),
        pytest.param([f"2026-01-01T00:00:{d:02d}+01:00" for d in range(10)], id="times with a zone"),
        pytest.param(
            ["2025-12-31T23:30:00Z"] + [f"2026-01-01T00:{d:02d}:00" for d in range(1, 10)], id="mixed zones"
        ),
        pytest.param([f"{1_700_000_000 + d}" for d in range(10)], id="seconds"),
        pytest.param(["0001-01-01"] + [f"99{d:02d}-01-01" for d in range(90, 99)], id="far years"),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_times_of_every_form_are_ordered(tmp_path, times, order):
    columns, holdout = Columns(target="y", time="t"), Holdout(by="Time", fraction=0.3)
    text = "t,y\n" + "".join(f"{t},{i}\n" for i, t in enumerate(times[::order]))
    assert (
        split.choose(read(tmp_path, text, columns, holdout), columns, holdout)[::order] == [False] * 7 + [True] * 3
    )


def test_rows_without_a_time_are_named(tmp_path):
    columns, holdout = Columns(target="y", time="t"), Holdout(by="Time")
    table = read(tmp_path, "t,y\n2026-01-01,1\nyesterday,2\n,3\n", columns, holdout)
    with pytest.raises(WrongInput, match=r"t has 2 of 3 values that are no time \(row 2, 3\)"):
        split.choose(table, columns, holdout)


def test_a_missing_group_column_is_named(tmp_path):
    columns, holdout = Columns(target="y"), Holdout(by="Group", column="patient")
    table = read(tmp_path, "t,y\n1,2\n", columns, holdout)
    with pytest.raises(WrongInput, match=r"there is no column patient, which holdout.by: Group needs; t has t, y"):
        split.choose(table, columns, holdout)


def test_a_million_rows_are_split_in_a_few_seconds():
    keys = [i.to_bytes(16, "big") for i in range(1_000_000)]
    began = time.process_time()
    split.hashed(keys, 42, 0.2)
    assert time.process_time() - began < 10
