"""A faster form of a scikit-learn model: the same function as a graph for ONNX Runtime, made when it is loaded.

It serves only where it gave the same predictions as the model itself on the whole hold-out (`compared`), which the
predict step has seen and a trusted key has signed (`proven`).  What it may not decide goes to the model itself:
missing values, numbers beyond its range, and classes whose probabilities are nearly the same.  Never guesses.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from controller.api.modelrevision import FasterForm
from controller.api.statements import RECORD
from controller.serving import ways
from controller.serving.formats.onnx_file import OnnxModel
from controller.serving.values import Scalar

TOLERANCE: Final = 1e-5
"""Largest difference of two predicted numbers as a part of the prediction, or of the mean size of all of them; for
classes, of two probabilities."""
CLOSE: Final = 1e-4
"""Where the two highest probabilities are closer than this, the model itself is asked for the class."""
NODES_MAX: Final = 500_000
"""Most nodes of all trees: converting more takes a server longer than it may start."""
PRECISIONS: Final = ("float64", "float32")
"""In the order in which they are tried: ONNX has not every model in double precision."""
ACCELERATE: Final = "MAINSPRING_ACCELERATE"
"""Variable of a server: `Off` keeps it from using a faster form."""

log = logging.getLogger("mainspring.serving")


class NoFasterForm(Exception):
    """There is none; the message says why, for people."""


class Form:
    """A faster form of one model.

    Attributes:
        name: what status shows, for example `ONNX float64`.
    """

    def __init__(self, graph: OnnxModel, classes: Any, precision: str) -> None:
        import numpy as np

        self.name = f"ONNX {precision}"
        self._precision = np.dtype(precision)
        self._classes = None if classes is None else np.asarray(classes)
        self._ask = graph.output(graph.scores if self._classes is not None else graph.label)

    def answer(self, rows: Any) -> tuple[list[Scalar], Any] | None:
        """Predict for an array of numbers; None: the model itself is to be asked for these rows.

        Args:
            rows: array of shape (rows, features).

        Returns:
            One plain value for each row, and an array of probabilities of shape (rows, classes), or None.
        """
        import numpy as np

        if rows.dtype != self._precision:
            with np.errstate(over="ignore"):
                rows = rows.astype(self._precision)
        if not np.isfinite(rows).all():
            return None
        found = self._ask(rows)
        if self._classes is None:
            numbers = found.reshape(-1).tolist()
            return (numbers, None) if all(map(math.isfinite, numbers)) else None
        if not ways.is_clear(found, CLOSE):
            return None
        return self._classes[found.argmax(axis=1)].tolist(), found

    def each(self, rows: Any) -> tuple[list[Any], Any, list[int]]:
        """Predict every row that this form would decide: predictions, probabilities or None, and which rows.

        Raises:
            NoFasterForm: the probabilities are not one for each class.
        """
        import numpy as np

        with np.errstate(over="ignore"):
            given = np.ascontiguousarray(rows, dtype=self._precision)
        kept = np.flatnonzero(np.isfinite(given).all(axis=1))
        if not len(kept):
            return [], None, []
        found = np.asarray(self._ask(given[kept]), dtype=np.float64)
        if self._classes is None:
            return found.reshape(-1).tolist(), None, kept.tolist()
        if found.shape != (len(kept), len(self._classes)):
            raise NoFasterForm("the converted model does not give a probability of each class")
        clear = ways.margins(found) > CLOSE
        found, kept = found[clear], kept[clear]
        return self._classes[found.argmax(axis=1)].tolist(), found, kept.tolist()


def form_of(model: Any) -> Form:
    """Make the faster form of a fitted model.

    Args:
        model: an estimator of scikit-learn.

    Raises:
        NoFasterForm: it is no model that takes nothing but numbers, a library is missing, or the converter or
            ONNX Runtime does not know a part of it.
    """
    if not ways.takes_arrays(model):
        raise NoFasterForm("only scikit-learn models of columns of numbers are converted")
    if (nodes := _nodes(model)) > NODES_MAX:
        raise NoFasterForm(f"its trees have {nodes:,} nodes, more than the {NODES_MAX:,} that are converted")
    try:
        import onnxruntime  # noqa: F401 - only whether both are here
        import skl2onnx  # noqa: F401
    except ImportError as error:
        raise NoFasterForm(f"{error.name} is not installed here (extra: onnx)") from error
    why = ""
    for precision in PRECISIONS:
        try:
            return Form(_converted(model, precision), getattr(model, "classes_", None), precision)
        except Exception as error:  # noqa: BLE001 - converters raise anything for what they do not know
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
            log.debug("no form in %s: %s", precision, why)
    raise NoFasterForm(f"it cannot be converted: {why}")


def _converted(model: Any, precision: str) -> OnnxModel:
    import numpy as np
    import onnxruntime
    import skl2onnx

    zeros = np.zeros((1, int(model.n_features_in_)), dtype=precision)
    options = {"zipmap": False} if hasattr(model, "classes_") else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = skl2onnx.to_onnx(model, zeros, options=options)
    given = onnxruntime.SessionOptions()
    given.intra_op_num_threads = given.inter_op_num_threads = 1
    given.log_severity_level = 4
    session = onnxruntime.InferenceSession(graph.SerializeToString(), given, providers=["CPUExecutionProvider"])
    return OnnxModel(session, Path("the converted model"), getattr(model, "classes_", None))


def _nodes(model: Any) -> int:
    """Count the nodes of all trees in an estimator and its steps."""
    parts = [step for _, step in getattr(model, "steps", ())] or [model]
    total = 0
    for part in parts:
        trees = getattr(part, "estimators_", ())
        for tree in getattr(trees, "flat", trees):
            total += int(getattr(getattr(tree, "tree_", None), "node_count", 0))
    return total


def alike(found: Sequence[Any], expected: Sequence[Any]) -> bool:
    """Say whether predictions of the same rows are the same, numbers within the tolerance."""
    return compared("form", expected, None, found, None, range(len(expected))).name != ""


def compared(
    name: str, own: Sequence[Any], own_scores: Any, given: Sequence[Any], scores: Any, rows: Sequence[int]
) -> FasterForm:
    """Compare what a faster form predicted for the hold-out with what the model itself did.

    Args:
        name: of the form.
        own: the model's own predictions of all rows.
        own_scores: its probabilities, a list for each row, or None.
        given: the form's predictions of the rows that it would decide.
        scores: its probabilities of those, or None.
        rows: which they are.

    Returns:
        The form with how many rows were compared and the largest difference; without a name where it may not
        serve, and why.
    """
    if not rows:
        return FasterForm(why=f"{name} would have decided no row of the hold-out", tolerance=TOLERANCE)
    numbers = scores is None and all(isinstance(p, int | float) for p in (*own, *given))
    size = sum(map(abs, own)) / len(own) if numbers else 0.0
    worst, difference = 0, -1.0
    for place, row in enumerate(rows):
        if numbers:
            apart = abs(given[place] - own[row]) / max(abs(own[row]), size, 1e-300)
        elif given[place] != own[row]:
            apart = 1.0
        else:
            pairs = zip(scores[place], own_scores[row], strict=True) if scores and own_scores else ()
            apart = max((abs(a - b) for a, b in pairs), default=0.0)
        if apart > difference:
            worst, difference = place, apart
    found = FasterForm(name=name, rows=len(rows), difference=difference, tolerance=TOLERANCE)
    if difference <= TOLERANCE:
        return found
    row = rows[worst]
    why = (
        f"{name} predicts {given[worst]!r:.60} for row {row} of the hold-out, the model {own[row]!r:.60}: "
        f"{difference:.2g} apart, {TOLERANCE:g} is allowed"
    )
    return found.model_copy(update={"name": "", "why": why})


def proven(lineage: Path) -> str:
    """Read from the lineage beside a model which faster form of it is proven; empty: none is.

    The `fetch-model` step has verified the file; what it may not say is which bytes are loaded.
    """
    try:
        envelope = json.loads(lineage.read_bytes())
        statement = json.loads(base64.b64decode(envelope["payload"]))
        form = statement["predicate"][RECORD]["evidence"]["form"]
        return str(form.get("name", ""))
    except FileNotFoundError:
        return ""
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        log.debug("the lineage names no faster form: %s", type(error).__name__)
        return ""
