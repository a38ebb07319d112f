"""The description of a server by itself: OpenAPI with the model's own columns, and a page for people made of it.

Describes what is served and nothing else; what JSON Schema cannot say (that lists are equally long) is said in
words.  The page is one file without scripts: it needs no network.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from controller.serving.invocations import BODY_MAX_BYTES, ROWS_MAX
from controller.serving.openinference import PREDICT, PROBABILITIES, WHOLE
from controller.serving.predictor import Predictor
from controller.serving.tensors import DATATYPES, OF_KIND

MILLION: Final = 1e6
_JSON_TYPES: Final = {"number": "number", "string": "string", "boolean": "boolean"}
_SIZE: Final = {"type": "integer", "minimum": 1, "maximum": ROWS_MAX}
_EXAMPLES: Final[dict[str, Any]] = {"number": 0, "string": "", "boolean": False}
_REFUSALS: Final = {
    "400": "The request cannot be answered as it is; the sentence names row and column.",
    "408": "The body did not arrive in time.",
    "413": f"The body has more than {BODY_MAX_BYTES:,} bytes, packed or unpacked.",
    "415": "Another content type, charset or content encoding than is taken.",
    "429": "Too many requests are waiting; try again after Retry-After.",
    "500": "The model failed.",
    "504": "The model did not answer in time.",
}

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Described:
    """What a description is made of."""

    name: str
    revision: str
    version: str
    commit: str
    predictor: Predictor
    kinds: Mapping[str, str]
    gaps: bool
    """Whether the model takes missing numbers."""


def document(of: Described) -> Json:
    """Write the OpenAPI document."""
    paths: Json = {
        "/invocations": {"post": _invocations(of)},
        **{f"/v2/models/{of.name}{at}/infer": {"post": _infer(of)} for at in ("", f"/versions/{of.version}")},
        "/v2": {"get": _page("What this server is.", {"type": "object", "required": ["name", "version"]})},
        "/v2/health/live": {"get": _page("Whether the process works.", {"type": "object"}, down=True)},
        "/v2/health/ready": {"get": _page("Whether requests are answered.", {"type": "object"}, down=True)},
        f"/v2/models/{of.name}": {"get": _page("The model's tensors.", {"type": "object"})},
        f"/v2/models/{of.name}/ready": {"get": _page("Whether it is ready.", {"type": "object"}, down=True)},
        "/health/live": {"get": _text("Whether the process works.", down=True)},
        "/health/ready": {"get": _text("Whether requests are answered, or why not.", down=True)},
        "/metadata": {"get": _page("Model, revision, version, commit, columns.", {"type": "object"})},
        "/version": {"get": _text("The model's version.")},
        "/metrics": {"get": _text("Counters in the Prometheus text format.")},
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": of.name or "model",
            "version": of.version or "0",
            "description": f"Revision {of.revision or '-'}, commit {of.commit or '-'}, {of.predictor.format}. "
            "Every answer carries X-Request-Id and X-Mainspring-Model, -Revision, -Version and -Commit.",
        },
        "paths": paths,
        "components": {"schemas": _schemas(of)},
    }


def example(of: Described) -> Json:
    """Make up a request of one row."""
    return {"instances": [dict(zip(_names(of), _row(of), strict=True)) if of.predictor.columns else _row(of)]}


def tensors_of(of: Described) -> Json:
    """Make up the same request in tensors."""
    names, row = _names(of), _row(of)
    if not of.predictor.columns:
        return {"inputs": [{"name": WHOLE, "datatype": "FP64", "shape": [1, len(row)], "data": row}]}
    types = [
        OF_KIND[of.kinds.get(n, "string" if isinstance(v, str) else "number")]
        for n, v in zip(names, row, strict=True)
    ]
    return {
        "inputs": [
            {"name": name, "datatype": datatype, "shape": [1], "data": [value]}
            for name, datatype, value in zip(names, types, row, strict=True)
        ]
    }


def page(of: Described) -> bytes:
    """Write the page for people."""
    found = document(of)
    rows = "".join(
        f"<tr><td><code>{html.escape(n)}</code></td><td>{html.escape(of.kinds.get(n, 'any'))}</td></tr>"
        for n in of.predictor.columns or ()
    )
    columns = f"<table><tr><th>Column</th><th>Kind</th></tr>{rows}</table>" if rows else _unnamed(of)
    calls = "".join(
        f"<tr><td>{method.upper()}</td><td><code>{html.escape(path)}</code></td>"
        f"<td>{html.escape(operation['summary'])}</td></tr>"
        for path, operations in found["paths"].items()
        for method, operation in operations.items()
    )
    refusals = "".join(f"<tr><td>{code}</td><td>{html.escape(said)}</td></tr>" for code, said in _REFUSALS.items())
    request = html.escape(json.dumps(example(of), ensure_ascii=False))
    title = html.escape(found["info"]["title"])
    return _PAGE.format(
        title=title,
        description=html.escape(found["info"]["description"]),
        columns=columns,
        request=request,
        calls=calls,
        refusals=refusals,
    ).encode()


_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><style>
body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}
table{{border-collapse:collapse}}td,th{{text-align:left;padding:.2rem .8rem .2rem 0;vertical-align:top}}
pre{{background:#8882;padding:.8rem;overflow-x:auto}}
</style></head><body><h1>{title}</h1><p>{description}</p>
<h2>Columns</h2>{columns}
<h2>A request</h2><pre>POST /invocations
content-type: application/json

{request}</pre>
<h2>What there is</h2><table>{calls}</table>
<h2>What may be refused</h2><table>{refusals}</table>
<p>For programs: <a href="/openapi.json">/openapi.json</a></p></body></html>
"""


