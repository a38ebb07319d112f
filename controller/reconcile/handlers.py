"""The only file that knows kopf: it lists, watches, reconnects and logs in, and hands every event on.

kopf runs in a thread with a loop of its own, because at its end it takes every task of its loop for its own.
Only `on.event` is used: nothing is written to objects, no finalizer, no annotation.  When kopf ends, whatever
the reason, it is begun again; what it missed meanwhile is found by the lists of `cache.resync`.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from controller.api.kinds import KINDS as OUR_KINDS
from controller.api.meta import FIELD_MANAGER, GROUP, LABEL_MANAGED_BY, VERSION, Manifest
from controller.clients.errors import ClientError
from controller.clients.kube_kinds import OPTIONAL, resource_of
from controller.clients.kube_login import Access, Login
from controller.reconcile.cache import LABELLED, OURS

log = logging.getLogger(__name__)

Feed = Callable[[str | None, Manifest], None]
"""Takes the kind of an event (None: it came with a list) and the object, in kopf's thread; must be quick."""
SWITCH_S: Final = 0.0005
"""How long kopf's thread may keep the interpreter from the other one, seconds; the default of 5 ms is waited for
after every request of ours while kopf is busy."""
RESTART_S: Final = (1.0, 2.0, 5.0, 15.0, 30.0)
"""Pauses before kopf is begun again, and before a login that was refused is tried again as it is."""
ENDING_S: Final = 10.0
"""How long kopf may take to end once a part of it has ended."""
LEAVING_S: Final = 2.0
"""How long what is left of it may take to be cancelled."""
STEADY_S: Final = 60.0
"""What has gone well for so long begins with the shortest pause again."""
_LABELLED: Final = (*LABELLED, "Lease")
"""Kinds of Kubernetes, and that of the operator's own signs of life, watched where they carry our label."""


class Forever:
    """Pauses between tries of kopf's requests, without end: a finite list would end the process."""

    def __iter__(self) -> Iterator[float]:
        """Count up, then repeat."""
        yield from (1, 1, 2, 3, 5, 8, 13)
        while True:
            yield 15


class Watcher:
    """kopf in a thread, begun again when it ends."""

    def __init__(
        self,
        feed: Feed,
        *,
        namespaces: tuple[str, ...] | None,
        kubeconfig: Path | None,
        context: str | None,
        restarted: Callable[[], None],
    ) -> None:
        """Prepare; `namespaces` None watches all. `restarted` is called in kopf's thread."""
        self._feed = feed
        self._namespaces = namespaces
        self._login = (kubeconfig, context)
        self.with_routes = True
        """Watch HTTPRoutes too; only where they are installed."""
        self._restarted = restarted
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        sys.setswitchinterval(SWITCH_S)
        self._thread.start()

    def alive(self) -> bool:
        """Tell whether the thread runs; it must, until it is stopped."""
        return self._thread.is_alive()

    def stop(self, timeout_s: float) -> None:
        """End the watch; after `timeout_s` it is left to the end of the process."""
        self._stop.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        count = 0
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                self._alone()
                if not self._stop.is_set():
                    log.warning("kopf has ended; it is begun again")
            except Exception:
                log.exception("kopf has failed; it is begun again")
            count = 0 if time.monotonic() - begun > STEADY_S else count
            pause = RESTART_S[min(count, len(RESTART_S) - 1)]
            count += 1
            if not self._stop.wait(pause):
                self._restarted()

    def _alone(self) -> None:
        """Run kopf in a loop of its own; one that does not come to its end is left behind with its loop.

        Whatever a forgotten one still hears is taken in as ever: the newest form of an object wins.
        """
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(self._once())
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            if left := asyncio.all_tasks(loop):
                loop.run_until_complete(asyncio.wait(left, timeout=LEAVING_S))
            if not asyncio.all_tasks(loop):
                closing = loop.create_task(loop.shutdown_asyncgens())
                loop.run_until_complete(asyncio.wait({closing}, timeout=LEAVING_S))
            if asyncio.all_tasks(loop):
                log.warning("kopf does not come to its end; it is left behind")
            else:
                loop.close()

    async def _once(self) -> None:
        import kopf

        registry: Any = kopf.OperatorRegistry()
        login = Login(*self._login)
        self._register(kopf, registry, login)
        parts = await kopf.spawn_tasks(
            registry=registry,
            settings=settings(kopf),
            standalone=True,
            clusterwide=self._namespaces is None,
            namespaces=self._namespaces or (),
            stop_flag=self._stop,
        )
        whole = asyncio.create_task(kopf.run_tasks(parts, ignored=[t for t in (asyncio.current_task(),) if t]))
        # When one part has ended, kopf ends the others; some of them may wait for a login that never comes.
        await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({whole}, timeout=ENDING_S)
        if whole.done():
            whole.result()

    def _register(self, kopf: Any, registry: Any, login: Login) -> None:
        logins = _Logins(login)

        async def log_in(**_: Any) -> Any:
            try:
                access = await logins.next()
            except ClientError as error:
                raise kopf.LoginError(error.message) from None
            return connection(kopf, access, logins.count)

        async def seen(event: Any, **_: Any) -> None:
            try:
                self._feed(event.get("type"), dict(event["object"]))
            except Exception:
                # kopf would log and forget it too; the next list brings the object again.
                log.exception("an event was not taken in")

        kopf.on.login(registry=registry, errors=kopf.ErrorsMode.TEMPORARY)(log_in)
        for kind in OURS:
            kopf.on.event(GROUP, VERSION, OUR_KINDS[kind].plural, registry=registry)(seen)
        for kind in _LABELLED:
            if self.with_routes or kind not in OPTIONAL:
                kopf.on.event(*_place(kind), registry=registry)(seen)


