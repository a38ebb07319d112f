"""Opens the local state for one verb: its store, and, for the verbs that read Git or the ledger, its world.

Never creates a state directory: a verb that finds none says how to start one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from controller.cli.errors import Failure

if TYPE_CHECKING:
    from controller.local.session import Places
    from controller.local.store import Store
    from controller.reconcile.world import World

T = TypeVar("T")

DEFAULT_STATE: Final = Path(".mainspring")
NO_REGISTRY: Final = "http://127.0.0.1:9"
"""Address at which nothing ever answers: stands for an MLflow server that was never started."""

State = Annotated[
    Path, typer.Option("--state", envvar="MAINSPRING_STATE", help="State directory.", show_default=True)
]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace.", show_default=True)]


@dataclass(frozen=True, slots=True)
class Local:
    """The local state of one verb."""

    where: Places
    store: Store

    def pods(self, namespace: str) -> Path:
        """Directory of the pods of a namespace; each holds one `<container>.log` per container."""
        return self.where.state / "pods" / namespace

    def world(self) -> World:
        """Put together what a decision is read from. Starts nothing; an MLflow that is down stays down."""
        from controller.local.session import open_world

        uri = noted(self.where.state / "tracking-uri") or NO_REGISTRY
        return open_world(
            self.where, self.store, tracking_uri=uri, router_url=noted(self.where.state / "router-url")
        )


def noted(file: Path) -> str:
    """Read an address that `mainspring up` wrote down; empty when it never ran."""
    return file.read_text().strip() if file.exists() else ""


@asynccontextmanager
async def open_local(state: Path) -> AsyncIterator[Local]:
    """Open the state directory.

    Raises:
        Failure: there is none.
    """
    if not (state / "objects.db").exists():
        raise Failure(f"no local state in {state}; start it with mainspring up")
    from controller.local.session import open_store, places

    where = places(state)
    store = open_store(where)
    try:
        yield Local(where, store)
    finally:
        store.close()


def run(state: Path, work: Callable[[Local], Awaitable[T]]) -> T:
    """Open the state, do the work, close it."""

    async def opened() -> T:
        async with open_local(state) as local:
            return await work(local)

    return asyncio.run(opened())
