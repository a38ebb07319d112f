"""Live numbers of model servers: reads each pod's own metrics endpoint, in the Prometheus text format.

An endpoint that does not answer is Unknown to the reader, never zero.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Final

import httpx

from controller.api.meta import Manifest
from controller.clients import wire
from controller.clients.errors import Unavailable

_TEXT: Final = r'"((?:[^"\\]|\\.)*)"'
_LINE: Final = re.compile(
    rf"^(?P<name>[a-z_]+)(?:\{{(?P<labels>(?:[a-z_]+={_TEXT},?)*)\}})? (?P<value>[-+0-9.eEInfNa]+)$"
)
_LABEL: Final = re.compile(rf"([a-z_]+)={_TEXT}")
_ESCAPED: Final = re.compile(r'\\([\\"n])')
_SUMS: Final = {
    "mainspring_predicted_rows_total": "rows",
    "mainspring_missing_values_total": "missing",
    "mainspring_log_lost_total": "lost",
    "mainspring_unseen_categories_total": "unseen",
    "mainspring_compared_total": "compared",
    "mainspring_disagreed_total": "disagreed",
    "mainspring_compared_requests_total": "compared_requests",
}
"""Counters that are added up whatever their labels say, and their names here."""
_BY_LABEL: Final = {
    "mainspring_request_duration_seconds_bucket": ("le", "le"),
    "mainspring_confidence_bucket": ("le", "conf_le"),
    "mainspring_predictions_total": ("value", "p"),
}
"""Counters by a label: its name, and what the key here begins with."""
_MOST_BYTES: Final = 1_048_576
TIMEOUT_S: Final = 2.0
CONNECTIONS: Final = 32
"""Most servers that are asked at once."""


class Telemetry:
    """Reads servers over HTTP; one client for all, closed by `close`."""

    def __init__(self) -> None:
        quick = wire.transport(connections=CONNECTIONS, trust_env=False)
        self._client = httpx.AsyncClient(
            timeout=TIMEOUT_S, trust_env=False, follow_redirects=False, transport=quick
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def counters(self, pods: Sequence[Manifest]) -> Mapping[str, float]:
        """Read what each ready pod has counted since it started.

        Returns:
            By `<pod>|<name>`: `requests`, `errors` (status 5xx), `le=<seconds>` (cumulative durations), `rows`,
            `p=<predicted value>`, `conf_le=<highest probability>` (cumulative), `missing`, `unseen`, `lost` (rows
            that the prediction log lost), `digest=<digest>`, 1 for what it has loaded, and
            `log=<reason>|<message>`, 1 for how the log is shipped.

        Raises:
            Unavailable: a ready pod did not answer within two seconds, or not in the format.
        """
        results = await asyncio.gather(*(self._read(p) for p in pods))
        return {f"{name}|{key}": value for name, found in results for key, value in found.items()}

    async def _read(self, pod: Manifest) -> tuple[str, dict[str, float]]:
        name = pod["metadata"]["name"]
        port = pod["spec"]["containers"][0]["ports"][0]["containerPort"]
        url = f"http://{pod['status']['podIP']}:{port}/metrics"
        try:
            response = await self._client.get(url)
            response.raise_for_status()
        except httpx.HTTPError as error:
            message = f"metrics of server {name} could not be read: {type(error).__name__}"
            raise Unavailable(message, reason="TelemetryUnavailable") from error
        return name, parse(response.text[:_MOST_BYTES])


def parse(text: str) -> dict[str, float]:
    """Read the things that matter from a metrics page.

    >>> parse('mainspring_requests_total{status="200"} 3\\nmainspring_requests_total{status="500"} 1')
    {'requests': 4.0, 'errors': 1.0}
    """
    found = {"requests": 0.0, "errors": 0.0}
    for line in text.split("\n"):
        match = _LINE.match(line)
        if match is None:
            continue
        labels = {name: _plain(text) for name, text in _LABEL.findall(match["labels"] or "")}
        value = float(match["value"])
        if match["name"] == "mainspring_requests_total":
            found["requests"] += value
            if labels.get("status", "").startswith("5"):
                found["errors"] += value
        elif by := _BY_LABEL.get(match["name"]):
            key = f"{by[1]}={labels.get(by[0], '').replace('+Inf', 'inf')}"
            found[key] = found.get(key, 0.0) + value
        elif name := _SUMS.get(match["name"]):
            found[name] = found.get(name, 0.0) + value
        elif match["name"] == "mainspring_log_store_info":
            found[f"log={labels.get('reason', '')}|{labels.get('message', '')}"] = 1.0
        elif match["name"] == "mainspring_model_info":
            found[f"digest={labels.get('digest', '')}"] = 1.0
    return found


def _plain(text: str) -> str:
    """Take the escapes out of a label's value."""
    return _ESCAPED.sub(lambda m: "\n" if m[1] == "n" else m[1], text) if "\\" in text else text
