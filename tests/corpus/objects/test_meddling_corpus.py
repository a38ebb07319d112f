"""What people and programs do to objects, to MLflow and to clocks: Y26, Y49 to Y52, Y54, M15, J13, J14, D20.

Each happens in the simulated world of the standing rule, whose reconcilers and store are the real ones.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controller.api.base import dump
from controller.api.meta import (
    ANNOTATION_PRUNE,
    ANNOTATION_REQUESTED_AT,
    API_VERSION,
    LABEL_JOB_NAME,
    LABEL_REVISION,
    Key,
    key_of,
    owner_reference,
)
from tests.corpus import standing
from tests.corpus.standing import SPECS, challenger, later, spec
from tests.support.fake_registry import FakeRun
from tests.unit.plan.test_judging import evidence
from tests.unit.plan.test_judging_parts import FAIR, group, groups


def watched(arrive, **expected):
    """Assert the rule and return the world at its end."""
    worlds = []

    async def act(world):
        worlds.append(world)
        await arrive(world)

    standing.meddled(act, **expected)
    return worlds[0]


def named(name, **changes):
    manifest = spec("bikes", **changes)
    manifest["metadata"]["name"] = name
    return manifest


# -- names ----------------------------


def test_y26_two_names_that_differ_only_at_their_end_have_their_own_jobs_and_servers():
    names = ["c" * 39 + end for end in "ab"]

    async def arrive(world):
        files = {f"{n[-1]}.yaml": json.dumps(named(n)).encode() for n in names}
        world.git.repos[SPECS].commit("Two", files)

    world = watched(arrive)
    started = {j for j in world.jobs_started if j.startswith("ccc")}
    assert len(started) == 2
    assert {j[:40] for j in started} == set(names)
    assert all(len(j) <= 63 for j in started)
    served = {world.last[f"ModelSpec/{n}"]["status"]["champion"]["revision"] for n in names}
    assert len(served) == 2


def test_y26_a_name_of_more_than_40_characters_is_refused_with_the_limit():
    answer = standing.file_is(json.dumps(named("c" * 51)).encode())
    assert answer is not None
    assert "at most 40" in answer.message


# -- files and objects ----------------------------


def test_y49_a_file_that_is_removed_while_the_object_says_keep_takes_nothing_with_it():
    async def arrive(world):
        kept = spec("bikes")
        kept["metadata"]["annotations"] = {ANNOTATION_PRUNE: "disabled"}
        world.git.repos[SPECS].commit("Keep", {"bikes.yaml": json.dumps(kept).encode()})
        world.later = [(15.0, gone)]

    async def gone(world):
        world.git.repos[SPECS].commit("Gone", {"bikes.yaml": None})

    watched(arrive)


@pytest.mark.parametrize(
    "change",
    [pytest.param({"prune": False}, id="Y49 prune: false"), pytest.param({"suspend": True}, id="Y49 suspended")],
)
def test_a_repository_that_may_not_delete_does_not(change):
    async def arrive(world):
        found = await world.store.get(Key("ModelRepository", "default", "models"))
        meta = {"name": "models", "namespace": "default"}
        changed = {"apiVersion": API_VERSION, "kind": "ModelRepository", "metadata": meta}
        await world.store.apply({**changed, "spec": {**found["spec"], **change}})
        world.git.repos[SPECS].commit("Gone", {"bikes.yaml": None})

    watched(arrive)


def test_y50_a_repository_that_became_empty_deletes_nothing_without_a_word():
    async def arrive(world):
        world.git.repos[SPECS].commit("Oops", {"bikes.yaml": None, "trams.yaml": None, "notes.txt": b"x"})

    watched(arrive, reason="PruneGuard", words="would delete 2 of 2 ModelSpecs")


def test_y51_an_object_that_is_edited_by_hand_is_put_back_and_the_file_is_named():
    async def arrive(world):
        changed = spec("bikes", serving={"minReplicas": 7})
        changed["metadata"]["namespace"] = "default"
        await world.store.apply(changed)

    world = watched(arrive)
    assert world.last["ModelSpec/bikes"]["spec"]["serving"] == spec("bikes")["spec"]["serving"]
    told = [
        m["message"] for n, m in world.last.items() if n.startswith("Event/") and m["reason"] == "ApplyModelSpec"
    ]
    assert any("ModelSpec bikes differs from bikes.yaml" in m for m in told), told


FORGED = [
    ("Y52-kopf's memory of what it has handled", {"kopf.zalando.org/last-handled-configuration": '{"spec":{}}'}),
    ("Y52-kopf's progress", {"kopf.dev/reconcile": '{"started":"2026-01-01","success":true}'}),
    ("Y52-a request that is no time", {ANNOTATION_REQUESTED_AT: "\x1b[31mnow\u202e'; rm -rf /"}),
    ("Y52-a request of 200 KiB", {ANNOTATION_REQUESTED_AT: "9" * 204_800}),
    ("Y52-a commit that nobody made", {"mainspring.dev/source-commit": "f" * 40}),
    ("Y52-our marks on something else", {"mainspring.dev/checks": "v1:0", "mainspring.dev/promoted": "true"}),
]


@pytest.mark.parametrize("annotations", [pytest.param(a, id=name) for name, a in FORGED])
def test_forged_annotations_promote_nothing_and_stop_nothing(annotations):
    async def arrive(world):
        forged = spec("bikes")
        forged["metadata"] = {"name": "bikes", "namespace": "default", "annotations": annotations}
        await world.store.apply(forged)

    world = watched(arrive)
    assert len(world.jobs_started) == 3, "nothing but the neighbour's new commit is trained"


def test_y54_what_somebody_else_owns_under_our_name_is_not_adopted():
    name = challenger()

    async def arrive(world):
        trams = await world.store.get(Key("ModelSpec", "default", "trams"))
        meta: dict[str, Any] = {
            "name": f"{name}-train-1",
            "namespace": "default",
            "ownerReferences": [owner_reference(trams)],
        }
        meta["labels"] = {"app": "theirs"}
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {"template": {}}}
        made = await world.store.apply(job)
        ended = {"conditions": [{"type": "Complete", "status": "True"}]}
        await world.store.patch_status(key_of(made), ended, uid=made["metadata"]["uid"])
        world.challenge()

    world = watched(arrive, reason="OwnershipConflict", words="")
    ready = world.last["ModelSpec/bikes"]["status"]["conditions"]
    told = next(c["message"] for c in ready if c["type"] == "Ready")
    assert f"Job/default/{name}-train-1 is controlled by ModelSpec trams" in told
    assert "rename or delete one of them" in told


# -- MLflow ----------------------------


def test_j13_an_alias_and_a_version_that_a_trainer_writes_move_no_traffic_and_are_put_right():
    async def act(world):
        model = world.registry.models["bikes"]
        (alias,) = model.aliases
        model.versions["99"] = {"run": "evil", "source": "mlflow:/evil/model", "mainspring.digest": "sha256:0"}
        model.aliases[alias] = "99"

    world = later(15.0, act)
    assert world.promoted == challenger()
    model = world.registry.models["bikes"]
    (alias,) = model.aliases
    assert model.aliases[alias] == world.last["ModelSpec/bikes"]["status"]["champion"]["version"] != "99"
    told = [m["message"] for n, m in world.last.items() if n.startswith("Event/") and m["reason"] == "SetAlias"]
    assert any("the alias named version 99" in m for m in told), told


def test_j13_the_run_of_the_champion_that_a_trainer_deletes_takes_no_server_with_it():
    async def act(world):
        run = world.last_run
        assert run in world.registry.runs
        del world.registry.runs[run]

    async def arrive(world):
        found = await world.store.get(Key("ModelRevision", "default", world.champion))
        world.last_run = found["status"]["run"]
        world.later = [(15.0, act)]

    watched(arrive)


def test_j14_runs_of_its_own_that_a_trainer_makes_count_for_nothing():
    async def act(world):
        own = next(iter(world.registry.runs.values()))
        for number in range(3):
            tags = {**own.tags, "mainspring.revision": challenger(), "mainspring.digest": "sha256:0"}
            world.registry.runs[f"own-{number}"] = FakeRun(own.experiment, tags, metrics={"rmse": 0.0})

    world = later(15.0, act)
    assert world.promoted == challenger()
    run = world.last[f"ModelRevision/{challenger()}"]["status"]["run"]
    assert not run.startswith("own-")


# -- clocks ----------------------------


def test_m15_clocks_that_run_back_order_nothing():
    async def act(world):
        for pod in await world.store.list("Pod"):
            if (
                pod["metadata"]["labels"].get(LABEL_REVISION) == challenger()
                and LABEL_JOB_NAME in pod["metadata"]["labels"]
            ):
                states = pod["status"]["initContainerStatuses"]
                times = {"train": "2031-01-01T00:00:00Z", "evaluate": "1999-01-01T00:00:00Z"}
                for state in states:
                    moment = times.get(state["name"], "2026-03-02T08:01:00Z")
                    state["state"]["terminated"] |= {"startedAt": moment, "finishedAt": moment}
                await world.store.patch_status(
                    key_of(pod), {"initContainerStatuses": states}, uid=pod["metadata"]["uid"]
                )

    world = later(30.0, act)
    assert world.promoted == challenger()


def test_m15_a_controller_whose_clock_jumps_an_hour_back_goes_on_from_the_record():
    async def act(world):
        world.world = replace(world.world, now=lambda: world.clock.now() - timedelta(hours=1))

    world = later(30.0, act)
    assert world.promoted == challenger()


# -- groups ----------------------------


FAIRNESS = {"name": "fair", "fairness": "DemographicParityDifference", "by": "gender", "max": 0.1}
GROUPS = [
    (
        "D20-one group only",
        groups(FAIR[0]),
        "two groups are needed, there is only gender=f with 500 rows",
    ),
    (
        "D20-missing in two of five rows",
        groups(group("f", 600, 300, 300, 250), group("m", 600, 300, 300, 250), group("", 800, 400, 400, 350)),
        "gender is missing in 800 of 2,000 rows, more than 20%",
    ),
    (
        "D20-no such column",
        groups(note="the hold-out has no column gender"),
        "the hold-out has no column gender",
    ),
]


@pytest.mark.parametrize(("counted", "words"), [pytest.param(*rest, id=name) for name, *rest in GROUPS])
def test_groups_that_cannot_be_compared_never_pass(counted, words):
    measured = {k: v for k, v in dump(evidence(**counted)).items() if k == "groups"}
    change = standing.with_report(evidence={**measured, "task": "Classification"})
    gate = f"gate fair: DemographicParityDifference by gender: {words}"
    answer = standing.report_is(change, "GateFailed", gate[:120], gates=[FAIRNESS])
    assert answer is not None
    assert gate in answer.message
