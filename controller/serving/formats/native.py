"""What a model looks like that is no scikit-learn estimator: the few things that `Predictor` asks of it.

The base of the readers of ONNX, XGBoost and LightGBM files, and the errors that they share.  Knows no library.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from controller.clients.errors import Denied

_NUMBERS = re.compile(r"(\d+)\.(\d+)")


class Native(ABC):
    """A loaded model of a library of its own."""

    columns: tuple[str, ...] | None = None
    """Names of the columns it needs, in order; None when the file has none."""
    features: int | None = None
    """How many columns it needs; None when the file does not say."""
    kinds: Mapping[str, str] = {}
    """`number`, `string` or `boolean` by column, where the file says it."""
    parallel: bool = False
    """Whether several threads may predict at once."""

    arrays: bool = False
    """Whether `rows` may be an array of numbers instead of a frame."""
    classes: Sequence[Any] | None = None
    """The classes it tells apart; None where it predicts numbers, or does not say."""
    classified: bool = False
    """Whether it predicts classes."""

    @abstractmethod
    def predict(self, rows: Any) -> Any:
        """Predict an array with one plain value for each row of a DataFrame: the class, or the number."""

    @abstractmethod
    def probabilities(self, rows: Any) -> tuple[Sequence[Any], Any] | None:
        """Give the classes, and a probability of each for each row; None for a model that has none."""

    def both(self, rows: Any) -> tuple[Any, tuple[Sequence[Any], Any] | None]:
        """Give what `predict` and `probabilities` give, asking the model once where that is enough."""
        return self.predict(rows), self.probabilities(rows)


class FromOneRun(Native):
    """A model whose one run gives numbers from which both labels and probabilities follow."""

    def predict(self, rows: Any) -> Any:
        """Predict the class of each row, or a number."""
        return self._labels(self._raw(rows))

    def both(self, rows: Any) -> tuple[Any, tuple[Sequence[Any], Any] | None]:
        """Give labels and probabilities of one run."""
        raw = self._raw(rows)
        return self._labels(raw), self._probabilities(raw)

    @abstractmethod
    def _raw(self, rows: Any) -> Any:
        """Run the model."""

    @abstractmethod
    def _labels(self, raw: Any) -> Any:
        """Read the class of each row, or the number, from a run."""

    @abstractmethod
    def _probabilities(self, raw: Any) -> tuple[Sequence[Any], Any] | None:
        """Read the classes and their probabilities from a run; None where there are none."""


def not_loadable(message: str) -> Denied:
    """Say why a model cannot be loaded; `message` names the file, the error and a way out."""
    return Denied(f"the model cannot be loaded: {message}", reason="ModelNotLoadable")


def missing_library(file: str, library: str, extra: str, error: ImportError) -> Denied:
    """Say that a library is not installed here."""
    return not_loadable(
        f"{file} needs {library}, which cannot be imported here ({short(error)}): "
        f"install mainspring[{extra}], or set serving.image to an image that has it"
    )


def mismatch(library: str, stated: str, here: str) -> Denied:
    """Say that a model was made by another release than the one that runs here, naming both."""
    return Denied(
        f"the model was trained with {library} {stated}, and {here} runs here: "
        "train it in the runtime image, or set serving.image to one with its version",
        reason="EnvironmentMismatch",
    )


def not_newer(library: str, stated: str, here: str) -> None:
    """Refuse a file of a newer release; libraries that promise to read their older files need no more.

    Args:
        library: its name.
        stated: version that the artifact states; empty or without numbers when it does not.
        here: version that runs here.

    Raises:
        Denied: EnvironmentMismatch.
    """
    theirs, ours = _NUMBERS.match(stated), _NUMBERS.match(here)
    if theirs and ours and (int(theirs[1]), int(theirs[2])) > (int(ours[1]), int(ours[2])):
        raise mismatch(library, stated, here)


def names_in(text: str | None) -> tuple[str, ...] | None:
    """Read a JSON list of different names; None for everything else."""
    try:
        found = json.loads(text or "null")
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list) or not found or len(set(map(str, found))) < len(found):
        return None
    return tuple(str(n)[:200] for n in found)


def without_places(text: str, path: Path) -> str:
    """Leave the directories of a file out of a library's message: they tell nobody anything."""
    return (
        text.replace(f"{path.parent}/", "").replace(f"{path.parent.parent}/", "../").replace(str(path.parent), ".")
    )


def short(error: BaseException) -> str:
    """Write an error on one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
