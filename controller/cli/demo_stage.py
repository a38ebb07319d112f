"""What the demo plays on: a scratch Git repository, the controller as a process of its own, and steady traffic.

Plays the people and the users of a model; decides nothing and writes no object.
"""

from __future__ import annotations

import asyncio
import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller.api.meta import Key, Manifest
from controller.cli.errors import Failure
from controller.local.session import Places, open_store
from controller.local.store import Store

MODEL = "bikes"
REQUESTS_PER_S = 20.0
_IDENTITY = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "commit.gpgsign=false")


class Repository:
    """The scratch repository, changed by plain git commands as a person would."""

    def __init__(self, path: Path, example: Path) -> None:
        self.path = path
        self.example = example

    def create(self) -> str:
        """Fill it from the example and commit; the ModelSpec follows this very repository."""
        for name in ("train.py", "features.py", "README.md", "data/bikes.csv"):
            target = self.path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((self.example / name).read_bytes())
        text = (self.example / "model.yaml").read_text()
        text = text.replace("https://git.example.com/team/bikes.git", self.url)
        text = text.replace("interval: 1m\n  data", "interval: 1s\n  data").replace("interval: 1m", "interval: 5s")
        (self.path / "deploy").mkdir()
        (self.path / "deploy" / "model.yaml").write_text(text)
        self._git("init", "--quiet", "--initial-branch=main")
        return self.commit("Predict bike rentals")

    @property
    def url(self) -> str:
        """Address that the controller follows."""
        return f"file://{self.path}"

    def commit(self, subject: str) -> str:
        """Commit everything."""
        self._git("add", "--all")
        self._git("commit", "--quiet", "-m", subject)
        return self._git("rev-parse", "HEAD")

    def patch(self, name: str) -> None:
        """Apply a variant of the example."""
        self._git("apply", str(self.example / "variants" / f"{name}.patch"))

    def revert(self) -> str:
        """Revert the newest commit."""
        self._git("revert", "--no-edit", "HEAD")
        return self._git("rev-parse", "HEAD")

    def edit(self, name: str, change: Callable[[str], str]) -> None:
        """Change the text of a file."""
        file = self.path / name
        file.write_text(change(file.read_text()))

    def _git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *_IDENTITY, *arguments],  # noqa: S607
            cwd=self.path,
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": os.environ["PATH"], "HOME": str(self.path), "GIT_CONFIG_NOSYSTEM": "1"},
        )
        if done.returncode != 0:
            raise Failure(f"git {arguments[0]} failed: {done.stderr.strip()}")
        return done.stdout.strip()


class Operator:
    """`mainspring up` as a process, which can be killed."""

    def __init__(self, where: Places, repository: Repository, log: Path) -> None:
        self.where = where
        self.repository = repository
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again."""
        command = [sys.executable, "-m", "controller", "up", "--state", str(self.where.state)]
        command += ["--data", str(self.where.data), "--repo", self.repository.url, "--path", "deploy"]
        command += ["--interval", "1s"]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)

    def kill(self) -> None:
        """SIGKILL: no handler runs, nothing is saved."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Ctrl-C, which ends jobs, servers, router and MLflow too."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def check(self) -> None:
        """Raise when it has ended by itself."""
        if self.process is not None and self.process.poll() is not None:
            last = self.log.read_text(errors="replace").strip().splitlines()[-1:]
            raise Failure(f"the controller ended with code {self.process.returncode}: {' '.join(last)}")


@dataclass
class Traffic:
    """Requests to the served model, all the time; counts answers by revision."""

    rows: list[dict[str, Any]]
    keep_alive: bool = True
    """False: a connection of its own for every request, as a Service needs that splits connections."""
    answered: int = 0
    failed: int = 0
    failures: list[str] = field(default_factory=list)
    by_revision: dict[str, int] = field(default_factory=dict)

    async def run(self, url: str) -> None:
        """Send requests until cancelled; each must be answered with a prediction."""
        import httpx

        picker = random.Random(7)  # noqa: S311 - rows to ask about, not a secret
        limits = httpx.Limits(max_keepalive_connections=None if self.keep_alive else 0)
        async with httpx.AsyncClient(timeout=30.0, trust_env=False, limits=limits) as client:
            while True:
                due = time.monotonic() + 1 / REQUESTS_PER_S
                row = picker.choice(self.rows)
                try:
                    response = await client.post(f"{url}/invocations", json={"dataframe_records": [row]})
                    self._count(response.status_code, response.text, response.headers)
                except httpx.HTTPError as error:
                    self._fail(f"{type(error).__name__}: {error}")
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    def _count(self, status: int, text: str, headers: Any) -> None:
        if status != 200 or "predictions" not in text:
            self._fail(f"{status}: {text[:200]}")
            return
        self.answered += 1
        revision = headers.get("x-mainspring-revision", "unknown")
        self.by_revision[revision] = self.by_revision.get(revision, 0) + 1

    def _fail(self, why: str) -> None:
        self.failed += 1
        self.failures.append(why)


def read_rows(file: Path, target: str, most: int = 500) -> list[dict[str, Any]]:
    """Read rows to ask about: those of the data, without the target."""

    def value(text: str) -> Any:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text

    with file.open(newline="") as handle:
        found = [{k: value(v) for k, v in row.items() if k != target} for row in csv.DictReader(handle)]
    return found[:: max(1, len(found) // most)]


class View:
    """The objects, as anybody can read them."""

    def __init__(self, where: Places) -> None:
        self._where = where
        self._store: Store | None = None

    async def model(self) -> Manifest | None:
        """Read the ModelSpec; None before there is one."""
        store = self._open()
        return await store.get(Key("ModelSpec", "default", MODEL)) if store is not None else None

    async def list(self, kind: str) -> tuple[Manifest, ...]:
        """Read all objects of a kind."""
        store = self._open()
        return await store.list(kind) if store is not None else ()

    def close(self) -> None:
        """Close the store."""
        if self._store is not None:
            self._store.close()

    def _open(self) -> Store | None:
        if self._store is None and self._where.objects.exists():
            self._store = open_store(self._where)
        return self._store


def condition(manifest: Manifest | None, type_: str) -> Manifest:
    """Find a condition; empty when it is not there."""
    conditions = ((manifest or {}).get("status") or {}).get("conditions", ())
    return next((c for c in conditions if c["type"] == type_), {})


def champion(manifest: Manifest | None) -> Manifest:
    """Read what serves; empty when nothing does."""
    found: Manifest = ((manifest or {}).get("status") or {}).get("champion") or {}
    return found
