"""The hostile table G30 to G33: what a repository may do to DVC's files, and the exact answer that it gets.

Most are answered when the commit is pinned, before any Job; `fetch` judges again and says the same.  Nothing is
ever written outside of the step's own directories.
"""

from __future__ import annotations

import pytest

from controller.api.data import Dataset
from controller.clients.errors import ClientError
from controller.reconcile.datasets import MissingFile
from tests.corpus import standing
from tests.support.dvc_remotes import ObjectServer, config, lock, md5, pointer, push
from tests.support.fetch_runs import Runs, table

DATA, OTHER = table(), table(150)
DVC = {"name": "train", "path": "data/train.csv.dvc"}
OUT = {"name": "train", "path": "data/train.csv"}
DEFAULT = {"data/train.csv.dvc": pointer(DATA, "train.csv"), ".dvc/config": config("/srv/store")}


@pytest.fixture
def runs(tmp_path, monkeypatch):
    return Runs(tmp_path, monkeypatch)


def changed(**files):
    """Change one line of the pointer."""
    return {"data/train.csv.dvc": files["text"].encode()}


def core(line):
    return {".dvc/config": config("/srv/store").replace(b"[core]\n", f"[core]\n    {line}\n".encode())}


def remote(**more):
    return {".dvc/config": config(more.pop("url", "/srv/store"), **more)}


