"""A pandera schema as a check: judged by pandera, told in our words, and never more than data."""

from __future__ import annotations

import time

import pandas as pd
import pandera.pandas as pa
import pytest
from pandera.io import pandas_io

from controller.jobs.checks_pandera import judge, parse
from controller.jobs.entry import WrongInput
from tests.corpus import standing

FRAME = pd.DataFrame(
    {
        "id": [f"loan-{i}" for i in range(100)],
        "age": [17, 150] + [30 + i % 40 for i in range(98)],
        "sex": ["x"] + ["female", "male"] * 49 + [None],
    }
)


def problems(text, frame=FRAME):
    return list(judge(frame, parse(text.encode(), "checks/schema.yaml")))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("columns: {age: {dtype: int64}}", [], id="what fits passes"),
        pytest.param(
            "columns: {age: {dtype: int64, in_range: {min_value: 18, max_value: 100}}}",
            ["age has 2 of 100 values that fail in_range(18, 100) (17 at row 1, 150 at row 2)"],
            id="a range, with the rows",
        ),
        pytest.param(
            "columns: {age: {checks: {greater_than_or_equal_to: 18}}}",
            ["age has 1 of 100 values that fail greater_than_or_equal_to(18) (17 at row 1)"],
            id="as older versions wrote checks",
        ),
        pytest.param(
            "columns: {age: {checks: [{value: 18, options: {check_name: greater_than_or_equal_to}}]}}",
            ["age has 1 of 100 values that fail greater_than_or_equal_to(18) (17 at row 1)"],
            id="as a list of checks",
        ),
        pytest.param(
            "columns: {sex: {dtype: str, nullable: true, isin: [female, male]}}",
            ["sex has 1 of 100 values that fail isin(['female', 'male']) ('x' at row 1)"],
            id="a set of values",
        ),
        pytest.param(
            "columns: {sex: {dtype: str}}",
            ["sex has 1 of 100 values that fail not_nullable (nan at row 100)"],
            id="a missing value",
        ),
        pytest.param(
            "columns: {height: {dtype: int64}}", ["1 columns are missing: height"], id="a missing column"
        ),
        pytest.param(
            "columns: {height: {dtype: int64, required: false}}", [], id="a column that need not be there"
        ),
        pytest.param(
            "columns: {age: {dtype: int64}}\nstrict: true",
            ["columns are not expected: id, sex"],
            id="columns that are not expected",
        ),
        pytest.param(
            "columns: {id: {str_matches: 'loan-[0-9]$'}}",
            [
                "id has 90 of 100 values that do not begin with 'loan-[0-9]$' "
                "('loan-10' at row 11, 'loan-11' at row 12, 'loan-12' at row 13)"
            ],
            id="a pattern",
        ),
        pytest.param(
            "columns: {id: {str_contains: '[05]$'}, age: {}}",
            [
                "id has 80 of 100 values that do not contain '[05]$' "
                "('loan-1' at row 2, 'loan-2' at row 3, 'loan-3' at row 4)"
            ],
            id="a part of a pattern",
        ),
    ],
)
def test_a_schema_is_judged_and_every_failure_is_told_with_numbers(text, said):
    assert problems(text) == said


def test_another_type_of_column_is_told():
    said = problems("columns: {age: {dtype: str}}")[0]
    assert said.startswith("age has 100 of 100 values that fail dtype(")
    assert "(17 at row 1, 150 at row 2, 30 at row 3)" in said
    assert problems("columns: {sex: {dtype: int64, nullable: true}}")[0].startswith("sex ")


def test_what_pandera_writes_is_read():
    schema = pa.DataFrameSchema(
        {
            "age": pa.Column(int, [pa.Check.ge(18), pa.Check.le(200)]),
            "sex": pa.Column(str, pa.Check.isin(["female", "male", "x"]), nullable=True),
            "height": pa.Column(float, required=False, coerce=True),
        },
        unique=["id"],
    )
    assert problems(pandas_io.to_yaml(schema)) == [
        "age has 1 of 100 values that fail greater_than_or_equal_to(18) (17 at row 1)"
    ]


