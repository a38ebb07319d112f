"""The API server and `mainspring validate` are of one mind about every object of the bad-input table.

Both judge the same parsed object: the server by the CRDs with strict field validation, as kubectl sends it, and
`validate` by the kinds.  What only one of them can say is in `DIFFERENT`, with why; on a cluster such an object
becomes Stalled(InvalidSpec).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from controller.api.kinds import KINDS
from controller.api.meta import API_VERSION
from controller.api.validation import object_problems
from tests.corpus.yaml.yaml_cases import BASE, CASES
from tests.support.cli_session import serving, stored, tell
from tests.support.plain_server import http

ROOT = Path(__file__).parents[2]
EXPRESSION = "syntax, names and types of an expression of a gate: CEL cannot read CEL"
DIFFERENT = {
    "Y19-one": "2.0 is the number 2 in JSON: the server stores 2",
    "Y21-limit-too-high": "CEL multiplies no durations: how many measurements a step has room for",
    "Y28-labels": "the server bounds a label's size, not how many there are",
    "Y38-syntax": EXPRESSION,
    "Y38-unknown-function": EXPRESSION,
    "Y38-unknown-metric": EXPRESSION,
    "Y38-type": EXPRESSION,
    "Y38-number": EXPRESSION,
    "Y38-nested": EXPRESSION,
    "Y17-scalar": "columns.positive is a scalar of four types, which no structural schema can say",
}
"""Rows that `validate` refuses and the server accepts; never the other way round."""


def objects(text):
    """Every object of our kinds in a file, as JSON; nothing of what is no YAML, or not to be said in JSON."""
    try:
        found = list(yaml.safe_load_all(text))
        json.dumps(found, allow_nan=False)
    except (yaml.YAMLError, ValueError, TypeError, UnicodeDecodeError):
        return []
    return [
        o for o in found if isinstance(o, dict) and o.get("kind") in KINDS and o.get("apiVersion") == API_VERSION
    ]


TABLE = [
    pytest.param(item, id=f"{name}-{number}" if number else name)
    for name, text in CASES.items()
    for number, item in enumerate(objects(text))
]


@pytest.fixture(scope="module")
def server(request):
    control_plane = request.getfixturevalue("control_plane")
    with http(control_plane) as client:
        client.post("/api/v1/namespaces", json={"metadata": {"name": "ml"}})
        yield client


def refusal(server, item):
    """Ask the server to create an object without doing it; its words, or nothing."""
    meta = item.get("metadata")
    place = meta.get("namespace", "default") if isinstance(meta, dict) else "default"
    path = f"/apis/{API_VERSION}/namespaces/{place}/{KINDS[item['kind']].plural}"
    answer = server.post(path, json=item, params={"dryRun": "All", "fieldValidation": "Strict"})
    return "" if answer.is_success else answer.json()["message"]


@pytest.mark.apart("the API server refuses it before a controller sees it")
@pytest.mark.parametrize("item", TABLE)
def test_server_and_validate_agree(server, item, request):
    said = "; ".join(f"{path}: {message}" for path, message in object_problems(item))
    refused = refusal(server, item)
    if request.node.callspec.id in DIFFERENT:
        assert said
        assert not refused
    else:
        assert bool(refused) == bool(said), f"server: {refused or 'accepts'} | validate: {said or 'accepts'}"


def test_the_table_has_both_good_and_bad_objects():
    assert len(TABLE) > 100
    assert set(DIFFERENT) <= {row.id for row in TABLE}


def test_the_base_of_the_table_is_accepted(server):
    assert refusal(server, yaml.safe_load(BASE)) == ""


EXAMPLES = [
    pytest.param(item, id=f"{file.relative_to(ROOT)}")
    for file in sorted((ROOT / "examples").rglob("*.y*ml"))
    for item in objects(file.read_bytes())
]


@pytest.mark.parametrize("item", EXAMPLES)
def test_every_example_is_accepted(server, item):
    item["metadata"].pop("namespace", None)
    assert refusal(server, item) == ""


@pytest.fixture(scope="module")
def revision(tmp_path_factory, server):
    """A revision as the controller writes it, on the server."""
    state = tmp_path_factory.mktemp("revision") / "state"
    tell(state, serving)
    found = stored(state, "ModelRevision", "bikes-dd1196040a")
    item = {name: found[name] for name in ("apiVersion", "kind", "spec")}
    item["metadata"] = {"name": "bikes-dd1196040a", "namespace": "ml"}
    path = f"/apis/{API_VERSION}/namespaces/ml/modelrevisions"
    answer = server.post(path, json=item, params={"fieldValidation": "Strict"})
    assert answer.is_success, answer.text
    status = server.patch(
        f"{path}/bikes-dd1196040a/status",
        json={"status": found["status"]},
        headers={"Content-Type": "application/merge-patch+json"},
        params={"fieldValidation": "Strict"},
    )
    assert status.is_success, status.text
    assert status.json()["status"] == found["status"]
    return f"{path}/bikes-dd1196040a"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"model": "other"}, id="the model"),
        pytest.param({"training": {"seed": 7}}, id="a setting deep inside"),
        pytest.param({"inputs": "v1:" + "0" * 64}, id="the hash"),
    ],
)
def test_a_revision_never_changes(server, revision, change):
    answer = server.patch(
        revision, json={"spec": change}, headers={"Content-Type": "application/merge-patch+json"}
    )
    assert answer.status_code == 422
    assert "a ModelRevision never changes; other inputs are another one" in answer.json()["message"]


def test_labels_of_a_revision_may_change(server, revision):
    answer = server.patch(
        revision,
        json={"metadata": {"labels": {"team": "x"}}},
        headers={"Content-Type": "application/merge-patch+json"},
    )
    assert answer.is_success
