"""Counts the rows of the bad-input corpus that a run has tested, and says so at its end."""

from __future__ import annotations

import re
from collections import Counter

import pytest

ROW = re.compile(r"(?<![A-Za-z0-9])[YGDMJAYygdmja](?!00)[0-9]{2}(?![A-Za-z0-9])")
_ROWS: dict[str, set[str]] = {}
_RAN: set[str] = set()


def rows_of(text: str) -> set[str]:
    """Find the ids of rows in the name or the first words of a test."""
    return {row.upper() for row in ROW.findall(text.replace("_", " "))}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        words = getattr(getattr(item, "function", None), "__doc__", None) or ""
        rows = rows_of(item.name) | rows_of(words.partition(":")[0][:40])
        if rows:
            _ROWS[item.nodeid] = rows


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed:
        _RAN.update(_ROWS.get(report.nodeid, ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts = Counter(row[0] for row in _RAN)
    parts = ", ".join(f"{letter} {counts[letter]}" for letter in "YGDMJA" if counts[letter])
    terminalreporter.write_line(f"bad-input corpus: {len(_RAN)} rows ({parts})")
