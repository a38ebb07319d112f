"""Ships the prediction log: finished segments of the spool become files of the store, then they are deleted.

Runs beside the servers: a sidecar on a cluster, the only container with the store's credentials; in local mode a
child of the server.  One segment makes one file of each day, always under the same name, so that whatever is done
again overwrites itself.  While the store is away the spool is kept and tried again; the servers stop writing to it
at their own limit.  `ship.json` in the spool says how things are; the servers show it with their figures.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from controller.clients.errors import ClientError
from controller.clients.redact import redact
from controller.serving import predlog_spool as spool
from controller.serving.predlog_store import Store, secret_directory
from controller.serving.predlog_table import Parts, parquet

STATUS: Final = "ship.json"
SPOILT: Final = "spoilt"
"""The last segment that could not be made into a table, kept for whoever wants to know why."""
LOOK_S: Final = 0.5
BACKOFF_FIRST_S, BACKOFF_MOST_S = 1.0, 30.0
END_S: Final = 60.0
"""How long it goes on trying once it was told to end."""
RETENTION_EVERY_S: Final = 6 * 3600.0

log = logging.getLogger("mainspring.ship")


@dataclass(slots=True)
class Status:
    """How the shipping goes, as the servers show it."""

    reason: str = "Starting"
    """Shipping, or what is wrong: StoreUnavailable, StoreDenied, SecretKeyMissing, …"""
    message: str = ""
    """One sentence; empty when nothing is wrong."""
    since: float = 0.0
    """When it began to be so, seconds since 1970."""
    rows: int = 0
    """Rows that were shipped."""
    files: int = 0
    lost: int = 0
    """Requests of the spool that could not be read back."""

    @classmethod
    def read(cls, directory: Path) -> Status:
        """Read what a shipper wrote last; as at the start when there is nothing."""
        try:
            given = json.loads((directory / STATUS).read_text())
            return cls(**{k: v for k, v in given.items() if k in cls.__slots__})
        except (OSError, ValueError, TypeError, AttributeError):
            return cls()

    def write(self, directory: Path) -> None:
        """Write it, whole or not at all; a full disk must not end the shipping that would make room."""
        hidden = directory / f".{STATUS}.{os.getpid()}"
        with contextlib.suppress(OSError):  # the next one is written in a moment
            hidden.write_text(json.dumps(asdict(self)))
            hidden.replace(directory / STATUS)


class Shipper:
    """Ships one spool to one store.

    Args:
        directory: the spool; made when it is missing.
        uri: the store.
        secret: directory of its Secret; None: what the environment has.
        model: whose partitions old days are deleted of.
        retention_s: how long days are kept, seconds; 0: for ever.
    """

    def __init__(
        self, directory: Path, uri: str, *, secret: Path | None = None, model: str = "", retention_s: float = 0.0
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory, self._uri, self._secret = directory, uri, secret
        self._model, self._retention_s = model, retention_s
        self._store: Store | None = None
        self._swept = float("-inf")
        self.status = Status.read(directory)

    def once(self) -> bool:
        """Ship everything that is finished; returns whether all of it went."""
        try:
            for path in spool.segments(self._directory):
                if spool.is_finished(path):
                    self._ship(path)
            self._sweep()
        except ClientError as error:
            self._tell(error.reason, error.message)
            # Opened anew: the Secret may be another one by then.
            self._store = None
            return False
        except OSError as error:
            self._tell("SpoolUnreadable", redact(f"the spool cannot be read: {error.strerror or error}"))
            return False
        except Exception as error:
            # A sidecar that ends takes its pod out of the traffic; one that goes on says what it cannot do.
            log.exception("the prediction log cannot be shipped")
            self._tell("ShipperFailed", redact(f"the shipper failed with {type(error).__name__}", limit=200))
            return False
        self._tell("Shipping", "")
        return True

    def _ship(self, path: Path) -> None:
        parts = Parts(path)
        who = parts.header
        try:
            files = {day: parquet(parts.table(day)) for day in sorted(parts.days)}
        except (ValueError, TypeError, KeyError) as error:
            # It would be in the way of all that follow it, for ever.
            log.error("%s cannot be made into a table: %s", path.name, redact(str(error), limit=300))
            self.status.lost += parts.requests
            path.replace(self._directory / SPOILT)
            return
        for day, data in files.items():
            name = f"{who.get('pod') or 'server'}-{path.stem}.parquet"
            self._opened().write(f"day={day}/revision={who.get('revision') or 'unknown'}/{name}", data)
        if parts.days:
            self.status.files += len(parts.days)
            self.status.rows += parts.rows
        if parts.lost:
            log.error("%s: %d requests could not be read back and are lost", path.name, parts.lost)
            self.status.lost += parts.lost
        path.unlink()
        if parts.days or parts.lost:
            self.status.write(self._directory)

    def _opened(self) -> Store:
        if self._store is None:
            self._store = Store(self._uri, self._secret)
        return self._store

    def _sweep(self) -> None:
        """Delete days that are older than is kept; only this model's, and only what has our names."""
        if not self._retention_s or time.monotonic() - self._swept < RETENTION_EVERY_S:
            return
        oldest = (datetime.now(UTC) - timedelta(seconds=self._retention_s)).strftime("%Y-%m-%d")
        store = self._opened()
        for day in store.days():
            if day >= oldest:
                break
            for revision in store.revisions(day):
                if belongs(revision, self._model):
                    log.info("deleting %s of %s: older than is kept", revision, day)
                    store.delete(day, revision)
        self._swept = time.monotonic()

    def _tell(self, reason: str, message: str) -> None:
        before = self.status
        if (before.reason, before.message) == (reason, message):
            return
        if message:
            log.error("%s; the spool is kept and tried again", message)
        elif before.message:
            log.info("%s takes the prediction log again", self._uri)
        since = before.since if before.reason == reason else time.time()
        self.status.reason, self.status.message, self.status.since = reason, message, since
        self.status.write(self._directory)

    def left(self) -> int:
        """Count the finished segments that are still in the spool."""
        return sum(spool.is_finished(path) for path in spool.segments(self._directory))


