"""The object store of local mode: the Kube port on one SQLite file, or in memory for simulated worlds.

Objects behave as on an API server: uids, resourceVersions, generations, a status of its own, server-side apply
(see `merge.py`), owner references, watches.  Any number of processes may use one file.  Differences, all of
them stricter or quicker: no finalizers, no generateName, and what loses its owners is collected at once, also
an object that is applied or created when none of its owners exists (any more).
No decision about models belongs here; the kinds' own rules come in through `validate` and `default`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from controller.api.meta import API_VERSIONS, Key, Manifest, key_of
from controller.clients.errors import Conflict, Denied, NotFound
from controller.local import store_rules as rules
from controller.local.merge import (
    Fields,
    apply_fields,
    changes,
    fields_of,
    merge_patch,
    same,
    subtract,
    text_of,
    union,
)
from controller.local.store_file import Database, Row
from controller.local.store_watch import Look
from controller.reconcile.kube import WatchEvent

EVENTS_KEPT = 200
"""Newest Events kept per involved object."""
POLL_SECONDS = 0.05
"""How often a watch looks whether another process changed the file."""

Clock = Callable[[], datetime]
Uids = Callable[[], str]
Validate = Callable[[Manifest], list[str]]
Default = Callable[[Manifest], Manifest]


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _random_uid() -> str:
    return str(uuid.uuid4())


def _no_problems(_: Manifest) -> list[str]:
    return []


def _no_defaults(manifest: Manifest) -> Manifest:
    return manifest


class Store:
    """Implements `controller.reconcile.kube.Kube`; use it from the thread that opened it."""

    def __init__(self, database: Database, now: Clock, uids: Uids, validate: Validate, default: Default) -> None:
        self._db = database
        self._now = now
        self._uids = uids
        self._validate = validate
        self._default = default
        self._wakes: set[asyncio.Event] = set()

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        now: Clock = _utc_now,
        uids: Uids = _random_uid,
        validate: Validate = _no_problems,
        default: Default = _no_defaults,
    ) -> Store:
        """Open a file, made if missing (mode 0600, its directory 0700), or ":memory:".

        `now` and `uids` are the clock and the source of uids.  For our own kinds, apply, create and patch_spec
        call `default` (manifest to manifest, may change its argument) and then `validate` (the problems, one
        sentence each with the field in front) with the object as it would be stored.

        Raises:
            Unavailable: damaged (reason StoreDamaged), of a newer format, or not accessible.
        """
        file = None if str(path) == ":memory:" else Path(path)
        return cls(Database(file), now, uids, validate, default)

    def close(self) -> None:
        """Close the file; running watches and later calls raise Unavailable."""
        self._db.close()
        self._wake()

    async def get(self, key: Key) -> Manifest | None:
        """Read one object; None when there is none. The caller may change what it gets."""
        rules.check_kind(key.kind)
        with self._db.read():
            row = self._db.find(key)
        return None if row is None else row.body

    async def refresh(self, key: Key) -> Manifest | None:
        """Read one object as it is at this moment, as every read of the file does."""
        return await self.get(key)

    async def list(
        self, kind: str, *, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> tuple[Manifest, ...]:
        """Read all objects of a kind, in order of namespace and name; `labels` must all match."""
        rules.check_kind(kind)
        with self._db.read():
            texts = self._db.bodies((kind,), namespace)
        found = (json.loads(text) for text in texts)
        wanted = (labels or {}).items()
        return tuple(item for item in found if wanted <= item["metadata"].get("labels", {}).items())

    async def apply(self, manifest: Manifest) -> Manifest:
        """Create the object or merge the given fields into it; fields that the last apply gave alone go.

        Raises:
            Denied: invalid (reason Invalid), or controlled by another object (OwnershipConflict).
            Conflict: `metadata.uid` or `metadata.resourceVersion` was given and is not the present one.
        """
        given = rules.normalise(manifest)
        key, wanted = key_of(given), rules.content(given)
        with self._write():
            row = self._db.find(key)
            rules.check_present(key, given, row.body if row else None)
            if row is None:
                return self._insert(key, wanted, applied=fields_of(wanted), foreign={})
            before = rules.content(row.body)
            after = apply_fields(before, wanted, row.applied, row.foreign)
            written, removed = changes(before, after)
            foreign = subtract(row.foreign, union(written, removed))
            return self._update(row, after, applied=fields_of(wanted), foreign=foreign)

    async def create(self, manifest: Manifest) -> Manifest:
        """Create an object that must not exist yet; a status in the manifest is ignored.

        Raises:
            Conflict: reason AlreadyExists.
            Denied: invalid (reason Invalid).
        """
        given = rules.normalise(manifest)
        key, wanted = key_of(given), rules.content(given)
        if "resourceVersion" in given["metadata"]:
            raise rules.invalid(str(key), ["metadata.resourceVersion: must not be set on an object to create"])
        with self._write():
            if self._db.find(key) is not None:
                raise Conflict(f"{key} exists already; read it, or choose another name", reason="AlreadyExists")
            return self._insert(key, wanted, applied={}, foreign=fields_of(wanted))

    async def patch_status(self, key: Key, status: Manifest, *, uid: str, version: str = "") -> Manifest:
        """Replace the status of the object with this uid; an equal status writes nothing.

        Raises:
            NotFound: no such object, or another uid (it was deleted and made anew).
            Conflict: it has changed since it had the version that was given.
        """
        status = rules.plain(status, "status")
        with self._write():
            row = self._require(key)
            if row.uid != uid:
                raise NotFound(f"{key} with uid {uid} is gone; the present one has uid {row.uid}")
            if same(row.body.get("status"), status):
                return row.body
            if version and version != (now := row.body["metadata"]["resourceVersion"]):
                raise Conflict(f"{key} has version {now} by now, and {version} was read; read it again")
            return self._save(row, {**row.body, "status": status})

    async def annotate(self, key: Key, annotations: Mapping[str, str | None]) -> Manifest:
        """Merge-patch annotations; None removes one. Does not change generation.

        Raises:
            NotFound: no such object.
            Denied: a name or value is invalid (reason Invalid).
        """
        with self._write():
            return self._patch(self._require(key), {"metadata": {"annotations": dict(annotations)}})

    async def patch_spec(self, key: Key, patch: Manifest) -> Manifest:
        """JSON merge patch (RFC 7386) of the spec; moves generation when it changes something.

        Raises:
            NotFound: no such object.
            Denied: the result is invalid (reason Invalid).
        """
        with self._write():
            return self._patch(self._require(key), {"spec": dict(patch)})

    async def delete(self, key: Key, *, uid: str | None = None) -> None:
        """Delete an object and, at once, everything whose last owner it was. Gone already is fine.

        Raises:
            Conflict: `uid` was given and the object has another one.
        """
        rules.check_kind(key.kind)
        with self._write():
            row = self._db.find(key)
            if row is None:
                return
            if uid is not None and row.uid != uid:
                raise Conflict(f"{key} has uid {row.uid}, not {uid}; it was made anew, read it again")
            self._remove(row)

    async def watch(self, kinds: Collection[str]) -> AsyncIterator[WatchEvent]:
        """First every present object as Added, then each change, of any process, without end.

        Changes between two looks are merged.

        Raises:
            Denied: a kind is unknown.
            Unavailable: the file was closed, damaged or replaced.
        """
        for kind in kinds:
            rules.check_kind(kind)
        look = Look(self._db, tuple(kinds))
        wake = asyncio.Event()
        self._wakes.add(wake)
        try:
            while True:
                wake.clear()
                for event in look.again():
                    yield event
                # In memory nobody else can write, so that a simulated clock sees no timer of ours.
                patience = None if self._db.path is None else POLL_SECONDS
                with contextlib.suppress(TimeoutError):  # nothing woke it: look what others wrote
                    async with asyncio.timeout(patience):
                        await wake.wait()
        finally:
            self._wakes.discard(wake)

    @contextlib.contextmanager
    def _write(self) -> Iterator[None]:
        with self._db.write():
            yield
        self._wake()

    def _wake(self) -> None:
        for wake in self._wakes:
            wake.set()

    def _require(self, key: Key) -> Row:
        rules.check_kind(key.kind)
        row = self._db.find(key)
        if row is None:
            raise NotFound(f"{key} does not exist; it may have been deleted meanwhile")
        return row

    def _insert(self, key: Key, wanted: Manifest, *, applied: Fields, foreign: Fields) -> Manifest:
        own = {
            "name": key.name,
            "namespace": key.namespace,
            "uid": self._uids(),
            "creationTimestamp": self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "generation": 1,
        }
        body = {**wanted, "metadata": {**wanted["metadata"], **own}}
        if key.kind in rules.OWN_KINDS:
            body["status"] = {"observedGeneration": -1}
        involved = _involved(body)
        row = Row(body, applied, foreign)
        body = self._save(row, self._admit(body), involved=involved)
        if involved is not None:
            for old in self._db.beyond(involved, EVENTS_KEPT):
                self._remove(old)
        return body

    def _patch(self, row: Row, patch: Manifest) -> Manifest:
        before = rules.content(row.body)
        if "spec" in patch and "spec" not in before:
            raise rules.invalid(str(key_of(row.body)), ["spec: this object has none"])
        after = rules.plain(merge_patch(before, patch), "")
        written, removed = changes(before, after)
        foreign = union(subtract(row.foreign, removed), written)
        return self._update(row, after, applied=row.applied, foreign=foreign)

    def _update(self, row: Row, after: Manifest, *, applied: Fields, foreign: Fields) -> Manifest:
        body = self._admit(rules.assemble(row.body, rules.content(after)))
        key = key_of(body)
        rules.check_immutable(key, row.body, body)
        changed = Row(row.body, applied, foreign)
        if same(body, row.body):
            if (applied, foreign) != (row.applied, row.foreign):
                self._db.save(changed)
            return row.body
        ours, theirs = ({**rules.content(item), "metadata": None} for item in (body, row.body))
        if not same(ours, theirs):
            body["metadata"]["generation"] += 1
        return self._save(changed, body)

    def _admit(self, body: Manifest) -> Manifest:
        """Default and check an object of our own kinds, its status left out; check the rest in `_save`."""
        if body["kind"] not in rules.OWN_KINDS:
            return body
        written = rules.content(self._default({name: body[name] for name in body if name != "status"}))
        body = rules.assemble(body, written)
        problems = self._validate({name: body[name] for name in body if name != "status"})
        if problems:
            raise rules.invalid(str(key_of(body)), problems)
        return body

    def _save(self, row: Row, body: Manifest, *, involved: str | None = None) -> Manifest:
        row.body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self._db.next_version())}}
        text = text_of(row.body)
        rules.check(row.body, text)
        self._db.save(row, text=text, involved=involved)
        if row.body["metadata"].get("ownerReferences"):
            self._collect(row)
        return json.loads(text)  # type: ignore[no-any-return]

    def _collect(self, row: Row) -> None:
        """Do what the garbage collector would: drop owners that are gone, and the object with its last one."""
        meta = row.body["metadata"]
        references = meta["ownerReferences"]
        alive = [ref for ref in references if self._is_alive(ref, meta["namespace"])]
        if not alive:
            self._remove(row)
        elif len(alive) < len(references):
            body = {**row.body, "metadata": {**meta, "ownerReferences": alive}}
            body["metadata"]["resourceVersion"] = str(self._db.next_version())
            self._db.save(Row(body, row.applied, row.foreign))

    def _is_alive(self, reference: Manifest, namespace: str) -> bool:
        if reference["kind"] not in API_VERSIONS:
            return True
        owner = self._db.find_uid(reference["uid"])
        return owner is not None and owner.body["metadata"]["namespace"] == namespace

    def _remove(self, row: Row) -> None:
        waiting = [row]
        while waiting:
            gone = waiting.pop()
            self._db.remove(gone, self._db.next_version())
            for child in self._db.children(gone.uid):
                self._collect(child)


def _involved(body: Manifest) -> str | None:
    if body["kind"] != "Event":
        return None
    about = body.get("involvedObject", {})
    if not isinstance(about, dict):
        raise Denied("Event: involvedObject must be an object", reason="Invalid")
    return text_of([about.get(name) for name in ("kind", "namespace", "name", "uid")])
