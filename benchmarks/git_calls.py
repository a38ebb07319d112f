"""How often Git is called for 1, 100 and 1,000 ModelSpecs that follow one repository.

`python -m benchmarks.git_calls`.  Counts processes, polls and fetches of one round in which all of them are looked
at, at the same time; the numbers must not depend on how many there are.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from controller.api.kinds import ModelSpec, parse
from controller.clients import git_cat, git_process
from controller.clients.git import GitPolicy, Mirrors
from controller.plan.observed import SourceSeen
from controller.reconcile import observe
from tests.support.git_repos import Scratch
from tests.support.simulation import Simulation
from tests.support.stories import spec

FILES = {"train.py": b"fit()", "quality": b"50", "data.csv": b"1,2", "deploy/model.yaml": b"apiVersion: v1\n"}


def calls(models: int) -> dict[str, int]:
    """Look at all models at once with mirrors that know nothing yet; returns what was called how often."""
    started = 0
    start, popen = git_process.asyncio.create_subprocess_exec, git_cat.subprocess.Popen

    async def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal started
        started += 1
        return await start(*args, **kwargs)

    class Counted(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            nonlocal started
            started += 1
            super().__init__(*args, **kwargs)

    with tempfile.TemporaryDirectory() as scratch:
        origin = Scratch.create(Path(scratch) / "origin")
        origin.commit(dict(FILES))
        mirrors = Mirrors(Path(scratch) / "mirrors", GitPolicy(file_roots=(Path(scratch),)))
        world = replace(Simulation().world, git=mirrors)
        specs = [model(n, origin.url) for n in range(models)]

        async def go() -> None:
            found = await asyncio.gather(*(observe.source(world, m) for m in specs))
            assert all(isinstance(f, SourceSeen) for f in found)

        git_process.asyncio.create_subprocess_exec = counted
        git_cat.subprocess.Popen = Counted  # type: ignore[misc]
        observe.forget()
        try:
            asyncio.run(go())
        finally:
            git_process.asyncio.create_subprocess_exec = start
            git_cat.subprocess.Popen = popen  # type: ignore[misc]
        return {"git processes": started, "polls": mirrors.polls, "fetches": mirrors.fetches}


def model(number: int, url: str) -> ModelSpec:
    """Build one of many models of a repository."""
    manifest = spec()
    manifest["metadata"]["name"] = f"bikes-{number}"
    manifest["spec"]["source"]["url"] = url
    parsed = parse(manifest)
    assert isinstance(parsed, ModelSpec), parsed
    return parsed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, nargs="+", default=[1, 100, 1000])
    counts = parser.parse_args().models
    calls(1)  # a process asks for Git's version once, whoever comes first
    for count in counts:
        print(f"{count:>5} ModelSpecs: {', '.join(f'{v} {k}' for k, v in calls(count).items())}")
