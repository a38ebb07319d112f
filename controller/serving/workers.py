"""Several processes that serve one model on one port: started, watched, replaced and ended together.

The port belongs to the parent, so what waits to be accepted outlives a worker.  Every worker verifies and loads
the model itself.  A worker that dies or hangs is replaced once the server was ready; one that fails before ends
all of them, with what it said.  The parent answers nothing and loads nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from controller.api.reports import WRONG_INPUT, Termination
from controller.clients.errors import Denied, Unavailable
from controller.serving.shared import READY, STUCK, Shared
from controller.serving.step import TERMINATION_ENV

WORKERS_MAX: Final = 64
WATCH_S: Final = 1.0
"""How often it is looked for workers that hang."""
PAUSE_S: Final = 0.2
"""Before a worker is replaced the first time; twice as long each time that it dies young, at most PAUSE_MAX_S."""
PAUSE_MAX_S: Final = 10.0
YOUNG_S: Final = 30.0
PARENT_ENV: Final = "MAINSPRING_PARENT"
_PR_SET_PDEATHSIG: Final = 1

log = logging.getLogger("mainspring.serving")


def end_with_parent() -> None:
    """Let this process end when the parent that started it does, however that happens."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.environ.get(PARENT_ENV) != str(os.getppid()):
        os.kill(os.getpid(), signal.SIGTERM)


def bound(host: str, port: int) -> socket.socket:
    """Take the port, without listening: until a worker does, connections are refused.

    Raises:
        Unavailable: PortTaken.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise Unavailable(f"{host}:{port} cannot be taken: {error.strerror}", reason="PortTaken") from error
    return sock


def run(arguments: Sequence[str], count: int, host: str, port: int) -> None:
    """Serve with `count` workers until a signal.

    Args:
        arguments: those of the server.

    Raises:
        Denied: what a worker could not serve of. Unavailable: one of them failed before all were ready.
    """
    with contextlib.closing(bound(host, port)) as sock, tempfile.TemporaryDirectory() as said:
        asyncio.run(_Parent(arguments, count, sock, Path(said)).run())


class _Parent:
    """The process that starts the others."""

    def __init__(self, arguments: Sequence[str], count: int, sock: socket.socket, said: Path) -> None:
        self._arguments, self._count, self._sock, self._said = list(arguments), count, sock, said
        self._memory = Shared.create(count)
        self._shared = Shared.opened(self._memory, 0, count)
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._signals = 0

    async def run(self) -> None:
        """Start all workers, keep them, and return when all have ended after a signal."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        watching = loop.create_task(self._watch())
        try:
            async with asyncio.TaskGroup() as group:
                for worker in range(self._count):
                    group.create_task(self._keep(worker))
        except* (Denied, Unavailable) as failed:
            raise failed.exceptions[0] from None
        finally:
            watching.cancel()
            for process in self._processes.values():
                with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                    process.kill()

    def _end(self) -> None:
        """Tell every worker to end; told again, they end at once."""
        self._signals += 1
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                process.send_signal(signal.SIGTERM)
        # From here on the port is open for as long as the last worker accepts.
        self._sock.close()

    async def _keep(self, worker: int) -> None:
        loop, pause = asyncio.get_running_loop(), PAUSE_S
        while not self._signals:
            started = loop.time()
            process = self._processes[worker] = await self._start(worker)
            if self._signals:
                process.send_signal(signal.SIGTERM)
            code = await process.wait()
            del self._processes[worker]
            if self._signals:
                return
            if not self._shared.all_are(READY):
                raise self._failure(worker, code)
            pause = PAUSE_S if loop.time() - started > YOUNG_S else min(pause * 2, PAUSE_MAX_S)
            log.error("worker %d ended with %d; it is replaced in %.1f s", worker, code, pause)
            await asyncio.sleep(pause)

    async def _start(self, worker: int) -> asyncio.subprocess.Process:
        descriptors = (self._sock.fileno(), self._memory)
        own = ["--worker", str(worker), "--descriptors", ",".join(map(str, descriptors))]
        environment = {
            **os.environ,
            PARENT_ENV: str(os.getpid()),
            TERMINATION_ENV: str(self._said / f"{worker}.json"),
        }
        # Apart from our session: what is told to all of it is told to us, and we tell the workers, once.
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "controller.serving.server", *self._arguments, *own),
            env=environment,
            pass_fds=descriptors,
            start_new_session=True,
        )

    async def _watch(self) -> None:
        """End workers of which no thread comes back, twice in a row: they are replaced."""
        before: set[int] = set()
        while True:
            await asyncio.sleep(WATCH_S)
            now = {n for n, numbers in enumerate(self._shared.numbers) if numbers[STUCK]}
            for worker in now & before:
                if (process := self._processes.get(worker)) is not None and not self._signals:
                    log.error("worker %d hangs: every prediction thread is in a call that does not end", worker)
                    self._shared.numbers[worker][STUCK] = 0.0
                    process.kill()
            before = now

    def _failure(self, worker: int, code: int) -> Denied | Unavailable:
        try:
            said = Termination.model_validate_json((self._said / f"{worker}.json").read_bytes())
        except (OSError, ValidationError):
            return Unavailable(f"worker {worker} ended with {code} before it was ready", reason="WorkerFailed")
        kind = Denied if code == WRONG_INPUT else Unavailable
        return kind(said.message, reason=said.reason)
