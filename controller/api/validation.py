"""Is this file right?  `check_text` is the one answer, for `mainspring validate` and for the sync of repositories.

Reads strictly (`strictyaml`), then checks every document of our group against its kind; every problem of every
document is named at once with line and column.  A file counts as a whole: with one problem none of its objects is
handed out.  Pure: text in, objects or problems out; never opens a file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final

from pydantic import ValidationError

from controller.api.crd import schema_of
from controller.api.kinds import KINDS, FieldError
from controller.api.meta import API_VERSION, GROUP, Manifest
from controller.api.strictyaml import Document, Path, Position, escaped, read
from controller.api.strictyaml_scalars import cut
from controller.api.validation_hints import warnings_of
from controller.api.validation_meta import metadata_problems, reduced
from controller.api.validation_words import Node, did_you_mean, sentence, shown

_MENTIONS_US: Final = re.compile(rf"(?i)mainspr|\b({'|'.join(KINDS)})\b".encode())
_WRITTEN_BY_US: Final = "ModelRevision"
_PASSWORD: Final = re.compile(r"://[^/\s]*@")
_FREE: Final = "x-kubernetes-preserve-unknown-fields"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a file, or worth a warning. `path` is written `spec.gates[0].min`."""

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        """Write it as compilers do: `file:line:column: path: message`."""
        where = f"{self.path}: " if self.path else ""
        return f"{self.file}:{self.line}:{self.column}: {where}{self.message}"


@dataclass(frozen=True, slots=True)
class CheckedDocument:
    """One object of ours that is right, with the position of every field in its file."""

    manifest: Manifest
    positions: dict[Path, Position]


@dataclass(frozen=True, slots=True)
class Checked:
    """The answer on one file.

    `documents` is empty if there are problems. `names` has (kind, name) of every object that could be recognised,
    wrong ones too, so that a sync keeps what it cannot read. `skipped` says why a file holds nothing of ours;
    `unreadable` says that this is only because it cannot be read or is empty, so what it once held may still be
    meant.
    """

    documents: tuple[CheckedDocument, ...] = ()
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    names: tuple[tuple[str, str], ...] = ()
    skipped: str | None = None
    unreadable: bool = False


def check_text(text: bytes, file: str) -> Checked:
    """Check a file's content; `file` only stands in the messages."""
    parsed = read(text)
    if parsed.problems and not _MENTIONS_US.search(text[:1_048_576].replace(b"\0", b"")):
        first = parsed.problems[0]
        reason = f"names nothing of Mainspring (line {first.line}: {first.message})"
        return Checked(skipped=reason, unreadable=True)
    if not parsed.problems and not parsed.documents:
        return Checked(skipped="no document", unreadable=True)
    check = _Check(file)
    check.problems += [Problem(file, p.line, p.column, "", p.message) for p in parsed.problems]
    foreign = [check.document(document) for document in parsed.documents]
    if not check.problems and not check.documents:
        return Checked(skipped=next(reason for reason in foreign if reason))
    problems = tuple(sorted(check.problems, key=lambda p: (p.line, p.column, p.path, p.message)))
    return Checked(
        documents=() if problems else tuple(check.documents),
        problems=problems,
        warnings=tuple(sorted(check.warnings, key=lambda p: (p.line, p.column))),
        names=tuple(check.names),
    )


@dataclass
class _Check:
    """Collects what is found in one file."""

    file: str
    documents: list[CheckedDocument] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    names: list[tuple[str, str]] = field(default_factory=list)

    def document(self, document: Document) -> str | None:
        """Check one document; returns why it is none of ours, or None."""
        value = document.value
        if not isinstance(value, dict):
            return "no Kubernetes object"
        if (reason := _foreign(value)) is not None:
            return reason
        found = list(_identity(value))
        if not found:
            self._name(value, document)
            problems = object_problems(value, document.texts)
            # What the reader refused is no further problem of its field.
            found = [(path, message) for path, message in problems if path not in document.refused]
            wrong = {path for path, _ in found}
            self.warnings += [self._problem(document, *w) for w in warnings_of(value) if w[0] not in wrong]
        self.problems += [self._problem(document, *f) for f in found]
        if not found:
            self.documents.append(CheckedDocument(_wanted(value), document.positions))
        return None

    def _name(self, value: Manifest, document: Document) -> None:
        metadata = value.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        if not isinstance(name, str):
            return
        if (value["kind"], name) in self.names:
            message = f"{value['kind']} {shown(name)} comes twice in this file"
            self.problems.append(self._problem(document, ("metadata", "name"), message))
        self.names.append((value["kind"], name))

    def _problem(self, document: Document, path: Path, message: str) -> Problem:
        line, column = document.position(path)
        where = escaped(str(FieldError(path, ""))).removesuffix(": ")
        return Problem(self.file, line, column, where, _PASSWORD.sub("://***@", message))


def _wanted(value: Manifest) -> Manifest:
    """Leave out what only the controller and the API server write: status, and nulls that kubectl prints."""
    metadata = {k: v for k, v in value["metadata"].items() if v is not None}
    return {k: metadata if k == "metadata" else v for k, v in value.items() if k != "status"}


def _foreign(value: Manifest) -> str | None:
    """Say why an object is not meant to be ours, or None if it is."""
    version, kind = value.get("apiVersion"), value.get("kind")
    if version is None and kind is None:
        return "no Kubernetes object"
    group = version.partition("/")[0] if isinstance(version, str) else ""
    if group == GROUP or (isinstance(kind, str) and kind in KINDS and not _another_group(group)):
        return None
    if isinstance(kind, str) and get_close_matches(group, [GROUP], cutoff=0.8):
        return None
    return f"{cut(escaped(str(version)))} {cut(escaped(str(kind)))} is no kind of Mainspring"


