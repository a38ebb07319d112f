"""How answers look: aligned text, in colour where a person looks at it, JSON or YAML for programs.

What comes from objects, logs and servers is printed without control characters: a training program must not move
the cursor of who reads its last words.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import typer


class Output(StrEnum):
    """Form of an answer about objects."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


class Form(StrEnum):
    """Form of an answer that is no object."""

    TEXT = "text"
    JSON = "json"


def clean(text: str) -> str:
    """Replace control characters; tabs stay."""
    if text.isprintable():
        return text
    return "".join(ch if ch.isprintable() or ch == "\t" else "\N{REPLACEMENT CHARACTER}" for ch in text)


def say(*lines: str) -> None:
    """Print lines to the standard output."""
    for line in lines:
        typer.echo(clean(line))


def note(text: str) -> None:
    """Print one line that is no part of the answer."""
    typer.echo(clean(text), err=True)


def say_json(value: Any) -> None:
    """Print JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def say_yaml(value: Any) -> None:
    """Print YAML, keys in the order given."""
    import yaml

    typer.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100).rstrip("\n"))


def aligned(
    headers: Sequence[str], rows: Sequence[Sequence[str]], *, indent: str = "", colour: bool = False
) -> list[str]:
    """Lay out a table: three spaces between columns, the last column as long as it is.

    Nothing is folded or cut: a name that a person copies must stay whole, and a terminal wraps by itself.
    """
    table = [[clean(str(cell)) for cell in row] for row in ([headers] if headers else []) + [*rows]]
    if not table:
        return []
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = []
    for number, row in enumerate(table):
        cells = [cell.ljust(w) for cell, w in zip(row, widths, strict=True)]
        cells[-1] = cells[-1].rstrip()
        if colour:
            cells = [_painted(cell, is_head=number == 0 and bool(headers)) for cell in cells]
        lines.append((indent + "   ".join(cells)).rstrip())
    return lines


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, in colour if a terminal shows it."""
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for line in aligned(headers, rows, colour=colour):
        typer.echo(line)


def _painted(cell: str, *, is_head: bool) -> str:
    style = _style(cell.strip())
    if is_head:
        return typer.style(cell, bold=True)
    return typer.style(cell, fg=style) if style else cell


def _style(cell: str) -> str:
    """Colour the words of conditions and verdicts; everything else stays as it is."""
    good, bad = {"True", "Passed"}, {"False", "Failed", "Stalled", "Rejected", "RolledBack"}
    if cell in good:
        return "green"
    return "red" if cell in bad else "yellow" if cell in {"Unknown", "Inconclusive"} else ""


def age(since: str, now: datetime) -> str:
    """Write how long ago an RFC 3339 moment was, as kubectl does: `45s`, `12m`, `5h`, `3d`; `?` if unreadable.

    >>> age("2026-03-02T08:00:00Z", datetime(2026, 3, 2, 10, 30, tzinfo=UTC))
    '2h30m'
    """
    try:
        moment = datetime.fromisoformat(since)
    except ValueError:
        return "?"
    seconds = max(0, int((now - moment).total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86_400
    if seconds < 120:
        return f"{seconds}s"
    if hours < 1:
        return f"{minutes}m"
    if hours < 8:
        rest = minutes % 60
        return f"{hours}h{rest}m" if rest else f"{hours}h"
    return f"{hours}h" if days < 2 else f"{days}d"


def utc_now() -> datetime:
    """Read the clock."""
    return datetime.now(UTC)
