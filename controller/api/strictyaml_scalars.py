"""What an unquoted YAML scalar means: exactly what the API server reads, or a trap that must be quoted.

kubectl and the API server read YAML 1.1 with some of 1.2 and pass it on as JSON; editors and other programs read
1.2.  Where they agree there is a value; where they do not, a `Trap` says both readings and how to write it.  Never
guesses, never reads more of a number than its first characters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

MAX_INT: Final = 2**63 - 1
MIN_INT: Final = -(2**63)
SHOWN: Final = 60
"""Longest part of a value that a message repeats, in characters."""

_FIXED: Final[dict[str, Any]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_OLD_TRUE: Final = frozenset({"y", "Y", "yes", "Yes", "YES", "on", "On", "ON"})
_OLD_FALSE: Final = frozenset({"n", "N", "no", "No", "NO", "off", "Off", "OFF"})
_NOT_FINITE: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_DECIMAL: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_HEX: Final = re.compile(r"0x[0-9a-fA-F]+")
_OTHER_BASE: Final = re.compile(r"[-+]?0(?:[xX][0-9a-fA-F]+|[oO][0-7]+|[bB][01]+)")
_LEADING_ZERO: Final = re.compile(r"[-+]?0[0-9]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_BASE_60: Final = re.compile(r"[-+]?[1-9][0-9]*(:[0-5]?[0-9])+|[-+]?[0-9]+(:[0-5]?[0-9])+\.[0-9]*")


@dataclass(frozen=True, slots=True)
class Trap:
    """An unquoted scalar that readers of YAML do not agree on, or that JSON cannot carry."""

    message: str


def cut(text: str, limit: int = SHOWN) -> str:
    """Shorten a text to a limit in characters, with an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def plain(text: str) -> Any:
    """Read an unquoted scalar: None, a bool, an int, a float, a str, or a `Trap`.

    A float without a fraction is an int, as it is after its way through JSON to the API server.

    >>> plain("1e3"), plain("0.5"), plain("bikes"), plain("2026-01-31")
    (1000, 0.5, 'bikes', '2026-01-31')
    """
    if text in _FIXED:
        return _FIXED[text]
    if text in _OLD_TRUE or text in _OLD_FALSE:
        truth = "true" if text in _OLD_TRUE else "false"
        return Trap(
            f'{text} without quotes is {truth} in YAML 1.1 and text in YAML 1.2; write {truth} or "{text}"'
        )
    if text[:1] not in "+-.0123456789":
        return text
    if _NOT_FINITE.fullmatch(text):
        return Trap(f"{text} cannot be carried by JSON; write a finite number, or leave the field out")
    return _number(text)


def _number(text: str) -> Any:
    if _DECIMAL.fullmatch(text):
        return _integer(text, text)
    if _HEX.fullmatch(text):
        return _integer(text, str(int(text, 16)) if len(text) <= 18 else text)
    if _LEADING_ZERO.fullmatch(text):
        return _leading_zero(text)
    if _FLOAT.fullmatch(text):
        return _float(text)
    if _OTHER_BASE.fullmatch(text):
        return Trap(f"{cut(text)} without quotes is a number to some readers of YAML and text to others; quote it")
    if _BASE_60.fullmatch(text):
        value = _base_60(text)
        return Trap(
            f"{cut(text)} without quotes is the number {value} in YAML 1.1 (base 60) and text in YAML 1.2; "
            f'quote it: "{cut(text)}"'
        )
    bare = text.replace("_", "")
    if bare != text and not isinstance(_number(bare), str):
        return Trap(
            f"{cut(text)} without quotes is the number {cut(bare)} in YAML 1.1 and text in YAML 1.2; "
            f'write {cut(bare)}, or "{cut(text)}"'
        )
    return text


def _integer(text: str, digits: str) -> int | Trap:
    if len(digits) <= 20 and MIN_INT <= int(digits) <= MAX_INT:
        return int(digits)
    return Trap(f"{cut(text)} is beyond 64 bits ({len(text)} characters); quote it if it is text")


def _leading_zero(text: str) -> Trap:
    digits = text.lstrip("+-")
    octal = f"{int(text, 8)}" if len(text) <= 20 and not set(digits) & set("89") else "something else"
    return Trap(
        f"{cut(text)} without quotes is the number {octal} in YAML 1.1 (octal) and "
        f'{cut(digits.lstrip("0") or "0")} in YAML 1.2; quote it: "{cut(text)}"'
    )


def _float(text: str) -> int | float | Trap:
    value = float(text)
    if abs(value) == float("inf"):
        return Trap(f"{cut(text)} is larger than any number that JSON readers can hold; quote it if it is text")
    return int(value) if value == int(value) and MIN_INT <= value < MAX_INT else value


def _base_60(text: str) -> str:
    if len(text) > 20:
        return "of another size"
    total = 0.0
    for part in text.lstrip("+-").split(":"):
        total = total * 60 + float(part)
    return f"{'-' if text.startswith('-') else ''}{total:g}"
