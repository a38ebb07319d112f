"""The prediction log as a server writes it: every prediction into a spool on this machine, before it is answered.

`record` costs some microseconds: it packs what is there already and hands it to the kernel with one `write`, so
that a killed server loses only what it had not answered.  It never waits for a store, never raises, and what does
not fit is counted.  Sensitive columns are dropped or hashed here, before anything leaves this process's memory.
What becomes of the spool is the business of `ship_log`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import struct
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from controller.serving import predlog_spool as spool
from controller.serving.predlog_spool import Segment, SpoolError
from controller.serving.values import Scalar

LOG_ENV: Final = "MAINSPRING_PREDICTION_LOG"
"""How a server is told to log: JSON with the fields of `Config`."""
SEGMENT_BYTES: Final = 8 * 2**20
"""A segment, which becomes a file in the store, is closed at this size."""
SEGMENT_AGE_S: Final = 60.0
"""And at this age, if there is anything in it."""
SPOOL_BYTES: Final = 512 * 2**20
"""Most bytes that wait for the store."""
_LOOK_S: Final = 0.5

PREFIX: Final = struct.Struct("<cqIHccc")
"""Of a record: kind, time (µs since 1970), rows, length of the id, forms of inputs, predictions, probabilities."""
NOTHING, MATRIX, TEXT, FLOATS = b"-", b"M", b"J", b"F"
"""Forms: left out; float64, row after row; JSON with its length before it; float64, one per row."""
LENGTH: Final = struct.Struct("<I")

_CLASSES: dict[tuple[type, Scalar], bytes] = {}
"""Predicted classes as they are written. Bounded by `_CLASSES_MOST`."""
_CLASSES_MOST: Final = 1_000

log = logging.getLogger("mainspring.serving")


@dataclass(frozen=True, slots=True)
class Config:
    """What a server is told about its log."""

    spool: Path
    mode: Literal["All", "Request", "Response"] = "All"
    sample: float = 1.0
    """Share of the requests, 0 to 1; the id of a request decides, so that every model logs the same ones."""
    sensitive: tuple[str, ...] = ()
    policy: Literal["Drop", "Hash"] = "Drop"
    salt: str = ""
    """Goes into every hash, so that those of two models differ."""
    spool_bytes: int = SPOOL_BYTES
    segment_bytes: int = SEGMENT_BYTES
    segment_age_s: float = SEGMENT_AGE_S

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Config | None:
        """Read MAINSPRING_PREDICTION_LOG; None when it is not set: nothing is logged."""
        text = environment.get(LOG_ENV, "")
        if not text:
            return None
        given: dict[str, Any] = json.loads(text)
        given["spool"] = Path(given["spool"])
        given["sensitive"] = tuple(given.get("sensitive", ()))
        return cls(**given)


@dataclass(slots=True)
class Record:
    """One answered request. Not frozen, since that would double what making one costs."""

    request_id: str
    time_us: int
    """When it was predicted, microseconds since 1970, UTC."""
    columns: Sequence[str]
    """Names of the inputs; the same object for every request where possible."""
    inputs: Any
    """Array of float64 of shape (rows, columns) with NaN for missing, or rows of plain values with None."""
    predictions: Sequence[Scalar]
    """One for each row."""
    classes: Sequence[str] = ()
    """Names of the classes that `probabilities` speak of."""
    probabilities: Any = None
    """Array or rows of shape (rows, classes); None where the model gives none."""


Lost = Callable[[str, int], None]


class PredictionLog:
    """Writes the spool of one server process.

    Args:
        config: what is logged, and where the spool is; the directory is made.
        identity: model, revision, version, commit, digest and pod, kept with every segment.
        kinds: `number`, `string` or `boolean` by column, where known.
        recorded: is told how many rows were written.
        lost: is told why and how many rows were not. Both in the thread that calls `record` or `count`.
    """

    def __init__(
        self,
        config: Config,
        identity: Mapping[str, str],
        kinds: Mapping[str, str],
        *,
        recorded: Callable[[int], None],
        lost: Lost,
    ) -> None:
        config.spool.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._config, self._identity, self._kinds = config, dict(identity), kinds
        self._recorded, self._lost = recorded, lost
        self._started_us, self._number = time.time_ns() // 1000, 0
        self._segment: Segment | None = None
        self._opened = 0.0
        self._used = spool.used_bytes(config.spool)
        self._shape: _Shape | None = None
        self._said: _Shape | None = None
        """What the last schema in the segment says."""
        self._told = ""
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._look, name="predlog", daemon=True)
        self._thread.start()

    def record(self, record: Record) -> None:
        """Write one request into the spool, unless it is not of the sample; what cannot be written is counted."""
        if self.takes(record.request_id):
            self.count(self.write(record), len(record.predictions))

    def takes(self, request_id: str) -> bool:
        """Tell whether a request is of the sample."""
        return self._config.sample >= 1.0 or chosen(request_id, self._config.sample)

    def write(self, record: Record) -> str:
        """Write one request into the spool; returns why it was not written, empty when it was. In any thread."""
        try:
            shape = self._shape_of(record)
            payload = _packed(record, shape, self._config)
            with self._lock:
                self._append(payload, shape)
        except SpoolError as error:
            return self._told_once(error.why, str(error))
        except Exception as error:  # noqa: BLE001 - a request is answered whatever happens to its record
            return self._told_once("not_encodable", f"a prediction cannot be logged ({type(error).__name__})")
        return ""

    def count(self, why: str, rows: int) -> None:
        """Count rows as written, or as lost where there is a why."""
        if why:
            self._lost(why, rows)
        else:
            self._recorded(rows)

    def close(self) -> None:
        """Finish the segment: everything that was recorded can be shipped. Nothing may be recorded after it."""
        self._closing.set()
        self._thread.join()
        with self._lock:
            self._finish()

    @property
    def directory(self) -> Path:
        """The spool."""
        return self._config.spool

    def _shape_of(self, record: Record) -> _Shape:
        shape = self._shape
        if shape is None or not shape.fits(record):
            shape = self._shape = _Shape.of(record, self._config, self._kinds)
        return shape

    def _append(self, payload: bytes, shape: _Shape) -> None:
        if len(payload) > spool.FRAME_MAX_BYTES:
            raise SpoolError("too_large", f"a request of {len(payload):,} bytes is too large for the log")
        data = spool.framed(payload)
        if self._used + len(data) > self._config.spool_bytes:
            raise SpoolError("spool_full", f"the spool has reached {self._config.spool_bytes:,} bytes")
        segment = self._segment
        if segment is not None and segment.size >= self._config.segment_bytes:
            self._finish()
            segment = None
        if segment is None:
            segment = self._open()
        if self._said is not shape:
            data = spool.framed(spool.SCHEMA + shape.text) + data
        segment.append(data)
        self._said = shape
        self._used += len(data)

    def _open(self) -> Segment:
        self._number += 1
        with contextlib.suppress(OSError):  # why it cannot be written is said in a moment
            self._config.spool.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = spool.name_of(self._started_us, os.getpid(), self._number)
        segment = Segment(self._config.spool, name, {"format": 1, **self._identity})
        self._segment, self._opened, self._said = segment, time.monotonic(), None
        return segment

    def _finish(self) -> None:
        if self._segment is not None:
            self._segment.finish()
            self._segment = None

    def _look(self) -> None:
        """Finish a segment that is old enough, and see how much of the spool was taken away."""
        while not self._closing.wait(_LOOK_S):
            with self._lock:
                if self._segment is not None and time.monotonic() - self._opened >= self._config.segment_age_s:
                    self._finish()
            used = spool.used_bytes(self._config.spool)
            with self._lock:
                self._used = used

    def _told_once(self, why: str, message: str) -> str:
        if why != self._told:
            # Once for each cause in a row: a log of every lost record would be another flood.
            self._told = why
            log.error("%s; such predictions are counted in mainspring_log_lost_total", message)
        return why


def chosen(request_id: str, share: float) -> bool:
    """Tell whether a request is of the sample: by its id alone, so that every server decides alike."""
    return zlib.crc32(request_id.encode("utf-8", "replace")) < share * 2**32


class _Shape:
    """What records of the same columns and classes have in common."""

    __slots__ = ("classes", "columns", "hashed", "kept", "numeric", "pack", "text")

    def __init__(self, columns: Sequence[str], classes: Sequence[str]) -> None:
        self.columns, self.classes = columns, classes
        self.kept: list[int] | None = None
        """Places of the columns that are logged; None: all."""
        self.hashed: list[int] = []
        """Places, among those kept, of columns whose values are hashed."""
        self.numeric = True
        """All that is kept are numbers, as far as is known."""
        self.text = b""
        self.pack: struct.Struct

    @classmethod
    def of(cls, record: Record, config: Config, kinds: Mapping[str, str]) -> _Shape:
        shape = cls(record.columns, record.classes)
        names = list(record.columns) if config.mode != "Response" else []
        hidden = set(config.sensitive)
        if config.policy == "Drop" and hidden.intersection(names):
            shape.kept = [n for n, name in enumerate(names) if name not in hidden]
            names = [names[n] for n in shape.kept]
        elif config.policy == "Hash":
            shape.hashed = [n for n, name in enumerate(names) if name in hidden]
        told = ["hash" if n in shape.hashed else kinds.get(name, "") for n, name in enumerate(names)]
        shape.numeric = not shape.hashed and all(kind in ("number", "") for kind in told)
        shape.pack = struct.Struct(f"<{len(names)}d")
        schema = {"columns": list(zip(names, told, strict=True)), "classes": list(record.classes)}
        shape.text = json.dumps(schema).encode()
        return shape

    def fits(self, record: Record) -> bool:
        """Tell whether a record has these columns and classes; usually they are the very same objects."""
        return (record.columns is self.columns or list(record.columns) == list(self.columns)) and (
            record.classes is self.classes or list(record.classes) == list(self.classes)
        )


def _packed(record: Record, shape: _Shape, config: Config) -> bytes:
    form, inputs = (NOTHING, b"") if config.mode == "Response" else _inputs(record.inputs, shape, config.salt)
    said, predictions = (NOTHING, b"") if config.mode == "Request" else _predictions(record.predictions)
    given, scores = NOTHING, b""
    if record.probabilities is not None and config.mode != "Request":
        given, scores = MATRIX, _matrix(record.probabilities)
    name = record.request_id.encode("utf-8", "replace")[:512] or b"-"
    rows = len(record.predictions)
    head = PREFIX.pack(spool.RECORD, record.time_us, rows, len(name), form, said, given)
    return b"".join((head, name, inputs, predictions, scores))


def _inputs(inputs: Any, shape: _Shape, salt: str) -> tuple[bytes, bytes]:
    kept = shape.kept
    if hasattr(inputs, "dtype"):
        if not shape.hashed:
            return MATRIX, _matrix(inputs if kept is None else inputs[:, kept])
        inputs = [[None if v != v else v for v in row] for row in inputs.tolist()]
    rows = inputs if kept is None else [[row[n] for n in kept] for row in inputs]
    if shape.numeric:
        try:
            return MATRIX, b"".join([shape.pack.pack(*row) for row in rows])
        except struct.error:
            # A value is missing, or the column turned out to hold something else: text says which.
            return TEXT, _text(rows)
    if shape.hashed:
        rows = [[hashed(v, salt) if n in shape.hashed else v for n, v in enumerate(row)] for row in rows]
    return TEXT, _text(rows)


def _predictions(values: Sequence[Scalar]) -> tuple[bytes, bytes]:
    if type(values[0]) is float:
        try:
            return FLOATS, struct.pack(f"<{len(values)}d", *values)
        except struct.error:
            return TEXT, _text(list(values))
    if len(values) > 1:
        return TEXT, _text(list(values))
    value = values[0]
    key = (type(value), value)  # True and 1 are the same key otherwise
    if (known := _CLASSES.get(key)) is None:
        known = _text([value])
        if len(_CLASSES) < _CLASSES_MOST:
            _CLASSES[key] = known
    return TEXT, known


def _matrix(values: Any) -> bytes:
    kind = getattr(values, "dtype", None)
    if kind is not None:
        # Row after row, however it lies in memory.
        packed: bytes = values.tobytes() if kind.char == "d" else values.astype("<f8").tobytes()
        return packed
    return b"".join([struct.pack(f"<{len(row)}d", *row) for row in values])


def _text(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    return LENGTH.pack(len(text)) + text


def hashed(value: Any, salt: str) -> str | None:
    """Replace a value by 32 hex digits that are the same for the same value of the same model; None stays None.

    It keeps what is equal equal and nothing else, but whoever can guess a value can check the guess.
    """
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = float(value)  # however it was sent: 1 and 1.0 are the same number
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16, key=hashlib.sha256(salt.encode()).digest()).hexdigest()
