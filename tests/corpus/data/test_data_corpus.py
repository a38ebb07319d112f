"""The table of bad data D01 to D20: every row through the fetch step, with the reason and the words that it gets.

Rows that belong to other steps are tested there: D05 and D19 (what reports show) and D20 (fairness) with the
evaluator, D13 with the command line, D18 with the runner.
"""

from __future__ import annotations

import hashlib
import io
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from controller.clients.errors import Denied
from controller.reconcile.datasets import MissingFile
from tests.corpus import standing
from tests.support.fetch_runs import Runs, table

GOOD = table()


@pytest.fixture
def runs(tmp_path, monkeypatch):
    return Runs(tmp_path, monkeypatch)


def frame() -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(GOOD))


def csv(**columns) -> bytes:
    made = frame().assign(**columns)
    text: str = made.to_csv(index=False)
    return text.encode()


def parquet(made=None, **options) -> bytes:
    file = io.BytesIO()
    (frame() if made is None else made).to_parquet(file, index=False, **options)
    return file.getvalue()


def nested() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"id": ["a"], "rides": [1.0], "x": [[1, 2]]}), file)
    return file.getvalue()


def swapped(old: bytes, new: bytes) -> bytes:
    assert old in GOOD
    return GOOD.replace(old, new)


def numbers_as_text(text: str) -> bytes:
    return swapped(b"row-7,7,0.59,", f'row-7,7,"{text}",'.encode())


PARQUET = parquet()
TEMP = {"name": "temp", "column": "temp", "type": "Number"}

