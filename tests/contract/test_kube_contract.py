"""What every implementation of the Kube port promises to the reconcilers, sentence by sentence.

Differences that cannot be removed, and that no test here leans on:
- An API server stores the default of a status only with the first write after the creation, so the first apply
  that changes nothing moves the version of one of our objects once; the local store stores it at once.
- The local store collects what has lost its owners at once, an API server in the background, after seconds.
- An API server knows finalizers, generateName and kinds that are not ours; the local store refuses all three.
- The local store keeps the newest 200 Events of an object, an API server those of the last hour.
"""

from __future__ import annotations

import asyncio
import copy
import uuid

import pytest

from controller.api.meta import API_VERSION, API_VERSIONS, Key, key_of, owner_reference
from controller.clients.errors import Conflict, Denied, NotFound
from tests.support import stories

pytestmark = pytest.mark.anyio

DEADLINE_SECONDS = 20.0
POLL_SECONDS = 0.02


def config(namespace, name="settings", *, data=None, **metadata):
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "data": {"level": "1"} if data is None else data,
    }


def repository(namespace, name="models", **spec):
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelRepository",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "url": "https://git.example.com/platform/models.git",
            "ref": {"branch": "main"},
            "path": "envs/prod",
            **spec,
        },
    }


def deployment(namespace, *containers, name="server"):
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": list(containers)}},
        },
    }


def container(name, **fields):
    return {"name": name, "image": f"images.example.com/{name}:1", **fields}


def status(message="fetched main"):
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Succeeded",
        "message": message,
        "lastTransitionTime": "2026-01-02T03:04:05Z",
        "observedGeneration": 1,
    }
    return {"observedGeneration": 1, "conditions": [ready]}


def names(objects):
    return [item["metadata"]["name"] for item in objects]


def version(item):
    return item["metadata"]["resourceVersion"]


async def gone(kube, key):
    """Wait until the background has deleted the object."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while await kube.get(key) is not None:
            await asyncio.sleep(POLL_SECONDS)


async def seen(events, namespace, type_, name, until=lambda item: True):
    """Read a watch until it tells of that change; fail at the deadline."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        async for event in events:
            meta = event.object["metadata"]
            if (event.type, meta["namespace"], meta["name"]) == (type_, namespace, name) and until(event.object):
                return event.object
    raise AssertionError("the watch ended")


async def test_get_of_a_missing_object_is_none(kube, namespace):
    assert await kube.get(Key("ConfigMap", namespace, "nothing")) is None


async def test_a_created_object_has_identity_time_and_version(kube, namespace):
    made = await kube.create(config(namespace))
    meta = made["metadata"]
    assert uuid.UUID(meta["uid"])
    assert meta["creationTimestamp"].endswith("Z")
    assert meta["resourceVersion"]
    assert await kube.get(key_of(made)) == made


async def test_create_of_a_present_object_is_conflict_already_exists_and_changes_nothing(kube, namespace):
    first = await kube.create(config(namespace))
    with pytest.raises(Conflict) as error:
        await kube.create(config(namespace, data={"level": "2"}))
    assert error.value.reason == "AlreadyExists"
    assert "settings" in error.value.message
    assert await kube.get(key_of(first)) == first


async def test_what_get_returns_is_the_callers_own_copy(kube, namespace):
    made = await kube.create(config(namespace))
    first = await kube.get(key_of(made))
    first["data"]["level"] = "changed by the caller"
    assert (await kube.get(key_of(made)))["data"] == {"level": "1"}


async def test_a_manifest_is_not_changed_by_apply_or_create(kube, namespace):
    manifest = config(namespace)
    before = copy.deepcopy(manifest)
    await kube.create(manifest)
    await kube.apply(manifest)
    assert manifest == before


async def test_list_is_in_order_of_name_within_the_namespace(kube, namespace):
    for name in ("b", "c", "a"):
        await kube.create(config(namespace, name, labels={"team": "x"}))
    found = await kube.list("ConfigMap", namespace=namespace, labels={"team": "x"})
    assert names(found) == ["a", "b", "c"]


