"""Arithmetic on what servers count: differences, sums, percentiles, and how predictions are counted together.

Pure.  Counters are keyed `<pod>|<name>` as `observed.Counters` says; sums over pods by name alone.  Nothing here
judges.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from typing import Final

from controller.api import bins
from controller.plan.observed import Counters

Sums = Mapping[str, float]
"""Counts of all servers of a revision together, by name: `requests`, `errors`, `rows`, `p=<value>`, …"""

CELLS: Final = 32
"""Most groups in which predicted values are kept in a status."""
OTHER: Final = "other"
"""The group of classes that have none of their own."""


def since(now: Counters, before: Counters) -> dict[str, float]:
    """Subtract counters pod by pod; a counter that went back was started anew and counts from 0."""
    return {k: v - before.get(k, 0.0) if v >= before.get(k, 0.0) else v for k, v in now.items()}


def went_back(now: Counters, before: Counters) -> bool:
    """Tell whether a server was started anew, so that a part of what it counted is lost."""
    return any(v < before.get(k, 0.0) for k, v in now.items())


def summed(counters: Counters) -> dict[str, float]:
    """Add the counters of all pods."""
    found: dict[str, float] = {}
    for key, value in counters.items():
        name = key.partition("|")[2]
        found[name] = found.get(name, 0.0) + value
    return found


def kept(counters: Counters, wanted: Callable[[str], bool]) -> dict[str, float]:
    """Keep what a status must remember: the names that are wanted, without zeros, that say nothing."""
    return {k: v for k, v in counters.items() if v and wanted(k.partition("|")[2])}


def predictions(sums: Sums) -> dict[str, float]:
    """Read how often each value was predicted; those that never were are left out."""
    return {name[2:]: v for name, v in sums.items() if name.startswith("p=") and v > 0}


def _buckets(sums: Sums, prefix: str) -> list[tuple[float, float]]:
    """Read cumulative counts by their upper bounds, ascending; an empty bucket says where the next one begins."""
    return sorted((float(name.removeprefix(prefix)), v) for name, v in sums.items() if name.startswith(prefix))


def percentile(sums: Sums, share: float) -> float | None:
    """Read a percentile in seconds from bucket counters, linear inside a bucket; None without a request."""
    buckets = _buckets(sums, "le=")
    total = max((value for _, value in buckets), default=0.0)
    if total <= 0:
        return None
    rank, low, below = share * total, 0.0, 0.0
    for bound, count in buckets:
        if count >= rank:
            inside = count - below
            return low if bound == inf else low + (bound - low) * ((rank - below) / inside if inside else 1)
        low, below = bound, count
    return low


def independent(sums: Sums) -> float:
    """Say how many independent predictions there are: rows of one request are alike, so at most its requests."""
    return min(sums.get("requests", 0.0), sums.get("rows", sums.get("requests", 0.0)))


def spread(sums: Sums) -> tuple[float, float, float]:
    """Read number, mean and variance of the highest class probabilities from cumulative counts `conf_le=<x>`.

    Each row counts as the middle of its step.
    """
    count, mean, square, low, below = 0.0, 0.0, 0.0, 0.0, 0.0
    for end, value in _buckets(sums, "conf_le="):
        bound = min(end, 1.0)
        inside, middle = max(value - below, 0.0), (low + bound) / 2
        count, mean, square = count + inside, mean + inside * middle, square + inside * middle**2
        low, below = bound, max(value, below)
    if count <= 0:
        return 0.0, 0.0, 0.0
    mean /= count
    return count, mean, max(square / count - mean**2, 0.0)


def place(value: str) -> float | None:
    """Say where the bin of a number lies; None for a class."""
    try:
        return bins.bounds(value)[0]
    except KeyError:
        return None


def are_numbers(values: Iterable[str]) -> bool:
    """Tell whether all predicted values are names of bins."""
    return all(place(v) is not None for v in values)


def cells_of(counts: Mapping[str, float]) -> tuple[str, ...]:
    """Choose how values are counted together so that a status stays small; empty: each for itself.

    Numbers: neighbours, in groups of about equal count, each named by its first bin. Classes: the most frequent
    ones for themselves.
    """
    if len(counts) <= CELLS:
        return ()
    if not are_numbers(counts):
        return tuple(sorted(counts, key=lambda v: (-counts[v], v))[: CELLS - 1])
    ordered = sorted(counts, key=lambda v: place(v) or 0.0)
    total, seen, cells = sum(counts[v] for v in ordered), 0.0, [ordered[0]]
    for value in ordered:
        if seen >= total * len(cells) / (CELLS - 1):
            cells.append(value)
        seen += counts[value]
    return tuple(cells)


def folded(counters: Counters, cells: Sequence[str]) -> Counters:
    """Count predicted values together as chosen."""
    if not cells:
        return counters
    cell = _chooser(cells)
    found: dict[str, float] = {}
    for key, value in counters.items():
        pod, _, name = key.partition("|")
        name = f"p={cell(name[2:])}" if name.startswith("p=") else name
        found[f"{pod}|{name}"] = found.get(f"{pod}|{name}", 0.0) + value
    return found


def _chooser(cells: Sequence[str]) -> Callable[[str], str]:
    if not are_numbers(cells):
        known = frozenset(cells)
        return lambda value: value if value in known else OTHER
    starts = [place(c) or 0.0 for c in cells]

    def choose(value: str) -> str:
        at = place(value)
        # What is no number stays as it is: one model predicts classes, and the other does not.
        return value if at is None else cells[max(bisect_right(starts, at) - 1, 0)]

    return choose
