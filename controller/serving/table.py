"""The rows of a request: an array of numbers where the model takes one, else columns of plain values and a frame.

The fast way from JSON.  It takes only what it is sure of; for anything else `read` gives None, and the careful
reader of `invocations` decides and says what is wrong.  So both answer every request alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Final

import orjson

from controller.serving.invocations import COLUMNS_MAX, ROWS_MAX, frame_of

_NUMBERS: Final = frozenset((int, float, type(None)))
_EXACT: Final = 2.0**63
"""Numbers from here on may have been integers that the careful reader refuses."""

Rows = Sequence[Sequence[Any]]


class Table:
    """Rows of a request.

    Attributes:
        names: names of the columns; those of the model in its order, and the same object, where it has names.
        rows: how many.
        matrix: float64 of shape (rows, columns), by column in memory, NaN for missing; None when there are texts.
        scores: whether the request asks for probabilities.
    """

    __slots__ = ("_cells", "_frame", "_full", "_given", "_kinds", "matrix", "names", "rows", "scores")

    def __init__(
        self,
        names: Sequence[str],
        rows: int,
        kinds: Mapping[str, str],
        *,
        matrix: Any = None,
        given: Rows | None = None,
        cells: Rows | None = None,
        frame: Any = None,
        full: bool = False,
    ) -> None:
        self.names, self.rows, self._kinds = names, rows, kinds
        self.scores, self._full = False, full
        self.matrix, self._given, self._cells, self._frame = matrix, given, cells, frame

    @classmethod
    def of_frame(cls, frame: Any, kinds: Mapping[str, str]) -> Table:
        """Wrap a frame that the careful reader made."""
        return cls([str(c) for c in frame.columns], len(frame), kinds, frame=frame)

    @property
    def inputs(self) -> Any:
        """What was given: the array, or rows of plain values with None for missing."""
        return self.matrix if self.matrix is not None else list(zip(*self.cells, strict=True))

    @property
    def cells(self) -> Rows:
        """Plain values by column, None for missing."""
        if self._cells is None:
            frame = self.frame
            columns = [frame.iloc[:, n].tolist() for n in range(len(self.names))]
            self._cells = [[None if c is None or c != c else c for c in column] for column in columns]
        return self._cells

    @property
    def frame(self) -> Any:
        """The rows as a DataFrame, of the same types as the careful reader gives them.

        Raises:
            BadRequest: as the careful reader.
        """
        if self._frame is None:
            self._frame = self._made()
        return self._frame

    def missing(self) -> dict[str, int]:
        """Count missing values by column."""
        if self._full:
            return {}
        if self.matrix is None:
            return {
                name: column.count(None)
                for name, column in zip(self.names, self.cells, strict=True)
                if None in column
            }
        import numpy as np

        empty = np.isnan(self.matrix)
        if not empty.any():
            return {}
        counts = empty.sum(axis=0)
        return {self.names[n]: int(counts[n]) for n in np.flatnonzero(counts).tolist()}

    def _made(self) -> Any:
        import pandas as pd

        if self._given is not None:
            return frame_of(self.names, [list(row) for row in self._given], None, self._kinds)
        if self.matrix is not None:
            return pd.DataFrame(self.matrix, columns=list(self.names))
        assert self._cells is not None
        return pd.DataFrame({name: _typed(column) for name, column in zip(self.names, self._cells, strict=True)})


def _typed(column: Sequence[Any]) -> Any:
    """Give a column of one kind the type that pandas finds for it, missing numbers included."""
    import numpy as np

    types = set(map(type, column))
    if types == {str}:
        return list(column)
    return np.array(column, dtype=np.int64 if types == {int} else bool if types == {bool} else np.float64)


def read(body: bytes, columns: Sequence[str] | None, kinds: Mapping[str, str], arrays: bool) -> Table | None:
    """Read a request in one of MLflow's JSON forms; None: ask the careful reader.

    Args:
        body: at most `BODY_MAX_BYTES`.
        columns: what the model needs; None when it does not say.
        kinds: `number`, `string` or `boolean` by column, where known.
        arrays: whether the model takes an array, and none of its columns is known to be of another kind.
    """
    try:
        document = orjson.loads(body)
        ((form, content),) = document.items()
        found = _FORMS[form](content, columns)
    except (ValueError, AttributeError, TypeError, KeyError, IndexError):
        return None
    if found is None:
        return None
    names, rows, places, keys, named = found
    if not (0 < len(rows) <= ROWS_MAX and 0 < len(names) <= COLUMNS_MAX):
        return None
    if body.count(b":") != keys + 1 and not _nothing_lost(body, keys + 1, named, names, rows):
        return None
    if places is not None:
        names = columns or names
        rows = [[row[p] for p in places] for row in rows]
    return _table(names, rows, kinds, arrays)


def _table(names: Sequence[str], rows: Rows, kinds: Mapping[str, str], arrays: bool) -> Table | None:
    import numpy as np

    types = set(map(type, chain.from_iterable(rows)))
    if arrays and types <= _NUMBERS:
        # By column, as a frame keeps its values: the order of a sum decides on its last digit.
        matrix, full = np.array(rows, dtype=np.float64, order="F"), type(None) not in types
        if full and len(rows) == 1:
            largest = max(map(abs, rows[0]))
        else:
            largest = (np.abs(matrix) if full else np.nan_to_num(np.abs(matrix))).max()
        if not largest < _EXACT:
            return None
        return Table(names, len(rows), kinds, matrix=matrix, given=rows, full=full)
    return of_cells(names, list(zip(*rows, strict=True)), kinds)


def of_cells(names: Sequence[str], cells: Rows, kinds: Mapping[str, str]) -> Table | None:
    """Make a table of columns of plain values; None: ask the careful reader.

    Args:
        cells: by column, of equal lengths, None for missing.
    """
    for name, column in zip(names, cells, strict=True):
        if not _sure(column, kinds.get(name)):
            return None
    return Table(names, len(cells[0]), kinds, cells=cells)


def _sure(column: Sequence[Any], kind: str | None) -> bool:
    """Say whether a column is of one kind, the model's own, and of values whose types pandas finds as we do."""
    types = set(map(type, column))
    if types == {str}:
        return kind in (None, "string")
    if types == {bool}:
        return kind in (None, "boolean")
    if not types <= _NUMBERS or types == {type(None)} or kind not in (None, "number"):
        return False
    return all(c is None or -_EXACT < c < _EXACT for c in column)


