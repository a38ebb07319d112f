"""A quick way for httpx to the network: aiohttp's connections where they are installed, as in the operator.

A request through httpx's own connections costs 1.2 ms of processor time, through these a fifth of it, and an
operator that looks after a thousand models makes tens of thousands at its start.  All else stays httpx: requests,
limits, errors.  Where aiohttp is missing, or a proxy is in the way, httpx takes its own connections.

httpx-aiohttp (0.2.0, BSD-3-Clause, 10 ms to import) does the same and was tried on the tests of this file.  It
tells of a server that hung up after it had a request as ConnectTimeout, which says that nothing was sent: a write
would count as safe to repeat.  Answers that are no HTTP escape as errors of aiohttp; cookies are kept.  What would
be left to write here, the session and the translation of errors, is most of this file.
"""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

import httpx

if TYPE_CHECKING:
    import aiohttp

_CHUNK: Final = 65_536
_OWN_HEADERS: Final = frozenset({"Accept", "Accept-Encoding", "Content-Type", "User-Agent"})


def transport(
    *, verify: ssl.SSLContext | bool = True, connections: int = 20, trust_env: bool = True
) -> httpx.AsyncBaseTransport | None:
    """Return quick connections for an `httpx.AsyncClient`; None: httpx's own are to be used.

    Args:
        verify: trust for https, as httpx takes it.
        connections: most at once.
        trust_env: heed the proxies that the environment names.
    """
    try:
        import aiohttp  # noqa: F401 - only whether it is there
    except ImportError:
        return None
    if trust_env and any(name != "no" for name in urllib.request.getproxies()):
        return None
    return _Quick(verify, connections)


class _Quick(httpx.AsyncBaseTransport):
    """aiohttp's connections; belongs to the event loop of its first request."""

    def __init__(self, verify: ssl.SSLContext | bool, connections: int) -> None:
        self._verify = verify
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    def _opened(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections, ssl=self._verify),
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=_OWN_HEADERS,
                auto_decompress=False,
                trust_env=False,
            )
        return self._session

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request.

        Raises:
            httpx.TransportError: as httpx's own connections do.
        """
        import aiohttp
        import yarl

        limits = request.extensions.get("timeout", {})
        try:
            answer = await self._opened().request(
                request.method,
                yarl.URL(str(request.url), encoded=True),
                data=_body(request),
                headers=request.headers.multi_items(),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    connect=limits.get("pool"),
                    sock_connect=limits.get("connect"),
                    sock_read=limits.get("read"),
                ),
                server_hostname=request.extensions.get("sni_hostname"),
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _translated(error, request) from error
        return httpx.Response(answer.status, headers=answer.raw_headers, stream=_Body(answer, request))

    async def aclose(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


class _Body(httpx.AsyncByteStream):
    """The body of an answer, as it comes."""

    def __init__(self, answer: aiohttp.ClientResponse, request: httpx.Request) -> None:
        self._answer = answer
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        import aiohttp

        try:
            async for chunk in self._answer.content.iter_chunked(_CHUNK):
                yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _translated(error, self._request) from error

    async def aclose(self) -> None:
        """Give the connection back, or close it when the body was not read to its end."""
        if self._answer.content.at_eof():
            self._answer.release()
        else:
            self._answer.close()


def _body(request: httpx.Request) -> Any:
    """Return what is to be sent: all at once where it is known, else as it comes."""
    try:
        return request.content or None
    except httpx.RequestNotRead:
        return request.stream


def _translated(error: Exception, request: httpx.Request) -> httpx.TransportError:
    """Say in httpx's words what went wrong: whoever catches it asks whether a second try may help."""
    import aiohttp

    text = str(error) or type(error).__name__
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return httpx.ConnectTimeout(text, request=request)
    if isinstance(error, TimeoutError):
        return httpx.ReadTimeout(text, request=request)
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientProxyConnectionError):
        return httpx.ConnectError(text, request=request)
    if isinstance(
        error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError | aiohttp.ClientResponseError
    ):
        return httpx.RemoteProtocolError(text, request=request)
    return httpx.ReadError(text, request=request)
