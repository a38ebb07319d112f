"""The SQLite file under the object store: tables, transactions, tombstones and one counter of changes.

Any process may be killed at any time and any number may write: every change is one immediate transaction in
WAL mode.  All SQLite errors leave here as `Unavailable`.  What the rows mean is `store.py`'s business.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.api.meta import Key, Manifest, key_of
from controller.clients.errors import Unavailable
from controller.local.merge import Fields, text_of

SCHEMA_VERSION = 1
BUSY_SECONDS = 5.0
KEPT_TOMBSTONES = 4096
"""A watcher that slept through more deletions than this compares lists instead."""

_SCHEMA = """
CREATE TABLE objects (
  kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, uid TEXT NOT NULL UNIQUE,
  version INTEGER NOT NULL UNIQUE, body TEXT NOT NULL, applied TEXT NOT NULL, foreign_fields TEXT NOT NULL,
  involved TEXT, PRIMARY KEY (kind, namespace, name)
) WITHOUT ROWID;
CREATE INDEX objects_involved ON objects (involved, version) WHERE involved IS NOT NULL;
CREATE TABLE owners (
  owner TEXT NOT NULL, child TEXT NOT NULL, PRIMARY KEY (owner, child)
) WITHOUT ROWID;
CREATE INDEX owners_child ON owners (child);
CREATE TABLE tombstones (version INTEGER PRIMARY KEY, kind TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE counter (version INTEGER NOT NULL, horizon INTEGER NOT NULL);
INSERT INTO counter VALUES (0, 0);
"""


@dataclass(slots=True)
class Row:
    """One stored object with the fields that apply gave it and those that others wrote."""

    body: Manifest
    applied: Fields
    foreign: Fields

    @property
    def uid(self) -> str:
        """The identity of this incarnation of the object."""
        return str(self.body["metadata"]["uid"])


class Database:
    """One connection; usable from the thread that opened it."""

    def __init__(self, path: Path | None) -> None:
        """Open the file, or a store in memory if `path` is None.

        Raises:
            Unavailable: it cannot be opened, is damaged, or was written by a newer version.
        """
        self.path = path
        self._inode = 0
        with self._translated():
            if path is not None:
                self._inode = _prepare(path)
            self._connection = sqlite3.connect(path or ":memory:", timeout=BUSY_SECONDS, isolation_level=None)
            try:
                self._prepare_schema()
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        """Close the connection; calls after this raise Unavailable."""
        self._connection.close()

    @contextlib.contextmanager
    def write(self) -> Iterator[None]:
        """Run a change: all of it or nothing, after every earlier change of any process.

        Raises:
            Unavailable: another process kept the file locked, the disk is full, the file is damaged or gone.
        """
        with self._transaction("BEGIN IMMEDIATE"):
            yield

    @contextlib.contextmanager
    def read(self) -> Iterator[None]:
        """Run several reads on one consistent state.

        Raises:
            Unavailable: the file is damaged or gone.
        """
        with self._transaction("BEGIN"):
            yield

    def version(self) -> int:
        """Read the counter: the resourceVersion of the newest change."""
        with self._translated():
            self._check_present()
            return int(self._one("SELECT version FROM counter")[0])

    def horizon(self) -> int:
        """Read the version up to which tombstones are forgotten."""
        return int(self._one("SELECT horizon FROM counter")[0])

    def next_version(self) -> int:
        """Advance the counter; inside `write` only."""
        self._connection.execute("UPDATE counter SET version = version + 1")
        return int(self._one("SELECT version FROM counter")[0])

    def find(self, key: Key) -> Row | None:
        """Read one object by its key."""
        return self._row("kind = ? AND namespace = ? AND name = ?", key.kind, key.namespace, key.name)

    def find_uid(self, uid: str) -> Row | None:
        """Read one object by its uid."""
        return self._row("uid = ?", uid)

    def children(self, uid: str) -> Iterator[Row]:
        """Read one by one the objects that name this uid as an owner, as they are by then."""
        found = self._connection.execute("SELECT child FROM owners WHERE owner = ?", (uid,)).fetchall()
        return (row for (child,) in found if (row := self.find_uid(child)) is not None)

    def bodies(self, kinds: Collection[str], namespace: str | None = None, since: int = 0) -> tuple[str, ...]:
        """Read objects as JSON texts, changed after `since`, in order of kind, namespace and name."""
        marks = ",".join("?" * len(kinds))
        query = f"SELECT body FROM objects WHERE kind IN ({marks}) AND version > ?"  # noqa: S608 (marks only)
        values: list[Any] = [*kinds, since]
        if namespace is not None:
            query += " AND namespace = ?"
            values.append(namespace)
        found = self._connection.execute(query + " ORDER BY kind, namespace, name", values)
        return tuple(text for (text,) in found)

    def tombstones(self, kinds: Collection[str], since: int) -> tuple[tuple[int, str], ...]:
        """Read the version and last form of objects deleted after `since`."""
        marks = ",".join("?" * len(kinds))
        query = f"SELECT version, body FROM tombstones WHERE version > ? AND kind IN ({marks})"  # noqa: S608
        return tuple(self._connection.execute(query, (since, *kinds)))

    def save(self, row: Row, *, text: str | None = None, involved: str | None = None) -> None:
        """Insert or replace an object, whose resourceVersion says its version, and its owners."""
        meta, key = row.body["metadata"], key_of(row.body)
        self._connection.execute(
            "INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (kind, namespace, name) DO UPDATE SET version = excluded.version,"
            " body = excluded.body, applied = excluded.applied, foreign_fields = excluded.foreign_fields",
            (
                *(key.kind, key.namespace, key.name, row.uid, int(meta["resourceVersion"])),
                *(text or text_of(row.body), text_of(row.applied), text_of(row.foreign), involved),
            ),
        )
        self._connection.execute("DELETE FROM owners WHERE child = ?", (row.uid,))
        for reference in meta.get("ownerReferences", ()):
            self._connection.execute("INSERT INTO owners VALUES (?, ?)", (reference["uid"], row.uid))

    def remove(self, row: Row, version: int) -> None:
        """Delete an object and leave a tombstone."""
        self._connection.execute("DELETE FROM objects WHERE uid = ?", (row.uid,))
        self._connection.execute("DELETE FROM owners WHERE child = ?", (row.uid,))
        self._connection.execute(
            "INSERT INTO tombstones VALUES (?, ?, ?)", (version, row.body["kind"], text_of(row.body))
        )
        if version % 64 == 0:
            self._forget()

    def beyond(self, involved: str, kept: int) -> tuple[Row, ...]:
        """Read the objects about `involved` that are older than its newest `kept`."""
        found = self._connection.execute(
            "SELECT uid FROM objects WHERE involved = ? ORDER BY version DESC LIMIT -1 OFFSET ?", (involved, kept)
        ).fetchall()
        return tuple(row for (uid,) in found if (row := self.find_uid(uid)) is not None)

    def _forget(self) -> None:
        last = self._connection.execute(
            "SELECT version FROM tombstones ORDER BY version DESC LIMIT 1 OFFSET ?", (KEPT_TOMBSTONES,)
        ).fetchone()
        if last is not None:
            self._connection.execute("DELETE FROM tombstones WHERE version <= ?", last)
            self._connection.execute("UPDATE counter SET horizon = ?", last)

    def _row(self, where: str, *values: str) -> Row | None:
        query = f"SELECT body, applied, foreign_fields FROM objects WHERE {where}"  # noqa: S608 (fixed texts)
        found = self._connection.execute(query, values).fetchone()
        return None if found is None else Row(*(json.loads(text) for text in found))

    def _one(self, query: str) -> tuple[Any, ...]:
        found: tuple[Any, ...] | None = self._connection.execute(query).fetchone()
        if found is None:
            raise sqlite3.DatabaseError("its counter is missing")
        return found

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        with self._translated():
            self._check_present()
            self._connection.execute(begin)
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _check_present(self) -> None:
        """Notice a file that was deleted or replaced: SQLite would go on writing into the lost one."""
        if self.path is None:
            return
        inode = self.path.stat().st_ino if self.path.exists() else 0
        if inode != self._inode:
            raise Unavailable(
                f"object store {self.path} was deleted or replaced while in use; restart `mainspring up`",
                reason="StoreReplaced",
            )

    def _prepare_schema(self) -> None:
        if self.path is not None:
            _retry_locked(lambda: self._connection.execute("PRAGMA journal_mode = WAL"))
        self._connection.execute("PRAGMA synchronous = NORMAL")
        if self._one("PRAGMA quick_check(1)")[0] != "ok":
            raise sqlite3.DatabaseError("its pages are malformed")
        if self._one("PRAGMA user_version")[0] != SCHEMA_VERSION:
            with self.write():
                self._create()

    def _create(self) -> None:
        found = self._one("PRAGMA user_version")[0]
        if found == SCHEMA_VERSION:
            return
        if found != 0 or self._one("SELECT count(*) FROM sqlite_schema")[0] != 0:
            raise Unavailable(
                f"object store {self.path} has format {found}, this version reads {SCHEMA_VERSION};"
                " use the version of Mainspring that wrote it, or another directory",
                reason="StoreFormatUnknown",
            )
        for statement in _SCHEMA.split(";")[:-1]:
            self._connection.execute(statement)
        self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        where = f"object store {self.path or 'in memory'}"
        try:
            yield
        except (sqlite3.OperationalError, sqlite3.ProgrammingError) as error:
            hint = f"{where} cannot be used: {error}; check the disk and other processes that use it"
            raise Unavailable(hint, reason="StoreUnavailable") from error
        except (sqlite3.Error, json.JSONDecodeError) as error:
            hint = f"{where} is damaged ({error}); move the file away and apply your manifests again"
            raise Unavailable(hint, reason="StoreDamaged") from error
        except OSError as error:
            hint = f"{where} cannot be opened: {error.strerror}"
            raise Unavailable(hint, reason="StoreUnavailable") from error


def _prepare(path: Path) -> int:
    """Make the directory (0700) and the file (0600) before SQLite would, with wider modes; return its inode."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        return os.fstat(descriptor).st_ino
    finally:
        os.close(descriptor)


def _retry_locked(step: Callable[[], object]) -> None:
    """Repeat while another process is opening the same new file: SQLite's own timeout leaves this case out."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            step()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
