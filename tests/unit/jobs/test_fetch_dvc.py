"""Data that DVC keeps, from pointer to training: pinned by content, pulled from every kind of remote, verified."""

from __future__ import annotations

import hashlib

import pytest

from controller.api.hashes import files_digest
from controller.jobs.fetch_dvc import md5_of
from tests.support.dvc_remotes import ObjectServer, config, key, lock, md5, pointer, push
from tests.support.fetch_runs import Runs, table

DATA = table()
DVC = {"name": "train", "path": "data/train.csv.dvc"}


@pytest.fixture
def runs(tmp_path, monkeypatch):
    made = Runs(tmp_path, monkeypatch)
    made.files["data/train.csv.dvc"] = pointer(DATA, "train.csv")
    return made


def pulled(runs, data=DATA):
    """Check what the training is given, and that all of it came."""
    lines = (runs.at / "work/data/train.csv").read_bytes().splitlines()
    assert len(lines) == runs.facts["trainingRows"] + 1 < len(data.splitlines())
    assert runs.facts["dataSha256"] == {"train": f"sha256:{hashlib.sha256(data).hexdigest()}"}
    assert sorted(p.name for p in (runs.at / "work").rglob("*") if p.is_file()) == ["train.csv", "train.py"]


def test_a_pointer_is_pinned_by_its_content_and_moves_with_nothing_else(runs):
    runs.files[".dvc/config"] = config("/srv/store")
    first = runs.pin(DVC)[0]
    assert (first.path, first.pointer, first.digest) == (
        "data/train.csv",
        "data/train.csv.dvc",
        f"md5:{md5(DATA)}",
    )
    runs.files["data/train.csv.dvc"] = b"# moved\n" + pointer(DATA, "train.csv").replace(
        b"- md5", b"- desc: x\n  md5"
    )
    runs.files[".dvc/config"] = config("https://data.example.com/store")
    assert runs.pin(DVC)[0] == first, "another remote or a comment is no other data"
    runs.files["data/train.csv.dvc"] = pointer(table(150), "train.csv")
    assert runs.pin(DVC)[0].digest == f"md5:{md5(table(150))}"


@pytest.mark.parametrize("legacy", [False, True], ids=["in DVC 3's layout", "in DVC 2's layout"])
def test_data_comes_from_a_directory(runs, legacy):
    push(runs.root / "store", DATA, legacy=legacy)
    runs.files["data/train.csv.dvc"] = pointer(DATA, "train.csv", legacy=legacy)
    runs.files[".dvc/config"] = config(str(runs.root / "store"))
    assert runs.fetch(runs.pin(DVC)) == 0
    pulled(runs)


def test_data_comes_by_http_and_only_the_one_object_is_asked_for(runs):
    push(runs.root / "store", DATA)
    with ObjectServer(runs.root) as server:
        runs.files[".dvc/config"] = config(f"{server.url}/store/")
        assert runs.fetch(runs.pin(DVC)) == 0
    pulled(runs)
    assert [a.path for a in server.asked] == [f"/store/{key(DATA)}"]


def test_data_comes_from_a_directory_of_the_repository_itself(runs):
    runs.files[f"remote/{key(DATA)}"] = DATA
    runs.files[".dvc/config"] = config("../remote")
    data = runs.pin(DVC)
    assert runs.fetch(data) == 3, "the store is among the code, hold-out rows included"
    assert f"'remote/{key(DATA)}' has the same content as dataset train" in runs.said["message"]
    source = {"url": runs.repo.url, "commit": runs.commit, "paths": ["train.py"]}
    files = files_digest(line for line in runs.lines if line[1] == "train.py")
    assert runs.fetch(data, source=source | {"files": files}) == 0
    pulled(runs)


def test_an_out_of_a_pipeline_is_found_in_its_lock(runs):
    del runs.files["data/train.csv.dvc"]
    runs.files |= {"dvc.yaml": b"stages: {}\n", "dvc.lock": lock({"data/train.csv": DATA}, {"raw.csv": b"x"})}
    runs.files |= {"raw.csv.dvc": pointer(b"x", "raw.csv"), ".dvc/config": config(str(runs.root / "store"))}
    push(runs.root / "store", DATA)
    data = runs.pin({"name": "train", "path": "data/train.csv"})
    assert (data[0].pointer, data[0].digest) == ("dvc.lock", f"md5:{md5(DATA)}")
    assert runs.fetch(data) == 0
    assert (runs.at / "work/data/train.csv").exists()


