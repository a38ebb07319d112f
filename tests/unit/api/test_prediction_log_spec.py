"""What people may write about the log of predictions, and what they read when it is something else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controller.api.base import HashMark
from controller.api.hashes import marked
from controller.api.kinds import ModelSpec, parse
from controller.api.validation import check_text
from controller.plan.pinning import columns_of, inputs_hash
from tests.support.stories import spec


def written(log: dict[str, Any], **columns: Any) -> dict[str, Any]:
    made = spec(serving={"predictionLog": log})
    made["metadata"]["namespace"] = "ml"
    made["spec"]["columns"] |= columns
    return made


def problems(manifest: dict[str, Any]) -> str:
    return " ".join(str(p) for p in check_text(json.dumps(manifest).encode(), "model.yaml").problems)


@pytest.mark.parametrize(
    "log",
    [
        pytest.param({}, id="all of it, where the place says"),
        pytest.param({"mode": "Off"}, id="off"),
        pytest.param({"storage": {"uri": "s3://logs"}}, id="a bucket"),
        pytest.param({"storage": {"uri": "gs://logs.example.com/churn/prod/"}, "retention": "24h"}, id="a prefix"),
        pytest.param({"storage": {"uri": "az://logs/churn", "secretRef": {"name": "logs"}}}, id="a Secret"),
        pytest.param({"storage": {"uri": "file:///srv/logs/churn"}, "sample": 0.001}, id="a directory"),
        pytest.param({"mode": "Response", "sensitive": "Hash"}, id="predictions only"),
    ],
)
def test_a_log_is_taken(log):
    assert problems(written(log)) == ""


@pytest.mark.parametrize(
    ("log", "said"),
    [
        pytest.param({"mode": "Some"}, "mode", id="a mode that is none"),
        pytest.param({"sample": 0}, "sample", id="no request at all"),
        pytest.param({"sample": 1.5}, "sample", id="more than all"),
        pytest.param(
            {"retention": "1h"}, "1h is outside 24h to 87600h: whole days are deleted", id="less than a day"
        ),
        pytest.param({"retention": "30d"}, "a duration such as 90s", id="days"),
        pytest.param(
            {"storage": {"uri": "http://logs/x"}}, "s3://bucket/prefix, gs://bucket/prefix", id="no store"
        ),
        pytest.param({"storage": {"uri": "s3://user:secret@logs/x"}}, "s3://bucket/prefix", id="a password"),
        pytest.param({"storage": {"uri": "s3://logs/x?region=eu"}}, "s3://bucket/prefix", id="a query"),
        pytest.param({"storage": {"uri": "file:///"}}, "s3://bucket/prefix", id="the whole disk"),
        pytest.param(
            {"storage": {"uri": "file:///logs", "secretRef": {"name": "a"}}},
            "a directory takes no login",
            id="a login",
        ),
        pytest.param({"storage": {}}, "uri", id="a store without an address"),
        pytest.param({"retain": "24h"}, "retain", id="a field that is none"),
    ],
)
def test_what_is_no_log_is_refused_by_name(log, said):
    assert said in problems(written(log))


def test_who_may_see_a_column_is_no_part_of_what_the_model_learns():
    plain, hidden = parse(written({})), parse(written({}, sensitive=["email", "phone"]))
    assert isinstance(plain, ModelSpec)
    assert isinstance(hidden, ModelSpec)
    assert hidden.spec.columns.sensitive == ("email", "phone")
    for mark in (HashMark.INPUTS, HashMark.EVIDENCE, HashMark.GATE):
        assert marked(plain.spec, mark) == marked(hidden.spec, mark)
    assert inputs_hash(plain.spec, "v1:0", ()) == inputs_hash(hidden.spec, "v1:0", ())
    assert columns_of(plain.spec) == columns_of(hidden.spec)
