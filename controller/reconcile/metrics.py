"""The operator's figures, in the Prometheus format.  Labels are bounded: kinds, verbs, codes; never names.

What can be counted from the cache is counted when it is asked for; nothing here decides anything.
"""

from __future__ import annotations

from collections import Counter as Counting
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller import __version__
from controller.api.meta import Manifest
from controller.reconcile.cache import KINDS, OURS, Cache

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_CONDITIONS: Final = ("Ready", "Reconciling", "Stalled", "Available", "Degraded")


@dataclass(slots=True)
class Live:
    """What is asked for at every scrape."""

    cache: Cache
    clock: Callable[[], float]
    depth: Callable[[], float]
    oldest_s: Callable[[], float]
    leading: Callable[[], bool]
    deaf_s: Callable[[], float]
    heard_at: dict[str, float] = field(default_factory=dict)
    """When the watch of a kind last brought something, monotonic seconds."""


class Metrics:
    """Counts; implements `QueueObserver`."""

    def __init__(self, live: Live) -> None:
        """Use a registry of its own, so that two in one process do not meet."""
        # A second series per counter that says when it was made is of no use to anybody here.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        at = self.registry
        self._looks = Counter(
            "mainspring_reconciles", "Looks at objects, by outcome", ["kind", "outcome"], registry=at
        )
        self._seconds = Histogram(
            "mainspring_reconcile_seconds", "How long looks took", ["kind"], buckets=_SECONDS, registry=at
        )
        self._requeues = Counter(
            "mainspring_requeues", "Keys that came again by themselves", ["kind", "why"], registry=at
        )
        self._requests = Counter(
            "mainspring_api_requests", "Requests to the API server", ["verb", "kind", "code"], registry=at
        )
        self._restarts = Counter("mainspring_watch_restarts", "Times that the watch was begun anew", registry=at)
        self._pushes = Counter(
            "mainspring_webhook_requests", "Requests to the push webhook", ["form", "outcome"], registry=at
        )
        info = Gauge("mainspring_build_info", "Version", ["version"], registry=at)
        info.labels(__version__).set(1)
        self.registry.register(_Asked(live))

    def worked(self, kind: str, seconds: float, outcome: str) -> None:
        """Count one look."""
        self._looks.labels(kind, outcome).inc()
        self._seconds.labels(kind).observe(seconds)

    def requeued(self, kind: str, why: str) -> None:
        """Count one return of a key."""
        self._requeues.labels(kind, why).inc()

    def requested(self, verb: str, kind: str, code: str) -> None:
        """Count one request; code `none` when no answer came."""
        self._requests.labels(verb, kind, code).inc()

    def pushed(self, form: str, outcome: str) -> None:
        """Count one request to the push webhook."""
        self._pushes.labels(form, outcome).inc()

    def watch_restarted(self) -> None:
        """Count one new beginning of the watch."""
        self._restarts.inc()

    def page(self) -> bytes:
        """Write all figures."""
        return generate_latest(self.registry)


class _Asked(Collector):
    """What is read at every scrape."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def collect(self) -> Iterator[Metric]:
        live = self._live
        yield _gauge("mainspring_queue_depth", "Keys that are due or worked on", live.depth())
        yield _gauge("mainspring_queue_oldest_seconds", "How long the oldest due key has waited", live.oldest_s())
        yield _gauge("mainspring_leader", "1 when this replica leads", float(live.leading()))
        yield _gauge("mainspring_watch_echo_owed_seconds", "How long an echo is owed by the watch", live.deaf_s())
        text = "Seconds since the watch of a kind last brought something"
        silent = GaugeMetricFamily("mainspring_watch_silent_seconds", text, labels=["kind"])
        for kind, at in sorted(live.heard_at.items()):
            silent.add_metric([kind], live.clock() - at)
        yield silent
        yield from _objects(live.cache)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _objects(cache: Cache) -> Iterator[Metric]:
    number = GaugeMetricFamily("mainspring_objects", "Objects that are watched", labels=["kind"])
    for kind in KINDS:
        number.add_metric([kind], len(cache.keys(kind)))
    yield number
    states: Counting[tuple[str, str, str]] = Counting()
    trainings: Counting[tuple[str, str]] = Counting()
    for kind in OURS:
        for key in cache.keys(kind):
            manifest = cache.get(key)
            if manifest is None:
                continue
            states.update((kind, type_, status) for type_, status in _conditions(manifest))
            if kind == "ModelRevision":
                trigger = str((manifest.get("spec", {}).get("trigger") or {}).get("type", ""))
                trainings.update(
                    (str(attempt.get("outcome", "")), trigger)
                    for attempt in (manifest.get("status") or {}).get("attempts") or ()
                )
    by_state = GaugeMetricFamily(
        "mainspring_conditions", "Objects by condition", labels=["kind", "type", "status"]
    )
    for labels, count in sorted(states.items()):
        by_state.add_metric(list(labels), count)
    yield by_state
    by_outcome = GaugeMetricFamily(
        "mainspring_trainings", "Training attempts of present revisions", labels=["outcome", "trigger"]
    )
    for pair, count in sorted(trainings.items()):
        by_outcome.add_metric(list(pair), count)
    yield by_outcome


def _conditions(manifest: Manifest) -> Iterator[tuple[str, str]]:
    status: Mapping[str, object] = manifest.get("status") or {}
    conditions = status.get("conditions")
    for condition in conditions if isinstance(conditions, list) else ():
        if condition.get("type") in _CONDITIONS:
            yield str(condition["type"]), str(condition.get("status"))
