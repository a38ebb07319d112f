"""Measures what `ranges.json` promises, prints it, and ends with 1 when something lies outside of its range.

`python -m benchmarks.check`.  Ratios of things measured side by side in this run, so that a slow machine changes
them little; `make ranges` runs it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from benchmarks import git_calls, loop, validate

RANGES = Path(__file__).with_name("ranges.json")


def main() -> int:
    """Measure all; returns the exit code."""
    times = validate.measure(1000, 3)
    with tempfile.TemporaryDirectory() as scratch:
        cost = loop.measure(Path(scratch))
    git_calls.calls(1)  # a process asks for Git's version once, whoever comes first
    many, some = (git_calls.calls(n)["git processes"] for n in (1000, 100))
    found = (validate.ratio(times), cost.loop / cost.by_hand, cost.revert - cost.server, many / some)
    outside = 0
    for (name, (low, high)), value in zip(json.loads(RANGES.read_text()).items(), found, strict=True):
        good = low <= value <= high
        outside += not good
        print(f"{'ok     ' if good else 'OUTSIDE'}  {value:6.2f}  ({low:g} to {high:g})  {name}")
    return 1 if outside else 0


if __name__ == "__main__":
    sys.exit(main())
