"""Stories that random walks found: each is told again, short, so that what broke there once never breaks again.

The walks are in tests/simulation; here is only what they found, by the name of what people would have seen.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from controller.api.meta import Key, key_of
from tests.support.hard_simulation import HardSimulation
from tests.support.stories import FIRST, spec
from tests.unit.stories.test_stories import first_commit

pytestmark = pytest.mark.anyio


async def test_the_champions_servers_stay_when_its_object_and_route_are_gone_while_mlflow_is_away() -> None:
    s = HardSimulation()
    await first_commit(s)
    (servers,) = [key_of(d) for d in await s.store.list("Deployment")]
    (revision,) = [key_of(m) for m in await s.store.list("ModelRevision")]
    s.restart()
    await s.store.delete(revision)
    await s.settle()
    s.restart()
    s.registry.down = True
    (revision,) = [key_of(m) for m in await s.store.list("ModelRevision")]
    found = await s.store.get(revision)
    assert found is not None
    await s.store.patch_status(revision, {}, uid=found["metadata"]["uid"])
    await s.store.delete(Key("HTTPRoute", "default", "bikes"))
    await s.run(60)
    assert [key_of(d) for d in await s.store.list("Deployment")] == [servers]
    assert await s.shares() == {revision.name: 100}


async def test_a_clock_that_was_set_back_delays_no_decision() -> None:
    s = HardSimulation()
    s.git.commit("Predict bikes", FIRST)
    await s.store.apply(spec())
    await s.run(20)
    s.clock.advance(10)
    await s.kubelet()  # The training has ended, and nobody has looked.
    s.clock.moment -= timedelta(days=1)
    await s.run(120)
    ready = await s.condition()
    assert (ready["status"], ready["reason"]) == ("True", "Succeeded"), ready["message"]


async def test_nothing_is_trained_again_when_the_job_that_succeeded_is_gone_and_one_that_failed_is_left() -> None:
    s = HardSimulation()
    s.fail_training = lambda job: job["metadata"]["name"].endswith("-1")
    await first_commit(s)
    await s.run(120)
    (champion,) = await s.shares()
    assert s.jobs_started == [f"{champion}-train-1", f"{champion}-train-2"]
    await s.store.delete(Key("Job", "default", f"{champion}-train-2"))
    await s.run(120)
    assert s.jobs_started == [f"{champion}-train-1", f"{champion}-train-2"]
    (ready,) = [c for c in (await s.model())["status"]["conditions"] if c["type"] == "Ready"]
    assert ready["status"] == "True", ready["message"]


@pytest.mark.parametrize(
    "labels", [{"mainspring.dev/revision": "bikes-0123456789"}, {}], ids=["ours", "one of ours"]
)
async def test_what_people_made_with_the_labels_of_a_model_is_left_alone_and_hinders_nothing(
    labels: dict[str, str],
) -> None:
    s = HardSimulation()
    await first_commit(s)
    (ours,) = await s.store.list("Deployment")
    (service,) = await s.store.list("Service")
    for kind in (ours, service):
        meta = {"name": "by-hand", "namespace": "default", "labels": {"mainspring.dev/model": "bikes", **labels}}
        await s.store.apply({**kind, "metadata": meta, "status": {}})
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(300)
    assert len(await s.shares()) == 1
    assert [kind for kind, _ in s.decisions()] == ["Admitted", "Promoted"] * 2
    names = {d["metadata"]["name"] for d in await s.store.list("Deployment")}
    assert "by-hand" in names
    assert len(names) == 2
    assert await s.store.get(Key("Service", "default", "by-hand")) is not None


async def test_a_training_begins_though_the_tasks_of_a_broken_start_compare_with_another_champion() -> None:
    s = HardSimulation()
    await first_commit(s)
    s.git.commit("More trees", {"quality": b"50"})
    await s.settle()
    (job,) = [j for j in await s.store.list("Job") if not (j.get("status") or {}).get("conditions")]
    key = Key("ConfigMap", "default", job["metadata"]["name"])
    tasks = await s.store.get(key)
    assert tasks is not None
    await s.store.delete(key_of(job))
    await s.store.delete(key)
    fresh = {k: v for k, v in tasks["metadata"].items() if k in ("name", "namespace", "labels", "ownerReferences")}
    await s.store.apply({**tasks, "metadata": fresh, "data": {**tasks["data"], "predict-champion.json": "{}"}})
    await s.run(300)
    ready = await s.condition()
    assert (ready["status"], ready["reason"]) == ("True", "Succeeded"), ready["message"]
    again = await s.store.get(key)
    assert again is not None
    assert again["data"] == tasks["data"]
