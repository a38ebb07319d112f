"""Servers that are slow, hostile, moved or locked: each ends with its reason, in time, and delays nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from pathlib import Path

import pytest

from controller.clients import git_process
from controller.clients.errors import Denied, NotFound, Unavailable
from controller.clients.git import Credential, GitPolicy, GitRef, Mirrors
from tests.corpus import standing
from tests.support.git_repos import ENV, GitServer, Scratch, advertise, drip, hang, raw_server

MAIN = GitRef(branch="main")
SECRET = "s3cr3tT0kenValue99"
LOCAL_HTTP = GitPolicy(protocols=frozenset({"https", "http", "ssh"}), allowed_hosts=("127.0.0.1",), timeout_s=20)


def client(tmp_path, policy=LOCAL_HTTP, **kw):
    return Mirrors(tmp_path / "mirrors", policy, **kw)


def resolve(mirrors, url, ref=MAIN, *, credential=None, timeout_s=20.0):
    return asyncio.run(mirrors.resolve(url, ref, credential=credential, max_age_s=60, timeout_s=timeout_s))


def refused(kind, mirrors, url, **kw):
    with pytest.raises(kind) as caught:
        resolve(mirrors, url, **kw)
    assert "\n" not in caught.value.message
    assert SECRET not in caught.value.message
    standing.git_says(caught.value)
    return caught.value


def processes_that_mention(text):
    """List processes with `text` in their arguments, once killed ones have had five seconds to vanish."""
    deadline = time.monotonic() + 5
    while True:
        listing = subprocess.run(
            ["ps", "-eo", "args="], capture_output=True, text=True, env=ENV, check=True
        ).stdout
        found = [line for line in listing.splitlines() if text in line]
        if not found or time.monotonic() > deadline:
            return found


@pytest.fixture
def served(tmp_path):
    repo = Scratch.create(tmp_path / "served" / "churn.git")
    repo.commit({"train.py": b"print()\n"}, message="First")
    return repo


def test_a_repository_is_read_over_http(tmp_path, served):
    mirrors = client(tmp_path)
    with GitServer(served.path.parent) as server:
        head = resolve(mirrors, server.url("churn.git"))
        assert head.subject == "First"
        assert asyncio.run(mirrors.read(server.url("churn.git"), head.commit, "train.py")) == b"print()\n"


def test_a_repository_that_the_server_does_not_have_is_not_found(tmp_path, served):
    with GitServer(served.path.parent) as server:
        error = refused(NotFound, client(tmp_path), server.url("absent.git"))
    assert error.reason == "RepositoryNotFound"
    assert "check source.url" in error.message


# -- protocols and hosts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("ext::sh -c touch% {marker}", id="G08 ext"),
        pytest.param("ext::{marker}", id="G08 ext without a space"),
        pytest.param("fd::17", id="G08 fd"),
        pytest.param("file:///etc", id="G08 file"),
        pytest.param("/etc", id="G08 path"),
        pytest.param("../x", id="G08 relative path"),
        pytest.param("-oProxyCommand=touch{marker}", id="G08 option"),
        pytest.param("--upload-pack=touch{marker}", id="G08 long option"),
        pytest.param("ssh://-oProxyCommand=touch{marker}/y", id="G08 option as host"),
        pytest.param("-oProxyCommand=x:y", id="G08 option in scp form"),
        pytest.param("git://git.example.com/x", id="G08 git"),
        pytest.param("http://git.example.com/x", id="G08 http"),
    ],
)
def test_other_protocols_are_denied_and_nothing_runs(tmp_path, url):
    marker = tmp_path / "marker"
    error = refused(Denied, client(tmp_path, GitPolicy()), url.format(marker=marker))
    assert error.reason in ("ProtocolNotAllowed", "InvalidURL")
    if " " not in url:
        assert error.reason == "ProtocolNotAllowed"
        assert "https, ssh" in error.message
    assert not marker.exists()
    assert not (tmp_path / "mirrors").exists()


@pytest.mark.parametrize("argument", ["ext::sh -c 'touch {marker}'", "fd::17", "{path}", "git://127.0.0.1:9/x"])
@pytest.mark.apart("the second wall: our own rule has refused before")
def test_git_itself_refuses_them_too(tmp_path, served, argument):
    """G08: the second wall, in case a rule of ours has a hole."""
    home, marker = tmp_path / "home", tmp_path / "marker"
    git_process.prepare_home(home)
    result = asyncio.run(
        git_process.run(
            git_process.command(["ls-remote", "--", argument.format(marker=marker, path=served.path)]),
            env=git_process.environment(home, protocol="https"),
            cwd=home,
            timeout_s=20,
            max_output=1000,
        )
    )
    assert result.code != 0
    assert "not allowed" in result.stderr
    assert not marker.exists()


def test_a_local_repository_outside_the_roots_is_denied_whatever_links_say(tmp_path, served):
    (tmp_path / "roots").mkdir()
    (tmp_path / "roots" / "link.git").symlink_to(served.path)
    mirrors = client(tmp_path, GitPolicy(file_roots=(tmp_path / "roots",)))
    for url in (f"file://{tmp_path}/roots/link.git", str(served.path)):
        error = refused(Denied, mirrors, url)
        assert error.reason == "ProtocolNotAllowed"
        assert "outside the roots" in error.message


@pytest.mark.parametrize(
    "url",
    [
        f"https://ada:{SECRET}@git.example.com/x",
        f"https://{SECRET}@git.example.com/x",
        f"ssh://git:{SECRET}@h.example/x",
    ],
    ids=["G09 user and token", "G09 token", "G09 ssh password"],
)
def test_credentials_in_a_url_are_denied_and_masked(tmp_path, url):
    error = refused(Denied, client(tmp_path, GitPolicy()), url)
    assert error.reason == "InvalidURL"
    assert "Secret" in error.message
    assert "***@" in error.message


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "169.254.169.254",
        "[::ffff:169.254.169.254]",
        "[::1]",
        "2130706433",
        "0x7f.1",
        "localhost",
        "10.1.2.3",
    ],
    ids="G10 {}".format,
)
def test_inner_hosts_are_denied_before_a_connection(tmp_path, host):
    error = refused(Denied, client(tmp_path, GitPolicy()), f"https://{host}/x.git")
    assert error.reason == "HostNotAllowed"


def test_a_public_name_that_resolves_inside_is_denied(tmp_path):
    """G10."""
    mirrors = client(tmp_path, GitPolicy(), resolver=lambda host, port: ["203.0.114.1", "169.254.169.254"])
    error = refused(Denied, mirrors, "https://git.example.com/x.git")
    assert error.reason == "HostNotAllowed"
    assert "'git.example.com' resolves to a refused address" in error.message
    assert "169.254.169.254" in error.message


@pytest.mark.apart("it works: nothing is wrong for a controller")
def test_git_talks_to_the_address_that_was_judged(tmp_path, served):
    """G10, rebinding: the name means nothing to the system's resolver, so only a pinned address can be reached."""
    policy = GitPolicy(protocols=frozenset({"http"}), allowed_hosts=("git.example.invalid",))
    mirrors = client(tmp_path, policy, resolver=lambda host, port: ["127.0.0.1"])
    with GitServer(served.path.parent) as server:
        assert resolve(mirrors, f"http://git.example.invalid:{server.port}/churn.git").subject == "First"