async def test_list_over_all_namespaces_is_in_order_of_namespace_and_name(kube, namespace):
    for name in ("b", "a"):
        await kube.create(config(namespace, name))
    found = [key_of(item) for item in await kube.list("ConfigMap")]
    assert found == sorted(found)
    assert [key.name for key in found if key.namespace == namespace and key.name in "ab"] == ["a", "b"]


async def test_list_returns_one_kind_and_only_objects_with_all_labels(kube, namespace):
    await kube.create(config(namespace, "both", labels={"team": "x", "stage": "prod"}))
    await kube.create(config(namespace, "one", labels={"team": "x"}))
    await kube.create(config(namespace, "other", labels={"team": "x", "stage": "dev"}))
    await kube.create(repository(namespace))
    labels = {"team": "x", "stage": "prod"}
    assert names(await kube.list("ConfigMap", namespace=namespace, labels=labels)) == ["both"]
    assert names(await kube.list("ModelRepository", namespace=namespace)) == ["models"]


async def test_apply_creates_what_is_missing(kube, namespace):
    made = await kube.apply(config(namespace))
    assert made["data"] == {"level": "1"}
    assert await kube.get(key_of(made)) == made


async def test_apply_keeps_the_identity_and_moves_the_version(kube, namespace):
    first = await kube.apply(config(namespace))
    second = await kube.apply(config(namespace, data={"level": "2"}))
    assert second["metadata"]["uid"] == first["metadata"]["uid"]
    assert second["metadata"]["creationTimestamp"] == first["metadata"]["creationTimestamp"]
    assert version(second) != version(first)


async def test_apply_removes_fields_that_only_the_previous_apply_set(kube, namespace):
    await kube.apply(config(namespace, data={"level": "1", "old": "x"}, labels={"old": "x", "kept": "y"}))
    second = await kube.apply(config(namespace, data={"level": "1"}, labels={"kept": "y"}))
    assert second["data"] == {"level": "1"}
    assert second["metadata"]["labels"] == {"kept": "y"}


async def test_apply_keeps_fields_that_others_wrote(kube, namespace):
    first = await kube.apply(config(namespace, annotations={"example.com/mine": "1"}))
    await kube.annotate(key_of(first), {"example.com/theirs": "2"})
    second = await kube.apply(config(namespace, data={"level": "2"}))
    assert second["metadata"]["annotations"] == {"example.com/theirs": "2"}


async def test_apply_takes_back_a_value_that_another_writer_changed(kube, namespace):
    first = await kube.apply(repository(namespace))
    await kube.patch_spec(key_of(first), {"path": "elsewhere"})
    assert (await kube.apply(repository(namespace)))["spec"]["path"] == "envs/prod"


async def test_apply_keeps_a_value_that_another_writer_changed_after_the_field_is_given_up(kube, namespace):
    first = await kube.apply(config(namespace, annotations={"example.com/note": "mine"}))
    await kube.annotate(key_of(first), {"example.com/note": "theirs"})
    second = await kube.apply(config(namespace))
    assert second["metadata"]["annotations"] == {"example.com/note": "theirs"}


async def test_apply_removes_a_value_that_it_took_over_and_gives_up(kube, namespace):
    first = await kube.apply(config(namespace))
    await kube.annotate(key_of(first), {"example.com/note": "theirs"})
    await kube.apply(config(namespace, annotations={"example.com/note": "mine"}))
    third = await kube.apply(config(namespace))
    assert "example.com/note" not in third["metadata"].get("annotations", {})


async def test_apply_that_changes_nothing_leaves_version_and_generation(kube, namespace):
    first = await kube.apply(config(namespace, labels={"team": "x"}))
    again = await kube.apply(config(namespace, labels={"team": "x"}))
    assert version(again) == version(first)
    await kube.apply(repository(namespace))
    one = await kube.apply(repository(namespace))  # stores the default status on a server
    two = await kube.apply(repository(namespace))
    assert (version(two), two["metadata"]["generation"]) == (version(one), one["metadata"]["generation"])


