"""The CRDs, written from the kinds: `python -m controller.api.crd crds` (or `make generate`).

A structural schema says what pydantic's JSON schema says, in the smaller language of the API server; `crd_rules`
adds what only CEL can say.  Unknown fields are pruned by the server unless the client asks for strict validation,
as kubectl and the controller do.  Deterministic: the same kinds give the same bytes.  Never edited by hand.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any, Final

from controller.api.crd_rules import ENUMS, FIELD_RULES, NAMED_LISTS, OBJECT_RULES, REQUIRED_ONE_OF, cel
from controller.api.kinds import KINDS, Kind
from controller.api.meta import GROUP, VERSION

Node = dict[str, Any]

MAX_STRING: Final = 16_384
"""Longest text in characters where the model sets no limit; the cost of CEL rules is counted from it."""
MAX_ITEMS: Final = 1_024
"""Most entries of a list or map where the model sets no limit."""

_KEPT: Final = ("type", "enum", "pattern", "minLength", "maxLength", "minItems", "maxItems", "maxProperties")
_ANY: Final = "x-kubernetes-preserve-unknown-fields"
_OBJECT: Final = {
    "apiVersion": "Version of the kind: mainspring.dev/v1alpha1.",
    "kind": "The kind.",
    "spec": "What is wanted.",
    "status": "What is. Written by the controller.",
}


@cache
def schema_of(kind: str) -> Node:
    """Build the structural schema of a kind. Shared: callers must not change it."""
    model = KINDS[kind].model
    raw = model.model_json_schema(by_alias=True)
    schema = _Writer(raw.get("$defs", {})).node(raw, owner="", field="", status=False)
    fields: Node = schema["properties"]
    for name, description in _OBJECT.items():
        fields[name].setdefault("description", description)
    for name in ("apiVersion", "kind"):
        fields[name] = {"type": "string", "description": fields[name]["description"]}
    fields["metadata"] = {"type": "object"}
    fields["status"]["default"] = {"observedGeneration": -1}
    schema["required"] = ["spec"]
    return schema


def crd(kind: str) -> Node:
    """Build the CustomResourceDefinition of a kind."""
    row = KINDS[kind]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{row.plural}.{GROUP}", "labels": {"app.kubernetes.io/part-of": "mainspring"}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": row.name,
                "listKind": f"{row.name}List",
                "plural": row.plural,
                "singular": row.name.lower(),
                "shortNames": [row.short],
                "categories": ["mainspring"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(*c) for c in row.columns],
                    "schema": {"openAPIV3Schema": schema_of(kind)},
                }
            ],
        },
    }


def _column(name: str, type_: str, path: str, priority: int) -> Node:
    column: Node = {"name": name, "type": type_, "jsonPath": path}
    if priority:
        column["priority"] = priority
    return column


class _Writer:
    """Turns nodes of pydantic's JSON schema into nodes of a structural schema."""

    def __init__(self, defs: dict[str, Node]) -> None:
        self.defs = defs

    def node(self, raw: Node, *, owner: str, field: str, status: bool) -> Node:
        """Rewrite one node; `owner` and `field` are the names of the model and field it is the type of."""
        raw, optional = self._resolved(raw)
        if "anyOf" in raw or "type" not in raw:
            out: Node = {_ANY: True}
        else:
            out = {key: raw[key] for key in _KEPT if key in raw}
        if "const" in raw:
            out["enum"] = [raw["const"]]
        if values := ENUMS.get((owner, field)):
            out["enum"] = list(values)
        for bound, strict in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            if strict in raw:
                out |= {bound: raw[strict], strict: True}
            elif bound in raw:
                out[bound] = raw[bound]
        self._bounded(raw, out, owner=owner, field=field, status=status)
        if raw.get("type") == "object" and "properties" in raw:
            out |= self._object(raw, status=status)
        if description := raw.get("description"):
            out["description"] = " ".join(description.split())
        if not optional and not status and "default" in raw:
            out |= _default(raw["default"], out)
        if rules := FIELD_RULES.get((owner, field)):
            out["x-kubernetes-validations"] = cel(rules)
        return out

    def _resolved(self, raw: Node) -> tuple[Node, bool]:
        """Inline a reference and drop `or null`; the description of the field wins over that of the class."""
        optional = False
        if any(o == {"type": "null"} for o in raw.get("anyOf", ())):
            optional = True
            others = [o for o in raw["anyOf"] if o != {"type": "null"}]
            rest = {k: v for k, v in raw.items() if k not in ("anyOf", "default")}
            raw = {**others[0], **rest} if len(others) == 1 else {"anyOf": others, **rest}
        if "$ref" in raw:
            name = raw["$ref"].rpartition("/")[2]
            raw = {**self.defs[name], **{k: v for k, v in raw.items() if k != "$ref"}, "title": name}
        return raw, optional

    def _object(self, raw: Node, *, status: bool) -> Node:
        model = raw["title"]
        fields = {
            name: self.node(child, owner=model, field=name, status=status or name == "status")
            for name, child in raw["properties"].items()
        }
        out: Node = {"properties": fields}
        if raw.get("required"):
            out["required"] = sorted(raw["required"])
        if rules := OBJECT_RULES.get(model):
            out["x-kubernetes-validations"] = cel(rules)
        if choices := REQUIRED_ONE_OF.get(model):
            out["allOf"] = [{"anyOf": list(choice)} for choice in choices]
        return out

    def _bounded(self, raw: Node, out: Node, *, owner: str, field: str, status: bool) -> None:
        """Write entries of lists and maps, and a limit where the model has none."""
        kind = out.get("type")
        if kind == "string" and "enum" not in out:
            out.setdefault("maxLength", MAX_STRING)
        elif kind == "array":
            out.setdefault("maxItems", MAX_ITEMS)
            out["items"] = self.node(raw["items"], owner=owner, field=f"{field}[]", status=status)
            keys = ["type"] if field == "conditions" else ["name"] if (owner, field) in NAMED_LISTS else []
            out["x-kubernetes-list-type"] = "map" if keys else "atomic"
            if keys:
                out["x-kubernetes-list-map-keys"] = keys
        elif kind == "object" and "properties" not in raw:
            out.setdefault("maxProperties", MAX_ITEMS)
            # One writer says all of it. Entry by entry, an apply that leaves none behind would make it null, which
            # no schema takes (kubernetes/kubernetes#135841).
            out["x-kubernetes-map-type"] = "atomic"
            values = raw.get("additionalProperties")
            if isinstance(values, dict):
                out["additionalProperties"] = self.node(values, owner=owner, field=f"{field}{{}}", status=status)
            else:
                out[_ANY] = True


