"""Asks a Prometheus server for one number at a time, and only servers that the operator's settings name.

An answer is kept for a few seconds, since a canary is looked at every second.  A server that is away is
Unavailable to the reader, a query without data is NaN: neither is ever zero.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from math import nan
from typing import Any, Final

import httpx

from controller.clients import wire
from controller.clients.errors import Denied, Unavailable

TIMEOUT_S: Final = 5.0
KEPT_S: Final = 5.0
"""How long an answer is good for another look, seconds."""
KEPT_MOST: Final = 4096
_MOST_BYTES: Final = 65_536


class Prometheus:
    """Reads instant queries over HTTP; closed by `close`.

    Args:
        servers: addresses that may be asked, `http://prometheus.monitoring:9090`; the first is the default.
        clock: seconds that only grow.
    """

    def __init__(self, servers: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._servers = tuple(s.rstrip("/") for s in servers)
        self._clock = clock
        self._kept: dict[tuple[str, str], tuple[float, float]] = {}
        quick = wire.transport(trust_env=False)
        self._client = httpx.AsyncClient(
            timeout=TIMEOUT_S, trust_env=False, follow_redirects=False, transport=quick
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def value(self, query: str, server: str | None = None) -> float:
        """Ask for the number that a query has now; NaN where it has none.

        Raises:
            Denied: PrometheusNotAllowed, QueryInvalid: a person must act.
            Unavailable: the server did not answer in time, or not as Prometheus does.
        """
        address = self._address(server)
        known = self._kept.get((address, query))
        if known is not None and self._clock() - known[0] < KEPT_S:
            return known[1]
        found = _number(await self._ask(address, query), address)
        if len(self._kept) > KEPT_MOST:
            self._kept.clear()
        self._kept[(address, query)] = (self._clock(), found)
        return found

    def _address(self, server: str | None) -> str:
        if not self._servers:
            message = "no Prometheus server may be asked; name it in the operator's setting MAINSPRING_PROMETHEUS"
            raise Denied(message, reason="PrometheusNotAllowed")
        wanted = self._servers[0] if server is None else server.rstrip("/")
        if wanted not in self._servers:
            message = f"{wanted} is not among the operator's Prometheus servers: {', '.join(self._servers)}"
            raise Denied(message, reason="PrometheusNotAllowed")
        return wanted

    async def _ask(self, address: str, query: str) -> Any:
        away = f"Prometheus at {address}"
        try:
            answer = await self._client.post(f"{address}/api/v1/query", data={"query": query})
            body = answer.content[:_MOST_BYTES]
        except httpx.HTTPError as error:
            message = f"{away} did not answer: {type(error).__name__}; it is asked again"
            raise Unavailable(message, reason="PrometheusUnavailable") from error
        try:
            found = json.loads(body)
        except ValueError:
            message = f"{away} answered with status {answer.status_code} and no JSON; it is asked again"
            raise Unavailable(message, reason="PrometheusUnavailable") from None
        if answer.status_code in (400, 422) and isinstance(found, dict):
            message = f"{away} refuses the query: {str(found.get('error', ''))[:200]}; correct it"
            raise Denied(message, reason="QueryInvalid")
        if answer.status_code != 200 or not isinstance(found, dict) or found.get("status") != "success":
            message = f"{away} answered with status {answer.status_code}; it is asked again"
            raise Unavailable(message, reason="PrometheusUnavailable")
        return found.get("data")


def _number(data: Any, address: str) -> float:
    """Read the one number of an answer: a scalar, or a vector with one series; NaN for an empty one."""
    try:
        kind, result = data["resultType"], data["result"]
        if kind == "scalar":
            return float(result[1])
        if kind == "vector" and len(result) <= 1:
            return float(result[0]["value"][1]) if result else nan
    except (KeyError, TypeError, ValueError, IndexError):
        message = f"Prometheus at {address} answered what is no result; it is asked again"
        raise Unavailable(message, reason="PrometheusUnavailable") from None
    what = f"{len(result)} series" if kind == "vector" else f"a {str(kind)[:20]}"
    raise Denied(f"the query gives {what}, and it takes one number: sum or average it", reason="QueryInvalid")
