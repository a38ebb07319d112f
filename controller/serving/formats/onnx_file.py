"""Reads `model.onnx` with ONNX Runtime on the CPU: a graph of known operators, no code of the author's.

Inputs: one tensor of all columns, or one input per column, named as it.  Outputs: one tensor of one value per row
is the prediction; of two, the label is the prediction and the other holds probabilities, as the converters of
scikit-learn, XGBoost and LightGBM write them.  What a graph cannot say about itself its metadata may: `columns`
and `classes`, each a JSON list of names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from controller.serving.formats.native import (
    Native,
    mismatch,
    missing_library,
    names_in,
    not_loadable,
    short,
    without_places,
)

_TYPES: Final = {
    "tensor(float)": ("float32", "number"),
    "tensor(double)": ("float64", "number"),
    "tensor(float16)": ("float16", "number"),
    "tensor(int64)": ("int64", "number"),
    "tensor(int32)": ("int32", "number"),
    "tensor(bool)": ("bool", "boolean"),
    "tensor(string)": ("object", "string"),
}
"""Type of an input → numpy's name of it, kind of the column."""
_LABELS: Final = ("tensor(int64)", "tensor(int32)", "tensor(string)", "tensor(bool)")
_TOO_NEW: Final = re.compile(
    r"Unsupported model IR version: (?P<ir>\d+), max supported IR version: (?P<ir_here>\d+)"
    r"|Opset (?P<opset>\d+) is under development.*support for domain (?P<domain>\S+) is till opset (?P<here>\d+)",
    re.S,
)
_HEAD: Final = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ :(?: Load model from \S+ failed:)?(?: Fatal error:)?"
)
"""What ONNX Runtime puts before every sentence."""


class OnnxModel(Native):
    """A session, its inputs and which of its outputs is what."""

    parallel = True

    def __init__(self, session: Any, path: Path, classes: Sequence[Any] | None = None) -> None:
        self._session = session
        self._inputs = session.get_inputs()
        for given in self._inputs:
            if given.type not in _TYPES:
                raise not_loadable(
                    f"{path.name} has the input {given.name!r:.80} of type {given.type}; known are tensors of "
                    "numbers, booleans and strings"
                )
        said = session.get_modelmeta().custom_metadata_map
        width = _width(self._inputs[0])
        self._whole = len(self._inputs) == 1
        """One tensor holds all columns."""
        if self._whole:
            self.columns = names_in(said.get("columns")) or ((str(self._inputs[0].name),) if width == 1 else None)
            self.kinds = dict.fromkeys(self.columns or (), _TYPES[self._inputs[0].type][1])
        else:
            self.columns = tuple(str(i.name) for i in self._inputs)
            self.kinds = {str(i.name): _TYPES[i.type][1] for i in self._inputs}
        self.features = len(self.columns) if self.columns else width
        self._outputs = session.get_outputs()
        self._classes = names_in(said.get("classes")) if classes is None else tuple(classes)
        self.label, self.scores = _roles(self._outputs)
        # A missing value has no integer: pandas refuses it, an array of integers would not.
        self.arrays = self._whole and "float" in _TYPES[self._inputs[0].type][0]
        self.classes = self._classes
        self.classified = next(o.type for o in self._outputs if o.name == self.label) in _LABELS

    def output(self, name: str | None) -> Callable[[Any], Any]:
        """Return what computes one output for an array of the one input's own type, and nothing around it.

        Raises:
            Denied: ModelNotLoadable: it has no such output, or several inputs.
        """
        if name is None or not self._whole:
            raise not_loadable("the graph has not the one input and output that are asked for")
        run, given, wanted = self._session.run, self._inputs[0].name, [name]
        return lambda rows: run(wanted, {given: rows})[0]

    def predict(self, rows: Any) -> Any:
        """Predict the label or the number of each row."""
        (found,) = self._session.run([self.label], self._feed(rows))
        return self._labels(found)

    def both(self, rows: Any) -> tuple[Any, tuple[Sequence[Any], Any] | None]:
        """Give labels and probabilities of one run."""
        if self.scores is None:
            return self.predict(rows), None
        label, found = self._session.run([self.label, self.scores], self._feed(rows))
        return self._labels(label), self._probabilities(label, found)

    def _labels(self, found: Any) -> Any:
        import numpy as np

        if not hasattr(found, "shape"):
            return found
        return found.astype(float) if np.issubdtype(found.dtype, np.floating) else found

    def probabilities(self, rows: Any) -> tuple[Sequence[Any], Any] | None:
        """Give the probability of every class, where there is an output for them and the classes have names."""
        return self.both(rows)[1]

    def _probabilities(self, label: Any, found: Any) -> tuple[Sequence[Any], Any] | None:
        import numpy as np

        if isinstance(found, list):
            classes = list(found[0]) if found and isinstance(found[0], dict) else []
            return classes, [[float(row[c]) for c in classes] for row in found]
        if found.ndim != 2:
            return None
        classes = list(self._classes or ())
        if not classes and np.issubdtype(label.dtype, np.integer):
            classes = list(range(found.shape[1]))
        return (classes, found.astype(float)) if classes else None

    def _feed(self, rows: Any) -> dict[str, Any]:
        if self._whole:
            given = self._inputs[0]
            kind = _TYPES[given.type][0]
            return {given.name: rows.to_numpy(dtype=kind) if hasattr(rows, "to_numpy") else rows.astype(kind)}
        return {
            i.name: rows[i.name].to_numpy(dtype=_TYPES[i.type][0]).reshape((-1, 1) if len(i.shape) == 2 else (-1,))
            for i in self._inputs
        }


