"""Frames on a pipe between the predict step and the process that runs the model: length, kind, bytes.

Both sides use it; what the model's side sends is hostile, so its frames are JSON, capped in size, and awaited
until a deadline only.  Nothing is ever unpickled.
"""

from __future__ import annotations

import os
import selectors
import struct
import time
from typing import Final

HEADER: Final = struct.Struct(">IcQ")
"""Mark, kind, number of bytes that follow."""
MARK: Final = 0x4D535031
"""Says that a frame begins, so that stray output is told from an answer."""
FRAME_MAX_BYTES: Final = 512 * 2**20

LOAD: Final = b"L"
BATCH: Final = b"B"
SINGLE: Final = b"S"
FASTER: Final = b"F"
ANSWER: Final = b"A"
ERROR: Final = b"E"


class FrameError(Exception):
    """The other side sent something that is no frame, too large a frame, or nothing more."""


class DeadlineExceeded(FrameError):
    """The other side took too long."""


def write(descriptor: int, kind: bytes, body: bytes, until: float | None = None) -> None:
    """Send a frame.

    Args:
        until: `time.monotonic()` at which to give up; needs a non-blocking descriptor. None: wait for ever.

    Raises:
        FrameError: nobody reads any more. DeadlineExceeded.
    """
    data = memoryview(HEADER.pack(MARK, kind, len(body)) + body)
    with selectors.DefaultSelector() as ready:
        ready.register(descriptor, selectors.EVENT_WRITE)
        while data:
            _wait(ready, until)
            try:
                data = data[os.write(descriptor, data[: 1 << 20]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError as error:
                raise FrameError("the other side ended") from error


def read(descriptor: int, most: int = FRAME_MAX_BYTES, until: float | None = None) -> tuple[bytes, bytes]:
    """Receive a frame: its kind and its bytes, at most `most`.

    Raises:
        FrameError: no frame, too large, or the other side ended. DeadlineExceeded.
    """
    with selectors.DefaultSelector() as ready:
        ready.register(descriptor, selectors.EVENT_READ)
        mark, kind, size = HEADER.unpack(_exactly(ready, descriptor, HEADER.size, until))
        if mark != MARK:
            raise FrameError("it sent something that is no answer")
        if size > most:
            raise FrameError(f"it announced {size:,} bytes, more than {most:,}")
        return kind, _exactly(ready, descriptor, size, until)


def _exactly(ready: selectors.BaseSelector, descriptor: int, size: int, until: float | None) -> bytes:
    parts: list[bytes] = []
    missing = size
    while missing:
        _wait(ready, until)
        try:
            part = os.read(descriptor, min(missing, 1 << 20))
        except BlockingIOError:
            continue
        if not part:
            raise FrameError("it ended without an answer")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _wait(ready: selectors.BaseSelector, until: float | None) -> None:
    left = None if until is None else until - time.monotonic()
    if left is not None and left <= 0:
        raise DeadlineExceeded("it took too long")
    if not ready.select(left):
        raise DeadlineExceeded("it took too long")
