"""The rules for `metadata` in a file: known fields, labels, annotations; the same that the API server enforces.

The name itself is checked by the kinds.  Knows nothing of files or positions: paths and messages only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from controller.api.strictyaml import Path
from controller.api.validation_words import did_you_mean, shown

ANNOTATIONS_MAX: Final = 262_144
"""Most bytes of all annotations of an object together."""
_OURS: Final = ("name", "namespace", "labels", "annotations")
_SERVERS: Final = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
)
_QUALIFIED: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_PREFIX: Final = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")

Found = tuple[Path, str]
"""Where and what."""


def reduced(metadata: dict[str, Any]) -> dict[str, Any]:
    """Keep what people write; the rest belongs to the API server, in whose output it may be null."""
    return {k: v for k, v in metadata.items() if k in _OURS}


def metadata_problems(metadata: dict[str, Any]) -> Iterator[Found]:
    """Find unknown fields and wrong labels and annotations of an object."""
    for field in metadata:
        if field not in _OURS + _SERVERS:
            yield ("metadata", field), f"unknown field {shown(field)}{did_you_mean(field, _OURS)}"
    if "generateName" in metadata and "name" not in metadata:
        yield ("metadata", "generateName"), "an object in a file needs a name of its own, not generateName"
    labels, annotations = metadata.get("labels"), metadata.get("annotations")
    for part, entries in (("labels", labels), ("annotations", annotations)):
        for key in entries if isinstance(entries, dict) else ():
            if problem := _key_problem(key):
                yield ("metadata", part, key), problem
    if isinstance(labels, dict):
        for key, value in labels.items():
            if isinstance(value, str) and value and not _QUALIFIED.fullmatch(value):
                yield (
                    ("metadata", "labels", key),
                    f"{shown(value)} is no label value: at most 63 letters, digits, '.', '_' and '-', "
                    "beginning and ending with a letter or digit; longer text belongs into annotations",
                )
    if isinstance(annotations, dict):
        size = sum(len(f"{k}{v}".encode()) for k, v in annotations.items())
        if size > ANNOTATIONS_MAX:
            yield ("metadata", "annotations"), f"annotations have {size:,} bytes together, at most 262,144 fit"


def _key_problem(key: str) -> str | None:
    prefix, slash, name = key.rpartition("/")
    if not _QUALIFIED.fullmatch(name):
        return f"{shown(key)} is no key: at most 63 letters, digits, '.', '_' and '-', after an optional 'domain/'"
    if slash and not _PREFIX.fullmatch(prefix):
        return f"{shown(key)} is no key: before '/' stands a domain such as example.com, in lower case"
    return None
