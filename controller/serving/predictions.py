"""Reads the prediction log back: one table of typed columns, each prediction once, whatever was shipped twice.

Files of several revisions may have other columns or types: what one lacks is missing, numbers meet as float64, and
what cannot meet otherwise is text.  A file that cannot be read is left out and named, never passed over in
silence.  Only days and revisions that are asked for are opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from controller.clients.errors import Denied
from controller.clients.redact import redact
from controller.serving.predlog_store import Store, Stored

READERS: Final = 8
KEY: Final = ("request_id", "row")
"""What one prediction is told from every other by."""
_HEAD: Final = ("request_id", "row", "time", "model", "revision", "version", "commit", "pod")


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that could not be read."""

    path: str
    why: str


@dataclass(frozen=True, slots=True)
class Predictions:
    """What was found."""

    table: Any
    """pyarrow Table, ordered by time; `revision` and `day` are columns too."""
    files: int
    duplicates: int
    """Rows that were there more than once and are left out."""
    skipped: tuple[Skipped, ...]
    """Files that could not be read: what they hold is missing."""


def read(
    uri: str,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    revision: str | None = None,
    model: str | None = None,
    columns: Sequence[str] | None = None,
    secret: Path | None = None,
) -> Predictions:
    """Read predictions.

    Args:
        uri: the store, as `serving.predictionLog.storage.uri` has it, or as status says.
        since: not before this moment (UTC where it has no zone).
        until: before this moment.
        revision: of this ModelRevision only.
        model: of this ModelSpec only, where several share a store.
        columns: these only, besides `request_id`, `row`, `time` and `revision`.
        secret: directory with the files of the store's Secret; None: what the environment has.

    Raises:
        Denied, NotFound, Unavailable: the store cannot be read.
    """
    store = Store(uri, secret)
    since, until = _in_utc(since), _in_utc(until)
    chosen = [f for day in _days(store, since, until) for f in _of_day(store, day, revision, model)]
    with ThreadPoolExecutor(READERS) as pool:
        opened = list(pool.map(lambda stored: _schema(store, stored), chosen))
    good = [
        (stored, found) for stored, found in zip(chosen, opened, strict=True) if not isinstance(found, Skipped)
    ]
    skipped = [found for found in opened if isinstance(found, Skipped)]
    wanted = _united([schema for _, schema in good], columns)
    parts = []
    for stored, _ in good:
        try:
            parts.append(_table(store, stored, wanted, since, until))
        except (OSError, ValueError) as error:
            # Retention deletes while we read, and a footer may be whole where the pages are not.
            skipped.append(Skipped(stored.path, _short(error)))
    table, duplicates = _once(parts, wanted)
    return Predictions(table, len(parts), duplicates, tuple(skipped))


def _in_utc(moment: datetime | None) -> datetime | None:
    if moment is None:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _days(store: Store, since: datetime | None, until: datetime | None) -> list[str]:
    first = since.strftime("%Y-%m-%d") if since else ""
    last = (until - timedelta(microseconds=1)).strftime("%Y-%m-%d") if until else "9999"
    return [day for day in store.days() if first <= day <= last]


def _of_day(store: Store, day: str, revision: str | None, model: str | None) -> Iterable[Stored]:
    from controller.serving.ship_log import belongs

    for found in store.revisions(day):
        if (revision is None or found == revision) and (model is None or belongs(found, model)):
            yield from store.files(day, found)


def _schema(store: Store, stored: Stored) -> Any:
    """Read the schema of a file, or say why it is none."""
    import pyarrow.parquet as pq

    try:
        with store.filesystem.open_input_file(stored.path) as file:
            return pq.read_schema(file)
    except (OSError, ValueError) as error:
        return Skipped(stored.path, _short(error))


def _short(error: Exception) -> str:
    return redact(" ".join(str(error).split()) or type(error).__name__, limit=200)


def _united(schemas: Sequence[Any], columns: Sequence[str] | None) -> Any:
    """Find one type for every column: the files' own, float64 for numbers of two types, else text."""
    import pyarrow as pa

    types: dict[str, Any] = {
        "request_id": pa.string(),
        "row": pa.int32(),
        "time": pa.timestamp("us", tz="UTC"),
        "revision": pa.string(),
    }
    for schema in schemas:
        for field in schema:
            known = types.get(field.name)
            if known is None or pa.types.is_null(known):
                types[field.name] = field.type
            elif known != field.type and not pa.types.is_null(field.type):
                numbers = all(pa.types.is_integer(t) or pa.types.is_floating(t) for t in (known, field.type))
                types[field.name] = pa.float64() if numbers else pa.string()
    if columns is not None:
        if missing := [c for c in columns if c not in types]:
            there = ", ".join(sorted(types)[:40])
            raise Denied(f"the log has no column {missing[0]}; there are {there}", reason="ColumnMissing")
        types = {name: kind for name, kind in types.items() if name in {*KEY, "time", "revision", *columns}}
    order = [*(n for n in _HEAD if n in types), *(n for n in types if n not in _HEAD)]
    return pa.schema([(name, types[name]) for name in order])


def _table(store: Store, stored: Stored, wanted: Any, since: datetime | None, until: datetime | None) -> Any:
    """Read the rows of a file, with the columns and types that are wanted."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    found = ds.dataset(stored.path, filesystem=store.filesystem, format="parquet")
    condition = None
    for moment, after in ((since, True), (until, False)):
        if moment is not None:
            limit = pa.scalar(moment, pa.timestamp("us", tz="UTC"))
            part = pc.field("time") >= limit if after else pc.field("time") < limit
            condition = part if condition is None else condition & part
    there = [name for name in wanted.names if name in found.schema.names]
    rows = found.to_table(columns=there, filter=condition)
    filled: Mapping[str, Any] = {"revision": pa.repeat(pa.scalar(stored.revision), rows.num_rows)}
    arrays = []
    for field in wanted:
        if field.name in there:
            arrays.append(rows.column(field.name).cast(field.type))
        elif field.name in filled:
            arrays.append(filled[field.name])
        else:
            arrays.append(pa.nulls(rows.num_rows, field.type))
    return pa.Table.from_arrays(arrays, schema=wanted)


def _once(parts: Sequence[Any], wanted: Any) -> tuple[Any, int]:
    """Put tables together by time, and keep the first of what is there twice."""
    import pyarrow as pa

    whole = pa.concat_tables(parts) if parts else wanted.empty_table()
    whole = whole.sort_by([("time", "ascending"), ("request_id", "ascending"), ("row", "ascending")])
    places = pa.array(range(whole.num_rows), pa.int64())
    first = whole.select(list(KEY)).append_column("place", places).group_by(list(KEY), use_threads=False)
    kept = first.aggregate([("place", "min")]).column("place_min").combine_chunks()
    if len(kept) == whole.num_rows:
        return whole, 0
    return whole.take(kept.sort()), whole.num_rows - len(kept)
