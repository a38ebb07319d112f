"""The Open Inference Protocol, version 2, over REST: what the model is, whether it is ready, and inference.

Takes tensors and answers tensors: `predict`, and on demand `predict_proba`.  A request's `id` comes back, and is
the request's id where no header gives another.  Knows no HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import orjson

import controller
from controller.serving import exchange, tensors
from controller.serving.engine import Engine, Served
from controller.serving.invocations import BadRequest, frame_of
from controller.serving.predictor import Predictor, missing_text
from controller.serving.table import Table, of_cells
from controller.serving.tensors import BYTES, OF_KIND, Tensor

PREDICT: Final = "predict"
PROBABILITIES: Final = "predict_proba"
WHOLE: Final = "input"
"""Name of the one tensor of a model whose columns have no names; any other name does as well."""
OCTETS: Final = b"application/octet-stream"
SPLIT: Final = b"inference-header-content-length"
_FIELDS: Final = frozenset(("id", "parameters", "inputs", "outputs"))


def server() -> dict[str, Any]:
    """Describe the server."""
    return {"name": "mainspring", "version": controller.__version__, "extensions": ["binary_tensor_data"]}


def model(name: str, version: str, predictor: Predictor, kinds: dict[str, str]) -> dict[str, Any]:
    """Describe the model: its inputs, a tensor for each column where they have names, and its outputs."""
    if predictor.columns is None:
        inputs = [{"name": WHOLE, "datatype": "FP64", "shape": [-1, predictor.features or -1]}]
    else:
        inputs = [
            {"name": c, "datatype": OF_KIND[kinds.get(c, "number")], "shape": [-1]} for c in predictor.columns
        ]
    text = predictor.classified and any(not c.lstrip("-").isdigit() for c in predictor.classes or ("",))
    kind = BYTES if text else "INT64" if predictor.classified else "FP64"
    outputs: list[dict[str, Any]] = [{"name": PREDICT, "datatype": kind, "shape": [-1]}]
    if predictor.classes is not None:
        outputs.append({"name": PROBABILITIES, "datatype": "FP64", "shape": [-1, len(predictor.classes)]})
    return {
        "name": name,
        "versions": [version],
        "platform": f"mainspring_{predictor.format}",
        "inputs": inputs,
        "outputs": outputs,
    }


def place(path: str) -> tuple[str, str | None, str] | None:
    """Take a path below /v2/models/ apart: name, version where there is one, and `ready`, `infer` or nothing."""
    name, *rest = path.removeprefix("/v2/models/").split("/")
    version = None
    if len(rest) >= 2 and rest[0] == "versions":
        version, rest = rest[1], rest[2:]
    action = rest[0] if rest else ""
    return (name, version, action) if len(rest) <= 1 and action in ("", "ready", "infer") and name else None


@dataclass(slots=True)
class Inference:
    """One request for inference, and the form that its answer has."""

    engine: Engine
    predictor: Predictor
    split: bytes
    """Length of the JSON before raw tensors, as the header says it; empty without."""
    id: str | None = None
    wanted: dict[str, bool] = field(default_factory=lambda: {PREDICT: False})
    """Outputs by name, and whether they are wanted raw."""

    def read(self, body: bytes) -> Table:
        """Read the rows of the request.

        Raises:
            BadRequest.
        """
        size = len(body)
        if self.split:
            if not self.split.isdigit() or len(self.split) > 12 or int(self.split) > size:
                raise BadRequest(f"{SPLIT.decode()} must be a number up to the {size:,} bytes of the body")
            size = int(self.split)
        try:
            document = orjson.loads(memoryview(body)[:size])
        except orjson.JSONDecodeError as error:
            raise BadRequest(f"the body is not JSON: {str(error)[:200]}") from error
        if not isinstance(document, dict):
            raise BadRequest("the body must be a JSON object with inputs")
        if extra := sorted(document.keys() - _FIELDS):
            raise BadRequest(
                f"{', '.join(repr(e)[:60] for e in extra[:5])} is not known; there are inputs, outputs, id"
            )
        self._read_id(document.get("id"))
        self._read_wanted(document)
        raw = memoryview(body)[size:]
        found, taken = tensors.read(document.get("inputs"), raw)
        if taken != len(raw):
            raise BadRequest(f"{len(raw) - taken:,} bytes after the JSON belong to no tensor")
        table = self._table(found)
        table.scores = PROBABILITIES in self.wanted
        return table

    def write(
        self, served: Served, name: str, version: str, given: str
    ) -> tuple[bytes, bytes, list[exchange.Pair]]:
        """Write the answer; returns it with its media type and further headers.

        Args:
            given: the request's id where the body has none.

        Raises:
            BadRequest: an output is wanted that the model does not give.
        """
        outputs, raw = [], []
        for wanted, as_bytes in self.wanted.items():
            head, data = self._output(wanted, served)
            if as_bytes:
                octets = tensors.raw_of(data)
                raw.append(octets)
                outputs.append({**head, "parameters": {"binary_data_size": len(octets)}})
            else:
                outputs.append({**head, "data": data})
        document = {"model_name": name, "model_version": version, "id": self.id or given, "outputs": outputs}
        text = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
        if not raw:
            return text, b"application/json", []
        return b"".join((text, *raw)), OCTETS, [(SPLIT, b"%d" % len(text))]

    def _output(self, name: str, served: Served) -> tuple[dict[str, Any], Any]:
        import numpy as np

        if name == PREDICT:
            return tensors.output(PREDICT, served.predictions)
        if served.scores is None:
            raise BadRequest(f"the model gives no probabilities, so there is no output {PROBABILITIES!r}")
        # A slice of an array is not in one piece, and would not be written.
        scores = np.ascontiguousarray(served.scores, dtype="<f8")
        return {"name": name, "shape": list(scores.shape), "datatype": "FP64"}, scores.reshape(-1)

    def _read_id(self, given: Any) -> None:
        if given is None:
            return
        if not isinstance(given, str) or not exchange.REQUEST_ID.fullmatch(given.encode("utf-8", "replace")):
            raise BadRequest("id must be 1 to 128 letters, digits or ._:-")
        self.id = given

    def _read_wanted(self, document: dict[str, Any]) -> None:
        raw = _flag(document, "binary_data_output")
        outputs = document.get("outputs")
        if outputs is None or outputs == []:
            self.wanted = {PREDICT: raw}
            return
        if not isinstance(outputs, list) or not all(isinstance(o, dict) for o in outputs):
            raise BadRequest("outputs must be a list of objects with a name")
        self.wanted = {}
        for output in outputs:
            name = output.get("name")
            if name not in (PREDICT, PROBABILITIES):
                raise BadRequest(f"there is no output {str(name)[:80]!r}; there are {PREDICT} and {PROBABILITIES}")
            self.wanted[name] = _flag(output, "binary_data", raw)

    def _table(self, found: list[Tensor]) -> Table:
        columns = self.predictor.columns
        if len(found) == 1 and len(found[0].shape) == 2 and (found[0].shape[1] != 1 or columns is None):
            return self._whole(found[0])
        for tensor in found:
            if len(tensor.shape) == 2 and tensor.shape[1] != 1:
                raise BadRequest(
                    f"tensor {tensor.name[:80]!r} has {tensor.shape[1]} columns: send one of all, or one for each"
                )
        by_name = {tensor.name: tensor for tensor in found}
        if columns is not None and (missing := [c for c in columns if c not in by_name]):
            raise BadRequest(missing_text(missing, len(columns)))
        names = list(by_name) if columns is None else columns
        picked = [by_name[name] for name in names]
        for tensor in picked:
            if tensor.rows != picked[0].rows:
                first = picked[0]
                raise BadRequest(
                    f"tensor {tensor.name[:80]!r} has {tensor.rows} rows and {first.name[:80]!r} {first.rows}"
                )
        if self.engine.arrays and all(_is_number(t) for t in picked):
            return self._matrix(names, picked[0].rows, [t.values for t in picked])
        return self._cells(names, [t.plain() for t in picked])

    def _whole(self, tensor: Tensor) -> Table:
        rows, width = tensor.shape
        columns = self.predictor.columns
        if columns is not None and width != len(columns):
            raise BadRequest(f"tensor {tensor.name[:80]!r} has {width} columns; the model needs {len(columns)}")
        names = columns if columns is not None else [str(n) for n in range(width)]
        if self.engine.arrays and _is_number(tensor):
            return self._matrix(names, rows, tensor.values.reshape(rows, width).T)
        plain = tensor.plain()
        return self._cells(names, [plain[n::width] for n in range(width)])

    def _matrix(self, names: Any, rows: int, values: Any) -> Table:
        import numpy as np

        matrix = np.empty((rows, len(names)), order="F")
        for place, column in enumerate(values):
            matrix[:, place] = column
        return Table(names, rows, self.engine.kinds, matrix=matrix)

    def _cells(self, names: Any, cells: list[list[Any]]) -> Table:
        found = of_cells(names, cells, self.engine.kinds)
        if found is not None:
            return found
        rows = [list(row) for row in zip(*cells, strict=True)]
        frame = frame_of(names, rows, self.predictor.columns, self.engine.kinds)
        return Table.of_frame(frame, self.engine.kinds)


def _is_number(tensor: Tensor) -> bool:
    return not isinstance(tensor.values, list) and tensor.datatype != "BOOL"


def _flag(holder: dict[str, Any], name: str, otherwise: bool = False) -> bool:
    parameters = holder.get("parameters")
    if parameters is None:
        return otherwise
    if not isinstance(parameters, dict):
        raise BadRequest("parameters must be an object")
    given = parameters.get(name, otherwise)
    if type(given) is not bool:
        raise BadRequest(f"{name} must be true or false")
    return given