def test_an_old_pointer_to_a_text_with_windows_line_ends_is_verified_as_dvc_2_did(runs):
    text = DATA.replace(b"\n", b"\r\n")
    old = pointer(text, "train.csv", legacy=True, digest=md5(DATA))
    runs.files |= {"data/train.csv.dvc": old, ".dvc/config": config(str(runs.root / "store"))}
    push(runs.root / "store", DATA, legacy=True, content=text)
    assert runs.fetch(runs.pin(DVC)) == 0
    pulled(runs, text)
    runs.files["data/train.csv.dvc"] = old.replace(b"  path", b"  hash: md5\n  path")
    assert runs.fetch(runs.pin(DVC)) == 3, "since DVC 3 every byte counts"
    assert runs.said["reason"] == "DataCorrupt"


def test_the_data_of_the_nearest_configuration_and_of_a_named_remote_is_pulled(runs):
    push(runs.root / "mine", DATA)
    both = config("/srv/elsewhere") + f"['remote \"mine\"']\n    url = {runs.root / 'mine'}\n".encode()
    runs.files[".dvc/config"] = b"garbage"
    runs.files["data/.dvc/config"] = both
    runs.files["data/train.csv.dvc"] = pointer(DATA, "train.csv").replace(b"  path", b"  remote: mine\n  path")
    assert runs.fetch(runs.pin(DVC)) == 0
    assert (runs.at / "work/data/train.csv").exists()


def test_a_commit_that_points_elsewhere_than_pinned_is_refused(runs):
    runs.files[".dvc/config"] = config(str(runs.root / "store"))
    data = runs.pin(DVC)
    moved = data[0].model_copy(update={"digest": "md5:" + "0" * 32})
    assert runs.fetch((moved,)) == 3
    assert runs.said["reason"] == "DataChanged"
    assert "0000000000… was pinned" in runs.said["message"]


def test_an_s3_service_gets_a_signed_request_for_the_object_and_no_secret(runs, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    push(runs.root / "store/pre", DATA)
    with ObjectServer(runs.root / "store", bucket="team") as server:
        runs.files[".dvc/config"] = config("s3://team/pre", endpointurl=server.url, region="eu-north-1")
        assert runs.fetch(runs.pin(DVC)) == 0
    pulled(runs)
    (asked,) = server.asked
    assert asked.path == f"/team/pre/{key(DATA)}"
    assert asked.query["X-Amz-Credential"][0].startswith("AKIAEXAMPLE/")
    assert asked.query["X-Amz-Credential"][0].endswith("/eu-north-1/s3/aws4_request")
    assert len(asked.query["X-Amz-Signature"][0]) == 64
    assert "very-secret" not in str(asked)


def test_an_open_bucket_needs_no_credentials(runs, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(runs.root / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(runs.root / "none"))
    push(runs.root / "store", DATA)
    with ObjectServer(runs.root / "store", bucket="open") as server:
        runs.files[".dvc/config"] = config("s3://open", endpointurl=server.url)
        assert runs.fetch(runs.pin(DVC)) == 0
    assert server.asked[0].query == {}


def test_credentials_come_from_the_standard_file_and_no_command_of_it_runs(runs, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    marker = runs.root / "ran"
    settings = runs.root / "aws"
    settings.write_text(f"[default]\ncredential_process = touch {marker}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(settings))
    secret = runs.root / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(secret))
    push(runs.root / "store", DATA)
    with ObjectServer(runs.root / "store", bucket="team") as server:
        runs.files[".dvc/config"] = config("s3://team", endpointurl=server.url)
        data = runs.pin(DVC)
        assert runs.fetch(data) == 0
        secret.write_text("[default]\naws_access_key_id = AKIAFILE\naws_secret_access_key = x\n")
        assert runs.fetch(data) == 0
    assert [a.query.get("X-Amz-Credential", [""])[0][:8] for a in server.asked] == ["", "AKIAFILE"]
    assert not marker.exists()


def test_the_host_of_an_s3_service_is_judged_like_any_other(runs):
    runs.files[".dvc/config"] = config("s3://team/pre", endpointurl="http://169.254.169.254")
    assert runs.fetch(runs.pin(DVC)) == 3
    assert runs.said["reason"] == "DVCConfigNotAllowed"


def test_md5_of_a_text_joins_line_ends_chunk_by_chunk(tmp_path):
    file = tmp_path / "x"
    file.write_bytes(b"a" * (2**20 - 1) + b"\r\n" + b"b\r\n")
    assert md5_of(file, text=True) == md5(b"a" * (2**20 - 1) + b"\r\n" + b"b\n")
