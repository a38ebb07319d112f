"""What the local store promises beyond the port: determinism, hooks of our kinds, bounds, exact refusals."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime, timedelta

import pytest

from controller.api.meta import API_VERSION, Key, key_of, owner_reference
from controller.clients.errors import Conflict, Denied, Unavailable
from controller.local.store import EVENTS_KEPT, Store
from controller.local.store_file import KEPT_TOMBSTONES
from controller.reconcile.kube import Kube

pytestmark = pytest.mark.anyio

REPOSITORY = Key("ModelRepository", "default", "models")


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def store():
    opened = Store.open(":memory:")
    yield opened
    opened.close()


def config(name="settings", data=None, **metadata):
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, **metadata},
        "data": data or {"level": "1"},
    }


def repository(**spec):
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelRepository",
        "metadata": {"name": "models"},
        "spec": {"url": "https://git.example.com/models.git", **spec},
    }


def event(number, name="models"):
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.{number}"},
        "involvedObject": {"kind": "ModelRepository", "namespace": "default", "name": name, "uid": "u"},
        "message": str(number),
    }


async def next_event(events):
    async with asyncio.timeout(10):
        return await anext(events)


def test_the_store_is_a_kube(store):
    kube: Kube = store
    assert kube is store


async def test_clock_and_uids_are_the_callers():
    numbers = itertools.count(1)
    ticks = itertools.count(0)
    start = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    store = Store.open(
        ":memory:",
        now=lambda: start + timedelta(minutes=next(ticks)),
        uids=lambda: f"uid-{next(numbers)}",
    )
    found = [(await store.create(config(name)))["metadata"] for name in ("a", "b")]
    assert [(meta["uid"], meta["creationTimestamp"], meta["resourceVersion"]) for meta in found] == [
        ("uid-1", "2026-01-02T03:04:05Z", "1"),
        ("uid-2", "2026-01-02T03:05:05Z", "2"),
    ]
    store.close()


async def test_the_same_story_gives_the_same_objects():
    async def story():
        numbers = itertools.count()
        store = Store.open(
            ":memory:",
            now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
            uids=lambda: f"uid-{next(numbers)}",
        )
        owner = await store.apply(repository(path="a"))
        await store.apply(config(ownerReferences=[owner_reference(owner)]))
        await store.patch_spec(REPOSITORY, {"path": "b"})
        return await store.list("ModelRepository"), await store.list("ConfigMap")

    assert await story() == await story()


async def test_objects_without_a_namespace_live_in_default(store):
    made = await store.apply(config())
    assert made["metadata"]["namespace"] == "default"


async def test_our_kinds_start_with_a_status_that_nobody_has_observed(store):
    assert (await store.apply(repository()))["status"] == {"observedGeneration": -1}
    assert "status" not in await store.apply(config())


async def test_nulls_in_a_manifest_are_fields_not_given(store):
    made = await store.apply(repository(secretRef=None))
    assert "secretRef" not in made["spec"]


async def test_problems_of_our_kinds_are_one_refusal_with_all_of_them():
    def validate(manifest):
        return [f"spec.{name}: unknown field" for name in sorted(manifest["spec"]) if name.startswith("x")]

    store = Store.open(":memory:", validate=validate)
    for write in (store.apply, store.create):
        with pytest.raises(Denied) as error:
            await write(repository(xa=1, xb=2))
        assert error.value.reason == "Invalid"
        assert error.value.message == (
            "ModelRepository/default/models is invalid: spec.xa: unknown field; spec.xb: unknown field"
        )
    await store.create(repository())
    with pytest.raises(Denied):
        await store.patch_spec(REPOSITORY, {"xc": 1})
    (found,) = await store.list("ModelRepository")
    assert "xc" not in found["spec"]
    await store.apply(config(data={"xa": "1"}))
    store.close()


async def test_validation_and_defaults_do_not_see_the_status():
    seen = []

    def validate(manifest):
        seen.append(manifest)
        return []

    store = Store.open(":memory:", validate=validate)
    await store.apply(repository())
    assert seen[0]["metadata"]["name"] == "models"
    assert "status" not in seen[0]
    store.close()


async def test_defaults_fill_what_is_missing_and_a_second_apply_changes_nothing():
    def default(manifest):
        manifest["spec"].setdefault("interval", "1m")
        return manifest

    store = Store.open(":memory:", default=default)
    first = await store.apply(repository())
    assert first["spec"]["interval"] == "1m"
    assert await store.apply(repository()) == first
    await store.apply(repository(interval="5m"))
    assert (await store.apply(repository()))["spec"]["interval"] == "1m"
    assert "interval" not in repository()["spec"]
    store.close()


async def test_a_removed_section_takes_its_defaults_along():
    def default(manifest):
        if "verify" in manifest["spec"]:
            manifest["spec"]["verify"].setdefault("mode", "HEAD")
        return manifest

    store = Store.open(":memory:", default=default)
    await store.apply(repository(verify={"secretRef": {"name": "signers"}}))
    assert "verify" not in (await store.apply(repository()))["spec"]
    store.close()


async def test_a_default_that_was_also_given_goes_with_the_last_apply():
    def default(manifest):
        if "schedule" in manifest["spec"]:
            manifest["spec"].setdefault("timeZone", "UTC")
        return manifest

    store = Store.open(":memory:", default=default)
    await store.apply(repository(schedule="@daily"))
    await store.apply(repository(schedule="@daily", timeZone="UTC"))
    assert (await store.apply(repository()))["spec"] == repository()["spec"]
    store.close()


async def test_true_is_not_one(store):
    await store.apply(repository(prune=1))
    changed = await store.apply(repository(prune=True))
    assert changed["spec"]["prune"] is True
    assert changed["metadata"]["generation"] == 2


async def test_only_the_newest_events_about_one_object_are_kept(store):
    for number in range(EVENTS_KEPT + 5):
        await store.create(event(number))
    await store.create(event(0, "other"))
    found = {item["message"] for item in await store.list("Event") if item["involvedObject"]["name"] == "models"}
    assert found == {str(number) for number in range(5, EVENTS_KEPT + 5)}
    assert await store.get(Key("Event", "default", "other.0")) is not None


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        pytest.param(config("x" * 254), "metadata.name", id="a name of 254 characters"),
        pytest.param(config(namespace="a.b"), "metadata.namespace", id="a namespace with a dot"),
        pytest.param(config(labels={"a": 1}), "metadata.labels: must be a map of strings", id="a number as label"),
        pytest.param(config(labels=["a"]), "metadata.labels: must be a map of strings", id="labels as a list"),
        pytest.param(config(finalizers=["a"]), "no finalizers", id="a finalizer"),
        pytest.param(
            config(ownerReferences=5), "metadata.ownerReferences: must be a list", id="owners as a number"
        ),
        pytest.param(
            config(ownerReferences=[{"kind": "ConfigMap"}]), "ownerReferences[0].uid", id="an owner without uid"
        ),
        pytest.param({"kind": "ConfigMap", "apiVersion": "v1"}, "metadata.name", id="no metadata"),
        pytest.param({**config(), "data": {"a": datetime(2026, 1, 1)}}, "data.a: datetime", id="a YAML date"),
        pytest.param({**repository(x=float("nan"))}, "spec.x: nan", id="a number that is none"),
        pytest.param({**config(), "data": {1: "a"}}, "the key 1 is not a string", id="a number as key"),
        pytest.param({**config(), "data": {"a": "x" * 2**20}}, "at most 1048576", id="an object above 1 MiB"),
        pytest.param(
            {**config("x" * 64), "kind": "Job", "apiVersion": "batch/v1"}, "64 characters", id="a Job name of 64"
        ),
        pytest.param(
            {**config("1a"), "kind": "Service"}, "DNS-1035", id="a Service name that starts with a digit"
        ),
    ],
)
async def test_an_invalid_manifest_is_denied_with_the_field(store, manifest, said):
    for write in (store.apply, store.create):
        with pytest.raises(Denied) as error:
            await write(manifest)
        assert error.value.reason == "Invalid"
        assert said in error.value.message
    assert await store.list("ConfigMap") == ()


async def test_a_status_too_large_is_denied_and_the_old_one_stays(store):
    made = await store.apply(repository())
    with pytest.raises(Denied, match="at most 1048576"):
        await store.patch_status(REPOSITORY, {"text": "x" * 2**20}, uid=made["metadata"]["uid"])
    assert await store.get(REPOSITORY) == made


async def test_a_job_template_cannot_change(store):
    job = {**config(), "kind": "Job", "apiVersion": "batch/v1", "spec": {"template": {"spec": {"x": 1}}}}
    await store.apply(job)
    with pytest.raises(Denied, match=r"spec\.template: is immutable"):
        await store.patch_spec(key_of(await store.apply(job)), {"template": {"spec": {"x": 2}}})


async def test_an_object_is_adopted_by_an_owner_when_it_has_none(store):
    owner = await store.create(config("owner"))
    await store.apply(config("child"))
    child = await store.apply(config("child", ownerReferences=[owner_reference(owner)]))
    assert child["metadata"]["ownerReferences"][0]["uid"] == owner["metadata"]["uid"]
    await store.delete(key_of(owner))
    assert await store.get(key_of(child)) is None


async def test_an_owner_of_another_namespace_does_not_count(store):
    owner = await store.create(config("owner", namespace="other"))
    child = await store.apply(config("child", ownerReferences=[owner_reference(owner)]))
    assert await store.get(key_of(child)) is None


async def test_owners_in_a_circle_are_deleted_once(store):
    first = await store.create(config("first"))
    second = await store.create(config("second", ownerReferences=[owner_reference(first)]))
    await store.apply(config("first", ownerReferences=[owner_reference(second)]))
    events = store.watch(["ConfigMap"])
    assert {(await next_event(events)).type for _ in range(2)} == {"Added"}
    await store.delete(key_of(first))
    told = [await next_event(events) for _ in range(2)]
    assert sorted((item.type, item.object["metadata"]["name"]) for item in told) == [
        ("Deleted", "first"),
        ("Deleted", "second"),
    ]


async def test_a_conflict_says_which_version_is_present(store):
    await store.apply(config())
    with pytest.raises(Conflict, match="resourceVersion 7 was given, but the object has 1; read it again"):
        await store.apply(config(resourceVersion="7"))


async def test_a_watch_that_slept_through_forgotten_deletions_still_tells_of_them(store):
    await store.create(config("early"))
    events = store.watch(["ConfigMap"])
    early = (await next_event(events)).object
    await store.delete(Key("ConfigMap", "default", "early"))
    for number in range(KEPT_TOMBSTONES + 64):
        await store.create(config(f"n{number}"))
        await store.delete(Key("ConfigMap", "default", f"n{number}"))
    await store.create(config("early", {"level": "2"}))
    await store.delete(key_of(early))
    made = await store.create(config("early", {"level": "3"}))
    told = [await next_event(events) for _ in range(2)]
    assert [(item.type, item.object) for item in told] == [("Deleted", early), ("Added", made)]


async def test_a_closed_store_is_unavailable():
    store = Store.open(":memory:")
    store.close()
    with pytest.raises(Unavailable):
        await store.list("ConfigMap")


async def test_a_waiting_watch_ends_as_unavailable_when_the_store_is_closed():
    store = Store.open(":memory:")
    await store.create(config())
    events = store.watch(["ConfigMap"])
    await next_event(events)
    asyncio.get_running_loop().call_soon(store.close)
    with pytest.raises(Unavailable):
        await next_event(events)
