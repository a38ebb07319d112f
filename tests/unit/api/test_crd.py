"""The CRDs: structural, documented, bounded, and those that are committed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from controller.api import crd, crd_rules
from controller.api.kinds import KINDS

CRDS = Path(__file__).parents[3] / "crds"
ALLOWED = {
    "type", "properties", "items", "additionalProperties", "required", "enum", "pattern", "minLength", "maxLength",
    "minItems", "maxItems", "maxProperties", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    "default", "description", "allOf", "x-kubernetes-validations", "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys", "x-kubernetes-map-type", "x-kubernetes-preserve-unknown-fields",
}  # fmt: skip


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in node:
            yield from nodes(node[key], f"{path}[]")


ALL = [(kind, path, node) for kind in KINDS for path, node in nodes(crd.schema_of(kind))]


def test_the_committed_crds_are_those_of_the_kinds() -> None:
    generated = {crd.file_name(kind): crd.to_yaml(name) for name, kind in KINDS.items()}
    committed = {f.name: f.read_text(encoding="utf-8") for f in CRDS.iterdir()}
    assert committed == generated, "run `make generate` and commit crds/"


def test_writing_gives_the_same_files(tmp_path: Path) -> None:
    crd.write(str(tmp_path))
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == {f.name: f.read_bytes() for f in CRDS.iterdir()}


def test_every_node_is_structural() -> None:
    for kind, path, node in ALL:
        where = f"{kind}{path}"
        assert set(node) <= ALLOWED, where
        assert "type" in node or node.get("x-kubernetes-preserve-unknown-fields"), where
        assert not ("properties" in node and "additionalProperties" in node), where
        for bound in ("exclusiveMinimum", "exclusiveMaximum"):
            assert node.get(bound) in (None, True), where
        for choice in node.get("allOf", []):
            assert set(choice) == {"anyOf"}, where
            assert "type" not in str(choice).replace("'required': ['type']", ""), where
        assert None not in (node.get("default", ""), *node.get("enum", [])), where


def test_every_field_is_described() -> None:
    bare = [
        f"{kind}{path}"
        for kind, path, node in ALL
        if not node.get("description") and not path.endswith("[]") and path != ".metadata"
    ]
    assert bare == []


def test_everything_that_grows_is_bounded() -> None:
    for kind, path, node in ALL:
        if path in (".apiVersion", ".kind", ".metadata"):
            continue
        if node.get("type") == "string":
            assert "enum" in node or "maxLength" in node, f"{kind}{path}"
        if node.get("type") == "array":
            assert "maxItems" in node, f"{kind}{path}"
        if node.get("type") == "object" and "properties" not in node:
            assert "maxProperties" in node, f"{kind}{path}"


def test_no_limit_of_what_people_write_is_set_by_the_server_alone() -> None:
    for kind, path, node in ALL:
        if kind != "ModelRevision" and path.startswith(".spec"):
            by_pattern = "{40}|" in node.get("pattern", "")
            assert by_pattern or node.get("maxLength") != crd.MAX_STRING, (
                f"{kind}{path} needs a limit in its model"
            )
            assert (
                path.startswith(".spec.training.params")
                or node.get("maxItems") != crd.MAX_ITEMS
                or (path == ".spec.checks[].allowed")
            ), f"{kind}{path} needs a limit in its model"


def test_every_validator_of_a_model_is_a_rule_or_on_the_list() -> None:
    missing = []
    for name, model in _models():
        decorators = model.__pydantic_decorators__
        said = name in crd_rules.OBJECT_RULES or name in crd_rules.REQUIRED_ONE_OF
        if decorators.model_validators and not said:
            missing.append(name)
        for validator in decorators.field_validators.values():
            for field in validator.info.fields:
                key = (name, model.model_fields[field].alias or field)
                known = key in crd_rules.FIELD_RULES or key in crd_rules.ENUMS
                if not known and key not in crd_rules.NAMED_LISTS | crd_rules.ON_OBJECT:
                    missing.append(".".join(key))
    assert missing == []


def test_no_rule_is_left_without_its_model() -> None:
    fields = {(name, field.alias or key) for name, model in _models() for key, field in model.model_fields.items()}
    assert set(crd_rules.OBJECT_RULES) <= {name for name, _ in _models()}
    assert set(crd_rules.FIELD_RULES) | set(crd_rules.ENUMS) | set(crd_rules.NAMED_LISTS) <= fields


@pytest.mark.parametrize("kind", KINDS)
def test_the_names_that_people_type_are_there(kind: str) -> None:
    spec = yaml.safe_load(crd.to_yaml(kind))["spec"]
    (version,) = spec["versions"]
    assert spec["names"]["categories"] == ["mainspring"]
    assert version["subresources"] == {"status": {}}
    assert [c["name"] for c in version["additionalPrinterColumns"]] == [c[0] for c in KINDS[kind].columns]
    root = version["schema"]["openAPIV3Schema"]
    assert root["properties"]["status"]["default"] == {"observedGeneration": -1}
    conditions = root["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


def test_a_revision_is_immutable() -> None:
    rules = crd.schema_of("ModelRevision")["properties"]["spec"]["x-kubernetes-validations"]
    assert "self == oldSelf" in [r["rule"] for r in rules]


def test_the_defaults_of_a_block_apply_when_the_block_is_absent() -> None:
    spec = crd.schema_of("ModelSpec")["properties"]["spec"]["properties"]
    assert spec["serving"]["default"] == {}
    assert spec["serving"]["properties"]["canary"]["default"] == {}
    assert spec["serving"]["properties"]["canary"]["properties"]["stepWeights"]["default"] == [10, 50]


def _models() -> list[tuple[str, type[BaseModel]]]:
    found: dict[str, type[BaseModel]] = {}
    todo: list[Any] = [kind.model for kind in KINDS.values()]
    while todo:
        item = todo.pop()
        if isinstance(item, type) and issubclass(item, BaseModel):
            if item.__name__ not in found:
                found[item.__name__] = item
                todo += [f.annotation for f in item.model_fields.values()]
        else:
            todo += getattr(item, "__args__", ())
    return sorted(found.items())
