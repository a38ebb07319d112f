"""The hashes: what a change of a spec, of code or of data does is decided by which of them moves.

Canonical JSON and sha256, written `v1:<64 hex>`.  The version moves only when the recipe does; golden values in
the tests hold it in place, since a moved recipe would retrain every model in the world.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any, Final

from pydantic import BaseModel

from controller.api.base import HashMark
from controller.api.meta import Digest

RECIPE: Final = "v1"


def canonical(value: Any) -> bytes:
    """Write JSON in one way only: sorted keys, no spaces, UTF-8, floats as Python's shortest form.

    Raises:
        ValueError: NaN or infinity, which JSON cannot carry.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def digest(value: Any) -> Digest:
    """Hash a JSON value: `v1:<64 hex>`."""
    return Digest(f"{RECIPE}:{hashlib.sha256(canonical(value)).hexdigest()}")


def sha256(data: bytes) -> str:
    """Hash bytes: `sha256:<64 hex>`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def short(value: str, length: int = 10) -> str:
    """Cut a digest to its first hex digits, without what stands before the colon."""
    return value.rpartition(":")[2][:length]


def files_digest(lines: Iterable[tuple[str, str, str]]) -> Digest:
    """Hash exactly the files that a training is given.

    Args:
        lines: (mode, path, blob) of every file, for example `100644`, `train.py`, `3b18e5…`. Any order.
    """
    return digest(sorted([mode, path, blob] for mode, path, blob in lines))


def marked(model: BaseModel, mark: HashMark) -> dict[str, Any]:
    """Pick the fields of a spec that carry a mark, as JSON.

    A field without a mark of its own has its parent's. Absent values are left out, so that a new optional field
    moves no hash of an old spec.
    """
    picked = _pick(model, mark, HashMark.NONE)
    return picked if isinstance(picked, dict) else {}


def _pick(model: BaseModel, mark: HashMark, inherited: HashMark) -> dict[str, Any] | None:
    out: dict[str, Any] = {}
    for name, field in type(model).model_fields.items():
        own = next((m for m in field.metadata if isinstance(m, HashMark)), inherited)
        value = getattr(model, name)
        key = field.alias or name
        if value is None:
            continue
        if isinstance(value, BaseModel):
            below = _pick(value, mark, own)
            if below is not None:
                out[key] = below
        elif isinstance(value, tuple) and value and _has_marks(value[0]):
            items = [below for v in value if (below := _pick(v, mark, own)) is not None]
            if items or own is mark:
                out[key] = items
        elif own is mark:
            out[key] = _json(value)
    return out or None


def _has_marks(value: Any) -> bool:
    """Tell whether the fields of an entry have marks of their own; then they are picked one by one."""
    if not isinstance(value, BaseModel):
        return False
    return any(isinstance(m, HashMark) for f in type(value).model_fields.values() for m in f.metadata)


def _json(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    if isinstance(value, tuple | list):
        return [_json(v) for v in value]
    if isinstance(value, dict):
        return {k: _json(v) for k, v in value.items()}
    return value
