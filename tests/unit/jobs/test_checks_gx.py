"""A Great Expectations suite as a check: judged by Great Expectations, told in our words, never more than data.

The library is an extra, so it lives in an environment of its own here as it would at a team's: one run of it
judges all suites of the table below, and the step `fetch` is run there with a suite that a repository holds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from controller.jobs import checks_gx
from controller.jobs.entry import WrongInput
from tests.corpus import standing
from tests.support import gx_env
from tests.support.fetch_runs import Runs, table

FRAME = {
    "id": [f"loan-{i}" for i in range(100)],
    "age": [17, 150] + [30 + i % 40 for i in range(98)],
    "sex": ["x"] + ["female", "male"] * 49 + [None],
    "email": [f"p{i}@example.com" for i in range(100)],
    "empty": [None] * 100,
}


def one(name, **kwargs):
    return {"type": f"expect_{name}", "kwargs": kwargs}


def suite(*expectations, **more):
    return json.dumps({"name": "loans", "expectations": list(expectations), **more}).encode()


BETWEEN = {"column": "age", "min_value": 18, "max_value": 100}
OLD = {
    "expectation_suite_name": "loans",
    "data_asset_type": None,
    "evaluation_parameters": {},
    "ge_cloud_id": None,
    "meta": {"great_expectations_version": "0.18.22"},
    "expectations": [
        {
            "expectation_type": "expect_column_values_to_be_between",
            "kwargs": {**BETWEEN, "mostly": 0.97, "result_format": "BASIC"},
            "meta": {"notes": "who may borrow"},
        }
    ],
}

SAVED = b"""{
 "name": "loans", "id": null, "notes": null, "meta": {"great_expectations_version": "1.24.1"},
 "expectations": [
  {"type": "expect_column_values_to_be_between", "meta": {"owner": "risk"}, "notes": "adults",
   "severity": "critical", "kwargs": {"column": "age", "mostly": 0.95, "min_value": 18.0, "max_value": 100.0}},
  {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "sex"}, "meta": {}, "severity": "warning"},
  {"type": "expect_table_columns_to_match_set", "kwargs": {"column_set": ["id", "age"], "exact_match": false},
   "meta": {}, "severity": "critical"}
 ]
}"""
"""What `ExpectationSuite.to_json_dict` of Great Expectations 1.24.1 gives."""

JUDGED = [
    pytest.param(
        suite(one("column_values_to_be_unique", column="id"), one("table_row_count_to_equal", value=100)),
        [],
        id="what is met passes",
    ),
    pytest.param(json.dumps(OLD).encode(), [], id="a suite of 0.18, where 98 % of the values are enough"),
    pytest.param(
        SAVED,
        ["sex: expect_column_values_to_not_be_null is not met by 1 of 100 values (1.00%; nan at row 100)"],
        id="a suite as 1.24.1 saves it",
    ),
    pytest.param(
        suite(one("column_values_to_be_between", **BETWEEN, mostly=0.99)),
        [
            "age: expect_column_values_to_be_between 18 to 100 is not met by 2 of 100 values "
            "(2.00%, at most 1.00%; 17 at row 1, 150 at row 2)"
        ],
        id="more than mostly allows, with the rows",
    ),
    pytest.param(
        suite(one("column_values_to_be_in_set", column="sex", value_set=["female", "male"])),
        ["sex: expect_column_values_to_be_in_set is not met by 1 of 99 values (1.01%; 'x' at row 1)"],
        id="missing values are not counted",
    ),
    pytest.param(
        suite(one("column_mean_to_be_between", column="age", max_value=40)),
        ["age: expect_column_mean_to_be_between up to 40 is not met: observed 48.2"],
        id="a number of the column",
    ),
    pytest.param(
        suite(one("table_row_count_to_be_between", min_value=1000)),
        ["expect_table_row_count_to_be_between from 1000 is not met: observed 100"],
        id="a number of the table",
    ),
    pytest.param(
        suite(one("column_to_exist", column="height")),
        ["height: expect_column_to_exist is not met"],
        id="a column that is not there",
    ),
    pytest.param(
        suite(one("column_values_to_not_be_null", column="height")),
        [
            "height: expect_column_values_to_not_be_null cannot be judged: "
            'Error: The column "height" in BatchData does not exist.'
        ],
        id="D17-an expectation on a column that is not there",
    ),
    pytest.param(
        suite(one("column_values_to_be_in_set", column="empty", value_set=["a"])),
        ["empty: expect_column_values_to_be_in_set has no value to judge in 100 rows"],
        id="D17-Great Expectations itself passes what has nothing to judge",
    ),
    pytest.param(suite(one("column_values_to_be_null", column="empty")), [], id="a column that shall be empty"),
    pytest.param(
        suite(one("column_values_to_match_regex", column="email", regex="^a")),
        [
            "email: expect_column_values_to_match_regex is not met by 100 of 100 values "
            "(100.00%; *** at row 1, *** at row 2, *** at row 3)"
        ],
        id="D19-no address of a person is shown",
    ),
    pytest.param(
        suite(*[one("column_max_to_be_between", column="age", max_value=n) for n in range(10)]),
        [f"age: expect_column_max_to_be_between up to {n} is not met: observed 150" for n in range(4)]
        + ["and 6 more of 10 expectations"],
        id="many are told by four",
    ),
]

PROGRAM = """
import json, sys
import pandas as pd
from controller.jobs import checks_gx
from controller.jobs.entry import WrongInput
wanted = json.load(sys.stdin)
frame = pd.DataFrame(wanted["frame"])
suites = {name: checks_gx.parse(text.encode(), name) for name, text in wanted["suites"].items()}
try:
    found = checks_gx.judge(frame, suites, limit_s=wanted["limit"])
