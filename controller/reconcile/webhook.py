"""The push webhook: GitHub, GitLab, Gitea or Forgejo say that something was pushed, and the repository is polled.

What a request says is never believed and never stored: once its signature is good, the addresses in it are
compared with those of our objects, and the poll of the ones that match is brought forward.  The worst that a
stolen key can do is a poll.  Every limit holds before the body is read: size, rate, connections, time.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from controller.api.git_rules import parse_url
from controller.clients.errors import ClientError

log = logging.getLogger(__name__)

PATH: Final = "/hook"
BODY_MAX: Final = 1_048_576
HEAD_MAX: Final = 16_384
KEY_MIN: Final = 16
"""Shortest key, characters."""
KEY_FILE_MAX: Final = 4_096
CONNECTIONS: Final = 16
REQUEST_S: Final = 10.0
"""Longest request, from its first byte to its last, seconds."""
LINGER_S: Final = 2.0
"""How long an answer may take to be taken."""
BURST: Final = 50.0
PER_S: Final = 5.0
"""Requests in one go, and per second after that."""
_URL_MAX: Final = 2_048
_WORDS: Final = {
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    411: "Length Required",
    413: "Content Too Large",
    429: "Too Many Requests",
    503: "Service Unavailable",
}
_PUSHES: Final = {
    "github": ("x-github-event", frozenset({"push", "create", "delete"})),
    "gitlab": ("x-gitlab-event", frozenset({"Push Hook", "Tag Push Hook", "System Hook"})),
    "gitea": ("x-gitea-event", frozenset({"push", "create", "delete"})),
}
_ADDRESSES: Final = (
    "clone_url",
    "ssh_url",
    "git_url",
    "html_url",
    "git_http_url",
    "git_ssh_url",
    "web_url",
)
"""Fields of `repository` and `project` that may hold an address of the repository."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the sender is told, and how the request is counted."""

    code: int
    said: str
    outcome: str
    """`accepted`, `unmatched`, `ignored`, `refused`, `limited` or `invalid`."""
    form: str = "unknown"
    """`github`, `gitlab`, `gitea` or `unknown`."""


@dataclass(frozen=True, slots=True)
class Head:
    """First line and headers of a request; names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]


def place_of(url: str) -> str:
    """Name the place that an address means, the same for https, ssh and `git@host:path`; empty when it is none.

    >>> place_of("git@GitHub.com:Team/Bikes.git") == place_of("https://token@github.com/team/bikes/")
    True
    """
    parsed = parse_url(url) if len(url) <= _URL_MAX else None
    if parsed is None or not parsed.host:
        return ""
    return f"{parsed.host}/{parsed.path.strip('/').removesuffix('.git').strip('/')}".lower()


def token_of(place: str) -> str:
    """Shorten a place for an annotation, which others may read."""
    return hashlib.sha256(place.encode()).hexdigest()[:20]


def places_in(payload: Any) -> frozenset[str]:
    """Find the places of the repository that a push speaks of."""

    def found() -> Iterator[str]:
        for part in ("repository", "project") if isinstance(payload, dict) else ():
            about = payload.get(part)
            for name in _ADDRESSES if isinstance(about, dict) else ():
                if isinstance(url := about.get(name), str):
                    yield place_of(url)

    return frozenset(found()) - {""}


def form_of(headers: Mapping[str, str]) -> str:
    """Tell who speaks; Gitea sends GitHub's headers beside its own."""
    for form in ("gitea", "gitlab", "github"):
        if _PUSHES[form][0] in headers:
            return form
    return "unknown"


def is_signed(headers: Mapping[str, str], body: bytes, keys: tuple[str, ...]) -> bool | None:
    """Tell, in constant time, whether a request was made with one of the keys; None when it names none."""
    given, token = _signature(headers), headers.get("x-gitlab-token")
    if given is None and token is None:
        return None
    good = False
    for key in keys:
        # Every key is tried, so that the time tells nothing of which one it was.
        if given is not None:
            expected = hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
            good |= hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace"))
        elif token is not None:
            good |= hmac.compare_digest(key.encode(), token.encode("utf-8", "replace"))
    return good


def _signature(headers: Mapping[str, str]) -> str | None:
    """Read the HMAC-SHA256 of the body, in hex; None when none is given."""
    for name in ("x-gitea-signature", "x-forgejo-signature", "x-hub-signature-256"):
        if name in headers:
            return headers[name].removeprefix("sha256=").lower()
    return None


def read_keys(file: Path) -> tuple[str, ...]:
    """Read the keys, one a line: a second one is for changing them without a gap.

    Raises:
        ValueError: there is none, or one is too short.
        OSError: the file cannot be read.
    """
    with file.open("rb") as opened:
        data = opened.read(KEY_FILE_MAX + 1)
    if len(data) > KEY_FILE_MAX:
        raise ValueError(f"the webhook's key file {file} is larger than {KEY_FILE_MAX} bytes")
    keys = tuple(line.strip() for line in data.decode("utf-8", "replace").splitlines() if line.strip())
    if not keys or min(map(len, keys)) < KEY_MIN:
        raise ValueError(
            f"the webhook's key file {file} must hold keys of at least {KEY_MIN} characters, one a line"
        )
    return keys


