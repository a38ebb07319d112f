"""The hash marks: every field of a ModelSpec belongs to one hash, and the hashes stay what they are."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from controller.api.base import HashMark, Strict
from controller.api.hashes import digest, marked
from controller.api.modelspec import ModelSpecSpec

SPEC: dict[str, Any] = {
    "source": {"url": "https://git.example.com/churn.git", "ref": {"branch": "main"}},
    "data": [{"name": "train", "path": "train.csv"}],
    "columns": {"target": "churned"},
    "checks": [{"name": "rows", "minRows": 100}],
    "training": {"command": ["python", "train.py"], "params": {"depth": 3}},
    "gates": [{"name": "good", "metric": "f1", "min": 0.85}],
}

GOLDEN = {
    HashMark.INPUTS: "v1:d573125aa03eb88afdacf78f551a26a203ea230ae3088b2110ef8fe4009355ec",
    HashMark.EVIDENCE: "v1:61cb47f594750e51e8755316e61e1ceab456e4e11c934642aa3a1a84fc58ed8f",
    HashMark.GATE: "v1:ec9bf7aff07902bf96de9b66ce2da477c334b28b61fa21e9727835f0350c37bb",
}


def unmarked(model: type[BaseModel], inherited: bool = False, path: str = "") -> list[str]:
    """List the leaves that no mark reaches, and the fields with more than one mark of their own."""
    found = []
    for name, field in model.model_fields.items():
        marks = [m for m in field.metadata if isinstance(m, HashMark)]
        has = inherited or bool(marks)
        inner = field.annotation
        if len(marks) > 1:
            found.append(f"{path}{name}: {len(marks)} marks")
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += unmarked(inner, has, f"{path}{name}.")
        elif not has:
            found.append(f"{path}{name}")
    return found


def test_every_field_of_a_model_spec_belongs_to_a_hash() -> None:
    assert unmarked(ModelSpecSpec) == []


def test_a_field_without_a_mark_is_found() -> None:
    class Below(Strict):
        """A block."""

        leaf: int = 0

    class Spec(Strict):
        """A spec."""

        good: Annotated[Below, HashMark.GATE] = Below()
        bad: Below = Below()
        twice: Annotated[int, HashMark.GATE, HashMark.NONE] = 0

    assert unmarked(Spec) == ["bad.leaf", "twice: 2 marks"]


@pytest.mark.parametrize("mark", GOLDEN)
def test_a_hash_never_changes_for_the_same_spec(mark: HashMark) -> None:
    assert digest(marked(ModelSpecSpec.model_validate(SPEC), mark)) == GOLDEN[mark]


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        pytest.param({"training": {**SPEC["training"], "seed": 7}}, {HashMark.INPUTS}, id="the seed retrains"),
        pytest.param(
            {"training": {**SPEC["training"], "backoffLimit": 3}}, set(), id="how often it is tried moves nothing"
        ),
        pytest.param({"gates": []}, {HashMark.GATE}, id="gates are judged again"),
        pytest.param({"checks": []}, {HashMark.EVIDENCE}, id="checks belong to the evidence"),
        pytest.param({"serving": {"minReplicas": 5}}, set(), id="replicas move nothing"),
        pytest.param({"suspend": True}, set(), id="suspend moves nothing"),
    ],
)
def test_a_change_moves_only_its_hash(change: dict[str, Any], moved: set[HashMark]) -> None:
    before, after = (ModelSpecSpec.model_validate(s) for s in (SPEC, SPEC | change))
    assert {m for m in GOLDEN if digest(marked(before, m)) != digest(marked(after, m))} == moved
