"""How we speak to an API server: one HTTP/1.1 client, deadlines, credentials read again, one conversion of errors.

Plain dicts instead of the typed models of the client library: our kinds have none, and decoding ours twice costs
more than all else.  Streams (watches, logs) have connections of their own, so that they never starve a request.
A request is sent a second time only where that changes nothing; waiting and trying again is the caller's.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import orjson

from controller.api.meta import Manifest
from controller.clients import wire
from controller.clients.errors import ClientError, Unavailable
from controller.clients.kube_errors import Act, failure
from controller.clients.kube_login import Access, Login
from controller.clients.redact import redact

CONNECTIONS: Final = 20
CONNECT_S: Final = 5.0
REQUEST_S: Final = 60.0
"""Longest request that is no stream, its answer included, seconds."""
QUIET_S: Final = 310.0
"""Longest silence of a stream, seconds: more than the server's own end of a watch."""
REFUSAL_MAX_BYTES: Final = 65_536
"""Most of a refusal that is read."""
JSON: Final = "application/json"
APPLY: Final = "application/apply-patch+yaml"
MERGE: Final = "application/merge-patch+json"

_TWICE: Final = frozenset({"GET", "PATCH", "DELETE"})
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_BROKEN: Final = (httpx.NetworkError, httpx.RemoteProtocolError)