def _width(given: Any) -> int | None:
    """Return how many columns an input takes; None when it takes any number."""
    return given.shape[1] if len(given.shape) == 2 and isinstance(given.shape[1], int) else None


def _real(kind: str) -> bool:
    return "float" in kind or "double" in kind


def _roles(outputs: Sequence[Any]) -> tuple[str, str | None]:
    """Tell which output is the prediction, and which the probabilities."""
    if len(outputs) == 1:
        return outputs[0].name, None
    label = next((o for o in outputs if o.type in _LABELS), outputs[0])
    scores = next((o for o in outputs if o is not label and (o.type.startswith("seq(map") or _real(o.type))), None)
    return label.name, scores.name if scores else None


def read(path: Path, stated: str) -> tuple[OnnxModel, str]:
    """Read one file; returns the model, and the version of the onnx package that MLmodel states.

    Args:
        path: a verified file, with its external data beside it where it has any.
        stated: version that MLmodel states; empty without one. It decides nothing: the file says what it needs.

    Raises:
        Denied: ModelNotLoadable; EnvironmentMismatch when the file needs a newer ONNX Runtime.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_library(path.name, "ONNX Runtime", "onnx", error) from error
    options = onnxruntime.SessionOptions()
    # One request is answered by one thread; threads of the server are for other requests.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        here = str(onnxruntime.__version__)
        if new := _TOO_NEW.search(str(error)):
            what = f"IR version {new['ir']}" if new["ir"] else f"opset {new['opset']} of {new['domain']}"
            most = new["ir_here"] or new["here"]
            raise mismatch("ONNX", what, f"ONNX Runtime {here}, which reads up to {most},") from error
        raise not_loadable(_explain(path, error)) from error
    return OnnxModel(session, path), stated


def _explain(path: Path, error: Exception) -> str:
    text = without_places(str(error), path)
    said = " ".join(text[match.end() :].split()) if (match := _HEAD.search(text)) else short(error)
    if "is not a registered function/op" in said:
        return f"{path.name} uses an operator that ONNX Runtime does not have: {said[:160]}; export it without"
    if "xternal data" in said:
        return (
            f"{path.name} keeps its weights elsewhere: {said[:200]}; leave model/ with model.onnx and them in it"
        )
    return f"{path.name} cannot be read by ONNX Runtime: {said[:200]}"
