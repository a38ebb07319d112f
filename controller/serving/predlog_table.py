"""From a finished segment of the spool to typed tables, one for each day, and from a table to the bytes of a file.

Columns: `request_id`, `row`, `time` (UTC, µs), `model`, `version`, `commit`, `pod`, `inputs.<column>`,
`prediction`, `probabilities.<class>`.  Day and revision are in the path.  Types are those of the model's signature
where it has one, else of what was sent; the schema is written into every file.  The same segment always gives the
same bytes.  Opens nothing but the segment.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from controller.serving import predlog_spool as spool
from controller.serving.predlog import FLOATS, LENGTH, MATRIX, NOTHING, PREFIX, TEXT

INPUTS, PROBABILITIES = "inputs.", "probabilities."
"""What the names of those columns begin with."""
CONSTANT: Final = ("model", "version", "commit", "pod")
ABOUT: Final = b"mainspring"
"""Key of the schema's metadata: who wrote it, as JSON."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_US: Final = 86_400_000_000
_TEXTS_MOST: Final = 1_000
"""Predicted classes that are read only once."""
_ALIKE: Final = slice(9, PREFIX.size)
"""Of a record: rows, length of the id, forms."""
_RUN_MOST: Final = 4_096


def day_of(time_us: int) -> str:
    """Name the day of a moment, UTC: `2026-03-02`.

    >>> day_of(0), day_of(86_400_000_000)
    ('1970-01-01', '1970-01-02')
    """
    return (_EPOCH + timedelta(microseconds=time_us)).strftime("%Y-%m-%d")


@dataclass(slots=True)
class Column:
    """The values of one column, in pieces as they came."""

    kind: str = ""
    """number, string, boolean or hash; empty: not known."""
    pieces: list[Any] = field(default_factory=list)
    rows: int = 0

    def add(self, values: Any, at: int) -> None:
        """Add values; rows before `at` that it has none for are missing."""
        if self.rows < at:
            self.pieces.append([None] * (at - self.rows))
        self.pieces.append(values)
        self.rows = at + len(values)


@dataclass(slots=True)
class Day:
    """What a segment has of one day."""

    rows: int = 0
    ids: list[Any] = field(default_factory=list)
    numbers: list[Any] = field(default_factory=list)
    times: list[Any] = field(default_factory=list)
    columns: dict[str, Column] = field(default_factory=dict)


