"""The prediction log's spool: what a killed writer leaves, what does not fit, what is hidden, what it becomes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from controller.serving import predlog_spool as spool
from controller.serving.predlog import PREFIX, Config, PredictionLog, Record, chosen
from controller.serving.predlog_table import Parts

COLUMNS = ("age", "plan", "email")
KINDS = {"age": "number", "plan": "string", "email": "string"}
WHO = {"model": "churn", "revision": "churn-0123456789", "version": "3", "commit": "abc1234", "pod": "churn-0"}
NOON = 1_772_452_800_000_000
"""2026-03-02, 12:00 UTC, in microseconds."""


class Written:
    """What a log says it wrote and lost."""

    def __init__(self, directory: Path, **config) -> None:
        self.recorded = 0
        self.lost: dict[str, int] = {}
        self.directory = directory
        self.log = PredictionLog(
            Config(spool=directory, **config), WHO, KINDS, recorded=self._count, lost=self._miss
        )

    def _count(self, rows: int) -> None:
        self.recorded += rows

    def _miss(self, why: str, rows: int) -> None:
        self.lost[why] = self.lost.get(why, 0) + rows

    def request(
        self, name: str, rows=((41, "basic", "a@example.com"),), *, columns=COLUMNS, at=NOON, **more
    ) -> None:
        predictions = more.pop("predictions", [0.5] * len(rows))
        self.log.record(Record(name, at, columns, rows, predictions, **more))

    def table(self) -> pa.Table:
        self.log.close()
        tables = [p.table(day) for s in spool.segments(self.directory) for p in [Parts(s)] for day in p.days]
        return pa.concat_tables(tables)


def rows_of(table: pa.Table) -> list[dict]:
    return list(table.to_pylist())


def test_a_prediction_is_kept_with_everything_that_identifies_it(tmp_path):
    written = Written(tmp_path)
    written.request("q-1", classes=("no", "yes"), probabilities=np.array([[0.3, 0.7]]), predictions=["yes"])
    table = written.table()
    (row,) = rows_of(table)
    assert (row["request_id"], row["row"], row["prediction"]) == ("q-1", 0, "yes")
    assert row["time"].isoformat() == "2026-03-02T12:00:00+00:00"
    assert {k: row[k] for k in ("model", "version", "commit", "pod")} == {
        "model": "churn", "version": "3", "commit": "abc1234", "pod": "churn-0",
    }  # fmt: skip
    assert (row["inputs.age"], row["inputs.plan"], row["inputs.email"]) == (41.0, "basic", "a@example.com")
    assert (row["probabilities.no"], row["probabilities.yes"]) == (0.3, 0.7)
    assert written.recorded == 1


@pytest.mark.parametrize(
    ("columns", "inputs", "wanted"),
    [
        pytest.param(("age",), [[41], [None]], [41.0, None], id="a missing number is null"),
        pytest.param(("age",), np.array([[41.5], [np.nan]]), [41.5, None], id="nan of an array is null"),
        pytest.param(("age",), [[2**62], [-0.0]], [float(2**62), -0.0], id="whole numbers are float64"),
        pytest.param(("plan",), [["é\ud800"], ["x" * 100_000]], ["é?", "x" * 100_000], id="any text"),
        pytest.param(("other",), [[True], [False]], [1.0, 0.0], id="a column of no kind that could be numbers"),
        pytest.param(("other",), [["a"], [1]], ['"a"', "1"], id="a mixture is told as JSON"),
        pytest.param(("other",), [[None], [None]], [None, None], id="nothing but missing values"),
    ],
)
def test_inputs_come_back_as_they_were_sent(tmp_path, columns, inputs, wanted):
    written = Written(tmp_path)
    written.request("q", inputs, columns=columns, predictions=[1.0, 2.0])
    table = written.table()
    assert table.column(f"inputs.{columns[0]}").to_pylist() == wanted
    assert table.column("row").to_pylist() == [0, 1]


@pytest.mark.parametrize(
    ("predictions", "kind", "wanted"),
    [
        pytest.param([0.25], pa.float64(), [0.25], id="numbers"),
        pytest.param([3], pa.int64(), [3], id="whole numbers"),
        pytest.param([True], pa.bool_(), [True], id="booleans"),
        pytest.param(["no"], pa.string(), ["no"], id="classes"),
    ],
)
def test_predictions_have_the_type_that_the_model_gives(tmp_path, predictions, kind, wanted):
    written = Written(tmp_path)
    written.request("q", predictions=predictions)
    column = written.table().column("prediction")
    assert (column.type, column.to_pylist()) == (kind, wanted)


def test_requests_of_all_forms_stand_in_one_table_in_their_order(tmp_path):
    written = Written(tmp_path)
    for n in range(200):
        form = n % 4
        if form == 0:
            written.request(f"q{n}", np.array([[float(n)]]), columns=("age",))
        elif form == 1:
            written.request(f"q{n}", [[n], [None]], columns=("age",))
        elif form == 2:
            written.request(f"q{n}", [[n, "x", None]])
        else:
            written.request(f"q{n}", [[n, "x", None]] * 3, classes=("a",), probabilities=[[1.0]] * 3)
    rows = rows_of(written.table())
    assert [r["request_id"] for r in rows if r["row"] == 0] == [f"q{n}" for n in range(200)]
    assert [r["inputs.age"] for r in rows if r["row"] == 0] == [float(n) for n in range(200)]
    assert len(rows) == written.recorded == 50 * (1 + 2 + 1 + 3)


def test_a_request_at_midnight_is_of_the_day_of_its_own_time(tmp_path):
    written = Written(tmp_path)
    midnight = NOON // 86_400_000_000 * 86_400_000_000
    written.request("before", at=midnight - 1)
    written.request("after", at=midnight)
    written.log.close()
    (segment,) = spool.segments(tmp_path)
    parts = Parts(segment)
    found = {day: parts.table(day).column("request_id").to_pylist() for day in parts.days}
    assert found == {"2026-03-01": ["before"], "2026-03-02": ["after"]}


def test_l16_a_sensitive_column_is_in_no_byte_of_the_spool(tmp_path):
    written = Written(tmp_path, sensitive=("email",))
    written.request("q1")
    written.request("q2", np.array([[1.0, 77.125]]), columns=("age", "email"))
    table = written.table()
    assert "inputs.email" not in table.column_names
    assert table.column("inputs.age").to_pylist() == [41.0, 1.0]
    assert table.column("inputs.plan").to_pylist() == ["basic", None]
    for file in tmp_path.rglob("*"):
        assert b"a@example.com" not in file.read_bytes()
        assert b"email" not in file.read_bytes()
        assert np.float64(77.125).tobytes() not in file.read_bytes()


def test_l16_a_hashed_column_keeps_what_is_equal_equal_and_nothing_else(tmp_path):
    written = Written(tmp_path / "a", sensitive=("email",), policy="Hash", salt="ml/churn")
    written.request("q1")
    written.request("q2", [[1, "basic", "b@example.com"], [2, "basic", "a@example.com"], [3, "basic", None]])
    first, second, again, none = written.table().column("inputs.email").to_pylist()
    assert first == again != second
    assert none is None
    assert len(first) == 32
    assert b"example.com" not in b"".join(f.read_bytes() for f in tmp_path.rglob("*.seg"))
    other = Written(tmp_path / "b", sensitive=("email",), policy="Hash", salt="ml/other")
    other.request("q1")
    assert other.table().column("inputs.email").to_pylist() != [first]


def test_a_hashed_number_is_the_same_however_it_was_sent(tmp_path):
    written = Written(tmp_path, sensitive=("age",), policy="Hash")
    written.request("q1", np.array([[41.0]]), columns=("age",))
    written.request("q2", [[41]], columns=("age",))
    one, two = written.table().column("inputs.age").to_pylist()
    assert one == two


@pytest.mark.parametrize(
    ("mode", "there", "absent"),
    [
        pytest.param("Request", "inputs.age", "prediction", id="requests only"),
        pytest.param("Response", "prediction", "inputs.age", id="responses only"),
    ],
)
def test_a_mode_leaves_the_other_half_out(tmp_path, mode, there, absent):
    written = Written(tmp_path, mode=mode)
    written.request("q", classes=("a",), probabilities=[[1.0]])
    names = written.table().column_names
    assert there in names
    assert absent not in names
    assert ("probabilities.a" in names) == (mode == "Response")


def test_a_sample_takes_the_same_requests_on_every_server(tmp_path):
    one, two = Written(tmp_path / "one", sample=0.25), Written(tmp_path / "two", sample=0.25)
    for n in range(2000):
        one.request(f"q{n}")
        two.request(f"q{n}")
    kept = one.table().column("request_id").to_pylist()
    assert kept == two.table().column("request_id").to_pylist()
    assert kept == [f"q{n}" for n in range(2000) if chosen(f"q{n}", 0.25)]
    assert 400 < len(kept) < 600
    assert one.lost == {}


def test_what_does_not_fit_into_the_spool_is_counted_and_the_rest_is_kept(tmp_path):
    written = Written(tmp_path, spool_bytes=20_000, segment_bytes=4_000)
    for n in range(1000):
        written.request(f"q{n}")
    assert spool.used_bytes(tmp_path) < 21_000
    kept = written.table().num_rows
    assert kept == written.recorded
    assert written.lost == {"spool_full": 1000 - kept}


def test_room_in_the_spool_is_seen_when_segments_are_shipped(tmp_path):
    written = Written(tmp_path, spool_bytes=20_000, segment_bytes=4_000)
    while not written.lost:
        written.request("q")
    for segment in spool.segments(tmp_path)[:-1]:
        segment.unlink()
    before, deadline = written.recorded, time.monotonic() + 10
    while written.recorded == before and time.monotonic() < deadline:
        written.request("q")
    written.log.close()
    assert written.recorded > before


def test_a_spool_that_cannot_be_written_costs_records_and_no_request(tmp_path):
    written = Written(tmp_path / "spool")
    (tmp_path / "spool").rmdir()
    (tmp_path / "spool").write_text("a file where the directory was")
    written.request("q")
    written.log.close()
    assert written.lost == {"spool_error": 1}


FULL = """
import json, resource, signal, sys
from pathlib import Path
from controller.serving.predlog import Config, PredictionLog, Record
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_007, 10_007))
told = {"": 0}
def lost(why, rows):
    told[why] = told.get(why, 0) + rows
