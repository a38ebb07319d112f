"""What is counted of every prediction: classes or bins, confidence, missing values, categories never seen.

One pass of numpy over a batch, plain Python for a single row.  What a model knows of its categories is looked up
once, when it is loaded.  Never changes an answer, and keeps no value: only counts leave this module.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from controller.api.bins import EDGES
from controller.serving.metrics import CONFIDENCE, Metrics
from controller.serving.values import Scalar

_FEW: Final = 8
"""Up to so many rows plain Python is faster than numpy."""


@dataclass(slots=True)
class Seen:
    """Counts of one batch."""

    classes: Mapping[str, int] = field(default_factory=dict)
    bins: Mapping[int, int] = field(default_factory=dict)
    confidence: Mapping[int, int] = field(default_factory=dict)
    confidence_sum: float = 0.0
    missing: Mapping[str, int] = field(default_factory=dict)
    unseen: Mapping[str, int] = field(default_factory=dict)

    def count(self, metrics: Metrics) -> None:
        """Add the counts to those of the server."""
        if self.classes:
            metrics.classes(self.classes)
        if self.bins:
            metrics.bins(self.bins)
        if self.confidence:
            metrics.confidence(self.confidence, self.confidence_sum)
        if self.missing or self.unseen:
            metrics.columns(self.missing, self.unseen)


def predicted(predictions: Sequence[Scalar], classified: bool) -> tuple[Mapping[str, int], Mapping[int, int]]:
    """Count predictions by class, or numbers by the place of their bin.

    Args:
        predictions: one for each row, finite.
        classified: whether the model says that it predicts classes; else numbers are numbers.
    """
    first = predictions[0]
    if classified or isinstance(first, str | bool):
        if len(predictions) == 1:
            return {str(first): 1}, {}
        return {str(value): count for value, count in Counter(predictions).items()}, {}
    if len(predictions) <= _FEW:
        return {}, Counter(bisect_right(EDGES, float(x)) for x in predictions)
    import numpy as np

    return {}, _places(np.searchsorted(EDGES, np.asarray(predictions, dtype=float), side="right"))


def confidence(scores: Any) -> tuple[Mapping[int, int], float]:
    """Count the highest probability of each row by its place among CONFIDENCE; returns the counts and their sum.

    Args:
        scores: array of shape (rows, classes), each 0 to 1.
    """
    if len(scores) == 1:
        value = min(max(scores[0].tolist()), 1.0)
        return {bisect_left(CONFIDENCE, value): 1}, value
    import numpy as np

    highest = scores.max(axis=1)
    return _places(np.searchsorted(CONFIDENCE, np.minimum(highest, 1.0), side="left")), float(highest.sum())


def _places(found: Any) -> dict[int, int]:
    import numpy as np

    # Places are small numbers: counting them so is ten times as fast as sorting them.
    counts = np.bincount(found)
    places = np.flatnonzero(counts)
    return dict(zip(places.tolist(), counts[places].tolist(), strict=True))


def unseen_in(cells: Sequence[Any], known: frozenset[Any]) -> int:
    """Count values of a column that are none of its known categories; missing ones are left out."""
    if len(cells) <= _FEW:
        return sum(cell is not None and cell == cell and cell not in known for cell in cells)
    counts = Counter(cells)
    return sum(n for cell, n in counts.items() if cell is not None and cell == cell and cell not in known)


def known_categories(model: Any) -> dict[str, frozenset[Any]]:
    """Find the categories of every column that a ColumnTransformer gives to an encoder which was fitted on them.

    A column that is encoded twice has the categories of both; one that is not encoded is left out.
    """
    known: dict[str, frozenset[Any]] = {}
    for _, step in getattr(model, "steps", ()):
        known |= known_categories(step)
    for _, transformer, columns in getattr(model, "transformers_", ()):
        names = [columns] if isinstance(columns, str) else columns
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            continue
        for part in [s for _, s in getattr(transformer, "steps", ())] or [transformer]:
            categories = getattr(part, "categories_", None)
            if isinstance(categories, list) and len(categories) == len(names):
                for name, values in zip(names, categories, strict=True):
                    plain = values.tolist() if hasattr(values, "tolist") else values
                    known[name] = known.get(name, frozenset()) | frozenset(plain)
    return known
