"""Servers that tests start: each in its own process group, with a log, and never outliving the test process.

A server's first process holds a pipe from us.  When we end, however that happens, the pipe closes and the group is
killed; so a killed test run leaves no server behind.  Ports are chosen below the range that the kernel gives to
outgoing connections, so a port stays ours while its server is away.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

TAIL = 25
# The shell waits for the server and for the pipe at once; `$$` is also the id of the group.
_GUARD = """
exec 3<&0
"$@" </dev/null 3<&- &
server=$!
( read -r _ <&3; kill -TERM $server; sleep "$GRACE"; kill -KILL -$$ ) &
exec 3<&-
wait $server
code=$?
kill -KILL $! 2>/dev/null
exit $code
"""


class NotReady(RuntimeError):
    """A server ended or missed its deadline; the message ends with the tail of its log."""


class Server:
    """One running server.

    `grace` is how many seconds it gets between SIGTERM and SIGKILL when it is stopped; 0 kills at once.
    """

    def __init__(self, name: str, command: list[str], log: Path, *, grace: int = 0, **environment: str) -> None:
        self.name, self.log, self.grace = name, log, grace
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, "guard", *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "GRACE": str(grace), **environment},
            )

    def ended(self) -> int | None:
        """The exit code of a server that is no more, None while it runs."""
        return self._process.poll()

    def tail(self) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-TAIL:])

    def stop(self) -> None:
        """End the whole group and wait for it; stopping twice is harmless."""
        assert self._process.stdin is not None
        if self.grace and self._process.poll() is None:
            self._process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):  # then it is killed below
                self._process.wait(self.grace)
        with contextlib.suppress(ProcessLookupError):  # all of the group has ended
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdin.close()


def wait_until(met: Callable[[], object], what: str, seconds: float, *servers: Server) -> None:
    """Ask `met` until it answers something true; NotReady after `seconds` or when one of `servers` has ended."""
    deadline = time.monotonic() + seconds
    while not met():
        for server in servers:
            if (code := server.ended()) is not None:
                raise NotReady(
                    f"{server.name} ended with {code} while {what}; {server.log} ends:\n{server.tail()}"
                )
        if time.monotonic() > deadline:
            tails = "\n".join(f"{server.log} ends:\n{server.tail()}" for server in servers)
            raise NotReady(f"gave up after {seconds:.0f} s while {what}\n{tails}")
        time.sleep(0.1)


def free_port(address: str = "127.0.0.1") -> int:
    """A port on which nothing listens, outside the kernel's range for outgoing connections."""
    chooser = random.SystemRandom()
    for _ in range(200):
        port = chooser.randrange(20000, 30000)
        with socket.socket() as probe, contextlib.suppress(OSError):  # taken: try the next
            probe.bind((address, port))
            return port
    raise NotReady(f"no free port on {address} between 20000 and 30000 in 200 tries")
