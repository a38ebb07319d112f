"""Objects out of a mirror, through one `git cat-file --batch` of our own, in the shape that GitPython reads.

GitPython's own object database would start git with the controller's whole environment; this one starts it as
`git_process` does.  A reader belongs to one thread and one operation, is closed with it, and is killed at its
deadline.  Commits and trees above a bound are refused before they are read.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from controller.clients import git_process
from controller.clients.errors import Denied, Unavailable
from controller.clients.git_errors import telling_line

_METADATA_LIMIT = 32 * 1024**2


class ObjectMissing(KeyError):
    """The object is not in the mirror."""


class Stream:
    """One object: `binsha`, `type`, `size`, and `read`; gone once the next object is asked for."""

    def __init__(self, binsha: bytes, kind: str, size: int, source: Callable[[int], bytes]) -> None:
        self.binsha, self.size = binsha, size
        self.type = kind.encode("ascii")
        self.left = size
        self._source = source

    @property
    def hexsha(self) -> bytes:
        """The id as hex digits, as gitdb gives it."""
        return self.binsha.hex().encode("ascii")

    def __iter__(self) -> Iterator[object]:
        """Unpack as gitdb's own streams do."""
        return iter((self.binsha, self.type, self.size, self))

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes, all that is left when negative."""
        data = self._source(self.left if size < 0 else min(size, self.left))
        self.left -= len(data)
        return data


class CatFile:
    """Reads objects of one mirror; a context manager."""

    def __init__(self, git_dir: Path, home: Path, *, timeout_s: float, shown: str) -> None:
        self._shown, self._timeout_s = shown, timeout_s
        self._open: Stream | None = None
        self._late = False
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        try:
            self._process = subprocess.Popen(
                git_process.command(["cat-file", "--batch"]),
                env=git_process.environment(home, git_dir=git_dir),
                cwd=git_dir,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                start_new_session=True,
            )
        except OSError as error:
            self._stderr.close()
            raise Unavailable(
                f"the mirror of {shown} cannot be opened: {error.strerror}", reason="GitCorrupt"
            ) from None
        self._timer = threading.Timer(timeout_s, self._expire)
        self._timer.daemon = True
        self._timer.start()

    def __enter__(self) -> CatFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the process and free its pipes."""
        self._timer.cancel()
        self._kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # unsent bytes to a process that is gone
                    pipe.close()
        self._stderr.close()

    def info(self, binsha: bytes) -> Stream:
        """Return type and size of an object (GitPython's `odb.info`)."""
        return self.stream(binsha)

    def stream(self, binsha: bytes) -> Stream:
        """Return an object to read (GitPython's `odb.stream`); raises ObjectMissing."""
        return self._ask(binsha.hex())

    def tree_of(self, commit: str) -> bytes:
        """Return the binary id of a commit's tree, also where the commit has headers that no parser likes."""
        return self._ask(f"{commit}^{{tree}}").binsha

    def _ask(self, name: str) -> Stream:
        if self._open is not None:
            while self._open.left:
                self._open.read(65536)
            self._exactly(1)
            self._open = None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(name.encode("ascii") + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._broken() from None
        words = self._process.stdout.readline(200).split()
        if len(words) == 2 and words[1] == b"missing":
            raise ObjectMissing(name)
        if len(words) != 3:
            raise self._broken()
        kind, size, binsha = words[1].decode("ascii"), int(words[2]), bytes.fromhex(words[0].decode("ascii"))
        if kind != "blob" and size > _METADATA_LIMIT:
            raise Denied(
                f"{self._shown}: the {kind} {binsha.hex()} has {size} bytes, more than {_METADATA_LIMIT}",
                reason="RepoTooLarge",
            )
        self._open = Stream(binsha, kind, size, self._exactly)
        return self._open

    def _exactly(self, size: int) -> bytes:
        assert self._process.stdout is not None
        data = self._process.stdout.read(size) if size else b""
        if len(data) != size:
            raise self._broken()
        return data

    def _broken(self) -> Unavailable:
        """Say why the process stopped answering: our deadline, or damage."""
        if self._late:
            return Unavailable(
                f"{self._shown}: reading the mirror took longer than {self._timeout_s:g} s", reason="GitTimeout"
            )
        with contextlib.suppress(subprocess.TimeoutExpired):  # its words so far are enough
            self._process.wait(1.0)
        self._stderr.seek(0)
        line = telling_line(self._stderr.read(4096).decode("utf-8", "replace"))
        return Unavailable(f"the mirror of {self._shown} is damaged: {line}", reason="GitCorrupt")

    def _expire(self) -> None:
        self._late = True
        self._kill()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # ended already: nothing to stop
            os.killpg(self._process.pid, signal.SIGKILL)
