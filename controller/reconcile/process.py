"""The operator process: puts the world together, elects, watches, works, and ends in order.

Order of life: figures and probes, Lease, first list of all kinds, watch, and, while this replica leads, the queue.
All but the watch outlive a restart of kopf.  A replica that loses the Lease, because the API server is away or
another holds it, stops at once and writes nothing more, stays up, and goes on when it leads again.  At SIGTERM no
more keys are taken, running ones may end, and the Lease is given back.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx

from controller import __version__
from controller.api.meta import Manifest
from controller.clients.errors import ClientError, Denied, NotFound, Unavailable
from controller.clients.kube import KubeClient
from controller.clients.kube_errors import Act
from controller.clients.kube_kinds import resource_of
from controller.clients.kube_login import Login
from controller.clients.kube_rest import KubeRest
from controller.reconcile import garbage
from controller.reconcile.cache import KINDS, OURS, Cache, CachedKube, resync
from controller.reconcile.controller import owners
from controller.reconcile.handlers import Watcher
from controller.reconcile.health import Answer, Canary, Pulse, probe, serve, set_up_logging
from controller.reconcile.lease import Elector
from controller.reconcile.metrics import Live, Metrics
from controller.reconcile.outside import open_world
from controller.reconcile.pushes import PushedMirrors, Pushes
from controller.reconcile.queue import Queue
from controller.reconcile.reconciler import reconcile
from controller.reconcile.settings import BadSetting, OperatorSettings
from controller.reconcile.webhook import Webhook

log = logging.getLogger(__name__)

PRUNE_S: Final = 600.0
SYNC_RETRY_S: Final = 3.0
FIRST_LOOKS_S: Final = 15.0
"""Longest time that the watch is not begun because there is work from the first list, seconds."""
USAGE: Final = 2
LISTS_AT_ONCE: Final = 2
"""While one list is read here, the API server writes the next one; more at once would only take memory."""
_LEASES: Final = "/apis/coordination.k8s.io/"
"""The election and the canary are no work: a standby writes them too."""
_METRICS_MEDIA: Final = "text/plain; version=0.0.4; charset=utf-8"


class CountedRest(KubeRest):
    """Counts every request by verb, kind and code, and sends no write of a replica that does not lead."""

    count: Callable[[str, str, str], None] = staticmethod(lambda _verb, _kind, _code: None)
    guard: Callable[[], None] = staticmethod(lambda: None)

    async def raw(self, method: str, path: str, act: Act, **more: Any) -> httpx.Response:
        """Send one request and count how it ended."""
        code = "none"
        try:
            answer = await super().raw(method, path, act, **more)
            code = str(answer.status_code)
        finally:
            self.count(act.verb, act.resource.kind, code)
        return answer

    async def _sent(self, method: str, path: str, *more: Any) -> httpx.Response:
        # Here, and not in `raw`, because a broken connection makes that one send again.
        if method != "GET" and not path.startswith(_LEASES):
            self.guard()
        return await super()._sent(method, path, *more)


class Operator:
    """One replica."""

    def __init__(self, settings: OperatorSettings, *, kubeconfig: Path | None, context: str | None) -> None:
        """Prepare; nothing is read or sent."""
        self.settings = settings
        self._login = (kubeconfig, context)
        self.cache = Cache()
        self.pulse = Pulse(clock=time.monotonic, tick_at=time.monotonic())
        self._stop = asyncio.Event()
        self._relisted = asyncio.Event()
        self._ended: asyncio.Queue[str] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._heard_at: dict[str, float] = {}
        self._listed_from = -1.0
        """When the newest whole list of all kinds was begun, monotonic seconds."""

    async def run(self) -> int:
        """Run until SIGTERM (0), or until a part ends by itself (1)."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        rest = CountedRest(Login(*self._login))
        live = KubeClient(rest, known=self.cache.same)
        access = await rest.access()
        chosen = self.settings.namespaces or (access.namespace,)
        self.namespaces = None if self.settings.all_namespaces else chosen
        self.kube = CachedKube(live, self.cache, namespaces=self.namespaces)
        # Who else must hear of a write of ours: its echo in the watch, if it ever comes, brings nothing new.
        self.kube.wrote = self._add
        home = self.settings.lease_namespace or access.namespace
        near = home if self.namespaces is None or home in self.namespaces else chosen[0]
        me, name = self.settings.identity, self.settings.lease_name
        self.elector = Elector(live, home, name, me, _now)
        canary = Canary(near, f"{name}-canary", time.monotonic, deaf_after_s=self.settings.deaf_after)
        self.pulse.canary = self.canary = canary
        rest.guard = self._guard
        self.world = open_world(self.settings, self.kube, self._guard)
        self.queue = Queue(
            lambda key: reconcile(self.world, key), workers=self.settings.workers, drain_s=self.settings.drain
        )
        git = self.world.git
        assert isinstance(git, PushedMirrors)
        self.pushes = Pushes(
            cache=self.cache,
            mirrors=git,
            live=live,
            lease=canary.key,
            me=me,
            add=self.queue.add,
            leading=lambda: self.pulse.leading,
        )
        self.metrics = self._figures()
        rest.count = self.metrics.requested
        self.queue.observer = self.metrics
        log.info("mainspring %s as %s: %s", __version__, me, ", ".join(self.namespaces or ("all namespaces",)))
        servers = await self._serve()
        try:
            return await self._live(live, me)
        finally:
            for server in servers:
                server.close()
            await self.world.close()
            await live.aclose()

    def _guard(self) -> None:
        """Keep a write from leaving when another replica may lead."""
        if not self.elector.may_act():
            raise Unavailable("this replica does not lead any more; nothing was written")

    def _figures(self) -> Metrics:
        return Metrics(
            Live(
                cache=self.cache,
                clock=time.monotonic,
                depth=self.queue.depth,
                oldest_s=self.queue.oldest_s,
                leading=self.elector.leading.is_set,
                deaf_s=self.canary.deaf_s,
                heard_at=self._heard_at,
            )
        )

    async def _serve(self) -> list[asyncio.Server]:
        probes = {"/healthz": probe(self.pulse.alive), "/readyz": probe(self.pulse.ready)}
        figures = {"/metrics": lambda: Answer(200, self.metrics.page(), _METRICS_MEDIA)}
        host, ports = self.settings.metrics_host, (self.settings.metrics_port, self.settings.health_port)
        same = ports[0] == ports[1]
        servers = [await serve(host, ports[0], {**figures, **probes} if same else figures)]
        if not same:
            servers.append(await serve(host, ports[1], probes))
        told = [server.sockets[0].getsockname()[1] for server in servers]
        log.info("figures at port %d, probes at port %d", told[0], told[-1])
        if self.settings.webhook_key is not None:
            hook = Webhook(self.settings.webhook_key, self.pushes.wake, self.metrics.pushed)
            try:
                servers.append(await hook.serve(host, self.settings.webhook_port))
            except ValueError as error:
                raise Denied(str(error)) from None
            log.info("pushes at port %d", servers[-1].sockets[0].getsockname()[1])
        return servers

    async def _live(self, live: KubeClient, me: str) -> int:
        loop = asyncio.get_running_loop()
        self.watcher = Watcher(
            lambda kind, item: self._from_thread(loop, kind, item),
            namespaces=self.namespaces,
            kubeconfig=self._login[0],
            context=self._login[1],
            restarted=lambda: self._restarted(loop),
        )
        self._begin("the event loop's tick", self.pulse.beat())
        self._begin("the election", self.elector.run())
        self._begin("the list of all kinds", self._sync(live, me))
        self._begin("the work loop", self._work(live))
        stopped = asyncio.create_task(self._stop.wait())
        ended = asyncio.create_task(self._ended.get())
        await asyncio.wait({stopped, ended}, return_when=asyncio.FIRST_COMPLETED)
        self.pulse.stopping = True
        clean = stopped.done() and not ended.done()
        for waiting in (stopped, ended):
            waiting.cancel()
        await self._end()
        return 0 if clean else 1

    def _begin(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Start a part of the process whose end is the end of all."""

        async def part() -> None:
            try:
                await work
            except Exception:
                log.exception("%s failed", name)
            if not self._stop.is_set():
                self.pulse.ended = name
                self._ended.put_nowait(name)

        self._tasks.append(asyncio.create_task(part(), name=name))

    async def _end(self) -> None:
        """Let running keys end, give the Lease back, end the rest."""
        log.info("stopping: %d keys are being worked on", self.queue.depth())
        self._stop.set()
        work = [task for task in self._tasks if task.get_name() == "the work loop"]
        others = [task for task in self._tasks if task not in work]
        if work:
            await asyncio.wait(work, timeout=self.settings.drain + 1)
        for task in (*others, *work):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.elector.release()
        await asyncio.to_thread(self.watcher.stop, 2.0)
        log.info("stopped")

    async def _sync(self, live: KubeClient, me: str) -> None:
        """List every kind; then watch, and list again now and then and whenever the watch had to begin anew."""
        # A list that began while this replica led already need not be made again.
        await self.elector.asked.wait()
        while not await self._listed(live):
            await asyncio.sleep(SYNC_RETRY_S)
        self.kube.synced = self.pulse.synced = True
        garbage.leave_alone()
        log.info("all kinds are listed: %d objects of ours", sum(len(self.cache.keys(kind)) for kind in OURS))
        self._heard_at.update(dict.fromkeys((*KINDS, "Lease"), time.monotonic()))
        self.watcher.with_routes = await self._serves(live, "HTTPRoute")
        await self._first_looks()
        self.watcher.start()
        self._begin("the canary", self.canary.run(live, me))
        while True:
            self._relisted.clear()
            # Neither kind of waking is an error: a list is due in either case.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._relisted.wait(), PRUNE_S)
            # Many objects come with one list: once they are in, one look is enough.
            await asyncio.sleep(1.0)
            if not self.watcher.alive():
                raise RuntimeError("the thread of the watch has ended")
            await self._listed(live)

    async def _first_looks(self) -> None:
        """Let everything that was listed be looked at before kopf lists it all again, which takes as long.

        What changes meanwhile is in kopf's list; it would have waited in the queue as well.
        """
        deadline = time.monotonic() + FIRST_LOOKS_S
        while self.elector.leading.is_set() and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
            if self.pulse.leading and not self.queue.depth():
                return

    async def _serves(self, live: KubeClient, kind: str) -> bool:
        """Ask whether the cluster knows a kind that it need not have; assumed when it does not say."""
        resource = resource_of(kind)
        namespace = None if self.namespaces is None else sorted(self.namespaces)[0]
        act = Act("list", resource, namespace)
        try:
            await live.rest.call("GET", resource.path(namespace), act, params={"limit": "1"})
        except NotFound:
            log.info("%s is not installed and not watched; after an installation, start the operator again", kind)
            return False
        except ClientError as error:
            log.warning("whether %s is installed is unknown: %s", kind, error.message)
        return True

    async def _listed(self, live: KubeClient) -> bool:
        begun = time.monotonic()
        pace = asyncio.Semaphore(LISTS_AT_ONCE)

        async def one(kind: str) -> bool:
            async with pace:
                try:
                    missed = await resync(live, self.cache, kind, self.namespaces)
                except ClientError as error:
                    self.pulse.waiting_for = f"a list of {kind}: {error.message}"
                    log.warning("%s could not be listed: %s", kind, error.message)
                    return False
            for manifest in missed:
                self._add(manifest)
            return True

        if not all(await asyncio.gather(*map(one, KINDS))):
            return False
        self._listed_from = begun
        return True

    async def _work(self, live: KubeClient) -> None:
        """Work while this replica leads, from a view that is no older than its leadership."""
        while not self._stop.is_set():
            if not (self.pulse.synced and self.elector.leading.is_set()):
                await asyncio.sleep(0.1)
                continue
            led_from = self.elector.led_from
            # Another may have led until now; what it wrote may still be on its way through the watch.
            if self._listed_from < led_from and not await self._listed(live):
                await asyncio.sleep(SYNC_RETRY_S)
                continue
            self.world.ledger.forget()
            if self.world.access is not None:
                self.world.access.forget()
            self.pulse.leading = True
            for kind in OURS:
                for key in self.cache.keys(kind):
                    self.queue.add(key)
            await self._term()
            self.pulse.leading = False
            self.queue.clear()

    async def _term(self) -> None:
        """Run the queue until the stop, or cut it off where it is when this replica leads no more."""
        over = asyncio.create_task(self.elector.over.wait())
        work = asyncio.create_task(self.queue.run(self._stop))
        try:
            await asyncio.wait({over, work}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if self.elector.over.is_set() or not work.done():
                work.cancel()
            over.cancel()
            ended, _ = await asyncio.gather(work, over, return_exceptions=True)
        if isinstance(ended, Exception):
            raise ended

    def _add(self, manifest: Manifest) -> None:
        if self.pulse.leading:
            for key in owners(manifest):
                self.queue.add(key)

    def _from_thread(self, loop: asyncio.AbstractEventLoop, kind: str | None, manifest: Manifest) -> None:
        # The loop may be closed already while kopf still ends.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(self._heard, kind, manifest)

    def _restarted(self, loop: asyncio.AbstractEventLoop) -> None:
        # As above.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(self.metrics.watch_restarted)
            loop.call_soon_threadsafe(self._relisted.set)

    def _heard(self, kind: str | None, manifest: Manifest) -> None:
        """Take in one event of the watch."""
        self._heard_at[manifest["kind"]] = time.monotonic()
        if manifest["kind"] == "Lease":
            self.canary.heard(manifest)
            self.pushes.heard(manifest)
            return
        if kind is None:
            self._relisted.set()
        new = self.cache.remove(manifest) if kind == "DELETED" else self.cache.put(manifest)
        if new:
            self._add(manifest)


def _now() -> datetime:
    return datetime.now(UTC)


def main(kubeconfig: Path | None = None, context: str | None = None) -> int:
    """Run the operator and return its exit code: 0 after SIGTERM, 1 when it cannot go on, 2 for a bad setting."""
    try:
        settings = OperatorSettings.read()
    except BadSetting as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - there is no log yet
        return USAGE
    set_up_logging(settings.log_format, settings.log_level)
    garbage.look_rarely()

    async def go() -> int:
        return await Operator(settings, kubeconfig=kubeconfig, context=context).run()

    try:
        return asyncio.run(go())
    except (ClientError, OSError) as error:
        log.error("the operator cannot start: %s", error)
        return 1
