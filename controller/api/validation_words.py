"""What pydantic found wrong, said to a person: what is there, what is wanted, what to write instead.

Pure functions over one error, the value at its place and the schema node of that place.  Values are shown cut,
escaped and without the user part of a URL; where a list or block is wanted, text is not shown at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Final

from controller.api import base, modeloverride, pods, predictionlog
from controller.api.modelspec import IMAGE_PATTERN
from controller.api.strictyaml import escaped
from controller.api.strictyaml_scalars import Trap, cut, plain

Node = dict[str, Any]

PATTERNS: Final[dict[str, str]] = {
    base.NAME_PATTERN: 'lower-case letters, digits and "-", beginning and ending with a letter or digit',
    base.MODEL_NAME_PATTERN: 'lower-case letters, digits and "-", beginning with a letter, not ending with "-"',
    base.DURATION_PATTERN: "a duration such as 90s, 10m or 1h30m (no days, no sign, no spaces)",
    base.SIZE_PATTERN: "a size such as 200Mi or 1Gi",
    r"^[a-z0-9]+:[0-9a-f]{40,64}$": "a digest such as sha256: and 64 lower-case hex digits",
    r"^sha256:[0-9a-f]{64}$": "sha256: and 64 lower-case hex digits",
    r"^https?://[^/@?#\s]+/?$": "the address of a server without a path, such as http://prometheus:9090",
    r"^(https|http|file)://": "an address that begins with https://, http:// or file://",
    r"^([0-9a-f]{40}|[0-9a-f]{64})$": "a full commit: 40 or 64 lower-case hex digits",
    r"^[A-Za-z_][A-Za-z0-9_]*$": 'letters, digits and "_", not beginning with a digit',
    IMAGE_PATTERN: (
        "an image such as registry.example.com/team/train:1.2 or …@sha256: and 64 hex digits: lower case, "
        "no spaces, no http://"
    ),
    pods.QUANTITY_PATTERN: 'an amount such as 500m, "2" or 4Gi',
    pods.LABEL_VALUE_PATTERN: 'a label value: letters, digits, ".", "_" and "-", at most 63',
    pods.QUALIFIED_PATTERN: "the key of a label or taint: a name, with a domain and / in front or not",
    predictionlog.URI_PATTERN: "s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///directory",
    pods.HOSTNAME_PATTERN: "a host name such as bikes.example.com or *.example.com",
    modeloverride.MOMENT_PATTERN: "a time in UTC such as 2026-03-02T12:00:00Z",
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": 'letters, digits, ".", "_" and "-", beginning with a letter or digit',
}
"""Every pattern of the language in words."""

_WANTED: Final = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a block of fields",
    "model_type": "a block of fields",
    "tuple_type": "a list",
    "list_type": "a list",
}
_BOUNDS: Final = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}
_OLD_BOOLS: Final = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
_SIMPLE_COMMAND: Final = re.compile(r"[A-Za-z0-9_./=-]+( [A-Za-z0-9_./=-]+)*")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Name the nearest known word: `; did you mean "training"?`, or nothing."""
    known = list(known)
    near = get_close_matches(word, known, n=1, cutoff=0.6)
    if not near:
        lower = {k.lower(): k for k in known}
        near = [lower[m] for m in get_close_matches(word.lower(), lower, n=1, cutoff=0.6)]
    return f'; did you mean "{near[0]}"?' if near else ""


def shown(value: Any) -> str:
    """Show a value in a message: text in quotes, escaped and cut; a list or block by its kind only."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return cut(str(value))
    if isinstance(value, str):
        hidden = re.sub(r"://[^/\s]*@", "://***@", value)
        line = escaped(hidden).replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
        return f'"{cut(line)}"'
    return "nothing" if value is None else "a list" if isinstance(value, list) else "a block of fields"


def sentence(error: dict[str, Any], value: Any, node: Node, source: str | None) -> str:
    """Say one error of pydantic.

    Args:
        error: as pydantic lists it, with its context.
        value: what the file has there.
        node: structural schema of the place; empty where there is none.
        source: the unquoted text that `value` was read from, where it was not read as text.
    """
    kind, context = str(error["type"]), error.get("ctx", {})
    if kind in _WANTED:
        return _type(_WANTED[kind], value, source)
    if kind == "literal_error":
        options = [str(o) for o in node.get("enum", [])]
        hint = did_you_mean(str(value), options) if isinstance(value, str) else ""
        return f"{shown(value)} is not one of {', '.join(options)}{hint}"
    if kind == "string_pattern_mismatch":
        pattern = str(context["pattern"])
        letters = shown(value).encode("ascii", "backslashreplace").decode()  # makes look-alikes of letters visible
        return f"{letters} does not fit; wanted: {PATTERNS.get(pattern, f'text that matches {pattern}')}"
    if kind in _BOUNDS:
        key, word = _BOUNDS[kind]
        return f"must be {word} {context[key]:g}, not {shown(value)}"
    if kind.startswith("string_too_"):
        return _length(kind, context, len(value) if isinstance(value, str) else 0, "character")
    if kind in ("too_long", "too_short"):
        return _length(kind, context, len(value) if isinstance(value, list | dict) else 0, "entry")
    return str(error["msg"]).removeprefix("Value error, ")


def _length(kind: str, context: dict[str, Any], length: int, unit: str) -> str:
    limit = context["max_length"] if kind.endswith("long") else context["min_length"]
    word = "at most" if kind.endswith("long") else "at least"
    many = unit if limit == 1 else "entries" if unit == "entry" else f"{unit}s"
    return f"must have {word} {limit:,} {many}, not {length:,}"


def _type(wanted: str, value: Any, source: str | None) -> str:
    if wanted == "text" and source is not None and not isinstance(value, dict | list):
        read = {True: "the truth value true", False: "the truth value false", None: "nothing"}
        what = read[value] if value is None or isinstance(value, bool) else f"the number {cut(str(value))}"
        return f'{cut(source)} without quotes is {what}; quote it: "{cut(source)}"'
    if isinstance(value, str):
        return _type_of_text(wanted, value)
    return f"{wanted} is wanted here, not {shown(value)}"


def _type_of_text(wanted: str, value: str) -> str:
    if wanted == "true or false" and value.lower() in _OLD_BOOLS:
        word = _OLD_BOOLS[value.lower()]
        return (
            f"{shown(value)} is text ({value.lower()} means {word} in YAML 1.1 only); write {word} without quotes"
        )
    if wanted == "a list":
        if len(value) <= 80 and _SIMPLE_COMMAND.fullmatch(value):
            return f"a list is wanted here, not text; write [{', '.join(value.split())}]"
        return "a list is wanted here, not text; write [first, second, …], every part on its own"
    if wanted == "a block of fields":
        return 'a block of fields is wanted here ("name: value" lines), not text'
    read = plain(value)
    fits = isinstance(read, bool) if wanted == "true or false" else _is_number(read)
    if fits and not isinstance(read, Trap):
        return f"{shown(value)} is text; write {value} without quotes"
    return f"{wanted} is wanted here, not the text {shown(value)}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
