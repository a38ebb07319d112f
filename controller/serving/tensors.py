"""Tensors of the Open Inference Protocol: from a request to columns, from predictions to an answer.

One tensor per column, of shape [rows] or [rows, 1], or one of all columns, of shape [rows, columns]; as JSON, or
raw after it (the extension for binary tensors).  NaN in a raw tensor is a missing value, as null is in JSON.
Nothing is guessed: what does not fit is refused with the tensor and the element.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from controller.serving.invocations import COLUMNS_MAX, ROWS_MAX, BadRequest
from controller.serving.values import Scalar

TYPES: Final = {"FP64": "<f8", "FP32": "<f4", "INT64": "<i8", "INT32": "<i4", "BOOL": "?"}
"""Types of numbers and booleans, and what numpy calls them."""
BYTES: Final = "BYTES"
DATATYPES: Final = (*TYPES, BYTES)
OF_KIND: Final = {"number": "FP64", "string": BYTES, "boolean": "BOOL"}
"""Type of a column by its kind."""
_LENGTH: Final = struct.Struct("<I")
_NONE: Final = type(None)
_MAY: Final[dict[str, frozenset[type]]] = {
    **dict.fromkeys(("FP64", "FP32"), frozenset((int, float, _NONE))),
    **dict.fromkeys(("INT64", "INT32"), frozenset((int, _NONE))),
    "BOOL": frozenset((bool, _NONE)),
    BYTES: frozenset((str, _NONE)),
}
_SAID: Final = {bool: "a boolean", str: "a string", int: "a number", float: "a number", _NONE: "null"}
_BITS: Final = {"INT64": 63, "INT32": 31}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input: its values in one line, row after row."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Any
    """Array of numbers or booleans, without what is missing; else a list of plain values with None for missing."""

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.shape[0]

    def plain(self) -> list[Any]:
        """Give the values as plain ones, None for missing."""
        if isinstance(self.values, list):
            return self.values
        found: list[Any] = self.values.tolist()
        return [None if v != v else v for v in found] if self.datatype.startswith("FP") else found


def read(given: Any, raw: memoryview) -> tuple[list[Tensor], int]:
    """Read the inputs of a request.

    Args:
        given: its `inputs`.
        raw: what came after the JSON.

    Returns:
        The tensors, and how many bytes of `raw` they took.

    Raises:
        BadRequest.
    """
    if not isinstance(given, list) or not given:
        raise BadRequest("inputs must be a list of one tensor or more")
    if len(given) > COLUMNS_MAX:
        raise BadRequest(f"the request has {len(given):,} tensors; 1 to {COLUMNS_MAX:,} are answered")
    tensors, taken, names = [], 0, set()
    for place, tensor in enumerate(given):
        name, datatype, shape = _head(place, tensor)
        if name in names:
            raise BadRequest(f"the tensor {name[:80]!r} comes twice")
        names.add(name)
        where, size = f"tensor {name[:80]!r}", _raw_size(tensor, name)
        if size is None:
            values = _from_json(where, datatype, shape, tensor.get("data"))
        else:
            if "data" in tensor:
                raise BadRequest(f"{where} has both data and binary_data_size")
            values = _from_raw(where, datatype, shape, raw[taken : taken + size], size)
            taken += size
        tensors.append(Tensor(name, datatype, shape, values))
    return tensors, taken


def _head(place: int, tensor: Any) -> tuple[str, str, tuple[int, ...]]:
    if not isinstance(tensor, dict):
        raise BadRequest(f"inputs: tensor {place} must be an object of name, shape, datatype and data")
    name, datatype, shape = tensor.get("name"), tensor.get("datatype"), tensor.get("shape")
    if not isinstance(name, str) or not name:
        raise BadRequest(f"inputs: tensor {place} has no name")
    where = f"tensor {name[:80]!r}"
    if datatype not in DATATYPES:
        raise BadRequest(f"{where}: datatype must be one of {', '.join(DATATYPES)}, not {str(datatype)[:40]!r}")
    if (
        not isinstance(shape, list)
        or not 1 <= len(shape) <= 2
        or not all(type(n) is int and 0 <= n <= 10**9 for n in shape)
    ):
        raise BadRequest(f"{where}: shape must be [rows] or [rows, columns], not {str(shape)[:60]}")
    rows, columns = shape[0], shape[1] if len(shape) == 2 else 1
    if not 1 <= rows <= ROWS_MAX:
        raise BadRequest(f"{where} has {rows:,} rows; 1 to {ROWS_MAX:,} are answered")
    if not 1 <= columns <= COLUMNS_MAX:
        raise BadRequest(f"{where} has {columns:,} columns; 1 to {COLUMNS_MAX:,} are answered")
    return name, datatype, tuple(shape)


def _raw_size(tensor: Mapping[str, Any], name: str) -> int | None:
    parameters = tensor.get("parameters")
    if parameters is None:
        return None
    if not isinstance(parameters, dict):
        raise BadRequest(f"tensor {name[:80]!r}: parameters must be an object")
    size = parameters.get("binary_data_size")
    if size is not None and (type(size) is not int or size < 0):
        raise BadRequest(f"tensor {name[:80]!r}: binary_data_size must be a number of bytes")
    return size


def _count(shape: tuple[int, ...]) -> int:
    return shape[0] * (shape[1] if len(shape) == 2 else 1)


def _from_json(where: str, datatype: str, shape: tuple[int, ...], data: Any) -> Any:
    import numpy as np

    if not isinstance(data, list):
        raise BadRequest(f"{where}: data must be a list")
    if data and type(data[0]) is list:
        if set(map(type, data)) != {list}:
            raise BadRequest(f"{where}: data must be one list of values, or a list of rows")
        data = list(chain.from_iterable(data))
    if len(data) != _count(shape):
        raise BadRequest(f"{where} has {len(data):,} values for the shape {list(shape)}")
    types, may = set(map(type, data)), _MAY[datatype]
    if not types <= may:
        at, value = next((n, v) for n, v in enumerate(data) if type(v) not in may)
        said = _SAID.get(type(value), "a list or object")
        raise BadRequest(f"{_place(where, at, shape)}: {said} where {datatype} is announced")
    if datatype == BYTES or (_NONE in types and datatype not in ("FP64", "FP32")):
        return data
    if (bits := _BITS.get(datatype)) is not None:
        large = [n for n, v in enumerate(data) if not -(2**bits) <= v < 2**bits]
        for at in large[:1]:
            raise BadRequest(f"{_place(where, at, shape)}: the number has more than {bits + 1} bits")
    with np.errstate(over="ignore"):
        return _finite(where, shape, np.array(data, dtype=TYPES[datatype]))


def _from_raw(where: str, datatype: str, shape: tuple[int, ...], raw: memoryview, size: int) -> Any:
    import numpy as np

    if len(raw) != size:
        raise BadRequest(f"{where}: binary_data_size is {size:,}, but {len(raw):,} bytes are left")
    if datatype == BYTES:
        return _texts(where, shape, raw)
    if size != _count(shape) * np.dtype(TYPES[datatype]).itemsize:
        raise BadRequest(f"{where} has {size:,} bytes for {datatype} of the shape {list(shape)}")
    if datatype == "BOOL":
        octets = np.frombuffer(raw, dtype="u1")
        if octets.max(initial=0) > 1:
            raise BadRequest(f"{where}: a byte is neither 0 nor 1")
        return octets.astype(bool)
    return _finite(where, shape, np.frombuffer(raw, dtype=TYPES[datatype]))


def _texts(where: str, shape: tuple[int, ...], raw: memoryview) -> list[str]:
    found, at, whole = [], 0, len(raw)
    while at + _LENGTH.size <= whole:
        (size,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        if at + size > whole:
            break
        try:
            found.append(str(raw[at : at + size], "utf-8"))
        except UnicodeDecodeError as error:
            raise BadRequest(f"{_place(where, len(found), shape)}: the text is not UTF-8") from error
        at += size
    if at != whole or len(found) != _count(shape):
        raise BadRequest(f"{where}: its bytes are not {_count(shape):,} texts with their lengths before them")
    return found


def _finite(where: str, shape: tuple[int, ...], values: Any) -> Any:
    import numpy as np

    if values.dtype.kind == "f" and (wrong := np.isinf(values)).any():
        said = "Infinity and numbers beyond its range are refused"
        raise BadRequest(f"{_place(where, int(wrong.argmax()), shape)}: {said}")
    return values


def _place(where: str, at: int, shape: tuple[int, ...]) -> str:
    if len(shape) == 1:
        return f"{where}, row {at}"
    return f"{where}, row {at // shape[1]}, column {at % shape[1]}"


def output(name: str, predictions: Sequence[Scalar]) -> tuple[dict[str, Any], Any]:
    """Write predictions as a tensor of shape [rows]; returns it without its data, and the data."""
    import numpy as np

    types = set(map(type, predictions))
    head = {"name": name, "shape": [len(predictions)], "datatype": BYTES}
    if types == {bool}:
        return {**head, "datatype": "BOOL"}, np.array(predictions, dtype=TYPES["BOOL"])
    if types == {int}:
        return {**head, "datatype": "INT64"}, np.array(predictions, dtype=TYPES["INT64"])
    if types <= {int, float}:
        return {**head, "datatype": "FP64"}, np.array(predictions, dtype=TYPES["FP64"])
    return head, [str(p) for p in predictions]


def raw_of(data: Any) -> bytes:
    """Write the data of a tensor as bytes."""
    if isinstance(data, list):
        texts = (text.encode() for text in data)
        return b"".join(chain.from_iterable((_LENGTH.pack(len(t)), t) for t in texts))
    found: bytes = data.tobytes()
    return found