ROWS = [
    ("D01-no byte", "csv", b"", {}, "DataEmpty", "is empty: it has no header and no rows"),
    ("D01-a header only", "csv", b"id,hour,temp,rides\n", {}, "DataEmpty", "a header with 4 columns and no rows"),
    ("D01-one row", "csv", b"id,hour,temp,rides\na,1,0.1,2\n", {}, "DataEmpty", "at least 20 and 10 are needed"),
    (
        "D02-a column without values",
        "csv",
        csv(temp=None),
        {},
        "DataInvalid",
        "columns have no value at all: temp",
    ),
    ("D02-no target at all", "csv", csv(rides=None), {}, "DataInvalid", "rides is missing in 200 of 200 rows"),
    ("D02-one and the same target", "csv", csv(rides=1), {}, "DataInvalid", "there is nothing to learn"),
    (
        "D03-a target that is NaN",
        "csv",
        swapped(b"0.59,49.5\n", b"0.59,\n"),
        {},
        "DataInvalid",
        "missing in 2 of 200",
    ),
    (
        "D03-an infinite target",
        "csv",
        csv(rides=[np.inf, *range(199)]),
        {},
        "DataInvalid",
        "rides is infinite in 1",
    ),
    ("D03-no column of the target", "csv", swapped(b"rides", b"ride"), {}, "SchemaMismatch", "no column rides"),
    ("D04-a comma for a point", "csv", numbers_as_text("1,5"), TEMP, "DataInvalid", "'1,5' at row 8"),
    ("D04-a blank in a number", "csv", numbers_as_text("1 000"), TEMP, "DataInvalid", "'1 000' at row 8"),
    ("D04-a dash for nothing", "csv", numbers_as_text("-"), TEMP, "DataInvalid", "'-' at row 8"),
    (
        "D05-a value of another case",
        "csv",
        csv(city=["Oslo"] * 199 + ["oslo"]),
        {"name": "city", "column": "city", "allowed": ["Oslo"]},
        "DataInvalid",
        "1 different ones ('oslo' at row 200)",
    ),
    (
        "D05-a hundred new values are told by three",
        "csv",
        csv(city=[f"city-{i}" for i in range(200)]),
        {"name": "city", "column": "city", "allowed": ["Oslo"]},
        "DataInvalid",
        "200 different ones ('city-0' at row 1, 'city-1' at row 2, 'city-2' at row 3)",
    ),
    (
        "D06-a missing column",
        "csv",
        GOOD,
        {"name": "columns", "schema": {"columns": ["id", "wind"]}},
        "DataInvalid",
        "1 of 2 columns are missing: wind",
    ),
    (
        "D06-an extra column",
        "csv",
        GOOD,
        {"name": "columns", "schema": {"columns": ["id", "hour"], "extra": "Refuse"}},
        "DataInvalid",
        "1 columns are not expected: temp",
    ),
    (
        "D06-another order where the order counts",
        "csv",
        GOOD,
        {"name": "columns", "schema": {"columns": ["hour", "id"], "order": "Enforce"}},
        "DataInvalid",
        "id comes where hour is expected",
    ),
    ("D06-a name twice", "csv", swapped(b"hour,temp", b"hour,hour"), {}, "SchemaMismatch", "hour"),
    (
        "D08-an id twice",
        "csv",
        swapped(b"row-7,", b"row-8,"),
        {},
        "DuplicateIds",
        "1 of 200 values that came before",
    ),
    ("D10-parquet that is cut", "parquet", PARQUET[:-20], {}, "DataCorrupt", "cannot be read as parquet"),
    ("D10-no parquet", "parquet", GOOD, {}, "DataCorrupt", "does not begin with PAR1"),
    ("D10-parquet by another name", "csv", PARQUET, {}, "DataCorrupt", "its name does not end in .parquet"),
    ("D10-nested columns", "parquet", nested(), {}, "SchemaMismatch", "only plain columns are read"),
    ("D12-semicolons", "csv", GOOD.replace(b",", b";"), {}, "DataCorrupt", "is separated by semicolons"),
    ("D12-a quote that never ends", "csv", swapped(b"row-7,", b'"row-7,'), {}, "DataCorrupt", "is not CSV"),
    ("D12-a NUL byte", "csv", swapped(b"row-7,", b"row\x007,"), {}, "DataCorrupt", "line 9 has a NUL byte"),
    ("D12-Latin-1", "csv", swapped(b"row-7,", b"r\xf6w-7,"), {}, "DataCorrupt", "line 9 is not UTF-8"),
    ("D12-UTF-16", "csv", GOOD.decode().encode("utf-16"), {}, "DataCorrupt", "is UTF-16; save it as UTF-8"),
    ("D12-a row too short", "csv", swapped(b"row-7,7,", b"row-7,"), {}, "DataCorrupt", "line 9 has 3 fields"),
    (
        "G22-a Git LFS pointer",
        "csv",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n",
        {},
        "LFSPointer",
        "is a Git LFS pointer and not the data; commit the file itself, or name it by uri",
    ),
    ("D14-a pickle", "csv", b"\x80\x04\x95\x1a\x00.", {}, "DataCorrupt", "has a NUL byte: it is no CSV"),
    (
        "D17-a rule on a column that is not there",
        "csv",
        GOOD,
        {"name": "tmp", "column": "tmp", "min": 0},
        "SchemaMismatch|DataInvalid",
        "there is no column tmp; nearest: temp",
    ),
    (
        "D17-a rule that has nothing to judge",
        "csv",
        csv(wind=["x"] + [None] * 199),
        {"name": "wind", "column": "gust", "min": 0},
        "DataInvalid",
        "there is no column gust",
    ),
]

BY_TIME = {"columns": {"target": "rides", "id": "id", "time": "at"}, "holdout": {"by": "Time"}}
DAYS = [f"2026-01-{1 + i % 28:02d}T{i % 24:02d}:00:00" for i in range(200)]
SECONDS = [1767225600 + i for i in range(200)]
HUGE = 2**64 - 1


def plain(**columns) -> bytes:
    """Write parquet with types that pandas alone would not write."""
    base = {"id": [f"row-{i}" for i in range(200)], "rides": [i + 0.5 for i in range(200)]}
    file = io.BytesIO()
    pq.write_table(pa.table({**base, **columns}), file)
    return file.getvalue()