def test_a_name_that_does_not_resolve_is_tried_again(tmp_path):
    def unknown(host, port):
        raise OSError(0, "Name or service not known")

    error = refused(Unavailable, client(tmp_path, GitPolicy(), resolver=unknown), "https://git.example.com/x")
    assert error.reason == "GitUnavailable"
    assert "cannot be resolved" in error.message


def test_a_redirect_is_not_followed_and_gets_no_credential(tmp_path, served):
    """G10, G11."""
    with GitServer(served.path.parent, user="ada", password=SECRET) as other:
        with GitServer(tmp_path, redirect=f"http://127.0.0.1:{other.port}") as server:
            credential = Credential(username="ada", password=SECRET)
            error = refused(Denied, client(tmp_path), server.url("churn.git"), credential=credential)
        assert other.seen == []
    assert error.reason == "HostNotAllowed"
    assert "write the final address" in error.message


# -- credentials -------------------------------------------------------------------------------------------------


def test_a_password_is_used_and_stands_in_no_argument_file_or_message(tmp_path, served):
    credential = Credential(username="ada", password=f"{SECRET}/@:x")
    assert SECRET not in repr(credential)
    mirrors = client(tmp_path)
    with GitServer(served.path.parent, user="ada", password=f"{SECRET}/@:x") as server:
        assert resolve(mirrors, server.url("churn.git"), credential=credential).subject == "First"
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()


