"""The shipper of the prediction log: the same names again, stores that are away, what is deleted when."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from controller.serving import predlog_spool as spool
from controller.serving.predlog_store import Store
from controller.serving.ship_log import Shipper, run
from tests.support.log_stores import KEYS, NOON, S3, WHO, Spool, s3, secret, status
from tests.support.processes import is_alive

PARTITION = "day=2026-03-02/revision=churn-0123456789"


@pytest.fixture(scope="module")
def service():
    with s3() as running:
        running.bucket("logs")
        yield running


def filled(directory: Path, count: int = 30, **config) -> Spool:
    written = Spool(directory, config)
    for n in range(count):
        written.request(f"q{n}", n)
    written.log.close()
    return written


def files(root: Path) -> dict[str, bytes]:
    return {str(f.relative_to(root)): f.read_bytes() for f in sorted(root.rglob("*")) if f.is_file()}


def ids(uri: str, at: Path | None = None) -> list[str]:
    store = Store(uri, at)
    found: list[str] = []
    for day in store.days():
        for revision in store.revisions(day):
            for stored in store.files(day, revision):
                found += pq.read_table(stored.path, filesystem=store.filesystem)["request_id"].to_pylist()
    return found


def test_every_prediction_lies_in_the_partition_of_its_day_and_revision_and_the_spool_is_empty(tmp_path):
    filled(tmp_path / "spool", segment_bytes=1_000)
    shipper = Shipper(tmp_path / "spool", f"file://{tmp_path}/log")
    assert shipper.once()
    found = files(tmp_path / "log")
    assert {str(Path(f).parent) for f in found} == {PARTITION}
    assert len(found) > 1
    assert all(Path(f).name.startswith("churn-0-") for f in found)
    assert sorted(ids(f"file://{tmp_path}/log")) == sorted(f"q{n}" for n in range(30))
    assert spool.segments(tmp_path / "spool") == []
    assert status(tmp_path / "spool") | {"since": 0} == {
        "reason": "Shipping", "message": "", "since": 0, "rows": 30, "files": len(found), "lost": 0,
    }  # fmt: skip


def test_a_shipper_that_was_killed_before_it_deleted_the_spool_overwrites_its_own_files(tmp_path):
    filled(tmp_path / "spool", segment_bytes=1_000)
    kept = files(tmp_path / "spool")
    uri = f"file://{tmp_path}/log"
    assert Shipper(tmp_path / "spool", uri).once()
    before = files(tmp_path / "log")
    for name, data in kept.items():
        (tmp_path / "spool" / name).write_bytes(data)
    assert Shipper(tmp_path / "spool", uri).once()
    assert files(tmp_path / "log") == before


def test_a_segment_that_is_written_to_is_left_alone(tmp_path):
    written = Spool(tmp_path / "spool")
    written.request("q")
    assert Shipper(tmp_path / "spool", f"file://{tmp_path}/log").once()
    assert len(spool.segments(tmp_path / "spool")) == 1
    assert not (tmp_path / "log").exists()
    written.log.close()


def test_l01_a_damaged_segment_ships_what_is_whole_and_says_what_is_lost(tmp_path):
    filled(tmp_path / "spool", 10)
    (segment,) = spool.segments(tmp_path / "spool")
    data = bytearray(segment.read_bytes())
    data[data.index(b"q5")] ^= 1
    segment.write_bytes(data)
    assert Shipper(tmp_path / "spool", f"file://{tmp_path}/log").once()
    assert ids(f"file://{tmp_path}/log") == [f"q{n}" for n in range(10) if n != 5]
    assert status(tmp_path / "spool")["lost"] == 1


def test_a_file_is_seen_whole_or_not_at_all(tmp_path):
    store = Store(f"file://{tmp_path}")
    store.write(f"{PARTITION}/a.parquet", b"whole")
    (tmp_path / PARTITION / ".b.parquet.7.new").write_bytes(b"half")
    assert [f.path for f in store.files("2026-03-02", "churn-0123456789")] == [f"{tmp_path}/{PARTITION}/a.parquet"]


def test_predictions_reach_an_s3_service(tmp_path, service: S3):
    at = secret(tmp_path, **KEYS, endpoint=service.endpoint) / "log"
    filled(tmp_path / "spool", 500, segment_bytes=5_000)
    assert Shipper(tmp_path / "spool", "s3://logs/churn/", secret=at).once()
    assert sorted(ids("s3://logs/churn", at)) == sorted(f"q{n}" for n in range(500))
    assert spool.segments(tmp_path / "spool") == []


def test_a_large_file_reaches_an_s3_service_in_parts(tmp_path, service: S3):
    at = secret(tmp_path, **KEYS, endpoint=service.endpoint) / "log"
    data = os.urandom(12 * 2**20)
    store = Store("s3://logs/large", at)
    store.write("day=2026-03-02/revision=a-0123456789/x.parquet", data)
    (stored,) = store.files("2026-03-02", "a-0123456789")
    assert stored.size == len(data)
    with store.filesystem.open_input_file(stored.path) as file:
        assert file.read() == data


@pytest.mark.parametrize(
    ("uri", "keys", "reason", "said"),
    [
        pytest.param("s3://absent/x", KEYS, "StoreNotFound", "there is no such bucket", id="no such bucket"),
        pytest.param("s3://logs/x", {}, "SecretNotFound", "no Secret is mounted", id="the Secret is not there"),
        pytest.param(
            "s3://logs/x",
            {"username": "a", "password": "b"},
            "SecretKeyMissing",
            "accesskey and secretkey",
            id="other keys",
        ),
        pytest.param(
            "gs://logs/x", {"token": "a"}, "SecretKeyMissing", "credentials.json", id="no service account"
        ),
        pytest.param("az://logs/x", {"account": "a"}, "SecretKeyMissing", "accountkey", id="no key of an account"),
    ],
)
def test_q24_what_is_wrong_with_a_store_is_one_sentence_and_the_spool_is_kept(
    tmp_path, service: S3, uri, keys, reason, said
):
    more = {"endpoint": service.endpoint} if "accesskey" in keys else {}
    at = secret(tmp_path, **keys, **more) / "log"
    filled(tmp_path / "spool", 5)
    before = files(tmp_path / "spool")
    shipper = Shipper(tmp_path / "spool", uri, secret=at)
    assert not shipper.once()
    found = status(tmp_path / "spool")
    assert (found["reason"], said in found["message"]) == (reason, True), found["message"]
    assert "\n" not in found["message"]
    assert KEYS["secretkey"] not in found["message"]
    assert {k: v for k, v in files(tmp_path / "spool").items() if k.endswith(".seg")} == before


def test_q24_a_directory_that_cannot_be_written_is_told_and_tried_again(tmp_path):
    (tmp_path / "log").write_text("a file where the directory should be")
    filled(tmp_path / "spool", 5)
    shipper = Shipper(tmp_path / "spool", f"file://{tmp_path}/log")
    assert not shipper.once()
    assert status(tmp_path / "spool")["reason"] == "StoreUnavailable"
    (tmp_path / "log").unlink()
    assert shipper.once()
    assert status(tmp_path / "spool")["reason"] == "Shipping"
    assert len(ids(f"file://{tmp_path}/log")) == 5


def test_q24_while_an_s3_service_is_away_the_spool_is_kept_and_then_all_of_it_arrives(tmp_path, service: S3):
    at = secret(tmp_path, **KEYS, endpoint=service.endpoint) / "log"
    written = Spool(tmp_path / "spool", {"segment_bytes": 2_000})
    shipper = Shipper(tmp_path / "spool", "s3://logs/outage", secret=at)
    ending = threading.Event()
    thread = threading.Thread(target=run, args=(shipper, ending, 60.0))
    thread.start()
    try:
        for n in range(300):
            if n == 100:
                service.away()
            if n == 250:
                wait_for(lambda: status(tmp_path / "spool")["reason"] == "StoreUnavailable")
                assert spool.used_bytes(tmp_path / "spool") > 2_000
                service.back()
            written.request(f"q{n}")
    finally:
        written.log.close()
        ending.set()
        thread.join(90)
    assert sorted(ids("s3://logs/outage", at)) == sorted(f"q{n}" for n in range(300))
    assert (written.recorded, written.lost) == (300, {})
    assert spool.segments(tmp_path / "spool") == []


def test_days_that_are_older_than_is_kept_are_deleted_and_nothing_else(tmp_path):
    now = datetime.now(UTC)

    def day(ago: int) -> str:
        return (now - timedelta(days=ago)).strftime("%Y-%m-%d")

    store = Store(f"file://{tmp_path}/log")
    for name in (
        f"day={day(0)}/revision=churn-0123456789/a.parquet",
        f"day={day(6)}/revision=churn-0123456789/a.parquet",
        f"day={day(9)}/revision=churn-0123456789/a.parquet",
        f"day={day(9)}/revision=churn-eu-0123456789/a.parquet",
        f"day={day(30)}/revision=churn-aaaaaaaaaa/a.parquet",
        f"day={day(30)}/revision=churn-notes/a.parquet",
        f"day={day(90)}/revision=churn-0123456789/a.parquet",
        "kept/by a person.txt",
    ):
        store.write(name, b"x")
    shipper = Shipper(tmp_path / "spool", f"file://{tmp_path}/log", model="churn", retention_s=7 * 86_400)
    assert shipper.once()
    assert sorted(files(tmp_path / "log")) == sorted(
        [
            f"day={day(0)}/revision=churn-0123456789/a.parquet",
            f"day={day(6)}/revision=churn-0123456789/a.parquet",
            f"day={day(9)}/revision=churn-eu-0123456789/a.parquet",
            f"day={day(30)}/revision=churn-notes/a.parquet",
            "kept/by a person.txt",
        ]
    )
    assert not (tmp_path / "log" / f"day={day(90)}").exists()


def test_old_days_are_deleted_from_an_s3_service(tmp_path, service: S3):
    at = secret(tmp_path, **KEYS, endpoint=service.endpoint) / "log"
    store = Store("s3://logs/old", at)
    for day in ("2020-01-01", datetime.now(UTC).strftime("%Y-%m-%d")):
        store.write(f"day={day}/revision=churn-0123456789/a.parquet", b"x")
    spooled = tmp_path / "spool"
    assert Shipper(spooled, "s3://logs/old", secret=at, model="churn", retention_s=86_400).once()
    assert store.days() == [datetime.now(UTC).strftime("%Y-%m-%d")]


def started(directory: Path, uri: str, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "controller.serving.ship_log", "--spool", str(directory), "--uri", uri, *more]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for(condition, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except (OSError, ValueError):
            assert time.monotonic() < deadline
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def more(root: Path, before: int) -> bool:
    return len(files(root)) > before


def test_a_shipper_that_is_killed_again_and_again_ships_everything_once(tmp_path):
    """F27: SIGKILL of the shipper at any moment costs nothing and doubles nothing."""
    written = Spool(tmp_path / "spool", {"segment_bytes": 2_000})
    uri = f"file://{tmp_path}/log"
    sent = 0
    for _ in range(4):
        process = started(tmp_path / "spool", uri)
        before = len(files(tmp_path / "log"))
        for _ in range(500):
            written.request(f"q{sent}")
            sent += 1
        wait_for(partial(more, tmp_path / "log", before))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    written.log.close()
    last = started(tmp_path / "spool", uri, "--child")
    assert last.communicate(timeout=60)[1] is not None
    assert last.returncode == 0
    assert sorted(ids(uri)) == sorted(f"q{n}" for n in range(sent))


def test_a_child_ships_what_a_killed_server_left_and_ends_with_it(tmp_path):
    code = (
        "import os, subprocess, sys; from pathlib import Path; from tests.support.log_stores import Spool\n"
        "spool = Spool(Path(sys.argv[1]))\n"
        "command = [sys.executable, '-m', 'controller.serving.ship_log', '--child', '--spool', sys.argv[1]]\n"
        "child = subprocess.Popen([*command, '--uri', sys.argv[2]], stdin=subprocess.PIPE)\n"
        "print(child.pid, flush=True)\n"
        "for n in range(100): spool.request(f'q{n}')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    uri = f"file://{tmp_path}/log"
    server = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "spool"), uri], capture_output=True, timeout=60, check=False
    )
    assert server.returncode == -signal.SIGKILL, server.stderr.decode()
    wait_for(lambda: len(ids(uri)) == 100)
    wait_for(lambda: not is_alive(int(server.stdout)))


def test_two_shippers_of_one_spool_take_turns(tmp_path):
    uri = f"file://{tmp_path}/log"
    first, second = started(tmp_path / "spool", uri), started(tmp_path / "spool", uri)
    written = filled(tmp_path / "spool", 20)
    wait_for(lambda: len(ids(uri)) == written.recorded)
    for process in (first, second):
        process.terminate()
        process.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (0, 0)
    assert len(ids(uri)) == 20


def test_what_could_not_be_shipped_before_the_end_is_told_by_the_exit_code(tmp_path):
    filled(tmp_path / "spool", 20)
    process = started(tmp_path / "spool", "s3://logs/x", "--end-s", "0.1", "--child")
    said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 1
    assert "1 segments of the prediction log were left behind" in said


def test_who_wrote_a_file_is_in_the_file(tmp_path):
    filled(tmp_path / "spool", 1)
    assert Shipper(tmp_path / "spool", f"file://{tmp_path}/log").once()
    (name,) = files(tmp_path / "log")
    schema = pq.read_schema(tmp_path / "log" / name)
    assert WHO["revision"].encode() in schema.metadata[b"mainspring"]
    assert str(schema.field("time").type) == "timestamp[us, tz=UTC]"
    assert pq.read_table(tmp_path / "log" / name)["time"].cast("int64").to_pylist()[0] == NOON
