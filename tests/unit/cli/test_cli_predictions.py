"""`mainspring predictions`: the last, how many, and a file, of a log that was really written."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime, timedelta

import pyarrow.parquet as pq
import pytest

from controller.cli.errors import USAGE, Failure
from controller.cli.predictions import moment
from controller.serving.ship_log import Shipper
from tests.support.cli_session import mainspring, model, put
from tests.support.log_stores import Spool

WHO = {"model": "bikes", "revision": "bikes-0123456789", "version": "3", "commit": "abc1234", "pod": "bikes-0"}
NOW = datetime.now(UTC).replace(microsecond=0)


def at(hours: float) -> int:
    return int((NOW - timedelta(hours=hours)).timestamp() * 1e6)


@pytest.fixture
def state(tmp_path):
    """A state directory with a model whose log holds 20 predictions of a day ago and 5 of an hour ago."""
    spool = Spool(tmp_path / "spool", who=WHO)
    for n in range(20):
        spool.request(f"old-{n}", n, at=at(30) + n, prediction=n / 2)
    for n in range(5):
        spool.request(f"new-{n}", 100 + n, at=at(1) + n, prediction=50.0)
    spool.log.close()
    assert Shipper(tmp_path / "spool", f"file://{tmp_path}/log").once()
    status = {"bikes": {"predictionLog": {"uri": f"file://{tmp_path}/log"}}}
    put(tmp_path / "state", model("bikes"), statuses=status)
    return tmp_path / "state"


def test_tail_shows_the_last_predictions_with_their_inputs(state):
    said = mainspring(state, "predictions", "bikes", "tail", "--lines", "3")
    assert said.code == 0, said.err
    assert said.lines[0].split() == ["TIME", "REQUEST", "ROW", "REVISION", "PREDICTION", "AGE"]
    assert [line.split()[2] for line in said.lines[1:]] == ["new-2", "new-3", "new-4"]
    assert said.lines[-1].split()[3:] == ["0", "bikes-0123456789", "50", "104"]


def test_tail_looks_further_back_until_it_has_enough(state):
    said = mainspring(state, "predictions", "bikes", "tail", "-l", "7", "-o", "json")
    assert [r["request_id"] for r in json.loads(said.out)] == ["old-18", "old-19", *(f"new-{n}" for n in range(5))]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        pytest.param([], 25, id="all"),
        pytest.param(["--since", "2h"], 5, id="of the last two hours"),
        pytest.param(["--until", "2h"], 20, id="until two hours ago"),
        pytest.param(["--revision", "bikes-ffffffffff"], 0, id="of another revision"),
    ],
)
def test_count_says_how_many_by_day_and_revision(state, options, wanted):
    said = mainspring(state, "predictions", "bikes", "count", *options, "-o", "json")
    found = json.loads(said.out)
    assert found["predictions"] == wanted == sum(row["predictions"] for row in found["by"])
    shown = mainspring(state, "predictions", "bikes", "count", *options)
    assert f"{wanted:,} predictions" in shown.lines[-1]


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_export_writes_every_prediction_to_a_file(state, tmp_path, ending):
    to = tmp_path / f"out.{ending}"
    said = mainspring(state, "predictions", "bikes", "export", "--to", str(to))
    assert said.lines == [f"25 predictions of bikes are in {to}"], said.err
    if ending == "parquet":
        rows = pq.read_table(to).to_pylist()
    elif ending == "csv":
        rows = list(csv.DictReader(to.open()))
    else:
        rows = [json.loads(line) for line in to.open()]
    assert [r["request_id"] for r in rows][:2] == ["old-0", "old-1"]
    assert len(rows) == 25
    assert float(rows[3]["prediction"]) == 1.5


def test_a_file_that_cannot_be_read_is_told_beside_the_answer(state, tmp_path):
    partition = next((tmp_path / "log").rglob("*.parquet")).parent
    (partition / "cut.parquet").write_bytes(b"PAR1")
    said = mainspring(state, "predictions", "bikes", "count")
    assert "left out, it cannot be read" in said.err
    assert "cut.parquet" in said.err
    assert "25 predictions" in said.out


def test_a_model_without_a_log_says_why_and_what_to_do(state):
    put(state, model("plain"))
    condition = {
        "type": "PredictionsLogged", "status": "False", "reason": "StorageMissing", "message": "no storage.uri",
        "lastTransitionTime": "2026-03-02T12:00:00Z",
    }  # fmt: skip
    put(state, model("wants"), statuses={"wants": {"conditions": [condition]}})
    said = mainspring(state, "predictions", "plain", "tail")
    assert (said.code, "not logged: set serving.predictionLog" in said.err) == (1, True)
    assert "no storage.uri" in mainspring(state, "predictions", "wants", "tail").err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["export"], "export needs --to FILE", id="no file"),
        pytest.param(["tail", "--to", "x.csv"], "nothing else takes it", id="a file for tail"),
        pytest.param(["export", "--to", "x.xlsx"], "must end in .parquet, .csv, .jsonl", id="another ending"),
        pytest.param(["count", "--since", "yesterday"], "--since yesterday: write a day", id="no moment"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_read(state, arguments, said):
    answer = mainspring(state, "predictions", "bikes", *arguments)
    assert (answer.code, said in answer.err) == (USAGE, True), answer.err


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2026-03-02", datetime(2026, 3, 2, tzinfo=UTC)),
        ("2026-03-02T12:00:00+02:00", datetime(2026, 3, 2, 10, tzinfo=UTC)),
        ("2026-03-02T12:00:00Z", datetime(2026, 3, 2, 12, tzinfo=UTC)),
        ("90m", NOW - timedelta(minutes=90)),
    ],
)
def test_moments_are_written_in_three_ways(text, wanted):
    assert moment("--since", text, NOW) == wanted


def test_no_moment_is_no_limit():
    assert moment("--since", None, NOW) is None
    with pytest.raises(Failure):
        moment("--since", "", NOW)
