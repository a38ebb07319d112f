"""The one metric table: what each gate metric is, which way is better, what it needs, where it can lie.

The evaluator computes from it, the gates judge by it, `validate` names the nearest entry for a typing error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Task = Literal["Classification", "Regression"]
Direction = Literal["Higher", "Lower"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of the table.

    `low` and `high` bound its value; None means unbounded. `needs_scores`: computed from probabilities, not
    from labels. `meaning` says the formula in words.
    """

    name: str
    task: Task
    direction: Direction
    low: float | None
    high: float | None
    needs_scores: bool
    meaning: str


_TABLE = (
    Metric("accuracy", "Classification", "Higher", 0, 1, False, "share of rows whose class is right"),
    Metric("balanced_accuracy", "Classification", "Higher", 0, 1, False, "mean recall over the classes"),
    Metric("precision", "Classification", "Higher", 0, 1, False, "of the rows called positive, the share that is"),
    Metric("recall", "Classification", "Higher", 0, 1, False, "of the positive rows, the share that is found"),
    Metric("f1", "Classification", "Higher", 0, 1, False, "harmonic mean of precision and recall"),
    Metric(
        "roc_auc",
        "Classification",
        "Higher",
        0,
        1,
        True,
        "chance that a positive row scores above a negative",
    ),
    Metric("average_precision", "Classification", "Higher", 0, 1, True, "area under precision over recall"),
    Metric("log_loss", "Classification", "Lower", 0, None, True, "mean negative log probability of the truth"),
    Metric("brier", "Classification", "Lower", 0, 1, True, "mean squared error of the positive probability"),
    Metric("rmse", "Regression", "Lower", 0, None, False, "root of the mean squared error, unit of the target"),
    Metric("mae", "Regression", "Lower", 0, None, False, "mean absolute error, unit of the target"),
    Metric("median_ae", "Regression", "Lower", 0, None, False, "median absolute error, unit of the target"),
    Metric("mape", "Regression", "Lower", 0, None, False, "mean absolute error as a share of the truth"),
    Metric("r2", "Regression", "Higher", None, 1, False, "1 minus squared error over the target's variance"),
    Metric("bias", "Regression", "Lower", 0, None, False, "absolute value of the mean error, unit of the target"),
)

METRICS: dict[str, Metric] = {m.name: m for m in _TABLE}
"""Every metric by name."""


def improvement(metric: Metric, challenger: float, champion: float) -> float:
    """Compute by how much the challenger is better; positive is better whatever the direction.

    >>> improvement(METRICS["rmse"], 40.0, 50.0)
    10.0
    """
    return challenger - champion if metric.direction == "Higher" else champion - challenger


QUANTILE_GRID: tuple[float, ...] = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.975, 0.99, 0.995,
)  # fmt: skip
"""Probabilities at which the paired bootstrap distribution of an improvement is kept as evidence."""


SLICE_GRID: tuple[float, ...] = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 0.8, 0.9, 0.95, 0.975, 0.99, 0.995, 0.9975, 0.999, 0.9995,
)  # fmt: skip
"""The same for slices: further up, since with many slices each must be surer that it is worse."""


def quantile(values: tuple[float, ...], probability: float, grid: tuple[float, ...] = QUANTILE_GRID) -> float:
    """Read a quantile from values kept at a grid, linear in between; beyond its ends, the value of the end.

    Args:
        values: one per grid point, ascending.
        probability: 0 to 1.
        grid: where they were kept.
    """
    if probability <= grid[0]:
        return values[0]
    for i in range(1, len(grid)):
        if probability <= grid[i]:
            share = (probability - grid[i - 1]) / (grid[i] - grid[i - 1])
            return values[i - 1] + share * (values[i] - values[i - 1])
    return values[-1]
