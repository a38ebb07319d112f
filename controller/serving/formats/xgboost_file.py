"""Reads XGBoost's own model files, `model.ubj` and `model.json`: trees and names, no code.

The objective says what is answered.  `binary:logistic` and `multi:softprob` answer the class, with probabilities;
`binary:hinge`, `binary:logitraw` and `multi:softmax` the class alone; everything else a number.  XGBoost's classes
are 0 to n - 1; a booster's attribute `classes` (a JSON list) gives them other names.
Trees after the best iteration of an early stop are left out, as XGBoost's own estimators do.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from controller.serving.formats.native import (
    FromOneRun,
    missing_library,
    names_in,
    not_loadable,
    not_newer,
    short,
    without_places,
)

_CLASSES_OF = {"binary:logistic", "binary:logitraw", "binary:hinge", "multi:softprob", "multi:softmax"}
_PROBABILITIES_OF = {"binary:logistic", "multi:softprob"}


class XGBoostModel(FromOneRun):
    """A booster, its objective and its classes."""

    def __init__(self, booster: Any, objective: str, classes: tuple[str, ...] | None, count: int) -> None:
        names, types = booster.feature_names, booster.feature_types
        self._booster, self._objective = booster, objective
        self.columns = tuple(str(n) for n in names) if names else None
        self.features = int(booster.num_features())
        self._types = dict(zip(names or (), types or (), strict=False))
        self.kinds = {n: "number" for n, t in self._types.items() if t != "c"}
        self._classes: Sequence[Any] = classes if classes is not None else list(range(count))
        self.classified = objective in _CLASSES_OF
        self.classes = self._classes if self.classified else None
        best = booster.attr("best_iteration")
        self._rounds = (0, int(best) + 1) if best and str(best).isdecimal() else (0, 0)

    def _labels(self, raw: Any) -> Any:
        import numpy as np

        raw = np.asarray(raw)
        if self._objective not in _CLASSES_OF:
            return raw.astype(float)
        if raw.ndim == 2:
            codes = raw.argmax(axis=1)
        elif self._objective == "multi:softmax":
            codes = raw.astype(int)
        else:
            codes = (raw > (0.0 if self._objective == "binary:logitraw" else 0.5)).astype(int)
        return np.asarray(self._classes)[codes]

    def probabilities(self, rows: Any) -> tuple[Sequence[Any], Any] | None:
        """Give the probability of every class, where the objective has them."""
        return self._probabilities(self._raw(rows)) if self._objective in _PROBABILITIES_OF else None

    def _probabilities(self, raw: Any) -> tuple[Sequence[Any], Any] | None:
        import numpy as np

        if self._objective not in _PROBABILITIES_OF:
            return None
        raw = np.asarray(raw, dtype=float)
        return self._classes, raw if raw.ndim == 2 else np.stack([1.0 - raw, raw], axis=1)

    def _raw(self, rows: Any) -> Any:
        import pandas as pd
        import xgboost

        columns = {
            name: rows[name].astype("category") if self._types.get(name) == "c" else pd.to_numeric(rows[name])
            for name in rows.columns
        }
        table = xgboost.DMatrix(pd.DataFrame(columns), enable_categorical="c" in self._types.values(), nthread=1)
        return self._booster.predict(table, iteration_range=self._rounds, validate_features=bool(self._types))


def read(path: Path, stated: str) -> tuple[XGBoostModel, str]:
    """Read one file; returns the model and the version that wrote it, empty when nobody says.

    Args:
        path: a verified file.
        stated: version that MLmodel states; empty without one.

    Raises:
        Denied: ModelNotLoadable; EnvironmentMismatch when a newer XGBoost wrote it than runs here.
    """
    try:
        import xgboost
    except ImportError as error:
        raise missing_library(path.name, "XGBoost", "xgboost", error) from error
    stated = stated or _version_in(path)
    not_newer("XGBoost", stated, str(xgboost.__version__))
    try:
        booster = xgboost.Booster({"nthread": 1})
        booster.load_model(str(path))
        learner = json.loads(booster.save_config())["learner"]
        objective = str(learner["objective"]["name"])
        count = max(2, int(learner["learner_model_param"]["num_class"]))
    except (xgboost.core.XGBoostError, ValueError, KeyError, TypeError) as error:
        raise not_loadable(
            f"{path.name} is not a model file of XGBoost: {without_places(_last(error), path)}"
        ) from error
    classes = names_in(booster.attr("classes"))
    if classes is not None and len(classes) != count:
        raise not_loadable(f"{path.name} names {len(classes)} classes in its attribute, but has {count}")
    return XGBoostModel(booster, objective, classes, count), stated


def _version_in(path: Path) -> str:
    """Read the version that a JSON file states; the binary form is asked nothing, XGBoost checks it itself."""
    if path.suffix != ".json":
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 200))
        tail = file.read().decode("utf-8", "replace")
    _, found, rest = tail.rpartition('"version":')
    try:
        numbers = json.loads(rest.strip().removesuffix("}")) if found else []
    except ValueError:
        return ""
    return ".".join(str(int(n)) for n in numbers) if isinstance(numbers, list) else ""


def _last(error: Exception) -> str:
    """Take XGBoost's own sentence out of a message with its stack."""
    lines = [line for line in str(error).partition("Stack trace")[0].splitlines() if line.strip()]
    return lines[-1].rpartition(": ")[2][:200] if lines else short(error)
