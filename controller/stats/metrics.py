"""Every metric of the table, as numbers over weighted rows: the value itself and, just as fast, its resamples.

A metric is either a formula over weighted sums of per-row columns (`Summed`) or one over rows in a fixed order
(`Ordered`).  Both take many weightings at once, so that a bootstrap is a matrix product and not a loop.  Names and
directions are those of the language's metric table; this room does not import it, a test holds the two together.
Never guesses: what is undefined is NaN, and `value` says why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

EPSILON: Final = float(np.finfo(np.float64).eps)
"""A probability of the truth below it counts as this much in log_loss, as in scikit-learn."""
ONE_HOT_CELLS: Final = 20_000_000
"""Largest rows × classes for which balanced_accuracy can be resampled."""


@dataclass(frozen=True, slots=True)
class Regression:
    """Truth and prediction of the same rows: finite floats, one shape."""

    truth: Floats
    prediction: Floats


@dataclass(frozen=True, slots=True)
class Classification:
    """Truth and prediction of the same rows as positions in `classes`; -1 is a class that is in no truth.

    `positive` is the position of the positive class, None with more than two classes and none named.
    `scores` holds probabilities, rows × classes, or None; then `no_scores` says why in words.
    """

    truth: Ints
    prediction: Ints
    classes: tuple[str, ...]
    positive: int | None
    scores: Floats | None = None
    no_scores: str = "the model gives no class probabilities"


Rows = Regression | Classification


@dataclass(frozen=True, slots=True)
class Summed:
    """A formula over weighted sums: `columns` is rows × k, `finish` maps sums (m × k) to m values."""

    columns: Floats
    finish: Callable[[Floats], Floats]

    def at(self, counts: Floats) -> Floats:
        """Compute the metric for m weightings, m × rows; NaN where undefined."""
        with np.errstate(all="ignore"):
            return self.finish(counts @ self.columns)

    def grouped(self, unit: Ints, units: int) -> Summed:
        """Sum the columns over units first: then weightings are m × units, and as cheap as that."""
        sums = [np.bincount(unit, weights=c, minlength=units) for c in self.columns.T]
        return replace(self, columns=np.stack(sums, axis=1))


@dataclass(frozen=True, slots=True)
class Ordered:
    """A metric over rows in a fixed order, prepared once: `weigh` maps weightings (m × rows) to m values."""

    weigh: Callable[[Floats], Floats]

    def at(self, counts: Floats) -> Floats:
        """Compute the metric for m weightings, m × rows; NaN where undefined."""
        with np.errstate(all="ignore"):
            return self.weigh(counts)


@dataclass(frozen=True, slots=True)
class Undefined:
    """A metric that these rows cannot have; `note` says why in one sentence."""

    note: str


Measure = Summed | Ordered | Undefined


def measure(name: str, rows: Rows) -> Measure:
    """Prepare a metric on rows.

    Raises:
        KeyError: the name is not a metric of this kind of rows.
    """
    if isinstance(rows, Regression):
        return REGRESSION[name](rows)
    return CLASSIFICATION[name](rows)


def value(name: str, rows: Rows) -> tuple[float | None, str]:
    """Compute a metric: its value and "", or None and one sentence that says why there is none."""
    found = measure(name, rows)
    if isinstance(found, Undefined):
        return None, found.note
    if not rows.truth.size:
        return None, "there are no rows"
    result = float(found.at(np.ones((1, rows.truth.size)))[0])
    if np.isfinite(result):
        return result + 0.0, ""
    return None, _WHY.get(name, "the result is not a finite number")


_WHY: Final = {
    "precision": "no row was called positive",
    "recall": "no row is positive",
    "f1": "no row is positive and none was called positive",
    "roc_auc": "needs rows that are positive and rows that are not",
    "average_precision": "no row is positive",
    "r2": "the target has the same value in every row",
}


# --- regression


def _ones(rows: Rows) -> Floats:
    return np.ones(rows.truth.size)


def _mean_of(values: Floats, finish: Callable[[Floats], Floats] = lambda mean: mean) -> Summed:
    columns = np.stack([values, np.ones(values.size)], axis=1)
    return Summed(columns, lambda s: finish(s[:, 0] / s[:, 1]))


def _errors(rows: Regression) -> Floats:
    with np.errstate(over="ignore"):
        return np.asarray(rows.prediction - rows.truth)


def _rmse(rows: Regression) -> Measure:
    """Root of the mean of (prediction - truth)²."""
    with np.errstate(over="ignore"):
        return _mean_of(_errors(rows) ** 2, np.sqrt)


def _mae(rows: Regression) -> Measure:
    """Mean of |prediction - truth|."""
    return _mean_of(np.abs(_errors(rows)))


def _bias(rows: Regression) -> Measure:
    """|mean of (prediction - truth)|."""
    return _mean_of(_errors(rows), np.abs)


def _mape(rows: Regression) -> Measure:
    """Mean of |prediction - truth| / |truth|; undefined with a truth of 0, where it would be any number."""
    zeros = int(np.sum(rows.truth == 0))
    if zeros:
        return Undefined(f"the target is 0 in {zeros} of {rows.truth.size} rows")
    return _mean_of(np.abs(_errors(rows)) / np.abs(rows.truth))


def _r2(rows: Regression) -> Measure:
    """1 - Σ(prediction - truth)² / Σ(truth - mean truth)²; truth is centred first, against cancellation."""
    size = rows.truth.size
    centred = rows.truth - (rows.truth.mean() if size else 0.0)
    scale = float(np.max(np.abs(centred), initial=0.0))
    tiny = (scale * 1e-12) ** 2
    with np.errstate(over="ignore"):
        columns = np.stack([_errors(rows) ** 2, centred, centred**2, _ones(rows)], axis=1)

    def finish(s: Floats) -> Floats:
        spread = s[:, 2] - s[:, 1] ** 2 / s[:, 3]
        return np.where(spread > tiny * s[:, 3], 1 - s[:, 0] / spread, np.nan)

    return Summed(columns, finish)


def _median_ae(rows: Regression) -> Measure:
    """Median of |prediction - truth|; of an even number, the mean of the middle two."""
    errors = np.abs(_errors(rows))
    order = np.argsort(errors, kind="stable")
    ascending = errors[order]

    def weigh(counts: Floats) -> Floats:
        reached = np.cumsum(counts[:, order], axis=1)
        total = np.rint(reached[:, -1])
        lower = np.argmax(reached >= np.ceil(total / 2)[:, None] - 0.25, axis=1)
        upper = np.argmax(reached >= np.floor(total / 2 + 1)[:, None] - 0.25, axis=1)
        return np.asarray((ascending[lower] + ascending[upper]) / 2)

    return Ordered(weigh)


# --- classification


def _accuracy(rows: Classification) -> Measure:
    """Share of rows whose class is right."""
    return _mean_of((rows.truth == rows.prediction).astype(np.float64))


def _balanced_accuracy(rows: Classification) -> Measure:
    """Mean recall over the classes that occur in the truth, as in scikit-learn."""
    present = np.unique(rows.truth)
    if rows.truth.size * present.size > ONE_HOT_CELLS:
        return Undefined(f"{present.size} classes in {rows.truth.size} rows are too many to compute it")
    of_class = (rows.truth[:, None] == present[None, :]).astype(np.float64)
    hit = of_class * (rows.truth == rows.prediction)[:, None]
    k = present.size

    def finish(s: Floats) -> Floats:
        there = s[:, k:] > 0
        recall = np.where(there, s[:, :k] / s[:, k:], 0.0)
        return np.asarray(recall.sum(axis=1) / there.sum(axis=1))

    return Summed(np.concatenate([hit, of_class], axis=1), finish)


def _of_positive(rows: Classification, finish: Callable[[Floats], Floats]) -> Measure:
    """Prepare a formula over (true positives, called positive, positive, rows)."""
    if rows.positive is None:
        return Undefined(_needs_two(rows))
    truth, called = rows.truth == rows.positive, rows.prediction == rows.positive
    columns = np.stack([truth & called, called, truth], axis=1).astype(np.float64)
    return Summed(columns, finish)


def _needs_two(rows: Classification) -> str:
    some = ", ".join(rows.classes[:5]) + (", …" if len(rows.classes) > 5 else "")
    return f"needs two classes or columns.positive; there are {len(rows.classes)}: {some}"


def _precision(rows: Classification) -> Measure:
    """True positives over rows called positive; undefined, not 0, when none was."""
    return _of_positive(rows, lambda s: s[:, 0] / s[:, 1])


def _recall(rows: Classification) -> Measure:
    """True positives over positive rows; undefined when there are none."""
    return _of_positive(rows, lambda s: s[:, 0] / s[:, 2])


def _f1(rows: Classification) -> Measure:
    """2 TP / (called + positive): the harmonic mean of precision and recall."""
    return _of_positive(rows, lambda s: 2 * s[:, 0] / (s[:, 1] + s[:, 2]))


def _positive_scores(rows: Classification) -> tuple[Floats, npt.NDArray[np.bool_]] | Undefined:
    if rows.positive is None:
        return Undefined(_needs_two(rows))
    if rows.scores is None:
        return Undefined(rows.no_scores)
    return rows.scores[:, rows.positive], rows.truth == rows.positive


def _descending(scores: Floats) -> tuple[Ints, Ints]:
    """Order rows by score, greatest first, and give the start of every run of equal scores."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    return order.astype(np.int64), starts.astype(np.int64)


