"""Reads requests for predictions, in MLflow's JSON forms or as CSV, and says exactly what is wrong with a bad one.

`dataframe_split`, `dataframe_records`, `instances` and `inputs`; null is a missing value, NaN and Infinity are not
JSON.  What the model was fitted with decides: missing columns are refused, further ones are ignored.  Nothing is
guessed and nothing is repaired; a request is never unpickled.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from controller.serving.predictor import missing_text

BODY_MAX_BYTES: Final = 16 * 2**20
"""Largest request body."""
ROWS_MAX: Final = 10_000
"""Most rows of one request."""
COLUMNS_MAX: Final = 10_000
"""Most columns of one request."""
FORMS: Final = ("dataframe_split", "dataframe_records", "instances", "inputs")

_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
_FIELDS: Final[dict[str, Any]] = {"number": (int, float), "string": (str,), "boolean": (bool,)}
_NAMES: Final = {bool: "a boolean", str: "a string", int: "a number", float: "a number"}


class BadRequest(Exception):
    """A request that cannot be answered as it is: HTTP 400 with one sentence."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def parse_json(body: bytes, columns: Sequence[str] | None, kinds: Mapping[str, str]) -> Any:
    """Read a JSON request into a DataFrame of plain values, one row each.

    Args:
        body: at most BODY_MAX_BYTES, UTF-8.
        columns: what the model needs; None when it does not say.
        kinds: `number`, `string` or `boolean` by column, where known; other values are refused there.

    Raises:
        BadRequest: naming position, column and row.
    """
    document = _decode(body)
    if not isinstance(document, dict):
        raise BadRequest(f"the body must be a JSON object with one of {', '.join(FORMS)}")
    given = [f for f in FORMS if f in document]
    extra = sorted(k for k in document if k not in FORMS and not (k == "params" and not document[k]))
    if len(given) != 1 or extra:
        also = f"; {', '.join(repr(e)[:60] for e in extra[:5])} is not known" if extra else ""
        raise BadRequest(f"the body must have exactly one of {', '.join(FORMS)}; it has {len(given)}{also}")
    form, content = given[0], document[given[0]]
    if form == "dataframe_split":
        names, rows = _split(content)
    elif form == "inputs" and isinstance(content, dict):
        names, rows = _by_column(content)
    else:
        names, rows = _rows(form, content, columns)
    return frame_of(names, rows, columns, kinds)


def parse_csv(body: bytes, columns: Sequence[str] | None, kinds: Mapping[str, str]) -> Any:
    """Read a CSV request with a header line into a DataFrame.

    Raises:
        BadRequest: as `parse_json`.
    """
    import pandas as pd

    try:
        text = {name: str for name, kind in kinds.items() if kind == "string"}
        frame = pd.read_csv(io.BytesIO(body), encoding="utf-8", low_memory=False, dtype=text, nrows=ROWS_MAX + 1)
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"the body is not CSV with a header line: {str(error).splitlines()[0][:200]}") from error
    names = [str(c) for c in frame.columns]
    _check_size(len(frame), len(names))
    rows = [[None if pd.isna(c) else c for c in row] for row in frame.astype(object).to_numpy().tolist()]
    return frame_of(names, rows, columns, kinds)


def frame_of(
    names: Sequence[str], rows: list[list[Any]], columns: Sequence[str] | None, kinds: Mapping[str, str]
) -> Any:
    """Build a DataFrame from rows of plain values, every one of them checked.

    Raises:
        BadRequest.
    """
    import pandas as pd

    _check_size(len(rows), len(names))
    if len(set(names)) < len(names):
        twice = next(n for n in names if list(names).count(n) > 1)
        raise BadRequest(f"column {twice[:80]!r} comes twice")
    if columns is not None:
        if missing := [c for c in columns if c not in set(names)]:
            raise BadRequest(missing_text(missing, len(columns)))
        names, rows = _pick(names, rows, columns)
    frame = pd.DataFrame(rows, columns=list(names))
    for position, name in enumerate(names):
        cells = [row[position] for row in rows]
        _check_cells(name, cells, kinds.get(name))
        if None in cells:
            frame[name] = _with_missing(frame[name], cells, kinds.get(name))
    return frame


