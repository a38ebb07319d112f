"""Checks of the data: what they refuse, and that the message alone says what to look at."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from controller.api.data import Check, Columns
from controller.jobs import checks_builtin
from controller.jobs.checks import judge

NOW = datetime(2026, 1, 10, tzinfo=UTC)
CSV = """id,n,f,word,flag,when,mixed,empty,gap
1,1,0.5,a,True,2026-01-01,1,,1
2,2,1.4,b,False,2026-01-02,"1,5",,
3,2,-0.1,a,True,2026-01-03T04:05:06Z,3,,3
4,3,0.2,A,False,2026-01-09,N1A,,4
"""
FRAME = pd.read_csv(io.StringIO(CSV))


def told(rule, frame=FRAME, champion_rows=None, target="n"):
    check = Check.model_validate({"name": "c", **rule})
    (evidence,) = judge(frame, [check], target=target, champion_rows=champion_rows, now=NOW)
    assert evidence.name == "c"
    return (evidence.outcome, evidence.message)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        pytest.param(
            {"column": "f", "min": 0, "max": 1},
            "f has 2 of 4 values outside 0 to 1 (worst 1.4 at row 2)",
            id="a range names the worst value",
        ),
        pytest.param(
            {"column": "f", "min": 0}, "f has 1 of 4 values below 0 (worst -0.1 at row 3)", id="a minimum"
        ),
        pytest.param({"column": "n", "max": 2}, "n has 1 of 4 values above 2 (worst 3 at row 4)", id="a maximum"),
        pytest.param(
            {"column": "mixed", "min": 0},
            "mixed has 2 of 4 values that are no numbers ('1,5' at row 2, 'N1A' at row 4); "
            "because of that all are read as text",
            id="one text makes a column text",
        ),
        pytest.param(
            {"column": "f", "type": "Integer"},
            "f has 4 of 4 values that are no integers (0.5 at row 1, 1.4 at row 2, -0.1 at row 3)",
            id="fractions are no integers",
        ),
        pytest.param(
            {"column": "word", "type": "Number"}, "word has 4 of 4 values that are no numbers", id="words"
        ),
        pytest.param({"column": "n", "type": "String"}, "n has 4 of 4 values that are no strings", id="numbers"),
        pytest.param(
            {"column": "n", "type": "Boolean"}, "that are neither true nor false (1 at row 1", id="0 and 1"
        ),
        pytest.param(
            {"column": "word", "type": "Datetime"}, "that are no times ('a' at row 1", id="words as times"
        ),
        pytest.param(
            {"column": "gap", "maxNullFraction": 0.1},
            "gap has 1 of 4 values missing (25.00%, at most 10.00%)",
            id="too many missing",
        ),
        pytest.param(
            {"column": "empty", "min": 0}, "empty has no value to judge in 4 rows", id="nothing to judge"
        ),
        pytest.param(
            {"column": "word", "allowed": ["a", "b"]},
            "word has 1 of 4 values that are not allowed, 1 different ones ('A' at row 4)",
            id="another case is another value",
        ),
        pytest.param(
            {"column": "word", "unique": True},
            "word has 1 of 4 values that came before (row 3)",
            id="a value twice",
        ),
        pytest.param({"minRows": 5}, "4 rows, fewer than 5", id="too few rows"),
        pytest.param(
            {"column": "when", "maxAge": "12h"}, "the newest when is 24h old, more than 12h", id="old data"
        ),
        pytest.param(
            {"column": "word", "maxAge": "12h"}, "word has 4 of 4 values that are no time", id="age of words"
        ),
        pytest.param(
            {"column": "wrod", "min": 0}, "there is no column wrod; nearest: word", id="a column misspelt"
        ),
        pytest.param(
            {"schema": {"columns": ["n", "x", "y"]}}, "2 of 3 columns are missing: x, y", id="missing columns"
        ),
        pytest.param(
            {"schema": {"columns": ["id", "f", "word"], "extra": "Refuse"}},
            "5 columns are not expected: flag, when, mixed, empty, gap",
            id="extra columns, the target is none",
        ),
        pytest.param(
            {"schema": {"columns": ["f", "id"], "order": "Enforce"}},
            "columns are in another order: id comes where f is expected",
            id="another order",
        ),
        pytest.param(
            {"column": "f", "max": 0, "minRows": 9},
            "4 rows, fewer than 9; f has 3 of 4 values above 0 (worst 1.4 at row 2)",
            id="two rules of one check",
        ),
    ],
)
def test_a_failed_check_says_the_numbers(rule, words):
    outcome, message = told(rule)
    assert outcome == "Failed"
    assert words in message


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param({"column": "f", "min": -0.1, "max": 1.4}, id="the limits are allowed"),
        pytest.param({"column": "gap", "min": 1, "max": 4}, id="missing values are not outside"),
        pytest.param({"column": "gap", "type": "Integer"}, id="integers with a gap, which pandas reads as floats"),
        pytest.param({"column": "f", "type": "Number"}, id="numbers"),
        pytest.param({"column": "word", "type": "String"}, id="strings"),
        pytest.param({"column": "flag", "type": "Boolean"}, id="booleans"),
        pytest.param({"column": "when", "type": "Datetime"}, id="dates and times mixed"),
        pytest.param({"column": "gap", "maxNullFraction": 0.25}, id="the share itself is allowed"),
        pytest.param({"column": "n", "allowed": ["1", 2, 3.0]}, id="1, 1.0 and the text 1 are one value"),
        pytest.param({"column": "flag", "allowed": [True, False]}, id="true and false"),
        pytest.param({"column": "gap", "allowed": [1, 3, 4]}, id="a missing value needs no permission"),
        pytest.param({"column": "gap", "unique": True}, id="gaps are no duplicates"),
        pytest.param({"column": "word", "unique": False}, id="unique false asks for nothing"),
        pytest.param({"column": "when", "maxAge": "24h"}, id="the age itself is allowed"),
        pytest.param({"minRows": 4}, id="as many rows as wanted"),
        pytest.param({"schema": {"columns": ["n", "id"], "order": "Ignore"}}, id="order ignored"),
        pytest.param(
            {"schema": {"columns": ["id", "f", "gap"], "order": "Enforce"}}, id="order with others between"
        ),
    ],
)
def test_good_data_passes(rule):
    outcome, message = told(rule)
    assert outcome == "Passed"
    assert "4 rows hold to it" in message


@pytest.mark.parametrize(
    ("champion", "outcome"),
    [
        pytest.param(4, "Passed", id="no change"),
        pytest.param(8, "Passed", id="half of it, as much as allowed"),
        pytest.param(9, "Failed", id="shrunk by more"),
        pytest.param(2, "Failed", id="doubled"),
        pytest.param(None, "Passed", id="no champion to compare with"),
    ],
)
def test_the_number_of_rows_is_compared_with_the_champions(champion, outcome):
    assert told({"maxChange": 0.5}, champion_rows=champion)[0] == outcome


def test_a_change_of_rows_says_both_numbers():
    words = "4 rows are -60.0% against the 10 of the champion's data, more than 50.0%"
    assert told({"maxChange": 0.5}, champion_rows=10) == ("Failed", words)


@pytest.mark.parametrize("unit", [pytest.param(1, id="seconds"), pytest.param(1000, id="milliseconds")])
def test_the_age_of_numeric_times(unit):
    moment = int(datetime(2026, 1, 9, tzinfo=UTC).timestamp()) * unit
    frame = pd.DataFrame({"t": [0, moment]})
    assert told({"column": "t", "maxAge": "24h"}, frame)[0] == "Passed"
    assert told({"column": "t", "maxAge": "23h"}, frame)[0] == "Failed"


def test_infinite_values_are_outside_every_range():
    frame = pd.DataFrame({"x": [1.0, np.inf, -np.inf]})
    assert told({"column": "x", "min": 0}, frame)[1].startswith("x has 2 of 3 values below 0")
    assert told({"column": "x", "type": "Number"}, frame)[1].startswith("x has 2 of 3 values that are no numbers")


def test_values_in_messages_are_cut():
    frame = pd.DataFrame({"x": ["s" * 1000] * 3})
    assert len(told({"column": "x", "type": "Number"}, frame)[1]) < 200


def test_parquet_categories_and_times_are_judged_like_their_values():
    frame = pd.DataFrame(
        {
            "c": pd.Categorical(["a", "b"]),
            "t": pd.to_datetime(["2026-01-09", "2026-01-08"]),
            "k": pd.Categorical([1, 9]),
        }
    )
    assert told({"column": "c", "allowed": ["a"]}, frame)[1].startswith("c has 1 of 2 values that are not allowed")
    assert told({"column": "c", "type": "String"}, frame)[0] == "Passed"
    assert told({"column": "k", "max": 5}, frame)[1] == "k has 1 of 2 values above 5 (worst 9 at row 2)"
    assert told({"column": "t", "type": "Datetime", "maxAge": "24h"}, frame)[0] == "Passed"


COLUMNS = Columns(target="y", id="id")


def builtin(frame, training=30, held=15):
    found = [*checks_builtin.judge_table(frame, COLUMNS)]
    found += checks_builtin.judge_split(frame, "y", range(training), held)
    return checks_builtin.refusal(found)


def good(rows=45):
    return pd.DataFrame({"id": range(rows), "x": range(rows), "y": [float(i % 5) for i in range(rows)]})


def test_sane_data_is_not_refused():
    assert builtin(good()) is None


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        pytest.param(
            lambda f: f.assign(y=f["y"].where(f.index != 4)),
            "DataInvalid",
            "check builtin-target-present failed: y is missing in 1 of 45 rows (first at row 5)",
            id="a target is missing",
        ),
        pytest.param(
            lambda f: f.assign(y=f["y"].where(f.index != 4, np.inf)),
            "DataInvalid",
            "y is infinite in 1 of 45 rows",
            id="a target is infinite",
        ),
        pytest.param(
            lambda f: f.drop(columns="y"), "SchemaMismatch", "there is no column y, the target", id="no target"
        ),
        pytest.param(
            lambda f: f.assign(y=1), "DataInvalid", "y is 1 in all 30 training rows", id="the target is constant"
        ),
        pytest.param(
            lambda f: f.assign(id=f["id"].clip(upper=40)),
            "DuplicateIds",
            "id has 4 of 45 values that came before (row 42, 43, 44, …)",
            id="ids twice",
        ),
        pytest.param(
            lambda f: f.drop(columns="id"), "SchemaMismatch", "there is no column id, which columns.id", id="no id"
        ),
        pytest.param(
            lambda f: f.assign(x=None),
            "DataInvalid",
            "1 of 2 columns have no value at all: x",
            id="an empty column",
        ),
    ],
)
def test_data_that_means_nothing_is_refused_with_its_reason(change, reason, words):
    refused = builtin(change(good()))
    assert refused is not None
    assert refused.reason == reason
    assert words in refused.message


def test_too_few_rows_on_either_side_are_refused():
    for training, held in ((19, 15), (30, 9)):
        refused = builtin(good(), training, held)
        assert refused is not None
        assert refused.reason == "DataEmpty"
        assert f"{training} training and {held} hold-out rows, at least 20 and 10 are needed" in refused.message


@pytest.mark.parametrize(
    ("values", "task"),
    [
        pytest.param([0, 1, 1], "Classification", id="few whole numbers"),
        pytest.param([0.0, 1.0, None], "Classification", id="whole numbers that pandas reads as floats"),
        pytest.param([0.5, 1.0], "Regression", id="fractions"),
        pytest.param(list(range(21)), "Regression", id="more than 20 whole numbers"),
        pytest.param(list(range(20)), "Classification", id="20 whole numbers"),
        pytest.param(["a", "b"], "Classification", id="words"),
        pytest.param([True, False], "Classification", id="true and false"),
        pytest.param(["1.5", "x"], "Classification", id="numbers among words"),
    ],
)
def test_the_kind_of_task(values, task):
    assert checks_builtin.task_of(pd.Series(values)) == task