BOUNDED = {"name": "n", "column": "n", "max": 100}
MORE_ROWS = [
    (
        "D07-a year that no calendar has",
        "csv",
        csv(at=["10000-12-31", *DAYS[1:]]),
        {},
        "DataInvalid",
        "at has 1 of 200 values that are no time (row 1); times are ISO 8601 or numbers",
    ),
    (
        "D07-names of time zones",
        "csv",
        csv(at=[f"{day} Europe/Oslo" for day in DAYS]),
        {},
        "DataInvalid",
        "at has 200 of 200 values that are no time (row 1, 2, 3)",
    ),
    (
        "D07-seconds and milliseconds since 1970",
        "csv",
        csv(at=[s * 1000 if i % 2 else s for i, s in enumerate(SECONDS)]),
        {},
        "DataInvalid",
        "at has 100 values that are seconds since 1970 (row 1) and 100 that are milliseconds (row 2)",
    ),
    (
        "D09-more than 64 bits in CSV",
        "csv",
        csv(at=DAYS, n=["9223372036854775808"] + ["1"] * 199),
        BOUNDED,
        "DataInvalid",
        "n has 1 of 200 values above 100 (worst 9.22337e+18 at row 1)",
    ),
    (
        "D09-unsigned numbers of 64 bits",
        "parquet",
        plain(at=DAYS, n=pa.array([HUGE] * 200, type=pa.uint64())),
        BOUNDED,
        "DataInvalid",
        "n has 200 of 200 values above 100 (worst 1.84467e+19 at row 1)",
    ),
    (
        "D09-decimals",
        "parquet",
        plain(at=DAYS, n=pa.array([Decimal("12345678901234567890.12")] * 200, type=pa.decimal128(38, 2))),
        BOUNDED,
        "DataInvalid",
        "n has 200 of 200 values above 100 (worst 1.23457e+19 at row 1)",
    ),
    (
        "D09-half numbers",
        "parquet",
        plain(at=DAYS, n=pa.array(np.full(200, np.float16(65504)))),
        BOUNDED,
        "DataInvalid",
        "n has 200 of 200 values above 100 (worst 65504 at row 1)",
    ),
    (
        "D09-a number that no float holds",
        "csv",
        csv(at=DAYS, n=["1e400"] + ["1"] * 199),
        {},
        "DataInvalid",
        "n has 1e400 at row 1, larger than every number of 64 bits; it would be read as infinite",
    ),
    (
        "D09-a target whose squares are infinite",
        "csv",
        csv(at=DAYS, rides=[1e308, -1e308] * 100),
        {},
        "DataInvalid",
        "rides is beyond 1e+150 in 200 of 200 rows (first at row 1), so large that no error of it can be measured",
    ),
]


@pytest.mark.parametrize(
    ("ending", "content", "check", "reason", "words"), [pytest.param(*rest, id=name) for name, *rest in MORE_ROWS]
)
def test_times_and_numbers_are_never_silently_others(runs, ending, content, check, reason, words):
    runs.files[f"data/rides.{ending}"] = content
    data = runs.pin({"name": "train", "path": f"data/rides.{ending}"})
    assert runs.fetch(data, checks=[check] if check else [], **BY_TIME) == 3
    assert runs.said["reason"] == reason
    assert words in runs.said["message"]
    standing.step_says(runs.said)


@pytest.mark.apart("nothing is wrong with it")
@pytest.mark.parametrize(
    "times",
    [
        pytest.param([day + ("Z" if i % 2 else "+02:00") for i, day in enumerate(DAYS)], id="D07 two zones"),
        pytest.param([day + ("Z" if i % 2 else "") for i, day in enumerate(DAYS)], id="D07 some without a zone"),
        pytest.param(["2026-03-29T02:30:00", *DAYS[1:]], id="D07 an hour that summer time left out"),
        pytest.param(["0001-01-01T00:00:00", "9999-12-31T23:59:59", *DAYS[2:]], id="D07 the years 1 and 9999"),
        pytest.param([s * 1000 for s in SECONDS], id="D07 milliseconds"),
    ],
)
def test_times_are_read_as_utc_where_they_name_no_zone(runs, times):
    runs.files["data/rides.csv"] = csv(at=times)
    assert runs.fetch(runs.pin({"name": "train", "path": "data/rides.csv"}), **BY_TIME) == 0
    newest = sorted(range(200), key=lambda i: (moment(times[i]), i))[-1]
    assert f"row-{newest}," not in (runs.at / "work/data/rides.csv").read_text(), "the newest row is held out"


