"""Numbers that the worker processes of one server share: a slot of memory for each, written by it alone.

A worker that takes a dead one's place goes on counting in its slot, so no sum ever falls.  Everybody may read
everything; there are no locks, since every number has one writer.  Holds no request and no prediction.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

SLOT_BYTES: Final = 1 << 20
"""Memory of one worker; only what is touched is used."""
NUMBERS: Final = (SLOT_BYTES * 3 // 4) // 8
"""Numbers in a slot; the rest is for names."""
NAME_BYTES: Final = 256
"""Room of one name: its length, then at most 255 bytes of UTF-8."""
NAMES: Final = (SLOT_BYTES - NUMBERS * 8) // NAME_BYTES

READY, STUCK, FIRST_FREE = 0, 1, 8
"""Flags that a worker sets for itself: it has predicted; every thread is in a call without end."""


class Shared:
    """The slots of all workers.

    Args:
        memory: at least `workers` slots.
        worker: the slot that this process writes.
        workers: how many there are.
    """

    def __init__(self, memory: mmap.mmap, worker: int, workers: int) -> None:
        self.worker, self.workers = worker, workers
        whole = memoryview(memory)
        slots = [whole[n * SLOT_BYTES : (n + 1) * SLOT_BYTES] for n in range(workers)]
        self.numbers = [slot[: NUMBERS * 8].cast("d") for slot in slots]
        """Numbers by worker."""
        self._names = [slot[NUMBERS * 8 :] for slot in slots]
        self.mine = self.numbers[worker]

    @classmethod
    def alone(cls) -> Shared:
        """Make the slot of a server that is one process."""
        return cls(mmap.mmap(-1, SLOT_BYTES), 0, 1)

    @classmethod
    def opened(cls, descriptor: int, worker: int, workers: int) -> Shared:
        """Open the memory behind a file descriptor that `create` made."""
        return cls(mmap.mmap(descriptor, workers * SLOT_BYTES), worker, workers)

    @staticmethod
    def create(workers: int) -> int:
        """Make memory for so many workers; returns its file descriptor, which children may inherit."""
        descriptor = os.memfd_create("mainspring-workers")
        os.ftruncate(descriptor, workers * SLOT_BYTES)
        return descriptor

    def name(self, worker: int, place: int) -> str:
        """Read a name; empty where none was written."""
        start = place * NAME_BYTES
        size = self._names[worker][start]
        return bytes(self._names[worker][start + 1 : start + 1 + size]).decode("utf-8", "replace")

    def write_name(self, place: int, name: str) -> None:
        """Write a name of this worker, cut to its room; its length last, so that nobody reads half of it."""
        data, start = name.encode("utf-8", "replace")[: NAME_BYTES - 1], place * NAME_BYTES
        mine = self._names[self.worker]
        mine[start + 1 : start + 1 + len(data)] = data
        mine[start] = len(data)

    def all_are(self, what: int) -> bool:
        """Say whether a flag is set in every slot."""
        return all(numbers[what] for numbers in self.numbers)