def test_the_data_stays_as_it_is_and_many_failures_are_cut():
    before = FRAME.copy(deep=True)
    said = problems("columns: {" + ", ".join(f"c{i}: {{dtype: int64, isin: [1]}}" for i in range(3)) + "}")
    assert said == ["3 columns are missing: c0, c1, c2"]
    said = problems(
        "columns: {age: {coerce: true, dtype: float64, isin: [1], less_than: 1, greater_than: 999, "
        "notin: [30], equal_to: 5, not_equal_to: 30}}"
    )
    assert len(said) == 5
    assert said[-1] == "and 2 more"
    pd.testing.assert_frame_equal(FRAME, before)


def test_a_column_without_any_value_is_no_pass():
    frame = pd.DataFrame({"age": [None, None]})
    said = problems("columns: {age: {nullable: true, greater_than: 0}}", frame)
    assert said[0] == "age has no value to judge in 2 rows"


def test_no_pattern_can_make_the_check_slow():
    frame = pd.DataFrame({"id": ["a" * 40 + "!"] * 100})
    began = time.perf_counter()
    assert "do not begin with" in problems("columns: {id: {str_matches: '(a+)+$'}}", frame)[0]
    assert time.perf_counter() - began < 10


REFUSED = [
    ("nothing", "", "one document with a pandera schema is wanted"),
    ("a list", "- 1", "one document with a pandera schema is wanted"),
    ("a tag that makes an object", "columns: !!python/object/apply:os.system [id]", "line 1: "),
    ("no columns", "strict: true", "columns is missing"),
    ("a check that somebody registered", "columns: {age: {checks: {my_check: 1}}}", "'my_check', which is none"),
    ("an attribute of pandera's class", "columns: {age: {checks: {from_builtin_check_name: x}}}", "is none of"),
    ("a private attribute", "columns: {age: {__class__: x}}", "columns.age.__class__ is unknown; a check written"),
    ("checks of the whole table", "checks: {my: 1}\ncolumns: {age: {}}", "checks is not allowed here"),
    ("rows are dropped", "drop_invalid_rows: true\ncolumns: {age: {}}", "drop_invalid_rows is not allowed here"),
    ("columns are added", "add_missing_columns: true\ncolumns: {age: {}}", "add_missing_columns is not allowed"),
    ("rows are dropped by a column", "columns: {age: {drop_invalid_rows: true}}", "columns.age.drop_invalid_rows"),
    ("a default fills gaps", "columns: {age: {default: 3}}", "columns.age.default is not allowed here"),
    ("an index", "index: [{dtype: int64}]\ncolumns: {age: {}}", "index is not allowed here"),
    ("polars", "api: polars\ncolumns: {age: {}}", "api is not allowed here"),
    ("names of columns by pattern", "columns: {age: {regex: true}}", "columns.age.regex is not allowed here"),
    ("a failure is only warned of",
     "columns: {age: {greater_than: {value: 1, options: {raise_warning: true}}}}", "the option 'raise_warning'"),
    ("a type that is none", "columns: {age: {dtype: no_such}}", "pandera does not accept it: "),
    ("code as a type", "columns: {age: {dtype: '__import__(\"os\")'}}", "is no name of a type"),
    ("a pattern that is none", "columns: {id: {str_matches: '('}}", "a pattern that RE2 does not read"),
    ("a pattern with look-ahead", "columns: {id: {str_matches: '(?=a)'}}", "a pattern that RE2 does not read"),
    ("a pattern that is a number", "columns: {id: {str_matches: 5}}", "wants a pattern as text"),
    ("a range without an end", "columns: {age: {in_range: {min_value: 1}}}", "pandera does not accept it"),
    ("an unknown key", "columns: {age: {}}\nfoo: 1", "foo is unknown"),
    ("a key twice", "columns: {age: {}}\ncolumns: {sex: {}}", "line 2: "),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words"), [pytest.param(t, w, id=f"D17-{i}") for i, t, w in REFUSED])
def test_a_schema_that_is_wrong_or_wants_more_than_data_is_refused(text, words):
    with pytest.raises(WrongInput) as caught:
        parse(text.encode(), "checks/schema.yaml")
    assert caught.value.reason == "RuleInvalid"
    assert caught.value.message.startswith("'checks/schema.yaml': ")
    assert words in caught.value.message
    standing.refused(caught.value)
