"""What all models of the language share: strictness, camelCase names, units in types, the hash marks.

Nothing here belongs to one kind.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel


class HashMark(Enum):
    """Which of the hashes a field of ModelSpec belongs to: that decides what changing it does."""

    INPUTS = "inputs"
    """A change makes a new revision: fetch, check, train, evaluate, judge, roll out."""
    EVIDENCE = "evidence"
    """A change evaluates the trained models again; nothing is trained."""
    GATE = "gate"
    """A change judges the stored evidence again; nothing runs."""
    SERVE = "serve"
    """A change replaces the servers of the same model."""
    NONE = "none"
    """A change moves nothing that is trained or served."""


class Strict(BaseModel):
    """A part of a spec: unknown fields are errors, values never change after parsing."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        ser_json_inf_nan="null",
    )


class Lenient(Strict):
    """A part of a status or report: read with fields of a later version dropped."""

    model_config = ConfigDict(extra="ignore")


DURATION_PATTERN: Final = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"
NAME_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
MODEL_NAME_PATTERN: Final = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
MODEL_NAME_MAX: Final = 40
SIZE_PATTERN: Final = r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|k|M|G)?$"

Duration = Annotated[str, StringConstraints(pattern=DURATION_PATTERN, max_length=32)]
"""A span of time as Go writes it: `90s`, `10m`, `24h`, `1h30m`; no days."""
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN, min_length=1, max_length=63)]
Size = Annotated[str, StringConstraints(pattern=SIZE_PATTERN, max_length=32)]
"""A number of bytes as a Kubernetes quantity: `200Mi`, `1Gi`."""
Column = Annotated[str, StringConstraints(min_length=1, max_length=256)]
DigestStr = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+:[0-9a-f]{40,64}$", max_length=96)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$", max_length=71)]
Percent = Annotated[int, Field(ge=0, le=100)]

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_BYTES: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def seconds(duration: str) -> float:
    """Convert a duration to seconds.

    >>> seconds("1h30m"), seconds("250ms")
    (5400.0, 0.25)
    """
    return sum(float(n) * _SECONDS[unit] for n, _, unit in re.findall(r"([0-9]+(\.[0-9]+)?)(ms|s|m|h)", duration))


def in_bytes(size: str) -> int:
    """Convert a size to bytes.

    >>> in_bytes("200Mi")
    209715200
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(Ki|Mi|Gi|k|M|G)?", size)
    assert match, f"not a size: {size}"
    return int(float(match[1]) * _BYTES[match[2] or ""])


def human_seconds(value: float) -> str:
    """Write seconds as a short duration.

    >>> human_seconds(5400), human_seconds(0.25), human_seconds(61)
    ('1h30m', '250ms', '1m1s')
    """
    if value < 1:
        return f"{round(value * 1000)}ms"
    whole = round(value)
    parts = [(whole // 3600, "h"), (whole % 3600 // 60, "m"), (whole % 60, "s")]
    return "".join(f"{n}{unit}" for n, unit in parts if n) or "0s"


def dump(model: BaseModel) -> dict[str, Any]:
    """Write a model as the API server would show it: camelCase, JSON types, absent fields left out."""
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def within(value: str, low: float, high: float) -> str:
    """Return the duration if it lies between two numbers of seconds.

    Raises:
        ValueError: it does not.
    """
    span = seconds(value)
    if not low <= span <= high:
        raise ValueError(f"{value} is outside {low:g}s to {high:g}s")
    return value


def unique_names(what: str, names: list[str]) -> None:
    """Refuse a list in which one name comes twice.

    Raises:
        ValueError: naming the list and the name.
    """
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ValueError(f"{what}: the name {twice[0]} comes twice")
