"""A proxy between the operator and a real API server that can be told to go wrong, on real sockets with TLS.

It passes every request on and every watch through, event by event, unless a rule says otherwise (`fault_rules`),
the API is declared away, or calls are frozen.  All that passed is kept as a trace.  It runs in a thread of its
own; every method may be called from any other thread.  Faults come by number of calls, never by time.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from tests.cluster.control_plane import ControlPlane
from tests.cluster.fault_rules import (
    Action,
    Alter,
    Answer,
    Call,
    Delay,
    Do,
    Drop,
    Past,
    Rule,
    Rules,
    Truncate,
    call_of,
)
from tests.cluster.fault_wire import LIMIT, Event, Upstream, answered, chunk, line_of, request
from tests.cluster.processes import free_port

QUIET_S = 0.5
Match = Callable[[Call], bool]


@dataclass
class Passed:
    """One request as it went."""

    call: Call
    at: float
    """Monotonic seconds."""
    code: int = 0
    """What the API server answered; 0: it was not asked, or did not answer."""
    fault: str = ""
    ended_at: float = 0.0


@dataclass(eq=False)
class _Stream:
    """One open watch."""

    call: Call
    writer: asyncio.StreamWriter
    held: list[Event] = field(default_factory=list)


class FaultProxy:
    """A running proxy; a context that ends it."""

    def __init__(self, plane: ControlPlane, directory: Path, name: str = "proxy") -> None:
        """Prepare; files are written to `directory`."""
        self.rules = Rules()
        self.passed: list[Passed] = []
        self._upstream = urlsplit(plane.url)
        self._trust = ssl.create_default_context(cafile=str(plane.ca))
        self._own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._own.load_cert_chain(*plane.authority.serving(f"fault-{name}", ["127.0.0.1"], ["localhost"]))
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.kubeconfig = directory / f"{name}.kubeconfig"
        config = json.loads(plane.kubeconfig.read_text())
        config["clusters"][0]["cluster"]["server"] = self.url
        self.kubeconfig.write_text(json.dumps(config))
        self._frozen: list[Match] = []
        self._thawed = asyncio.Event()
        self._streams: set[_Stream] = set()
        self._connections: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._rate = 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"fault-{name}", daemon=True)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        self.back()
        return self

    def __exit__(self, *args: object) -> None:
        self._told(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    # -- what it is told -----------------------------------------------------------------------------------------

    def on(self, match: Match, action: Action, *, first: int = 1, times: int | None = 1) -> Rule:
        """Act on matching calls from now on; see `Rule`."""
        return self.rules.add(Rule(match, action, first, times))

    def away(self) -> None:
        """Be away as a machine without power is: connections break, new ones are refused."""
        self._told(self._close())

    def back(self) -> None:
        """Listen, on the same port."""
        self._told(self._listen())

    def freeze(self, match: Match) -> None:
        """Keep matching requests, and events of matching watches, until the thaw; connections stay open."""
        self._told(self._change(lambda: self._frozen.append(match)))

    def thaw(self) -> None:
        """Let go of everything that is kept, in order."""

        def go() -> None:
            self._frozen.clear()
            self._thawed.set()
            self._thawed = asyncio.Event()

        self._told(self._change(go))

    def cut(self, match: Match = lambda call: True, *, half: bool = False) -> int:
        """Break open watches, after half an event if `half`; returns how many."""
        return int(self._told(self._cut(match, half)))

    def say(self, event: Event, match: Match = lambda call: True) -> int:
        """Send an event through open watches that the server did not send; returns through how many."""
        return int(self._told(self._say(event, match)))

    def throttle(self, bytes_per_s: float) -> None:
        """Send answers no faster than that; 0: as fast as they come."""
        self._rate = bytes_per_s

    def calls(self, match: Match = lambda call: True) -> list[Passed]:
        """List what passed, in order of arrival."""
        return [p for p in list(self.passed) if match(p.call)]

    def writes(self) -> list[Passed]:
        """List the writes, without Leases."""
        return self.calls(lambda call: call.is_write)

    # -- in its own thread ---------------------------------------------------------------------------------------

    def _told(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _change(self, do: Callable[[], None]) -> None:
        do()

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(
                self._serve, "127.0.0.1", self.port, ssl=self._own, limit=LIMIT, reuse_address=True
            )

    async def _close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for writer in list(self._connections):
            writer.transport.abort()

    async def _end(self) -> None:
        await self._close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _open(self, match: Match) -> list[_Stream]:
        return [s for s in self._streams if match(s.call) and not s.writer.is_closing()]

    async def _cut(self, match: Match, half: bool) -> int:
        found = self._open(match)
        for stream in found:
            if half:
                stream.writer.write(chunk(b'{"type":"MODIFIED","object":{"metad'))
                # An abort would throw it away unsent.
                stream.writer.close()
            else:
                stream.writer.transport.abort()
        return len(found)

    async def _say(self, event: Event, match: Match) -> int:
        found = self._open(match)
        for stream in found:
            stream.writer.write(chunk(line_of(event)))
            await stream.writer.drain()
        return len(found)

    def _is_frozen(self, call: Call) -> bool:
        return any(match(call) for match in self._frozen)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on the requests of one connection over one of our own."""
        self._connections.add(writer)
        upstream: Upstream | None = None
        try:
            while True:
                method, target, headers, body = await request(reader)
                call = call_of(len(self.passed) + 1, method, target, body)
                passed = Passed(call, time.monotonic())
                self.passed.append(passed)
                action = self.rules.take(call)
                passed.fault = type(action).__name__ if action is not None else ""
                upstream = upstream or Upstream(
                    self._upstream.hostname or "", self._upstream.port or 0, self._trust
                )
                going_on = await self._one(passed, action, headers, reader, writer, upstream)
                passed.ended_at = time.monotonic()
                if not going_on:
                    writer.transport.abort()
                    return
        except (OSError, EOFError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            # Either end is gone: so is the other.
            writer.transport.abort()
        except asyncio.CancelledError:
            # The proxy ends, and nobody waits for this connection.
            writer.transport.abort()
        finally:
            self._connections.discard(writer)
            writer.close()
            if upstream is not None:
                upstream.close()

    async def _one(
        self,
        passed: Passed,
        action: Action | None,
        headers: dict[str, str],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream: Upstream,
    ) -> bool:
        """Pass one request on; tell whether the connection goes on."""
        call = passed.call
        while call.verb != "watch" and self._is_frozen(call):
            await self._thawed.wait()
        query = dict(call.query)
        match action:
            case Drop(after=False):
                return False
            case Do(after=False):
                await asyncio.to_thread(action.what, call)
                return False
            case Answer():
                await answered(writer, action.code, dict(action.headers), action.body())
                return True
            case Delay():
                await asyncio.sleep(action.seconds)
            case Past():
                query |= {"resourceVersion": action.version, "resourceVersionMatch": "Exact"}
        target = f"{call.path}?{urlencode(query)}" if query else call.path
        code, answer_headers = await upstream.ask(call.method, target, headers, call.body)
        passed.code = code
        if call.verb == "watch" and code == 200:
            return await self._watched(call, action, reader, writer, upstream)
        body = b"".join([chunk async for chunk in upstream.body()])
        match action:
            case Drop():
                return False
            case Do():
                await asyncio.to_thread(action.what, call)
                return False
            case Truncate():
                await answered(writer, code, answer_headers, body[: action.keep], length=len(body))
                return False
        if self._rate:
            await asyncio.sleep(len(body) / self._rate)
        await answered(writer, code, answer_headers, body)
        return True

    async def _watched(
        self,
        call: Call,
        action: Action | None,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream: Upstream,
    ) -> bool:
        """Pass a watch through, event by event, until either end is gone."""
        first = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(first.encode())
        await writer.drain()
        stream = _Stream(call, writer)
        self._streams.add(stream)
        alter = action.make() if isinstance(action, Alter) else None
        gone = asyncio.create_task(reader.read(1))
        events = upstream.events()
        coming = asyncio.ensure_future(anext(events))
        try:
            while True:
                waking = asyncio.create_task(self._thawed.wait())
                quiet = QUIET_S if alter is not None else None
                await asyncio.wait({gone, coming, waking}, timeout=quiet, return_when=asyncio.FIRST_COMPLETED)
                waking.cancel()
                if gone.done():
                    return False
                found = coming.result() if coming.done() else None
                if found is not None:
                    coming = asyncio.ensure_future(anext(events))
                sent = alter(found) if alter is not None else [found] if found is not None else []
                stream.held += sent
                if not self._is_frozen(call):
                    for event in stream.held:
                        line = line_of(event)
                        if self._rate:
                            await asyncio.sleep(len(line) / self._rate)
                        writer.write(chunk(line))
                    stream.held.clear()
                    await writer.drain()
        except StopAsyncIteration:
            # The server has ended it in order, and so do we.
            writer.write(b"0\r\n\r\n")
            await writer.drain()
            return False
        finally:
            self._streams.discard(stream)
            for task in (gone, coming):
                task.cancel()
            await asyncio.gather(gone, coming, return_exceptions=True)
