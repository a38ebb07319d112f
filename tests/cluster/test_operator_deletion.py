"""Deleting a model on a real API server with its real garbage collector: all of it goes, and no record does."""

from __future__ import annotations

import pytest

from controller.api.meta import API_VERSION, LABEL_MODEL
from tests.faults.scene import MODEL, Scene
from tests.support.crash_end import Reader
from tests.support.mlflow_shared import tracking_uri

PATHS = {
    **dict.fromkeys(("modelspecs", "modelrevisions"), f"/apis/{API_VERSION}"),
    **dict.fromkeys(("configmaps", "pods", "services"), "/api/v1"),
    **dict.fromkeys(("deployments", "replicasets"), "/apis/apps/v1"),
    "jobs": "/apis/batch/v1",
    "poddisruptionbudgets": "/apis/policy/v1",
}
"""Everything that a model is made of."""


@pytest.fixture
def scene(control_plane, namespace, tmp_path):
    with Scene(control_plane, namespace, tmp_path, tracking_uri()) as made:
        yield made


def left(scene):
    """Name what is left of the model, by kind."""
    found = {}
    for kind, path in PATHS.items():
        answer = scene.plane.request("GET", f"{path}/namespaces/{scene.namespace}/{kind}")
        names = [
            o["metadata"]["name"]
            for o in answer["items"]
            if (o["metadata"].get("labels") or {}).get(LABEL_MODEL) == MODEL
            or (kind, o["metadata"]["name"]) == ("modelspecs", MODEL)
        ]
        if names:
            found[kind] = names
    return found


def delete(scene, kind, name):
    scene.plane.request("DELETE", f"/apis/{API_VERSION}/namespaces/{scene.namespace}/{kind}/{name}")


def recorded(scene):
    """Read what MLflow keeps of it."""
    registry = Reader(scene.tracking_uri, scene.registry)
    return registry.versions(), registry.aliases(), registry.ledger(), sorted(registry.runs())


def test_a_deleted_model_takes_all_that_it_had_with_it_but_what_is_recorded(scene):
    operator = scene.operator()
    scene.begin()
    scene.play(0)
    scene.play(1)
    scene.wait(scene.quiet, "it is at rest")
    assert set(left(scene)) == set(PATHS), "every kind is looked at"
    before = recorded(scene)

    # First what would bring it back.
    delete(scene, "modelrepositories", "models")
    delete(scene, "modelspecs", MODEL)
    scene.wait(lambda: not left(scene), "all that it was made of is gone")
    begun = len(scene.proxy.writes())
    scene.wait(lambda: scene.quiet(3.0), "the operator is at rest")

    assert operator.ready_as("leader"), "the operator goes on"
    assert [str(p.call) for p in scene.proxy.writes()[begun:]] == [], "nothing is made again"
    assert recorded(scene) == before, "what was decided and measured stays"


def test_a_model_that_is_made_again_serves_what_was_trained_before(scene):
    """The records are enough: the same commit asks for the same inputs, and nothing is trained twice."""
    scene.operator()
    scene.begin()
    scene.play(0)
    trained = dict(scene.player.trained)
    delete(scene, "modelspecs", MODEL)
    scene.wait(
        lambda: scene.model() and scene.has(scene.commits[0], "Succeeded") and left(scene).get("deployments"),
        "the repository brings it back",
    )
    assert dict(scene.player.trained) == trained
    assert recorded(scene)[0] == {"1": next(iter(trained))}
