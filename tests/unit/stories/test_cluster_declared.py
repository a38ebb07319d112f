"""ServedAsDeclared: what the running servers say they have loaded, against what the ledger says must serve."""

from __future__ import annotations

import pytest

from controller.api.meta import FIELD_MANAGER, LABEL_MANAGED_BY, LABEL_REVISION, key_of
from controller.clients.errors import Unavailable
from tests.support.cluster_simulation import ClusterSimulation
from tests.unit.stories.cluster_begin import begin

pytestmark = pytest.mark.anyio

DECLARED = "ServedAsDeclared"
FOREIGN = f"sha256:{'f' * 64}"


async def declared(s: ClusterSimulation) -> tuple[str, str, str]:
    found = await s.condition(DECLARED)
    return found["status"], found["reason"], found["message"]


async def test_servers_that_loaded_what_was_judged_are_as_declared() -> None:
    s = ClusterSimulation()
    await begin(s)
    status, reason, message = await declared(s)
    assert (status, reason) == ("True", "DigestsMatch")
    assert message.startswith("3 of 3 servers report sha256:")


async def test_a_server_with_another_artifact_is_named_and_serving_goes_on() -> None:
    s = ClusterSimulation()
    await begin(s)
    s.traffic.says = lambda pod, digest: FOREIGN if pod.endswith("-1") else digest
    await s.run(10)
    status, reason, message = await declared(s)
    assert (status, reason) == ("False", "DigestMismatch")
    assert "1 of 3 servers" in message
    assert f"have loaded {FOREIGN[:19]}, not sha256:" in message
    assert (await s.condition())["status"] == "True", "nobody takes servers away for it"
    s.traffic.says = lambda _, digest: digest
    await s.run(10)
    assert (await declared(s))[0] == "True"


async def test_a_server_that_does_not_say_what_it_loaded_is_not_as_declared() -> None:
    s = ClusterSimulation()
    await begin(s)
    s.traffic.says = lambda pod, digest: "" if pod.endswith("-2") else digest
    await s.run(10)
    status, reason, message = await declared(s)
    assert (status, reason) == ("False", "DigestMismatch")
    assert "do not say what they have loaded" in message


async def test_a_pod_that_nobody_made_and_that_gets_requests_is_told() -> None:
    s = ClusterSimulation()
    await begin(s)
    (service,) = [m for m in await s.store.list("Service") if m["metadata"]["name"] == "bikes"]
    labels = {**service["spec"]["selector"], LABEL_REVISION: "bikes-0000000000"}
    assert labels[LABEL_MANAGED_BY] == FIELD_MANAGER, "what carries no label that is watched gets no requests"
    meta = {"name": "stowaway", "namespace": "default", "labels": labels}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {"containers": [{"name": "x", "image": "y"}]},
    }
    made = await s.store.apply(pod)
    ready = {"conditions": [{"type": "Ready", "status": "True"}], "podIP": "10.0.0.9"}
    await s.store.patch_status(key_of(made), ready, uid=made["metadata"]["uid"])
    await s.run(10)
    status, reason, message = await declared(s)
    assert (status, reason) == ("False", "ForeignServer")
    assert "pod stowaway gets requests of bikes" in message


async def test_servers_that_do_not_answer_are_unknown_and_never_as_declared() -> None:
    s = ClusterSimulation()
    await begin(s)
    s.traffic.error = Unavailable("metrics of server a could not be read", reason="TelemetryUnavailable")
    await s.run(10)
    assert (await declared(s))[:2] == ("Unknown", "TelemetryUnavailable")


async def test_it_is_never_false_while_one_model_takes_over_from_another() -> None:
    s = ClusterSimulation(start_s=5)
    await begin(s)
    told: set[str] = set()

    async def look(verb: str, _: object) -> None:
        if verb == "patch_status":
            told.add((await s.condition(DECLARED)).get("status", ""))

    s.after_write = look
    s.restart()
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(120)
    assert (await s.condition())["status"] == "True"
    assert "False" not in told