class KubeRest:
    """One API server. Belongs to one event loop."""

    def __init__(self, login: Login, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Prepare requests; nothing is sent. `transport` stands for the network in tests."""
        self._login = login
        self._transport = transport
        self._access: Access | None = None
        self._clients: dict[bool, httpx.AsyncClient] = {}
        self._closed = False
        self.last_answer_at: float | None = None
        """When the server answered last, by the loop's clock; None before the first answer."""

    async def aclose(self) -> None:
        """Close all connections; later requests raise Unavailable."""
        self._closed = True
        await self._drop()

    async def access(self) -> Access:
        """Return the login in use: address and namespace. Raises Denied when there is none."""
        access = await self._login.access()
        await self._use(access)
        return access

    async def call(
        self,
        method: str,
        path: str,
        act: Act,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        media: str = JSON,
    ) -> Manifest:
        """Send one request and return the JSON object of the answer.

        Raises:
            NotFound, Conflict, Denied, Unavailable: as `kube_errors.failure` says.
        """
        _, answer = await self.exchange(method, path, act, params=params, body=body, media=media)
        return answer

    async def exchange(
        self,
        method: str,
        path: str,
        act: Act,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        media: str = JSON,
    ) -> tuple[httpx.Headers, Manifest]:
        """Like `call`, and return the headers of the answer too."""
        content = None if body is None else json.dumps(body, allow_nan=False).encode()
        answer = await self.raw(method, path, act, params=params, content=content, media=media)
        if not answer.is_success:
            raise failure(act, answer.status_code, answer.headers, answer.content[:REFUSAL_MAX_BYTES])
        try:
            value = orjson.loads(answer.content) if answer.content else {}
        except ValueError:
            raise Unavailable(f"{act}: the API server's answer is no JSON: is a proxy in between?") from None
        return answer.headers, value if isinstance(value, dict) else {}

    async def raw(
        self,
        method: str,
        path: str,
        act: Act,
        *,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
        media: str = JSON,
    ) -> httpx.Response:
        """Send one request and return the answer whatever it says.

        Raises:
            Denied: there are no credentials.
            Unavailable: no answer.
        """
        headers = {"Content-Type": media} if content is not None else {}
        for last in (method not in _TWICE, True):
            try:
                async with asyncio.timeout(REQUEST_S):
                    return await self._sent(method, path, params, content, headers)
            except (httpx.RequestError, TimeoutError) as error:
                # A kept connection that the server has closed fails at its next use: the second try is a new one.
                if last or not isinstance(error, _BROKEN):
                    raise self._down(act, error) from None
        raise AssertionError("the second try returns or raises")

    async def _sent(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        content: bytes | None,
        headers: Mapping[str, str],
    ) -> httpx.Response:
        access: Access | None = None
        for last in (False, True):
            access = await self._login.access(not_this=access)
            client = await self._client(access, stream=False)
            answer = await client.request(
                method,
                path,
                params=params,
                content=content,
                headers={**_authorization(access), **headers},
                extensions=_extensions(access),
            )
            self.last_answer_at = asyncio.get_running_loop().time()
            if answer.status_code != 401 or last:
                return answer
        raise AssertionError("the second try returns")

    @asynccontextmanager
    async def stream(self, path: str, act: Act, *, params: Mapping[str, str]) -> AsyncIterator[httpx.Response]:
        """Open an answer that comes bit by bit.

        Raises:
            NotFound, Conflict, Denied, Unavailable: refused, or broken while it is read.
        """
        try:
            access: Access | None = None
            for last in (False, True):
                access = await self._login.access(not_this=access)
                client = await self._client(access, stream=True)
                async with client.stream(
                    "GET",
                    path,
                    params=params,
                    headers=_authorization(access),
                    extensions=_extensions(access),
                ) as answer:
                    if answer.is_success:
                        self.last_answer_at = asyncio.get_running_loop().time()
                        yield answer
                        return
                    if answer.status_code != 401 or last:
                        body = await answer.aread()
                        raise failure(act, answer.status_code, answer.headers, body[:REFUSAL_MAX_BYTES])
        except (httpx.RequestError, httpx.StreamError, TimeoutError) as error:
            raise self._down(act, error) from None

    async def _client(self, access: Access, *, stream: bool) -> httpx.AsyncClient:
        await self._use(access)
        if self._closed:
            raise Unavailable("the connection to the API server was closed by this program")
        if stream not in self._clients:
            limit = None if stream else CONNECTIONS
            verify = access.tls() if access.url.startswith("https:") else False
            # A proxy for the outside must not swallow requests to this machine.
            outside = urlsplit(access.url).hostname not in _LOOPBACK
            quick = None
            if not stream and access.proxy is None:
                quick = wire.transport(verify=verify, connections=CONNECTIONS, trust_env=outside)
            self._clients[stream] = httpx.AsyncClient(
                base_url=access.url,
                verify=verify,
                proxy=access.proxy,
                trust_env=outside,
                limits=httpx.Limits(max_connections=limit, max_keepalive_connections=limit),
                timeout=httpx.Timeout(QUIET_S if stream else REQUEST_S, connect=CONNECT_S),
                headers={"User-Agent": "mainspring", "Accept": JSON},
                transport=self._transport or quick,
            )
        return self._clients[stream]

    async def _use(self, access: Access) -> None:
        """Take over a login; other certificates or another server need other connections."""
        before, self._access = self._access, access
        if before is not None and _connection(before) != _connection(access):
            await self._drop()

    async def _drop(self) -> None:
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.aclose()

    def _down(self, act: Act, error: Exception) -> ClientError:
        url = self._access.url if self._access is not None else "the API server"
        if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout) or not isinstance(
            error, httpx.TimeoutException | TimeoutError
        ):
            what = redact(str(error), limit=200) or type(error).__name__
            return Unavailable(f"{act}: no connection to {url}: {what}")
        return Unavailable(f"{act}: no answer from {url} in time; whether it was carried out is unknown")


def _authorization(access: Access) -> dict[str, str]:
    return {"Authorization": access.authorization} if access.authorization else {}


def _extensions(access: Access) -> dict[str, Any]:
    return {"sni_hostname": access.server_name} if access.server_name else {}


def _connection(access: Access) -> tuple[object, ...]:
    return (
        access.url,
        access.ca_file,
        access.cert_file,
        access.key_file,
        access.verify,
        access.server_name,
        access.proxy,
    )
