"""A fetch step as it runs in a Job, on a repository of the test's own, with the datasets pinned by the controller.

What a commit asks for is pinned by the code that the controller runs, then fetched by the step's command line.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from controller.api.base import dump
from controller.api.data import Dataset
from controller.api.hashes import files_digest
from controller.api.modelrevision import PinnedData
from controller.clients.git import GitPolicy, Mirrors
from controller.clients.git_types import GitRef
from controller.jobs import fetch as step
from controller.plan.selection import select
from controller.reconcile import datasets
from tests.support.git_repos import Scratch


@dataclass
class Runs:
    """One repository, and the fetch steps that were run on it."""

    root: Path
    monkeypatch: pytest.MonkeyPatch
    files: dict[str, Any] = field(default_factory=lambda: {"train.py": b"print('train')\n"})
    columns: dict[str, Any] = field(default_factory=lambda: {"target": "rides", "id": "id"})
    at: Path = Path()
    commit: str = ""
    count: int = 0
    python: Path = Path(sys.executable)
    """Another Python runs the step in a process of its own."""

    def __post_init__(self) -> None:
        self.repo = Scratch.create(self.root / "repo.git")
        self.mirrors = self.root / "mirrors"
        self.policy = GitPolicy(file_roots=(self.root,))

    def pin(self, *wanted: dict[str, Any]) -> tuple[PinnedData, ...]:
        """Commit the files and pin datasets as the controller does; raises what it would refuse with."""
        self.commit = self.repo.commit(self.files)
        return asyncio.run(self._pin([Dataset.model_validate(w) for w in wanted]))

    async def _pin(self, wanted: list[Dataset]) -> tuple[PinnedData, ...]:
        git = Mirrors(self.mirrors, self.policy)
        await git.resolve(self.repo.url, GitRef(branch="main"), max_age_s=0)
        entries = await git.files(self.repo.url, self.commit)
        self.lines = [(e.mode, e.path, e.blob) for e in entries]
        world: Any = SimpleNamespace(git=git)
        return await datasets.pin(world, self.repo.url, self.commit, wanted, {e.path: e for e in entries})

    def fetch(self, data: tuple[PinnedData, ...], *, hosts: tuple[str, ...] = ("127.0.0.1",), **task: Any) -> int:
        """Run the step on pinned datasets and return its exit code."""
        code = select(self.lines, (), exclude=datasets.files_of(data))
        wanted = {
            "source": {"url": self.repo.url, "commit": self.commit, "paths": [], "files": files_digest(code)},
            "data": [dump(d) for d in data],
            "columns": self.columns,
            "holdout": {},
            "checks": [],
            "params": {},
            "command": ["python", "train.py"],
            "pinnedAt": "2026-01-02T00:00:00Z",
        }
        self.count += 1
        self.at = self.root / f"run-{self.count}"
        self.at.mkdir()
        (self.at / "task.json").write_text(json.dumps(wanted | task))
        self.monkeypatch.setenv("MAINSPRING_TERMINATION_LOG", str(self.at / "termination"))
        argv = ["--task", str(self.at / "task.json"), "--allow-file-root", str(self.root)]
        for name in ("work", "data", "inputs", "features", "labels", "champion", "output"):
            argv += [f"--{name}", str(self.at / name)]
        for host in hosts:
            argv += ["--allow-host", host]
        argv += ["--mirror", str(self.mirrors)]
        if self.python == Path(sys.executable):
            return step.main(argv)
        return subprocess.run([self.python, "-m", "controller.jobs.fetch", *argv], timeout=300).returncode

    @property
    def said(self) -> dict[str, Any]:
        """The termination message of the last run."""
        said: dict[str, Any] = json.loads((self.at / "termination").read_text())
        return said

    @property
    def facts(self) -> dict[str, Any]:
        """What the last run found."""
        facts: dict[str, Any] = json.loads((self.at / "labels/facts.json").read_text())
        return facts

    def everything(self) -> set[str]:
        """Name every file outside of the run's own directories, mirrors and the repository."""
        own = ("run-", "mirrors", "repo.git")
        found = (p.relative_to(self.root) for p in self.root.rglob("*") if p.is_file())
        return {str(p) for p in found if not p.parts[0].startswith(own)}


def table(rows: int = 200) -> bytes:
    """Write rides by hour as CSV."""
    lines = [f"row-{i},{i % 24},{(i * 37 % 100) / 100},{i * 7 % 50 + 0.5}" for i in range(rows)]
    return ("id,hour,temp,rides\n" + "\n".join(lines) + "\n").encode()
