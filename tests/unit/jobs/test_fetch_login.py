"""The step `fetch` with mounted Secrets, on servers that want a login: each gets its own, and no other does."""

from __future__ import annotations

import base64
import hashlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from controller.api import git_rules
from controller.clients import credentials
from controller.clients.errors import ClientError
from controller.clients.git import Mirrors
from controller.clients.git_types import Credential, GitPolicy
from controller.jobs import fetch_login
from controller.jobs.fetch_login import Logins, origin_of
from controller.jobs.fetch_world import RealWorld
from tests.support.dvc_remotes import ObjectServer, config, pointer, push
from tests.support.fetch_runs import Runs, table
from tests.support.git_repos import GitServer

PASSWORD = "dataPassw0rd99"
BASIC = "Basic " + base64.b64encode(f"robot:{PASSWORD}".encode()).decode()


@dataclass
class Web:
    """A server for one file behind a login; `/away` and `/back` redirect."""

    body: bytes
    wanted: str = BASIC
    away: str = ""
    seen: list[tuple[str, str]] = field(default_factory=list)

    def __enter__(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                given = self.headers.get("Authorization", "")
                outer.seen.append((self.path, given))
                if self.path in ("/away", "/back"):
                    self.send_response(302)
                    self.send_header("Location", outer.away if self.path == "/away" else "/train.csv")
                    self.end_headers()
                    return
                right = not outer.wanted or given == outer.wanted
                self.send_response(200 if right else 401)
                self.send_header("Content-Length", str(len(outer.body) if right else 0))
                self.end_headers()
                self.wfile.write(outer.body if right else b"")

            def log_message(self, *args):
                """Stay silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *args):
        self._server.shutdown()
        self._server.server_close()


def login(origin="", **data):
    secret = credentials.Secret(
        "train", "data[train].secretRef", data or {"username": "robot", "password": PASSWORD}
    )
    return Logins(
        data={"train": credentials.data(secret)}, data_servers={"train": origin_of(origin)} if origin else {}
    )


async def download(tmp_path, uri, logins, *, allowed=("127.0.0.1",)):
    policy = GitPolicy(allowed_hosts=allowed)
    no_registry: Any = None
    world = RealWorld(
        Mirrors(tmp_path / "mirrors", policy), policy, no_registry, lambda host, port: [host], logins
    )
    return await world.download(uri, tmp_path / "out", dataset="train")


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["train.csv", "back"])
async def test_a_dataset_behind_a_login_is_brought(tmp_path, path):
    with Web(b"a,b\n") as server:
        assert await download(tmp_path, f"{server.url}/{path}", login(server.url))
    assert {given for _, given in server.seen} == {BASIC}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("logins", "kind", "words"),
    [
        pytest.param(
            login(username="robot", password="wr0ng"),
            "Unavailable",
            "refuses the login (HTTP 401): correct the Secret of the dataset's secretRef",
            id="a wrong password",
        ),
        pytest.param(Logins(), "Denied", "or with that of a secretRef", id="no login"),
        pytest.param(
            login(username="robot", password=PASSWORD, hosts="data.example.com"),
            "Denied",
            "is for data.example.com, not for '127.0.0.1': nothing was sent",
            id="a login for another host",
        ),
    ],
)
async def test_a_login_that_does_not_open_the_door_says_what_to_do(tmp_path, logins, kind, words):
    with Web(b"a,b\n") as server, pytest.raises(ClientError) as caught:
        await download(tmp_path, f"{server.url}/train.csv", logins)
    assert type(caught.value).__name__ == kind
    assert words in caught.value.message
    assert PASSWORD not in caught.value.message


@pytest.mark.anyio
async def test_a_redirect_to_another_server_carries_no_login(tmp_path):
    with Web(b"a,b\n", wanted="") as other, Web(b"", away=f"{other.url}/x.csv") as server:
        await download(tmp_path, f"{server.url}/away", login(server.url))
    assert server.seen == [("/away", BASIC)]
    assert other.seen == [("/x.csv", "")]


@pytest.mark.anyio
async def test_the_champions_data_on_another_server_get_no_login(tmp_path):
    with Web(b"a,b\n", wanted="") as server:
        await download(tmp_path, f"{server.url}/old.csv", login("https://data.example.com"))
    assert server.seen == [("/old.csv", "")]


@pytest.mark.anyio
async def test_a_login_crosses_no_open_network_in_clear(tmp_path):
    with pytest.raises(ClientError, match="would cross the network in clear: write https") as caught:
        await download(tmp_path, "http://93.184.216.34/x.csv", login(), allowed=())
    assert caught.value.reason == "ProtocolNotAllowed"


def test_git_on_another_server_gets_no_login():
    logins = Logins(git=Credential(token="t"), git_server=git_rules.server_of("https://git.example.com/churn.git"))
    assert logins.for_git("https://git.example.com:443/old-name.git") is logins.git
    for other in (
        "http://git.example.com/churn.git",
        "https://git.example.org/x.git",
        "ssh://git.example.com/x.git",
    ):
        assert logins.for_git(other) is None


# -- the whole step ----------------------------------------------------------------------------------------------


@pytest.fixture
def mounted(tmp_path, monkeypatch):
    """Mount Secrets as the pod does."""
    monkeypatch.setenv("MAINSPRING_CREDENTIALS", str(tmp_path / "credentials"))

    def mount(place, **data):
        directory = tmp_path / "credentials" / place
        directory.mkdir(parents=True, exist_ok=True)
        for key, value in data.items():
            (directory / key).write_text(value)

    return mount


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("MAINSPRING_GIT_PROTOCOLS", "https,http")
    return Runs(tmp_path / "runs", monkeypatch)


def source(runs, server):
    from controller.api.hashes import files_digest
    from controller.plan.selection import select
    from controller.reconcile import datasets

    code = select(runs.lines, (), exclude=datasets.files_of(runs.data))
    return {"url": server.url("repo.git"), "commit": runs.commit, "paths": [], "files": files_digest(code)}


def fetch(runs, server, *wanted):
    runs.data = runs.pin(*wanted)
    return runs.fetch(runs.data, source=source(runs, server))


def test_code_and_data_behind_logins_are_fetched_with_the_mounted_secrets(tmp_path, runs, mounted):
    body = table()
    wanted = {"name": "train", "digest": f"sha256:{hashlib.sha256(body).hexdigest()}"}
    mounted("git", username="robot", password=PASSWORD)
    mounted("data/train", username="robot", password=f"{PASSWORD}\n")
    with GitServer(runs.root, user="robot", password=PASSWORD) as git, Web(body) as web:
        assert fetch(runs, git, {**wanted, "uri": f"{web.url}/train.csv"}) == 0, runs.said
    assert runs.facts["rows"] == 200
    # Neither the mirror nor anything that a later step mounts has the password.
    kept = [p for p in runs.root.rglob("*") if p.is_file()]
    assert kept
    assert not any(PASSWORD.encode() in p.read_bytes() or BASIC[6:].encode() in p.read_bytes() for p in kept)


@pytest.mark.parametrize(
    ("secret", "code", "reason", "words"),
    [
        pytest.param({"username": "robot", "password": "no"}, 1, "AuthenticationFailed", "secretRef", id="wrong"),
        pytest.param({}, 1, "AuthenticationFailed", "secretRef", id="none"),
        pytest.param({"username": "robot"}, 3, "SecretKeyMissing", "needs username and password", id="half"),
    ],
)
def test_code_that_cannot_be_fetched_ends_the_step_with_the_reason(runs, mounted, secret, code, reason, words):
    if secret:
        mounted("git", **secret)
    runs.files["train.csv"] = table()
    with GitServer(runs.root, user="robot", password=PASSWORD) as git:
        assert fetch(runs, git, {"name": "train", "path": "train.csv"}) == code
    assert runs.said["reason"] == reason
    assert words in runs.said["message"]


def test_a_protocol_that_the_operator_does_not_allow_is_refused_in_the_pod_too(runs, monkeypatch):
    monkeypatch.setenv("MAINSPRING_GIT_PROTOCOLS", "https,ssh")
    runs.files["train.csv"] = table()
    with GitServer(runs.root) as git:
        assert fetch(runs, git, {"name": "train", "path": "train.csv"}) == 3
    assert runs.said["reason"] == "ProtocolNotAllowed"


def test_data_of_an_s3_service_is_asked_for_with_the_secrets_keys_and_its_endpoint(tmp_path, runs, mounted):
    body = table()
    push(tmp_path / "store", body)
    mounted("data/train", accesskey="AKFROMSECRET", secretkey=PASSWORD, endpoint="", region="eu-9")
    with GitServer(runs.root) as git, ObjectServer(tmp_path / "store", bucket="data") as s3:
        mounted("data/train", endpoint=s3.url)
        runs.files |= {
            "train.csv.dvc": pointer(body, "train.csv"),
            ".dvc/config": config("s3://data", endpointurl="https://elsewhere.example.com"),
        }
        assert fetch(runs, git, {"name": "train", "path": "train.csv.dvc"}) == 0, runs.said
    (asked,) = s3.asked
    assert asked.query["X-Amz-Credential"][0].startswith("AKFROMSECRET/")
    assert "/eu-9/" in asked.query["X-Amz-Credential"][0]


def test_every_dataset_has_its_own_secret(tmp_path):
    task: Any = type("Task", (), {})()
    task.source = type("S", (), {"url": "https://git.example.com/x.git"})()
    task.data = [type("D", (), {"name": n, "uri": f"https://{n}.example.com/x.csv"})() for n in ("a", "b")]
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "a" / "token").write_text(PASSWORD)
    logins = fetch_login.read(task, tmp_path)
    found: Any = logins.for_data("a", "https://a.example.com/x.csv")
    assert found.web.token == PASSWORD
    assert logins.for_data("b", "https://b.example.com/x.csv") is None
    assert logins.for_data("a", "https://b.example.com/x.csv") is None
