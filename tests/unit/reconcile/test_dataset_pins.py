"""What the controller says of a commit whose data DVC keeps, or whose checks are in a file, before any Job."""

from __future__ import annotations

import asyncio

import pytest

from controller.api.kinds import ModelSpec, parse
from controller.api.meta import API_VERSION
from controller.plan.observed import SourceSeen
from controller.plan.verdict import Refused
from controller.reconcile import observe
from tests.support.dvc_remotes import config, md5, pointer
from tests.support.simulation import URL, Simulation

FILES = {
    "train.py": b"fit()",
    "data/train.csv.dvc": pointer(b"1,2", "train.csv"),
    ".dvc/config": config("s3://team/data"),
    "checks/schema.yaml": b"columns: {a: {dtype: int64}}",
}
SUITE = {"name": "suite", "pandera": {"path": "checks/schema.yaml"}}


def seen(files, paths=(), checks=()):
    """Look at a repository of these files."""
    simulation = Simulation()
    # The simulated commit is named by its subject; a real one by its content, which is looked at once only.
    simulation.git.commit(f"Train {md5(repr(sorted(files.items())).encode())}", files)
    spec = {
        "source": {"url": URL, "ref": {"branch": "main"}, "paths": list(paths)},
        "data": [{"name": "train", "path": "data/train.csv.dvc"}],
        "columns": {"target": "a"},
        "training": {"command": ["python", "train.py"]},
        "checks": list(checks),
    }
    manifest = {"apiVersion": API_VERSION, "kind": "ModelSpec", "metadata": {"name": "m", "namespace": "d"}}
    parsed = parse({**manifest, "spec": spec})
    assert isinstance(parsed, ModelSpec), parsed
    return asyncio.run(observe.source(simulation.world, parsed))


def test_the_data_moves_with_its_content_only_and_the_code_with_neither():
    first = seen(FILES)
    assert isinstance(first, SourceSeen)
    assert [d.digest for d in first.data] == [f"md5:{md5(b'1,2')}"]
    moved = seen({**FILES, ".dvc/config": config("https://data.example.com"), "train.py": b"fit()"})
    assert (moved.data, moved.files) == (first.data, first.files), "another remote is neither data nor code"
    grown = seen({**FILES, "data/train.csv.dvc": pointer(b"1,2\n3,4", "train.csv")})
    assert grown.data != first.data
    assert grown.files == first.files, "the pointer is no code"


def test_a_pointer_that_is_not_there_is_named_with_the_nearest_file():
    files = {("data/trane.csv.dvc" if k.endswith(".csv.dvc") else k): v for k, v in FILES.items()}
    refused = seen(files)
    assert isinstance(refused, Refused)
    assert refused.reason == "PathNotFound"
    assert "data/trane.csv.dvc" in refused.message


def test_a_hostile_configuration_stops_the_commit_before_any_job():
    refused = seen({**FILES, ".dvc/config": config("ssh://example.com/x", ask_password="true")})
    assert isinstance(refused, Refused)
    assert refused.reason == "DVCConfigNotAllowed"
    assert "ask_password" in refused.message


@pytest.mark.parametrize(
    ("paths", "files", "reason", "words"),
    [
        pytest.param(
            ["train.py"],
            FILES,
            "RuleInvalid",
            "checks/schema.yaml is not among source.paths, so a change of it would not be seen",
            id="a schema outside of source.paths",
        ),
        pytest.param(
            [],
            {k: v for k, v in FILES.items() if not k.startswith("checks")},
            "PathNotFound",
            "check suite: checks/schema.yaml is not in main@sha1:",
            id="a schema that is not there",
        ),
    ],
)
def test_a_file_of_checks_must_be_code(paths, files, reason, words):
    refused = seen(files, paths, [SUITE])
    assert isinstance(refused, Refused)
    assert refused.reason == reason
    assert words in refused.message
    assert isinstance(seen(FILES, ["train.py", "checks/"], [SUITE]), SourceSeen)