def _unnamed(of: Described) -> str:
    return f"<p>{of.predictor.features or 'Some'} numbers in the order in which the model was fitted.</p>"


def _names(of: Described) -> list[str]:
    return list(of.predictor.columns or map(str, range(of.predictor.features or 1)))


def _row(of: Described) -> list[Any]:
    made = of.predictor.synthetic_row()
    kinds = [of.kinds.get(n, "") for n in _names(of)]
    return [_EXAMPLES[kind] if kind and value == 0 else value for kind, value in zip(kinds, made, strict=True)]


def _cell(of: Described, name: str) -> Json:
    kind = of.kinds.get(name)
    if kind is None:
        return {"type": ["number", "string", "boolean"]} if of.predictor.columns else {"type": "number"}
    if kind != "number":
        return {"type": _JSON_TYPES[kind]}
    # Larger numbers are taken, too; whether the model can do anything with them is its own matter.
    bounds = {"minimum": -MILLION, "maximum": MILLION}
    return {"type": ["number", "null"] if of.gaps else "number", **bounds}


def _schemas(of: Described) -> Json:
    names = _names(of)
    cells = {name: _cell(of, name) for name in names}
    row = {"type": "array", "prefixItems": list(cells.values()), "minItems": len(names), "maxItems": len(names)}
    if not of.predictor.columns and of.predictor.features is None:
        row = {"type": "array", "items": {"type": "number"}, "minItems": 1}
    record = {"type": "object", "properties": cells, "required": names, "additionalProperties": False}
    rows = {"type": "array", "minItems": 1, "maxItems": ROWS_MAX}
    split = {
        "type": "object",
        "properties": {
            "columns": {"const": names},
            "data": {**rows, "items": {"$ref": "#/components/schemas/Row"}},
            "index": {"type": "array"},
        },
        "required": ["columns", "data"],
        "additionalProperties": False,
    }
    listed = {**rows, "items": {"$ref": "#/components/schemas/Row"}}
    records = {**rows, "items": {"$ref": "#/components/schemas/Record"}}
    forms = [("dataframe_split", split), ("instances", listed), ("inputs", listed)]
    if of.predictor.columns:
        forms += [("dataframe_records", records), ("instances", records)]
    return {
        "Row": row,
        "Record": record,
        "Request": {"oneOf": [_only(name, schema) for name, schema in forms]},
        "Predictions": {
            **_only("predictions", {"type": "array", "minItems": 1, "items": _prediction(of)}),
            "description": "One prediction for each row, in their order.",
        },
        "Error": {
            "type": "object",
            "properties": {"error_code": {"type": "string"}, "message": {"type": "string"}},
            "required": ["error_code", "message"],
        },
        **_tensor_schemas(of),
    }


