"""The manifest of an artifact: one digest for exactly these files, and nothing slips past it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from controller.clients import artifacts
from controller.clients.errors import Denied, NotFound


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    root = tmp_path / "model"
    (root / "code" / "pkg").mkdir(parents=True)
    (root / "MLmodel").write_text("flavors: {}\n")
    (root / "model.pkl").write_bytes(b"\x80\x04model")
    (root / "code" / "pkg" / "own.py").write_text("x = 1\n")
    return root


def test_a_manifest_lists_every_file_sorted_with_size_and_sha256(artifact: Path):
    manifest = artifacts.build_manifest(artifact)
    assert [f.path for f in manifest] == ["MLmodel", "code/pkg/own.py", "model.pkl"]
    assert manifest[2].size == 7
    assert manifest[1].sha256 == "9e26bf369911c45c243c684147b23fc9e1dcfcf257d299a1c632016a6fcd33f4"


def test_the_digest_of_a_manifest_is_held_in_place_by_a_golden_value():
    files = (artifacts.FileDigest("b", 1, "1" * 64), artifacts.FileDigest("a", 0, "0" * 64))
    golden = "sha256:44d7ec7d5c178c5235e92f7163044815e54aca5492f9a768b625059273445f39"
    assert artifacts.manifest_digest(files) == golden
    assert artifacts.manifest_digest(reversed(files)) == golden


def flip(root: Path) -> None:
    path = root / "model.pkl"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def add(name: str):
    def change(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")

    return change


def swap(root: Path) -> None:
    one, two = (root / "MLmodel").read_bytes(), (root / "model.pkl").read_bytes()
    (root / "MLmodel").write_bytes(two)
    (root / "model.pkl").write_bytes(one)


TAMPERED = [
    ("A01 one byte is flipped", flip),
    ("A01 a file is removed", lambda root: (root / "model.pkl").unlink()),
    ("A01 a file is added", add("extra.py")),
    ("A01 a file is renamed", lambda root: (root / "model.pkl").rename(root / "model2.pkl")),
    ("A01 a byte is appended", lambda root: (root / "MLmodel").open("a").write("\n")),
    ("A01 two files are swapped", swap),
    ("A02 a file is added below .git", add(".git/hook")),
    ("A02 a .gitignore is added", add(".gitignore")),
    ("A02 a file is added below .github", add(".github/x.yml")),
    ("A01 an empty file is added below __pycache__", add("code/__pycache__/own.pyc")),
]


@pytest.mark.parametrize("change", [t[1] for t in TAMPERED], ids=[t[0] for t in TAMPERED])
def test_a_changed_artifact_is_refused_with_its_count_of_files_and_both_digests(artifact: Path, change):
    digest = artifacts.manifest_digest(artifacts.build_manifest(artifact))
    assert artifacts.verify(artifact, digest)
    change(artifact)
    with pytest.raises(Denied, match=r"the model's \d+ files have digest sha256:[0-9a-f]{64}, not") as caught:
        artifacts.verify(artifact, digest)
    assert caught.value.reason == "ManifestMismatch"
    assert digest in caught.value.message


REFUSED = [
    ("A03 a link to a file", lambda r: (r / "link").symlink_to(r / "MLmodel"), "is a link"),
    ("A03 a link to a directory", lambda r: (r / "dir").symlink_to(r / "code"), "is a link"),
    ("A03 a dangling link", lambda r: (r / "link").symlink_to("nowhere"), "is a link"),
    ("A03 names that differ in case only", add("mlmodel"), "differ in case only"),
    ("A03 a newline in a name", add("a\nb"), "does not print"),
    ("A03 a path of more than 255 bytes", add("d" * 200 + "/" + "f" * 100), "more than 255"),
    ("a backslash in a name", add("a\\b"), "backslash"),
    ("a pipe", lambda r: os.mkfifo(r / "pipe"), "not a regular file"),
    ("a name that is not UTF-8", lambda r: Path(os.fsdecode(os.fsencode(r) + b"/\xff")).touch(), "UTF-8"),
]


@pytest.mark.parametrize(("change", "said"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_what_is_not_a_plain_file_is_refused(artifact: Path, change, said: str):
    change(artifact)
    with pytest.raises(Denied, match=said) as caught:
        artifacts.build_manifest(artifact)
    assert caught.value.reason == "ArtifactRefused"


def test_an_artifact_of_too_many_files_is_refused(artifact: Path):
    for n in range(artifacts.FILES_MAX):
        (artifact / str(n)).touch()
    with pytest.raises(Denied, match="more than 10,000 files"):
        artifacts.build_manifest(artifact)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a//b", "./MLmodel", ""])
def test_a_named_file_outside_the_directory_is_refused(artifact: Path, name: str):
    (artifact.parent / "secret").write_text("s")
    with pytest.raises(Denied, match="not a plain path"):
        artifacts.build_manifest(artifact, [name])


def test_a_snapshot_holds_the_bytes_that_were_hashed(artifact: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    manifest = artifacts.snapshot(artifact, copy)
    shutil.rmtree(artifact)
    assert artifacts.build_manifest(copy) == manifest


def test_an_mlflow_model_is_found_with_all_its_files(artifact: Path):
    (artifact.parent / "metrics.json").write_text("{}")
    found = artifacts.locate(artifact.parent)
    assert (found.root, found.format) == (artifact, "mlflow")
    assert found.files == ("MLmodel", "code/pkg/own.py", "model.pkl")


@pytest.mark.parametrize(("name", "kind"), artifacts.SINGLE_FILES.items(), ids=artifacts.SINGLE_FILES)
def test_a_single_file_is_found_without_what_else_the_training_left(tmp_path: Path, name: str, kind: str):
    (tmp_path / name).write_bytes(b"x")
    (tmp_path / "metrics.json").write_text("{}")
    found = artifacts.locate(tmp_path)
    assert (found.root, found.files, found.format) == (tmp_path, (name,), kind)


def test_modules_in_code_beside_a_single_file_belong_to_the_model(tmp_path: Path):
    (tmp_path / "model.joblib").write_bytes(b"x")
    add("code/mine.py")(tmp_path)
    assert artifacts.locate(tmp_path).files == ("code/mine.py", "model.joblib")


@pytest.mark.parametrize("marker", ["MLmodel", "model.skops", "model.joblib"])
def test_a_downloaded_artifact_is_found_where_it_lies_and_below_model(tmp_path: Path, marker: str):
    add(f"model/{marker}")(tmp_path)
    assert artifacts.locate(tmp_path / "model") == artifacts.locate(tmp_path)


def test_no_model_says_what_is_there_instead(tmp_path: Path):
    (tmp_path / "model.pkl").touch()
    with pytest.raises(
        NotFound,
        match=r"expected model/MLmodel, model.skops, .*, model.txt in MAINSPRING_OUTPUT; there is model.pkl",
    ) as caught:
        artifacts.locate(tmp_path)
    assert caught.value.reason == "ModelMissing"
    (tmp_path / "model.pkl").unlink()
    with pytest.raises(NotFound, match="there is nothing"):
        artifacts.locate(tmp_path)


def test_two_models_are_refused_by_name(tmp_path: Path):
    add("model/MLmodel")(tmp_path)
    add("model.joblib")(tmp_path)
    with pytest.raises(
        Denied, match=r"2 models were left \(model.joblib, model/MLmodel\): leave exactly one"
    ) as caught:
        artifacts.locate(tmp_path)
    assert caught.value.reason == "AmbiguousModel"


def test_a_model_that_is_a_link_is_refused(tmp_path: Path):
    (tmp_path / "real").write_bytes(b"x")
    (tmp_path / "model.joblib").symlink_to("real")
    with pytest.raises(Denied, match="is a link"):
        artifacts.locate(tmp_path)


def test_the_model_file_that_mlflow_keeps_beside_its_mlmodel_is_not_a_second_model(artifact: Path):
    add("model.skops")(artifact)
    assert artifacts.locate(artifact.parent).format == "mlflow"
