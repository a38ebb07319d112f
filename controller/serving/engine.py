"""From a request's rows to predictions: how the model is asked, and in which thread.

A model that is known to answer soon is asked at once, in the event loop: handing a request to a thread costs more
than most models take.  Every other one, and every large request, goes to the threads of the pool.  An array is
given instead of a frame only after both gave the same predictions; whatever fails so is tried with a frame before
it is told to anybody.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from controller.clients.errors import Denied
from controller.serving import faster, invocations, monitor
from controller.serving.monitor import Seen
from controller.serving.pool import Pool
from controller.serving.predictor import Predictor
from controller.serving.table import Table, read
from controller.serving.values import Scalar

INLINE_S: Final = 0.005
"""Longest that a model may take for a row to be asked in the event loop."""
INLINE_ROWS: Final = 128
"""Most rows of such a request."""
INLINE_BYTES: Final = 65_536
"""Largest body that is read in the event loop."""
SCORES_EVERY: Final = 10
"""Where probabilities need a call of their own, one request of so many is asked for them."""
LOOK_ROWS: Final = 100
LOOK_S: Final = 0.5
"""How long, and among how many rows, the one is looked for that the model failed on."""
_STRIKES: Final = 3

log = logging.getLogger("mainspring.serving")


@dataclass(slots=True)
class Served:
    """Predictions of one request, and how long they took."""

    table: Table
    predictions: list[Scalar]
    scores: Any
    """Array of probabilities of shape (rows, classes); None without."""
    seen: Seen
    queue_s: float
    predict_s: float


class RowFailed(Exception):
    """The model raised for one row of a request; the cause is what it raised."""

    def __init__(self, row: int) -> None:
        super().__init__(row)
        self.row = row


class Engine:
    """Asks one model.

    Attributes:
        arrays: whether arrays of numbers are given to it.
        inline_rows: most rows that are predicted in the event loop; 0: none.
        kinds: kind of each column, where known.
        gaps: whether it takes missing numbers, as far as was tried.
    """

    def __init__(self, predictor: Predictor, pool: Pool, kinds: Mapping[str, str]) -> None:
        self._predictor, self._pool = predictor, pool
        self.kinds = dict(kinds)
        self.arrays = self.gaps = False
        self.inline_rows = 0
        self._strikes = self._asked = 0
        names = list(predictor.columns or ())
        self._known = [(names.index(n), n, known) for n, known in predictor.known.items() if n in names]

    def prove(self, frame: Any) -> None:
        """Make the first predictions, and find out by which way the model is asked from now on.

        Raises:
            Whatever the model raises for the frame.
        """
        predictor, table = self._predictor, Table.of_frame(frame, self.kinds)
        expected = predictor.predict(frame)
        if predictor.arrays and all(kind == "number" for kind in self.kinds.values()):
            self.arrays = self._same(frame, expected)
            if not self.arrays and predictor.form is not None:
                log.warning(
                    "%s does not predict the sample as the model does; it is not used", predictor.form.name
                )
                predictor.form = None
                self.arrays = self._same(frame, expected)
        if not self.arrays:
            predictor.form = None
        self.gaps = self._takes_gaps(frame)
        spent = []
        for _ in range(_STRIKES):
            started = time.perf_counter()
            self.ask(table)
            spent.append((time.perf_counter() - started) / max(1, table.rows))
        self.inline_rows = INLINE_ROWS if predictor.quick and min(spent) <= INLINE_S else 0

    def read_json(self, body: bytes) -> Table:
        """Read a request in one of MLflow's JSON forms.

        Raises:
            BadRequest.
        """
        found = read(body, self._predictor.columns, self.kinds, self.arrays)
        if found is not None:
            return found
        return Table.of_frame(invocations.parse_json(body, self._predictor.columns, self.kinds), self.kinds)

    def read_csv(self, body: bytes) -> Table:
        """Read a request in CSV with a header line.

        Raises:
            BadRequest.
        """
        return Table.of_frame(invocations.parse_csv(body, self._predictor.columns, self.kinds), self.kinds)

    async def run(self, parse: Callable[[bytes], Table], body: bytes, *, small: bool) -> Served:
        """Read a body and predict its rows.

        Args:
            small: whether the body may be read in the event loop.

        Raises:
            BadRequest, Denied, Full, TooSlow. Whatever the model raises.
        """
        came = time.perf_counter()
        if not (small and self.inline_rows and len(body) <= INLINE_BYTES):
            return await self._pool.call(lambda: self._served(parse(body), came))
        table = parse(body)
        if table.rows > self.inline_rows:
            return await self._pool.call(lambda: self._served(table, came))
        served = self._served(table, came)
        self._learn(served.predict_s)
        return served

    def ask(self, table: Table) -> tuple[list[Scalar], Any]:
        """Ask the model for predictions and, now and then at least, for probabilities.

        Raises:
            BadRequest, Denied. Whatever the model raises.
        """
        self._asked += 1
        scores = table.scores or self._asked % SCORES_EVERY == 0
        if self.arrays and table.matrix is not None:
            try:
                return self._predictor.answer(table.matrix, table.rows, scores)
            except Exception as error:  # noqa: BLE001 - a model may raise anything; the frame tells what it means
                log.debug("an array was refused: %s", type(error).__name__)
        frame = table.frame
        try:
            return self._predictor.answer(frame, table.rows, scores)
        except Denied:
            raise
        except Exception as error:
            if (refusal := invocations.refusal(frame, error)) is not None:
                raise refusal from error
            if (row := self._failing(frame, error)) is not None:
                raise RowFailed(row) from error
            raise

    def _failing(self, frame: Any, error: Exception) -> int | None:
        """Find the row of a batch that the model fails on when it is asked alone; None: no such row was found."""
        until = time.monotonic() + LOOK_S
        for row in range(min(len(frame), LOOK_ROWS) if len(frame) > 1 else 0):
            try:
                self._predictor.predict(frame.iloc[[row]].reset_index(drop=True))
            except Exception as found:  # noqa: BLE001 - a model may raise anything; it is compared
                if type(found) is type(error):
                    return row
            if time.monotonic() > until:
                break
        return None

    def _served(self, table: Table, came: float) -> Served:
        started = time.perf_counter()
        predictions, scores = self.ask(table)
        ended = time.perf_counter()
        return Served(
            table, predictions, scores, self._seen(table, predictions, scores), started - came, ended - started
        )

    def _seen(self, table: Table, predictions: list[Scalar], scores: Any) -> Seen:
        seen = Seen(missing=table.missing())
        seen.classes, seen.bins = monitor.predicted(predictions, self._predictor.classified)
        if scores is not None:
            seen.confidence, seen.confidence_sum = monitor.confidence(scores)
        if self._known:
            cells = table.cells
            counts = {name: monitor.unseen_in(cells[place], known) for place, name, known in self._known}
            seen.unseen = {name: count for name, count in counts.items() if count}
        return seen

    def _learn(self, spent: float) -> None:
        """Give fewer rows to the event loop once several requests in a row have held it up."""
        self._strikes = self._strikes + 1 if spent > 4 * INLINE_S else 0
        if self._strikes >= _STRIKES:
            self.inline_rows, self._strikes = self.inline_rows // 2, 0

    def _takes_gaps(self, frame: Any) -> bool:
        """Say whether the model predicts the sample's first row without any of its numbers."""
        row = frame.head(1).copy()
        for name in row.columns:
            if self.kinds.get(str(name), "number") == "number":
                row[name] = float("nan")
        try:
            self._predictor.predict(row)
        except Exception as error:  # noqa: BLE001 - a model may raise anything; it is told what it takes
            log.debug("the model takes no missing numbers: %s", type(error).__name__)
            return False
        return True

    def _same(self, frame: Any, expected: list[Scalar]) -> bool:
        """Say whether the model gives the same predictions for an array as for a frame."""
        import numpy as np

        try:
            matrix = np.asfortranarray(frame.to_numpy(dtype=np.float64))
            found, _ = self._predictor.answer(matrix, len(frame), False)
        except Exception as error:  # noqa: BLE001 - a model may raise anything; it goes on with frames
            log.info("the model takes no arrays: %s", type(error).__name__)
            return False
        return found == expected or (self._predictor.form is not None and faster.alike(found, expected))
