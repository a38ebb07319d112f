"""What the object store refuses, in the words of the API server: names, sizes, owners, immutable fields.

Every refusal is `Denied` with a reason and names the field.  Nothing here reads or writes the store.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from controller.api.meta import API_VERSION, API_VERSIONS, Key, Manifest
from controller.clients.errors import Conflict, Denied
from controller.local.merge import same, text_of

OWN_KINDS = frozenset(kind for kind, version in API_VERSIONS.items() if version == API_VERSION)
MAX_ANNOTATIONS = 256 * 1024
"""Bytes of keys and values of all annotations of one object, as in Kubernetes."""
MAX_OBJECT = 1024 * 1024
"""Bytes of one object as JSON."""

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN_RE = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_LABEL_RE = re.compile(_LABEL)
_SERVICE_RE = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_WORD_RE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_WRITABLE = ("annotations", "labels", "ownerReferences")
"""The metadata that writers decide; all else is the store's."""
_IMMUTABLE = {
    "Job": ("template", "selector", "completions"),
    "Deployment": ("selector",),
    "ModelOverride": ("modelRef", "action", "to", "digest", "actor", "reason", "expiresAt"),
}


def normalise(manifest: Mapping[str, Any]) -> Manifest:
    """Copy a manifest as the store keeps it: nulls dropped, tuples as lists, the namespace filled in.

    Raises:
        Denied: reason Invalid; it is not a JSON object of a known kind with valid metadata.
    """
    copy = plain(manifest, "")
    kind, version, meta = str(copy.get("kind")), copy.get("apiVersion"), copy.get("metadata")
    check_kind(kind)
    if version != API_VERSIONS[kind]:
        raise invalid(kind, [f"apiVersion: is {version!r}, expected {API_VERSIONS[kind]}"])
    if not isinstance(meta, dict) or not isinstance(meta.get("name"), str):
        raise invalid(kind, ["metadata.name: a name is required; local mode has no generateName"])
    if meta.get("finalizers"):
        raise invalid(f"{kind}/{meta['name']}", ["metadata.finalizers: local mode has no finalizers"])
    meta.setdefault("namespace", "default")
    problems = list(_problems(copy))
    if problems:
        raise invalid(f"{kind}/{meta['namespace']}/{meta['name']}", problems)
    return copy


def plain(value: Mapping[str, Any], field: str) -> Manifest:
    """Copy a part of a manifest, nulls dropped.

    Raises:
        Denied: reason Invalid; it is not JSON.
    """
    return cast(Manifest, _plain(value, field))


def check_kind(kind: str) -> None:
    """Refuse kinds that are not in the API.

    Raises:
        Denied: reason Invalid.
    """
    if kind not in API_VERSIONS:
        raise invalid(kind, [f"kind: unknown; known are {', '.join(sorted(API_VERSIONS))}"])


def content(manifest: Manifest) -> Manifest:
    """Return what writers decide: everything but status, the store's own metadata and empty maps in it."""
    meta = {name: manifest["metadata"][name] for name in _WRITABLE if manifest["metadata"].get(name)}
    return {name: value for name, value in manifest.items() if name != "status"} | {"metadata": meta}


def assemble(body: Manifest, written: Manifest) -> Manifest:
    """Put new content into an object, keeping its status and the store's own metadata."""
    kept = {name: value for name, value in body["metadata"].items() if name not in _WRITABLE}
    status = {"status": body["status"]} if "status" in body else {}
    return {**written, **status, "metadata": {**kept, **written["metadata"]}}


def check(manifest: Manifest, text: str) -> None:
    """Refuse bad names, labels, annotations and owner references, and what is too large.

    Raises:
        Denied: reason Invalid, with every problem found.
    """
    problems = list(_problems(manifest))
    size = len(text.encode())
    if size > MAX_OBJECT:
        problems.append(f"the object has {size} bytes, at most {MAX_OBJECT} are allowed")
    if problems:
        meta = manifest["metadata"]
        raise invalid(f"{manifest['kind']}/{meta.get('namespace')}/{meta.get('name')}", problems)


def check_present(key: Key, given: Manifest, body: Manifest | None) -> None:
    """Check the uid, resourceVersion and controller that a manifest states against the present object.

    An object without a controller may be adopted; a manifest that names no controller changes none.

    Raises:
        Conflict: it was deleted, made anew or changed since it was read.
        Denied: reason OwnershipConflict; another object controls it.
    """
    meta = given["metadata"]
    present = body["metadata"] if body else {}
    for field in ("uid", "resourceVersion"):
        if field in meta and meta[field] != present.get(field):
            found = f"has {present[field]}" if present else "does not exist"
            raise Conflict(f"{key}: {field} {meta[field]} was given, but the object {found}; read it again")
    mine, theirs = _controller(meta), _controller(present)
    if mine and theirs and mine["uid"] != theirs["uid"]:
        raise Denied(
            f"{key} is controlled by {theirs['kind']} {theirs['name']} (uid {theirs['uid']}), "
            f"not by {mine['kind']} {mine['name']} (uid {mine['uid']}); rename or delete one of them",
            reason="OwnershipConflict",
        )


