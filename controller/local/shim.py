"""The detached parent of one pod's processes: runs its containers in order and records how each ended.

Started by `processes.py` as a script of its own (`python -I -S shim.py <directory>`): it imports nothing but the
standard library and starts in milliseconds.  It outlives the controller; the directory is all they share:

- `plan.json`  what to run (read); `lock` is held for as long as the shim lives
- `shim.json`  written before anything runs: from then on no other shim ever runs this directory
- `<container>.run.json`, `<container>.exit.json`, `<container>.log`, and at the very end `done.json`

Must never run a directory twice, leave a process behind, or die because output cannot be written.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import selectors
import signal
import sys
import time
from types import FrameType
from typing import Any, NoReturn

BACKOFF_FIRST, BACKOFF_MOST, BACKOFF_RESET = 0.2, 10.0, 10.0
"""Seconds before a server is started again: doubled each time, back to the first after it ran that long."""
MESSAGE_BYTES = 4096
"""What is kept of a termination message, as by the kubelet."""
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_TAIL_BYTES = 2048
_READS = 16
"""Reads of 64 KiB in a row: a flood of output must not keep us from the clock."""
TOO_LARGE = "OutputTooLarge"
TOO_LARGE_CODE = 128 + signal.SIGXFSZ
"""How a container ends that wrote more than it may: as if the kernel had enforced it."""
_MEASURE_S = 1.0
_MEASURE_SHARE = 10
"""Of the time, one part in so many at most goes into counting what was written."""
_DROPPED = b"[earlier output was dropped]\n"


def identity(pid: int) -> str | None:
    """Tell one process from every other, also when its pid is used again or the machine was restarted.

    Returns:
        The boot's id and the start time in clock ticks since boot; None when the process is gone or a zombie.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123  # starts fast
            fields = file.read().rpartition(")")[2].split()
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123
            boot = file.read().strip()
    except OSError:
        return None
    return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"


def write_json(path: str, value: object) -> None:
    """Write a file so that a reader sees the old content, the new one, and nothing in between."""
    temporary = f"{path}.{os.getpid()}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, json.dumps(value, sort_keys=True).encode())
    finally:
        os.close(descriptor)
    os.replace(temporary, path)  # noqa: PTH105  # no pathlib here: it doubles the start-up time


