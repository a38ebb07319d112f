"""Models that learned nothing but the training labels, as predictions for any rows.

The same answers as scikit-learn's `DummyClassifier` (most_frequent, prior) and `DummyRegressor` (mean, median),
from the statistics of the labels alone; a test holds the two together.  Nothing is fitted or loaded here.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from controller.stats.metrics import Classification, Floats, Ints, Regression


def constant_class(rows: Classification, counts: Ints, *, shares: bool) -> Classification:
    """Answer the commonest class of the training for every row; of equal ones, the first.

    Args:
        rows: truth of the rows, and the classes.
        counts: training rows of each of `rows.classes`; at least one is not 0.
        shares: True: probabilities are the shares of the classes (prior); False: 1 for the answer (most_frequent).
    """
    answer = int(np.argmax(counts))
    one = np.zeros(counts.size) if not shares else counts / counts.sum()
    if not shares:
        one[answer] = 1.0
    scores: Floats = np.tile(one, (rows.truth.size, 1))
    return replace(rows, prediction=np.full(rows.truth.size, answer, dtype=np.int64), scores=scores)


def constant_number(rows: Regression, number: float) -> Regression:
    """Answer one number for every row: the mean or the median of the training labels."""
    return Regression(rows.truth, np.full(rows.truth.size, number))
