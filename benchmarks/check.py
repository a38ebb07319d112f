"""Measures what `ranges.json` promises, prints it, and ends with 1 when something lies outside of its range.

`python -m benchmarks.check`.  Ratios of things measured side by side in this run, so that a slow machine changes
them little; `make ranges` runs it.  With `--ci` what lies outside of its range is measured again, at most
twice, and the nearest to its range counts: a neighbour on the machine disturbs one run, a regression all.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import git_calls, loop, validate

RANGES = Path(__file__).with_name("ranges.json")


def parsing() -> list[float]:
    """Measure checking files against parsing them."""
    return [validate.ratio(validate.measure(1000, 3))]


def looping() -> list[float]:
    """Measure a commit and a revert against the same steps by hand."""
    with tempfile.TemporaryDirectory() as scratch:
        cost = loop.measure(Path(scratch))
    return [cost.loop / cost.by_hand, cost.revert - cost.server]


def counting() -> list[float]:
    """Count Git's processes for many ModelSpecs and for fewer."""
    git_calls.calls(1)  # a process asks for Git's version once, whoever comes first
    many, some = (git_calls.calls(n)["git processes"] for n in (1000, 100))
    return [many / some]


def outside(value: float, low: float, high: float) -> float:
    """Tell how far a value is outside of its range; 0 inside."""
    return max(low - value, value - high, 0.0)


def nearest(
    measure: Callable[[], list[float]], ranges: Sequence[tuple[float, float]], attempts: int
) -> list[float]:
    """Measure until every figure was inside of its range once, at most so many times; the nearest of each."""
    best = measure()
    for number in range(2, attempts + 1):
        if not any(outside(v, *r) for v, r in zip(best, ranges, strict=True)):
            break
        print(f"outside of its range: measured again, {number} of {attempts}", flush=True)
        again = measure()
        pairs = zip(best, again, ranges, strict=True)
        best = [min(a, b, key=lambda v, r=r: outside(v, *r)) for a, b, r in pairs]  # type: ignore[misc]
    return best


def main() -> int:
    """Measure all; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ci", action="store_true", help="measure what lies outside again, at most three times")
    attempts = 3 if parser.parse_args().ci else 1
    named = json.loads(RANGES.read_text())
    ranges = [(float(low), float(high)) for low, high in named.values()]
    found: list[float] = []
    for measure, count in ((parsing, 1), (looping, 2), (counting, 1)):
        found += nearest(measure, ranges[len(found) : len(found) + count], attempts)
    bad = 0
    for name, (low, high), value in zip(named, ranges, found, strict=True):
        good = not outside(value, low, high)
        bad += not good
        print(f"{'ok     ' if good else 'OUTSIDE'}  {value:6.2f}  ({low:g} to {high:g})  {name}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