def _nothing_lost(body: bytes, keys: int, named: int, names: Sequence[str], rows: Rows) -> bool:
    """Say whether no object had a name twice, of which only the last would be left.

    Every name has a colon behind it; a body with more colons has them in texts, or has a name twice.

    Args:
        keys: names of objects that are left.
        named: how often the body has each of `names`.
    """
    if b"\\" in body:
        return False
    texts = sum(cell.count(":") for row in rows for cell in row if type(cell) is str)
    repeated = sum(name.count(":") for name in names) * named
    return body.count(b":") == keys + texts + repeated


Found = tuple[Sequence[str], Rows, list[int] | None, int, int]
"""Names, rows, which places of a row the model needs, how many keys the form has, how often it has `names`."""


def _split(content: Any, columns: Sequence[str] | None) -> Found | None:
    names, data = content["columns"], content["data"]
    if set(map(type, names)) != {str} or not _even(data, len(names)):
        return None
    return _placed(names, data, columns, len(content))


def _placed(names: list[str], rows: Rows, columns: Sequence[str] | None, keys: int) -> Found | None:
    where = {name: n for n, name in enumerate(names)}
    if len(where) < len(names):
        return None
    if columns is None or names == list(columns):
        return (names if columns is None else columns), rows, None, keys, 1
    return names, rows, [where[c] for c in columns], keys, 1


def _listed(content: Any, columns: Sequence[str] | None) -> Found | None:
    if type(content) is not list:
        return None
    if type(content[0]) is dict:
        return _records(content, columns)
    rows = content if type(content[0]) is list else [[value] for value in content]
    names = columns if columns is not None else [str(n) for n in range(len(rows[0]))]
    return (names, rows, None, 0, 0) if _even(rows, len(names)) else None


def _records(content: Any, columns: Sequence[str] | None) -> Found | None:
    first = content[0]
    names = columns if columns is not None else list(first)
    keys = sum(map(len, content))
    if len(first) != len(names) or keys != len(names) * len(content):
        return None
    if len(names) == 1:
        return names, [[record[names[0]]] for record in content], None, keys, len(content)
    return names, list(map(itemgetter(*names), content)), None, keys, len(content)


def _inputs(content: Any, columns: Sequence[str] | None) -> Found | None:
    if type(content) is not dict:
        return _listed(content, columns)
    if set(map(type, content.values())) != {list}:
        return None
    return _placed(list(content), list(zip(*content.values(), strict=True)), columns, len(content))


def _even(rows: Any, width: int) -> bool:
    return type(rows) is list and set(map(type, rows)) == {list} and set(map(len, rows)) == {width}


_FORMS: Final = {
    "dataframe_split": _split,
    "dataframe_records": _listed,
    "instances": _listed,
    "inputs": _inputs,
}
