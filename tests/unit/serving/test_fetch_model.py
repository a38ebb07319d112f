"""What the init container leaves for a server: exactly the files of the digest, or nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from controller.api.reports import Termination
from controller.clients.errors import Denied, NotFound, Unavailable
from controller.serving import fetch_model
from tests.support.serving_models import digest_of


class Run:
    """A run of a registry, in memory."""

    def __init__(self, files: dict[str, bytes], sample: bytes | None = None) -> None:
        self.files, self.sample, self.down = files, sample, False

    async def download_model(self, run_id: str, dest: Path) -> int:
        if self.down:
            raise Unavailable("MLflow does not answer")
        for name, content in self.files.items():
            (dest / name).parent.mkdir(parents=True, exist_ok=True)
            (dest / name).write_bytes(content)
        return len(self.files)

    async def read_artifact(self, run_id: str, path: str, limit: int = 0) -> bytes:
        assert path == "mainspring/sample.json"
        if self.sample is None:
            raise NotFound("no such artifact")
        return self.sample


FILES = {"model.joblib": b"model", "code/mine.py": b"x = 1"}


@pytest.fixture
def digest(tmp_path) -> str:
    asyncio.run(Run(FILES).download_model("", tmp_path / "original"))
    return digest_of(tmp_path / "original")


def fetch(run: Run, digest: str, out: Path) -> None:
    asyncio.run(fetch_model.fetch_model(run, "r1", digest, out))


def test_the_model_and_its_sample_are_laid_out_for_the_server(tmp_path, digest):
    fetch(Run(FILES, b'{"instances": [[1]]}'), digest, tmp_path / "out")
    found = sorted(
        p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()
    )
    assert found == ["model/code/mine.py", "model/model.joblib", "sample.json"]
    assert digest_of(tmp_path / "out") == digest


def test_a_run_without_a_sample_is_fetched_all_the_same(tmp_path, digest):
    fetch(Run(FILES), digest, tmp_path / "out")
    assert not (tmp_path / "out" / "sample.json").exists()


@pytest.mark.parametrize(
    "files",
    [{**FILES, "model.joblib": b"modeL"}, {**FILES, "more": b""}, {"model.joblib": b"model"}],
    ids=["another byte", "another file", "a missing file"],
)
def test_other_files_than_those_of_the_digest_leave_nothing(files, tmp_path, digest):
    with pytest.raises(Denied) as caught:
        fetch(Run(files, b"{}"), digest, tmp_path / "out")
    assert caught.value.reason == "ManifestMismatch"
    assert list((tmp_path / "out").iterdir()) == []


def test_a_server_that_restarts_needs_no_registry(tmp_path, digest):
    run = Run(FILES)
    fetch(run, digest, tmp_path / "out")
    run.down = True
    fetch(run, digest, tmp_path / "out")
    with pytest.raises(Unavailable):
        fetch(run, digest, tmp_path / "elsewhere")


def test_what_was_changed_on_disk_is_fetched_anew(tmp_path, digest):
    fetch(Run(FILES), digest, tmp_path / "out")
    (tmp_path / "out" / "model" / "model.joblib").write_bytes(b"changed")
    fetch(Run(FILES), digest, tmp_path / "out")
    assert digest_of(tmp_path / "out") == digest


def test_without_a_registry_the_step_says_what_is_missing(tmp_path, digest, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MAINSPRING_TERMINATION_LOG", str(tmp_path / "said"))
    assert fetch_model.main(["--run", "r", "--digest", digest, "--out", str(tmp_path / "out")]) == 3
    ended = Termination.model_validate_json((tmp_path / "said").read_bytes())
    assert (ended.reason, "MLFLOW_TRACKING_URI is not set" in ended.message) == ("RegistryMissing", True)
