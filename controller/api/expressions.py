"""Expressions of gates, in the Common Expression Language: are they right, and what do they say?

The library (Google's own, a compiled parser and evaluator without I/O) is imported when the first expression is
met.  It bounds itself: 32 levels of nesting, a budget of iterations, regular expressions in linear time; the
language has no loops without end.  Whatever is not a clear true or false is a `Trouble`, never a pass.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, Final

from controller.api.metrics import METRICS

MAPS: Final = ("metrics", "champion", "improvement", "data", "model")
"""What an expression sees."""
BY_METRIC: Final = ("metrics", "champion", "improvement")
"""Those whose keys are names of the metric table."""
COST_MAX: Final = 4096
"""Longest expression, characters."""

_USED: Final = re.compile(rf"\b({'|'.join(MAPS)})((?:\.[A-Za-z_]\w*|\[\s*(?:\"[^\"]*\"|'[^']*')\s*\])+)")
_PART: Final = re.compile(r"\.([A-Za-z_]\w*)|\[\s*[\"']([^\"']*)[\"']\s*\]")
_TEXT: Final = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'")
_WHERE: Final = re.compile(r"<input>:(\d+):(\d+): ([^\n]*)")


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why an expression has no value; one sentence."""

    message: str


@cache
def _environment() -> Any:
    from cel_expr_python import cel

    kind = cel.Type
    return cel.NewEnv(variables={name: kind.Map(kind.STRING, kind.DYN) for name in MAPS})


def problem(text: str) -> str:
    """Say what is wrong with an expression before it meets any number; empty when nothing is."""
    compiled = _compiled(text)
    if isinstance(compiled, Trouble):
        return compiled.message
    gives = compiled.return_type().name()
    if gives not in ("BOOL", "DYN"):
        return f"the expression gives {gives.lower()}; true or false is wanted, as in metrics.f1 >= 0.8"
    for path in used(text):
        if path[0] in BY_METRIC and path[1] not in METRICS:
            near = get_close_matches(path[1], METRICS, n=1)
            hint = f"; did you mean {path[0]}.{near[0]}?" if near else f"; known: {', '.join(METRICS)}"
            return f"{path[0]}.{path[1]}: there is no such metric{hint}"
    return ""


def _compiled(text: str) -> Any:
    if len(text) > COST_MAX:
        return Trouble(f"the expression has {len(text):,} characters; at most {COST_MAX:,} are read")
    try:
        return _environment().compile(text)
    except (RuntimeError, ValueError, TypeError) as error:
        return Trouble(f"the expression is not right: {_said(str(error))}")


def _said(text: str) -> str:
    """Take the first complaint out of the library's many lines, with its place."""
    if "ecursion" in text:
        return "it is nested more than 32 deep"
    found = _WHERE.search(text)
    if found is None or found[1].startswith("-"):
        return " ".join(text.partition("[")[0].split())[:200].rstrip(". ").partition(": ")[2] or "it is too large"
    line = f"line {found[1]}, " if found[1] != "1" else ""
    words = found[3].partition(" expecting {")[0].replace(" (in container '')", "")
    return f"{line}column {found[2]}: {words[:200]}"


def used(text: str) -> tuple[tuple[str, ...], ...]:
    """List the values that an expression names, each as its path: ("data", "holdout", "rows")."""
    found: dict[tuple[str, ...], None] = {}
    # What stands in quotes names nothing, unless it is a key in brackets.
    bare = _TEXT.sub(lambda m: m[0] if text[: m.start()].rstrip().endswith("[") else '""', text)
    for name, rest in _USED.findall(bare):
        found[(name, *(a or b for a, b in _PART.findall(rest)))] = None
    return tuple(found)


def value_at(maps: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """Read the value at a path; None where there is none."""
    value: Any = maps
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def evaluate(text: str, maps: Mapping[str, Any]) -> bool | Trouble:
    """Evaluate an expression over finite numbers.

    Args:
        text: the expression.
        maps: one mapping for each name of `MAPS`; a value that is not there must be absent.
    """
    compiled = _compiled(text)
    if isinstance(compiled, Trouble):
        return compiled
    for path in used(text):
        value = value_at(maps, path)
        if isinstance(value, float) and not math.isfinite(value):
            return Trouble(f"{'.'.join(path)} is {value}, not a finite number")
    try:
        found = compiled.eval(data={name: maps.get(name, {}) for name in MAPS})
        value, kind = found.plain_value(), found.type().name()
    except (RuntimeError, ValueError, TypeError) as error:
        return Trouble(f"it cannot be evaluated: {_said(str(error))}")
    if kind == "ERROR":
        missing = re.search(r"Key not found in map : \"([^\"]*)\"", str(value))
        return Trouble(
            f"there is no value {missing[1]}" if missing else f"it cannot be evaluated: {_said(str(value))}"
        )
    if not isinstance(value, bool):
        return Trouble(f"it gives {kind.lower()} and not true or false")
    return value
