"""A loaded model: rows in, one prediction per row out.

The same object answers in the predict step and in the server.  It names the columns it needs, gives the model
exactly those in its order, and checks every answer.  Never loads anything.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from typing import Any, Final

from controller.clients.errors import Denied
from controller.serving import faster, values, ways
from controller.serving.formats.native import Native
from controller.serving.monitor import known_categories
from controller.serving.values import Scalar

_SHOWN: Final = 10

log = logging.getLogger("mainspring.serving")


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
        quick: whether it waits for nobody, so that only the time it takes decides where it is asked.
        arrays: whether it may be given an array of numbers instead of a frame; to be tried before it is relied on.
        classes: names of the classes that it tells apart; None where it predicts numbers, or has not said yet.
        classified: whether it predicts classes.
        form: the faster form that answers arrays, where one was proven.
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
        self.parallel = native.parallel if native else ways.only_sklearn(model)
        self.quick = native.parallel if native else ways.runs_nothing_foreign(model)
        self.arrays = native.arrays if native else ways.takes_arrays(model)
        told = native.classes if native else _classes(model)
        self.classes: tuple[str, ...] | None = None if told is None else tuple(map(str, told))
        self.classified = self.classes is not None or (native is not None and native.classified)
        self._by_scores = native is None and ways.by_scores(model)
        self.known = known_categories(model)
        self.form: faster.Form | None = None

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

    def answer(self, rows: Any, count: int, scores: bool) -> tuple[list[Scalar], Any]:
        """Predict for the server: one plain value for each row, and probabilities.

        Args:
            rows: a frame with the model's columns in its order, or an array where `arrays` holds.
            count: how many rows.
            scores: whether to ask for probabilities where they need a call of their own.

        Returns:
            The predictions, and an array of probabilities of shape (rows, classes), or None.

        Raises:
            Denied: PredictionsInvalid. Whatever the model raises.
        """
        found: Any = None
        if self.form is not None and not hasattr(rows, "columns"):
            quick = self.form.answer(rows)
            if quick is not None:
                return quick
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if isinstance(self._model, Native):
                labels, pair = self._model.both(rows)
                if pair is not None:
                    found = pair[1]
                    self.classes = self.classes or tuple(map(str, pair[0]))
            elif self._by_scores:
                labels, found = ways.classes_and_scores(self._model, rows)
            else:
                labels = self._model.predict(rows)
                if scores and self.classes is not None:
                    found = self._extra_scores(rows)
        return values.checked_predictions(labels, count), values.plausible_scores(found, self.classes, count)

    def _extra_scores(self, rows: Any) -> Any:
        try:
            pair = _probabilities(self._model, rows)
        except Exception as error:  # noqa: BLE001 - a model may raise anything; its prediction stands
            log.warning("the model gives no probabilities: %s", type(error).__name__)
            return None
        return None if pair is None else pair[1]

    def faster(self) -> faster.Form:
        """Make the faster form of the model; it answers nothing before it is set as `form`.

        Raises:
            NoFasterForm.
        """
        if isinstance(self._model, Native):
            raise faster.NoFasterForm("only scikit-learn models are converted")
        return faster.form_of(self._model)

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


def _classes(model: Any) -> list[Any] | None:
    """List the classes of a classifier; None for everything else, and where a row has several of them."""
    try:
        found = model.classes_
    except AttributeError:
        return None
    plain = found.tolist() if hasattr(found, "tolist") else found
    return plain if isinstance(plain, list) and not any(isinstance(c, list) for c in plain) else None
