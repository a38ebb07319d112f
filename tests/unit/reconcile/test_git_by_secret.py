"""Git with the login of a Secret, on a real server: right, wrong, renewed, by token, and led astray."""

from __future__ import annotations

import base64
import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from controller.api.kinds import ModelRepository
from controller.api.meta import Key
from controller.clients.errors import ClientError, Denied, Unavailable
from controller.clients.git import GitPolicy, GitRef, Mirrors
from controller.clients.git_types import Credential
from controller.reconcile import access
from controller.reconcile.access import Access
from controller.reconcile.secrets import SecretBook, User
from tests.support.git_repos import GitServer, Scratch, raw_server

pytestmark = pytest.mark.anyio
MAIN = GitRef(branch="main")
OLD, NEW = "0ldPassw0rd", "n3wPassw0rd"
POLICY = GitPolicy(protocols=frozenset({"http"}), allowed_hosts=("127.0.0.1",), timeout_s=20)


class Objects:
    """An API server with one Secret."""

    def __init__(self, **data):
        self.write(**data)

    def write(self, **data):
        self.data = {k: base64.b64encode(v.encode()).decode() for k, v in data.items()}

    async def get(self, key):
        meta = {"name": key.name, "namespace": key.namespace, "labels": {"mainspring.dev/usable-by": "Any"}}
        return {"kind": "Secret", "metadata": meta, "data": self.data} if key.kind == "Secret" else None


@pytest.fixture
def served(tmp_path):
    repo = Scratch.create(tmp_path / "served" / "churn.git")
    repo.commit({"train.py": b"print()\n"}, message="First")
    return repo


def world_of(objects, mirrors) -> Any:
    no_registry: Any = None
    return SimpleNamespace(
        access=Access(SecretBook(objects, clock=lambda: 1.0), mirrors, no_registry), git=mirrors
    )


async def poll(mirrors, objects, url, *, age_s=0.0):
    """Resolve and read as a reconcile does."""
    spec = {"url": url, "ref": {"branch": "main"}, "secretRef": {"name": "git"}}
    owner = ModelRepository.model_validate({"metadata": {"name": "models", "namespace": "ml"}, "spec": spec})
    world = world_of(objects, mirrors)
    git = await access.git_for(world, owner)
    head = await git.resolve(url, MAIN, max_age_s=age_s)
    assert [e.path for e in await git.files(url, head.commit)] == ["train.py"]
    return dict(await git.read_many(url, head.commit, ["train.py"]))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param({"username": "robot", "password": OLD}, f"robot:{OLD}", id="a user with a password"),
        pytest.param({"bearerToken": 'to"k\\en'}, 'Bearer to"k\\en', id="a bearer token with quotes"),
    ],
)
async def test_a_private_repository_is_read_and_the_login_left_nowhere(tmp_path, served, data, expected):
    mirrors = Mirrors(tmp_path / "mirrors", POLICY)
    with GitServer(served.path.parent, user="robot", password=OLD) as server:
        if expected.startswith("Bearer"):
            server.expected = expected
        assert await poll(mirrors, Objects(**data), server.url("churn.git")) == {"train.py": b"print()\n"}
        wrong = {k: "wrong" if k != "username" else v for k, v in data.items()}
        with pytest.raises(Unavailable) as caught:
            await poll(mirrors, Objects(**wrong), server.url("churn.git"))
    assert caught.value.reason == "AuthenticationFailed"
    assert "check the Secret named by secretRef" in caught.value.message
    written = b"".join(p.read_bytes() for p in (tmp_path / "mirrors").rglob("*") if p.is_file())
    for secret in (OLD, 'to"k', "wrong"):
        assert secret.encode() not in written


def copies(directory):
    """Name the mirrors on the disk."""
    return {p.name for p in directory.glob("*.git")}