def _default(value: Any, out: Node) -> Node:
    """Write a default: `{}` for an object, whose fields then get their own; none for what is empty anyway."""
    if "properties" in out:
        return {"default": {}}
    if value in ([], {}, "", None):
        return {}
    return {"default": _without_null(value)}


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_null(v) for k, v in value.items() if v is not None}
    return [_without_null(v) for v in value] if isinstance(value, list) else value


def file_name(kind: Kind) -> str:
    """Name the file of a kind's CRD: `mainspring.dev_modelspecs.yaml`."""
    return f"{GROUP}_{kind.plural}.yaml"


def to_yaml(kind: str) -> str:
    """Write the CRD of a kind as YAML, always the same bytes."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
            return True

    text: str = yaml.dump(crd(kind), Dumper=Dumper, sort_keys=False, width=110, allow_unicode=True)
    return f"# Written by `make generate` from controller/api; do not edit.\n{text}"


def write(directory: str) -> list[str]:
    """Write the CRDs of all kinds into an existing directory; returns the paths."""
    paths = []
    for name, kind in KINDS.items():
        path = f"{directory.rstrip('/')}/{file_name(kind)}"
        with open(path, "w", encoding="utf-8", newline="\n") as file:  # noqa: PTH123
            file.write(to_yaml(name))
        paths.append(path)
    return paths


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m controller.api.crd DIRECTORY")
    try:
        sys.stdout.write("\n".join(write(sys.argv[1])) + "\n")
    except OSError as error:
        sys.exit(f"cannot write the CRDs: {error}")
