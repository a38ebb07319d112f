"""The hold-out split: which rows the training never sees.  Pure: texts and times in, a mask out.

Random and Group hash what names a row, so a row stays on its side in every version of the data, whatever is
appended, removed or reordered.  Golden values in the tests hold the recipe in place: another recipe would show
trained models rows that they know.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final

from controller.api.data import Columns, Holdout
from controller.jobs.entry import WrongInput
from controller.jobs.tables import Table

_PERSON: Final = b"mainspring-split"
"""Keeps these hashes apart from any other use of blake2b."""
_SCALE: Final = 2**64
MILLISECONDS_FROM: Final = 1e11
"""Numbers of time from here on are milliseconds since 1970, below it seconds (the year 5138)."""
SECONDS_FROM: Final = 1e8
"""Smaller numbers may be anything that grows: hours, days, a counter (1973 in seconds)."""


def needed_columns(columns: Columns, holdout: Holdout) -> tuple[str, ...]:
    """Name the columns whose text the split hashes."""
    return tuple(c for c in (holdout.column if holdout.by == "Group" else None, columns.id) if c)


def choose(table: Table, columns: Columns, holdout: Holdout) -> list[bool]:
    """Return for every row whether it is held out.

    Raises:
        WrongInput: SchemaMismatch: a column that the rule needs is not there. DataInvalid: times that are none.
    """
    if holdout.by == "Time":
        name = holdout.column or columns.time or ""
        _have(table, name, "holdout.by: Time")
        return newest(times_of(table.frame[name], name), holdout.fraction)
    if holdout.by == "Group":
        name = holdout.column or ""
        _have(table, name, "holdout.by: Group")
        return hashed([text.encode() for text in table.cells[name]], holdout.seed, holdout.fraction)
    if columns.id is not None:
        _have(table, columns.id, "columns.id")
        return hashed([text.encode() for text in table.cells[columns.id]], holdout.seed, holdout.fraction)
    return hashed(table.content, holdout.seed, holdout.fraction)


def hashed(keys: Sequence[bytes], seed: int, fraction: float) -> list[bool]:
    """Hold out a row if the hash of its key lies below the fraction; equal keys stay together.

    blake2b of the seed and the key, 64 bits, as a number from 0 to 1.
    """
    limit, prefix = int(fraction * _SCALE), f"{seed}:".encode()
    side = {
        key: int.from_bytes(blake2b(prefix + key, digest_size=8, person=_PERSON).digest(), "big") < limit
        for key in set(keys)
    }
    return [side[key] for key in keys]


def newest(times: Any, fraction: float) -> list[bool]:
    """Hold out the newest rows: those at or after the time of the row that makes the fraction full.

    Rows of one time stay together, so that the hold-out may be larger than the fraction; where that would leave
    nothing to learn from, the oldest time stays with the training.

    Args:
        times: float array, one per row, growing with time; no NaN.
        fraction: share of rows, above 0 and below 1.
    """
    import numpy as np

    if not len(times):
        return []
    wanted = min(max(1, round(fraction * len(times))), len(times))
    cut = np.sort(times)[len(times) - wanted]
    mask = times >= cut
    if mask.all():
        mask = times > cut
    return [bool(v) for v in mask]


def times_of(column: Any, name: str) -> Any:
    """Read a column of times as a float array: seconds since 1970, or the numbers as they are.

    Times without a zone are UTC.

    Raises:
        WrongInput: DataInvalid, with up to three rows that have no time.
    """
    import numpy as np
    import pandas as pd
    from pandas.api import types

    if types.is_numeric_dtype(column) and not types.is_bool_dtype(column):
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        bad = ~np.isfinite(values)
        _one_unit(values, name)
    else:
        if isinstance(column.dtype, pd.CategoricalDtype):
            column = column.astype(object)
        parsed = pd.to_datetime(column, utc=True, format="ISO8601", errors="coerce")
        bad = parsed.isna().to_numpy()
        # Microseconds reach from year 1 to 9999; nanoseconds would not.
        moments = parsed.dt.tz_localize(None).to_numpy().astype("datetime64[us]")
        values = moments.astype(np.int64) / 1e6
    if bad.any():
        rows = ", ".join(f"{row + 1:,}" for row in np.flatnonzero(bad)[:3])
        raise WrongInput(
            "DataInvalid",
            f"{name} has {int(bad.sum()):,} of {len(bad):,} values that are no time (row {rows}); "
            "times are ISO 8601 or numbers",
        )
    return values


def _one_unit(values: Any, name: str) -> None:
    """Refuse a column in which seconds and milliseconds since 1970 are mixed: it would be sorted wrongly.

    Raises:
        WrongInput: DataInvalid, with a row of each.
    """
    import numpy as np

    short, long = (values >= SECONDS_FROM) & (values < MILLISECONDS_FROM), values >= MILLISECONDS_FROM
    if short.any() and long.any():
        raise WrongInput(
            "DataInvalid",
            f"{name} has {int(short.sum()):,} values that are seconds since 1970 (row {np.argmax(short) + 1:,}) "
            f"and {int(long.sum()):,} that are milliseconds (row {np.argmax(long) + 1:,}); use one unit",
        )


def overlap(held: Sequence[bytes], seen: Sequence[bytes]) -> int:
    """Count the held-out rows (by content) that are also among the seen ones, each as often as it is held out."""
    known = set(seen)
    return sum(n for key, n in Counter(held).items() if key in known)


def _have(table: Table, name: str, why: str) -> None:
    if name not in table.frame.columns:
        names = ", ".join(str(c)[:40] for c in list(table.frame.columns)[:8])
        raise WrongInput(
            "SchemaMismatch", f"there is no column {name}, which {why} needs; {table.name} has {names}"
        )
