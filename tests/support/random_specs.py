"""Random ModelSpecs, drawn from the very schema that the API server holds them to.

Only what decides over pods is drawn at random; the rest is fixed, so that nearly every draw is a valid ModelSpec.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from controller.api.crd import schema_of
from controller.api.kinds import ModelSpec, parse
from controller.api.meta import API_VERSION, Manifest

_AT_RANDOM = ("training", "serving", "registry")
_KEYS = {
    "requests": st.sampled_from(["cpu", "memory", "ephemeral-storage", "nvidia.com/gpu"]),
    "limits": st.sampled_from(["cpu", "memory", "ephemeral-storage", "nvidia.com/gpu"]),
    "nodeSelector": st.sampled_from(["pool", "topology.kubernetes.io/zone", "example.com/gpu.kind", "a_b.c-D"]),
}
"""Maps whose keys mean something: any other key is refused long before a pod."""
PRIORITY = "batch-low"
"""PriorityClass that must exist where pods are made: a pod with an unknown one is refused by another rule."""
_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=20)


def _values(node: dict[str, Any], name: str) -> st.SearchStrategy[Any]:
    """Draw what a node of the schema allows."""
    if name == "priorityClassName":
        return st.just(PRIORITY)
    if "enum" in node:
        return st.sampled_from(node["enum"])
    match node.get("type"):
        case "object" if "properties" in node:
            return _object(node)
        case "object":
            keys = _KEYS.get(name, st.from_regex(r"[a-z_]{1,8}", fullmatch=True))
            values = node.get("additionalProperties", {"type": "integer", "minimum": 0, "maximum": 9})
            most = min(node.get("maxProperties", 4), 4)
            return st.dictionaries(keys, _values(values, f"{name}{{}}"), max_size=most)
        case "array":
            most = max(min(node.get("maxItems", 3), 3), node.get("minItems", 0))
            drawn = st.lists(_values(node["items"], f"{name}[]"), min_size=node.get("minItems", 0), max_size=most)
            return drawn.map(sorted) if name == "stepWeights" else drawn
        case "string":
            return _string(node)
        case "integer":
            return st.integers(node.get("minimum", 0), node.get("maximum", 100))
        case "number":
            return st.floats(node.get("minimum", 0), node.get("maximum", 1), allow_nan=False)
        case _:
            return st.booleans()


def _object(node: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    fields = {name: _values(child, name) for name, child in node["properties"].items()}
    needed = set(node.get("required", ()))
    return st.fixed_dictionaries(
        {n: s for n, s in fields.items() if n in needed},
        optional={n: s for n, s in fields.items() if n not in needed},
    )


def _string(node: dict[str, Any]) -> st.SearchStrategy[str]:
    pattern, least, most = node.get("pattern"), node.get("minLength", 0), node.get("maxLength", 40)
    drawn = st.from_regex(pattern, fullmatch=True) if pattern else _TEXT
    # `$` also stands before a last newline, for Python only.
    return drawn.filter(lambda text: least <= len(text) <= most and "\n" not in text and text.isascii())


@st.composite
def model_specs(draw: st.DrawFn) -> Manifest:
    """Draw a ModelSpec that `validate` accepts."""
    schema = schema_of("ModelSpec")["properties"]["spec"]["properties"]
    name = draw(st.from_regex(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True))
    spec: dict[str, Any] = {
        "source": {"url": "https://git.example.com/team/bikes.git", "ref": {"branch": "main"}},
        "data": [{"name": "train", "path": "data/train.csv"}],
        "columns": {"target": "bikers"},
        "training": {"command": ["python", "train.py"]},
        "gates": [{"name": "good-enough", "metric": "rmse", "max": 100}],
    }
    for part in _AT_RANDOM:
        drawn = draw(_values({**schema[part], "type": "object"}, part))
        spec[part] = {**spec.get(part, {}), **drawn}
    return {"apiVersion": API_VERSION, "kind": "ModelSpec", "metadata": {"name": name}, "spec": spec}


def is_valid(manifest: Manifest) -> bool:
    """Tell whether `validate` accepts it."""
    return isinstance(parse(manifest), ModelSpec)
