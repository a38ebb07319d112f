"""What only a server can show: what MLflow's own client sees, doubles, and a server that misbehaves."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from controller.clients.credentials import WebLogin
from controller.clients.errors import Denied, NotFound, Unavailable
from controller.clients.registry import Registry


@pytest.fixture
def name():
    return f"bikes-{uuid.uuid4().hex[:10]}"


def play(uri, story, **settings):
    async def run():
        registry = Registry(uri, **settings)
        try:
            return await story(registry)
        finally:
            await registry.aclose()

    return asyncio.run(run())


def test_mlflows_own_client_sees_what_was_written(mlflow_uri, name):
    from mlflow import MlflowClient

    async def story(registry):
        run = await registry.ensure_run(
            name,
            environment="ml",
            revision=f"{name}-r1",
            attempt=2,
            tags={"mainspring.commit": "c0ffee"},
            params={"depth": 3},
        )
        await registry.log_metrics(run, {"roc_auc": 0.91})
        await registry.log_metrics(run, {"roc_auc": 0.91})
        await registry.upload(run, "model", {"MLmodel": b"flavors: {}\n"})
        await registry.finish_run(run, "FINISHED")
        version = await registry.ensure_version(
            name, run, environment="ml", revision=f"{name}-r1", tags={"commit": "c0ffee"}
        )
        await registry.set_alias(name, "production-champion", version)
        return run

    run_id = play(mlflow_uri, story)
    client = MlflowClient(mlflow_uri)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"depth": "3"}
    assert run.data.metrics == {"roc_auc": 0.91}
    assert len(client.get_metric_history(run_id, "roc_auc")) == 1
    assert run.data.tags["mainspring.commit"] == "c0ffee"
    version = client.get_model_version_by_alias(name, "production-champion")
    assert (version.run_id, version.status) == (run_id, "READY")
    assert version.source.endswith(f"{run_id}/artifacts/model")


def test_of_two_equal_runs_the_lowest_id_counts_and_the_other_is_marked(mlflow_uri, name):
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_uri)
    experiment = client.create_experiment(name)
    tags = {
        "mainspring.environment": "ml",
        "mainspring.revision": f"{name}-r1",
        "mainspring.attempt": "1",
    }
    made = sorted(client.create_run(experiment, tags=tags).info.run_id for _ in range(2))
    for _ in range(2):
        found = play(mlflow_uri, lambda r: r.ensure_run(name, environment="ml", revision=f"{name}-r1", attempt=1))
        assert found == made[0]
    assert client.get_run(made[1]).data.tags["mainspring.duplicate-of"] == made[0]


def test_of_two_ledgers_the_one_with_entries_counts(mlflow_uri, name):
    from mlflow import MlflowClient

    async def write(registry):
        await registry.append_ledger(name, "production", 1, b"one")

    play(mlflow_uri, write)
    client = MlflowClient(mlflow_uri)
    experiment = client.get_experiment_by_name("mainspring-ledger").experiment_id
    for _ in range(5):
        client.create_run(experiment, tags={"mainspring.ledger": f"{name}/production"})
    assert play(mlflow_uri, lambda r: r.read_ledger(name, "production")) == (b"one",)


def test_an_invented_number_does_not_make_the_ledger_endless(mlflow_uri, name):
    async def story(registry):
        run = await registry.ledger_run(name, "production")
        await registry.append_ledger(name, "production", 1, b"one")
        tag = {"run_id": run, "key": "mainspring.ledger.999999", "value": "0" * 64}
        await registry._rest.call("POST", "runs/set-tag", tag)
        return await registry.read_ledger(name, "production")

    assert play(mlflow_uri, story) == (b"one",)


def test_a_version_deleted_by_hand_is_registered_again(mlflow_uri, name):
    from mlflow import MlflowClient

    async def story(registry):
        run = await registry.ensure_run(name, environment="ml", revision=f"{name}-r1", attempt=1)
        return await registry.ensure_version(name, run, environment="ml", revision=f"{name}-r1")

    assert play(mlflow_uri, story) == "1"
    MlflowClient(mlflow_uri).delete_model_version(name, "1")
    again = play(mlflow_uri, story)
    assert MlflowClient(mlflow_uri).get_model_version(name, again).tags["mainspring.revision"] == f"{name}-r1"


def test_a_deleted_experiment_is_named_with_the_way_back(mlflow_uri, name):
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_uri)
    client.delete_experiment(client.create_experiment(name))
    with pytest.raises(
        Denied, match=rf"experiment {name} was deleted: restore it with `mlflow experiments restore"
    ):
        play(mlflow_uri, lambda r: r.ensure_run(name, environment="ml", revision="r", attempt=1))


def test_a_run_whose_files_are_not_behind_the_server_is_refused(mlflow_uri, name, tmp_path):
    from mlflow import MlflowClient

    MlflowClient(mlflow_uri).create_experiment(name, artifact_location=tmp_path.as_uri())

    async def story(registry):
        run = await registry.ensure_run(name, environment="ml", revision="r", attempt=1)
        await registry.read_artifact(run, "passwd")

    with pytest.raises(Denied, match=r"not behind the server: run the MLflow server with --serve-artifacts"):
        play(mlflow_uri, story)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("sqlite:///x.db", "write http://<host>:<port>"),
        ("file:///etc", "write http://<host>:<port>"),
        ("mlflow.example:5000", "write http://<host>:<port>"),
    ],
)
def test_an_address_that_is_no_server_is_refused(uri, message):
    with pytest.raises(Denied, match=message):
        Registry(uri)


def test_a_server_that_is_down_is_named_within_five_seconds_and_without_the_password():
    began = time.monotonic()
    with pytest.raises(Unavailable, match=r"MLflow at 127\.0\.0\.1:9 does not answer \(no connection\)") as caught:
        play("http://me:hunter2@127.0.0.1:9", lambda r: r.ping())
    assert time.monotonic() - began < 5
    assert caught.value.reason == "RegistryUnavailable"
    assert "hunter2" not in caught.value.message


class Odd(BaseHTTPRequestHandler):
    """A server that gives the same odd answer to everything."""

    code, body, kind = 200, b"", "text/html"
    seen: list[dict[str, str]] = []  # noqa: RUF012 - a handler is made per request, what it saw must outlive it

    def answer(self):
        type(self).seen.append({k.lower(): v for k, v in self.headers.items()})
        self.send_response(self.code)
        self.send_header("Content-Type", self.kind)
        self.send_header("Content-Length", str(len(self.body)))
        self.send_header("Location", "http://169.254.169.254/")
        self.end_headers()
        self.wfile.write(self.body)

    do_GET = do_POST = do_PUT = answer

    def log_message(self, *args):
        pass


@pytest.fixture
def odd():
    kind = type("OddNow", (Odd,), {"seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield kind, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("code", "body", "error", "message"),
    [
        (200, b"<html>login</html>", Unavailable, "here came text/html; is this the address of MLflow"),
        (200, b"[1]", Unavailable, "here came text/html"),
        (200, b"[" * 100_000, Unavailable, "here came text/html"),
        (204, b"", Unavailable, "answered 204"),
        (301, b"", Unavailable, "answered 301, .* redirects are not followed"),
        (404, b"<html>", Unavailable, "answered 404"),
        (429, b"{}", Unavailable, "the server answered 429; it is tried again"),
        (500, b"Traceback: token=abc", Unavailable, "the server answered 500; it is tried again"),
        (401, b"{}", Denied, "check the user name and password or the token"),
        (403, b"Invalid Host header - possible DNS rebinding", Denied, r"--allowed-hosts 127\.0\.0\.1"),
        (400, b'{"error_code": "X", "message": "bad password=hunter2"}', Denied, r"refused it \(400\): bad"),
        (400, b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no run"}', NotFound, "no run"),
    ],
)
def test_an_odd_answer_becomes_one_sentence(odd, code, body, error, message):
    kind, uri = odd
    kind.code, kind.body = code, body
    with pytest.raises(error, match=message) as caught:
        play(uri, lambda r: r.get_aliases("m") if error is not NotFound else r.read_artifact("1" * 32, "x"))
    assert "\n" not in caught.value.message
    assert "hunter2" not in caught.value.message
    assert "Traceback" not in caught.value.message


def test_credentials_go_to_the_server_and_nowhere_else(odd):
    kind, uri = odd
    kind.body = b"{}"
    play(uri.replace("//", "//me:hunter2@"), lambda r: r.ping())
    play(uri, lambda r: r.ping(), login=lambda: WebLogin(token="t0ken"))
    assert [seen.get("authorization") for seen in kind.seen] == ["Basic bWU6aHVudGVyMg==", "Bearer t0ken"]


def test_an_answer_that_never_comes_ends_with_the_timeout():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(Unavailable, match=r"nothing within 0\.5 s"):
            play(f"http://127.0.0.1:{silent.getsockname()[1]}", lambda r: r.ping(), timeout_s=0.5)
        assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    "listed",
    ["../../etc/passwd", "/etc/passwd", "model/../../x", "other/file", "model/a\nb"],
)
def test_a_server_that_lists_hostile_names_writes_nothing(odd, tmp_path, listed):
    kind, uri = odd
    kind.body = json.dumps(
        {
            "run": {"info": {"artifact_uri": "mlflow-artifacts:/1/r/artifacts"}},
            "files": [{"path": listed, "is_dir": False}],
        }
    ).encode()
    with pytest.raises(Denied, match="is refused: plain names only"):
        play(uri, lambda r: r.download_model("1" * 32, tmp_path / "dest"))
    assert list(tmp_path.rglob("*")) == []
