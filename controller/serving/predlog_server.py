"""How a server and its prediction log come together: opened by the environment, kept, shown, closed.

In local mode the server starts the shipper as a child of its own, which ends with it; on a cluster that is a
sidecar.  Large requests are packed in a thread, so that others are not kept waiting by them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from controller.serving import predlog_spool as spool
from controller.serving.metrics import Metrics
from controller.serving.predlog import Config, PredictionLog, Record
from controller.serving.ship_log import END_S, Status

SHIP_ENV: Final = "MAINSPRING_LOG_SHIP"
"""Tells a server to start the shipper itself: JSON list of the arguments of `ship_log` besides the spool."""
AGAIN_S: Final = 1.0
"""How often it is looked whether the shipper is still there."""
LARGE_CELLS, LARGE_MATRIX = 2_000, 200_000
"""From so many values on, as objects or as an array of numbers, a request is packed in a thread."""

log = logging.getLogger("mainspring.serving")


class Child:
    """A shipper that this process starts, starts again when it dies, and ends.

    Args:
        command: how it is started; it ends when its standard input does.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._closing = threading.Event()
        self._popen = self._started()
        self._thread = threading.Thread(target=self._watch, name="shipper", daemon=True)
        self._thread.start()

    def _started(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, stdin=subprocess.PIPE)

    def _watch(self) -> None:
        while not self._closing.wait(AGAIN_S):
            if (code := self._popen.poll()) is not None:
                log.error("the shipper of the prediction log ended with %d and is started again", code)
                self._popen = self._started()

    def close(self) -> bool:
        """Let it ship what is left; returns whether it ended in time."""
        self._closing.set()
        self._thread.join()
        assert self._popen.stdin is not None
        self._popen.stdin.close()
        try:
            self._popen.wait(END_S + 5.0)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
            return False
        return True


@dataclass(slots=True)
class Logging:
    """The log of one server process, and the shipper if it is its child."""

    log: PredictionLog
    shipper: Child | None = None

    @classmethod
    def open(
        cls,
        environment: Mapping[str, str],
        identity: Mapping[str, str],
        kinds: Mapping[str, str],
        metrics: Metrics,
    ) -> Logging | None:
        """Open the log as the environment says; None: nothing is logged."""
        config = Config.read(environment)
        if config is None:
            return None
        who = {**identity, "pod": environment.get("MAINSPRING_POD", "")}
        opened = PredictionLog(config, who, kinds, recorded=metrics.logged, lost=metrics.lost)
        arguments = json.loads(environment.get(SHIP_ENV, "") or "null")
        shipper = None
        if arguments is not None:
            # Of every worker: they take turns, and the last one to end ships what the others have left.
            command = [
                sys.executable,
                "-m",
                "controller.serving.ship_log",
                "--child",
                "--spool",
                str(config.spool),
            ]
            shipper = Child([*command, *map(str, arguments)])
        return cls(opened, shipper)

    async def keep(self, record: Record) -> None:
        """Write a request into the spool before it is answered."""
        if not self.log.takes(record.request_id):
            return
        rows = len(record.predictions)
        if rows * len(record.columns) < (LARGE_MATRIX if hasattr(record.inputs, "dtype") else LARGE_CELLS):
            why = self.log.write(record)
        else:
            why = await asyncio.to_thread(self.log.write, record)
        self.log.count(why, rows)

    def text(self) -> bytes:
        """Write how the log is, in the Prometheus text format, beside what `Metrics` counts."""
        status = Status.read(self.log.directory)
        reason, message = (_plain(t) for t in (status.reason, status.message))
        lines = (
            *_gauge("mainspring_log_queue_bytes", "Bytes of the spool that wait for the store."),
            f"mainspring_log_queue_bytes {spool.used_bytes(self.log.directory)}",
            *_gauge("mainspring_log_store_info", "1, with how the shipping goes as labels."),
            f'mainspring_log_store_info{{reason="{reason}",message="{message}"}} 1',
            *_gauge("mainspring_log_store_since_seconds", "When it began to be so, seconds since 1970."),
            f"mainspring_log_store_since_seconds {status.since}",
            *_gauge("mainspring_log_shipped_rows", "Rows that the store has taken."),
            f"mainspring_log_shipped_rows {status.rows}",
            *_gauge("mainspring_log_unreadable", "Requests of the spool that could not be read back."),
            f"mainspring_log_unreadable {status.lost}",
        )
        return ("\n".join(lines) + "\n").encode()

    def close(self) -> None:
        """Finish the spool, and wait for a child to ship it."""
        self.log.close()
        if self.shipper is not None and not self.shipper.close():
            log.error("the prediction log was not shipped in time; it stays in %s", self.log.directory)


def _gauge(name: str, text: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} gauge"


def _plain(text: str) -> str:
    """Write a text so that it needs no escape in a label."""
    return " ".join(text.replace("\\", "/").replace('"', "'").split())[:300]


def of_environment(identity: Any, kinds: Mapping[str, str], metrics: Metrics) -> Logging | None:
    """Open the log of this process."""
    names = {k: getattr(identity, k) for k in ("model", "revision", "version", "commit", "digest")}
    return Logging.open(os.environ, names, kinds, metrics)