REFUSED = [
    pytest.param(
        {"dvc.yaml": b"stages: {}\n", "data/train.csv.dvc": None},
        [OUT],
        "DataSpecInvalid",
        "'dvc.lock' is missing beside its dvc.yaml",
        id="G30-a dvc.lock is missing",
    ),
    pytest.param(
        {"dvc.lock": b"schema: '2.0'\nstages: [\n", "data/train.csv.dvc": None},
        [OUT],
        "DataSpecInvalid",
        "'dvc.lock' is no YAML (line 3)",
        id="G30-a dvc.lock is cut",
    ),
    pytest.param(
        {"dvc.lock": b"<<<<<<< HEAD\n" + lock({"data/train.csv": DATA}), "data/train.csv.dvc": None},
        [OUT],
        "DataSpecInvalid",
        "'dvc.lock' is no YAML",
        id="G30-a dvc.lock with the marks of a merge",
    ),
    pytest.param(
        {"dvc.lock": b"- 1\n", "data/train.csv.dvc": None},
        [OUT],
        "DataSpecInvalid",
        "'dvc.lock' is none of DVC",
        id="G30-a dvc.lock that is a list",
    ),
    pytest.param(
        {"dvc.lock": b"prepare: {}\n", "data/train.csv.dvc": None},
        [OUT],
        "DataSpecInvalid",
        "has schema 'none'; only '2.0' is read",
        id="G30-a dvc.lock of the first schema",
    ),
    pytest.param(
        {"dvc.lock": lock({}, {"data/train.csv": OTHER})},
        [DVC],
        "DataSpecInvalid",
        f"stage 'prepare' of 'dvc.lock' has read {md5(OTHER)[:10]}…: run dvc repro",
        id="G30-a dvc.lock that has read older data than the pointer names",
    ),
    pytest.param(
        {"dvc.lock": lock({"data/train.csv": DATA}, {"data/raw.csv": OTHER}), "data/train.csv.dvc": None}
        | {"data/raw.csv.dvc": pointer(DATA, "raw.csv")},
        [OUT],
        "DataSpecInvalid",
        "'data/raw.csv.dvc' has",
        id="G30-an out that was made from older data than the pointer names",
    ),
    pytest.param(
        {"dvc.lock": lock({"data/train.csv": DATA})},
        [DVC],
        "DataSpecInvalid",
        "is an out of 'dvc.lock' and of 'data/train.csv.dvc'",
        id="G30-a file that pointer and stage both make",
    ),
    pytest.param(
        {},
        [DVC, {"name": "again", "path": "data/train.csv.dvc"}],
        "DataSpecInvalid",
        "the datasets train and again are the same file: data/train.csv",
        id="G30-two datasets of one path",
    ),
    pytest.param(
        changed(text="outs:\n- md5: zz\n  path: train.csv\n"),
        [DVC],
        "DataSpecInvalid",
        "has no md5 of 32 lower-case hex digits",
        id="G30-a pointer without an md5",
    ),
    pytest.param(
        changed(text="outs: &a\n- *a\n"),
        [DVC],
        "DataSpecInvalid",
        "uses a YAML alias",
        id="G30-an alias of itself",
    ),
    pytest.param(
        changed(text="a: &a x\nouts: [*a, *a]\n"), [DVC], "DataSpecInvalid", "uses a YAML alias", id="G30-aliases"
    ),
    pytest.param(
        changed(text=f"outs:\n- md5: {md5(DATA)}\n  md5: {md5(OTHER)}\n  path: train.csv\n"),
        [DVC],
        "DataSpecInvalid",
        "has the key 'md5' twice",
        id="G30-two md5 in one out",
    ),
    pytest.param(
        changed(text="outs: " + "[" * 500 + "]" * 500),
        [DVC],
        "DataSpecInvalid",
        "levels deep",
        id="G30-500 levels",
    ),
    pytest.param(
        changed(text="outs: " + "[" * 50_000), [DVC], "DataSpecInvalid", "is no YAML", id="G30-50,000 levels"
    ),
    pytest.param(
        {"data/train.csv.dvc": b"outs: []\n" + b"#" * 1_100_000},
        [DVC],
        "DataSpecInvalid",
        "has 1,100,009 bytes",
        id="G30-a pointer of a megabyte",
    ),
    pytest.param(
        {"data/train.csv.dvc": b"cmd: touch marker\n" + pointer(DATA, "train.csv")},
        [DVC],
        "DataSpecInvalid",
        "has a cmd; a pointer has none",
        id="G30-a pointer with a command",
    ),
    pytest.param(
        {"data/train.csv.dvc": b"deps:\n- path: x\n  repo: {url: ssh://evil/x}\n" + pointer(DATA, "train.csv")},
        [DVC],
        "DataSpecInvalid",
        "imports from another repository",
        id="G30-an import from another repository",
    ),
    pytest.param(
        {"data/train.csv": DATA},
        [DVC],
        "DataSpecInvalid",
        "is in the commit itself and also an out",
        id="G30-the data is in Git too",
    ),
    pytest.param(
        core("check_update = false"),
        [DVC],
        "DVCConfigNotAllowed",
        "sets core.check_update, which is not allowed",
        id="G32-core.check_update",
    ),
    pytest.param(core("no_scm = true"), [DVC], "DVCConfigNotAllowed", "sets core.no_scm", id="G32-core.no_scm"),
    pytest.param(
        {".dvc/config": config("/srv/store") + b"[cache]\n    dir = /\n"},
        [DVC],
        "DVCConfigNotAllowed",
        "sets cache.dir, which is not allowed",
        id="G32-cache.dir at the root",
    ),
    pytest.param(
        {".dvc/config": config("/srv/store") + b"[CACHE]\n    DIR = /\n"},
        [DVC],
        "DVCConfigNotAllowed",
        "sets cache.dir, which is not allowed",
        id="G32-cache.dir in capitals",
    ),
    pytest.param(
        remote(url="ssh://example.com/store", ask_password="true"),
        [DVC],
        "DVCConfigNotAllowed",
        "sets ask_password of remote 'store'",
        id="G32-ssh with ask_password",
    ),
    pytest.param(
        remote(url="ssh://example.com/store"),
        [DVC],
        "DVCConfigNotAllowed",
        "the scheme 'ssh' in url of remote 'store'; allowed: https, http, s3",
        id="G32-a remote by ssh",
    ),
    pytest.param(
        remote(url="https://example.com/store", auth="custom", custom_auth_header="X-Token"),
        [DVC],
        "DVCConfigNotAllowed",
        "sets auth of remote 'store'",
        id="G32-custom auth",
    ),
    pytest.param(
        remote(url="https://example.com/store", credentialpath="/etc/shadow"),
        [DVC],
        "DVCConfigNotAllowed",
        "sets credentialpath of remote 'store', which is not allowed: credentials do not belong into Git",
        id="G32-credentials from a file",
    ),
    pytest.param(
        remote(url="s3://bucket/x", access_key_id="AKIA"),
        [DVC],
        "DVCConfigNotAllowed",
        "sets access_key_id",
        id="G32-a key in the repository",
    ),
    pytest.param(
        remote(url="s3://bucket/x", ssl_verify="false"),
        [DVC],
        "DVCConfigNotAllowed",
        "sets ssl_verify",
        id="G32-no check of certificates",
    ),
    pytest.param(
        remote(url="remote://other/x"),
        [DVC],
        "DVCConfigNotAllowed",
        "the scheme 'remote'",
        id="G32-a remote of a remote",
    ),
    pytest.param(
        remote(url="ext::sh -c id"),
        [DVC],
        "DVCConfigNotAllowed",
        "has characters in url",
        id="G32-a helper as url",
    ),
    pytest.param(
        remote(url="https://ada:secret@example.com/x"),
        [DVC],
        "DVCConfigNotAllowed",
        "has characters in url",
        id="G32-a password in the url",
    ),
    pytest.param(
        remote(url="../../../etc"),
        [DVC],
        "DVCConfigNotAllowed",
        "leads out of the repository by url of remote 'store'",
        id="G32-a directory outside of the repository",
    ),
    pytest.param(
        remote(url="/srv/../etc"), [DVC], "DVCConfigNotAllowed", "has '..' in url", id="G32-a directory with dots"
    ),
    pytest.param(
        {".dvc/config": b"[core]\n    remote = other\n"},
        [DVC],
        "DVCConfigNotAllowed",
        "has no remote 'other'; there is none",
        id="G32-a default remote that is not there",
    ),
    pytest.param(
        {".dvc/config": b"['remote \"store\"']\n    url = /srv/store\n"},
        [DVC],
        "DVCConfigNotAllowed",
        "names no default remote: dvc remote default NAME",
        id="G32-no default remote",
    ),
    pytest.param(
        {".dvc/config": config("/srv/store") + b"[hydra]\n    enabled = true\n"},
        [DVC],
        "DVCConfigNotAllowed",
        "has the section 'hydra'",
        id="G32-another section",
    ),
    pytest.param(
        {".dvc/config": b"garbage\n"}, [DVC], "DVCConfigNotAllowed", "cannot be read in line 1", id="G32-garbage"
    ),
    pytest.param({".dvc/config": None}, [DVC], "DVCConfigNotAllowed", "there is no .dvc/config", id="G32-none"),
    pytest.param(
        {".dvc/config": ("120000", b"/etc/passwd")},
        [DVC],
        "PathNotAllowed",
        "'.dvc/config' is a link",
        id="G32-the configuration is a link",
    ),
    pytest.param(
        {"data/train.csv.dvc": pointer(DATA, "../../../x.csv")},
        [DVC],
        "PathNotAllowed",
        "the path '../../../x.csv' is not normal",
        id="G33-an out above the repository",
    ),
    pytest.param(
        {"data/train.csv.dvc": pointer(DATA, "/etc/cron.d/x")},
        [DVC],
        "PathNotAllowed",
        "the path '/etc/cron.d/x' is absolute",
        id="G33-an absolute out",
    ),
    pytest.param(
        {"data/train.csv.dvc": pointer(DATA, ".git/config")},
        [DVC],
        "PathNotAllowed",
        "leads into Git's own directory",
        id="G33-an out inside of .git",
    ),
    pytest.param(
        {"data/train.csv.dvc": b"wdir: ../..\n" + pointer(DATA, "x.csv")},
        [DVC],
        "PathNotAllowed",
        "has wdir '../..'",
        id="G33-another working directory",
    ),
    pytest.param(
        {"data/train.csv.dvc": pointer(DATA, "sub/train.csv"), "data/sub": ("120000", b"/etc")},
        [DVC],
        "PathNotAllowed",
        "but 'data/sub' is a link",
        id="G33-an out behind a link",
    ),
    pytest.param(
        {"data/train.csv": ("120000", b"/etc/passwd")},
        [DVC],
        "PathNotAllowed",
        "but 'data/train.csv' is a link",
        id="G33-an out that is a link",
    ),
    pytest.param(
        {"data/train.csv.dvc": ("120000", b"../../x.dvc")},
        [DVC],
        "PathNotAllowed",
        "'data/train.csv.dvc' is a link",
        id="G33-the pointer is a link",
    ),
    pytest.param(
        {"data/train.csv.dvc": pointer(DATA, "parts", digest=md5(DATA) + ".dir")},
        [DVC],
        "DataSpecInvalid",
        "points to the directory 'parts'; a dataset is one table",
        id="G33-a directory, whose list of files is never asked for",
    ),
]


