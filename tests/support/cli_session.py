"""A state directory as `mainspring up` would leave it, told by a story, and the command line on it.

The objects are real: written by the real reconcilers into a real store file, in a simulated world.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from controller.api.meta import Key, Manifest
from controller.cli.main import app
from controller.local.store import Store
from tests.support.simulation import Simulation
from tests.support.stories import spec

FIRST = {"train.py": b"fit()", "quality": b"60", "data.csv": b"1,2"}


def model(name: str = "bikes", **changes: Any) -> Manifest:
    """Build a ModelSpec; keyword arguments replace fields of its spec."""
    return {**spec(**changes), "metadata": {"name": name}}


@dataclass
class Answered:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


def mainspring(state: Path, *args: str, stdin: str | None = None) -> Answered:
    """Run a verb on a state directory."""
    env = {"MAINSPRING_STATE": str(state), "MAINSPRING_DATA": str(state / "data"), "MAINSPRING_DEBUG": ""}
    result = CliRunner().invoke(app, list(args), env=env, input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Answered(result.exit_code, result.stdout, result.stderr)


def simulation(state: Path) -> Simulation:
    """Make a simulated world whose objects are in the state directory."""
    s = Simulation()
    uids = iter(range(1, 10**6))
    state.mkdir(exist_ok=True)
    s.store = Store.open(state / "objects.db", now=s.clock.now, uids=lambda: f"uid-{next(uids)}")
    s.restart()
    return s


def tell(state: Path, story: Callable[[Simulation], Coroutine[Any, Any, None]]) -> Simulation:
    """Let a story happen; its world goes on from there when the test wants it to."""
    s = simulation(state)
    asyncio.run(story(s))
    return s


async def serving(s: Simulation) -> None:
    """Serve the first commit."""
    s.git.commit("Predict bikes", FIRST)
    await s.store.apply(model())
    await s.run(60)


async def refused(s: Simulation) -> None:
    """Refuse the second commit by both gates."""
    await serving(s)
    s.git.commit("Try a shallow tree", {"quality": b"120"})
    await s.run(80)


async def failed(s: Simulation) -> None:
    """Fail to train the second commit."""
    await serving(s)
    s.fail_training = lambda job: True
    s.git.commit("Use temperature", {"quality": b"40"})
    await s.run(160)


def stored(state: Path, kind: str, name: str, namespace: str = "default") -> Any:
    """Read an object past the command line; None when there is none."""
    store = Store.open(state / "objects.db")
    try:
        return asyncio.run(store.get(Key(kind, namespace, name)))
    finally:
        store.close()


def put(state: Path, *manifests: Manifest, statuses: dict[str, Manifest] | None = None) -> None:
    """Write objects, and statuses by name, past the command line."""

    async def work() -> None:
        for manifest in manifests:
            made = await store.apply(manifest)
            status = (statuses or {}).get(made["metadata"]["name"])
            if status is not None:
                meta = made["metadata"]
                await store.patch_status(
                    Key(made["kind"], meta["namespace"], meta["name"]), status, uid=meta["uid"]
                )

    state.mkdir(exist_ok=True)
    store = Store.open(state / "objects.db")
    try:
        asyncio.run(work())
    finally:
        store.close()


def snapshot(state: Path) -> dict[str, str]:
    """Say which objects there are and at which version, to see that nothing was written."""
    store = Store.open(state / "objects.db")
    kinds = ("ModelSpec", "ModelRevision", "ModelRepository", "Job", "Deployment", "Service", "HTTPRoute", "Event")
    try:
        found = [m for kind in kinds for m in asyncio.run(store.list(kind))]
    finally:
        store.close()
    return {f"{m['kind']}/{m['metadata']['name']}": m["metadata"]["resourceVersion"] for m in found}
