"""Datasets by address: bounded, only from hosts that are allowed, and every refusal says what to do."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from controller.clients.errors import ClientError, Denied, NotFound, Unavailable
from controller.clients.git import Mirrors
from controller.clients.git_types import GitPolicy
from controller.jobs import fetch_world
from controller.jobs.fetch_world import RealWorld

BODY = b"a,b\n1,2\n"


class Handler(BaseHTTPRequestHandler):
    """Answers by the path: a status, a redirect, a body that never says its length."""

    def do_GET(self):
        name = self.path.partition("?")[0].strip("/")
        if name.isdigit():
            self.send_response(int(name))
        elif name == "moved":
            self.send_response(302)
            self.send_header("Location", "/data.csv")
        elif name == "away":
            self.send_response(302)
            self.send_header("Location", "http://169.254.169.254/latest")
        elif name == "round":
            self.send_response(302)
            self.send_header("Location", "/round")
        elif name == "huge":
            self.send_response(200)
            self.send_header("Content-Length", str(3 * 2**30))
        elif name == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(BODY)
            return
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY)
            return
        self.end_headers()

    def log_message(self, *args):
        """Stay silent."""


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_address[1]}"
        made.shutdown()


def download(tmp_path, uri, allowed=("127.0.0.1",), resolver=None):
    policy = GitPolicy(allowed_hosts=tuple(allowed))

    def no_registry():
        raise AssertionError("the registry is not asked for a dataset")

    more = {"resolver": resolver} if resolver else {}
    world = RealWorld(Mirrors(tmp_path / "mirrors", policy), policy, no_registry, **more)
    return asyncio.run(world.download(uri, tmp_path / "out"))


@pytest.mark.parametrize("path", ["data.csv?sig=abc", "moved"])
def test_what_comes_is_on_disk_with_its_digest(tmp_path, server, path):
    assert download(tmp_path, f"{server}/{path}") == f"sha256:{hashlib.sha256(BODY).hexdigest()}"
    assert (tmp_path / "out").read_bytes() == BODY


@pytest.mark.parametrize(
    ("path", "kind", "reason", "words"),
    [
        pytest.param("404", NotFound, "DataNotFound", "(HTTP 404)", id="nothing there"),
        pytest.param("403", Denied, "DataNotReadable", "must be readable without login", id="a login is wanted"),
        pytest.param("503", Unavailable, "DataUnavailable", "answers HTTP 503", id="the server is down"),
        pytest.param("cut", Unavailable, "DataUnavailable", "does not answer", id="the answer breaks off"),
        pytest.param("huge", Denied, "FileTooLarge", "at most 2,147,483,648 are fetched", id="too large"),
        pytest.param("away", Denied, "HostNotAllowed", "169.254.169.254", id="a redirect to a private address"),
        pytest.param(
            "round", Denied, "DataNotReadable", "redirects more than 5 times", id="redirects without end"
        ),
    ],
)
def test_what_does_not_come_says_why(tmp_path, server, path, kind, reason, words):
    with pytest.raises(ClientError) as caught:
        download(tmp_path, f"{server}/{path}?token=hunter2")
    assert isinstance(caught.value, kind)
    assert caught.value.reason == reason
    assert words in caught.value.message
    assert "hunter2" not in caught.value.message


def test_an_answer_is_bounded_while_it_comes(tmp_path, server, monkeypatch):
    monkeypatch.setattr(fetch_world, "DATASET_MAX", 4)
    with pytest.raises(Denied, match="at most 4 are fetched"):
        download(tmp_path, f"{server}/data.csv")


def test_hosts_of_this_machine_and_private_ones_are_refused_unless_listed(tmp_path, server):
    with pytest.raises(Denied, match="loopback, link-local, private or reserved"):
        download(tmp_path, f"{server}/data.csv", allowed=())
    with pytest.raises(Denied, match="resolves to a refused address"):
        download(tmp_path, "http://data.example.com/x.csv", allowed=(), resolver=lambda host, port: ["10.0.0.7"])


def test_a_password_in_the_address_is_refused_and_not_shown(tmp_path):
    with pytest.raises(Denied, match="password inside") as caught:
        download(tmp_path, "https://ada:hunter2@example.com/x.csv")
    assert "hunter2" not in caught.value.message
