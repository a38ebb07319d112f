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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from controller.api.kinds import KINDS as OUR_KINDS
from controller.api.meta import FIELD_MANAGER, GROUP, LABEL_MANAGED_BY, VERSION, Manifest
from controller.clients.errors import ClientError
from controller.clients.kube_login import Access, Login
from controller.reconcile.cache import OURS

log = logging.getLogger(__name__)

Feed = Callable[[str | None, Manifest], None]
"""Takes the kind of an event (None: it came with a list) and the object, in kopf's thread; must be quick."""
SWITCH_S: Final = 0.0005
"""How long kopf's thread may keep the interpreter from the other one, seconds; the default of 5 ms is waited for
after every request of ours while kopf is busy."""
RESTART_S: Final = (1.0, 2.0, 5.0, 15.0, 30.0)
_LABELLED: Final = (
    ("batch", "v1", "jobs", "Job"),
    ("", "v1", "pods", "Pod"),
    ("apps", "v1", "deployments", "Deployment"),
    ("coordination.k8s.io", "v1", "leases", "Lease"),
)
_ROUTE: Final = ("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute")


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
            try:
                asyncio.run(self._once())
                if not self._stop.is_set():
                    log.warning("kopf has ended; it is begun again")
            except Exception:
                log.exception("kopf has failed; it is begun again")
            pause = RESTART_S[min(count, len(RESTART_S) - 1)]
            count += 1
            if not self._stop.wait(pause):
                self._restarted()

    async def _once(self) -> None:
        import kopf

        registry: Any = kopf.OperatorRegistry()
        login = Login(*self._login)
        self._register(kopf, registry, login)
        await kopf.operator(
            registry=registry,
            settings=settings(kopf),
            standalone=True,
            clusterwide=self._namespaces is None,
            namespaces=self._namespaces or (),
            stop_flag=self._stop,
        )

    def _register(self, kopf: Any, registry: Any, login: Login) -> None:
        last: Access | None = None

        async def log_in(**_: Any) -> Any:
            nonlocal last
            try:
                last = await login.access(not_this=last)
            except ClientError as error:
                raise kopf.LoginError(error.message) from None
            return connection(kopf, last)

        async def seen(event: Any, **_: Any) -> None:
            try:
                self._feed(event.get("type"), dict(event["object"]))
            except Exception:
                # kopf would log and forget it too; the next list brings the object again.
                log.exception("an event was not taken in")

        kopf.on.login(registry=registry, errors=kopf.ErrorsMode.TEMPORARY)(log_in)
        for kind in OURS:
            kopf.on.event(GROUP, VERSION, OUR_KINDS[kind].plural, registry=registry)(seen)
        for group, version, plural, _kind in (*_LABELLED, *((_ROUTE,) if self.with_routes else ())):
            kopf.on.event(group, version, plural, registry=registry)(seen)


def settings(kopf: Any) -> Any:
    """Build kopf's settings: no events posted, no discovery of new kinds, retries without end."""
    ours = kopf.OperatorSettings()
    ours.posting.enabled = False
    ours.scanning.disabled = True
    ours.persistence.finalizer = f"{GROUP}/never-used"
    ours.queueing.idle_timeout = 0.1
    ours.watching.chunk_size = 500
    ours.watching.server_timeout = 300
    ours.watching.client_timeout = 310
    ours.networking.error_backoffs = Forever()
    ours.networking.request_timeout = 30
    ours.networking.connect_timeout = 10
    ours.process.ultimate_exiting_timeout = None
    for group, version, plural, _ in _LABELLED:
        ours.watching.label_selectors[group, version, plural] = f"{LABEL_MANAGED_BY}={FIELD_MANAGER}"
    return ours


def connection(kopf: Any, access: Access) -> Any:
    """Translate a login of ours into kopf's."""
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
    )
