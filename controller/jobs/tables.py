"""Datasets as files: CSV and parquet read with clear errors, and parts of them written without changing a value.

A row has two faces: its values as pandas sees them, for checks and metrics, and its text as the file says it, for
everything that must come out the same in every version of the data (pandas reads `1` as 1.0 once another row is
empty).  Only plain tables are read; nothing here unpickles, guesses a delimiter or repairs a row.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from controller.clients.git_types import is_lfs_pointer
from controller.jobs.entry import WrongInput

COLUMNS_MAX: Final = 10_000
"""Most columns that a dataset may have."""
CONTENT_BYTES: Final = 16
"""Length of a row's content digest."""
SEPARATOR: Final = "\x1f"
T = TypeVar("T")
NULL: Final = "\x00"
"""Text of a missing value in parquet; a CSV has only the empty field."""


@dataclass(frozen=True, slots=True)
class CsvBody:
    """The text of a CSV file, record by record, each with its line end."""

    head: str
    records: list[str]


@dataclass(frozen=True, slots=True)
class Table:
    """One dataset, read."""

    name: str
    """Name of the dataset, or its path, for messages."""
    frame: Any
    """pandas DataFrame, one row per row of the file, numbered from 0."""
    content: list[bytes]
    """Digest of every row's values by column name, independent of the order of the columns."""
    cells: dict[str, list[str]]
    """Text of the columns that were asked for and are there."""
    body: Any
    """What is written again: `CsvBody`, or a pyarrow Table."""

    @property
    def rows(self) -> int:
        """Return the number of rows."""
        return len(self.content)


def format_of(place: str) -> Literal["csv", "parquet"]:
    """Tell the format of a dataset from its path or address; the training finds it under the same ending."""
    return "parquet" if place.endswith(".parquet") else "csv"


def read_table(path: Path, name: str, *, place: str, keep: Iterable[str] = ()) -> Table:
    """Read a dataset.

    Args:
        path: the file on disk.
        name: how messages call it.
        place: its path in the repository or its address, whose ending says the format.
        keep: columns whose text is kept in `cells`.

    Raises:
        WrongInput: DataEmpty, LFSPointer, DataCorrupt (with line or page), SchemaMismatch or DataInvalid.
    """
    with path.open("rb") as file:
        start = file.read(1024)
    if not start.strip():
        raise WrongInput("DataEmpty", f"{name} is empty: it has no header and no rows")
    if is_lfs_pointer(start):
        raise WrongInput(
            "LFSPointer",
            f"{name} is a Git LFS pointer and not the data; commit the file itself, or name it by uri",
        )
    wanted = frozenset(keep)
    if format_of(place) == "parquet":
        from controller.jobs import tables_parquet

        return tables_parquet.read(path, name, start, wanted)
    if start.startswith(b"PAR1"):
        raise WrongInput("DataCorrupt", f"{name} is a parquet file, but its name does not end in .parquet")
    return _read_csv(path, name, wanted)


def write_rows(table: Table, positions: Sequence[int], dest: Path) -> None:
    """Write some rows of a dataset in its own format, in the order given; CSV keeps every byte of a record."""
    dest.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(table.body, CsvBody):
        records = table.body.records
        ends = "\r\n" if table.body.head.endswith("\r\n") else "\n"
        with dest.open("w", encoding="utf-8", newline="") as file:
            file.write(table.body.head)
            file.writelines(r if (r := records[p]).endswith("\n") else r + ends for p in positions)
    else:
        from controller.jobs import tables_parquet

        tables_parquet.write(table.body, positions, dest)


def write_frame(frame: Any, dest: Path) -> None:
    """Write a pandas DataFrame as parquet, without its index.

    Raises:
        WrongInput: DataInvalid: a column mixes types that one parquet column cannot hold.
    """
    import pyarrow as pa

    dest.parent.mkdir(parents=True, exist_ok=True)
    try:
        frame.to_parquet(dest, engine="pyarrow", index=False)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        text = str(error.args[-1] if error.args else error)
        raise WrongInput("DataInvalid", f"a column mixes types: {text[:200]}") from None


def content_of(table: Table, columns: Sequence[str]) -> list[bytes]:
    """Digest every row by some of its columns only, as `Table.content` does by all of them."""
    if not isinstance(table.body, CsvBody):
        from controller.jobs import tables_parquet

        return tables_parquet.content(table.body, columns)
    reader = csv.reader(io.StringIO(table.body.head + "".join(table.body.records), newline=""), strict=True)
    header = next(reader)
    # pandas calls an unnamed column by its position.
    names = [str(c) for c in table.frame.columns] if len(header) == len(table.frame.columns) else header
    places = [names.index(c) for c in sorted(columns)]
    return [digest_of([fields[i] for i in places]) for fields in reader]


def check_names(name: str, columns: Sequence[str]) -> None:
    """Refuse a header in which a name comes twice, or that is too wide.

    Raises:
        WrongInput: SchemaMismatch.
    """
    if len(columns) > COLUMNS_MAX:
        raise WrongInput("SchemaMismatch", f"{name} has {len(columns):,} columns, more than {COLUMNS_MAX:,}")
    if len(set(columns)) < len(columns):
        seen: set[str] = set()
        twice = next(c for c in columns if c in seen or seen.add(c))  # type: ignore[func-returns-value]  # add returns None
        raise WrongInput("SchemaMismatch", f"{name} has the column {twice[:80]!r} twice; give each its own name")


