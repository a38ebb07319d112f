"""Server-side apply for one field manager, as pure functions over plain dicts.

Who wrote what is kept as two sets of fields: what the last apply gave ("applied"), and what anyone else wrote
by create, annotate or patch ("foreign").  An apply removes what it gave before and gives no more, except what
is foreign by now; an apply takes over the values it changes, and so does every other write.  That is what the
API server does with managedFields.  Nothing here reads or writes a store, or knows a kind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from controller.api.meta import Manifest

Fields = dict[str, Any]
"""A set of fields as nested dicts; `{}` is a leaf. Items of keyed lists stand under the JSON of their key."""

LIST_KEYS: dict[str, tuple[tuple[str, ...], ...]] = {
    "conditions": (("type",),),
    "hostAliases": (("ip",),),
    "ownerReferences": (("uid",),),
    "ports": (("containerPort", "protocol"), ("port", "protocol")),
    "topologySpreadConstraints": (("topologyKey", "whenUnsatisfiable"),),
    "volumeDevices": (("devicePath",),),
    "volumeMounts": (("mountPath",),),
}
"""Lists that Kubernetes merges by something else than `name`, in Pod templates, Services and metadata."""

ATOMIC = frozenset({"backendRefs", "filters", "gatewayRefs", "httpHeaders", "parentRefs", "rules", "tolerations"})
"""Lists whose items may have a `name` and that are nevertheless replaced as a whole."""

_KEY_DEFAULTS = {"protocol": "TCP"}


def apply_fields(live: Manifest, wanted: Manifest, applied: Fields, foreign: Fields) -> Manifest:
    """Merge `wanted` into `live`, dropping fields in `applied` that `wanted` lacks and `foreign` does not hold.

    Other lists of objects merge by `name` where every item has one and none has it twice; all else, lists of
    plain values included, is replaced.  The items of `wanted` come first, in its order.
    """
    return cast(Manifest, _merge("", live, wanted, applied, foreign))


def merge_patch(target: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7386, section 2): null removes, lists are replaced."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result


def fields_of(value: Any, field: str = "") -> Fields:
    """List the fields of a value: one leaf for each plain value, empty object or list without keys."""
    items = _items(field, value)
    return {} if items is None else {name: fields_of(item, name) for name, item in items.items()}


def changes(before: Any, after: Any, field: str = "") -> tuple[Fields, Fields]:
    """Compare two objects: the fields that `after` adds or changes, and those that it no longer has."""
    written: Fields = {}
    removed: Fields = {}
    pair = _pair(field, before, after)
    if pair is None:
        return written, removed
    old, new = pair
    for name in old.keys() | new.keys():
        if name not in new:
            removed[name] = fields_of(old[name], name)
        elif name not in old:
            written[name] = fields_of(new[name], name)
        elif _pair(name, old[name], new[name]) is not None:
            deeper_written, deeper_removed = changes(old[name], new[name], name)
            if deeper_written:
                written[name] = deeper_written
            if deeper_removed:
                removed[name] = deeper_removed
        elif not same(old[name], new[name]):
            written[name] = fields_of(new[name], name)
    return written, removed


def union(left: Fields, right: Fields) -> Fields:
    """Return the fields in either set."""
    both = left.keys() & right.keys()
    return {**left, **right, **{name: union(left[name], right[name]) for name in both}}


def subtract(left: Fields, right: Fields) -> Fields:
    """Return the fields in `left` that are not in `right`; a leaf in `right` takes all below it."""
    rest: Fields = {}
    for name, below in left.items():
        if name not in right:
            rest[name] = below
        elif below and right[name]:
            deeper = subtract(below, right[name])
            if deeper:
                rest[name] = deeper
    return rest


def same(left: Any, right: Any) -> bool:
    """Tell whether two JSON values are equal; unlike Python, `true` is not 1."""
    return left == right and text_of(left) == text_of(right)


def text_of(value: Any) -> str:
    """Write a value as canonical JSON, keys sorted.

    Raises:
        TypeError: something in it is not JSON.
        ValueError: a number is not finite.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def _merge(field: str, live: Any, wanted: Any, applied: Fields, foreign: Fields) -> Any:
    pair = _pair(field, live, wanted)
    if pair is None:
        return wanted
    present, given = pair
    merged: dict[str, Any] = {}
    for name, value in given.items():
        if name in present:
            value = _merge(name, present[name], value, applied.get(name, {}), foreign.get(name, {}))
        merged[name] = value
    for name, value in present.items():
        if name in given:
            continue
        if name not in applied:
            merged[name] = value
        elif name in foreign:
            key = () if isinstance(wanted, dict) else tuple(json.loads(name))
            merged[name] = _restrict(name, value, foreign[name], key)
    return merged if isinstance(wanted, dict) else list(merged.values())


def _restrict(field: str, value: Any, kept: Fields, key: tuple[str, ...] = ()) -> Any:
    """Keep of a value only the fields in `kept`, and of a list's item also its `key`."""
    items = _items(field, value)
    if not kept or items is None:
        return value
    listed = isinstance(value, list)
    rest = {
        name: _restrict(name, item, kept.get(name, {}), tuple(json.loads(name)) if listed else ())
        for name, item in items.items()
        if name in kept or name in key
    }
    return list(rest.values()) if listed else rest


def _pair(field: str, left: Any, right: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """See two values as maps if both are maps, or both lists with the same key; an empty list has any key."""
    if isinstance(left, list) and isinstance(right, list):
        ours, theirs = _items(field, left), _items(field, right)
        if not left and theirs is not None:
            return {}, theirs
        if not right and ours is not None:
            return ours, {}
        return None if ours is None or theirs is None else (ours, theirs)
    return (left, right) if isinstance(left, dict) and isinstance(right, dict) else None


def _items(field: str, value: Any) -> dict[str, Any] | None:
    """See a value as a map of named parts; None if it is one indivisible value."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, list) or not value or field in ATOMIC:
        return None
    if not all(isinstance(item, dict) for item in value):
        return None
    for keys in LIST_KEYS.get(field, (("name",),)):
        if all(keys[0] in item for item in value):
            named = {_key_text(item, keys): item for item in value}
            return named if len(named) == len(value) else None
    return None


def _key_text(item: dict[str, Any], keys: tuple[str, ...]) -> str:
    return json.dumps({key: item.get(key, _KEY_DEFAULTS.get(key)) for key in keys})
