"""Is the operator alive, is it ready: what decides, and the small server that says so.

`Canary` finds a watch that has gone deaf: the operator writes to an object of its own and must see the change come
back.  `Pulse` holds what the probes ask.  `serve` answers /healthz, /readyz and /metrics and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from controller.api.meta import FIELD_MANAGER, GROUP, LABEL_MANAGED_BY, Key, Manifest, key_of
from controller.clients.errors import ClientError, Conflict
from controller.clients.redact import redact
from controller.reconcile.cache import version
from controller.reconcile.kube import Kube

log = logging.getLogger(__name__)

ANNOTATION_CANARY: Final = f"{GROUP}/canary"
BEHIND_MAX_S: Final = 30.0
"""The loop's own tick may be this late before the process counts as hung."""
_REQUEST_S: Final = 5.0


class Canary:
    """One Lease of our own that is written to and must come back through the watch."""

    def __init__(self, namespace: str, name: str, clock: Callable[[], float], *, deaf_after_s: float) -> None:
        """Nothing is sent. `clock` is monotonic, seconds."""
        self.key = Key("Lease", namespace, name)
        self._clock = clock
        self._deaf_after_s = deaf_after_s
        self._sent = -1
        self._heard = -1
        self._unheard_since: float | None = None

    def sent(self, answer: Manifest) -> None:
        """Take in the answer to a write: from now on its echo is owed."""
        self._sent = version(answer)
        # The echo may be quicker than the answer.
        if self._heard < self._sent and self._unheard_since is None:
            self._unheard_since = self._clock()

    def heard(self, manifest: Manifest) -> None:
        """Take in what the watch brought."""
        if key_of(manifest) == self.key:
            self._heard = max(self._heard, version(manifest))
            if self._heard >= self._sent:
                self._unheard_since = None

    def answered(self) -> None:
        """Start the wait anew: the API server itself was away, so that no echo could come."""
        if self._unheard_since is not None:
            self._unheard_since = self._clock()

    def deaf_s(self) -> float:
        """Return for how long an echo has been owed, seconds."""
        return 0.0 if self._unheard_since is None else self._clock() - self._unheard_since

    def is_deaf(self) -> bool:
        """Tell whether the watch has gone deaf."""
        return self.deaf_s() > self._deaf_after_s

    async def write(self, kube: Kube, token: str) -> None:
        """Change the annotation; the object is made when missing.

        Raises:
            ClientError: the API server did not take it.
        """
        if await kube.get(self.key) is None:
            meta = {"name": self.key.name, "namespace": self.key.namespace}
            labels = {LABEL_MANAGED_BY: FIELD_MANAGER}
            lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {**meta, "labels": labels},
            }
            try:
                await kube.create(lease)
            except Conflict as error:
                log.debug("another replica made the canary first: %s", error.message)
        self.sent(await kube.annotate(self.key, {ANNOTATION_CANARY: token}))

    async def run(self, kube: Kube, me: str) -> None:
        """Write now and then, without end; what goes wrong is logged and tried again."""
        period, failing = max(self._deaf_after_s / 4, 1.0), False
        count = 0
        while True:
            count += 1
            try:
                await self.write(kube, f"{me}.{count}")
                if failing:
                    self.answered()
                failing = False
            except ClientError as error:
                failing = True
                self.answered()
                log.warning("the canary was not written: %s", error.message)
            await asyncio.sleep(period)


@dataclass(slots=True)
class Pulse:
    """What the probes ask; filled by the process."""

    clock: Callable[[], float]
    canary: Canary | None = None
    tick_at: float = 0.0
    """When the event loop last came round, monotonic seconds."""
    ended: str = ""
    """Which part of the process has ended by itself; empty while all run."""
    synced: bool = False
    leading: bool = False
    stopping: bool = False
    waiting_for: str = "the first list of all kinds"
    """What is awaited before it is ready, one sentence."""

    def alive(self) -> tuple[bool, str]:
        """Tell whether the process should go on living, and why not."""
        if self.ended:
            return False, f"{self.ended} has ended"
        behind = self.clock() - self.tick_at
        if behind > BEHIND_MAX_S:
            return False, f"the event loop is {behind:.0f} s late"
        if self.canary is not None and self.canary.is_deaf():
            return False, f"the watch is deaf: no echo of our own write for {self.canary.deaf_s():.0f} s"
        return True, "alive"

    def ready(self) -> tuple[bool, str]:
        """Tell whether it works, or could at once: leader or warm standby."""
        if self.stopping:
            return False, "stopping"
        if not self.synced:
            return False, f"waiting for {self.waiting_for}"
        return True, "leader" if self.leading else "standby"

    async def beat(self) -> None:
        """Note that the loop comes round, without end."""
        while True:
            self.tick_at = self.clock()
            await asyncio.sleep(1.0)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the small server."""

    code: int
    body: bytes
    media: str = "text/plain; charset=utf-8"


Page = Callable[[], Answer]


def probe(ask: Callable[[], tuple[bool, str]]) -> Page:
    """Make a page of a question: 200 when it is so, 503 when not, with the reason in the body."""

    def page() -> Answer:
        good, why = ask()
        return Answer(200 if good else 503, f"{why}\n".encode())

    return page


async def serve(host: str, port: int, pages: Mapping[str, Page]) -> asyncio.Server:
    """Answer GET of these paths, one request a connection.

    Raises:
        OSError: the address is taken or not ours.
    """

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_S):
                line = (await reader.readuntil(b"\r\n")).decode("latin-1").split()
                # Read to the end of the head, so that the peer's last packet is not answered with a reset.
                await reader.readuntil(b"\r\n\r\n") if line else b""
                writer.write(_answered(line, pages))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            log.debug("a request to the health port was broken off: %s", error)
        finally:
            writer.close()

    return await asyncio.start_server(one, host, port, limit=16_384)


def _answered(line: list[str], pages: Mapping[str, Page]) -> bytes:
    if len(line) != 3 or line[0] not in ("GET", "HEAD"):
        answer = Answer(405, b"only GET\n")
    else:
        page = pages.get(line[1].partition("?")[0])
        answer = page() if page is not None else Answer(404, b"not found\n")
    words = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}
    head = (
        f"HTTP/1.1 {answer.code} {words[answer.code]}\r\nContent-Type: {answer.media}\r\n"
        f"Content-Length: {len(answer.body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if line and line[0] == "HEAD" else answer.body)


@dataclass(slots=True)
class JsonFormatter(logging.Formatter):
    """Writes one JSON object a line; the words pass through the redactor."""

    fields: Mapping[str, str] = field(default_factory=dict)

    def format(self, record: logging.LogRecord) -> str:
        """Format one record; `object` is the key that is worked on, where one is."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        if key := getattr(record, "object", None) or _task_key():
            entry["object"] = str(key)
        if record.exc_info:
            entry["traceback"] = redact(logging.Formatter().formatException(record.exc_info))
        return json.dumps({**entry, **self.fields}, ensure_ascii=False)


def _task_key() -> str:
    """Name the object that the running task works on: the queue names its tasks after their keys."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return ""
    name = task.get_name() if task is not None else ""
    return name if name.count("/") == 2 else ""


def set_up_logging(style: str, level: str) -> None:
    """Send all logs to standard error."""
    handler = logging.StreamHandler()
    if style == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Every request at info level would drown what matters.
    for noisy in ("httpx", "httpcore", "kopf.objects", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
