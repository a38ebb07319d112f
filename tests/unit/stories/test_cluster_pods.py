"""What people say about pods reaches them, and what pods really ran reaches the lineage."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from controller.api.meta import LABEL_JOB_NAME, Manifest
from controller.api.statements import LINEAGE_TYPE
from controller.clients.signing import Verifier
from tests.support.cluster_simulation import JOBS, SERVER, ClusterSimulation, image_id
from tests.unit.stories.cluster_begin import begin

pytestmark = pytest.mark.anyio

PLACE: dict[str, Any] = {
    "nodeSelector": {"pool": "batch"},
    "tolerations": [{"key": "batch", "operator": "Exists", "effect": "NoSchedule"}],
    "priorityClassName": "low",
    "imagePullSecrets": [{"name": "pull"}],
}
RESOURCES: dict[str, Any] = {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"memory": "8Gi"}}


async def pods(s: ClusterSimulation, *, of_jobs: bool) -> list[Manifest]:
    found = await s.store.list("Pod", namespace="default")
    return [p for p in found if (LABEL_JOB_NAME in p["metadata"]["labels"]) is of_jobs]


async def test_the_pods_of_a_training_are_where_its_template_says() -> None:
    s = ClusterSimulation()
    await begin(s, training={"template": PLACE, "resources": RESOURCES, "queueName": "team-a"})
    (pod,) = await pods(s, of_jobs=True)
    assert {k: pod["spec"][k] for k in PLACE} == PLACE
    (job,) = await s.store.list("Job")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    own = {c["name"]: c["resources"] for c in pod["spec"]["initContainers"]}
    assert own["train"] == RESOURCES, "what is asked for is the training program's alone"
    assert own["fetch"] == own["predict"] != RESOURCES


async def test_the_pods_of_servers_are_where_their_own_template_says() -> None:
    s = ClusterSimulation()
    await begin(s, template=PLACE, resources=RESOURCES)
    for deployment in await s.deployments():
        pod = deployment["spec"]["template"]["spec"]
        assert {k: pod[k] for k in PLACE} == PLACE
        assert pod["containers"][0]["resources"] == RESOURCES
    (pod,) = await pods(s, of_jobs=True)
    assert "nodeSelector" not in pod["spec"], "the training has a template of its own"


async def test_the_images_that_really_ran_are_in_the_status_and_in_the_signed_lineage() -> None:
    s = ClusterSimulation()
    image = "images.example.com/bikes-train:3"
    await begin(s, training={"image": image})
    (revision,) = await s.store.list("ModelRevision")
    ran = {"fetch": JOBS, "train": image, "predict": SERVER, "evaluate": JOBS}
    assert revision["status"]["images"] == {step: image_id(of) for step, of in ran.items()}
    statement = await s.registry.read_artifact(revision["status"]["run"], "mainspring/lineage.json")
    payload = json.loads(Verifier([s.signer.public]).open(statement, LINEAGE_TYPE).payload)
    named = {d["name"]: d for d in payload["predicate"]["buildDefinition"]["resolvedDependencies"]}
    for step, of in ran.items():
        digest = image_id(of).partition("@sha256:")[2]
        assert named[f"image/{step}"]["digest"] == {"sha256": digest}, f"the image of {step}"


async def test_servers_run_the_image_that_the_model_was_judged_with_after_the_operators_has_moved_on() -> None:
    s = ClusterSimulation()
    await begin(s)
    s.pods = replace(s.pods, server_image="images.example.com/mainspring-server:2")
    s.restart()
    await s.run(30)
    (deployment,) = await s.deployments()
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == SERVER
    assert (await s.condition())["status"] == "True"
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(120)
    (deployment,) = await s.deployments()
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == s.pods.server_image
