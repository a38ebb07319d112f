"""Processes under measurement: how much memory and processor they take, by the kernel's own accounting."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_KIB = 1024


def end_with_parent() -> None:
    """Have the kernel end this process with the one that started it, however that ends; Linux only."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


class Watched:
    """One process; a context that ends it."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self.log = log
        self.began = time.time()
        with log.open("w") as out:
            self.process = subprocess.Popen(
                command, env=dict(env), stdout=out, stderr=out, preexec_fn=end_with_parent
            )

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def check(self) -> None:
        """End the measurement when the process has ended by itself."""
        assert self.process.poll() is None, self.log.read_text()[-3000:]

    def cpu_s(self) -> float:
        """Read the processor seconds so far, its own and the kernel's for it, ended children included."""
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return sum(int(word) for word in words[11:15]) / _TICKS

    def resident_mib(self) -> float:
        """Read the memory that it holds now, MiB."""
        return self._status("VmRSS")

    def peak_mib(self) -> float:
        """Read the most memory that it held, MiB."""
        return self._status("VmHWM")

    def _status(self, name: str) -> float:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(name)) / _KIB