class _Logins:
    """Logins for kopf, which asks for one at its start and whenever one was refused."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._last: Access | None = None
        self._at = 0.0
        self._refused = 0
        self.count = 0

    async def next(self) -> Access:
        """Read the login anew; one that is still the same is handed out more and more slowly.

        Raises:
            ClientError: there is none.
        """
        found = await self._login.access(not_this=self._last)
        same = found == self._last and time.monotonic() - self._at < STEADY_S
        self._refused = self._refused + 1 if same else 0
        if self._refused:
            await asyncio.sleep(RESTART_S[min(self._refused, len(RESTART_S)) - 1])
        self._last, self._at = found, time.monotonic()
        self.count += 1
        return found


def _no_difference(kopf: Any) -> Any:
    """Keep kopf from copying every object and comparing it with nothing: only other handlers ask for that."""

    class Nothing(kopf.DiffBaseStorage):  # type: ignore[misc]
        def build(self, **_: Any) -> dict[str, Any]:
            return {}

        def fetch(self, **_: Any) -> None:
            return None

        def store(self, **_: Any) -> None:
            return None

    return Nothing()


def settings(kopf: Any) -> Any:
    """Build kopf's settings: no events posted, no discovery of new kinds, retries without end."""
    ours = kopf.OperatorSettings()
    ours.posting.enabled = False
    ours.scanning.disabled = True
    ours.persistence.diffbase_storage = _no_difference(kopf)
    ours.persistence.finalizer = f"{GROUP}/never-used"
    ours.queueing.idle_timeout = 0.1
    # kopf holds all objects of an answer at once, each with a task: large answers cost memory for ever.
    ours.watching.chunk_size = 50
    ours.watching.server_timeout = 300
    ours.watching.client_timeout = 310
    ours.networking.error_backoffs = Forever()
    ours.networking.request_timeout = 30
    ours.networking.connect_timeout = 10
    ours.process.ultimate_exiting_timeout = None
    for kind in _LABELLED:
        ours.watching.label_selectors[_place(kind)] = f"{LABEL_MANAGED_BY}={FIELD_MANAGER}"
    return ours


def _place(kind: str) -> tuple[str, str, str]:
    """Say where a kind is served, as kopf wants it: group, version, plural."""
    found = resource_of(kind)
    return found.group, found.api_version.rpartition("/")[2], found.plural


def connection(kopf: Any, access: Access, number: int) -> Any:
    """Translate a login of ours into kopf's; no two with other numbers are equal.

    kopf never takes a login again that was refused once, and then neither watches nor ends.  An API server that
    refuses a good token for a moment would make it deaf.
    """
    scheme, _, token = access.authorization.partition(" ")
    return kopf.ConnectionInfo(
        server=access.url,
        ca_path=access.ca_file,
        insecure=not access.verify,
        scheme=scheme or None,
        token=token or None,
        certificate_path=access.cert_file,
        private_key_path=access.key_file,
        default_namespace=access.namespace,
        proxy_url=access.proxy,
        priority=number,
    )
