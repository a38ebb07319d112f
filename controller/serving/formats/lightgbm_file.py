"""Reads LightGBM's own model file, `model.txt`: trees and names, no code.

The objective in its head says what is answered: `binary`, `multiclass` and `multiclassova` the class (0 to n - 1,
the file has no other names) with probabilities; everything else a number.  Columns of text become categories in
the order in which the training had them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from controller.serving.formats.native import (
    FromOneRun,
    missing_library,
    not_loadable,
    not_newer,
    short,
    without_places,
)

HEAD_MAX_BYTES: Final = 64 << 20
"""The head holds the names of all columns and is over where the first tree begins."""
_UNNAMED: Final = re.compile(r"Column_\d+")


class LightGBMModel(FromOneRun):
    """A booster and what the head of its file says."""

    def __init__(self, booster: Any, head: dict[str, str]) -> None:
        names = tuple(str(n) for n in booster.feature_name())
        self._booster = booster
        self.columns = None if all(_UNNAMED.fullmatch(n) for n in names) else names
        self.features = len(names)
        infos = head.get("feature_infos", "").split()
        self._categories = {n for n, i in zip(names, infos, strict=False) if i[0] not in "[n"}
        self.kinds = {n: "number" for n in names if n not in self._categories} if self.columns else {}
        objective = head.get("objective", "").partition(" ")[0]
        self._binary = objective in ("binary", "cross_entropy_binary")
        many = int(head.get("num_class", "1")) if objective in ("multiclass", "multiclassova") else 0
        self._classes = [0, 1] if self._binary else list(range(many))
        self.classes, self.classified = self._classes or None, bool(self._classes)

    def _labels(self, raw: Any) -> Any:
        import numpy as np

        raw = np.asarray(raw)
        if not self._classes:
            return raw
        codes = (raw > 0.5).astype(int) if self._binary else raw.argmax(axis=1)
        return np.asarray(self._classes)[codes]

    def probabilities(self, rows: Any) -> tuple[Sequence[Any], Any] | None:
        """Give the probability of every class, where the objective has them."""
        return self._probabilities(self._raw(rows)) if self._classes else None

    def _probabilities(self, raw: Any) -> tuple[Sequence[Any], Any] | None:
        import numpy as np

        if not self._classes:
            return None
        raw = np.asarray(raw, dtype=float)
        return self._classes, np.stack([1.0 - raw, raw], axis=1) if self._binary else raw

    def _raw(self, rows: Any) -> Any:
        import pandas as pd

        known = self._booster.pandas_categorical or []
        table = {}
        for name in rows.columns:
            text = not pd.api.types.is_numeric_dtype(rows[name]) and not pd.api.types.is_bool_dtype(rows[name])
            is_category = bool(known) and (name in self._categories or text)
            table[name] = rows[name].astype("category") if is_category else pd.to_numeric(rows[name])
        return self._booster.predict(pd.DataFrame(table), num_threads=1)


def read(path: Path, stated: str) -> tuple[LightGBMModel, str]:
    """Read one file; returns the model and the version that MLmodel states.

    Args:
        path: a verified file.
        stated: version that MLmodel states; empty without one, the file itself has none.

    Raises:
        Denied: ModelNotLoadable; EnvironmentMismatch when a newer LightGBM wrote it than runs here.
    """
    lightgbm, head = check_release(path, stated), _head(path)
    if "version" not in head:
        raise not_loadable(f"{path.name} is not a model file of LightGBM: write it with Booster.save_model")
    try:
        return LightGBMModel(lightgbm.Booster(model_file=str(path)), head), stated
    except (lightgbm.basic.LightGBMError, ValueError, KeyError, IndexError, TypeError) as error:
        raise not_loadable(
            f"{path.name} is not a model file of LightGBM: {without_places(short(error), path)}"
        ) from error


def check_release(path: Path, stated: str) -> Any:
    """Import LightGBM, if it can read what the stated version wrote; raises as `read`."""
    try:
        import lightgbm
    except (ImportError, OSError) as error:
        # Its library needs the system's OpenMP, whose absence is an OSError.
        raise missing_library(path.name, "LightGBM", "lightgbm", ImportError(str(error))) from error
    not_newer("LightGBM", stated, str(lightgbm.__version__))
    return lightgbm


def _head(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    with path.open("rb") as file:
        if file.readline(16).strip() != b"tree":
            return found
        for line in file.read(HEAD_MAX_BYTES).partition(b"\nTree=")[0].decode("utf-8", "replace").splitlines():
            name, equals, value = line.partition("=")
            if equals:
                found[name] = value
    return found