def _roc_auc(rows: Classification) -> Measure:
    """Chance that a positive row scores above a negative one, ties count half (Mann-Whitney)."""
    found = _positive_scores(rows)
    if isinstance(found, Undefined) or not rows.truth.size:
        return found if isinstance(found, Undefined) else Undefined("there are no rows")
    scores, truth = found
    order, starts = _descending(scores)
    is_positive = truth[order].astype(np.float64)

    def weigh(counts: Floats) -> Floats:
        ranked = counts[:, order]
        positive = np.add.reduceat(ranked * is_positive, starts, axis=1)
        negative = np.add.reduceat(ranked * (1 - is_positive), starts, axis=1)
        above = np.cumsum(positive, axis=1) - positive / 2
        pairs = positive.sum(axis=1) * negative.sum(axis=1)
        return np.asarray((above * negative).sum(axis=1) / pairs)

    return Ordered(weigh)


def _average_precision(rows: Classification) -> Measure:
    """Σ (recall_i - recall_{i-1}) · precision_i over the distinct scores, greatest first."""
    found = _positive_scores(rows)
    if isinstance(found, Undefined) or not rows.truth.size:
        return found if isinstance(found, Undefined) else Undefined("there are no rows")
    scores, truth = found
    order, starts = _descending(scores)
    is_positive = truth[order].astype(np.float64)

    def weigh(counts: Floats) -> Floats:
        ranked = counts[:, order]
        positive = np.add.reduceat(ranked * is_positive, starts, axis=1)
        called = np.cumsum(np.add.reduceat(ranked, starts, axis=1), axis=1)
        precision = np.where(called > 0, np.cumsum(positive, axis=1) / called, 0.0)
        return np.asarray((positive * precision).sum(axis=1) / positive.sum(axis=1))

    return Ordered(weigh)