async def test_generation_starts_at_one_and_moves_with_the_spec_alone(kube, namespace):
    made = await kube.apply(repository(namespace))
    key, uid = key_of(made), made["metadata"]["uid"]
    assert made["metadata"]["generation"] == 1
    noted = await kube.annotate(key, {"example.com/note": "1"})
    told = await kube.patch_status(key, status(), uid=uid)
    assert (noted["metadata"]["generation"], told["metadata"]["generation"]) == (1, 1)
    moved = await kube.apply(repository(namespace, path="envs/staging"))
    assert moved["metadata"]["generation"] == 2


async def test_apply_and_create_ignore_status(kube, namespace):
    forged = status("forged")
    made = await kube.create(repository(namespace, "created") | {"status": forged})
    applied = await kube.apply(repository(namespace, "applied") | {"status": forged})
    assert made.get("status", {}).get("conditions") is None
    assert applied.get("status", {}).get("conditions") is None
    await kube.patch_status(key_of(applied), status("true"), uid=applied["metadata"]["uid"])
    again = await kube.apply(repository(namespace, "applied") | {"status": forged})
    assert again["status"] == status("true")


async def test_apply_merges_containers_by_name_and_drops_the_one_it_lacks(kube, namespace):
    await kube.apply(deployment(namespace, container("web"), container("log")))
    second = await kube.apply(deployment(namespace, container("web", args=["--fast"])))
    found = second["spec"]["template"]["spec"]["containers"]
    assert [(item["name"], item.get("args")) for item in found] == [("web", ["--fast"])]


async def test_apply_keeps_environment_that_others_gave_to_a_container(kube, namespace):
    mine = container("web", env=[{"name": "MINE", "value": "1"}])
    first = await kube.create(deployment(namespace, mine))
    theirs = container("web", env=[{"name": "MINE", "value": "1"}, {"name": "THEIRS", "value": "2"}])
    await kube.patch_spec(key_of(first), deployment(namespace, theirs)["spec"])
    changed = container("web", env=[{"name": "MINE", "value": "3"}])
    found = (await kube.apply(deployment(namespace, changed)))["spec"]["template"]["spec"]["containers"][0]
    assert {item["name"]: item["value"] for item in found["env"]} == {"MINE": "3", "THEIRS": "2"}


async def test_apply_merges_service_ports_by_number(kube, namespace):
    def service(*ports):
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "namespace": namespace},
            "spec": {"selector": {"app": "web"}, "ports": [dict(port) for port in ports]},
        }

    http, metrics = {"name": "http", "port": 80}, {"name": "metrics", "port": 9090}
    await kube.apply(service(http, metrics))
    second = await kube.apply(service(http))
    assert [item["port"] for item in second["spec"]["ports"]] == [80]


async def test_apply_replaces_lists_of_plain_values(kube, namespace):
    await kube.apply(deployment(namespace, container("web", args=["a", "b"])))
    second = await kube.apply(deployment(namespace, container("web", args=["c"])))
    assert second["spec"]["template"]["spec"]["containers"][0]["args"] == ["c"]


async def test_apply_over_another_controllers_object_is_denied(kube, namespace):
    first, second = [await kube.create(config(namespace, name)) for name in ("first", "second")]
    mine = config(namespace, "child", ownerReferences=[owner_reference(first)])
    before = await kube.apply(mine)
    with pytest.raises(Denied) as error:
        await kube.apply(config(namespace, "child", data={}, ownerReferences=[owner_reference(second)]))
    assert error.value.reason == "OwnershipConflict"
    assert await kube.get(key_of(mine)) == before


async def test_apply_with_a_stale_version_is_conflict(kube, namespace):
    first = await kube.apply(config(namespace))
    await kube.apply(config(namespace, data={"level": "2"}))
    with pytest.raises(Conflict):
        await kube.apply(config(namespace, data={"level": "3"}, resourceVersion=version(first)))
    assert (await kube.get(key_of(first)))["data"] == {"level": "2"}


