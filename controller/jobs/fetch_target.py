"""What the training labels alone say: all that a model needs which learned nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from controller.api.reports import TargetFacts
from controller.jobs.checks import as_numbers

CLASSES_MAX: Final = 1000
"""Most classes that are counted."""


def target_facts(frame: Any, target: str, rows: Sequence[int]) -> TargetFacts | None:
    """Count the classes of the training rows, and average them where all are numbers; None without the column."""
    if target not in frame.columns or not rows:
        return None
    labels = frame[target].iloc[list(rows)].dropna()
    counts = labels.astype(object).value_counts()
    numbers = as_numbers(labels)
    is_number = bool(len(numbers)) and not bool(numbers.isna().any())
    return TargetFacts(
        counts={str(v): int(n) for v, n in counts.items()} if len(counts) <= CLASSES_MAX else {},
        mean=_finite(numbers.astype(float).mean()) if is_number else None,
        median=_finite(numbers.astype(float).median()) if is_number else None,
    )


def _finite(value: float) -> float | None:
    """Return a number as JSON can carry it; an infinite label has its own check, which says so."""
    return float(value) if math.isfinite(value) else None
