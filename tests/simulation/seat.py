"""One controller of the simulated world: its memory, its view, and the place where it can be stopped or killed.

It runs the real reconcilers.  Before and after each call of the object store and the registry it passes a gate,
where the walker may leave it standing while others act, or kill it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from controller.api.meta import Key, Manifest, key_of
from controller.clients.errors import ClientError, Unavailable
from controller.clients.git_types import GitRef, Head, TreeEntry
from controller.clients.signing import Verifier
from controller.reconcile.ledger import LedgerBook
from controller.reconcile.queue import Next
from controller.reconcile.reconciler import RECONCILERS
from controller.reconcile.world import Settings, World
from tests.simulation import stakes
from tests.simulation.outside import Doubtful, Trouble

if TYPE_CHECKING:
    from tests.simulation.arena import Arena

WRITES = ("apply", "create", "patch_status", "delete", "annotate", "patch_spec")
FREE = 10**9


class Seen:
    """What one look at an object has read so far."""

    def __init__(self) -> None:
        self.objects: dict[Key, Manifest | None] = {}
        self.changed: dict[Key, Manifest | None] = {}
        """What the look itself has made, None: deleted."""
        self.heads: list[Head] = []
        self.counters: Mapping[str, float] | None = None
        """None: not read, or it could not be."""
        self.listed: set[str] = set()

    def one(self, kind: str, namespace: str, name: str) -> Manifest:
        """Find an object as it was read; empty when it was not, or was not there."""
        return self.objects.get(Key(kind, namespace, name)) or {}

    def note(self, verb: str, what: Any) -> None:
        """Remember what the look itself has changed about the split of the requests."""
        if verb == "delete":
            self.changed[what] = None
        elif verb == "apply" and what["kind"] == "HTTPRoute":
            self.changed[key_of(what)] = what

    def kind(self, kind: str, namespace: str) -> list[Manifest]:
        """Find all objects of a kind that were read."""
        return [m for k, m in self.objects.items() if k.kind == kind and k.namespace == namespace and m]


class Seat:
    """A controller that can be stopped anywhere."""

    def __init__(self, arena: Arena, name: str) -> None:
        self.arena = arena
        self.name = name
        self.frozen: dict[str, tuple[Manifest, ...]] = {}
        """Kind → how its objects were when this view stopped being renewed."""
        self.trouble = Trouble()
        self.budget = FREE
        self.task: asyncio.Task[Next] | None = None
        self.key: Key | None = None
        self.parked = False
        self._go = asyncio.Event()
        self.begin_anew()

    def begin_anew(self) -> None:
        """Start the process: nothing of the old one's memory is left."""
        arena = self.arena
        self.known: dict[tuple[str, str], tuple[bytes, ...]] = {}
        self.seen = Seen()
        registry: Any = Doubtful(arena.registry, self.gate, self._registry_told)
        kube: Any = SeatKube(self)
        telemetry: Any = SeatTelemetry(self)
        self.world = World(
            kube=kube,
            git=SeatGit(self),
            registry=registry,
            ledger=LedgerBook(registry, arena.signer, Verifier([arena.signer.public]), arena.clock.now),
            telemetry=telemetry,
            settings=Settings(
                runtime="sim", tracking_uri="http://127.0.0.1:5000", local=not arena.cast.by_servers
            ),
            now=arena.clock.now,
            url_of=lambda namespace, name: f"http://127.0.0.1:8080/{namespace}/{name}",
        )

    async def _registry_told(self, call: str, args: tuple[Any, ...], rest: Any) -> None:
        if call == "read_ledger":
            self.known[(args[0], args[1])] = rest[1]
        await self.arena.promises.registry_call(self, call, args, rest)

    async def gate(self) -> None:
        """Stand here until the walker says go."""
        while self.budget <= 0:
            self.parked = True
            self._go.clear()
            await self._go.wait()
        self.parked = False
        self.budget -= 1

    async def advance(self, calls: int) -> Next | None:
        """Let it go on for a number of calls; the answer of the look if that ended it, else None.

        Raises:
            AssertionError: a promise was broken. Exception: the controller has a bug.
        """
        assert self.task is not None
        self.budget, self.parked = calls, False
        self._go.set()
        while not self.task.done() and not self.parked:
            await asyncio.sleep(0)
        if not self.task.done():
            return None
        task, self.task = self.task, None
        stakes.of_look(self)
        try:
            return task.result()
        except ClientError:
            return Next.failed()

    async def look(self, key: Key, calls: int = FREE) -> Next | None:
        """End the look that is going on, then look at an object."""
        if self.task is not None:
            await self.advance(FREE)
        self.seen, self.key = Seen(), key
        self.budget = calls
        self.task = asyncio.create_task(RECONCILERS[key.kind](self.world, key))
        return await self.advance(calls)

    async def crash(self) -> None:
        """Kill the process where it stands and start it again."""
        if self.task is not None:
            self.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):  # that is what was asked for
                await self.task
            self.task = None
        self.budget = FREE
        self.trouble.ends()
        self.begin_anew()

    async def freeze(self, kinds: Sequence[str]) -> None:
        """Stop renewing the view of some kinds."""
        for kind in kinds:
            self.frozen[kind] = await self.arena.store.list(kind)