async def test_apply_with_the_present_version_is_carried_out(kube, namespace):
    first = await kube.apply(config(namespace))
    second = await kube.apply(config(namespace, data={"level": "2"}, resourceVersion=version(first)))
    assert second["data"] == {"level": "2"}


@pytest.mark.parametrize("present", [True, False], ids=["made anew", "deleted"])
async def test_apply_for_another_incarnation_is_conflict(kube, namespace, present):
    first = await kube.create(config(namespace))
    await kube.delete(key_of(first))
    if present:
        await kube.create(config(namespace))
    with pytest.raises(Conflict):
        await kube.apply(config(namespace, data={"level": "2"}, uid=first["metadata"]["uid"]))


async def test_status_is_replaced_as_a_whole_and_nothing_else_moves(kube, namespace):
    made = await kube.create(repository(namespace))
    key, uid = key_of(made), made["metadata"]["uid"]
    await kube.patch_status(key, status(), uid=uid)
    told = await kube.patch_status(key, {"observedGeneration": 1}, uid=uid)
    assert told["status"] == {"observedGeneration": 1}
    assert told["spec"] == made["spec"]
    assert version(told) != version(made)
    assert told["metadata"]["generation"] == made["metadata"]["generation"]


async def test_an_equal_status_writes_nothing(kube, namespace):
    made = await kube.create(repository(namespace))
    key, uid = key_of(made), made["metadata"]["uid"]
    first = await kube.patch_status(key, status(), uid=uid)
    second = await kube.patch_status(key, status(), uid=uid)
    assert version(second) == version(first)
    assert version(await kube.get(key)) == version(first)


async def test_a_map_may_lose_its_last_entry(kube, namespace):
    """A server that merges maps entry by entry makes such a map null, and then refuses it."""

    def model(params):
        built = stories.spec(training={"command": ["python", "train.py"], "params": params})
        return {**built, "metadata": {"name": "bikes", "namespace": namespace}}

    made = await kube.apply(model({"depth": 3}))
    key, uid = key_of(made), made["metadata"]["uid"]
    emptied = await kube.apply(model({}))
    assert emptied["spec"]["training"]["params"] == {}
    for counters in ({"pod-0|requests": 7.0}, {}):
        challenger = {"revision": "bikes-0123456789", "stage": "Canary", "counters": counters}
        told = await kube.patch_status(key, {"observedGeneration": 1, "challenger": challenger}, uid=uid)
        assert told["status"]["challenger"]["counters"] == counters


async def test_a_status_of_the_past_is_not_written(kube, namespace):
    made = await kube.create(repository(namespace))
    key, uid = key_of(made), made["metadata"]["uid"]
    first = await kube.patch_status(key, status(), uid=uid, version=version(made))
    with pytest.raises(Conflict, match="read it again"):
        await kube.patch_status(key, {"observedGeneration": 1}, uid=uid, version=version(made))
    assert await kube.get(key) == first
    equal = await kube.patch_status(key, status(), uid=uid, version=version(made))
    assert version(equal) == version(first)


async def test_status_of_a_missing_object_is_not_found(kube, namespace):
    with pytest.raises(NotFound):
        await kube.patch_status(Key("ModelRepository", namespace, "none"), status(), uid=str(uuid.uuid4()))


async def test_status_of_an_object_made_anew_is_not_found(kube, namespace):
    first = await kube.create(repository(namespace))
    await kube.delete(key_of(first))
    second = await kube.create(repository(namespace))
    with pytest.raises(NotFound):
        await kube.patch_status(key_of(first), status(), uid=first["metadata"]["uid"])
    assert (await kube.get(key_of(first))).get("status") == second.get("status")