def belongs(revision: str, model: str) -> bool:
    """Tell whether a revision is one of a model's: its name and ten hex digits.

    >>> belongs("churn-0123456789", "churn"), belongs("churn-eu-0123456789", "churn")
    (True, False)
    """
    name, _, digits = revision.rpartition("-")
    return name == model and len(digits) == 10 and all(d in "0123456789abcdef" for d in digits)


def run(shipper: Shipper, ending: threading.Event, end_s: float = END_S) -> int:
    """Ship until `ending` is set, and then what is left; returns how many segments could not be shipped.

    Args:
        shipper: what ships.
        ending: is set when nobody writes any more.
        end_s: how long to go on trying after that, seconds.
    """
    pause, until = LOOK_S, None
    while True:
        last = ending.is_set()
        if last and until is None:
            until, pause = time.monotonic() + end_s, LOOK_S
        went = shipper.once()
        if last and went:
            return shipper.left()
        if until is not None and time.monotonic() >= until:
            return shipper.left()
        pause = LOOK_S if went else min(max(pause * 2, BACKOFF_FIRST_S), BACKOFF_MOST_S)
        if until is not None:
            # Nothing sets the event any more; the time that is left is short.
            time.sleep(min(pause, 2.0))
        else:
            ending.wait(pause)


@contextlib.contextmanager
def alone(directory: Path, ending: threading.Event) -> Iterator[bool]:
    """Hold the lock of a spool, waiting for whoever has it; false: told to end while another one ships."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(directory / "ship.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if ending.wait(LOOK_S):
                    yield False
                    return
        yield True
    finally:
        os.close(descriptor)


def main(argv: list[str] | None = None) -> int:
    """Run the shipper; returns 0, or 1 when segments had to be left behind."""
    parser = argparse.ArgumentParser(prog="controller.serving.ship_log")
    parser.add_argument("--spool", type=Path, required=True)
    parser.add_argument("--uri", required=True, help="file:///…, s3://…, gs://… or az://…")
    parser.add_argument("--model", default="", help="whose old days are deleted")
    parser.add_argument("--retention-s", type=float, default=0.0, help="how long days are kept; 0: for ever")
    parser.add_argument("--end-s", type=float, default=END_S, help="how long to go on once told to end")
    parser.add_argument("--child", action="store_true", help="end when standard input does")
    given = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    if given.child:
        threading.Thread(target=_until_end_of_input, args=(ending,), daemon=True).start()
    with contextlib.suppress(OSError):  # where it is not allowed, it is as important as the servers
        os.nice(5)
    secret = secret_directory(dict(os.environ))
    shipper = Shipper(given.spool, given.uri, secret=secret, model=given.model, retention_s=given.retention_s)
    with alone(given.spool, ending) as mine:
        if not mine:
            return 0
        left = run(shipper, ending, given.end_s)
    if left:
        log.error("%d segments of the prediction log were left behind: %s", left, shipper.status.message)
    return 1 if left else 0


def _until_end_of_input(ending: threading.Event) -> None:
    while os.read(0, 4096):
        continue
    ending.set()


if __name__ == "__main__":
    sys.exit(main())