@pytest.mark.parametrize(("files", "wanted", "reason", "words"), REFUSED)
def test_a_hostile_pointer_or_configuration_stops_the_commit(runs, files, wanted, reason, words):
    given = {**runs.files, **DEFAULT, **files}
    runs.files = {path: content for path, content in given.items() if content is not None}
    before = runs.everything()
    with pytest.raises(ClientError) as caught:
        runs.pin(*wanted)
    assert caught.value.reason == reason
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert "secret" not in caught.value.message
    assert runs.everything() == before
    standing.git_says(caught.value, late=True)


def test_a_path_that_nothing_makes_is_simply_not_there(runs):
    runs.files |= {"dvc.lock": lock({"data/other.csv": DATA}), ".dvc/config": config("/srv/store")}
    with pytest.raises(MissingFile):
        runs.pin(OUT)


@pytest.mark.parametrize(
    ("status", "store", "code", "reason", "words"),
    [
        pytest.param(503, {}, 1, "DataUnavailable", "answers HTTP 503", id="G31-the remote is down"),
        pytest.param(
            403, {}, 1, "DataNotReadable", "remote 'store' does not give out", id="G31-the remote says 403"
        ),
        pytest.param(0, {}, 3, "DataMissing", "has no object", id="G31-the object is missing"),
        pytest.param(
            0, {"content": DATA.replace(b"row-7,", b"row-8,")}, 3, "DataCorrupt", "has md5", id="G31-another md5"
        ),
        pytest.param(0, {"content": DATA + b"x"}, 3, "DataCorrupt", f"says {len(DATA):,}", id="G31-another size"),
    ],
)
def test_a_remote_that_does_not_give_the_object_has_its_own_answer(runs, status, store, code, reason, words):
    if store:
        push(runs.root / "store", DATA, **store)
    with ObjectServer(runs.root / "store", status=status) as server:
        runs.files |= {"data/train.csv.dvc": pointer(DATA, "train.csv"), ".dvc/config": config(server.url)}
        assert runs.fetch(runs.pin(DVC)) == code
    assert runs.said["reason"] == reason
    assert words in runs.said["message"]
    assert not (runs.at / "work/data").exists(), "nothing of the data is left for the training"
    # A login that is refused costs no attempt, and is told by one reason, whoever refuses it.
    standing.step_says(runs.said, code=code, told="LoginRefused" if status == 403 else "")


