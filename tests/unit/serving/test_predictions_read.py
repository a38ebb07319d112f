"""Reading the prediction log back: every prediction once, typed, by day and revision, nothing lost in silence."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from controller.clients.errors import Denied, NotFound
from controller.serving.predictions import read
from controller.serving.ship_log import Shipper
from tests.support.log_stores import KEYS, NOON, WHO, Spool, s3, secret

HOUR = 3_600_000_000
OTHER = {**WHO, "revision": "churn-aaaaaaaaaa", "version": "4"}


def shipped(tmp_path: Path, name: str, who=WHO, requests=(), uri: str = "", at: Path | None = None) -> str:
    """Write requests, `(id, values, time, prediction)`, and ship them; returns where to."""
    uri = uri or f"file://{tmp_path}/log"
    spool = Spool(tmp_path / f"spool-{name}", who=who)
    for request, values, time, prediction in requests:
        spool.request(request, *values, at=time, prediction=prediction)
    spool.log.close()
    assert Shipper(tmp_path / f"spool-{name}", uri, secret=at).once()
    return uri


def test_predictions_of_several_days_and_revisions_are_one_table_by_time(tmp_path):
    uri = shipped(tmp_path, "a", requests=[("q2", (1,), NOON + HOUR, 0.5), ("q1", (2,), NOON, 0.25)])
    shipped(tmp_path, "b", OTHER, [("q3", (3, 4), NOON + 24 * HOUR, 0.75)])
    found = read(uri)
    assert found.table["request_id"].to_pylist() == ["q1", "q2", "q3", "q3"]
    assert found.table["row"].to_pylist() == [0, 0, 0, 1]
    assert found.table["inputs.age"].to_pylist() == [2.0, 1.0, 3.0, 4.0]
    assert found.table["revision"].to_pylist() == [WHO["revision"]] * 2 + [OTHER["revision"]] * 2
    assert found.table["version"].to_pylist() == ["3", "3", "4", "4"]
    assert (found.files, found.duplicates, found.skipped) == (2, 0, ())


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        pytest.param({"since": datetime(2026, 3, 2, 13, tzinfo=UTC)}, ["q2", "q3"], id="not before"),
        pytest.param({"until": datetime(2026, 3, 2, 13, tzinfo=UTC)}, ["q1"], id="before"),
        pytest.param({"until": datetime(2026, 3, 3)}, ["q1", "q2"], id="before midnight, zone left out"),
        pytest.param({"since": datetime(2026, 3, 3), "until": datetime(2026, 3, 4)}, ["q3"], id="one day"),
        pytest.param({"revision": OTHER["revision"]}, ["q3"], id="one revision"),
        pytest.param({"model": "churn"}, ["q1", "q2", "q3"], id="one model"),
        pytest.param({"model": "chur"}, [], id="another model whose name begins so"),
        pytest.param({"since": datetime(2030, 1, 1)}, [], id="nothing yet"),
    ],
)
def test_only_what_is_asked_for_is_read(tmp_path, asked, wanted):
    uri = shipped(tmp_path, "a", requests=[("q1", (1,), NOON, 0.5), ("q2", (1,), NOON + HOUR, 0.5)])
    shipped(tmp_path, "b", OTHER, [("q3", (1,), NOON + 24 * HOUR, 0.5)])
    assert read(uri, **asked).table["request_id"].to_pylist() == wanted


def test_a_prediction_that_was_shipped_twice_is_there_once_and_counted(tmp_path):
    uri = shipped(tmp_path, "a", requests=[("q1", (1, 2), NOON, 0.5), ("q2", (3,), NOON, 0.5)])
    shipped(tmp_path, "b", requests=[("q1", (1, 2), NOON, 0.5)])
    found = read(uri)
    keys = zip(found.table["request_id"].to_pylist(), found.table["row"].to_pylist(), strict=True)
    assert list(keys) == [("q1", 0), ("q1", 1), ("q2", 0)]
    assert found.duplicates == 2


def test_l01_a_file_that_cannot_be_read_is_named_and_the_others_are_read(tmp_path):
    uri = shipped(tmp_path, "a", requests=[("q1", (1,), NOON, 0.5)])
    shipped(tmp_path, "b", requests=[("q2", (1,), NOON, 0.5)])
    partition = tmp_path / "log" / "day=2026-03-02" / f"revision={WHO['revision']}"
    whole = next(partition.glob("*.parquet")).read_bytes()
    (partition / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    (partition / "empty.parquet").write_bytes(b"")
    (partition / ".half.parquet.9.new").write_bytes(whole[:10])
    (partition / "notes.txt").write_bytes(b"of a person")
    spoilt = bytearray(whole)
    spoilt[8:60] = b"\xff" * 52
    (partition / "spoilt.parquet").write_bytes(spoilt)
    found = read(uri)
    assert found.table["request_id"].to_pylist() == ["q1", "q2"]
    assert sorted(Path(s.path).name for s in found.skipped) == ["cut.parquet", "empty.parquet", "spoilt.parquet"]
    assert all(s.why for s in found.skipped)


@pytest.mark.parametrize(
    ("one", "two", "kind", "wanted"),
    [
        pytest.param(0.5, 2, pa.float64(), [0.5, 2.0], id="numbers of two types"),
        pytest.param("no", "yes", pa.string(), ["no", "yes"], id="classes"),
        pytest.param("no", 1, pa.string(), ["no", "1"], id="a class and a number"),
        pytest.param(True, False, pa.bool_(), [True, False], id="booleans"),
    ],
)
def test_revisions_with_other_types_meet_in_one_column(tmp_path, one, two, kind, wanted):
    uri = shipped(tmp_path, "a", requests=[("q1", (1,), NOON, one)])
    shipped(tmp_path, "b", OTHER, [("q2", (1,), NOON + 1, two)])
    column = read(uri).table["prediction"]
    assert (column.type, column.to_pylist()) == (kind, wanted)


def test_columns_that_are_not_asked_for_are_not_read_and_unknown_ones_are_refused(tmp_path):
    uri = shipped(tmp_path, "a", requests=[("q1", (1,), NOON, 0.5)])
    assert read(uri, columns=["prediction"]).table.column_names == [
        "request_id", "row", "time", "revision", "prediction",
    ]  # fmt: skip
    with pytest.raises(Denied, match=r"no column inputs\.email; there are commit, inputs\.age"):
        read(uri, columns=["inputs.email"])


def test_an_empty_log_is_an_empty_table(tmp_path):
    found = read(f"file://{tmp_path}/nothing")
    assert (found.table.num_rows, found.table.column_names) == (0, ["request_id", "row", "time", "revision"])


def test_predictions_are_read_from_an_s3_service(tmp_path):
    with s3() as service:
        service.bucket("logs")
        at = secret(tmp_path, **KEYS, endpoint=service.endpoint) / "log"
        requests = [(f"q{n}", (n,), NOON + n, 0.5) for n in range(50)]
        uri = shipped(tmp_path, "a", requests=requests, uri="s3://logs/churn", at=at)
        assert read(uri, secret=at).table["request_id"].to_pylist() == [f"q{n}" for n in range(50)]
        with pytest.raises(NotFound, match="there is no such bucket"):
            read("s3://absent/churn", secret=at)