def _another_group(group: str) -> bool:
    return "." in group and not get_close_matches(group, [GROUP], cutoff=0.6)


def _identity(value: Manifest) -> Iterator[tuple[Path, str]]:
    """Check kind and version, without which no field has a meaning."""
    version, kind = value.get("apiVersion"), value.get("kind")
    if version != API_VERSION:
        if version is None:
            yield (), f"apiVersion is missing; write apiVersion: {API_VERSION}"
        else:
            yield ("apiVersion",), f"{shown(version)} is unknown here; this Mainspring knows {API_VERSION}"
    if kind is None:
        yield (), f"kind is missing; it is one of {', '.join(KINDS)}"
    elif kind not in KINDS:
        hint = did_you_mean(str(kind), KINDS)
        yield ("kind",), f"{shown(kind)} is not one of {', '.join(KINDS)}{hint}"
    elif kind == _WRITTEN_BY_US:
        yield ("kind",), "a ModelRevision is written by the controller only; delete it from the file"


def object_problems(value: Manifest, texts: dict[Path, str] | None = None) -> Iterator[tuple[Path, str]]:
    """Find everything wrong with an object of a known kind: (path, message).

    Args:
        value: the object.
        texts: source of unquoted scalars by path, where the object comes from a file.
    """
    texts = texts or {}
    schema = schema_of(value["kind"])
    metadata = value.get("metadata")
    body = {k: v for k, v in value.items() if k != "status"}
    if isinstance(metadata, dict):
        body["metadata"] = reduced(metadata)
        yield from metadata_problems(metadata)
    empty = dict(_nulls(body, schema, ()))
    doubles = dict(_doubles(body, schema, ()))
    yield from empty.items()
    yield from doubles.items()
    try:
        KINDS[value["kind"]].model.model_validate_json(json.dumps(body), strict=True)
    except ValidationError as error:
        said: dict[tuple[Path, str], None] = {}
        for e in error.errors(include_url=False, include_input=False):
            path, message = _said(dict(e), body, schema, texts)
            if e["type"] == "too_short" and _there(body, path)[1]:
                continue  # pydantic counts the entries that are right; the wrong ones are named on their own
            if e["type"] == "value_error" and any(p[: len(path)] == path for p in empty):
                continue  # the rule may only speak because a value is empty
            if path not in empty and not (doubles and message.endswith("comes twice")):
                said[path, message] = None
        yield from said


def _is_union(error: Any) -> bool:
    return str(error["loc"][-1:]) in ("('bool',)", "('int',)", "('float',)", "('str',)")


def _said(error: dict[str, Any], body: Manifest, schema: Node, texts: dict[Path, str]) -> tuple[Path, str]:
    path: Path = tuple(error["loc"])
    if error["type"] == "extra_forbidden":
        return path, _unknown(path, schema)
    if error["type"] == "missing":
        return path[:-1], f"the field {shown(path[-1])} is missing"
    path, value = _there(body, path)
    if _is_union(error):
        return path, f"text, a number or true/false is wanted here, not {shown(value)}"
    return path, sentence(error, value, _node(schema, path), texts.get(path))


def _unknown(path: Path, schema: Node) -> str:
    name, known = str(path[-1]), _node(schema, path[:-1]).get("properties", {})
    hint = did_you_mean(name, known)
    if not hint and (homes := list(_homes(schema["properties"]["spec"], name, "spec"))):
        hint = f"; it belongs into {' or '.join(homes[:3])}"
    return f"unknown field {shown(name)}{hint or '; known here: ' + ', '.join(known)}"


def _homes(node: Node, name: str, where: str) -> Iterator[str]:
    """Find the blocks that know a field."""
    for key, child in node.get("properties", {}).items():
        if key == name:
            yield where
        yield from _homes(child, name, f"{where}.{key}")
    if "items" in node:
        yield from _homes(node["items"], name, f"{where}[]")


def _there(value: Any, path: Path) -> tuple[Path, Any]:
    """Follow a path as far as it leads; pydantic adds the names of union members behind it."""
    for depth, step in enumerate(path):
        inside = isinstance(value, dict) and step in value
        if not inside and not (isinstance(value, list) and isinstance(step, int) and step < len(value)):
            return path[:depth], value
        value = value[step]
    return path, value


def _node(schema: Node, path: Path) -> Node:
    """Find the schema of a path; empty where the schema says nothing."""
    for step in path:
        schema = schema.get("items", {}) if isinstance(step, int) else schema.get("properties", {}).get(step, {})
    return schema


def _nulls(value: Any, node: Node, path: Path) -> Iterator[tuple[Path, str]]:
    """Find empty values, which the API server refuses where a type is wanted."""
    if value is None and not node.get(_FREE):
        yield path, "is empty; write a value or delete the line"
    elif isinstance(value, dict) and not node.get(_FREE):
        for key, child in value.items():
            below = node.get("properties", {}).get(key, {})
            yield from _nulls(child, below, (*path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _nulls(child, node.get("items", {}), (*path, index))


def _doubles(value: Any, node: Node, path: Path) -> Iterator[tuple[Path, str]]:
    """Find names that come twice in a list that is merged by name."""
    if isinstance(value, dict):
        for key, child in node.get("properties", {}).items():
            if key in value:
                yield from _doubles(value[key], child, (*path, key))
    elif isinstance(value, list):
        seen = set()
        for index, child in enumerate(value):
            yield from _doubles(child, node.get("items", {}), (*path, index))
            name = child.get("name") if isinstance(child, dict) else None
            if "x-kubernetes-list-map-keys" in node and isinstance(name, str):
                if name in seen:
                    yield (*path, index, "name"), f"the name {shown(name)} comes twice"
                seen.add(name)