def recorded(rows):
    told[""] += rows
log = PredictionLog(Config(spool=Path(sys.argv[1])), {}, {}, recorded=recorded, lost=lost)
for n in range(300):
    log.record(Record(f"q{n}", 1_000_000 * n, ("a",), [[float(n)]], [1.0]))
log.close()
print(json.dumps(told))
"""


def test_f26_a_file_that_takes_no_more_keeps_whole_records_and_the_rest_is_counted(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    (segment,) = spool.segments(tmp_path)
    assert spool.is_finished(segment), "the lock tells, though there was no room for the end mark"
    parts = Parts(segment)
    assert told == {"": parts.rows, "spool_error": 300 - parts.rows}
    assert (parts.rows > 50, parts.lost, parts.torn) == (True, 0, False)
    assert "counted in mainspring_log_lost_total" in done.stderr


def test_an_old_segment_is_finished_without_a_further_request(tmp_path):
    written = Written(tmp_path, segment_age_s=0.05)
    written.request("q")
    (segment,) = spool.segments(tmp_path)
    deadline = time.monotonic() + 10
    while not spool.is_finished(segment) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert spool.is_finished(segment)
    written.log.close()


KILLED = """
import sys, os
from pathlib import Path
from controller.serving.predlog import Config, PredictionLog, Record
config = Config(spool=Path(sys.argv[1]), segment_bytes=50_000)
log = PredictionLog(config, {"pod": "p"}, {}, recorded=lambda n: None, lost=print)
n = 0
while True:
    log.record(Record(f"q{n}", 1_000_000 * n, ("a",), [[float(n)]], [1.0]))
    # Answered: only now may a client know of it.
    os.write(1, b"q%d\\n" % n)
    n += 1