except WrongInput as error:
    print(json.dumps({"reason": error.reason, "message": error.message}))
else:
    print(json.dumps({name: [judged.problems, judged.said] for name, judged in found.items()}))
"""


@pytest.fixture(scope="module")
def python() -> Path:
    return gx_env.ready()


def run(python, suites, *, frame=None, limit_s=120.0):
    """Judge in an environment that has Great Expectations."""
    wanted = {"frame": frame or FRAME, "limit": limit_s}
    wanted["suites"] = {name: text.decode() for name, text in suites.items()}
    done = subprocess.run(
        [python, "-c", PROGRAM], input=json.dumps(wanted), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def judged(python):
    return run(python, {case.id: case.values[0] for case in JUDGED})


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in JUDGED])
def test_a_suite_is_judged_and_told_with_its_numbers(judged, case):
    problems, said = judged[case.id]
    assert problems == case.values[1]
    count = len(json.loads(case.values[0])["expectations"])
    assert said.startswith(f"{count} expectations of Great Expectations 1.")
    assert said.endswith(" are met by 100 rows")
    if problems:
        standing.refused(WrongInput("DataInvalid", "check suite failed: " + "; ".join(problems)), secrets=("p0@",))


UNREAD = [
    pytest.param(b"{", "RuleInvalid", "is not JSON in UTF-8 (line 1:", id="half a file"),
    pytest.param(b"\xff\xfe{", "RuleInvalid", "is not JSON in UTF-8", id="UTF-16"),
    pytest.param(b"[" * 100_000, "RuleInvalid", "is not JSON in UTF-8", id="100,000 levels"),
    pytest.param(
        b'{"expectations": [], "expectations": []}', "RuleInvalid", "a name comes twice", id="a name twice"
    ),
    pytest.param(b"[]", "RuleInvalid", "is no suite of Great Expectations", id="a list"),
    pytest.param(b'{"columns": {}}', "RuleInvalid", "has no list of expectations", id="a pandera schema"),
    pytest.param(suite(), "RuleInvalid", "has no expectation: it judges nothing", id="D17-no expectation"),
    pytest.param(
        suite(*[one("column_to_exist", column="a")] * 1001),
        "RuleInvalid",
        "1,001 expectations",
        id="1,001 of them",
    ),
    pytest.param(
        suite(one("column_mean_to_be_between", column="a", min_value=float("nan"))),
        "RuleInvalid",
        "NaN is no JSON",
        id="NaN",
    ),
    pytest.param(
        suite(one("column_values_to_be_prime", column="age"), module="our_expectations"),
        "ExpectationUnsupported",
        "expectation 1 is 'expect_column_values_to_be_prime', which is none of the 49 that judge one table",
        id="an expectation of a plug-in",
    ),
    pytest.param(
        suite(one("column_to_exist", column="a"), one("query_results_to_match_comparison", query="DROP TABLE a")),
        "ExpectationUnsupported",
        "expectation 2 is 'expect_query_results_to_match_comparison'",
        id="a query",
    ),
    pytest.param(
        suite({"type": "__import__('os').system('id')", "kwargs": {}}),
        "ExpectationUnsupported",
        "__import__",
        id="code in place of a name",
    ),
    pytest.param(
        suite(
            one(
                "column_values_to_be_unique",
                column="id",
                condition_parser="pandas",
                row_condition="@pd.io.common.os.system('id')",
            )
        ),
        "ExpectationUnsupported",
        "expectation 1 (expect_column_values_to_be_unique) has condition_parser: it is code that is run",
        id="a condition, which pandas would run as code",
    ),
    pytest.param(
        suite(one("column_max_to_be_between", column="age", max_value={"$PARAMETER": "now()"})),
        "ExpectationUnsupported",
        "has in 'max_value' a parameter ($PARAMETER)",
        id="a parameter of a run",
    ),
    pytest.param(
        suite(
            one("column_values_to_match_json_schema", column="a", json_schema={"$ref": "http://169.254.169.254/"})
        ),
        "ExpectationUnsupported",
        "expect_column_values_to_match_json_schema",
        id="a schema that names an address",
    ),
    pytest.param(
        suite(one("column_values_to_be_in_set", column="a", value_set={"__class__": [[[[[[[1]]]]]]]})),
        "ExpectationUnsupported",
        "more than 6 levels",
        id="a value with many levels",
    ),
]


@pytest.mark.parametrize(("text", "reason", "words"), UNREAD)
def test_what_is_no_plain_suite_is_refused_by_name_before_anything_runs(text, reason, words):
    with pytest.raises(WrongInput) as refused:
        checks_gx.parse(text, "checks/suite.json")
    assert refused.value.reason == reason
    assert refused.value.message.startswith("'checks/suite.json': ")
    assert words in refused.value.message
    assert refused.value.message.isprintable()
    standing.refused(refused.value)


def test_an_argument_that_great_expectations_does_not_know_is_told_with_its_place(python):
    bad = one("column_values_to_be_between", **BETWEEN, parse_strings_as_datetimes=True)
    said = run(python, {"checks/suite.json": suite(one("column_to_exist", column="age"), bad)})
    assert said["reason"] == "RuleInvalid"
    assert (
        "'checks/suite.json': expectation 2 (expect_column_values_to_be_between) is not accepted"
        in said["message"]
    )
    assert said["message"].endswith("parse_strings_as_datetimes: extra fields not permitted")


def test_d17_a_pattern_that_would_take_for_ever_ends_with_its_time(python):
    for_ever = suite(one("column_values_to_match_regex", column="id", regex="^(?=a)(a+)+$"))
    said = run(python, {"checks/suite.json": for_ever}, frame={"id": ["a" * 60 + "b"] * 3}, limit_s=20)
    assert said == {
        "reason": "RuleInvalid",
        "message": "'checks/suite.json': Great Expectations has not judged the data within 20 s; a regular "
        "expression may take for ever, or the data be too large for it",
    }
    standing.refused(WrongInput(**said))


def test_where_it_is_not_installed_the_answer_says_what_to_install():
    right = checks_gx.parse(suite(one("column_to_exist", column="id")), "s.json")
    with pytest.raises(WrongInput) as refused:
        checks_gx.judge(pd.DataFrame(FRAME), {"s.json": right})
    assert refused.value.reason == "ChecksNeedExtra"
    assert "pip install 'mainspring[great-expectations]'" in refused.value.message


def fetch(runs, python, text):
    """Run the step `fetch` as the environment with the extra would; returns its exit code."""
    runs.files |= {"data/rides.csv": table(), "checks/suite.json": text}
    data = runs.pin({"name": "train", "path": "data/rides.csv"})
    runs.python = python
    return runs.fetch(data, checks=[{"name": "suite", "greatExpectations": {"path": "checks/suite.json"}}])


@pytest.fixture
def runs(tmp_path, monkeypatch):
    return Runs(tmp_path, monkeypatch)


def test_a_suite_of_the_repository_is_a_check_like_any_other(runs, python):
    right = suite(one("column_values_to_be_between", column="temp", min_value=0, max_value=1))
    assert fetch(runs, python, right) == 0
    told = {c["name"]: c for c in runs.facts["checks"]}["suite"]
    assert told["outcome"] == "Passed"
    assert "1 expectations of Great Expectations 1." in told["message"]

    wrong = suite(one("column_values_to_be_between", column="temp", min_value=0, max_value=0.5))
    assert fetch(runs, python, wrong) == 3
    assert runs.said["reason"] == "DataInvalid"
    assert (
        "check suite failed: temp: expect_column_values_to_be_between 0 to 0.5 is not met by 98 of 200 values "
        in runs.said["message"]
    )


def test_a_suite_larger_than_any_is_refused_unread(runs):
    huge = suite(one("column_values_to_be_in_set", column="temp", value_set=["x" * 100] * 3000))
    assert fetch(runs, Path(sys.executable), huge) == 3
    assert "'checks/suite.json' has" in runs.said["message"]


def test_without_the_extra_nothing_is_trained_and_the_answer_helps(runs):
    text = suite(one("column_to_exist", column="temp"))
    assert fetch(runs, Path(sys.executable), text) == 3
    assert runs.said["reason"] == "ChecksNeedExtra"
    assert "pip install 'mainspring[great-expectations]'" in runs.said["message"]
    assert not (runs.at / "work/data").exists()
