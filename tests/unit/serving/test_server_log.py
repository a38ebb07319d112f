"""The prediction log of a running server: what was answered is logged and what is logged was answered, by id.

Under load, through SIGTERM, through SIGKILL of server and shipper, with a store that goes away and comes back.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest

from controller.serving import predlog_spool as spool
from controller.serving.predict import request_body
from controller.serving.predlog_store import Store
from tests.support.log_stores import KEYS, s3, secret
from tests.support.serving_models import as_artifact, digest_of

DEADLINE_S = 90.0
JSON = {"content-type": "application/json"}
REVISION = "churn-0123456789"


class Server:
    """A server with its log, and in local mode's way with the shipper as its child."""

    def __init__(
        self, model: Path, directory: Path, uri: str, ship: bool = True, workers: int = 1, **config
    ) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        names = {"MODEL": "churn", "REVISION": REVISION, "VERSION": "7", "COMMIT": "a" * 40, "POD": "churn-0"}
        logged = {"spool": str(directory / "spool"), "segment_age_s": 0.5, **config}
        env = {f"MAINSPRING_{k}": v for k, v in names.items()}
        env |= {"PORT": str(port), "MAINSPRING_PREDICTION_LOG": json.dumps(logged), "MAINSPRING_DRAIN_S": "0.2"}
        env["MAINSPRING_WORKERS"] = str(workers)
        if ship:
            env["MAINSPRING_LOG_SHIP"] = json.dumps(["--uri", uri])
        if (directory / "credentials").exists():
            env["MAINSPRING_CREDENTIALS"] = str(directory / "credentials")
        command = [sys.executable, "-m", "controller.serving.server", "--model", str(model)]
        self.popen = subprocess.Popen(
            [*command, "--digest", digest_of(model)], env={**os.environ, **env}, stderr=subprocess.DEVNULL
        )
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        until = time.monotonic() + DEADLINE_S
        while time.monotonic() < until and self.popen.poll() is None:
            try:
                if httpx.get(f"{self.url}/health/ready", timeout=5, trust_env=False).is_success:
                    return
            except httpx.TransportError:
                continue
        raise AssertionError("the server did not become ready")

    def figures(self) -> dict[str, float]:
        text = httpx.get(f"{self.url}/metrics", timeout=5, trust_env=False).text
        return {
            m[1]: float(m[2]) for m in re.finditer(r"^(mainspring_\w+(?:\{[^}]*\})?) ([-0-9.e+]+)$", text, re.M)
        }


@contextmanager
def serving(*given, **config) -> Iterator[Server]:
    server = Server(*given, **config)
    try:
        yield server
    finally:
        server.popen.kill()
        server.popen.wait()


class Load:
    """Clients that ask until they are told to stop; they know the ids of every answer they got."""

    def __init__(self, url: str, body: bytes, clients: int = 4) -> None:
        self._url, self._body = url, body
        self.answered: set[str] = set()
        self.others: list[object] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self, client: int) -> None:
        with httpx.Client(trust_env=False, timeout=10) as session:
            number = 0
            while not self._stop.is_set():
                name = f"c{client}-{number}"
                number += 1
                try:
                    answer = session.post(
                        f"{self._url}/invocations", content=self._body, headers={**JSON, "x-request-id": name}
                    )
                except httpx.TransportError as error:
                    self.others.append(error)
                    continue
                if answer.status_code == 200:
                    self.answered.add(answer.headers["x-request-id"])
                else:
                    self.others.append(answer.status_code)

    def reach(self, count: int) -> None:
        until = time.monotonic() + DEADLINE_S
        while len(self.answered) < count:
            assert time.monotonic() < until
            time.sleep(0.01)

    def stop(self) -> set[str]:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.answered


def logged(uri: str, at: Path | None = None) -> list[tuple[str, int]]:
    store = Store(uri, at)
    found: list[tuple[str, int]] = []
    for day in store.days():
        for stored in store.files(day, REVISION):
            table = pq.read_table(stored.path, filesystem=store.filesystem, partitioning=None)
            found += zip(table["request_id"].to_pylist(), table["row"].to_pylist(), strict=True)
    return found


@pytest.fixture
def where(tmp_path, pipeline, table) -> Path:
    artifact = as_artifact(pipeline, tmp_path / "artifact")
    (artifact / "sample.json").write_bytes(request_body(table.head(1)))
    return artifact


def test_q16_every_answer_is_in_the_log_with_its_id_inputs_prediction_and_probabilities(
    where, tmp_path, pipeline, table
):
    uri = f"file://{tmp_path}/log"
    with serving(where, tmp_path, uri) as server:
        answer = httpx.post(
            f"{server.url}/invocations", content=request_body(table), headers={**JSON, "x-request-id": "a:1"}
        )
        figures = server.figures()
        server.popen.send_signal(signal.SIGTERM)
        assert server.popen.wait(DEADLINE_S) == 0
    assert answer.json()["predictions"] == pipeline.predict(table).tolist()
    assert figures["mainspring_log_records_total"] == len(table) == figures["mainspring_predicted_rows_total"]
    (file,) = (tmp_path / "log").rglob("*.parquet")
    rows = pq.read_table(file, partitioning=None).to_pylist()
    assert [r["row"] for r in rows] == list(range(len(table)))
    assert {r["request_id"] for r in rows} == {"a:1"}
    assert [r["prediction"] for r in rows] == answer.json()["predictions"]
    assert [(r["inputs.age"], r["inputs.city"]) for r in rows] == list(
        zip(table["age"], table["city"], strict=True)
    )
    if "probabilities.no" in rows[0]:
        assert all(abs(r["probabilities.no"] + r["probabilities.yes"] - 1) < 1e-9 for r in rows)
    assert {(r["version"], r["commit"], r["pod"]) for r in rows} == {("7", "a" * 40, "churn-0")}


