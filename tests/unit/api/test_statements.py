"""What the lineage statement of a model says, in the words of in-toto and SLSA."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from controller.api.hashes import canonical
from controller.api.kinds import ModelMeta, ModelRevision
from controller.api.statements import LedgerEntry, lineage_statement

COMMIT, BLOB, SHA = "c" * 40, "b" * 40, "d" * 64

ENTRY = LedgerEntry.model_validate(
    {
        "name": "bikes",
        "environment": "production",
        "seq": 1,
        "kind": "Admitted",
        "revision": "bikes-0123456789",
        "run": "f" * 32,
        "version": "3",
        "gateHash": "v1:" + "1" * 64,
        "gates": [{"gate": "rmse", "outcome": "Passed", "reason": "AboveMinimum", "message": "0.91 ≥ 0.90"}],
        "at": "2026-11-25T02:00:00Z",
    }
)


@pytest.fixture
def model():
    meta = ModelMeta(name="bikes", namespace="ml")
    # The statement is about the revision: of the ModelSpec it takes only the name.
    return SimpleNamespace(metadata=meta)


@pytest.fixture
def revision():
    return ModelRevision.model_validate(
        {
            "metadata": {"name": "bikes-0123456789", "namespace": "ml"},
            "spec": {
                "model": "bikes",
                "inputs": "v1:" + "2" * 64,
                "source": {
                    "url": "https://example.com/ml.git",
                    "commit": COMMIT,
                    "paths": ["src"],
                    "files": "v1:x",
                },
                "data": [
                    {"name": "rides", "path": "data/rides.csv", "digest": f"gitblob:{BLOB}"},
                    {"name": "weather", "uri": "https://example.com/w.parquet", "digest": f"sha256:{SHA}"},
                ],
                "columns": {"target": "count"},
                "holdout": {},
                "training": {
                    "image": f"registry.example/train@sha256:{SHA}",
                    "command": ["python", "train.py"],
                    "params": {"depth": 3},
                    "seed": 7,
                },
                "trigger": {"type": "Commit", "message": "Deeper trees", "author": "Jane"},
            },
            "status": {
                "attempts": [
                    {"number": 1, "outcome": "Failed"},
                    {"number": 2, "outcome": "Succeeded", "startedAt": "T1", "finishedAt": "T2"},
                ],
                "artifact": {
                    "digest": f"sha256:{SHA}",
                    "uri": "mlflow:/ff/model",
                    "format": "skops",
                    "sizeBytes": 9,
                },
                "evidence": {
                    "artifact": f"sha256:{SHA}",
                    "holdout": "sha256:h",
                    "runtime": "sha256:r",
                    "checksHash": "v1:c",
                    "task": "Regression",
                    "holdoutRows": 200,
                    "trainingRows": 800,
                    "report": "sha256:p",
                    "metrics": [{"name": "rmse", "value": 1.5, "champion": 1.6, "absolute": [0.1] * 20}],
                },
            },
        }
    )


def test_the_statement_names_artifact_commit_data_image_and_decision(revision, model):
    found = lineage_statement(revision, entry=ENTRY, model=model)
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["predicateType"] == "https://slsa.dev/provenance/v1"
    assert found["subject"] == [
        {"name": "bikes-0123456789/model", "uri": "mlflow:/ff/model", "digest": {"sha256": SHA}}
    ]
    build, run = found["predicate"]["buildDefinition"], found["predicate"]["runDetails"]
    assert build["buildType"] == "https://mainspring.dev/training/v1"
    assert build["externalParameters"]["params"] == {"depth": 3}
    assert build["externalParameters"]["seed"] == 7
    assert build["internalParameters"]["inputs"] == "v1:" + "2" * 64
    assert build["resolvedDependencies"] == [
        {"name": "source", "uri": f"git+https://example.com/ml.git@{COMMIT}", "digest": {"gitCommit": COMMIT}},
        {
            "name": "data/rides",
            "uri": f"git+https://example.com/ml.git@{COMMIT}#data/rides.csv",
            "digest": {"gitBlob": BLOB},
        },
        {"name": "data/weather", "uri": "https://example.com/w.parquet", "digest": {"sha256": SHA}},
        {"name": "image", "uri": f"oci://registry.example/train@sha256:{SHA}", "digest": {"sha256": SHA}},
    ]
    assert run["builder"]["id"] == "https://mainspring.dev/controller"
    assert run["metadata"] == {"invocationId": "f" * 32, "startedOn": "T1", "finishedOn": "T2"}
    record = found["predicate"]["mainspring_record"]
    assert (record["outcome"], record["environment"], record["runtime"]) == ("Admitted", "production", "sha256:r")
    assert record["trigger"]["author"] == "Jane"
    assert record["verdicts"][0]["message"] == "0.91 ≥ 0.90"
    assert record["evidence"]["metrics"] == {"rmse": {"value": 1.5, "champion": 1.6}}


def test_the_same_revision_gives_the_same_bytes(revision, model):
    first = canonical(lineage_statement(revision, entry=ENTRY, model=model))
    again = ModelRevision.model_validate_json(revision.model_dump_json(by_alias=True))
    assert canonical(lineage_statement(again, entry=ENTRY, model=model)) == first
    assert len(first) < 8192


def test_an_image_by_tag_is_named_without_a_digest(revision, model):
    training = revision.spec.training.model_copy(update={"image": "registry.example:5000/train:v1"})
    tagged = revision.model_copy(update={"spec": revision.spec.model_copy(update={"training": training})})
    found = lineage_statement(tagged, entry=ENTRY, model=model)
    assert found["predicate"]["buildDefinition"]["resolvedDependencies"][-1] == {
        "name": "image",
        "uri": "oci://registry.example:5000/train:v1",
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"seq": 0},
        {"prev": "sha256:zz"},
        {"kind": "Approved"},
        {"evidence": {"auc": float("nan")}},
        {"reason": "x" * 2000},
    ],
    ids=[
        "number zero",
        "a prev that is no digest",
        "an unknown kind",
        "a number that is none",
        "an endless reason",
    ],
)
def test_an_entry_that_says_nonsense_is_not_made(fields):
    with pytest.raises(ValidationError):
        LedgerEntry.model_validate({**ENTRY.model_dump(), **fields})
