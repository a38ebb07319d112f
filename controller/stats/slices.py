"""Parts of the rows: which rows a column's values make, a part of two models' rows, and counts in a group.

Pure: arrays in, arrays out.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from controller.stats.metrics import Classification, Ints, Regression, Rows


def take(rows: Rows, positions: Ints) -> Rows:
    """Keep the rows at some positions, in their order."""
    if isinstance(rows, Regression):
        return replace(rows, truth=rows.truth[positions], prediction=rows.prediction[positions])
    scores = None if rows.scores is None else rows.scores[positions]
    return replace(rows, truth=rows.truth[positions], prediction=rows.prediction[positions], scores=scores)


def counted(rows: Classification, positions: Ints) -> tuple[int, int, int]:
    """Count in a group: rows whose truth is positive, rows called positive, rows that are both.

    `rows.positive` must be known.
    """
    truth = rows.truth[positions] == rows.positive
    called = rows.prediction[positions] == rows.positive
    return int(truth.sum()), int(called.sum()), int((truth & called).sum())


def largest_first(codes: Ints, count: int) -> list[tuple[int, Ints]]:
    """List the parts that codes make, as (code, positions), most rows first; of equal ones, the lower code.

    Args:
        codes: the part of every row, 0 to count - 1.
        count: how many parts there are.
    """
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes, minlength=count)
    parts = np.split(order, np.cumsum(sizes)[:-1]) if count else []
    ranked = sorted(range(count), key=lambda c: (-int(sizes[c]), c))
    return [(c, parts[c].astype(np.int64)) for c in ranked if sizes[c]]