async def test_a_renewed_secret_is_used_by_the_poll_that_the_old_one_fails(tmp_path, served):
    mirrors, objects = Mirrors(tmp_path / "mirrors", POLICY), Objects(username="robot", password=OLD)
    with GitServer(served.path.parent, user="robot", password=OLD) as server:
        url = server.url("churn.git")
        world = world_of(objects, mirrors)
        spec = {"url": url, "ref": {"branch": "main"}, "secretRef": {"name": "git"}}
        owner = ModelRepository.model_validate({"metadata": {"name": "models", "namespace": "ml"}, "spec": spec})
        await (await access.git_for(world, owner)).resolve(url, MAIN, max_age_s=0)
        before = copies(tmp_path / "mirrors")
        server.expected = "Basic " + base64.b64encode(f"robot:{NEW}".encode()).decode()
        bound = await access.git_for(world, owner)
        with pytest.raises(Unavailable):
            await bound.resolve(url, MAIN, max_age_s=0)
        objects.write(username="robot", password=NEW)
        # The old value is still in memory; the refusal is what has it read again.
        head = await bound.resolve(url, MAIN, max_age_s=0)
        assert (await bound.files(url, head.commit))[0].path == "train.py"
    # Tokens that live for an hour must not fill the disk with copies of the repository.
    assert len(before) == len(copies(tmp_path / "mirrors")) == 1
    assert before != copies(tmp_path / "mirrors")


async def test_a_copy_that_another_still_reads_with_the_same_login_stays(tmp_path, served):
    mirrors = Mirrors(tmp_path / "mirrors", POLICY)
    stays, moves = Objects(username="robot", password=OLD), Objects(bearerToken=NEW)
    with GitServer(served.path.parent) as server:
        url = server.url("churn.git")
        found = world_of(stays, mirrors).access
        for namespace in ("ml", "other"):
            await (await found.bound_git("git", User(Key("ModelSpec", namespace, "x"), "y"), url)).resolve(
                url, MAIN, max_age_s=0
            )
        found.secrets = SecretBook(moves)
        await (await found.bound_git("git", User(Key("ModelSpec", "other", "x"), "y"), url)).resolve(
            url, MAIN, max_age_s=0
        )
    assert len(copies(tmp_path / "mirrors")) == 2


async def test_a_token_is_in_no_command_line_or_environment_while_git_runs(tmp_path):
    seen = []

    def look(connection, stop):
        connection.recv(65536)
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it ended while we looked
                seen.extend([(entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()])
        connection.sendall(b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n")

    credential, mirrors = Credential(token=NEW), Mirrors(tmp_path, POLICY)
    with raw_server(look) as port, pytest.raises(Unavailable) as caught:
        await mirrors.resolve(f"http://127.0.0.1:{port}/x.git", MAIN, credential=credential, max_age_s=0)
    assert NEW not in caught.value.message
    assert any(b"ls-remote" in item for item in seen)
    assert not any(NEW.encode() in item for item in seen)


@pytest.mark.parametrize(
    "data", [{"username": "robot", "password": OLD}, {"bearerToken": OLD}], ids=["password", "token"]
)
async def test_a_redirect_to_another_host_gets_no_login(tmp_path, served, data):
    with (
        GitServer(served.path.parent) as other,
        GitServer(tmp_path, redirect=f"http://127.0.0.1:{other.port}") as server,
        pytest.raises(ClientError) as caught,
    ):
        await poll(Mirrors(tmp_path / "mirrors", POLICY), Objects(**data), server.url("churn.git"))
    assert other.seen == []
    assert caught.value.reason == "HostNotAllowed"


async def test_a_secret_for_another_host_is_not_sent(tmp_path, served):
    objects = Objects(bearerToken=OLD, hosts="git.example.com")
    with GitServer(served.path.parent) as server:
        with pytest.raises(Denied, match=r"is for git\.example\.com, not for '127\.0\.0\.1': nothing was sent"):
            await poll(Mirrors(tmp_path / "mirrors", POLICY), objects, server.url("churn.git"))
        assert server.seen == []