def _with_missing(series: Any, cells: list[Any], kind: str | None) -> Any:
    """Give a column with missing values the type that the same column has in a table read from a file."""
    if kind == "string":
        return series.astype("str")
    numeric = all(c is None or (isinstance(c, int | float) and not isinstance(c, bool)) for c in cells)
    return series.astype(float) if numeric else series


def kinds_of(frame: Any) -> dict[str, str]:
    """Tell what the columns of a sample hold: `number`, `string` or `boolean` by name; others are left out."""
    found = {}
    for name in frame.columns:
        types = {type(c) for c in frame[name].tolist() if c == c and c is not None}
        kinds = {
            "boolean" if t is bool else "number" if t in (int, float) else "string" if t is str else ""
            for t in types
        }
        if len(kinds) == 1 and "" not in kinds:
            found[str(name)] = kinds.pop()
    return found


def refusal(frame: Any, error: Exception) -> BadRequest | None:
    """Explain a model's ValueError or TypeError by the request, naming row and column; None when it cannot be."""
    if not isinstance(error, ValueError | TypeError):
        return None
    text = str(error)
    if "NaN" in text or "missing values" in text:
        for name in frame.columns:
            empty = frame[name].isna().to_numpy()
            if empty.any():
                return BadRequest(
                    f"row {int(empty.argmax())}, column {name!r}: null, and the model does not take missing values"
                )
    if "too large for dtype" in text:
        return _too_large(frame)
    quoted = text.rpartition(": ")[2].strip("'\"")
    if "to float" in text:
        for name in frame.columns:
            for row, value in enumerate(frame[name].tolist()):
                if isinstance(value, str) and value == quoted:
                    return BadRequest(f"row {row}, column {name!r}: {value[:60]!r} is not a number")
    if "features" in text and "expecting" in text:
        return BadRequest(f"the request has {len(frame.columns)} columns: {' '.join(text.split())[:200]}")
    return None


def _too_large(frame: Any) -> BadRequest | None:
    """Name the largest number of a request whose numbers are too large for the model."""
    found: tuple[float, int, str] | None = None
    for name in frame.columns:
        for row, value in enumerate(frame[name].tolist()):
            if isinstance(value, int | float) and value == value and (found is None or abs(value) > found[0]):
                found = (abs(value), row, str(name))
    if found is None:
        return None
    size, row, column = found
    return BadRequest(
        f"row {row}, column {column[:80]!r}: a number of the size {size:.3g} is too large for the model"
    )


