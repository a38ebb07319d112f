"""Opens what a verb works on: the local state, or a cluster.  Both look the same to the verb.

Never creates a state directory: a verb that finds none says how to start one.  An error says where was looked
wherever that was a choice.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Protocol, TypeVar

import typer

from controller.cli import place
from controller.cli.errors import Failure

if TYPE_CHECKING:
    from controller.cli.podlogs import Logs
    from controller.cli.predict import Ask
    from controller.local.session import Places
    from controller.local.store import Store
    from controller.reconcile.kube import Kube
    from controller.reconcile.world import World

T = TypeVar("T")

DEFAULT_STATE: Final = Path(".mainspring")
NO_REGISTRY: Final = "http://127.0.0.1:9"
"""Address at which nothing ever answers: stands for an MLflow server that was never started."""

State = Annotated[
    Path, typer.Option("--state", envvar="MAINSPRING_STATE", help="State directory.", show_default=True)
]
Namespace = Annotated[
    str, typer.Option("--namespace", "-n", help="Namespace; on a cluster that of the context.", show_default=True)
]


class Session(Protocol):
    """What a verb works on."""

    @property
    def store(self) -> Kube:
        """The objects."""
        ...

    @property
    def logs(self) -> Logs:
        """What containers have written."""
        ...

    @property
    def who(self) -> str:
        """What must run for anything to be decided, in words: `mainspring up`, or the operator."""
        ...

    async def world(self) -> World:
        """Put together what a decision is read from. Starts nothing."""
        ...

    def asking(self, namespace: str, name: str, url: str) -> Ask:
        """Return what sends rows to a served model."""
        ...

    async def whoami(self) -> str:
        """Name the person who asks, as the place knows it."""
        ...


@dataclass(frozen=True, slots=True)
class Local:
    """The local state of one verb."""

    where: Places
    store: Store
    who: str = "mainspring up"
    closing: AsyncExitStack = field(default_factory=AsyncExitStack)
    """What is closed at the end of the verb."""

    @property
    def logs(self) -> Logs:
        """Logs of the processes that stand for pods, `<state>/pods/<namespace>/<pod>/<container>.log`."""
        from controller.cli.podlogs import LocalLogs

        return LocalLogs(self.where.state / "pods")

    async def world(self) -> World:
        """Put together what a decision is read from. Starts nothing; an MLflow that is down stays down."""
        from controller.local.session import open_world

        uri = noted(self.where.state / "tracking-uri") or NO_REGISTRY
        router = noted(self.where.state / "router-url")
        world = open_world(self.where, self.store, tracking_uri=uri, router_url=router)
        self.closing.push_async_callback(world.close)
        return world

    def asking(self, namespace: str, name: str, url: str) -> Ask:  # noqa: ARG002
        """Ask the address of the status, as any client would."""
        from controller.cli.predict import direct

        return direct(f"{url}/invocations", self.who)

    async def whoami(self) -> str:
        """Name the user of this machine."""
        from getpass import getuser

        return getuser()


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
    local = Local(where, store)
    try:
        yield local
    finally:
        await local.closing.aclose()
        store.close()


@asynccontextmanager
async def open_place(where: place.Place) -> AsyncIterator[Session]:
    """Open the local state or the cluster.

    Raises:
        Failure: there is no state directory.
        Denied, Unavailable: the cluster cannot be used.
    """
    if where.kind == "local":
        async with open_local(where.state) as local:
            yield local
        return
    from controller.cli.cluster import open_cluster

    async with open_cluster(where) as cluster:
        yield cluster


def run(state: Path, work: Callable[[Session], Awaitable[T]]) -> T:
    """Open what the command line says, do the work, close it.

    Raises:
        Failure: what the work or the opening could not do, with where it was tried if that was a choice.
    """
    where = place.current(state)

    async def opened() -> T:
        async with open_place(where) as session:
            return await work(session)

    from controller.clients.errors import ClientError

    try:
        return asyncio.run(opened())
    except Failure as failure:
        raise Failure(f"{failure.message}{_where(where)}", code=failure.code) from None
    except ClientError as error:
        if not _where(where):
            raise
        raise Failure(f"{error.message}{_where(where)}") from error


def _where(where: place.Place) -> str:
    """Say where was looked; nothing on a machine that knows no cluster, where there is no doubt."""
    if where.kind == "cluster":
        return f" [asked {where}: {where.why}]"
    if not place.has_cluster(os.environ):
        return ""
    why = where.why or "no cluster was named; --kubeconfig or --context chooses one"
    return f" [looked in {where}: {why}]"