class SeatKube:
    """The object store as one controller sees it."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat

    async def get(self, key: Key) -> Manifest | None:
        await self._enter("get")
        seat = self._seat
        if key.kind in seat.frozen:
            found = next((m for m in seat.frozen[key.kind] if key_of(m) == key), None)
        else:
            found = await seat.arena.store.get(key)
        seat.seen.objects[key] = found
        return found

    async def refresh(self, key: Key) -> Manifest | None:
        """Past the frozen view, which takes it in, as the operator's cache does."""
        await self._enter("get")
        seat = self._seat
        found = await seat.arena.store.get(key)
        if key.kind in seat.frozen:
            others = tuple(m for m in seat.frozen[key.kind] if key_of(m) != key)
            seat.frozen[key.kind] = tuple(sorted((*others, found), key=key_of)) if found else others
        seat.seen.objects[key] = found
        return found

    async def list(
        self, kind: str, *, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> tuple[Manifest, ...]:
        await self._enter("list")
        seat, wanted = self._seat, (labels or {}).items()
        if kind in seat.frozen:
            found: tuple[Manifest, ...] = tuple(
                m
                for m in seat.frozen[kind]
                if wanted <= m["metadata"].get("labels", {}).items()
                and namespace in (None, m["metadata"]["namespace"])
            )
        else:
            found = await seat.arena.store.list(kind, namespace=namespace, labels=labels)
        seat.seen.objects.update({key_of(m): m for m in found})
        seat.seen.listed.add(kind)
        return found

    async def _enter(self, verb: str) -> None:
        await self._seat.gate()
        if self._seat.trouble.next():
            raise Unavailable(f"{verb}: the API server did not answer", reason="Timeout")

    def __getattr__(self, verb: str) -> Any:
        if verb not in WRITES:
            raise AttributeError(verb)

        async def write(*args: Any, **kwargs: Any) -> Any:
            seat = self._seat
            await seat.gate()
            fault = seat.trouble.next()
            if fault == "before":
                raise Unavailable(f"{verb}: connection refused", reason="Unavailable")
            await seat.arena.promises.write(seat, verb, args[0], args[1] if verb == "patch_status" else None)
            result = await getattr(seat.arena.store, verb)(*args, **kwargs)
            seat.arena.written(seat, verb, args[0])
            seat.seen.note(verb, args[0])
            if fault == "after":
                raise Unavailable(f"{verb}: the answer was lost", reason="Timeout")
            await seat.gate()
            return result

        return write


class SeatGit:
    """Git as one controller sees it: what it resolved is remembered."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat

    async def resolve(self, url: str, ref: GitRef, *, max_age_s: float, timeout_s: float | None = None) -> Head:
        head = await self._seat.arena.git.resolve(url, ref, max_age_s=max_age_s, timeout_s=timeout_s)
        self._seat.seen.heads.append(head)
        return head

    async def refresh(self, url: str, ref: GitRef, *, timeout_s: float | None = None) -> Head:
        return await self.resolve(url, ref, max_age_s=0, timeout_s=timeout_s)

    async def files(self, url: str, commit: str) -> tuple[TreeEntry, ...]:
        return await self._seat.arena.git.files(url, commit)

    async def read_many(
        self, url: str, commit: str, paths: Sequence[str], *, limit: int | None = None
    ) -> Mapping[str, bytes]:
        return await self._seat.arena.git.read_many(url, commit, paths, limit=limit)


class SeatTelemetry:
    """The servers' counters as one controller sees them."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat

    async def counters(self, pods: Sequence[Manifest]) -> Mapping[str, float]:
        found = await self._seat.arena.servers.counters(pods)
        self._seat.seen.counters = {**(self._seat.seen.counters or {}), **found}
        return found
