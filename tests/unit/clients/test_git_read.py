"""What is read and written out of a commit: exact bytes of regular files; nothing acts, nothing leads outside."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess

import pytest

from controller.clients.errors import Denied, NotFound, Unavailable
from controller.clients.git import GitPolicy, GitRef, Mirrors, TreeEntry, is_lfs_pointer
from tests.corpus import standing
from tests.support.git_repos import ENV, Scratch

FILES = {
    "spec.yaml": b"kind: ModelSpec\n",
    "train/run.sh": ("100755", b"#!/bin/sh\n"),
    "train/data.csv": b"a,b\n1,2\n",
    "link": ("120000", b"/etc/passwd"),
    "inner": ("120000", b"spec.yaml"),
    "loop": ("120000", b"loop"),
    "linkdir": ("120000", b"/etc"),
}


@pytest.fixture
def repo(tmp_path):
    return Scratch.create(tmp_path / "repos" / "churn.git")


@pytest.fixture
def mirrors(tmp_path):
    return Mirrors(tmp_path / "mirrors", GitPolicy(file_roots=(tmp_path / "repos",), timeout_s=20))


def pull(mirrors, repo):
    return asyncio.run(mirrors.refresh(repo.url, GitRef(branch="main"))).commit


def read(mirrors, repo, commit, path, **kw):
    return asyncio.run(mirrors.read(repo.url, commit, path, **kw))


def export(mirrors, repo, commit, entries, dest, **kw):
    asyncio.run(mirrors.export(repo.url, commit, entries, dest, **kw))


def files(mirrors, repo, commit):
    return asyncio.run(mirrors.files(repo.url, commit))


def test_all_files_of_a_commit_are_listed_by_the_bytes_of_their_paths(mirrors, repo):
    submodule = repo.commit({"x": b""}, branch="other")
    repo.commit({**FILES, "a.b": b"1", "a/b": b"22", "sub": ("160000", submodule.encode())})
    listed = files(mirrors, repo, pull(mirrors, repo))
    paths = [entry.path for entry in listed]
    assert paths == sorted(paths, key=os.fsencode)
    by_path = {entry.path: (entry.mode, entry.size) for entry in listed}
    assert by_path["a/b"] == ("100644", 2)
    assert by_path["train/run.sh"] == ("100755", 10)
    assert by_path["link"][0] == "120000"
    assert by_path["sub"] == ("160000", 0)


def test_a_file_is_read_as_it_is(mirrors, repo):
    data = bytes(range(256)) * 10 + b"\r\n$Id$\n"
    repo.commit(
        {"a": data, ".gitattributes": b"* text ident eol=crlf working-tree-encoding=UTF-16\n", "empty": b""}
    )
    commit = pull(mirrors, repo)
    assert read(mirrors, repo, commit, "a") == data
    assert read(mirrors, repo, commit, "empty") == b""
    both = asyncio.run(mirrors.read_many(repo.url, commit, ["a", "empty"]))
    assert both == {"a": data, "empty": b""}


@pytest.mark.parametrize(
    ("path", "kind", "reason", "says"),
    [
        pytest.param("../spec.yaml", Denied, "PathNotAllowed", "not normal", id="G18 parent"),
        pytest.param("train/../../x", Denied, "PathNotAllowed", "not normal", id="G18 parent inside"),
        pytest.param("/etc/passwd", Denied, "PathNotAllowed", "absolute", id="G18 absolute"),
        pytest.param("link", Denied, "PathNotAllowed", "symbolic link", id="G18 symlink to /etc/passwd"),
        pytest.param(
            "linkdir/passwd", Denied, "PathNotAllowed", "'linkdir' is a symbolic link", id="G18 symlink to dir"
        ),
        pytest.param("loop", Denied, "PathNotAllowed", "symbolic link", id="G18 symlink loop"),
        pytest.param("loop/loop", Denied, "PathNotAllowed", "symbolic link", id="G18 symlink loop as dir"),
        pytest.param(
            "inner", Denied, "PathNotAllowed", "name the file itself", id="G19 symlink inside the repository"
        ),
        pytest.param("train", Denied, "PathNotAllowed", "is a directory", id="G18 directory in place of a file"),
        pytest.param(
            "spec.yaml/x", NotFound, "PathNotFound", "is a file, not", id="G18 file in place of a directory"
        ),
        pytest.param("SPEC.yaml", NotFound, "PathNotFound", "nearest there: 'spec.yaml'", id="G20 other case"),
        pytest.param("train\\data.csv", NotFound, "PathNotFound", "has no", id="G20 backslash"),
        pytest.param("spec.yaml.", NotFound, "PathNotFound", "has no", id="G20 trailing dot"),
        pytest.param(
            "train/run.py", NotFound, "PathNotFound", "has no 'train/run.py'", id="G29 training file absent"
        ),
        pytest.param(".git/config", Denied, "PathNotAllowed", "Git's own directory", id="G21 .git"),
        pytest.param("--output=marker", NotFound, "PathNotFound", "has no", id="G07 an option as path"),
        pytest.param(":(top)spec.yaml", NotFound, "PathNotFound", "has no", id="G18 pathspec magic"),
    ],
)
def test_a_path_that_is_no_regular_file_is_refused(mirrors, repo, tmp_path, path, kind, reason, says):
    repo.commit(FILES)
    commit = pull(mirrors, repo)
    with pytest.raises(kind) as caught:
        read(mirrors, repo, commit, path)
    assert caught.value.reason == reason
    assert says in caught.value.message
    assert not list(tmp_path.rglob("marker"))
    standing.git_says(caught.value, late=True)


def test_a_submodule_is_not_followed(mirrors, repo, tmp_path):
    """G21: neither its URL nor its name acts."""
    modules = (
        f'[submodule "../../x"]\n\tpath = sub\n\turl = -u./touch {tmp_path}/marker\n'
        f'[submodule "y"]\n\tpath = sub\n\turl = ext::sh -c "touch {tmp_path}/marker"\n'
        f"\tupdate = !touch {tmp_path}/marker\n"
    )
    other = repo.commit({"x": b""}, branch="other")
    repo.commit({".gitmodules": modules.encode(), "sub": ("160000", other.encode()), "a": b"1"})
    commit = pull(mirrors, repo)
    assert read(mirrors, repo, commit, "a") == b"1"
    for path in ("sub", "sub/x"):
        with pytest.raises(Denied, match="'sub' is a submodule") as caught:
            read(mirrors, repo, commit, path)
        assert caught.value.reason == "PathNotAllowed"
    with pytest.raises(Denied, match="is a submodule"):
        export(mirrors, repo, commit, files(mirrors, repo, commit), tmp_path / "out")
    assert not (tmp_path / "marker").exists()
    assert not (tmp_path / "out").exists()
    standing.git_says(caught.value, late=True)


@pytest.mark.apart("it works: nothing is wrong for a controller")
def test_twins_and_strange_names_are_read_by_exact_bytes(mirrors, repo):
    """G20."""
    repo.commit({"A.yaml": b"1", "a.yaml": b"2", "\u00e9": b"3", "e\u0301": b"4", "a\\b": b"5", "c.": b"6"})
    commit = pull(mirrors, repo)
    for path, data in {
        "A.yaml": b"1",
        "a.yaml": b"2",
        "\u00e9": b"3",
        "e\u0301": b"4",
        "a\\b": b"5",
        "c.": b"6",
    }.items():
        assert read(mirrors, repo, commit, path) == data


def test_a_name_that_is_no_utf8_survives_listing_and_export(mirrors, repo, tmp_path):
    repo.commit({os.fsdecode(b"caf\xe9"): b"1"})
    commit = pull(mirrors, repo)
    export(mirrors, repo, commit, files(mirrors, repo, commit), tmp_path / "out")
    assert [os.fsencode(path.name) for path in (tmp_path / "out").iterdir()] == [b"caf\xe9"]


def test_a_file_above_the_limit_is_refused_with_both_numbers(mirrors, repo):
    repo.commit({"big": b"x" * 5000})
    commit = pull(mirrors, repo)
    assert len(read(mirrors, repo, commit, "big", limit=5000)) == 5000
    with pytest.raises(Denied) as caught:
        read(mirrors, repo, commit, "big", limit=4999)
    assert caught.value.reason == "FileTooLarge"
    assert caught.value.message == "'big' has 5000 bytes, more than the limit of 4999"


def test_a_commit_with_too_many_files_is_refused(tmp_path, repo):
    """G17."""
    few = Mirrors(tmp_path / "few", GitPolicy(file_roots=(tmp_path / "repos",), max_files=10))
    repo.commit({f"f{n}": b"" for n in range(11)})
    commit = pull(few, repo)
    with pytest.raises(Denied) as caught:
        files(few, repo, commit)
    assert caught.value.reason == "RepoTooLarge"
    assert "has 11 files, more than 10" in caught.value.message
    standing.git_says(caught.value, late=True)


def test_a_repository_above_the_limit_is_refused_and_its_copy_removed(tmp_path, repo):
    """G17."""
    repo.commit({"big": os.urandom(2_000_000)})
    small = Mirrors(tmp_path / "small", GitPolicy(file_roots=(tmp_path / "repos",), max_repo_bytes=500_000))
    with pytest.raises(Denied) as caught:
        pull(small, repo)
    assert caught.value.reason == "RepoTooLarge"
    assert sum(path.stat().st_size for path in (tmp_path / "small").rglob("*") if path.is_file()) < 600_000
    standing.git_says(caught.value, late=True)


def test_a_commit_that_was_never_fetched_is_gone_not_replaced(mirrors, repo):
    """G04."""
    repo.commit({"a": b"1"})
    pull(mirrors, repo)
    for work in (lambda: read(mirrors, repo, "f" * 40, "a"), lambda: files(mirrors, repo, "f" * 40)):
        with pytest.raises(Unavailable, match="force-pushed") as caught:
            work()
        assert caught.value.reason == "CommitGone"
    standing.git_says(caught.value, late=True)


def test_reading_before_resolving_says_what_to_do(mirrors, repo):
    commit = repo.commit({"a": b"1"})
    with pytest.raises(Unavailable, match="resolve it first") as caught:
        read(mirrors, repo, commit, "a")
    assert caught.value.reason == "CommitGone"


@pytest.mark.parametrize(
    ("data", "is_pointer"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n", True),
        (b"a,b\n1,2\n", False),
        (b"version https://git-lfs.github.com/spec/v1\n" + b"x" * 2000, False),
    ],
    ids=["G22 LFS pointer", "G22 data", "G22 a long text that begins like a pointer"],
)
@pytest.mark.apart("D12 and G22 of the fetch step tell it: this is how it is known")
def test_a_pointer_is_told_from_data(data, is_pointer):
    assert is_lfs_pointer(data) is is_pointer


# -- writing out -----------------------------------------------------------------------------------------------


def test_exactly_the_chosen_files_are_written_with_their_executable_bit(mirrors, repo, tmp_path):
    repo.commit(FILES)
    commit = pull(mirrors, repo)
    chosen = [entry for entry in files(mirrors, repo, commit) if entry.path.startswith("train/")]
    export(mirrors, repo, commit, chosen, tmp_path / "out")
    written = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert written == {"train/run.sh", "train/data.csv"}
    assert (tmp_path / "out/train/data.csv").read_bytes() == b"a,b\n1,2\n"
    assert (tmp_path / "out/train/run.sh").stat().st_mode & stat.S_IXUSR
    assert not (tmp_path / "out/train/data.csv").stat().st_mode & stat.S_IXUSR


@pytest.mark.apart("it works: nothing is wrong for a controller")
def test_attributes_of_the_repository_change_no_byte(mirrors, repo, tmp_path):
    """G23: neither filters nor export-subst nor line endings."""
    attributes = b"* filter=evil text eol=crlf ident\n*.txt export-subst export-ignore\n"
    repo.commit({".gitattributes": attributes, "a.txt": b"$Format:%H$ $Id$\n"})
    commit = pull(mirrors, repo)
    export(mirrors, repo, commit, files(mirrors, repo, commit), tmp_path / "out")
    assert (tmp_path / "out/a.txt").read_bytes() == b"$Format:%H$ $Id$\n"


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        pytest.param("../out-of-here", "100644", id="G18 parent"),
        pytest.param("/absolute", "100644", id="G18 absolute"),
        pytest.param("a/../b", "100644", id="G18 parent inside"),
        pytest.param(".git/hooks/post-checkout", "100755", id="G23 hook"),
        pytest.param(".GiT/config", "100644", id="G21 .git in another case"),
        pytest.param("x/.git\u200c/config", "100644", id="G21 .git with an invisible character"),
        pytest.param("link", "120000", id="G18 symlink"),
        pytest.param("sub", "160000", id="G21 submodule"),
        pytest.param("dev", "020000", id="G18 device"),
    ],
)
def test_a_dangerous_entry_writes_nothing_at_all(mirrors, repo, tmp_path, path, mode):
    repo.commit({"a": b"1"})
    commit = pull(mirrors, repo)
    good = files(mirrors, repo, commit)
    with pytest.raises(Denied) as caught:
        export(mirrors, repo, commit, [*good, TreeEntry(mode, path, good[0].blob, 1)], tmp_path / "out")
    assert caught.value.reason == "PathNotAllowed"
    assert "leave it out of source.paths" in caught.value.message
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out-of-here").exists()
    standing.git_says(caught.value, late=True)


def test_an_entry_that_the_commit_does_not_have_is_not_written(mirrors, repo, tmp_path):
    hidden = repo.blob(b"secret")
    repo.commit({"a": b"1"})
    commit = pull(mirrors, repo)
    with pytest.raises(NotFound) as caught:
        export(mirrors, repo, commit, [TreeEntry("100644", "a", hidden, 6)], tmp_path / "out")
    assert caught.value.reason == "PathNotFound"


def test_a_planted_link_in_the_directory_is_not_followed(mirrors, repo, tmp_path):
    repo.commit({"d/a": b"1", "b": b"2"})
    commit = pull(mirrors, repo)
    outside = tmp_path / "outside"
    outside.mkdir()
    for number, (link, target) in enumerate([("d", outside), ("b", outside / "b")]):
        dest = tmp_path / f"out{number}"
        dest.mkdir()
        (dest / link).symlink_to(target)
        with pytest.raises(Denied, match="cannot be written") as caught:
            export(mirrors, repo, commit, files(mirrors, repo, commit), dest)
        assert caught.value.reason == "PathNotAllowed"
    (tmp_path / "linked").symlink_to(outside)
    with pytest.raises(Denied):
        export(mirrors, repo, commit, files(mirrors, repo, commit), tmp_path / "linked")
    assert list(outside.iterdir()) == []


def test_an_export_above_the_limit_writes_nothing(mirrors, repo, tmp_path):
    repo.commit({"a": b"x" * 100, "b": b"x" * 100})
    commit = pull(mirrors, repo)
    with pytest.raises(Denied, match="200 bytes, more than the limit of 150") as caught:
        export(mirrors, repo, commit, files(mirrors, repo, commit), tmp_path / "out", max_bytes=150)
    assert caught.value.reason == "FileTooLarge"
    assert not (tmp_path / "out").exists()


# -- nothing acts ----------------------------------------------------------------------------------------------


@pytest.mark.apart("it works: nothing is wrong for a controller")
def test_hooks_filters_and_configuration_never_run(mirrors, repo, tmp_path, monkeypatch):
    """G23: of the served repository, of the mirror, of the user and of the environment."""
    marker = tmp_path / "marker"
    script = tmp_path / "evil.sh"
    script.write_text(f"#!/bin/sh\ntouch {marker}\n")
    script.chmod(0o755)
    lines = (
        f"[core]\n\tfsmonitor = {script}\n\thooksPath = {tmp_path}\n\tsshCommand = {script}\n\tpager = {script}\n"
        f'[filter "evil"]\n\tsmudge = {script}\n\tclean = {script}\n\tprocess = {script}\n'
        f'[uploadpack]\n\tpackObjectsHook = {script}\n[alias]\n\tfetch = "!{script}"\n'
        f'[credential]\n\thelper = "!{script}"\n'
        f'[diff]\n\texternal = {script}\n[url "ext::{script}"]\n\tinsteadOf = file\n'
    )
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(lines)
    (repo.path / "included").write_text(lines)
    with (repo.path / "config").open("a") as config:
        config.write("[include]\n\tpath = included\n")
    for hook in ("post-checkout", "reference-transaction", "post-merge", "pre-auto-gc", "post-rewrite"):
        (repo.path / "hooks").mkdir(exist_ok=True)
        (repo.path / "hooks" / hook).symlink_to(script)
        (tmp_path / hook).symlink_to(script)
    monkeypatch.setenv("HOME", str(home))
    for name in (
        "GIT_SSH_COMMAND",
        "GIT_ASKPASS",
        "GIT_EXTERNAL_DIFF",
        "GIT_PROXY_COMMAND",
        "GIT_PAGER",
        "GIT_EDITOR",
    ):
        monkeypatch.setenv(name, str(script))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.fsmonitor")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(script))
    repo.commit({".gitattributes": b"* filter=evil\n", "a": b"1"})
    commit = pull(mirrors, repo)
    assert read(mirrors, repo, commit, "a") == b"1"
    export(mirrors, repo, commit, files(mirrors, repo, commit), tmp_path / "out")
    mirror = next((tmp_path / "mirrors").glob("*.git"))
    (mirror / "config").write_text(
        "[core]\n\tbare = true\n[include]\n\tpath = " + str(repo.path / "included") + "\n"
    )
    repo.commit({"a": b"2"})
    assert read(mirrors, repo, pull(mirrors, repo), "a") == b"2"
    assert "include" not in (mirror / "config").read_text()
    assert not marker.exists()


def test_a_git_environment_of_the_caller_does_not_mislead(mirrors, repo, tmp_path, monkeypatch):
    other = Scratch.create(tmp_path / "other.git")
    other.commit({"a": b"wrong"})
    repo.commit({"a": b"right"})
    for name, value in {
        "GIT_DIR": str(other.path),
        "GIT_OBJECT_DIRECTORY": str(other.path / "objects"),
        "GIT_COMMON_DIR": str(other.path),
        "GIT_NAMESPACE": "x",
        "GIT_WORK_TREE": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    commit = pull(mirrors, repo)
    assert read(mirrors, repo, commit, "a") == b"right"
    assert not list((other.path / "refs").rglob("mainspring"))


def test_no_process_is_left_after_reading(mirrors, repo):
    repo.commit({"a": b"1"})
    commit = pull(mirrors, repo)
    read(mirrors, repo, commit, "a")
    with pytest.raises(Denied):
        read(mirrors, repo, commit, "a", limit=0)
    mine = subprocess.run(
        ["ps", "-o", "args=", "--ppid", str(os.getpid())], capture_output=True, text=True, env=ENV, check=False
    )
    assert "cat-file" not in mine.stdout
