"""Stores of the prediction log for tests: an S3 service on loopback that goes away and comes back, and a spool.

The service is moto's own server, whole requests over HTTP and nothing patched.  `away` refuses connections.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from moto.server import ThreadedMotoServer

from controller.serving.predlog import Config, PredictionLog, Record

KEYS = {"accesskey": "AKIDLOGS", "secretkey": "not-a-real-secret"}
WHO = {"model": "churn", "revision": "churn-0123456789", "version": "3", "commit": "abc1234", "pod": "churn-0"}
NOON = 1_772_452_800_000_000
"""2026-03-02, 12:00 UTC, in microseconds."""


class S3:
    """An S3 service; what it holds outlives being away."""

    def __init__(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        self.port = self._server.get_host_and_port()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        # All of moto's servers in a process share what they hold.
        httpx.post(f"{self.endpoint}/moto-api/reset", trust_env=False).raise_for_status()

    def bucket(self, name: str) -> None:
        httpx.put(f"{self.endpoint}/{name}", trust_env=False).raise_for_status()

    def away(self) -> None:
        self._server.stop()

    def back(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        self._server.stop()


@contextmanager
def s3() -> Iterator[S3]:
    service = S3()
    try:
        yield service
    finally:
        service.stop()


def secret(directory: Path, **keys: str) -> Path:
    """Write a Secret as it is mounted; returns the directory that MAINSPRING_CREDENTIALS names."""
    at = directory / "credentials" / "log"
    at.mkdir(parents=True, exist_ok=True)
    for name, value in keys.items():
        (at / name).write_text(value)
    return at.parent


@dataclass
class Spool:
    """A server's log without a server."""

    directory: Path
    config: dict = field(default_factory=dict)
    who: dict[str, str] = field(default_factory=lambda: dict(WHO))

    def __post_init__(self) -> None:
        self.recorded = 0
        self.lost: dict[str, int] = {}
        self.log = PredictionLog(
            Config(spool=self.directory, **self.config),
            self.who,
            {"age": "number"},
            recorded=self._count,
            lost=self._miss,
        )

    def _count(self, rows: int) -> None:
        self.recorded += rows

    def _miss(self, why: str, rows: int) -> None:
        self.lost[why] = self.lost.get(why, 0) + rows

    def request(self, name: str, *values: float, at: int = NOON, prediction: object = 0.5) -> None:
        rows = [[v] for v in values or (1.0,)]
        self.log.record(Record(name, at, ("age",), rows, [prediction] * len(rows)))  # type: ignore[list-item]


def status(directory: Path) -> dict:
    """Read what the shipper says of itself."""
    return dict(json.loads((directory / "ship.json").read_text()))
