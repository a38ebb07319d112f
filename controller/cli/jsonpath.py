"""Reads the JSON paths of printer columns: `.a.b`, `.a[0].b` and `.a[?(@.type=="X")].b`, and nothing else.

The API server reads the same paths from our CRDs, so that `mainspring get` and `kubectl get` show the same.
A path that leads nowhere is None; a form that is not supported is an error and never a guess.
"""

from __future__ import annotations

import re
from typing import Any, Final

_STEP: Final = re.compile(r'\.(\w+)|\[(\d+)\]|\[\?\(@\.(\w+)=="([^"]*)"\)\]')


def read(path: str, value: Any) -> Any:
    """Follow a path; None where it leads nowhere.

    Raises:
        ValueError: the path has a form that is not supported.

    >>> read('.c[?(@.type=="Ready")].status', {"c": [{"type": "Ready", "status": "True"}]})
    'True'
    """
    position = 0
    while position < len(path):
        step = _STEP.match(path, position)
        if step is None:
            raise ValueError(f"JSON path {path}: cannot read {path[position:]!r}")
        value = _follow(step, value)
        position = step.end()
    return value


def _follow(step: re.Match[str], value: Any) -> Any:
    name, index, key, wanted = step.groups()
    if name is not None:
        return value.get(name) if isinstance(value, dict) else None
    items = value if isinstance(value, list) else []
    if index is not None:
        return items[int(index)] if int(index) < len(items) else None
    return next((i for i in items if isinstance(i, dict) and i.get(key) == wanted), None)