def test_q23_answered_is_logged_both_ways_when_a_server_under_load_is_told_to_end(where, tmp_path, table):
    uri = f"file://{tmp_path}/log"
    with serving(where, tmp_path, uri, segment_bytes=20_000) as server:
        load = Load(server.url, request_body(table.head(2)))
        load.reach(400)
        server.popen.send_signal(signal.SIGTERM)
        assert server.popen.wait(DEADLINE_S) == 0
        answered = load.stop()
    assert sorted(logged(uri)) == sorted((name, row) for name in answered for row in (0, 1))
    assert spool.segments(tmp_path / "spool") == []


def test_answered_is_logged_both_ways_by_several_workers_of_which_one_is_killed(where, tmp_path, table):
    uri = f"file://{tmp_path}/log"
    with serving(where, tmp_path, uri, workers=2) as server:
        load = Load(server.url, request_body(table.head(1)), clients=6)
        load.reach(400)
        worker = next(child for child in children(server.popen.pid))
        os.kill(worker, signal.SIGKILL)
        load.reach(len(load.answered) + 400)
        answered = load.stop()
        server.popen.send_signal(signal.SIGTERM)
        assert server.popen.wait(DEADLINE_S) == 0
    names = [name for name, _ in logged(uri)]
    assert len(names) == len(set(names))
    assert not answered - set(names), "answered and not logged"
    assert len(set(names) - answered) <= 6, "more was logged than was on its way"
    assert spool.segments(tmp_path / "spool") == []


def test_s11_a_killed_server_loses_only_what_it_had_not_answered_and_the_next_one_ships_the_rest(
    where, tmp_path, table
):
    """F27: SIGKILL in the middle of the load; the spool is shipped by the successor."""
    uri = f"file://{tmp_path}/log"
    with serving(where, tmp_path, uri, ship=False, segment_age_s=60.0) as server:
        load = Load(server.url, request_body(table.head(1)), clients=8)
        load.reach(500)
        server.popen.kill()
        answered = load.stop()
    assert not (tmp_path / "log").exists()
    with serving(where, tmp_path, uri) as server:
        server.popen.send_signal(signal.SIGTERM)
        assert server.popen.wait(DEADLINE_S) == 0
    found = logged(uri)
    assert len(found) == len(set(found))
    names = {name for name, _ in found}
    assert not answered - names, "answered and not logged"
    assert len(names - answered) <= 8, "more was logged than was on its way"


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def test_a_killed_shipper_costs_nothing_and_the_figures_tell_of_a_store_that_is_away(where, tmp_path, table):
    with s3() as service:
        service.bucket("logs")
        at = secret(tmp_path, **KEYS, endpoint=service.endpoint) / "log"
        with serving(where, tmp_path, "s3://logs/churn", segment_bytes=30_000) as server:
            load = Load(server.url, request_body(table.head(1)))
            load.reach(100)
            service.away()
            load.reach(len(load.answered) + 300)
            away = 'mainspring_log_store_info{reason="StoreUnavailable"'
            until = time.monotonic() + DEADLINE_S
            while not any(name.startswith(away) for name in server.figures()):
                assert time.monotonic() < until
            assert server.figures()["mainspring_log_queue_bytes"] > 0
            (shipper,) = children(server.popen.pid)
            os.kill(shipper, signal.SIGKILL)
            service.back()
            load.reach(len(load.answered) + 100)
            answered = load.stop()
            figures = server.figures()
            server.popen.send_signal(signal.SIGTERM)
            assert server.popen.wait(DEADLINE_S) == 0
        assert load.others == []
        assert figures["mainspring_log_records_total"] == len(answered)
        assert not [name for name in figures if name.startswith("mainspring_log_lost_total")]
        assert sorted(logged("s3://logs/churn", at)) == sorted((name, 0) for name in answered)


def test_what_the_log_lost_is_what_the_metric_says(where, tmp_path, table):
    uri = f"file://{tmp_path}/log"
    with serving(where, tmp_path, uri, ship=False, spool_bytes=40_000) as server:
        load = Load(server.url, request_body(table.head(3)))
        load.reach(600)
        answered = load.stop()
        figures = server.figures()
        server.popen.send_signal(signal.SIGTERM)
        assert server.popen.wait(DEADLINE_S) == 0
    lost = figures['mainspring_log_lost_total{why="spool_full"}']
    assert lost > 0
    assert figures["mainspring_log_records_total"] + lost == 3 * len(answered)
    assert load.others == []
    assert spool.used_bytes(tmp_path / "spool") <= 41_000
    with serving(where, tmp_path, uri) as server:
        server.popen.send_signal(signal.SIGTERM)
        assert server.popen.wait(DEADLINE_S) == 0
    assert len(logged(uri)) == figures["mainspring_log_records_total"]