"""


def test_f27_a_killed_server_loses_nothing_that_it_had_answered(tmp_path):
    for run in range(3):
        directory = tmp_path / str(run)
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(directory)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        answered = b"".join(process.stdout.readline() for _ in range(2_000 + 500 * run))
        os.kill(process.pid, signal.SIGKILL)
        answered += process.stdout.read()
        process.wait()
        process.stdout.close()
        ids = set(answered.decode().split("\n")[:-1])
        kept: set[str] = set()
        for segment in spool.segments(directory):
            assert spool.is_finished(segment)
            parts = Parts(segment)
            assert parts.lost == 0
            kept |= {i for day in parts.days for i in parts.table(day).column("request_id").to_pylist()}
        assert not ids - kept
        assert len(kept - ids) <= 1


def test_a_segment_that_is_written_to_is_not_taken_for_finished(tmp_path):
    written = Written(tmp_path)
    written.request("q")
    (segment,) = spool.segments(tmp_path)
    assert not spool.is_finished(segment)
    written.log.close()
    assert spool.is_finished(segment)


def changed(data: bytes, at: int) -> bytes:
    """Change one byte of the frame of request q5."""
    place = data.index(b"q5") - spool.FRAME_BYTES - PREFIX.size + at
    return data[:place] + bytes([data[place] ^ 0x41]) + data[place + 1 :]


@pytest.mark.parametrize(
    ("damage", "kept", "lost", "torn"),
    [
        pytest.param(lambda d: d[:-40], 9, 0, True, id="L01 cut within the last request"),
        pytest.param(lambda d: b"", 0, 0, True, id="L01 of no length"),
        pytest.param(lambda d: changed(d, 0), 9, 1, False, id="L01 a byte of a length changed"),
        pytest.param(lambda d: changed(d, 5), 9, 1, False, id="L01 a byte of a checksum changed"),
        pytest.param(lambda d: changed(d, 30), 9, 1, False, id="L01 a byte of a request changed"),
        pytest.param(lambda d: b"PK" + d[2:], 0, 1, True, id="L01 something else"),
        pytest.param(lambda d: d + b"\0" * 512, 10, 0, False, id="L01 zeros behind the end"),
    ],
)
def test_a_damaged_segment_gives_what_is_whole_and_counts_the_rest(tmp_path, damage, kept, lost, torn):
    written = Written(tmp_path)
    for n in range(10):
        written.request(f"q{n}", [[n, "basic", "x"]])
    written.log.close()
    (segment,) = spool.segments(tmp_path)
    segment.write_bytes(damage(segment.read_bytes()))
    parts = Parts(segment)
    assert (parts.rows, parts.lost, parts.torn) == (kept, lost, torn)


def test_the_same_segment_makes_the_same_table(tmp_path):
    written = Written(tmp_path)
    written.request("q1")
    written.log.close()
    (segment,) = spool.segments(tmp_path)
    one, two = (Parts(segment).table("2026-03-02") for _ in range(2))
    assert one.equals(two, check_metadata=True)
    assert json.loads(one.schema.metadata[b"mainspring"])["revision"] == "churn-0123456789"
