"""Server-side apply on any objects: applying twice is applying once, and other writers keep what they wrote."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.api.meta import API_VERSION, Key
from controller.local.merge import apply_fields, changes, fields_of, merge_patch, same, subtract, union
from controller.local.store import Store

KEY = Key("ModelRepository", "default", "models")

names = st.sampled_from(["a", "b", "c", "d"])
values = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "x", "y"])
named_lists = st.lists(
    st.fixed_dictionaries({"name": names}, optional={"value": values, "more": st.dictionaries(names, values)}),
    max_size=4,
)
trees = st.recursive(
    values | st.lists(values, max_size=3) | named_lists,
    lambda inner: st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
specs = st.dictionaries(names, trees, max_size=4)
notes = st.dictionaries(st.sampled_from(["m/a", "m/b", "m/c"]), st.sampled_from(["1", "2"]), max_size=3)
foreign_notes = st.dictionaries(st.sampled_from(["o/a", "o/b", "m/a"]), st.sampled_from(["7", "8"]), max_size=3)


def manifest(spec, given_notes):
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelRepository",
        "metadata": {"name": "models", "annotations": given_notes},
        "spec": spec,
    }


def in_store(story):
    async def run():
        store = Store.open(":memory:")
        try:
            return await story(store)
        finally:
            store.close()

    return asyncio.run(run())


@settings(max_examples=150, deadline=None)
@given(specs, notes, specs, notes, foreign_notes, specs)
def test_applying_twice_is_applying_once(old, old_notes, new, new_notes, others, patch):
    async def story(store):
        await store.apply(manifest(old, old_notes))
        await store.annotate(KEY, others)
        await store.patch_spec(KEY, patch)
        first = await store.apply(manifest(new, new_notes))
        assert await store.apply(manifest(new, new_notes)) == first

    in_store(story)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(specs, notes), min_size=1, max_size=4), foreign_notes)
def test_no_apply_loses_an_annotation_of_another_writer(applies, others):
    async def story(store):
        await store.apply(manifest(*applies[0]))
        await store.annotate(KEY, others)
        for spec, given_notes in applies:
            found = (await store.apply(manifest(spec, given_notes)))["metadata"].get("annotations", {})
            assert {name: found.get(name) for name in given_notes} == given_notes
            alone = {name: value for name, value in others.items() if name.startswith("o/")}
            assert {name: found.get(name) for name in alone} == alone

    in_store(story)


@settings(max_examples=150, deadline=None)
@given(specs, specs)
def test_without_other_writers_an_apply_leaves_exactly_what_it_gives(old, new):
    async def story(store):
        await store.apply(manifest(old, {}))
        first = await store.apply(manifest(new, {}))
        fresh = Store.open(":memory:")
        expected = await fresh.apply(manifest(new, {}))
        fresh.close()
        assert first["spec"] == expected["spec"]

    in_store(story)


@settings(max_examples=200, deadline=None)
@given(specs, specs)
def test_what_changed_is_nothing_exactly_between_equal_objects(before, after):
    written, removed = changes(before, after)
    if same(before, after):
        assert (written, removed) == ({}, {})
    if fields_of(before) == fields_of(after):
        assert not removed


@settings(max_examples=200, deadline=None)
@given(specs, specs)
def test_sets_of_fields_behave_as_sets(left, right):
    ours, theirs = fields_of(left), fields_of(right)
    assert union(ours, ours) == ours
    assert union(ours, theirs) == union(theirs, ours)
    assert subtract(ours, ours) == {}


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_follows_the_table_of_rfc_7386(target, patch, result):
    assert merge_patch(target, patch) == result


@pytest.mark.parametrize(
    ("field", "live", "wanted", "foreign", "result"),
    [
        pytest.param(
            "containers",
            [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}],
            [{"name": "b", "image": "2"}],
            [{"name": "a", "image": "1"}],
            [{"name": "b", "image": "2"}, {"name": "a", "image": "1"}],
            id="containers of others stay behind ours",
        ),
        pytest.param(
            "ports",
            [{"containerPort": 80}, {"containerPort": 81, "protocol": "UDP"}],
            [{"containerPort": 80, "protocol": "TCP"}],
            [{"containerPort": 81, "protocol": "UDP"}],
            [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 81, "protocol": "UDP"}],
            id="container ports by number and protocol, TCP if not said",
        ),
        pytest.param(
            "volumeMounts",
            [{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/b"}],
            [{"name": "w", "mountPath": "/a"}],
            [{"name": "v", "mountPath": "/b"}],
            [{"name": "w", "mountPath": "/a"}, {"name": "v", "mountPath": "/b"}],
            id="volume mounts by path",
        ),
        pytest.param(
            "rules",
            [{"name": "a"}, {"name": "b"}],
            [{"name": "c"}],
            [{"name": "b"}],
            [{"name": "c"}],
            id="route rules as a whole",
        ),
        pytest.param("args", ["a", "b"], ["c"], ["a"], ["c"], id="plain values as a whole"),
    ],
)
def test_lists_merge_as_kubernetes_merges_them(field, live, wanted, foreign, result):
    merged = apply_fields({field: live}, {field: wanted}, fields_of({field: live}), fields_of({field: foreign}))
    assert merged == {field: result}


def test_a_given_up_item_that_others_extended_keeps_its_key_and_their_fields():
    live = {"containers": [{"name": "a", "image": "1", "tty": True}]}
    applied = fields_of({"containers": [{"name": "a", "image": "1"}]})
    foreign: dict = {"containers": {'{"name": "a"}': {"tty": {}}}}
    merged = apply_fields(live, {"containers": []}, applied, foreign)
    assert merged == {"containers": [{"name": "a", "tty": True}]}