async def test_annotations_are_merged_and_none_removes_one(kube, namespace):
    made = await kube.create(config(namespace, annotations={"example.com/a": "1", "example.com/b": "2"}))
    noted = await kube.annotate(key_of(made), {"example.com/a": None, "example.com/c": "3"})
    assert noted["metadata"]["annotations"] == {"example.com/b": "2", "example.com/c": "3"}
    assert await kube.get(key_of(made)) == noted


async def test_removing_an_absent_annotation_changes_nothing(kube, namespace):
    made = await kube.create(config(namespace))
    noted = await kube.annotate(key_of(made), {"example.com/none": None})
    assert version(noted) == version(made)


async def test_annotating_a_missing_object_is_not_found(kube, namespace):
    with pytest.raises(NotFound):
        await kube.annotate(Key("ConfigMap", namespace, "none"), {"example.com/a": "1"})


async def test_patch_spec_merges_replaces_removes_and_moves_generation(kube, namespace):
    made = await kube.create(repository(namespace, suspend=True))
    patch = {"path": "other", "suspend": None, "ref": {"branch": "next"}}
    patched = await kube.patch_spec(key_of(made), patch)
    assert patched["spec"]["path"] == "other"
    assert patched["spec"]["ref"] == {"branch": "next"}
    assert patched["spec"]["url"] == made["spec"]["url"]
    assert patched["spec"].get("suspend", False) is False
    assert patched["metadata"]["generation"] == made["metadata"]["generation"] + 1


async def test_patch_spec_of_a_missing_object_is_not_found(kube, namespace):
    with pytest.raises(NotFound):
        await kube.patch_spec(Key("ModelRepository", namespace, "none"), {"path": "x"})


async def test_a_deleted_object_is_gone_and_deleting_again_is_fine(kube, namespace):
    made = await kube.create(config(namespace))
    await kube.delete(key_of(made))
    assert await kube.get(key_of(made)) is None
    await kube.delete(key_of(made))
    await kube.delete(key_of(made), uid=made["metadata"]["uid"])


async def test_deleting_another_incarnation_is_conflict(kube, namespace):
    first = await kube.create(config(namespace))
    await kube.delete(key_of(first), uid=first["metadata"]["uid"])
    second = await kube.create(config(namespace))
    with pytest.raises(Conflict):
        await kube.delete(key_of(first), uid=first["metadata"]["uid"])
    assert await kube.get(key_of(first)) == second


async def test_deletion_takes_all_that_the_object_owns_to_the_last_generation(kube, namespace):
    owner = await kube.create(config(namespace, "owner"))
    child = await kube.create(config(namespace, "child", ownerReferences=[owner_reference(owner)]))
    grandchild = await kube.create(config(namespace, "grandchild", ownerReferences=[owner_reference(child)]))
    stranger = await kube.create(config(namespace, "stranger"))
    await kube.delete(key_of(owner))
    await gone(kube, key_of(child))
    await gone(kube, key_of(grandchild))
    assert await kube.get(key_of(stranger)) == stranger


async def test_an_object_with_another_living_owner_stays(kube, namespace):
    first, second = [await kube.create(config(namespace, name)) for name in ("first", "second")]
    both = [{**owner_reference(item), "controller": item is first} for item in (first, second)]
    shared = await kube.create(config(namespace, "shared", ownerReferences=both))
    alone = await kube.create(config(namespace, "alone", ownerReferences=[owner_reference(first)]))
    await kube.delete(key_of(first))
    await gone(kube, key_of(alone))
    assert await kube.get(key_of(shared)) is not None