def test_a_password_is_in_no_command_line_or_environment_while_git_runs(tmp_path):
    """The credential must not be visible to whoever may list processes."""
    seen = []

    def look(connection, stop):
        connection.recv(65536)
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it ended while we looked
                seen.extend([(entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()])
        connection.sendall(b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n")

    with raw_server(look) as port:
        credential = Credential(username="ada", password=SECRET)
        refused(Unavailable, client(tmp_path), f"http://127.0.0.1:{port}/x.git", credential=credential)
    assert any(b"ls-remote" in item for item in seen)
    assert not any(SECRET.encode() in item for item in seen)


@pytest.mark.parametrize(
    ("server_options", "credential"),
    [
        pytest.param({"user": "ada", "password": "right"}, Credential("ada", SECRET), id="G12 wrong password"),
        pytest.param({"user": "ada", "password": "right"}, None, id="G12 no credential"),
        pytest.param({"status": 403}, Credential("ada", SECRET), id="G12 forbidden"),
    ],
)
def test_a_refused_login_is_reported_as_that(tmp_path, served, server_options, credential):
    with GitServer(served.path.parent, **server_options) as server:
        error = refused(Unavailable, client(tmp_path), server.url("churn.git"), credential=credential)
    assert error.reason == "AuthenticationFailed"
    assert "secretRef" in error.message


def test_two_credentials_never_share_a_mirror(tmp_path, served):
    """Decision 28: what one may read, another may not find in a cache."""
    mirrors = client(tmp_path)
    with GitServer(served.path.parent, user="ada", password=SECRET) as server:
        head = resolve(mirrors, server.url("churn.git"), credential=Credential("ada", SECRET))
        refused(Unavailable, mirrors, server.url("churn.git"), credential=Credential("eve", "guess"))
        assert not asyncio.run(
            mirrors.contains(server.url("churn.git"), head.commit, credential=Credential("eve", "guess"))
        )


def test_an_unknown_host_key_is_never_accepted(tmp_path):
    """G12: a real ssh client is run; the server side only offers a key."""
    policy = GitPolicy(allowed_hosts=("127.0.0.1",))

    def talk(connection, stop):
        connection.sendall(b"SSH-2.0-Test\r\n")
        stop.wait(0.3)

    with raw_server(talk) as port:
        error = refused(Unavailable, client(tmp_path, policy), f"ssh://git@127.0.0.1:{port}/x.git")
    assert error.reason in ("GitUnavailable", "GitFailed")


@pytest.mark.apart("what ssh is told, before anything goes wrong")
def test_what_ssh_is_told_names_only_judged_things(tmp_path):
    """G12: the configuration written for ssh refuses unknown keys, agents, proxies and prompts."""
    from controller.api.git_rules import parse_url
    from controller.clients.git_net import remote

    async def look():
        url = "git@git.example.com:team/x.git"
        parts = parse_url(url)
        assert parts is not None
        async with remote(
            parts,
            url,
            policy=GitPolicy(),
            credential=Credential(ssh_key="KEY", known_hosts="git.example.com ssh-ed25519 AAAA"),
            resolver=lambda host, port: ["140.82.121.3"],
            timeout_s=5,
        ) as prepared:
            command = dict(prepared.env)["GIT_SSH_COMMAND"]
            config = Path(command.removeprefix("ssh -F "))
            text = config.read_text()
            modes = {path.stat().st_mode & 0o077 for path in config.parent.iterdir()}
        return command, text, modes, config.parent

    command, text, modes, directory = asyncio.run(look())
    assert "example" not in command
    for line in ("StrictHostKeyChecking yes", "BatchMode yes", "ProxyCommand none", "IdentityAgent none"):
        assert f"  {line}\n" in text
    assert "HostName 140.82.121.3\n  HostKeyAlias git.example.com\n" in text
    assert modes == {0}
    assert not directory.exists(), "credentials live as long as one operation"


# -- slow, broken, hostile servers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "talk", [pytest.param(hang, id="G14 never answers"), pytest.param(drip, id="G14 one byte at a time")]
)
def test_a_server_that_hangs_is_given_up_and_its_process_killed(tmp_path, talk):
    with raw_server(talk) as port:
        url = f"http://127.0.0.1:{port}/x.git"
        began = time.monotonic()
        error = refused(Unavailable, client(tmp_path), url, timeout_s=1.0)
        assert time.monotonic() - began < 5
        assert error.reason == "GitTimeout"
        assert "1 s" in error.message or "slow" in error.message
        assert processes_that_mention(url) == []


@pytest.mark.apart("the caller is gone")
def test_a_caller_that_gives_up_leaves_no_process(tmp_path):
    """G14."""

    async def give_up(url):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await client(tmp_path).resolve(url, MAIN, max_age_s=0, timeout_s=30)

    with raw_server(hang) as port:
        url = f"http://127.0.0.1:{port}/x.git"
        asyncio.run(give_up(url))
        assert processes_that_mention(url) == []


@pytest.mark.apart("the neighbours are ten real repositories here")
def test_a_hung_server_delays_no_other_repository(tmp_path, served):
    """G28."""
    for number in range(10):
        Scratch.create(tmp_path / "served" / f"r{number}.git").commit({"a": b"%d" % number})
    policy = GitPolicy(
        protocols=LOCAL_HTTP.protocols,
        allowed_hosts=("127.0.0.1",),
        file_roots=(tmp_path / "served",),
        timeout_s=20,
    )
    mirrors = client(tmp_path, policy)

    async def all_at_once(hung):
        waiting = asyncio.create_task(mirrors.resolve(hung, MAIN, max_age_s=0, timeout_s=15))
        heads = await asyncio.gather(
            *(mirrors.resolve(f"file://{tmp_path}/served/r{n}.git", MAIN, max_age_s=0) for n in range(10))
        )
        still = not waiting.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return heads, still

    with raw_server(hang) as port:
        heads, still = asyncio.run(all_at_once(f"http://127.0.0.1:{port}/x.git"))
    assert len({head.commit for head in heads}) == 10
    assert still


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([b"x" * 1000], id="garbage"),
        pytest.param([b"f" * 40 + b" refs/heads/main\0side-band-64k\n"], id="a commit that does not exist"),
        pytest.param([b"f" * 40 + b" refs/heads/../../../config\0\n"], id="a name that climbs"),
        pytest.param([b"f" * 40 + b" refs/heads/--upload-pack=touch\0\n"], id="a name that is an option"),
        pytest.param([b"f" * 40 + b" refs/heads/\x1b[31mmain\0\n"], id="a name with an escape"),
        pytest.param([b"f" * 40 + b" refs/heads/a;$(touch marker)\0\n"], id="a name for a shell"),
        pytest.param(
            [b"ERR \x1b]0;owned\x07 password=" + SECRET.encode()], id="an error with an escape and a secret"
        ),
    ],
)
def test_a_hostile_advertisement_is_an_error_like_any_other(tmp_path, lines):
    with raw_server(advertise(lines)) as port, pytest.raises((Unavailable, NotFound)) as caught:
        resolve(client(tmp_path), f"http://127.0.0.1:{port}/x.git")
    assert caught.value.message.isprintable()
    assert SECRET not in caught.value.message
    assert not list(tmp_path.rglob("marker"))


def test_a_closed_port_is_tried_again(tmp_path):
    with raw_server(hang) as port:
        pass
    error = refused(Unavailable, client(tmp_path), f"http://127.0.0.1:{port}/x.git")
    assert error.reason == "GitUnavailable"
    assert "tried again" in error.message


def test_the_environment_of_git_holds_nothing_of_ours(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("GIT_SSL_NO_VERIFY", "1")
    env = git_process.environment(tmp_path, protocol="https")
    assert env["GIT_ALLOW_PROTOCOL"] == "https"
    assert env["GIT_CONFIG_NOSYSTEM"] == "1"
    assert env["GIT_TERMINAL_PROMPT"] == "0"
    assert env["GIT_ASKPASS"] == ""
    assert env["LC_ALL"] == "C"
    assert env["PATH"] == os.environ["PATH"]
    assert SECRET not in env.values()
    assert not {"https_proxy", "GIT_SSL_NO_VERIFY", "SSH_AUTH_SOCK"} & set(env)
    assert Path(env["HOME"]).is_relative_to(tmp_path)
