"""Paired bootstrap: how sure the improvement of a challenger over a champion on the same rows is.

Whole units are drawn with replacement - rows, groups, or blocks of time - and both models are measured on the
same draw.  Units matter: rows that hang together, drawn one by one, make a gate promote one time in three where
it promised one in twenty.  Never answers from fewer than `MIN_UNITS` units, nor when a draw leaves a metric
undefined.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from controller.stats.metrics import Floats, Ints, Measure, Ordered, Rows, Summed, Undefined, measure

MIN_UNITS: Final = 10
"""Fewest independent units from which anything is concluded."""
CHUNK_CELLS: Final = 4_000_000
"""Weights held in memory at once."""
SUMMED_CELLS: Final = 1_000_000_000
"""Largest resamples × units; above it, fewer resamples are drawn."""
ORDERED_CELLS: Final = 200_000_000
"""Largest resamples × rows for metrics that need every row: roc_auc, average_precision, median_ae."""
MIN_RESAMPLES: Final = 200
"""Resamples are never fewer than this, however many rows there are."""


@dataclass(frozen=True, slots=True)
class Units:
    """What is drawn: `of_row` is the unit of every row, 0 to count - 1; `kind` names it for people."""

    of_row: Ints
    count: int
    kind: str


@dataclass(frozen=True, slots=True)
class Improvement:
    """Quantiles of the improvement (positive is better) at the grid asked for; None with a note where unknown."""

    absolute: tuple[float, ...] | None
    relative: tuple[float, ...] | None
    note: str = ""


def by_row(rows: int) -> Units:
    """Every row is a unit of its own: for rows that know nothing of each other."""
    return Units(np.arange(rows, dtype=np.int64), rows, "rows")


def by_group(values: npt.NDArray[np.str_]) -> Units:
    """Equal values are one unit; a missing value is a value like others."""
    distinct, position = np.unique(values, return_inverse=True)
    return Units(position.astype(np.int64).ravel(), int(distinct.size), "groups")


def by_time(values: npt.NDArray[np.datetime64] | Floats) -> Units:
    """Blocks of time that do not overlap.

    Times: one block per day (UTC).  Numbers: one block per equal value.  Where that gives fewer than `MIN_UNITS`
    blocks or less than two rows per block on average, neighbours would be torn apart: then blocks of ⌈√n⌉ rows in
    order of time, rows of one time together.  Dependence that outlasts a block is not covered.

    Args:
        values: datetime64 (NaT allowed) or floats (NaN allowed), one per row; missing ones are one more time.
    """
    numeric = values.dtype.kind == "f"
    marks = values if numeric else values.astype("datetime64[D]")
    distinct, position = np.unique(marks, return_inverse=True)
    if MIN_UNITS <= distinct.size <= values.size / 2:
        return Units(position.astype(np.int64).ravel(), int(distinct.size), "equal times" if numeric else "days")
    length = math.ceil(math.sqrt(values.size)) if values.size else 1
    _, first, back = np.unique(np.sort(values), return_index=True, return_inverse=True)
    start_of_sorted = first[back.ravel()] // length
    block = np.empty(values.size, dtype=np.int64)
    block[np.argsort(values, kind="stable")] = start_of_sorted
    used, position = np.unique(block, return_inverse=True)
    return Units(position.astype(np.int64).ravel(), int(used.size), f"blocks of {length} rows")


def compare(
    higher: Mapping[str, bool],
    challenger: Rows,
    champion: Rows,
    units: Units,
    *,
    grid: Sequence[float],
    seed: int,
    resamples: int,
) -> dict[str, Improvement]:
    """Draw the paired bootstrap distribution of the improvement in every metric.

    Args:
        higher: metric names, and whether higher is better.
        challenger: truth and prediction; `champion` the same rows in the same order.
        units: what is drawn, from `by_row`, `by_group` or `by_time`.
        grid: probabilities, 0 to 1, ascending.
        seed: of PCG64; the same seed gives the same quantiles.
        resamples: how many draws; very many rows get fewer, and the note says so.

    Returns:
        Per metric the quantiles of challenger minus champion, signed so that positive is better.  They are read at
        probabilities widened for the number of units n: Φ(√(n/(n-1)) · t⁻¹(p; n-1)), the expanded percentile
        interval of Hesterberg (2015), since plain percentiles of few units are too narrow.
    """
    if units.count < MIN_UNITS:
        few = f"only {units.count} {units.kind}: at least {MIN_UNITS} are needed to say how sure the difference is"
        return {name: Improvement(None, None, few) for name in higher}
    pairs = {
        name: (_ready(measure(name, challenger), units), _ready(measure(name, champion), units)) for name in higher
    }
    drawn = _draw(pairs, units, seed, resamples)
    probabilities = _expanded(grid, units.count)
    out: dict[str, Improvement] = {}
    for name, up in higher.items():
        notes = [f"{who}: {m.note}" for who, m in zip(("challenger", "champion"), pairs[name], strict=True)
                 if isinstance(m, Undefined)]  # fmt: skip
        if notes:
            out[name] = Improvement(None, None, "; ".join(notes))
            continue
        out[name] = _quantiles(*drawn[name], up, probabilities, units, resamples)
    return out


def _ready(found: Measure, units: Units) -> Measure:
    return found.grouped(units.of_row, units.count) if isinstance(found, Summed) else found


def _draw(
    pairs: Mapping[str, tuple[Measure, Measure]], units: Units, seed: int, resamples: int
) -> dict[str, tuple[Floats, Floats]]:
    """Measure both models on every draw; each metric has its own number of draws, all from one stream."""
    rng = np.random.Generator(np.random.PCG64(seed))
    rows = units.of_row.size
    all_draws = max(MIN_RESAMPLES, min(resamples, SUMMED_CELLS // units.count))
    row_draws = max(MIN_RESAMPLES, min(all_draws, ORDERED_CELLS // rows))
    chunk = max(1, CHUNK_CELLS // max(units.count, rows))
    parts: dict[str, list[tuple[Floats, Floats]]] = {name: [] for name in pairs}
    for done in range(0, all_draws, chunk):
        size = min(chunk, all_draws - done)
        picks = rng.integers(0, units.count, size=(size, units.count))
        picks += np.arange(size)[:, None] * units.count
        counts = (
            np.bincount(picks.ravel(), minlength=size * units.count).reshape(size, units.count).astype(np.float64)
        )
        of_rows = counts[: max(0, row_draws - done)]
        of_rows = of_rows if units.count == rows else of_rows[:, units.of_row]
        for name, (one, other) in pairs.items():
            if isinstance(one, Undefined) or isinstance(other, Undefined):
                continue
            weights = of_rows if isinstance(one, Ordered) else counts
            if len(weights):
                parts[name].append((one.at(weights), other.at(weights)))
    return {
        name: (np.concatenate([p[0] for p in found]), np.concatenate([p[1] for p in found]))
        for name, found in parts.items()
        if found
    }


def _expanded(grid: Sequence[float], units: int) -> Floats:
    from scipy import stats

    wide = math.sqrt(units / (units - 1)) * stats.t.ppf(np.asarray(grid), units - 1)
    return np.asarray(stats.norm.cdf(wide), dtype=np.float64)


def _quantiles(
    challenger: Floats, champion: Floats, up: bool, probabilities: Floats, units: Units, asked: int
) -> Improvement:
    draws = challenger.size
    bad = int(np.sum(~(np.isfinite(challenger) & np.isfinite(champion))))
    if bad:
        return Improvement(
            None, None, f"undefined in {bad} of {draws} resamples of {units.count} {units.kind}: too few"
        )
    gain = challenger - champion if up else champion - challenger
    absolute = tuple(float(q) + 0.0 for q in np.quantile(gain, probabilities))
    note = (
        f"{draws} instead of {asked} resamples, since there are {units.of_row.size} rows" if draws < asked else ""
    )
    if np.any(champion <= 0):
        return Improvement(absolute, None, note)
    relative = tuple(float(q) + 0.0 for q in np.quantile(gain / champion, probabilities))
    return Improvement(absolute, relative, note)