def _brier(rows: Classification) -> Measure:
    """Mean of (probability of positive - [row is positive])²."""
    found = _positive_scores(rows)
    if isinstance(found, Undefined):
        return found
    scores, truth = found
    if problem := _not_probabilities(scores):
        return Undefined(problem)
    return _mean_of((scores - truth) ** 2)


def _log_loss(rows: Classification) -> Measure:
    """Mean of -ln(probability of the true class), the probability kept above EPSILON."""
    if rows.scores is None:
        return Undefined(rows.no_scores)
    total = rows.scores.sum(axis=1)
    off = int(np.sum(np.abs(total - 1) > 1e-3))
    problem = _not_probabilities(rows.scores) or (off and f"probabilities do not add up to 1 in {off} rows")
    if problem:
        return Undefined(str(problem))
    chance = rows.scores[np.arange(rows.truth.size), rows.truth] / total
    return _mean_of(-np.log(np.clip(chance, EPSILON, 1.0)))


def _not_probabilities(scores: Floats) -> str:
    outside = int(np.sum((scores < -1e-9) | (scores > 1 + 1e-9)))
    return f"{outside} scores are outside 0 to 1 and are no probabilities" if outside else ""


REGRESSION: Final[dict[str, Callable[[Regression], Measure]]] = {
    "rmse": _rmse,
    "mae": _mae,
    "median_ae": _median_ae,
    "mape": _mape,
    "r2": _r2,
    "bias": _bias,
}
"""Metrics of numbers by name."""

CLASSIFICATION: Final[dict[str, Callable[[Classification], Measure]]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "precision": _precision,
    "recall": _recall,
    "f1": _f1,
    "roc_auc": _roc_auc,
    "average_precision": _average_precision,
    "log_loss": _log_loss,
    "brier": _brier,
}
"""Metrics of classes by name."""
