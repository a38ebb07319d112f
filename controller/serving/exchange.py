"""One HTTP exchange: what the head of a request says, its body within limits, and the answer.

Reads no more than is allowed, unpacks no more than is allowed, and waits no longer than is allowed.  Knows no
model and no protocol of predictions.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Generator, Iterable, Mapping
from typing import Any, Final

REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
COPY_HEADER: Final = b"x-mainspring-copy"
"""On copies that a challenger sends to compare answers: they are neither counted as requests nor logged."""
PACK_BYTES: Final = 2048
"""Answers from this size on are compressed for clients that take it."""
PACK_APART_BYTES: Final = 65_536
"""From this size on it is done in a thread."""
GZIP: Final = 31
"""Window size by which zlib takes gzip and nothing else."""

Pair = tuple[bytes, bytes]


class Refused(Exception):
    """A request that ends with another status than 200."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, dict(headers or {})


class Left(Exception):
    """The client closed the connection before its request was complete."""


class Head:
    """What the headers of a request say, of what matters here."""

    __slots__ = ("copy", "encoding", "gzip", "id", "length", "split", "type")

    def __init__(self, scope: Mapping[str, Any]) -> None:
        self.type = self.encoding = self.id = self.split = b""
        self.length = 0
        self.gzip = self.copy = False
        for name, value in scope["headers"]:
            if name == b"content-type":
                self.type = value
            elif name == b"content-length":
                self.length = int(value) if value.isdigit() and len(value) < 20 else 0
            elif name == b"x-request-id":
                self.id = value
            elif name == b"accept-encoding":
                self.gzip = _takes_gzip(value)
            elif name == b"content-encoding":
                self.encoding = value.strip().lower()
            elif name == COPY_HEADER:
                self.copy = True
            elif name == b"inference-header-content-length":
                self.split = value

    def media(self, known: Iterable[str]) -> str:
        """Return the media type in small letters, if it is one of those known and its text is UTF-8.

        Raises:
            Refused: 415.
        """
        media, _, parameters = self.type.decode("latin-1").partition(";")
        media = media.strip().lower()
        if media not in known:
            said = media[:80] or "absent"
            raise Refused(415, f"content-type must be {' or '.join(known)}, not {said}")
        charset = parameters.partition("charset=")[2].split(";")[0].strip(" \"'").lower()
        if charset not in ("", "utf-8", "utf8", "us-ascii"):
            raise Refused(415, f"charset must be utf-8, not {charset[:40]}")
        return media


def _takes_gzip(accepted: bytes) -> bool:
    for part in accepted.lower().split(b","):
        coding, _, weight = part.partition(b";")
        if coding.strip() in (b"gzip", b"*"):
            return weight.replace(b" ", b"") not in (b"q=0", b"q=0.0", b"q=0.00", b"q=0.000")
    return False


class _Resumed:
    """Goes on to await a coroutine that has begun, and yielded what it waits for."""

    def __init__(self, coroutine: Any, held: Any) -> None:
        self._coroutine, self._held = coroutine, held

    def __await__(self) -> Generator[Any, Any, Any]:
        try:
            yield self._held
        except BaseException as error:
            self._coroutine.throw(error)
            raise
        return (yield from self._coroutine.__await__())


def _too_large(most: int) -> Refused:
    return Refused(413, f"the body has more than {most:,} bytes", {"connection": "close"})


async def body(receive: Any, head: Head, most: int, seconds: float) -> bytes:
    """Receive the body of a request, as it was sent.

    Args:
        most: largest size in bytes.
        seconds: longest wait for all of it.

    Raises:
        Refused: 413, 408. Left.
    """
    if head.length > most:
        raise _too_large(most)
    # Most bodies are there already: a clock for each of them would cost more than to read it.
    waiting = receive()
    try:
        held = waiting.send(None)
    except StopIteration as there:
        message = there.value
        if message["type"] == "http.request" and not message.get("more_body"):
            whole: bytes = message.get("body", b"")
            if len(whole) > most:
                raise _too_large(most) from None
            return whole
        held = None
    try:
        async with asyncio.timeout(seconds):
            if held is not None:
                message = await _Resumed(waiting, held)
            parts, size = [], 0
            while True:
                if message["type"] == "http.disconnect":
                    raise Left
                part = message.get("body", b"")
                size += len(part)
                if size > most:
                    raise _too_large(most)
                parts.append(part)
                if not message.get("more_body"):
                    return b"".join(parts)
                message = await receive()
    except TimeoutError as error:
        said = f"the body did not arrive within {seconds:g} s"
        raise Refused(408, said, {"connection": "close"}) from error


def unpacked(data: bytes, encoding: bytes, most: int) -> bytes:
    """Undo the content-encoding of a body; never makes more than `most` bytes of it.

    Raises:
        Refused: 413, 415; 400 for what is not gzip.
    """
    if encoding in (b"", b"identity"):
        return data
    if encoding not in (b"gzip", b"x-gzip"):
        said = encoding[:40].decode("latin-1")
        raise Refused(415, f"content-encoding {said} is not accepted: send gzip, or the body as it is")
    out, left = bytearray(), data
    try:
        while left:
            unpacker = zlib.decompressobj(GZIP)
            out += unpacker.decompress(left, most + 1 - len(out))
            if len(out) > most:
                raise Refused(413, f"the body has more than {most:,} bytes when it is unpacked")
            if not unpacker.eof:
                raise Refused(400, "the body is gzip that was cut off")
            left = unpacker.unused_data
    except zlib.error as error:
        raise Refused(400, f"the body is not gzip: {str(error)[:80]}") from error
    return bytes(out)


async def answer(
    send: Any, status: int, content: bytes, media: bytes, headers: Iterable[Pair], *, pack: bool = False
) -> None:
    """Send an answer, compressed if it is large enough and `pack` says that the client takes it."""
    told: list[Pair] = [(b"content-type", media)]
    if pack and len(content) >= PACK_BYTES:
        content = _pack(content) if len(content) < PACK_APART_BYTES else await asyncio.to_thread(_pack, content)
        told += [(b"content-encoding", b"gzip"), (b"vary", b"accept-encoding")]
    told.append((b"content-length", b"%d" % len(content)))
    await send({"type": "http.response.start", "status": status, "headers": [*told, *headers]})
    await send({"type": "http.response.body", "body": content})


def _pack(content: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, GZIP)
    return packer.compress(content) + packer.flush()