def _decode(body: bytes) -> Any:
    if not body.strip():
        raise BadRequest("the body is empty")
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant)
    except json.JSONDecodeError as error:
        raise BadRequest(
            f"the body is not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        ) from error
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8: byte {error.start} cannot be read") from error
    except RecursionError as error:
        raise BadRequest("the body is nested too deeply") from error
    except ValueError as error:
        raise BadRequest(f"the body has a number that cannot be read: {str(error)[:120]}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [k for k, _ in pairs]
        twice = next(k for k in names if names.count(k) > 1)
        raise BadRequest(f"the name {twice[:80]!r} comes twice in one object")
    return found


def _constant(_: str) -> float:
    # Refused with its row and column once those are known.
    return math.inf


def _split(content: Any) -> tuple[list[str], list[list[Any]]]:
    if not isinstance(content, dict) or "data" not in content or "columns" not in content:
        raise BadRequest("dataframe_split must be an object with columns and data")
    names = content["columns"]
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise BadRequest("dataframe_split.columns must be a list of names")
    return names, _matrix("dataframe_split.data", content["data"], len(names))


def _by_column(content: dict[str, Any]) -> tuple[list[str], list[list[Any]]]:
    lists = {name: cells if isinstance(cells, list) else [cells] for name, cells in content.items()}
    lengths = {len(cells) for cells in lists.values()}
    if len(lengths) > 1:
        short, long = min(lists, key=lambda n: len(lists[n])), max(lists, key=lambda n: len(lists[n]))
        raise BadRequest(
            f"inputs: column {short!r} has {len(lists[short])} values and column {long!r} {len(lists[long])}"
        )
    return list(lists), [list(row) for row in zip(*lists.values(), strict=True)]


def _rows(form: str, content: Any, columns: Sequence[str] | None) -> tuple[list[str], list[list[Any]]]:
    if not isinstance(content, list):
        raise BadRequest(f"{form} must be a list of rows")
    if not content:
        raise BadRequest(f"{form} has 0 rows; 1 to {ROWS_MAX:,} are answered")
    _check_size(len(content), 1)
    if isinstance(content[0], dict):
        return _records(form, content)
    if form == "dataframe_records":
        raise BadRequest("dataframe_records: row 0 must be an object of column and value")
    if not isinstance(content[0], list):
        content = [[value] for value in content]
    width = len(columns) if columns is not None else len(content[0])
    names = list(columns) if columns is not None else [str(n) for n in range(width)]
    return names, _matrix(form, content, width)


def _records(form: str, content: list[Any]) -> tuple[list[str], list[list[Any]]]:
    names = list(content[0])
    known = set(names)
    for row, record in enumerate(content):
        if not isinstance(record, dict):
            raise BadRequest(f"{form}: row {row} must be an object of column and value")
        if record.keys() != known:
            different = sorted(known ^ record.keys())[0]
            place = "is missing in" if different in known else "is not in row 0 but in"
            raise BadRequest(f"{form}: column {different[:80]!r} {place} row {row}")
    return names, [[record[n] for n in names] for record in content]


def _matrix(what: str, content: Any, width: int) -> list[list[Any]]:
    if not isinstance(content, list):
        raise BadRequest(f"{what} must be a list of rows")
    for row, cells in enumerate(content):
        if not isinstance(cells, list):
            raise BadRequest(f"{what}: row {row} must be a list of values")
        if len(cells) != width:
            raise BadRequest(f"{what}: row {row} has {len(cells)} values for {width} columns")
    return content


def _check_size(rows: int, columns: int) -> None:
    if not 1 <= rows <= ROWS_MAX:
        raise BadRequest(f"the request has {rows:,} rows; 1 to {ROWS_MAX:,} are answered")
    if not 1 <= columns <= COLUMNS_MAX:
        raise BadRequest(f"the request has {columns:,} columns; 1 to {COLUMNS_MAX:,} are answered")


def _pick(
    names: Sequence[str], rows: list[list[Any]], columns: Sequence[str]
) -> tuple[Sequence[str], list[list[Any]]]:
    if list(names) == list(columns):
        return names, rows
    places = [list(names).index(c) for c in columns]
    return columns, [[row[p] for p in places] for row in rows]


def _check_cells(name: str, cells: list[Any], kind: str | None) -> None:
    allowed = _FIELDS.get(kind or "")
    for row, cell in enumerate(cells):
        if cell is None:
            continue
        where = f"row {row}, column {name[:80]!r}"
        if isinstance(cell, list | dict):
            raise BadRequest(f"{where}: a list or object is not a value")
        if isinstance(cell, float) and not math.isfinite(cell):
            raise BadRequest(
                f"{where}: NaN, Infinity and numbers beyond 1.8e308 are refused; send null for a missing value"
            )
        if isinstance(cell, int) and not _INT_MIN <= cell <= _INT_MAX:
            raise BadRequest(f"{where}: the number has more than 64 bits")
        if allowed is not None and (
            not isinstance(cell, allowed) or (isinstance(cell, bool) and kind == "number")
        ):
            raise BadRequest(f"{where}: {_NAMES.get(type(cell), 'a value')} where the model needs a {kind}")
