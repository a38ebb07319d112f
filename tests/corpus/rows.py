"""Knows which test tests which row of the bad-input corpus, and lets none pass without the standing rule.

A test names its rows in its id or in the first words of its docstring.  It must have asserted the standing rule
(`tests/corpus/standing.py`), or say by the mark `apart` why nothing of it reaches a controller.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Generator

import pytest

ROW = re.compile(r"(?<![A-Za-z0-9])[YGDMJALQygdmjalq](?!00)[0-9]{2}(?![A-Za-z0-9])")
NEEDED = "YGDMJ"
"""Letters of the rows that a controller gets to see."""
_ROWS: dict[str, set[str]] = {}
_RAN: set[str] = set()
_RULED: set[str] = set()
_TIMES: list[int] = [0, 0]
"""Cases that ran, and how many of them asserted the rule."""


def rows_of(text: str) -> set[str]:
    """Find the ids of rows in the name or the first words of a test."""
    return {row.upper() for row in ROW.findall(text.replace("_", " "))}


def asserted() -> int:
    """Say how many times the standing rule was asserted until now."""
    standing = sys.modules.get("tests.corpus.standing")
    return len(standing.ASSERTED) if standing is not None else 0


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "apart(why): a row of the corpus of which nothing reaches a controller")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        words = getattr(getattr(item, "function", None), "__doc__", None) or ""
        rows = rows_of(item.name) | rows_of(words.partition(":")[0][:40])
        if rows:
            _ROWS[item.nodeid] = rows


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    before = asserted()
    yield
    rows = _ROWS.get(item.nodeid)
    if not rows:
        return
    apart = item.get_closest_marker("apart")
    ruled = asserted() > before
    if apart is None and not ruled and any(row[0] in NEEDED for row in rows):
        pytest.fail(
            f"{', '.join(sorted(rows))} was tested without the standing rule: see tests/corpus/standing.py"
        )
    if apart is not None and not (apart.args and apart.args[0]):
        pytest.fail("the mark apart says why")
    _RAN.update(rows)
    _TIMES[0] += 1
    if ruled:
        _RULED.update(rows)
        _TIMES[1] += 1


def _by_letter(rows: set[str]) -> str:
    counts = Counter(row[0] for row in rows)
    return ", ".join(f"{letter} {counts[letter]}" for letter in "YGDMJALQ" if counts[letter])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _RAN:
        return
    terminalreporter.write_line(
        f"bad-input corpus: {len(_RAN)} rows ({_by_letter(_RAN)}) in {_TIMES[0]:,} cases; the standing rule was "
        f"asserted under {len(_RULED)} of them ({_by_letter(_RULED)}) in {_TIMES[1]:,} cases"
    )