class Bucket:
    """Admits a number of requests in one go, and so many per second after that."""

    def __init__(self, burst: float, per_s: float, clock: Callable[[], float]) -> None:
        """Begin full; `clock` is monotonic, seconds."""
        self._burst, self._per_s, self._clock = burst, per_s, clock
        self._left, self._at = burst, clock()

    def admits(self) -> bool:
        """Take one if there is one."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Webhook:
    """Receives pushes."""

    def __init__(
        self,
        key_file: Path,
        wake: Callable[[frozenset[str]], Awaitable[int]],
        count: Callable[[str, str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is read.

        Args:
            key_file: read at every request, so that a changed Secret needs no restart.
            wake: polls what lies at these places soon; returns how many objects of ours do. Raises ClientError.
            count: told form and outcome of every request.
            clock: monotonic, seconds.
        """
        self._key_file, self._wake, self._count = key_file, wake, count
        self._bucket = Bucket(BURST, PER_S, clock)
        self._open = 0

    async def serve(self, host: str, port: int) -> asyncio.Server:
        """Listen.

        Raises:
            ValueError, OSError: the key file is not as it must be, or the address cannot be had.
        """
        await asyncio.to_thread(read_keys, self._key_file)
        return await asyncio.start_server(self._one, host, port, limit=HEAD_MAX)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one request of one connection."""
        self._open += 1
        try:
            async with asyncio.timeout(REQUEST_S):
                reply = await self._received(reader)
        except (
            TimeoutError,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
            ValueError,
            OSError,
        ) as error:
            late = isinstance(error, TimeoutError)
            said = f"the request took longer than {REQUEST_S:.0f} s" if late else "this is no whole HTTP request"
            reply = Reply(408 if late else 400, said, "invalid")
        except Exception:
            log.exception("a push could not be taken in")
            reply = Reply(503, "the controller failed on this request; its log says how", "invalid")
        finally:
            self._open -= 1
        self._count(reply.form, reply.outcome)
        log.info("push webhook: %s %d: %s", reply.form, reply.code, reply.said)
        await _sent(reader, writer, reply)

    async def _received(self, reader: asyncio.StreamReader) -> Reply:
        head = await read_head(reader)
        form = form_of(head.headers)
        if self._open > CONNECTIONS:
            return Reply(503, "too many requests at once; send it again", "limited", form)
        if (refused := self._admitted(head, form)) is not None:
            return refused
        body = await reader.readexactly(int(head.headers["content-length"]))
        return await self.answer(head, body)

    def _admitted(self, head: Head, form: str) -> Reply | None:
        """Refuse what needs no body to be refused."""
        if head.path.partition("?")[0] != PATH:
            return Reply(404, f"pushes are received at {PATH}", "invalid", form)
        if head.method != "POST":
            return Reply(405, "only POST", "invalid", form)
        if not self._bucket.admits():
            return Reply(429, f"more than {PER_S:.0f} pushes a second; send it again later", "limited", form)
        length = head.headers.get("content-length", "")
        if not (length.isascii() and length.isdecimal()):
            return Reply(411, "the request must say its Content-Length", "invalid", form)
        if len(length) > 9 or int(length) > BODY_MAX:
            return Reply(413, f"a push has at most {BODY_MAX} bytes, this one {length[:20]}", "invalid", form)
        return None

    async def answer(self, head: Head, body: bytes) -> Reply:
        """Check a whole request and act on it."""
        form = form_of(head.headers)
        try:
            keys = await asyncio.to_thread(read_keys, self._key_file)
        except (OSError, ValueError) as error:
            log.error("the webhook's key cannot be read: %s", error)
            return Reply(503, "the receiver's key cannot be read; the controller's log says why", "refused", form)
        signed = is_signed(head.headers, body, keys)
        if signed is None:
            said = "no X-Hub-Signature-256, X-Gitea-Signature, X-Forgejo-Signature or X-Gitlab-Token: set a secret"
            return Reply(401, said, "refused", form)
        if not signed:
            return Reply(401, "the signature or token does not fit the key: set the same secret", "refused", form)
        header, pushes = _PUSHES.get(form, ("", frozenset[str]()))
        if header and head.headers[header] not in pushes:
            return Reply(200, "received; only pushes are acted upon", "ignored", form)
        try:
            payload = json.loads(body)
        except (ValueError, RecursionError):
            return Reply(400, "the body is not JSON: choose the content type application/json", "invalid", form)
        places = places_in(payload)
        if not places:
            return Reply(400, "the body names no address of a repository", "invalid", form)
        try:
            woken = await self._wake(places)
        except ClientError as error:
            log.warning("a push was not passed on to the replica that leads: %s", error.message)
            return Reply(
                503, "it could not be passed on to the replica that leads; send it again", "invalid", form
            )
        if not woken:
            return Reply(202, "no ModelSpec or ModelRepository here uses this repository", "unmatched", form)
        return Reply(202, f"{woken} object{'s' if woken > 1 else ''} will be polled now", "accepted", form)


async def read_head(reader: asyncio.StreamReader) -> Head:
    """Read first line and headers.

    Raises:
        ValueError, IncompleteReadError, LimitOverrunError: it is not HTTP, or not whole, or too long.
    """
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _version = first.split(" ")
    pairs = (line.partition(":") for line in lines if line)
    return Head(method, path, {name.strip().lower(): value.strip() for name, _, value in pairs})


async def _sent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reply: Reply) -> None:
    body = f"{reply.said}\n".encode()
    later = "Retry-After: 10\r\n" if reply.code in (429, 503) else ""
    head = (
        f"HTTP/1.1 {reply.code} {_WORDS[reply.code]}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n{later}Connection: close\r\n\r\n"
    )
    try:
        async with asyncio.timeout(LINGER_S):
            writer.write(head.encode() + body)
            await writer.drain()
            writer.write_eof()
            # A body that was refused unread is let run out, or the sender would see a reset and not the answer.
            left = BODY_MAX
            while left > 0 and (piece := await reader.read(65_536)):
                left -= len(piece)
    except (OSError, TimeoutError) as error:
        log.debug("the sender of a push did not wait for the answer: %s", error)
    finally:
        writer.close()