def _prediction(of: Described) -> Json:
    if of.predictor.classified:
        return {"type": ["string", "integer", "boolean", "number"]}
    return {"type": ["number", "string", "boolean"]}


def _only(name: str, schema: Json) -> Json:
    return {"type": "object", "properties": {name: schema}, "required": [name], "additionalProperties": False}


def _tensor_schemas(of: Described) -> Json:
    named = (
        {"enum": [*of.predictor.columns, WHOLE]} if of.predictor.columns else {"type": "string", "minLength": 1}
    )
    tensor = {
        "type": "object",
        "properties": {
            "name": named,
            "datatype": {"enum": list(DATATYPES)},
            "shape": {"type": "array", "items": _SIZE, "minItems": 1, "maxItems": 2},
            "data": {"type": "array", "description": "In one list, row after row, or in a list for each row."},
            "parameters": {"type": "object"},
        },
        "required": ["name", "datatype", "shape", "data"],
    }
    wanted = {
        "type": "object",
        "properties": {"name": {"enum": [PREDICT, PROBABILITIES]}, "parameters": {"type": "object"}},
        "required": ["name"],
    }
    request = {
        "type": "object",
        "properties": {
            "id": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
            "parameters": {"type": "object"},
            "inputs": {"type": "array", "minItems": 1, "items": tensor},
            "outputs": {"type": "array", "items": wanted},
        },
        "required": ["inputs"],
        "additionalProperties": False,
        "description": "A tensor for each column, of shape [rows] or [rows, 1], or one of all columns.",
    }
    output = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array"},
            "datatype": {"enum": list(DATATYPES)},
        },
        "required": ["name", "shape", "datatype"],
    }
    answer = {
        "type": "object",
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": output},
        },
        "required": ["model_name", "id", "outputs"],
    }
    error = _only("error", {"type": "string"})
    return {"InferRequest": request, "InferResponse": answer, "InferError": error}


def _invocations(of: Described) -> Json:
    request = {
        "application/json": {"schema": {"$ref": "#/components/schemas/Request"}, "example": example(of)},
        "text/csv": {"schema": {"type": "string", "description": "With a header line."}},
    }
    return {
        "summary": "Predictions, by MLflow's protocol.",
        "parameters": [_REQUEST_ID],
        "requestBody": {"required": True, "content": request},
        "responses": _responses("Predictions", "Error"),
    }


def _infer(of: Described) -> Json:
    request = {
        "application/json": {"schema": {"$ref": "#/components/schemas/InferRequest"}, "example": tensors_of(of)}
    }
    return {
        "summary": "Predictions, by the Open Inference Protocol.",
        "parameters": [_REQUEST_ID],
        "requestBody": {"required": True, "content": request},
        "responses": _responses("InferResponse", "InferError"),
    }


_REQUEST_ID: Final = {
    "name": "X-Request-Id",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
    "description": "Comes back, and is in the prediction log; one is made up where none is given.",
}


def _responses(good: str, bad: str) -> Json:
    return {
        "200": {"description": "One prediction for each row.", "content": _content(good)},
        **{code: {"description": said, "content": _content(bad)} for code, said in _REFUSALS.items()},
    }


def _content(name: str) -> Json:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _page(summary: str, schema: Json, *, down: bool = False) -> Json:
    told = {"description": summary, "content": {"application/json": {"schema": schema}}}
    return {"summary": summary, "responses": {"200": told, **({"503": told} if down else {})}}


def _text(summary: str, *, down: bool = False) -> Json:
    told = {"description": summary, "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {"summary": summary, "responses": {"200": told, **({"503": told} if down else {})}}
