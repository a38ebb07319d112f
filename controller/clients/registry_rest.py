"""How we speak to an MLflow server: requests with a deadline, answers with a limit, one conversion of errors.

MLflow's documented REST API over one httpx client, not MLflow's Python client, and for reasons: that client takes
credentials, timeouts and retries from the environment of the whole process, although every namespace may have a
server and a Secret of its own; its calls block a thread that no deadline can end; it has no limit on the size of
an answer; and importing it costs 3 s and 175 MB in each step of each Job.  The server is not trusted: nothing it
says becomes a path, a redirect or an address.  No message carries a credential.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Literal
from urllib.parse import quote, unquote, urlsplit

import httpx

from controller.clients import wire
from controller.clients.credentials import WebLogin
from controller.clients.errors import ClientError, Conflict, Denied, NotFound, Unavailable
from controller.clients.redact import redact

API: Final = "/api/2.0/mlflow/"
ARTIFACTS: Final = "/api/2.0/mlflow-artifacts/artifacts/"
ANSWER_MAX_BYTES: Final = 16_777_216
"""Largest JSON answer that is read."""
CHUNK: Final = 1_048_576
CONNECT_S: Final = 3.0
"""Longest wait for a connection: a server that is down is noticed within that."""
CONNECTIONS: Final = 20
"""Most at once."""
TRANSFER_S: Final = 1800.0
"""Longest transfer of one file; between two chunks the timeout of a request holds."""
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})

Method = Literal["GET", "POST"]


class Rest:
    """One MLflow server. Belongs to one event loop."""

    def __init__(
        self,
        tracking_uri: str,
        *,
        timeout_s: float,
        login: Callable[[], WebLogin],
        guard: Callable[[], None],
    ) -> None:
        """Prepare requests; user name and password in the address are taken out, and used where `login` has none.

        `login` is asked before each request, so that credentials may change; it may raise to keep it from being
        sent. `guard` is called before each request that is no GET, and may raise to keep it from being sent.

        Raises:
            Denied: RegistryUriInvalid: the address is not http(s).
        """
        parts = urlsplit(tracking_uri)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Denied(
                f"{redact(tracking_uri, limit=200)} is not the address of an MLflow server: "
                "write http://<host>:<port> or https://<host>",
                reason="RegistryUriInvalid",
            )
        bare = parts.netloc.rpartition("@")[2]
        self.host = bare
        """Host and port, for messages."""
        self._base = f"{parts.scheme}://{bare}{parts.path.rstrip('/')}"
        self._timeout_s = timeout_s
        self._login = login
        self._inside = WebLogin(unquote(parts.username or ""), unquote(parts.password or ""))
        # A proxy for the outside must not swallow requests to this machine.
        self._trust_env = parts.hostname not in _LOOPBACK
        self._client: httpx.AsyncClient | None = None
        self._guard = guard

    async def aclose(self) -> None:
        """Close the connections; the next request opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def call(self, method: Method, path: str, body: Mapping[str, Any], *, again: bool = False) -> Any:
        """Send one request of the REST API and return the JSON answer.

        Args:
            method: GET puts `body` into the address, POST sends it as JSON.
            path: below `/api/2.0/mlflow/`.
            body: the fields of the request.
            again: POST only: it may be sent twice when a connection breaks. GET always may.

        Raises:
            NotFound, Conflict, Denied, Unavailable: as `_failure` says.
        """
        sent: dict[str, Any] = {"params": body} if method == "GET" else {"json": body}
        what = f"{path} at {self.host}"
        for last in (not (again or method == "GET"), True):
            try:
                async with (
                    asyncio.timeout(self._timeout_s),
                    self._stream(method, API + path, what, **sent) as answer,
                ):
                    return _json(answer, await _read(answer, ANSWER_MAX_BYTES, what), what)
            except (httpx.RequestError, TimeoutError) as e:
                # A kept connection that the server has closed fails at the first use: one more try is a new one.
                if last or not isinstance(e, httpx.NetworkError | httpx.RemoteProtocolError):
                    raise self._down(e) from None
        raise AssertionError("the second try returns or raises")

    async def put_file(self, where: str, content: AsyncIterator[bytes], size: int) -> None:
        """Store a file of `size` bytes under an artifact path of the server."""
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        what = f"storing {where.rpartition('/')[2]} at {self.host}"
        try:
            async with (
                asyncio.timeout(TRANSFER_S),
                self._stream("PUT", ARTIFACTS + quote(where), what, content=content, headers=headers) as answer,
            ):
                await _read(answer, ANSWER_MAX_BYTES, what)
        except (httpx.RequestError, TimeoutError) as e:
            raise self._down(e) from None

    @asynccontextmanager
    async def get_file(self, where: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a stored file as a stream of its chunks."""
        what = f"reading {where.rpartition('/')[2]} at {self.host}"
        try:
            async with asyncio.timeout(TRANSFER_S), self._stream("GET", ARTIFACTS + quote(where), what) as answer:
                yield answer.aiter_bytes(CHUNK)
        except (httpx.RequestError, TimeoutError) as e:
            raise self._down(e) from None

    @asynccontextmanager
    async def _stream(self, method: str, path: str, what: str, **sent: Any) -> AsyncIterator[httpx.Response]:
        if self._client is None:
            self._client = httpx.AsyncClient(
                follow_redirects=False,
                trust_env=self._trust_env,
                transport=wire.transport(connections=CONNECTIONS, trust_env=self._trust_env),
                timeout=httpx.Timeout(self._timeout_s, connect=min(CONNECT_S, self._timeout_s)),
            )
        if method != "GET":
            self._guard()
        header = self._login().header() or self._inside.header()
        headers = {**sent.pop("headers", {}), **({"Authorization": header} if header else {})}
        # A netrc file of the machine must not log in where nobody asked it to.
        async with self._client.stream(
            method, self._base + path, headers=headers, auth=lambda request: request, **sent
        ) as answer:
            if answer.status_code != 200:
                raise _failure(what, answer, await _read(answer, ANSWER_MAX_BYTES, what))
            yield answer

    def _down(self, e: Exception) -> Unavailable:
        if isinstance(e, httpx.ConnectError | httpx.ConnectTimeout):
            why = "no connection"
        elif isinstance(e, TimeoutError | httpx.TimeoutException):
            why = f"nothing within {self._timeout_s:g} s"
        else:
            why = "the connection was cut off"
        return Unavailable(
            f"MLflow at {self.host} does not answer ({why}): check that the server runs and can be reached "
            "from here; it is tried again",
            reason="RegistryUnavailable",
        )


async def _read(answer: httpx.Response, limit: int, what: str) -> bytes:
    """Read the whole body, up to a limit."""
    body = bytearray()
    async for chunk in answer.aiter_bytes(CHUNK):
        body += chunk
        if len(body) > limit:
            raise Unavailable(f"{what}: the answer is larger than {limit:,} bytes", reason="RegistryUnexpected")
    return bytes(body)


def _json(answer: httpx.Response, body: bytes, what: str) -> Any:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        kind = redact(answer.headers.get("content-type", "nothing"), limit=60)
        raise Unavailable(
            f"{what}: MLflow's API answers in JSON, here came {kind}; is this the address of MLflow, and not of a "
            "login page before it?",
            reason="RegistryUnexpected",
        )
    return found


def _failure(what: str, answer: httpx.Response, body: bytes) -> ClientError:
    """Turn an answer that is not 200 into one of the four errors."""
    code = answer.status_code
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = {}
    said = said if isinstance(said, dict) else {}
    name = str(said.get("error_code", ""))
    text = redact(str(said.get("message") or said.get("detail") or body[:200].decode(errors="replace")), limit=240)
    if code in (401, 403):
        if "Invalid Host header" in text:
            return Denied(
                f"{what}: the MLflow server refuses requests under this name; start it with "
                f"--allowed-hosts {answer.url.host}",
                reason="RegistryHostRefused",
            )
        return Denied(
            f"{what}: refused with {code}; check the user name and password or the token in the Secret for MLflow",
            reason="RegistryDenied",
        )
    if name == "RESOURCE_ALREADY_EXISTS":
        return Conflict(f"{what}: it exists already", reason="AlreadyExists")
    if name == "RESOURCE_DOES_NOT_EXIST":
        return NotFound(f"{what}: {text}")
    if code in (408, 425, 429) or code >= 500:
        return Unavailable(f"{what}: the server answered {code}; it is tried again", reason="RegistryUnavailable")
    if 300 <= code < 400 or (code == 404 and not name) or code < 300:
        return Unavailable(
            f"{what}: answered {code}, which MLflow's API does not; check the address, redirects are not followed",
            reason="RegistryUnexpected",
        )
    return Denied(f"{what}: MLflow refused it ({code}): {text}", reason="RegistryRefused")
