"""The parquet half of `tables`: plain columns only, bounded before they are unpacked, checksums verified.

A training part keeps the schema and the values; what would tell of rows that are not in it (the list of all
categories, foreign metadata) is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from controller.api.base import in_bytes
from controller.jobs.entry import WrongInput
from controller.jobs.tables import NULL, Table, by_name, check_names, digest_of

_UNNAMED: Final = "__index_level_"
"""How pandas stores an index that has no name: it is no column to learn from."""
UNPACKED_MAX: Final = in_bytes("8Gi")
"""Largest parquet file once unpacked, as its own index says, in bytes."""


def read(path: Path, name: str, start: bytes, keep: frozenset[str]) -> Table:
    """Read a parquet file; see `tables.read_table`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not start.startswith(b"PAR"):
        raise WrongInput("DataCorrupt", f"{name} is no parquet file: it does not begin with PAR1")
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            meta = file.metadata
            _check_size(name, sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups)))
            _check_schema(name, file.schema_arrow)
            table = file.read()
        columns = [c for c in table.column_names if not c.startswith(_UNNAMED)]
        texts = {c: _texts(table.column(c)) for c in columns}
        frame = table.select(columns).to_pandas(ignore_metadata=True)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        text = " ".join(str(error).split())[:200]
        raise WrongInput("DataCorrupt", f"{name} cannot be read as parquet: {text}") from None
    if not table.num_rows:
        raise WrongInput("DataEmpty", f"{name} has {len(columns)} columns and no rows")
    digests = [digest_of(row) for row in zip(*by_name(columns)([texts[c] for c in columns]), strict=True)]
    return Table(name, frame, digests, {c: texts[c] for c in columns if c in keep}, table)


def content(table: Any, columns: Sequence[str]) -> list[bytes]:
    """Digest every row of a pyarrow Table by some of its columns."""
    texts = [_texts(table.column(c)) for c in sorted(columns)]
    return [digest_of(row) for row in zip(*texts, strict=True)]


def write(table: Any, positions: Sequence[int], dest: Path) -> None:
    """Write some rows of a pyarrow Table, and nothing of the others."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    part = table.take(pa.array(positions, type=pa.int64()))
    columns = [_only_present(part.column(c)) for c in part.column_names]
    metadata = {k: v for k, v in (table.schema.metadata or {}).items() if k == b"pandas"}
    fields = [pa.field(f.name, c.type, f.nullable) for f, c in zip(part.schema, columns, strict=True)]
    pq.write_table(pa.Table.from_arrays(columns, schema=pa.schema(fields, metadata=metadata)), dest)


def _only_present(column: Any) -> Any:
    """Rebuild a dictionary column from the values that are there: its old list names all rows' categories."""
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type):
        return column
    plain = column.cast(column.type.value_type)
    return plain.combine_chunks().dictionary_encode().cast(pa.dictionary(column.type.index_type, plain.type))


def _check_size(name: str, size: int) -> None:
    if size > UNPACKED_MAX:
        raise WrongInput("DataInvalid", f"{name} unpacks to {size:,} bytes, more than {UNPACKED_MAX:,}")


def _check_schema(name: str, schema: Any) -> None:
    import pyarrow as pa

    check_names(name, schema.names)
    for field in schema:
        if pa.types.is_nested(field.type):
            raise WrongInput(
                "SchemaMismatch",
                f"{name}: the column {field.name[:80]!r} is {field.type}; only plain columns are read",
            )


def _texts(column: Any) -> list[str]:
    """Write every value of a column in one way, the same for 17 and 17.0, whatever the unit of a time."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        column = column.cast(pa.timestamp(kind.unit, tz="UTC"))
    values = column.to_pylist()
    if pa.types.is_floating(kind):
        return [NULL if v is None else repr(float(v)).removesuffix(".0") for v in values]
    if pa.types.is_boolean(kind):
        return [NULL if v is None else "true" if v else "false" for v in values]
    if pa.types.is_temporal(kind):
        return [NULL if v is None else v.isoformat() if hasattr(v, "isoformat") else str(v) for v in values]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return [NULL if v is None else v.hex() for v in values]
    return [NULL if v is None else str(v) for v in values]