def moment(value) -> float:
    """Read a time as the split must: without a zone it is UTC."""
    if not isinstance(value, str):
        return float(value)
    found = datetime.fromisoformat(value)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


PAIR = [{"name": "train", "path": "data/rides.csv"}, {"name": "holdout", "path": "data/held.csv"}]


HELD = csv(id=[f"held-{i}" for i in range(200)], temp=[i / 400 for i in range(200)])
PARTS = [
    (
        "D11-a part without a column",
        HELD.replace(b"temp", b"tmep", 1),
        "SchemaMismatch",
        "the dataset holdout lacks 1 of 3 columns of the first: temp",
    ),
    (
        "D11-a part with another type",
        csv(id=[f"held-{i}" for i in range(200)], hour=[f"h{i % 24}" for i in range(200)]),
        "SchemaMismatch",
        "the dataset holdout has 1 columns of another type: hour has numbers in the first and texts in it",
    ),
    (
        "D11-an empty part",
        b"id,hour,temp,rides\n",
        "DataEmpty",
        "data/held.csv has a header with 4 columns and no rows",
    ),
    (
        "D15-the hold-out is in the training data",
        GOOD,
        "DataInvalid",
        "200 of 200 hold-out rows are also in dataset train, which the training is given whole; take them out",
    ),
]


@pytest.mark.parametrize(("held", "reason", "words"), [pytest.param(*rest, id=name) for name, *rest in PARTS])
def test_two_files_that_do_not_fit_together_are_refused_by_name(runs, held, reason, words):
    runs.files |= {"data/rides.csv": GOOD, "data/held.csv": held}
    assert runs.fetch(runs.pin(*PAIR)) == 3
    assert runs.said["reason"] == reason
    assert words in runs.said["message"]
    standing.step_says(runs.said)


@pytest.mark.parametrize("path", ["data/parts", "data/parts/"], ids="D11 a directory of parts: {}".format)
def test_a_directory_is_no_dataset(runs, path):
    runs.files |= {f"data/parts/year=20{n}/part.csv": GOOD for n in (24, 25)}
    with pytest.raises((MissingFile, ValueError)) as caught:
        runs.pin({"name": "train", "path": path})
    if isinstance(caught.value, MissingFile):
        assert caught.value.path == "data/parts"
        standing.git_says(Denied(f"data: {path} is not in main", reason="PathNotFound"), late=True)
    else:
        standing.spec_is(data=[{"name": "train", "path": path}])


COPIES = [
    (
        "D15-a copy of the target",
        csv(copy=frame()["rides"]),
        "1 columns give the target rides away in all 200 rows: copy",
    ),
    (
        "D15-its double, and its opposite",
        csv(double=frame()["rides"] * 2, less=5 - frame()["rides"]),
        "2 columns give the target rides away in all 200 rows: double, less",
    ),
    (
        "D15-another name for its classes",
        csv(rides=["yes", "no"] * 100, code=[7, 8] * 100),
        "1 columns give the target rides away in all 200 rows: code",
    ),
]


@pytest.mark.parametrize(("content", "words"), [pytest.param(*rest, id=name) for name, *rest in COPIES])
def test_a_column_that_gives_the_target_away_is_told_and_refuses_nothing(runs, content, words):
    runs.files["data/rides.csv"] = content
    assert runs.fetch(runs.pin({"name": "train", "path": "data/rides.csv"})) == 0
    found = {c["name"]: c for c in runs.facts["checks"]}["builtin-no-copy-of-target"]
    assert found["outcome"] == "Passed"
    assert found["message"] == (
        f"LeakageSuspected: {words}; if they are not known when the model is asked, take them out"
    )
    change = standing.with_report(evidence={"checks": [found]})
    answer = standing.report_is(change, "ChecksPassed", words, promotes=True)
    assert answer is not None
    assert "1 of 1 checks passed" in answer.message


