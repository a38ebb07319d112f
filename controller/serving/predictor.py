"""A loaded model: rows in, one prediction per row out.

The same object answers in the predict step and in the server.  It names the columns it needs, gives the model
exactly those in its order, and checks every answer.  Never loads anything.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Final

from controller.clients.errors import Denied
from controller.serving import values
from controller.serving.formats.native import Native
from controller.serving.values import Scalar

_SHOWN: Final = 10


class ColumnsMissing(Denied):
    """A table lacks columns that the model names."""

    default_reason = "ColumnsMissing"


class Predictor:
    """A model and what it says of itself.

    Attributes:
        columns: names it was fitted with, in order, or those of its signature; None when it knows none.
        features: how many features it was fitted with; None when it does not say.
        kinds: `number`, `string` or `boolean` by column, where known.
        example: a request body that came with the model, for the first prediction; None when none came.
        format: mlflow, skops, joblib, onnx, xgboost or lightgbm.
        packages: versions that the artifact states.
        parallel: True where several threads may predict at once: estimators of scikit-learn and sessions of ONNX
            Runtime do not change when they predict; of others nobody knows, so they get one thread.
    """

    def __init__(
        self,
        model: Any,
        *,
        kind: str,
        packages: Mapping[str, str] | None = None,
        named: tuple[str, ...] | None = None,
        kinds: Mapping[str, str] | None = None,
        example: bytes | None = None,
    ) -> None:
        self._model = model
        native = model if isinstance(model, Native) else None
        fitted = native.columns if native else getattr(model, "feature_names_in_", None)
        self.columns: tuple[str, ...] | None = named if fitted is None else tuple(str(c) for c in fitted)
        self.features: int | None = len(self.columns) if self.columns else _count(model)
        self.kinds: dict[str, str] = {**(native.kinds if native else {}), **(kinds or {})}
        self.format = kind
        self.packages: dict[str, str] = dict(packages or {})
        self.example = example
        self.parallel = native.parallel if native else _only_sklearn(model)

    def predict(self, frame: Any) -> list[Scalar]:
        """Predict one plain value for each row of a DataFrame.

        Raises:
            ColumnsMissing: the table lacks columns. Denied: PredictionsInvalid. Whatever the model raises.
        """
        rows = self._rows(frame)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer = self._model.predict(rows)
        return values.checked_predictions(answer, len(rows))

    def scores(self, frame: Any) -> tuple[list[str], list[list[float]]] | None:
        """Give class names and probabilities for each row; None for a model that has none.

        Raises:
            As `predict`.
        """
        rows = self._rows(frame)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = _probabilities(self._model, rows)
        return None if found is None else values.checked_scores(list(found[0]), found[1], len(rows))

    def synthetic_row(self) -> list[Any]:
        """Make up a row: zeros, but a category that an encoder inside the model knows where there is one."""
        columns = self.columns or [str(n) for n in range(self.features or 1)]
        known = _categories(self._model)
        return [known.get(c, 0) for c in columns]

    def _rows(self, frame: Any) -> Any:
        if self.columns is None:
            return frame
        if missing := [c for c in self.columns if c not in frame.columns]:
            raise ColumnsMissing(missing_text(missing, len(self.columns)))
        return frame[list(self.columns)]


def _probabilities(model: Any, rows: Any) -> tuple[Any, Any] | None:
    if isinstance(model, Native):
        return model.probabilities(rows)
    try:
        classes, predict_proba = model.classes_, model.predict_proba
    except AttributeError:
        return None
    return classes, predict_proba(rows)


def missing_text(missing: list[str], needed: int) -> str:
    """Say which of the model's columns a table lacks."""
    more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    names = ", ".join(repr(m)[:80] for m in missing[:_SHOWN])
    return f"{len(missing)} of the {needed} columns that the model needs are missing: {names}{more}"


def _categories(model: Any) -> dict[str, Any]:
    """Find the first category of every column that a ColumnTransformer gives to an encoder."""
    known: dict[str, Any] = {}
    for _, step in getattr(model, "steps", ()):
        known |= _categories(step)
    for _, transformer, columns in getattr(model, "transformers_", ()):
        for part in [s for _, s in getattr(transformer, "steps", ())] or [transformer]:
            categories = getattr(part, "categories_", None)
            if isinstance(columns, list) and isinstance(categories, list) and len(columns) == len(categories):
                known |= {str(c): v[0] for c, v in zip(columns, categories, strict=True) if len(v)}
    return {c: v.item() if hasattr(v, "item") else v for c, v in known.items()}


def _count(model: Any) -> int | None:
    count = model.features if isinstance(model, Native) else getattr(model, "n_features_in_", None)
    return int(count) if count is not None else None


def _only_sklearn(model: Any) -> bool:
    steps = getattr(model, "steps", None) or getattr(model, "transformers_", None)
    if steps is not None:
        return all(isinstance(s[1], str) or _only_sklearn(s[1]) for s in steps)
    return type(model).__module__.startswith("sklearn.")
