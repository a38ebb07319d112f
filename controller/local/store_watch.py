"""What one watch of the object store has seen, and how it finds what changed since.

Each look reads one consistent state, so that a reader may sleep as long as it likes: it misses steps in between,
never the last state.  Nothing here waits or writes.
"""

from __future__ import annotations

import json

from controller.api.meta import Key, Manifest, key_of
from controller.local.store_file import Database
from controller.reconcile.kube import WatchEvent


class Look:
    """What one watch has seen: repeated looks yield the difference, in the order of the changes."""

    def __init__(self, database: Database, kinds: tuple[str, ...]) -> None:
        self._db = database
        self._kinds = kinds
        self._known: dict[Key, str] = {}
        self._since = -1

    def again(self) -> tuple[WatchEvent, ...]:
        """Compare with the last look; the first one finds every object Added, in order of kind and key."""
        if self._db.version() == self._since:
            return ()
        with self._db.read():
            version = self._db.version()
            first = self._since < 0
            missed = self._since < self._db.horizon()
            texts = self._db.bodies(self._kinds, since=-1 if missed else self._since)
            buried = () if first else self._db.tombstones(self._kinds, self._since)
        self._since = version
        present = [json.loads(text) for text in texts]
        if missed and not first:
            buried = (*buried, *self._vanished(present))
        deletions = [(at, self._deleted(text)) for at, text in buried]
        events = [(at, event) for at, event in deletions if event is not None]
        for item, text in zip(present, texts, strict=True):
            event = self._seen(item, text)
            if event is not None:
                events.append((int(item["metadata"]["resourceVersion"]), event))
        if not first:
            events.sort(key=lambda pair: pair[0])
        return tuple(event for _, event in events)

    def _vanished(self, present: list[Manifest]) -> tuple[tuple[int, str], ...]:
        """Find known objects that are gone though their tombstones are forgotten."""
        uids = {item["metadata"]["uid"] for item in present}
        return tuple((0, text) for text in self._known.values() if _uid(text) not in uids)

    def _deleted(self, text: str) -> WatchEvent | None:
        last = json.loads(text)
        known = self._known.get(key_of(last))
        if known is None or _uid(known) != last["metadata"]["uid"]:
            return None
        del self._known[key_of(last)]
        return WatchEvent("Deleted", last)

    def _seen(self, item: Manifest, text: str) -> WatchEvent | None:
        known = self._known.get(key_of(item))
        if known == text:
            return None
        self._known[key_of(item)] = text
        return WatchEvent("Added" if known is None else "Modified", item)


def _uid(text: str) -> str:
    return str(json.loads(text)["metadata"]["uid"])