async def test_an_object_whose_owner_is_gone_is_collected(kube, namespace):
    owner = await kube.create(config(namespace, "owner"))
    await kube.delete(key_of(owner))
    orphan = config(namespace, "orphan", ownerReferences=[owner_reference(owner)])
    await kube.apply(orphan)
    await gone(kube, key_of(orphan))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        pytest.param({"name": "No_Such"}, "metadata.name", id="a name that is no DNS name"),
        pytest.param({"labels": {"team": "x" * 64}}, "metadata.labels", id="a label value of 64 characters"),
        pytest.param({"labels": {"-bad": "x"}}, "metadata.labels", id="a label name that starts with a dash"),
        pytest.param({"annotations": {"a b": "x"}}, "metadata.annotations", id="an annotation name with a space"),
        pytest.param({"annotations": {"a": "x" * 262144}}, "metadata.annotations", id="annotations above 256 KiB"),
    ],
)
async def test_an_invalid_object_is_denied_and_the_message_names_the_field(kube, namespace, change, field):
    manifest = config(namespace)
    manifest["metadata"].update(change)
    for write in (kube.apply, kube.create):
        with pytest.raises(Denied) as error:
            await write(manifest)
        assert error.value.reason == "Invalid"
        assert field in error.value.message
        assert "\n" not in error.value.message


async def test_an_unknown_kind_is_denied(kube, namespace):
    with pytest.raises(Denied) as error:
        await kube.apply({**config(namespace), "kind": "Widget"})
    assert "Widget" in error.value.message


async def test_another_api_version_is_denied(kube, namespace):
    with pytest.raises(Denied) as error:
        await kube.apply({**repository(namespace), "apiVersion": "mainspring.dev/v0"})
    assert API_VERSIONS["ModelRepository"] in error.value.message


async def test_the_order_of_a_person_never_changes_and_says_how_it_stands(kube, namespace):
    spec = {
        "modelRef": {"name": "bikes"},
        "action": "Rollback",
        "to": "bikes-0123456789",
        "digest": f"sha256:{'a' * 64}",
        "actor": "jane",
        "reason": "recall fell",
        "expiresAt": "2026-03-02T12:00:00Z",
    }
    meta = {"name": "back", "namespace": namespace}
    made = await kube.create({"apiVersion": API_VERSION, "kind": "ModelOverride", "metadata": meta, "spec": spec})
    key = key_of(made)
    for change in ({"expiresAt": "2026-03-09T12:00:00Z"}, {"to": "bikes-9876543210"}):
        with pytest.raises(Denied) as refused:
            await kube.patch_spec(key, change)
        assert refused.value.reason == "Invalid"
    told = await kube.patch_status(key, status("it rules"), uid=made["metadata"]["uid"])
    assert (told["spec"], told["status"]) == (spec, status("it rules"))
    assert names(await kube.list("ModelOverride", namespace=namespace)) == ["back"]
    await kube.delete(key, uid=made["metadata"]["uid"])
    await gone(kube, key)


async def test_the_data_of_an_immutable_config_map_stay(kube, namespace):
    await kube.apply({**config(namespace), "immutable": True})
    with pytest.raises(Denied) as error:
        await kube.apply({**config(namespace, data={"level": "2"}), "immutable": True})
    assert error.value.reason == "Invalid"


async def test_an_event_can_be_created_and_found(kube, namespace):
    about = await kube.create(repository(namespace))
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "models.1", "namespace": namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": "ModelRepository",
            "namespace": namespace,
            "name": "models",
            "uid": about["metadata"]["uid"],
        },
        "type": "Normal",
        "reason": "Synced",
        "message": "applied 2 objects",
    }
    await kube.create(event)
    (found,) = await kube.list("Event", namespace=namespace)
    assert (found["reason"], found["message"]) == ("Synced", "applied 2 objects")


async def test_watch_tells_first_every_present_object_as_added(kube, namespace):
    made = await kube.create(config(namespace))
    repo = await kube.create(repository(namespace))
    events = kube.watch(["ModelRepository", "ConfigMap"])
    found = {}
    async with asyncio.timeout(DEADLINE_SECONDS):
        async for event in events:
            ours = (
                event.object["metadata"]["name"] != "kube-root-ca.crt"
            )  # The cluster puts it in every namespace.
            if event.object["metadata"]["namespace"] == namespace and ours:
                assert event.type == "Added"
                found[event.object["kind"]] = event.object
            if len(found) == 2:
                break
    assert found == {"ConfigMap": made, "ModelRepository": repo}