class Log:
    """A container's output file: at most `limit` bytes, the older half goes when it is full."""

    def __init__(self, path: str, limit: int) -> None:
        self._path = path
        self._limit = limit
        self._open()

    def _open(self) -> None:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._file).st_size

    def write(self, data: bytes) -> None:
        """Append; what a full disk does not take is lost, the container goes on."""
        with contextlib.suppress(OSError):  # a program must not fail because its log cannot be kept
            data = data[-self._limit // 2 :]
            if self._size + len(data) > self._limit:
                self._halve()
            self._size += os.write(self._file, data)

    def _halve(self) -> None:
        kept = self.tail(self._limit // 2 - len(_DROPPED))
        temporary = f"{self._path}.tmp"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, _DROPPED + kept.partition(b"\n")[2])
        finally:
            os.close(descriptor)
        os.replace(temporary, self._path)  # noqa: PTH105
        os.close(self._file)
        self._open()

    def tail(self, count: int) -> bytes:
        """Read the last `count` bytes."""
        return os.pread(self._file, count, max(0, self._size - count))

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class Shim:
    """Runs one directory's plan to its end; see the module."""

    def __init__(self, directory: str, plan: dict[str, Any]) -> None:
        self._dir = directory
        self._plan = plan
        self._reason = ""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._selector = selectors.DefaultSelector()
        self._wake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._wake, selectors.EVENT_READ)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._told_to_stop)
        signal.signal(signal.SIGCHLD, self._child_ended)
        self._orphans = False
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        deadline = plan.get("deadline")
        self._deadline = time.monotonic() + deadline if deadline is not None else None
        self._room: int | None = None
        """Bytes that the directory may have while the present container runs; None: as many as it likes."""
        self._measure_at = 0.0

    def _told_to_stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._reason = self._reason or "Stopped"

    def _child_ended(self, _signal: int, _frame: FrameType | None) -> None:
        self._orphans = True

    def run(self) -> None:
        """Run everything; writes `shim.json` first and `done.json` last."""
        started = _now()
        # Orphans of a container become our children, so that a daemon it started cannot outlive it.
        self._libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        me = {"pid": os.getpid(), "identity": identity(os.getpid()), "startedAt": started}
        write_json(f"{self._dir}/shim.json", me)
        succeeded = self._serve() if self._plan["restart"] else self._run_through()
        if self._reason == TOO_LARGE:
            for part in ("volumes", "scratch"):
                remove_files(f"{self._dir}/{part}")
        done = {"outcome": "Succeeded" if succeeded else "Failed", "reason": self._reason}
        write_json(f"{self._dir}/done.json", {**done, "startedAt": started, "finishedAt": _now()})

    def _run_through(self) -> bool:
        for container in self._plan["containers"]:
            self._check_deadline()
            if self._reason or self._container(container, 0) != 0 or self._reason:
                return False
        return True

    def _serve(self) -> bool:
        containers, index, count, delay = self._plan["containers"], 0, 0, BACKOFF_FIRST
        while not self._reason:
            began = time.monotonic()
            code = self._container(containers[index], count)
            if containers[index]["init"] and code == 0:
                index, count, delay = index + 1, 0, BACKOFF_FIRST
                continue
            if time.monotonic() - began > BACKOFF_RESET:
                delay = BACKOFF_FIRST
            until = time.monotonic() + delay
            while not self._reason and time.monotonic() < until:
                self._wait(until - time.monotonic())
            count, delay = count + 1, min(delay * 2, BACKOFF_MOST)
        return False

    def _container(self, container: dict[str, Any], count: int) -> int:
        """Run one container once, to the end of all its processes; returns its exit code (128 + signal)."""
        name, started = container["name"], _now()
        with contextlib.suppress(FileNotFoundError):  # the first run: none is left of an earlier one
            os.unlink(container["termination"])  # noqa: PTH108
        log = Log(f"{self._dir}/{name}.log", self._plan["log_bytes"])
        limit = container.get("output_bytes")
        self._room = None if limit is None else size_of(self._dir) + int(limit)
        self._measure_at = time.monotonic() + _MEASURE_S
        output, write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(output, False)
        # A signal between fork and exec must reach the handlers of the right process.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        pid = os.fork()
        if pid == 0:
            self._become(container, write_end, {"count": count, "startedAt": started})
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        os.close(write_end)
        self._selector.register(output, selectors.EVENT_READ, log)
        code = os.waitstatus_to_exitcode(self._follow(pid))
        self._end_all()
        self._wait(0)
        with contextlib.suppress(KeyError):  # it is out already when the pipe was read to its end
            self._selector.unregister(output)
        os.close(output)
        code = code if code >= 0 else 128 - code
        self._check_size()
        if self._reason == TOO_LARGE:
            code, message = TOO_LARGE_CODE, f"it wrote more than {limit:,} bytes, was stopped, and all was removed"
        else:
            message = _message(container, code, log)
        told = {"exitCode": code, "count": count, "startedAt": started, "finishedAt": _now()}
        write_json(f"{self._dir}/{name}.exit.json", {**told, "message": message})
        log.close()
        return code

    def _become(self, container: dict[str, Any], output: int, run: dict[str, Any]) -> NoReturn:
        """Turn the forked child into the container's program."""
        try:
            os.setsid()
            self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            me = {"pid": os.getpid(), "identity": identity(os.getpid())}
            write_json(f"{self._dir}/{container['name']}.run.json", {**run, **me})
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.chdir(container["cwd"])
            os.execvpe(container["argv"][0], container["argv"], container["env"])  # noqa: S606
        except OSError as error:
            text = f"{container['argv'][0]} cannot be started: {error.strerror}"
            os.write(2, f"{text}\n".encode())
            with contextlib.suppress(OSError):  # the exit code still tells
                descriptor = os.open(container["termination"], os.O_WRONLY | os.O_CREAT, 0o600)
                os.write(descriptor, text.encode())
        finally:
            os._exit(127)

    def _follow(self, pid: int) -> int:
        """Wait for a process; tell it to stop when the shim is told so or time is up, then kill it."""
        kill_at: float | None = None
        while True:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                # Not reaped yet, so that its number still means its group and nobody else's.
                _kill_group(pid)
                return os.waitpid(pid, 0)[1]
            self._reap_orphans(pid)
            self._check_deadline()
            if self._room is not None and time.monotonic() >= self._measure_at:
                self._check_size()
            now = time.monotonic()
            if self._reason == TOO_LARGE and kill_at is None:
                # No grace: every second of it fills the disk.
                kill_at = now
            elif self._reason and kill_at is None:
                kill_at = now + float(self._plan["grace"])
                # To the first process alone, as the kubelet does: a server's workers finish their requests.
                os.kill(pid, signal.SIGTERM)
            elif kill_at is not None and now >= kill_at:
                _kill_group(pid)
                kill_at = now + 1.0
            # Once it was told to stop, only the kill is waited for: the deadline may lie in the past.
            limit = self._deadline if kill_at is None else kill_at
            pause = 60.0 if limit is None else limit - now
            self._wait(pause if self._room is None else min(pause, max(0.0, self._measure_at - now)))

    def _check_deadline(self) -> None:
        if self._deadline is not None and time.monotonic() >= self._deadline and not self._reason:
            self._reason = "DeadlineExceeded"

    def _check_size(self) -> None:
        """End the run when more was written than may be; counting takes a small share of the time only."""
        if self._room is None:
            return
        began = time.monotonic()
        if size_of(self._dir) > self._room:
            self._reason = self._reason or TOO_LARGE
        now = time.monotonic()
        self._measure_at = now + max(_MEASURE_S, (now - began) * _MEASURE_SHARE)

    def _wait(self, seconds: float) -> None:
        """Copy output to the log until something happens: a signal, a child's end, or the time is over."""
        for key, _ in self._selector.select(max(0.0, seconds)):
            for _ in range(_READS):
                try:
                    data = os.read(key.fd, 65_536)
                except BlockingIOError:
                    break
                if not data:
                    # All writers are gone, the process may be not: without this the select would spin.
                    self._selector.unregister(key.fd)
                    break
                if key.data is not None:
                    key.data.write(data)

    def _reap_orphans(self, pid: int) -> None:
        """Let go of processes that ended after the parent that left them to us."""
        if self._orphans:
            self._orphans = False
            for child in _children():
                if child != pid:
                    os.waitpid(child, os.WNOHANG)

    def _end_all(self) -> None:
        """Kill what a container left running, daemons in sessions of their own included."""
        while children := _children():
            for child in children:
                os.kill(child, signal.SIGKILL)
            for child in children:
                os.waitpid(child, 0)


