"""What a server counts: requests, their times and errors, and what was predicted; all workers' numbers together.

The names are read by the controller (canary) and by people's dashboards: they do not change.  Counting is an
addition in shared memory, by the event loop of each worker alone; no request waits for it.  Keeps no values.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from controller.api.bins import NAMES as BIN_NAMES
from controller.serving.shared import FIRST_FREE, NUMBERS, STUCK, Shared

BUCKETS: Final = (
    *(0.001, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0),
)
"""Upper bounds in seconds, 1 ms to 10 s: neighbours differ by a factor of 2 at most."""
FINE: Final = (*(0.00001, 0.00002, 0.00005, 0.0001, 0.0002, 0.0005), *BUCKETS)
"""The same, from 10 µs on."""
CONFIDENCE: Final = tuple(n / 20 for n in range(1, 21))
"""Upper bounds of the highest probability of a row, in steps of 0.05."""
CLASSES_MAX: Final = 100
"""Most predicted texts that are counted one by one; what comes later is `other`."""
OTHER: Final = "other"
KINDS: Final = {
    400: "request",
    404: "request",
    405: "request",
    408: "slow-client",
    413: "too-large",
    415: "media-type",
    429: "overload",
    499: "client-left",
    500: "model",
    504: "timeout",
}
"""Kind of an error by the status that it ended with."""


class Series:
    """A family of counters or gauges: one number, or one for each value of a label.

    Args:
        name: without `_total`.
        values: the label's values, where they are known; None: they are named as they come, at most `limit`.
    """

    def __init__(
        self,
        name: str,
        text: str,
        label: str = "",
        values: Iterable[str] | None = (),
        *,
        kind: str = "counter",
        limit: int = 0,
    ) -> None:
        self.name, self.text, self.label, self.kind, self.limit = name, text, label, kind, limit
        self.named = values is None
        self.places = {} if values is None else {v: n for n, v in enumerate(values)}
        self.size = 1 if not label else limit + 1 if self.named else max(len(self.places), 1)
        self.start = self.name_start = 0


class Spread:
    """A family of one histogram: how many values fell below each bound, and their sum."""

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self.name, self.text, self.bounds = name, text, tuple(bounds)
        self.size = len(self.bounds) + 2
        self.start = 0


class Metrics:
    """The counters of one server.

    Args:
        labels: what is served, as labels of `mainspring_model_info`.
        columns: those of the model's signature: the only ones that are named.
        shared: memory of all workers; None: this process is the only one.
    """

    def __init__(
        self, labels: Mapping[str, str], columns: Iterable[str] = (), shared: Shared | None = None
    ) -> None:
        self.shared = shared or Shared.alone()
        self._mine = self.shared.mine
        self._labels = dict(labels)
        named = tuple(dict.fromkeys(c[:200] for c in columns))
        self._requests = Series(
            "mainspring_requests", "Requests for predictions, by HTTP status.", "status", None, limit=31
        )
        self._seconds = Spread(
            "mainspring_request_duration_seconds",
            "Time from the first byte of a request for predictions to its answer.",
            BUCKETS,
        )
        self._rows = Series("mainspring_predicted_rows", "Rows that were predicted.")
        self._running = Series(
            "mainspring_requests_in_flight", "Requests that wait for or are with the model.", kind="gauge"
        )
        self._queue = Spread("mainspring_queue_seconds", "Time that a whole request waited for the model.", FINE)
        self._predict = Spread("mainspring_predict_seconds", "Time that the model took for a request.", FINE)
        kinds = dict.fromkeys(KINDS.values())
        self._errors = Series("mainspring_errors", "Requests without predictions, by why.", "kind", kinds)
        numbers, texts = "Predicted rows, by class or bin of the number.", "mainspring_predictions"
        self._bins = Series(texts, numbers, "value", BIN_NAMES)
        self._texts = Series(texts, numbers, "value", None, limit=CLASSES_MAX)
        self._confidence = Spread(
            "mainspring_confidence", "Highest class probability of a predicted row.", CONFIDENCE
        )
        self._missing = Series("mainspring_missing_values", "Missing values, by column.", "column", named)
        self._unseen = Series(
            "mainspring_unseen_categories", "Values that the training did not have, by column.", "column", named
        )
        self._logged = Series("mainspring_log_records", "Predictions that were handed to the log.")
        self._lost = Series("mainspring_log_lost", "Records that the log has lost.", "why", None, limit=15)
        self._compared = Series("mainspring_compared", "Rows whose prediction was compared with the champion's.")
        self._disagreed = Series("mainspring_disagreed", "Compared rows that the champion predicts otherwise.")
        self._copies = Series("mainspring_compared_requests", "Requests that were compared.")
        self._uncompared = Series("mainspring_compare_failed", "Copies that the champion did not answer.")
        self._copied = Series("mainspring_copied_requests", "Copies from a challenger, counted here only.")
        families: tuple[Series | Spread, ...] = (
            *(self._requests, self._seconds, self._rows, self._running, self._queue, self._predict, self._errors),
            *(self._bins, self._texts, self._confidence, self._missing, self._unseen),
            *(self._logged, self._lost),
            *(self._compared, self._disagreed, self._copies, self._uncompared, self._copied),
        )
        self._families = families
        place, name = FIRST_FREE, 0
        for family in families:
            family.start, place = place, place + family.size
            if isinstance(family, Series) and family.named:
                family.name_start, name = name, name + family.limit
                self._take_names(family)
        assert place <= NUMBERS, "a request has at most 10,000 columns"
        # A worker before us in this slot may have died with requests.
        self._mine[self._running.start] = self._mine[STUCK] = 0.0

    def began(self) -> None:
        """Count a request that is being answered."""
        self._mine[self._running.start] += 1

    def stuck(self, hangs: bool) -> None:
        """Say whether every prediction thread is in a call that does not end."""
        self._mine[STUCK] = float(hangs)

    def answered(self, status: int, seconds: float, rows: int) -> None:
        """Count one answer to a request that began; `rows` is 0 where nothing was predicted."""
        self._mine[self._running.start] -= 1
        self._count(self._requests, str(status), 1)
        self._observe(self._seconds, seconds)
        if rows:
            self._mine[self._rows.start] += rows
        if status != 200:
            self._count(self._errors, KINDS.get(status, "model"), 1)

    def timed(self, queue_s: float, predict_s: float) -> None:
        """Count how long a request waited for the model, and how long that took."""
        self._observe(self._queue, queue_s)
        self._observe(self._predict, predict_s)

    def classes(self, counts: Mapping[str, int]) -> None:
        """Count predicted rows by their class."""
        for value, count in counts.items():
            self._count(self._texts, value, count)

    def bins(self, counts: Mapping[int, int]) -> None:
        """Count predicted rows by the place of their bin in `bins.NAMES`."""
        for place, count in counts.items():
            self._mine[self._bins.start + place] += count

    def confidence(self, counts: Mapping[int, int], total: float) -> None:
        """Count rows by the place of their highest probability in CONFIDENCE; `total` is the sum of them."""
        for place, count in counts.items():
            self._mine[self._confidence.start + place] += count
        self._mine[self._confidence.start + self._confidence.size - 1] += total

    def columns(self, missing: Mapping[str, int], unseen: Mapping[str, int]) -> None:
        """Count missing values and unseen categories by column; those not of the signature are left out."""
        for family, counts in ((self._missing, missing), (self._unseen, unseen)):
            for column, count in counts.items():
                if column[:200] in family.places:
                    self._count(family, column[:200], count)

    def logged(self, records: int) -> None:
        """Count records that were handed to the log."""
        self._mine[self._logged.start] += records

    def lost(self, why: str, records: int) -> None:
        """Count records that the log has lost; `why` is one of a few words."""
        self._count(self._lost, why, records)

    def compared(self, rows: int, disagreed: int) -> None:
        """Count a request that was compared with the champion's answer."""
        for family, count in ((self._copies, 1), (self._compared, rows), (self._disagreed, disagreed)):
            self._mine[family.start] += count

    def compare_failed(self) -> None:
        """Count a copy that the champion did not answer."""
        self._mine[self._uncompared.start] += 1

    def copied(self) -> None:
        """Count a copy that a challenger sent."""
        self._mine[self._copied.start] += 1

    def serves(self, form: str) -> None:
        """Tell which faster form of the model answers; empty: the model itself."""
        self._labels["form"] = form

    def text(self) -> bytes:
        """Write the numbers of all workers in the Prometheus text format."""
        lines: list[str] = []
        for family in self._families:
            kind = family.kind if isinstance(family, Series) else "histogram"
            name = f"{family.name}_total" if kind == "counter" else family.name
            if family is not self._texts:
                lines += [f"# HELP {name} {family.text}", f"# TYPE {name} {kind}"]
            lines += self._series(family, name) if isinstance(family, Series) else self._spread(family)
        info = ",".join(f'{k}="{_escaped(v)}"' for k, v in self._labels.items())
        lines += [
            "# HELP mainspring_model_info 1, with what is served as labels.",
            "# TYPE mainspring_model_info gauge",
            f"mainspring_model_info{{{info}}} 1.0",
        ]
        return ("\n".join(lines) + "\n").encode()

    def _take_names(self, family: Series) -> None:
        """Go on with the names that a worker before us in this slot has given."""
        for n in range(family.limit):
            if name := self.shared.name(self.shared.worker, family.name_start + n):
                family.places[name] = n

    def _count(self, family: Series, value: str, count: float) -> None:
        place = family.places.get(value)
        if place is None:
            assert family.named, f"{value!r} is no {family.label} of {family.name}"
            place = self._new(family, value)
        self._mine[family.start + place] += count

    def _new(self, family: Series, value: str) -> int:
        """Give a label's value a place; the last one is everybody's for whom there is no other."""
        place = len(family.places)
        if place >= family.limit or not value:
            return family.limit
        family.places[value] = place
        self.shared.write_name(family.name_start + place, value)
        return place

    def _observe(self, family: Spread, value: float) -> None:
        self._mine[family.start + bisect_left(family.bounds, value)] += 1
        self._mine[family.start + family.size - 1] += value

    def _sum(self, place: int) -> float:
        return sum(numbers[place] for numbers in self.shared.numbers)

    def _series(self, family: Series, name: str) -> list[str]:
        if not family.label:
            return [f"{name} {self._sum(family.start)}"]
        found: dict[str, float] = {}
        if family.named:
            for worker, numbers in enumerate(self.shared.numbers):
                for n in range(family.limit + 1):
                    if count := numbers[family.start + n]:
                        value = self.shared.name(worker, family.name_start + n) if n < family.limit else OTHER
                        found[value] = found.get(value, 0.0) + count
        else:
            found = {value: self._sum(family.start + n) for value, n in family.places.items()}
        return [f'{name}{{{family.label}="{_escaped(v)}"}} {count}' for v, count in found.items() if count]

    def _spread(self, family: Spread) -> list[str]:
        lines, total = [], 0.0
        for n, bound in enumerate((*family.bounds, None)):
            total += self._sum(family.start + n)
            lines.append(f'{family.name}_bucket{{le="{"+Inf" if bound is None else bound}"}} {total}')
        whole = self._sum(family.start + family.size - 1)
        return [*lines, f"{family.name}_count {total}", f"{family.name}_sum {whole}"]


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