async def test_watch_tells_each_change_as_it_happens(kube, namespace):
    events = kube.watch(["ConfigMap"])
    await kube.create(config(namespace, "first"))
    await seen(events, namespace, "Added", "first")
    made = await kube.create(config(namespace))
    assert await seen(events, namespace, "Added", "settings") == made
    changed = await kube.apply(config(namespace, data={"level": "2"}))
    assert await seen(events, namespace, "Modified", "settings") == changed
    await kube.delete(key_of(made))
    last = await seen(events, namespace, "Deleted", "settings")
    assert last["metadata"]["uid"] == made["metadata"]["uid"]
    assert last["data"] == {"level": "2"}


async def test_watch_tells_of_status_and_annotations(kube, namespace):
    made = await kube.create(repository(namespace))
    events = kube.watch(["ModelRepository"])
    await seen(events, namespace, "Added", "models")
    told = await kube.patch_status(key_of(made), status(), uid=made["metadata"]["uid"])
    assert await seen(events, namespace, "Modified", "models") == told
    noted = await kube.annotate(key_of(made), {"example.com/a": "1"})
    assert await seen(events, namespace, "Modified", "models") == noted


async def test_watch_wakes_a_waiting_reader(kube, namespace):
    events = kube.watch(["ConfigMap"])
    await kube.create(config(namespace, "first"))
    await seen(events, namespace, "Added", "first")
    waiting = seen(events, namespace, "Added", "second")
    found, made = await asyncio.gather(waiting, kube.create(config(namespace, "second")))
    assert found == made


async def test_watch_never_misses_the_last_state(kube, namespace):
    events = kube.watch(["ConfigMap"])
    await kube.create(config(namespace))
    await seen(events, namespace, "Added", "settings")
    for level in range(50):
        last = await kube.apply(config(namespace, data={"level": str(level)}))
    found = await seen(events, namespace, "Modified", "settings", lambda item: item["data"]["level"] == "49")
    assert found == last


async def test_watch_tells_of_an_object_made_anew_by_its_uid(kube, namespace):
    first = await kube.create(config(namespace))
    events = kube.watch(["ConfigMap"])
    await seen(events, namespace, "Added", "settings")
    await kube.delete(key_of(first))
    second = await kube.create(config(namespace))
    gone_one = await seen(events, namespace, "Deleted", "settings")
    assert gone_one["metadata"]["uid"] == first["metadata"]["uid"]
    assert await seen(events, namespace, "Added", "settings") == second


async def test_watch_tells_of_objects_deleted_with_their_owner(kube, namespace):
    owner = await kube.create(config(namespace, "owner"))
    await kube.create(config(namespace, "child", ownerReferences=[owner_reference(owner)]))
    events = kube.watch(["ConfigMap"])
    await seen(events, namespace, "Added", "owner")
    await kube.delete(key_of(owner))
    assert (await seen(events, namespace, "Deleted", "child"))["metadata"]["name"] == "child"


async def test_watch_leaves_other_kinds_out(kube, namespace):
    await kube.create(config(namespace))
    await kube.create(repository(namespace))
    events = kube.watch(["ModelRepository"])
    async with asyncio.timeout(DEADLINE_SECONDS):
        async for event in events:
            assert event.object["kind"] == "ModelRepository"
            if event.object["metadata"]["namespace"] == namespace:
                break


async def test_concurrent_writers_lose_no_annotation(kube, namespace):
    made = await kube.create(config(namespace))
    writers = [kube.annotate(key_of(made), {f"example.com/n{number}": "x"}) for number in range(20)]
    await asyncio.gather(*writers)
    assert len((await kube.get(key_of(made)))["metadata"]["annotations"]) == 20


async def test_versions_differ_after_every_change(kube, namespace):
    made = await kube.create(config(namespace))
    changed = [await kube.apply(config(namespace, data={"level": f"v{level}"})) for level in range(5)]
    assert len({version(item) for item in (made, *changed)}) == 6