def size_of(directory: str) -> int:
    """Count the bytes on disk below a directory, holes not; what vanishes meanwhile counts nothing."""
    total, left = 0, [directory]
    while left:
        with contextlib.suppress(OSError), os.scandir(left.pop()) as entries:  # it vanished, as temporary ones do
            for entry in entries:
                with contextlib.suppress(OSError):  # the same
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total


def remove_files(directory: str) -> None:
    """Remove the files below a directory, so that a disk that is nearly full has room again."""
    for where, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):  # what cannot be removed goes with the directory
                os.unlink(f"{where}/{name}")  # noqa: PTH108


def _children() -> list[int]:
    """List our children, zombies included; none where the kernel does not tell."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:  # noqa: PTH123
            return [int(pid) for pid in file.read().split()]
    except FileNotFoundError:
        return []


def _kill_group(pid: int) -> None:
    """Kill a process and its group; the group exists a moment later than the process."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError):  # ended already: nothing to stop
            kill(pid, signal.SIGKILL)


def _message(container: dict[str, Any], code: int, log: Log) -> str:
    data = b""
    with contextlib.suppress(OSError), open(container["termination"], "rb") as file:  # noqa: PTH123  # none was left
        data = file.read(MESSAGE_BYTES)
    if not data and code != 0 and container["fallback"]:
        data = log.tail(_TAIL_BYTES)
    return data.decode("utf-8", "replace")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def main(directory: str) -> int:
    """Run the plan in a directory, unless another shim runs it or has run it already."""
    lock = os.open(f"{directory}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0
    if os.path.exists(f"{directory}/shim.json"):  # noqa: PTH110
        return 0
    with open(f"{directory}/plan.json", encoding="utf-8") as file:  # noqa: PTH123
        plan = json.load(file)
    Shim(directory, plan).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
