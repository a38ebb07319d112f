"""What a server counts: requests by status, how long they took, rows; in a registry of its own.

The names are read by the controller (canary) and by people's dashboards: they do not change.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

disable_created_metrics()  # type: ignore[no-untyped-call]

BUCKETS: Final = (
    *(0.001, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0),
)
"""Upper bounds in seconds, 1 ms to 10 s: neighbours differ by a factor of 2 at most."""


class Metrics:
    """The counters of one server process."""

    def __init__(self, labels: dict[str, str]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "mainspring_requests", "Requests for predictions, by HTTP status.", ["status"], registry=self._registry
        )
        self._seconds = Histogram(
            "mainspring_request_duration_seconds",
            "Time from the first byte of a request for predictions to its answer.",
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._rows = Counter("mainspring_predicted_rows", "Rows that were predicted.", registry=self._registry)
        self._running = Gauge(
            "mainspring_requests_in_flight",
            "Requests that wait for or are with the model.",
            registry=self._registry,
        )
        info = Gauge(
            "mainspring_model_info", "1, with what is served as labels.", list(labels), registry=self._registry
        )
        info.labels(**labels).set(1)

    def answered(self, status: int, seconds: float, rows: int) -> None:
        """Count one answer; `rows` is 0 where nothing was predicted."""
        self._requests.labels(status=str(status)).inc()
        self._seconds.observe(seconds)
        if rows:
            self._rows.inc(rows)

    def in_flight(self, count: int) -> None:
        """Set how many requests are being answered."""
        self._running.set(count)

    def text(self) -> bytes:
        """Write everything in the Prometheus text format."""
        return generate_latest(self._registry)
