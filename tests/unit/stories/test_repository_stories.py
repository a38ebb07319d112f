"""Stories of a ModelRepository: files come, change and go, and nothing is deleted because it could not be read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import yaml

from controller.api.meta import ANNOTATION_PRUNE, API_VERSION, Key, Manifest
from controller.clients.errors import Unavailable
from tests.support.hard_simulation import HardSimulation
from tests.support.simulation import URL
from tests.support.stories import FIRST, spec

REPOSITORY: Manifest = {
    "apiVersion": API_VERSION,
    "kind": "ModelRepository",
    "metadata": {"name": "models", "namespace": "default"},
    "spec": {"url": URL, "ref": {"branch": "main"}, "path": "envs", "interval": "5s"},
}


def file(name: str, **changes: Any) -> bytes:
    """Write a ModelSpec as its file."""
    manifest = spec(**changes)
    manifest["metadata"] = {"name": name}
    return yaml.safe_dump(manifest).encode()


async def begin(s: HardSimulation, *names: str, **changes: Any) -> None:
    s.git.commit("Models", FIRST | {f"envs/{n}.yaml": file(n) for n in names} | {"envs/notes.txt": b"x"})
    await s.store.apply({**REPOSITORY, "spec": {**REPOSITORY["spec"], **changes}})
    await s.run(10)


async def models(s: HardSimulation) -> list[str]:
    return [m["metadata"]["name"] for m in await s.store.list("ModelSpec")]


async def said(s: HardSimulation) -> tuple[str, str]:
    """Read Ready of the ModelRepository: reason and message."""
    found = await s.store.get(Key("ModelRepository", "default", "models"))
    assert found is not None
    ready = next(c for c in found["status"]["conditions"] if c["type"] == "Ready")
    return ready["reason"], ready["message"]


async def a_new_file_and_a_changed_one(s: HardSimulation) -> None:
    await begin(s, "bikes")
    await s.run(60)
    jobs = list(s.jobs_started)
    s.git.commit(
        "Three servers, and taxis",
        {"envs/taxis.yaml": file("taxis"), "envs/bikes.yaml": file("bikes", serving={"minReplicas": 3})},
    )
    await s.run(10)
    assert await models(s) == ["bikes", "taxis"]
    assert (await s.model())["spec"]["serving"] == {"minReplicas": 3}
    assert [j for j in s.jobs_started if j.startswith("bikes")] == jobs, "nothing is trained for more servers"


async def health(s: HardSimulation) -> tuple[str, str]:
    """Read Healthy of the ModelRepository: status and message."""
    found = await s.store.get(Key("ModelRepository", "default", "models"))
    assert found is not None
    healthy = next(c for c in found["status"]["conditions"] if c["type"] == "Healthy")
    return healthy["status"], healthy["message"]


async def the_health_of_what_was_applied_is_in_its_status(s: HardSimulation) -> None:
    await begin(s, "bikes", "taxis")
    assert await health(s) == ("False", "0 of 2 ModelSpecs Ready; not yet, or not any more: bikes, taxis")
    await s.run(120)
    assert await health(s) == ("True", "2 of 2 ModelSpecs Ready")
    s.git.commit("Wait", {"envs/taxis.yaml": file("taxis", suspend=True)})
    await s.run(10)
    assert await health(s) == ("False", "1 of 2 ModelSpecs Ready; not yet, or not any more: taxis")
    assert (await said(s))[0] == "Succeeded", "all is applied; that is what Ready says"
    found = await s.store.get(Key("ModelRepository", "default", "models"))
    assert found is not None
    assert {o["name"]: o["ready"] for o in found["status"]["objects"]} == {"bikes": "True", "taxis": "False"}


async def a_field_is_taken_out_of_a_file(s: HardSimulation) -> None:
    await begin(s)
    s.git.commit("Suspended", {"envs/bikes.yaml": file("bikes", suspend=True)})
    await s.run(10)
    s.git.commit("Resumed", {"envs/bikes.yaml": file("bikes")})
    await s.run(10)
    assert "suspend" not in (await s.model())["spec"]


async def a_removed_file(s: HardSimulation) -> None:
    await begin(s, "bikes", "taxis")
    s.git.commit("No taxis", {"envs/taxis.yaml": None})
    await s.run(10)
    assert await models(s) == ["bikes"]
    assert (await said(s))[0] == "Succeeded"


async def too_much_would_be_deleted(s: HardSimulation) -> None:
    await begin(s, "bikes", "taxis", "boats")
    commit = s.git.commit("Empty", {f"envs/{n}.yaml": None for n in ("bikes", "taxis", "boats")})
    await s.run(10)
    assert len(await models(s)) == 3
    reason, message = await said(s)
    assert reason == "PruneGuard"
    assert f"annotate mainspring.dev/confirm-prune={commit} to allow it" in message
    await s.store.annotate(Key("ModelRepository", "default", "models"), {"mainspring.dev/confirm-prune": commit})
    await s.run(10)
    assert await models(s) == []


async def an_object_is_protected(s: HardSimulation) -> None:
    await begin(s, "bikes", "taxis")
    await s.store.annotate(Key("ModelSpec", "default", "taxis"), {ANNOTATION_PRUNE: "disabled"})
    s.git.commit("No taxis", {"envs/taxis.yaml": None})
    await s.run(10)
    assert await models(s) == ["bikes", "taxis"]


async def a_bad_file(s: HardSimulation) -> None:
    await begin(s, "bikes", "taxis")
    s.git.commit("Oops", {"envs/taxis.yaml": file("taxis", gatez=[]), "envs/boats.yaml": file("boats")})
    await s.run(10)
    assert await models(s) == ["bikes", "boats", "taxis"], "the bad file changes nothing and hinders nobody"
    reason, message = await said(s)
    assert reason == "InvalidFile"
    assert message.startswith("1 of 3 files were not applied; envs/taxis.yaml: ")
    assert 'did you mean "gates"' in message


async def a_file_becomes_unreadable_and_names_nothing_of_ours(s: HardSimulation) -> None:
    await begin(s, "bikes", "taxis")
    s.git.commit("A bad merge", {"envs/taxis.yaml": b"a: [1\n<<<<<<< HEAD\n", "envs/chart.yaml": b"{{- if .x }}"})
    await s.run(10)
    assert await models(s) == ["bikes", "taxis"], "what cannot be read is not gone"
    reason, message = await said(s)
    assert reason == "InvalidFile"
    assert "1 of 3 files were not applied; envs/taxis.yaml: names nothing of Mainspring (line " in message
    assert message.endswith("ModelSpec taxis came from it and stays as it is: mend or delete the file")
    s.git.commit("No taxis", {"envs/taxis.yaml": None})
    await s.run(10)
    assert await models(s) == ["bikes"]
    assert (await said(s))[0] == "Succeeded"


async def an_object_moves_into_a_file_that_cannot_be_read(s: HardSimulation) -> None:
    await begin(s, "bikes", "taxis", "boats")
    s.git.commit(
        "Move", {"envs/taxis.yaml": None, "envs/new.yaml": b"apiVersion: mainspring.dev/v1alpha1\nkind: [\n"}
    )
    await s.run(10)
    assert await models(s) == ["bikes", "boats", "taxis"], "nothing is deleted because something cannot be read"


async def two_files_with_one_name(s: HardSimulation) -> None:
    await begin(s, "bikes")
    s.git.commit("Twice", {"envs/again.yaml": file("bikes", suspend=True)})
    await s.run(10)
    assert "suspend" not in (await s.model())["spec"]
    reason, message = await said(s)
    assert reason == "OwnershipConflict"
    assert message.startswith("2 of 2 files were not applied")


async def an_object_is_edited_by_hand(s: HardSimulation) -> None:
    await begin(s, "bikes")
    hand = await s.model()
    await s.store.patch_spec(Key("ModelSpec", "default", "bikes"), {"gates": []})
    assert (await s.model())["spec"]["gates"] == []
    await s.run(10)
    assert (await s.model())["spec"]["gates"] == hand["spec"]["gates"]


async def another_namespace(s: HardSimulation) -> None:
    await begin(s, "bikes")
    manifest = yaml.safe_load(file("taxis"))
    manifest["metadata"]["namespace"] = "kube-system"
    s.git.commit("Elsewhere", {"envs/taxis.yaml": yaml.safe_dump(manifest).encode()})
    await s.run(10)
    assert await models(s) == ["bikes"]
    assert "kube-system is not default, the repository's own" in (await said(s))[1]


async def suspended(s: HardSimulation) -> None:
    await begin(s, "bikes", "taxis")
    await s.store.apply({**REPOSITORY, "spec": {**REPOSITORY["spec"], "suspend": True}})
    s.git.commit("No taxis", {"envs/taxis.yaml": None, "envs/boats.yaml": file("boats")})
    await s.run(20)
    assert await models(s) == ["bikes", "taxis"]
    assert (await said(s))[0] == "Suspended"


async def the_path_is_gone(s: HardSimulation) -> None:
    await begin(s, "bikes")
    s.git.commit("Gone", {"envs/bikes.yaml": None, "envs/notes.txt": None})
    await s.run(20)
    assert await models(s) == ["bikes"]
    reason, message = await said(s)
    assert reason == "PathNotFound"
    assert "envs is not a directory" in message


async def git_is_away(s: HardSimulation) -> None:
    await begin(s, "bikes")
    s.git.error = Unavailable("git.example.com did not answer", reason="GitTimeout")
    await s.run(20)
    assert await models(s) == ["bikes"]
    assert await said(s) == ("GitTimeout", "git.example.com did not answer")


STORIES: tuple[Callable[[HardSimulation], Coroutine[Any, Any, None]], ...] = (
    a_new_file_and_a_changed_one,
    a_field_is_taken_out_of_a_file,
    the_health_of_what_was_applied_is_in_its_status,
    a_removed_file,
    too_much_would_be_deleted,
    an_object_is_protected,
    a_bad_file,
    a_file_becomes_unreadable_and_names_nothing_of_ours,
    an_object_moves_into_a_file_that_cannot_be_read,
    two_files_with_one_name,
    an_object_is_edited_by_hand,
    another_namespace,
    suspended,
    the_path_is_gone,
    git_is_away,
)


@pytest.mark.parametrize("story", STORIES, ids=lambda f: f.__name__)
def test_repository_story_ends_as_told(story: Callable[[HardSimulation], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(story(HardSimulation()))


def test_two_controllers_on_one_store_end_where_one_does() -> None:
    """Two by mistake: every object is looked at by both in turn, each with its own memory."""

    async def go(two: bool) -> tuple[Any, Any, Any]:
        s = HardSimulation()
        worlds = []
        for _ in range(2 if two else 1):
            s.restart()
            worlds.append(s.world)
        original = s.reconcile

        async def alternating(key: Key) -> None:
            for world in worlds:
                s.world = world
                await original(key)

        s.reconcile = alternating  # type: ignore[method-assign]
        s.git.commit("Predict bikes", FIRST)
        await s.store.apply(spec())
        await s.run(60)
        s.git.commit("More trees", {"quality": b"50"})
        await s.run(240)
        s.git.commit("Worse", {"quality": b"120"})
        await s.run(60)
        return s.decisions(), await s.shares(), s.jobs_started

    assert asyncio.run(go(two=True)) == asyncio.run(go(two=False))
