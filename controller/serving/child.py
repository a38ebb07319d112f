"""The parent's side of a model that runs in a process of its own: start it, ask it, time it, end it.

The process gets no credentials and a few environment variables only; it is killed with all its children when the
parent is done or has waited long enough.  What it answers is parsed as JSON and never trusted.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import controller
from controller.clients.errors import Denied
from controller.serving import frames

KEPT: Final = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "MPLCONFIGDIR", "TZ")
KEPT_PREFIXES: Final = ("OMP_", "OPENBLAS_", "MKL_", "LOKY_")
_PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 4, 36
REASONS: Final = ("ModelNotLoadable", "EnvironmentMismatch", "PredictionsInvalid")


class Child:
    """A running model process, with one deadline for all that is asked of it; `pid` leads its process group."""

    def __init__(self, process: subprocess.Popen[bytes], deadline_s: float) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._in, self._out = process, process.stdin.fileno(), process.stdout.fileno()
        self.pid = process.pid
        self._deadline_s = deadline_s
        self._until = time.monotonic() + deadline_s
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)

    def ask(self, kind: bytes, body: bytes, reason: str) -> tuple[dict[str, Any], float]:
        """Send a frame and await the answer; returns it with the time between, in milliseconds.

        Raises:
            Denied: with `reason` where the process hangs, ends or sends what is no answer; else with its own.
        """
        try:
            started = time.perf_counter_ns()
            frames.write(self._in, kind, body, self._until)
            answered, data = frames.read(self._out, until=self._until)
            spent = (time.perf_counter_ns() - started) / 1e6
            found = json.loads(data)
        except frames.DeadlineExceeded as error:
            message = f"the model did not answer within {self._deadline_s:g} s and was stopped"
            raise Denied(message, reason=reason) from error
        except frames.FrameError as error:
            raise Denied(f"the model's process failed: {error}{self._ended()}", reason=reason) from error
        except (ValueError, RecursionError) as error:
            raise Denied("the model's process sent something that is no answer", reason=reason) from error
        if not isinstance(found, dict):
            raise Denied("the model's process sent something that is no answer", reason=reason)
        if answered != frames.ANSWER:
            said = str(found.get("reason"))
            raise Denied(str(found.get("message"))[:500], reason=said if said in REASONS else reason)
        return found, spent

    def _ended(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):  # it closed its pipe and runs on: nothing to add
            code = self._process.wait(timeout=2)
            if code < 0:
                name = signal.Signals(-code).name
                return f" ({name}{', out of memory?' if code == -signal.SIGKILL else ''})"
            return f" (exit code {code})"
        return ""


@contextlib.contextmanager
def running(model: Path, kind: str, deadline_s: float, command: Sequence[str] | None = None) -> Iterator[Child]:
    """Run the model process for as long as the block lasts, and not a moment longer.

    Args:
        model: directory of verified files.
        kind: how it is written, one of `artifacts.Format`.
        deadline_s: seconds for everything that is asked.
        command: another program than our worker.
    """
    environment = {k: v for k, v in os.environ.items() if k in KEPT or k.startswith(KEPT_PREFIXES)}
    environment["PYTHONPATH"] = str(Path(controller.__file__).parent.parent)
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    before = set(_children())
    program = list(command or [sys.executable, "-P", "-m", "controller.serving.worker"])
    process = subprocess.Popen(
        [*program, "--model", str(model), "--format", kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        cwd=model,
        start_new_session=True,
    )
    try:
        yield Child(process, deadline_s)
    finally:
        with contextlib.suppress(ProcessLookupError):  # all of the group have ended by themselves
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        _end_all(before)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # nothing is buffered that anyone would miss
                    pipe.close()


def guard() -> None:
    """Let orphans of the model's process fall to this one, and keep this one's memory from them.

    For a process that does nothing but the step: what a model leaves behind, also in a session of its own, is then
    ended before anything is written, and cannot change what is written.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _end_all(before: set[int]) -> None:
    """Kill the children that we did not have before, and those that fall to us when they die."""
    while children := [pid for pid in _children() if pid not in before]:
        for pid in children:
            with contextlib.suppress(ProcessLookupError):  # it ended between the look and the signal
                os.kill(pid, signal.SIGKILL)
        for pid in children:
            with contextlib.suppress(ChildProcessError):  # another thread has waited for it
                os.waitpid(pid, 0)


def _children() -> list[int]:
    """List our children, zombies included; none where the kernel does not tell."""
    found: list[int] = []
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            found += [int(pid) for pid in path.read_text().split()]
    return found