@pytest.mark.parametrize(
    ("ending", "content", "check", "reason", "words"), [pytest.param(*rest, id=name) for name, *rest in ROWS]
)
def test_bad_data_gets_its_answer_and_nothing_reaches_the_training(runs, ending, content, check, reason, words):
    runs.files[f"data/rides.{ending}"] = content
    data = runs.pin({"name": "train", "path": f"data/rides.{ending}"})
    assert runs.fetch(data, checks=[check] if check else []) == 3
    assert runs.said["reason"] in reason.split("|")
    assert words in runs.said["message"]
    assert not (runs.at / "work/data").exists()
    assert not (runs.at / "features/features.parquet").exists()
    standing.step_says(runs.said)


FINE = [
    ("D06-names with blanks, dots and signs", GOOD.replace(b"temp", "temp °C. 🌡".encode())),
    ("D06-columns in another order", frame()[["rides", "temp", "id", "hour"]].to_csv(index=False).encode()),
    ("D12-a byte order mark", b"\xef\xbb\xbf" + GOOD),
    ("D12-line ends of Windows", GOOD.replace(b"\n", b"\r\n")),
    ("D13-a formula is a value like any other", GOOD.replace(b"row-7,", b"=HYPERLINK(1),")),
]


@pytest.mark.apart("nothing is wrong with it")
@pytest.mark.parametrize("content", [pytest.param(content, id=name) for name, content in FINE])
def test_what_only_looks_odd_is_learned_from(runs, content):
    runs.files["data/rides.csv"] = content
    assert runs.fetch(runs.pin({"name": "train", "path": "data/rides.csv"})) == 0
    assert runs.facts["rows"] == 200


def test_d16_data_that_changed_after_it_was_pinned_is_refused(runs):
    file = runs.root / "rides.csv"
    file.write_bytes(GOOD)
    digest = f"sha256:{hashlib.sha256(GOOD).hexdigest()}"
    data = runs.pin({"name": "train", "uri": f"file://{file}", "digest": digest})
    file.write_bytes(GOOD + b"row-200,1,0.5,1.5\n")
    assert runs.fetch(data) == 3
    assert runs.said["reason"] == "DataChanged"
    standing.step_says(runs.said)


SUITE = {"name": "suite", "pandera": {"path": "checks/schema.yaml"}}


@pytest.mark.parametrize(
    ("schema", "code", "reason", "words"),
    [
        pytest.param(
            b"columns: {temp: {in_range: {min_value: 0, max_value: 1}}}", 0, "", "", id="a schema that fits"
        ),
        pytest.param(
            b"columns: {temp: {dtype: float64, less_than: 0.98}}",
            3,
            "DataInvalid",
            "check suite failed: temp has 4 of 200 values that fail less_than(0.98)",
            id="a schema that does not",
        ),
        pytest.param(
            b"columns: {temp: {checks: {mine: 1}}}",
            3,
            "RuleInvalid",
            "'checks/schema.yaml': columns.temp has the check 'mine'",
            id="D17-a check that is code",
        ),
        pytest.param(
            b"columns: {id: {str_matches: '(a+)+$'}}",
            3,
            "DataInvalid",
            "values that do not begin with '(a+)+$'",
            id="D17-a pattern that would take for ever",
        ),
        pytest.param(
            b"columns: {id: {str_matches: '(?<=a)b'}}", 3, "RuleInvalid", "RE2", id="D17-a pattern that is none"
        ),
    ],
)
def test_a_pandera_schema_of_the_repository_is_a_check_like_any_other(runs, schema, code, reason, words):
    runs.files |= {"data/rides.csv": GOOD, "checks/schema.yaml": schema}
    data = runs.pin({"name": "train", "path": "data/rides.csv"})
    assert runs.fetch(data, checks=[SUITE]) == code
    if code:
        assert runs.said["reason"] == reason
        assert words in runs.said["message"]
        standing.step_says(runs.said)
    else:
        assert {c["name"]: c["outcome"] for c in runs.facts["checks"]}["suite"] == "Passed"