def test_g31_a_remote_that_nobody_answers_for_is_tried_again(runs):
    with ObjectServer(runs.root / "store") as server:
        url = server.url
    runs.files |= {"data/train.csv.dvc": pointer(DATA, "train.csv"), ".dvc/config": config(url)}
    assert runs.fetch(runs.pin(DVC)) == 1
    assert runs.said["reason"] == "DataUnavailable"
    standing.step_says(runs.said, code=1)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        pytest.param("http://127.0.0.1:9/store", "is not in allowedHosts", id="G32-a host that is not listed"),
        pytest.param("http://169.254.169.254/latest", "is not in allowedHosts", id="G32-the metadata service"),
        pytest.param("/etc", "outside the directories allowed", id="G32-a directory of the machine"),
    ],
)
def test_a_foreign_remote_is_refused_where_it_would_be_asked(runs, url, words):
    runs.files |= {"data/train.csv.dvc": pointer(DATA, "train.csv"), ".dvc/config": config(url)}
    assert runs.fetch(runs.pin(DVC), hosts=("data.example.com",)) == 3
    assert runs.said["reason"] == "DVCConfigNotAllowed"
    assert words in runs.said["message"]
    standing.step_says(runs.said)


def test_a_dataset_path_itself_cannot_leave_the_repository():
    for path in ("../x.csv.dvc", "/etc/x.csv.dvc", "a/../../x.dvc"):
        with pytest.raises(ValueError, match="the path"):
            Dataset.model_validate({"name": "train", "path": path})