def check_immutable(key: Key, before: Manifest, after: Manifest) -> None:
    """Refuse changes that the API server refuses too: Job templates, selectors, immutable ConfigMaps.

    Raises:
        Denied: reason Invalid.
    """
    fields = [f"spec.{name}" for name in _IMMUTABLE.get(key.kind, ()) if _spec(before, name) != _spec(after, name)]
    if key.kind == "ConfigMap" and before.get("immutable"):
        parts = ("data", "binaryData", "immutable")
        fields = [name for name in parts if not same(before.get(name), after.get(name))]
    if fields:
        raise invalid(str(key), [f"{name}: is immutable; delete the object and make it anew" for name in fields])


def invalid(what: str, problems: list[str]) -> Denied:
    """Build the refusal of an object, all problems in one line."""
    return Denied(f"{what} is invalid: {'; '.join(problems)}", reason="Invalid")


def _spec(manifest: Manifest, name: str) -> str:
    return text_of(manifest.get("spec", {}).get(name))


def _controller(meta: Mapping[str, Any]) -> dict[str, Any] | None:
    references = meta.get("ownerReferences", ())
    return next((ref for ref in references if isinstance(ref, dict) and ref.get("controller")), None)


def _plain(value: Any, field: str) -> Any:
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise invalid(field or "manifest", [f"{field}: the key {name!r} is not a string"])
        prefix = f"{field}." if field else ""
        return {name: _plain(item, f"{prefix}{name}") for name, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{field}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, float) and value - value != 0.0:
        raise invalid(field, [f"{field}: {value} is not a finite number"])
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise invalid(
        field or "manifest", [f"{field}: {type(value).__name__} is not JSON; quote it to make it a string"]
    )


def _problems(manifest: Manifest) -> Iterator[str]:
    meta, kind = manifest["metadata"], manifest["kind"]
    yield from _name_problems(kind, meta["name"], meta["namespace"])
    for field in ("labels", "annotations"):
        pairs = meta.get(field, {})
        if not isinstance(pairs, dict) or not all(isinstance(value, str) for value in pairs.values()):
            yield f"metadata.{field}: must be a map of strings to strings"
            continue
        for name, value in pairs.items():
            if not _qualified(name):
                yield f"metadata.{field}: {name!r} is not a qualified name (prefix/name, name at most 63)"
            if field == "labels" and value and (len(value) > 63 or not _WORD_RE.fullmatch(value)):
                yield f"metadata.labels[{name}]: {value[:80]!r} is not a label value (at most 63 of A-Za-z0-9-_.)"
        if field == "annotations":
            size = sum(len(name.encode()) + len(value.encode()) for name, value in pairs.items())
            if size > MAX_ANNOTATIONS:
                yield f"metadata.annotations: {size} bytes, at most {MAX_ANNOTATIONS} are allowed"
    yield from _owner_problems(meta.get("ownerReferences", []))


def _name_problems(kind: str, name: str, namespace: Any) -> Iterator[str]:
    if kind == "Service":
        if len(name) > 63 or not _SERVICE_RE.fullmatch(name):
            yield f"metadata.name: {name!r} is not a DNS-1035 label (at most 63 of a-z0-9-, a letter first)"
    elif len(name) > 253 or not _SUBDOMAIN_RE.fullmatch(name):
        yield f"metadata.name: {name!r} is not a DNS-1123 subdomain (at most 253 of a-z0-9-.)"
    elif kind == "Job" and len(name) > 63:
        yield f"metadata.name: {name!r} has {len(name)} characters; a Job's name is a label, at most 63"
    if not isinstance(namespace, str) or len(namespace) > 63 or not _LABEL_RE.fullmatch(namespace):
        yield f"metadata.namespace: {namespace!r} is not a DNS-1123 label (at most 63 of a-z0-9-)"


def _owner_problems(references: Any) -> Iterator[str]:
    if not isinstance(references, list) or not all(isinstance(ref, dict) for ref in references):
        yield "metadata.ownerReferences: must be a list of objects"
        return
    for index, reference in enumerate(references):
        for field in ("apiVersion", "kind", "name", "uid"):
            if not isinstance(reference.get(field), str) or not reference[field]:
                yield f"metadata.ownerReferences[{index}].{field}: is required"
    if sum(1 for ref in references if ref.get("controller")) > 1:
        yield "metadata.ownerReferences: only one owner can be the controller"


def _qualified(name: str) -> bool:
    prefix, slash, word = name.rpartition("/")
    if slash and (len(prefix) > 253 or not _SUBDOMAIN_RE.fullmatch(prefix)):
        return False
    return len(word) <= 63 and _WORD_RE.fullmatch(word) is not None