class Parts:
    """A segment, read and taken apart by day.

    Args:
        path: a finished segment.
    """

    def __init__(self, path: Path) -> None:
        reader = spool.Reader(path)
        self._schema: tuple[list[tuple[str, str]], list[str]] = ([], [])
        self._days: dict[int, Day] = {}
        self._texts: dict[bytes, list[Any]] = {}
        self.rows = self.requests = unreadable = 0
        for run in _runs(reader.frames()):
            try:
                if run[0][:1] == spool.SCHEMA:
                    told = json.loads(run[0][1:])
                    self._schema = ([(n, k) for n, k in told["columns"]], list(told["classes"]))
                else:
                    self._add(run)
                    self.requests += len(run)
            except (ValueError, struct.error, KeyError, IndexError, TypeError):
                unreadable += len(run)
        self.days: dict[str, Day] = {day_of(number * _DAY_US): day for number, day in self._days.items()}
        self.header = reader.header
        self.lost = reader.corrupt + unreadable
        """Requests that were written but cannot be read."""
        self.torn = reader.torn

    def _add(self, run: list[bytes]) -> None:
        """Take in requests whose records look alike: as many rows, the same forms, the same length."""
        import numpy as np

        _, _, rows, length, form, said, given = PREFIX.unpack_from(run[0])
        columns, classes = self._schema
        parts: list[tuple[str, Any]] = [("kind", "S1"), ("time", "<i8"), ("about", "V9"), ("id", f"V{length}")]
        if form == MATRIX:
            parts.append(("inputs", ("<f8", (rows, len(columns)))))
        rest = form == TEXT or said == TEXT
        if not rest:
            parts += [("predictions", ("<f8", (rows,)))] if said == FLOATS else []
            parts += [("scores", ("<f8", (rows, len(classes))))] if given == MATRIX else []
        layout = np.dtype(parts)
        size = layout.itemsize
        if size > len(run[0]) or (size < len(run[0]) and not rest):
            raise ValueError("a record has another length than its columns take")
        heads = run if not rest else [payload[:size] for payload in run]
        table = np.frombuffer(b"".join(heads), layout)
        numbers = table["time"] // _DAY_US
        for number in np.unique(numbers).tolist():
            chosen = np.flatnonzero(numbers == number)
            self._take(number, table[chosen], [run[n] for n in chosen.tolist()] if rest else [], rows, size)

    def _take(self, number: int, table: Any, run: list[bytes], rows: int, size: int) -> None:
        import numpy as np

        columns, classes = self._schema
        day = self._days.setdefault(number, Day())
        count = len(table) * rows
        taken: list[tuple[str, str, Any]] = []
        if "inputs" in table.dtype.names:
            flat = table["inputs"].reshape(count, len(columns))
            taken += [(INPUTS + c, kind, flat[:, n]) for n, (c, kind) in enumerate(columns)]
        if "predictions" in table.dtype.names:
            taken.append(("prediction", "", table["predictions"].reshape(count)))
        if "scores" in table.dtype.names:
            flat = table["scores"].reshape(count, len(classes))
            taken += [(PROBABILITIES + c, "number", flat[:, n]) for n, c in enumerate(classes)]
        if run:
            taken += self._read_texts(run, rows, size)
        # As objects of Python they would cost more than all else.
        ids = np.ascontiguousarray(table["id"]).view(f"S{table.dtype['id'].itemsize}")
        day.ids.append(np.repeat(ids, rows))
        day.numbers.append(np.tile(np.arange(rows, dtype=np.int32), len(table)))
        day.times.append(np.repeat(table["time"], rows))
        for column, kind, cells in taken:
            if (known := day.columns.get(column)) is None:
                known = day.columns[column] = Column(kind)
            known.add(cells, day.rows)
        day.rows += count
        self.rows += count

    def _read_texts(self, run: list[bytes], rows: int, size: int) -> list[tuple[str, str, Any]]:
        """Read what stands behind the first part of each record, from the first text on."""
        columns, classes = self._schema
        form, said, given = PREFIX.unpack_from(run[0])[4:]
        cells: list[list[Any]] = []
        predictions: list[Any] = []
        scores: list[tuple[float, ...]] = []
        for payload in run:
            at = size
            if form == TEXT:
                table, at = self._text(payload, at, kept=False)
                cells += table
            if said == FLOATS:
                predictions += struct.unpack_from(f"<{rows}d", payload, at)
                at += 8 * rows
            elif said == TEXT:
                values, at = self._text(payload, at, kept=rows == 1)
                predictions += values
            if given == MATRIX:
                width = len(classes)
                flat = struct.unpack_from(f"<{rows * width}d", payload, at)
                scores += [flat[n : n + width] for n in range(0, len(flat), width)]
        taken: list[tuple[str, str, Any]] = []
        if form == TEXT:
            by_column = zip(columns, zip(*cells, strict=True), strict=True)
            taken += [(INPUTS + c, kind, list(values)) for (c, kind), values in by_column]
        if said != NOTHING:
            taken.append(("prediction", "", predictions))
        if given == MATRIX:
            by_class = zip(classes, zip(*scores, strict=True), strict=True)
            taken += [(PROBABILITIES + c, "number", list(values)) for c, values in by_class]
        return taken

    def _text(self, payload: bytes, at: int, *, kept: bool) -> tuple[list[Any], int]:
        (size,) = LENGTH.unpack_from(payload, at)
        at += LENGTH.size
        text = payload[at : at + size]
        if kept and (known := self._texts.get(text)) is not None:
            return known, at + size
        value: list[Any] = json.loads(text.decode("utf-8", "surrogatepass"))
        if kept and len(self._texts) < _TEXTS_MOST:
            self._texts[text] = value
        return value, at + size

    def table(self, name: str) -> Any:
        """Build the table of one day."""
        import numpy as np
        import pyarrow as pa

        day, who = self.days[name], self.header
        times = pa.array(np.concatenate(day.times), pa.int64())
        columns: dict[str, Any] = {
            "request_id": pa.concat_arrays([pa.array(ids, pa.binary()).cast(pa.string()) for ids in day.ids]),
            "row": pa.array(np.concatenate(day.numbers), pa.int32()),
            "time": times.cast(pa.timestamp("us", tz="UTC")),
        }
        for about in CONSTANT:
            columns[about] = pa.repeat(pa.scalar(str(who.get(about, "")), pa.string()), day.rows)
        for column, known in day.columns.items():
            if known.rows < day.rows:
                known.add([None] * (day.rows - known.rows), known.rows)
            columns[column] = _typed(known)
        told = {k: who.get(k, "") for k in ("format", "model", "revision", "version", "commit", "digest", "pod")}
        return pa.table(columns).replace_schema_metadata({ABOUT: json.dumps(told, sort_keys=True).encode()})


def _runs(frames: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Put records together that follow each other and look alike, so that they are read as one array."""
    run: list[bytes] = []
    alike, length = b"", -1
    for payload in frames:
        if len(payload) == length and payload[_ALIKE] == alike and len(run) < _RUN_MOST:
            run.append(payload)
            continue
        if run:
            yield run
        run = [payload]
        is_record = payload[:1] == spool.RECORD
        alike, length = (payload[_ALIKE], len(payload)) if is_record else (b"", -1)
    if run:
        yield run


def _typed(column: Column) -> Any:
    """Make an array of the type that the values have; a mixture becomes text, each value as JSON."""
    import numpy as np
    import pyarrow as pa

    if all(hasattr(piece, "dtype") for piece in column.pieces):
        return pa.array(np.concatenate(column.pieces), pa.float64(), from_pandas=True)
    cells: list[Any] = []
    for piece in column.pieces:
        cells += [None if c != c else c for c in piece.tolist()] if hasattr(piece, "dtype") else piece
    kinds = {type(cell) for cell in cells if cell is not None}
    if not kinds:
        known = {"number": pa.float64(), "boolean": pa.bool_()}
        return pa.array(cells, known.get(column.kind, pa.string()))
    if kinds == {bool}:
        return pa.array(cells, pa.bool_())
    if kinds == {str}:
        clean = (c.encode("utf-8", "replace").decode() if c is not None else None for c in cells)
        return pa.array(clean, pa.string())
    if kinds == {int} and column.kind != "number" and all(c is None or -(2**63) <= c < 2**63 for c in cells):
        return pa.array(cells, pa.int64())
    if kinds <= {int, float}:
        return pa.array([None if c is None else float(c) for c in cells], pa.float64())
    return pa.array([None if c is None else json.dumps(c) for c in cells], pa.string())


def parquet(table: Any) -> Any:
    """Write a table as the bytes of a parquet file, a buffer of pyarrow."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    # Only where values come again: a dictionary of numbers that are all different costs much and saves nothing.
    again = [f.name for f in table.schema if pa.types.is_string(f.type) and f.name != "request_id"]
    pq.write_table(table, sink, compression="zstd", use_dictionary=again)
    return sink.getvalue()
