"""The spool of the prediction log: append-only files of frames, each with its length and checksum.

One process writes a segment and holds a lock on it; whoever gets that lock, or finds the end mark, knows that
nothing more will come.  A frame is in the kernel's hands once `append` returns, so it outlives the process, not
the machine.  A finished segment never changes: what is made of it is always the same.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

MAGIC: Final = b"MSPLOG1\n"
SUFFIX: Final = ".seg"
HEADER, SCHEMA, RECORD, END = b"H", b"S", b"R", b"E"
"""Kinds of frames, the first byte of their payload: who wrote, columns and classes, a request, the last one."""
_KINDS: Final = HEADER + SCHEMA + RECORD + END
FRAME_MAX_BYTES: Final = 64 * 2**20
"""Largest payload; a longer one is lost."""
_FRAME: Final = struct.Struct("<II")
FRAME_BYTES: Final = _FRAME.size


def framed(payload: bytes) -> bytes:
    """Put length and checksum before a payload."""
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


_END_FRAME: Final = framed(END)


class SpoolError(Exception):
    """What could not be written; `why` is one word, as `mainspring_log_lost_total` counts it."""

    def __init__(self, why: str, message: str) -> None:
        super().__init__(message)
        self.why = why


def name_of(started_us: int, process: int, number: int) -> str:
    """Name a segment: by the start of its writer, so that names sort by time and none comes twice."""
    return f"{started_us:014x}-{process}-{number:06d}"


class Segment:
    """A segment that is being written.

    Args:
        directory: the spool.
        name: as `name_of` makes it.
        header: who writes, as JSON.

    Raises:
        SpoolError: it could not be made.
    """

    def __init__(self, directory: Path, name: str, header: dict[str, Any]) -> None:
        self.path = directory / f"{name}{SUFFIX}"
        hidden = directory / f".{name}.new"
        try:
            self._file = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _cannot(error) from error
        self.size = 0
        try:
            # Locked before it has its name: nobody may take it for one whose writer is gone.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._write(MAGIC + framed(HEADER + json.dumps(header).encode()))
            hidden.rename(self.path)
        except OSError as error:
            os.close(self._file)
            hidden.unlink(missing_ok=True)
            raise _cannot(error) from error

    def append(self, data: bytes) -> None:
        """Add frames; they outlive this process once it returns.

        Raises:
            SpoolError: nothing was added.
        """
        try:
            self._write(data)
        except OSError as error:
            raise _cannot(error) from error

    def _write(self, data: bytes) -> None:
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:] if written else data)
        except OSError:
            if written:
                # Half a frame would hide all that follow it.
                os.ftruncate(self._file, self.size)
            raise
        self.size += written

    def finish(self) -> None:
        """Write the end mark and let go of the file; a full disk leaves the mark out, and the lock tells."""
        with contextlib.suppress(OSError):  # whoever reads it finds it unlocked, which says the same
            os.write(self._file, _END_FRAME)
        os.close(self._file)


def _cannot(error: OSError) -> SpoolError:
    why = "disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "spool_error"
    return SpoolError(why, f"the spool cannot be written: {error.strerror}")


def segments(directory: Path) -> list[Path]:
    """List the segments of a spool, oldest first."""
    return sorted(directory.glob(f"*{SUFFIX}"))


def used_bytes(directory: Path) -> int:
    """Count the bytes of all segments; what vanishes meanwhile counts nothing."""
    total = 0
    with contextlib.suppress(OSError), os.scandir(directory) as entries:  # nothing was written yet
        for entry in entries:
            if entry.name.endswith(SUFFIX):
                with contextlib.suppress(OSError):  # it was shipped just now
                    total += entry.stat().st_size
    return total


def is_finished(path: Path) -> bool:
    """Tell whether nothing more will be written to a segment: it has its end mark, or its writer is gone."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size >= len(_END_FRAME):
            file.seek(size - len(_END_FRAME))
            if file.read() == _END_FRAME:
                return True
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


class Reader:
    """Reads a finished segment; after `frames` was read to its end, says what was wrong with it."""

    def __init__(self, path: Path) -> None:
        self._data = path.read_bytes()
        self.corrupt = 0
        """Frames whose checksum does not fit; or 1 for a file that is no segment."""
        self.torn = False
        """It ends within a frame: the writer was killed before it could answer."""
        self.header: dict[str, Any] = {}
        """Who wrote it; empty when that cannot be read."""

    def frames(self) -> Iterator[bytes]:
        """Give the payloads of all good frames in their order, the header's and the end's left out."""
        data, at = self._data, len(MAGIC)
        if not data.startswith(MAGIC):
            self.corrupt, self.torn = int(bool(data.strip(b"\0"))), True
            return
        while at < len(data):
            payload = _whole(data, at)
            if payload is None:
                found = _resumed(data, at + 1)
                if found < 0:
                    self.torn = True
                    return
                self.corrupt += 1
                at = found
                continue
            at += FRAME_BYTES + len(payload)
            if payload[:1] == HEADER:
                self.header = json.loads(payload[1:])
            elif payload[:1] == END:
                return
            else:
                yield payload


def _whole(data: bytes, at: int) -> bytes | None:
    """Return the payload of the frame at a place; None where it is not whole or not as it was written."""
    if at + FRAME_BYTES >= len(data):
        return None
    length, checksum = _FRAME.unpack_from(data, at)
    payload = data[at + FRAME_BYTES : at + FRAME_BYTES + length]
    return payload if len(payload) == length > 0 and zlib.crc32(payload) == checksum else None


def _resumed(data: bytes, at: int) -> int:
    """Find the next whole frame after damage, whichever of its fields was hit; -1 when none follows."""
    while at + FRAME_BYTES < len(data):
        length = _FRAME.unpack_from(data, at)[0]
        plausible = 0 < length <= len(data) - at - FRAME_BYTES and data[at + FRAME_BYTES] in _KINDS
        if plausible and _whole(data, at) is not None:
            return at
        at += 1
    return -1
