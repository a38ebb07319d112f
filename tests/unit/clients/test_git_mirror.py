"""Mirrors that were damaged, killed, locked or shared: they heal once, take turns, and never give wrong bytes."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
import zlib

import pytest

from controller.clients.errors import ClientError, Denied, NotFound, Unavailable
from controller.clients.git import Credential, GitPolicy, GitRef, Mirrors
from controller.clients.git_errors import failure
from controller.clients.git_process import Completed
from tests.corpus import standing
from tests.support.git_repos import ENV, GitServer, Scratch, hang, raw_server

MAIN = GitRef(branch="main")


@pytest.fixture
def repo(tmp_path):
    made = Scratch.create(tmp_path / "repos" / "churn.git")
    made.commit({"train.py": b"print()\n", "data.csv": os.urandom(3000).hex().encode()}, message="First")
    return made


@pytest.fixture
def mirrors(tmp_path):
    return make(tmp_path)


def make(tmp_path, **kw):
    return Mirrors(tmp_path / "mirrors", GitPolicy(file_roots=(tmp_path / "repos",), timeout_s=20, **kw))


def pull(mirrors, repo, timeout_s=None):
    return asyncio.run(mirrors.refresh(repo.url, MAIN, timeout_s=timeout_s)).commit


def only(tmp_path, pattern):
    found = list((tmp_path / "mirrors").glob(pattern))
    assert len(found) == 1
    return found[0]


def damage(path):
    """Turn the middle of a file over."""
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(byte ^ 0xFF for byte in data[middle : middle + 64])
    path.write_bytes(bytes(data))


# -- damage ------------------------------------------------------------------------------------------------------


def truncate(tmp_path):
    path = only(tmp_path, "*.git/objects/pack/*.pack")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:40])


@pytest.mark.parametrize(
    "hurt",
    [
        pytest.param(
            lambda tmp: damage(only(tmp, "*.git/objects/pack/*.pack")), id="G16 bytes of the pack turned over"
        ),
        pytest.param(truncate, id="G16 pack cut off"),
        pytest.param(lambda tmp: only(tmp, "*.git/objects/pack/*.idx").unlink(), id="G16 index gone"),
        pytest.param(lambda tmp: only(tmp, "*.git/HEAD").unlink(), id="G16 HEAD gone"),
    ],
)
@pytest.mark.apart("the client heals it: no controller learns of it")
def test_a_damaged_mirror_is_fetched_anew_once_and_gives_the_right_bytes(mirrors, repo, tmp_path, hurt):
    commit = pull(mirrors, repo)
    data = repo.git("cat-file", "blob", "main:data.csv").encode()
    hurt(tmp_path)
    assert asyncio.run(mirrors.read(repo.url, commit, "data.csv")) == data
    assert mirrors.fetches == 2


@pytest.mark.apart("the client heals it: no controller learns of it")
def test_a_file_with_other_bytes_than_its_id_says_is_never_given_out(mirrors, repo, tmp_path):
    """G15: well-formed, checksums right, only the content is another one."""
    commit = pull(mirrors, repo)
    mirror, pack = only(tmp_path, "*.git"), only(tmp_path, "*.git/objects/pack/*.pack")
    data = pack.read_bytes()
    for path in pack.parent.iterdir():
        path.unlink()
    Scratch(mirror).git("unpack-objects", "-q", stdin=data)
    sha = repo.git("rev-parse", "main:train.py")
    loose = mirror / "objects" / sha[:2] / sha[2:]
    loose.chmod(0o644)
    loose.write_bytes(zlib.compress(b"blob 8\0evil()\n\n"))
    assert asyncio.run(mirrors.read(repo.url, commit, "train.py")) == b"print()\n"
    assert mirrors.fetches == 2


def test_many_readers_of_a_damaged_mirror_fetch_it_once(mirrors, repo, tmp_path):
    commit = pull(mirrors, repo)

    async def all_at_once():
        return await asyncio.gather(*(mirrors.read(repo.url, commit, "data.csv") for _ in range(8)))

    damage(only(tmp_path, "*.git/objects/pack/*.pack"))
    assert len(set(asyncio.run(all_at_once()))) == 1
    assert mirrors.fetches == 2


@pytest.mark.parametrize(
    "hurt",
    [
        pytest.param(lambda repo, blob: blob.unlink(), id="G15 object missing on the server"),
        pytest.param(lambda repo, blob: damage(blob), id="G15 object damaged on the server"),
    ],
)
def test_a_server_with_a_damaged_repository_is_reported_after_one_more_try(mirrors, repo, hurt):
    sha = repo.git("rev-parse", "main:data.csv")
    hurt(repo, repo.path / "objects" / sha[:2] / sha[2:])
    with pytest.raises(Unavailable) as caught:
        pull(mirrors, repo)
    assert caught.value.reason in ("GitCorrupt", "GitUnavailable")
    assert "\n" not in caught.value.message
    assert not asyncio.run(mirrors.contains(repo.url, repo.git("rev-parse", "main")))
    standing.git_says(caught.value)


def test_a_tree_that_git_calls_malformed_is_not_taken(mirrors, repo):
    """G15, G21: `..` and `.git` in a tree, duplicate entries."""
    blob = bytes.fromhex(repo.blob(b"x"))
    tree = repo.raw("tree", b"100644 a\0" + blob + b"100644 a\0" + blob)
    repo.ref("refs/heads/main", repo.git("commit-tree", tree, "-m", "x"))
    with pytest.raises(Unavailable) as caught:
        pull(mirrors, repo)
    assert caught.value.reason == "GitCorrupt"
    assert "damaged" in caught.value.message
    assert mirrors.fetches == 2, "dropped and fetched anew once, not for ever"
    standing.git_says(caught.value)


# -- crashes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "leftover",
    ["packed-refs.lock", "index.lock", "config.lock", "refs/mainspring/refs/x.lock", "objects/pack/tmp_pack_abc"],
    ids="G16 {}".format,
)
@pytest.mark.apart("the client heals it: no controller learns of it")
def test_what_a_crash_left_is_cleared(mirrors, repo, tmp_path, leftover):
    pull(mirrors, repo)
    path = only(tmp_path, "*.git") / leftover
    path.write_bytes(b"x")
    tip = repo.commit({"a": b"2"})
    assert pull(make(tmp_path), repo) == tip
    assert not path.exists()


def test_a_half_made_mirror_is_cleared(mirrors, repo, tmp_path):
    pull(mirrors, repo)
    mirror = only(tmp_path, "*.git")
    half = mirror.with_name(mirror.stem + ".new-999")
    mirror.rename(half)
    (half / "HEAD").unlink()
    pull(make(tmp_path), repo)
    assert not half.exists()


SCRIPT = """
import asyncio, sys
from pathlib import Path
from controller.clients.git import GitPolicy, GitRef, Mirrors
policy = GitPolicy(protocols=frozenset({"http"}), allowed_hosts=("127.0.0.1",))
mirrors = Mirrors(Path(sys.argv[1]), policy)
asyncio.run(mirrors.resolve(sys.argv[2], GitRef(branch="main"), max_age_s=0, timeout_s=float(sys.argv[3])))
"""


def test_a_controller_killed_in_mid_fetch_is_followed_by_one_that_works(tmp_path, repo):
    """The git of the killed one lives on and still holds the lock; the next waits for its end, with a limit."""
    fetching, go_on = threading.Event(), threading.Event()

    def stall(body):
        if b"command=fetch" in body:
            fetching.set()
            go_on.wait(60)

    mirrors = Mirrors(
        tmp_path / "mirrors", GitPolicy(protocols=frozenset({"http"}), allowed_hosts=("127.0.0.1",), timeout_s=20)
    )
    with GitServer(tmp_path / "repos", stall=stall) as server:
        url = server.url("churn.git")
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path / "mirrors"), url, "60"])
        assert fetching.wait(30)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with pytest.raises(Unavailable, match="another process holds the mirror") as caught:
            asyncio.run(mirrors.resolve(url, MAIN, max_age_s=0, timeout_s=0.5))
        assert caught.value.reason == "GitTimeout"
        go_on.set()
        head = asyncio.run(mirrors.resolve(url, MAIN, max_age_s=0))
        assert asyncio.run(mirrors.read(url, head.commit, "train.py")) == b"print()\n"


def test_a_lock_held_by_another_process_is_waited_for_with_a_limit(mirrors, repo, tmp_path):
    pull(mirrors, repo)
    with only(tmp_path, "*.lock").open("rb+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Unavailable) as caught:
            pull(mirrors, repo, timeout_s=0.3)
        assert caught.value.reason == "GitTimeout"
        assert "another process holds the mirror" in caught.value.message
        commit = repo.git("rev-parse", "main")
        assert asyncio.run(mirrors.read(repo.url, commit, "train.py")) == b"print()\n", "readers need no lock"
    assert pull(mirrors, repo) == commit


def test_a_second_process_reads_what_the_first_fetched_without_asking(mirrors, repo, tmp_path):
    commit = pull(mirrors, repo)
    second = make(tmp_path)
    asyncio.run(second.ensure(repo.url, commit, MAIN))
    assert asyncio.run(second.read(repo.url, commit, "train.py")) == b"print()\n"
    assert (second.polls, second.fetches) == (0, 0)


def test_many_fetches_do_not_pile_up_packs(mirrors, repo, tmp_path):
    first = pull(mirrors, repo)
    for number in range(60):
        repo.commit({"a": b"%d" % number}, parents=[])
        pull(mirrors, repo)
    assert len(list(only(tmp_path, "*.git").glob("objects/pack/*.pack"))) < 60
    assert asyncio.run(mirrors.read(repo.url, first, "train.py")) == b"print()\n", "nothing is ever pruned"


def test_a_full_disk_is_told_from_a_damaged_mirror(mirrors, tmp_path):
    error = failure("fetching x", Completed(128, b"", "fatal: write error: No space left on device\n"))
    assert (type(error), error.reason) == (Unavailable, "DiskFull")


def test_a_mirror_directory_that_cannot_be_made_is_reported(tmp_path, repo):
    (tmp_path / "mirrors").write_text("a file in the way")
    with pytest.raises(ClientError) as caught:
        pull(make(tmp_path), repo)
    assert caught.value.reason == "MirrorUnusable"


# -- transport ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate for 127.0.0.1, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ]
        + [
            "-subj",
            "/CN=127.0.0.1",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
        ],
        cwd=folder,
        env=ENV,
        check=True,
        capture_output=True,
    )
    return folder / "cert.pem", folder / "key.pem"


def test_a_certificate_that_nobody_vouches_for_is_refused_until_its_ca_is_given(tmp_path, repo, certificate):
    """G13."""
    cert, key = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    mirrors = Mirrors(tmp_path / "mirrors", GitPolicy(allowed_hosts=("127.0.0.1",)))
    with GitServer(tmp_path / "repos", tls=context) as server:
        with pytest.raises(Unavailable) as caught:
            asyncio.run(mirrors.resolve(server.url("churn.git"), MAIN, max_age_s=0))
        assert caught.value.reason == "TLSFailed"
        assert "ca.crt" in caught.value.message
        trusted = Credential(ca=cert.read_text())
        head = asyncio.run(mirrors.resolve(server.url("churn.git"), MAIN, credential=trusted, max_age_s=0))
    assert head.subject == "First"
    standing.git_says(caught.value)


def test_a_server_that_stops_in_mid_pack_is_given_up_and_leaves_a_working_mirror(tmp_path, repo):
    """G14."""
    policy = GitPolicy(protocols=frozenset({"http"}), allowed_hosts=("127.0.0.1",))
    mirrors = Mirrors(tmp_path / "mirrors", policy)
    with GitServer(tmp_path / "repos", cut_pack=200) as server:
        url = server.url("churn.git")
        with pytest.raises(Unavailable) as caught:
            asyncio.run(mirrors.resolve(url, MAIN, max_age_s=0, timeout_s=10))
        assert caught.value.reason in ("GitUnavailable", "GitCorrupt")
        server.cut_pack = 0
        head = asyncio.run(mirrors.resolve(url, MAIN, max_age_s=0, timeout_s=10))
        assert asyncio.run(mirrors.read(url, head.commit, "train.py")) == b"print()\n"
    standing.git_says(caught.value)


@pytest.mark.parametrize(
    ("stderr", "kind", "reason"),
    [
        pytest.param(
            "@@@@@@@@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.\n"
            "fatal: Could not read from remote repository.\n",
            Denied,
            "HostKeyMismatch",
            id="G12 host key changed",
        ),
        pytest.param(
            "No ED25519 host key is known for h and you have requested strict checking.\n",
            Denied,
            "HostKeyMismatch",
            id="G12 host key unknown",
        ),
        pytest.param(
            "git@h: Permission denied (publickey).\n", Unavailable, "AuthenticationFailed", id="G12 key refused"
        ),
        pytest.param("fatal: transport 'ext' not allowed\n", Denied, "ProtocolNotAllowed", id="G08 transport"),
        pytest.param(
            "ERROR: Repository not found.\nfatal: x", NotFound, "RepositoryNotFound", id="forge hides it"
        ),
        pytest.param(
            "fatal: early EOF\nfatal: index-pack failed\n", Unavailable, "GitUnavailable", id="G14 mid pack"
        ),
        pytest.param(
            "fatal: pack is corrupted (SHA1 mismatch)\n", Unavailable, "GitCorrupt", id="G15 corrupt pack"
        ),
        pytest.param("something new\n", Unavailable, "GitFailed", id="unknown text is tried again"),
        pytest.param("", Unavailable, "GitFailed", id="no text"),
    ],
)
def test_words_of_git_become_reasons(stderr, kind, reason):
    error = failure("fetching https://h/x", Completed(128, b"", stderr))
    assert (type(error), error.reason) == (kind, reason)
    assert error.message.startswith("fetching https://h/x failed")
    assert "\n" not in error.message
    standing.git_says(error)


def test_words_of_a_server_are_masked_and_on_one_line():
    stderr = (
        "remote: token=s3cr3tT0kenValue99 \x1b[31m\nfatal: unable to access 'https://a:s3cr3tT0kenValue99@h/x'\n"
    )
    message = failure("fetching", Completed(128, b"", stderr)).message
    assert "s3cr3t" not in message
    assert message.isprintable()


def test_waiting_for_a_hung_poll_is_shared(tmp_path):
    """Fifty specs on a hung server wait one time limit, not fifty."""
    policy = GitPolicy(protocols=frozenset({"http"}), allowed_hosts=("127.0.0.1",))
    mirrors = Mirrors(tmp_path / "mirrors", policy)

    async def all_at_once(url):
        return await asyncio.gather(
            *(mirrors.resolve(url, MAIN, max_age_s=30, timeout_s=1) for _ in range(50)), return_exceptions=True
        )

    with raw_server(hang) as port:
        began = time.monotonic()
        results = asyncio.run(all_at_once(f"http://127.0.0.1:{port}/x.git"))
        assert time.monotonic() - began < 5
    assert {getattr(item, "reason", item) for item in results} == {"GitTimeout"}
    assert mirrors.polls == 1
