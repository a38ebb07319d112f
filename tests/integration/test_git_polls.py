"""However many ModelSpecs follow a repository, it is asked once per interval."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from controller.api.kinds import ModelSpec, parse
from controller.clients.git import GitPolicy, Mirrors
from controller.plan.observed import SourceSeen
from controller.reconcile import observe
from tests.support.git_repos import Scratch
from tests.support.simulation import Simulation


@pytest.mark.parametrize("models", [1, 50])
def test_one_poll_and_one_fetch_for_all_models_of_a_repository(tmp_path: Path, models: int) -> None:
    origin = Scratch.create(tmp_path / "origin")
    origin.commit({"train.py": b"fit()", "data.csv": b"1,2"})
    mirrors = Mirrors(tmp_path / "mirrors", GitPolicy(file_roots=(tmp_path,)))
    world = replace(Simulation().world, git=mirrors)

    async def go() -> list[object]:
        return list(await asyncio.gather(*(observe.source(world, model(i, origin.url)) for i in range(models))))

    found = asyncio.run(go())
    assert all(isinstance(s, SourceSeen) for s in found), found[0]
    assert (mirrors.polls, mirrors.fetches) == (1, 1)


def model(number: int, url: str) -> ModelSpec:
    manifest = {
        "apiVersion": "mainspring.dev/v1alpha1",
        "kind": "ModelSpec",
        "metadata": {"name": f"m{number}"},
        "spec": {
            "source": {"url": url, "ref": {"branch": "main"}, "paths": ["train.py"]},
            "data": [{"name": "train", "path": "data.csv"}],
            "columns": {"target": "y"},
            "training": {"command": ["python", "train.py"]},
        },
    }
    parsed = parse(manifest)
    assert isinstance(parsed, ModelSpec), parsed
    return parsed
