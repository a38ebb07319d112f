"""What a model may answer: one finite value for every row, and what of it is written to JSON.

The same rules hold in the predict step and in the server, so a model that was evaluated is a model that serves.
Never repairs an answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from controller.clients.errors import Denied

Scalar = bool | int | float | str


def checked_predictions(values: Any, rows: int) -> list[Scalar]:
    """Return a model's predictions as plain values, one for every row.

    Args:
        values: array of shape (rows,) or (rows, 1), or a list: numbers, booleans or strings.
        rows: how many rows were asked for.

    Raises:
        Denied: PredictionsInvalid: another number of values, NaN or infinity, or what is not a plain value.
    """
    shape = getattr(values, "shape", None)
    if shape is not None:
        if len(shape) == 2 and shape[1] == 1:
            values = values.reshape(-1)
        elif len(shape) != 1:
            raise _invalid(
                f"the model answers with an array of shape {tuple(shape)}; one value per row is expected"
            )
    plain = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(plain, list):
        raise _invalid(f"the model answers with {type(values).__name__}; one value per row is expected")
    if len(plain) != rows:
        raise _invalid(f"the model answers {rows} rows with {len(plain)} predictions")
    if shape is not None and _plain_array(values):
        return plain
    for row, value in enumerate(plain):
        if isinstance(value, float):
            if not math.isfinite(value):
                raise _invalid(f"the model predicts {value} for row {row}; a prediction must be finite")
        elif not isinstance(value, bool | int | str):
            raise _invalid(
                f"the model predicts {type(value).__name__} for row {row}; expected a number or a string"
            )
    return plain


def _plain_array(values: Any) -> bool:
    """Say whether an array holds nothing but finite numbers, booleans or strings, without looking at each."""
    import numpy as np

    kind = getattr(getattr(values, "dtype", None), "kind", "O")
    return kind in "biuU" or (kind == "f" and bool(np.isfinite(values).all()))


def checked_scores(classes: Sequence[Any], values: Any, rows: int) -> tuple[list[str], list[list[float]]]:
    """Return class names and one list of probabilities for every row, each 0 to 1.

    Raises:
        Denied: PredictionsInvalid.
    """
    names = [str(c) for c in classes]
    plain = values.tolist() if hasattr(values, "tolist") else values
    if len(set(names)) != len(names) or not names:
        raise _invalid(f"the model's {len(names)} classes have no names of their own")
    if not isinstance(plain, list) or len(plain) != rows:
        raise _invalid(f"the model gives scores for another number of rows than the {rows} it was asked for")
    for row, scores in enumerate(plain):
        if not isinstance(scores, list) or len(scores) != len(names):
            raise _invalid(f"the model does not give {len(names)} scores for row {row}, one per class")
        if not all(isinstance(s, float | int) and -1e-9 <= s <= 1 + 1e-9 for s in scores):
            raise _invalid(f"the model gives row {row} a score that is not a probability from 0 to 1")
    return names, plain


def plausible_scores(found: Any, classes: Sequence[str] | None, rows: int) -> Any:
    """Return an array of probabilities, each 0 to 1, one for each class and row; None when it is not."""
    import numpy as np

    if found is None or classes is None:
        return None
    try:
        scores = np.asarray(found, dtype=float)
    except (TypeError, ValueError):
        return None
    if scores.shape != (rows, len(classes)) or not scores.size:
        return None
    one = scores[0].tolist() if rows == 1 else None
    least, most = (min(one), max(one)) if one else (scores.min(), scores.max())
    # A comparison with NaN is false.
    return scores if least >= -1e-9 and most <= 1 + 1e-9 and (one is None or sum(one) == sum(one)) else None


def _invalid(message: str) -> Denied:
    return Denied(message, reason="PredictionsInvalid")