def digest_of(fields: Iterable[str]) -> bytes:
    """Digest the texts of one row, already in the order of their column names."""
    return blake2b(SEPARATOR.join(fields).encode("utf-8", "surrogatepass"), digest_size=CONTENT_BYTES).digest()


def by_name(columns: Sequence[str]) -> Callable[[Sequence[T]], Sequence[T]]:
    """Return a function that puts one item per column into the order of the column names."""
    order = sorted(range(len(columns)), key=columns.__getitem__)
    return itemgetter(*order) if len(order) > 1 else tuple


def _read_csv(path: Path, name: str, keep: frozenset[str]) -> Table:
    text = _text(path.read_bytes(), name)
    lines = list(io.StringIO(text.removeprefix("\ufeff"), newline="\n"))
    reader = csv.reader(lines, strict=True)
    try:
        columns = next(reader)
        _check_header(name, columns)
        head, bodies, content, cells = _records(reader, lines, columns, name, keep)
    except csv.Error as error:
        raise WrongInput(
            "DataCorrupt",
            f"{name} line {reader.line_num:,} is not CSV: {error}; a quote may be open, or a line end be wrong",
        ) from None
    except StopIteration:
        raise WrongInput("DataEmpty", f"{name} is empty: it has no header and no rows") from None
    if not bodies:
        raise WrongInput("DataEmpty", f"{name} has a header with {len(columns)} columns and no rows")
    frame = _frame(head, bodies, name)
    body = CsvBody(("\ufeff" if text.startswith("\ufeff") else "") + head, bodies)
    return Table(name, frame, content, cells, body)


def _text(data: bytes, name: str) -> str:
    """Decode a file as UTF-8; say the line of what is no text."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise WrongInput("DataCorrupt", f"{name} is UTF-16; save it as UTF-8")
    if (at := data.find(b"\0")) >= 0:
        line = data.count(b"\n", 0, at) + 1
        raise WrongInput("DataCorrupt", f"{name} line {line:,} has a NUL byte: it is no CSV")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise WrongInput(
            "DataCorrupt", f"{name} line {line:,} is not UTF-8 (byte 0x{data[error.start]:02x}); save it as UTF-8"
        ) from None


def _check_header(name: str, columns: list[str]) -> None:
    if len(columns) == 1:
        for mark, word in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if mark in columns[0]:
                raise WrongInput("DataCorrupt", f"{name} is separated by {word}; write it with commas")
    check_names(name, columns)


def _records(
    reader: Any, lines: list[str], columns: list[str], name: str, keep: frozenset[str]
) -> tuple[str, list[str], list[bytes], dict[str, list[str]]]:
    """Walk over the records: text, content digest and kept cells of each; blank lines are passed over."""
    width, order, before = len(columns), by_name(columns), reader.line_num
    head = "".join(lines[:before])
    records: list[str] = []
    content: list[bytes] = []
    cells: dict[str, list[str]] = {c: [] for c in columns if c in keep}
    kept = [(cells[c].append, i) for i, c in enumerate(columns) if c in keep]
    for fields in reader:
        after = reader.line_num
        if not fields or (len(fields) == 1 and not fields[0].strip()):
            before = after
            continue
        if len(fields) != width:
            raise WrongInput(
                "DataCorrupt",
                f"{name} line {before + 1:,} has {len(fields)} fields, but the header has {width}",
            )
        records.append(lines[before] if after == before + 1 else "".join(lines[before:after]))
        content.append(digest_of(order(fields)))
        for add, index in kept:
            add(fields[index])
        before = after
    return head, records, content, cells


def _frame(head: str, records: list[str], name: str) -> Any:
    """Parse the records as the training's own `pandas.read_csv` would."""
    import pandas as pd

    try:
        frame = pd.read_csv(io.StringIO(head + "".join(records)), low_memory=False, index_col=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError, OverflowError) as error:
        raise WrongInput("DataCorrupt", f"{name} cannot be read as CSV: {str(error)[:200]}") from None
    if len(frame) != len(records):
        raise WrongInput(
            "DataCorrupt",
            f"{name} has {len(records):,} records, but pandas reads {len(frame):,}: check its quotes",
        )
    _check_no_overflow(frame, head, records, name)
    return frame


def _check_no_overflow(frame: Any, head: str, records: list[str], name: str) -> None:
    """Refuse numbers that became infinite when they were read: the training would learn from another value.

    Raises:
        WrongInput: DataInvalid, with the number as the file says it.
    """
    import numpy as np
    from pandas.api import types

    for place, column in enumerate(frame.columns):
        values = frame[column]
        if not types.is_float_dtype(values) or not (infinite := np.isinf(values.to_numpy())).any():
            continue
        reader = csv.reader(io.StringIO(head + "".join(records), newline=""), strict=True)
        next(reader)
        texts = [fields[place] for fields in reader if fields and (len(fields) > 1 or fields[0].strip())]
        for row in np.flatnonzero(infinite):
            if "inf" not in texts[row].lower():
                raise WrongInput(
                    "DataInvalid",
                    f"{name}: {str(column)[:60]} has {texts[row].strip()[:24]} at row {row + 1:,}, larger than "
                    "every number of 64 bits; it would be read as infinite",
                )
