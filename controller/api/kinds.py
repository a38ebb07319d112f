"""The four kinds as whole objects, and the table that everything generic about them reads.

`parse` turns a manifest into a typed object or into a list of errors with the path of each; the command line, the
store and the controller all use it, so that they cannot disagree.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from controller.api.base import MODEL_NAME_MAX, MODEL_NAME_PATTERN, NAME_PATTERN, Lenient, Strict
from controller.api.meta import API_VERSION, Manifest
from controller.api.modeloverride import ModelOverrideSpec, ModelOverrideStatus
from controller.api.modelrepository import ModelRepositorySpec, ModelRepositoryStatus
from controller.api.modelrevision import ModelRevisionSpec, ModelRevisionStatus
from controller.api.modelspec import ModelSpecSpec
from controller.api.modelstatus import ModelSpecStatus


class ObjectMeta(Lenient):
    """The part of `metadata` that we read; the API server owns the rest."""

    model_config = ConfigDict(extra="ignore")
    name: Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=63)]
    """Name, unique per kind and namespace."""
    namespace: Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=63)] = "default"
    """Namespace."""
    uid: str = ""
    """Identity: another object of the same name has another."""
    generation: int = 0
    """Moves with every change of the spec."""
    resource_version: str = ""
    """Moves with every change."""
    labels: Annotated[dict[str, str], Field(max_length=64)] = Field(default_factory=dict)
    """Labels."""
    annotations: Annotated[dict[str, str], Field(max_length=64)] = Field(default_factory=dict)
    """Annotations."""
    creation_timestamp: str = ""
    """When it was made, RFC 3339."""
    deletion_timestamp: str | None = None
    """Set while it is being deleted."""


class ModelMeta(ObjectMeta):
    """Metadata of a ModelSpec: shorter names, since revisions, Jobs and servers are named after it."""

    name: Annotated[str, StringConstraints(pattern=MODEL_NAME_PATTERN, max_length=MODEL_NAME_MAX)]
    """Name: lower-case letters, digits and `-`, starting with a letter, at most 40 characters."""


class ModelSpec(Strict):
    """One machine-learning model in one environment: its code, data, gates and serving."""

    api_version: Literal["mainspring.dev/v1alpha1"] = "mainspring.dev/v1alpha1"
    kind: Literal["ModelSpec"] = "ModelSpec"
    metadata: ModelMeta
    spec: ModelSpecSpec
    status: ModelSpecStatus = ModelSpecStatus()


class ModelRevision(Strict):
    """One immutable bundle of inputs of a model, with its evidence. Written by the controller only."""

    api_version: Literal["mainspring.dev/v1alpha1"] = "mainspring.dev/v1alpha1"
    kind: Literal["ModelRevision"] = "ModelRevision"
    metadata: ObjectMeta
    spec: ModelRevisionSpec
    status: ModelRevisionStatus = ModelRevisionStatus()


class ModelRepository(Strict):
    """Syncs ModelSpecs from a path of a Git repository into its own namespace."""

    api_version: Literal["mainspring.dev/v1alpha1"] = "mainspring.dev/v1alpha1"
    kind: Literal["ModelRepository"] = "ModelRepository"
    metadata: ObjectMeta
    spec: ModelRepositorySpec
    status: ModelRepositoryStatus = ModelRepositoryStatus()


class ModelOverride(Strict):
    """An order of a person for a while: roll back, promote or abort; then Git rules again."""

    api_version: Literal["mainspring.dev/v1alpha1"] = "mainspring.dev/v1alpha1"
    kind: Literal["ModelOverride"] = "ModelOverride"
    metadata: ObjectMeta
    spec: ModelOverrideSpec
    status: ModelOverrideStatus = ModelOverrideStatus()


Typed = ModelSpec | ModelRevision | ModelRepository | ModelOverride


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind. Columns are (name, type, JSON path, priority); those of priority 1 show with `-o wide`."""

    name: str
    plural: str
    short: str
    model: type[BaseModel]
    columns: tuple[tuple[str, str, str, int], ...]


def _condition(type_: str, field: str) -> str:
    return f'.status.conditions[?(@.type=="{type_}")].{field}'


KINDS: dict[str, Kind] = {
    "ModelSpec": Kind(
        "ModelSpec",
        "modelspecs",
        "mspec",
        ModelSpec,
        (
            ("Ready", "string", _condition("Ready", "status"), 0),
            ("Available", "string", _condition("Available", "status"), 0),
            ("Reason", "string", _condition("Ready", "reason"), 0),
            ("Stage", "string", ".status.stage", 0),
            ("Champion", "string", ".status.champion.revision", 0),
            ("Canary%", "integer", ".status.challenger.weight", 0),
            ("Age", "date", ".metadata.creationTimestamp", 0),
            ("Overridden", "string", _condition("Overridden", "reason"), 1),
            ("Commit", "string", ".status.champion.commit", 1),
            ("Data", "string", ".status.champion.data[0].digest", 1),
            ("Checks", "string", ".status.analysis.passed", 1),
            ("URL", "string", ".status.url", 1),
            ("Message", "string", _condition("Ready", "message"), 1),
        ),
    ),
    "ModelRevision": Kind(
        "ModelRevision",
        "modelrevisions",
        "mrev",
        ModelRevision,
        (
            ("Model", "string", ".spec.model", 0),
            ("Ready", "string", _condition("Ready", "status"), 0),
            ("Reason", "string", _condition("Ready", "reason"), 0),
            ("Version", "string", ".status.version", 0),
            ("Commit", "string", ".spec.source.commit", 0),
            ("Age", "date", ".metadata.creationTimestamp", 0),
            ("Run", "string", ".status.run", 1),
            ("Message", "string", _condition("Ready", "message"), 1),
        ),
    ),
    "ModelRepository": Kind(
        "ModelRepository",
        "modelrepositories",
        "mrepo",
        ModelRepository,
        (
            ("Ready", "string", _condition("Ready", "status"), 0),
            ("Reason", "string", _condition("Ready", "reason"), 0),
            ("Healthy", "string", _condition("Healthy", "status"), 0),
            ("Revision", "string", ".status.revision", 0),
            ("Age", "date", ".metadata.creationTimestamp", 0),
            ("URL", "string", ".spec.url", 1),
            ("Message", "string", _condition("Ready", "message"), 1),
        ),
    ),
    "ModelOverride": Kind(
        "ModelOverride",
        "modeloverrides",
        "movr",
        ModelOverride,
        (
            ("Model", "string", ".spec.modelRef.name", 0),
            ("Action", "string", ".spec.action", 0),
            ("To", "string", ".spec.to", 0),
            ("Active", "string", _condition("Active", "status"), 0),
            ("Reason", "string", _condition("Active", "reason"), 0),
            ("Expires", "string", ".spec.expiresAt", 0),
            ("Age", "date", ".metadata.creationTimestamp", 0),
            ("Actor", "string", ".spec.actor", 1),
            ("Message", "string", _condition("Active", "message"), 1),
        ),
    ),
}
"""Our kinds by name."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with an object: where (keys and list indices from the root) and what."""

    path: tuple[str | int, ...]
    message: str
    type: str = ""

    def __str__(self) -> str:
        """Write it as `spec.gates[0].min: …`."""
        where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in self.path).lstrip(".")
        return f"{where}: {self.message}" if where else self.message


def parse(manifest: Manifest) -> Typed | tuple[FieldError, ...]:
    """Read an object of one of our kinds.

    Returns:
        The typed object, or every error found. Metadata that the API server adds is accepted; a status is read
        leniently, and one that cannot be read counts as absent, since the controller owns it.
    """
    kind = KINDS.get(manifest.get("kind", ""))
    if kind is None or manifest.get("apiVersion") != API_VERSION:
        return (FieldError(("kind",), f"not one of {', '.join(KINDS)} in {API_VERSION}"),)
    try:
        return kind.model.model_validate_json(json.dumps(manifest), strict=True)  # type: ignore[return-value]
    except ValidationError as error:
        problems = tuple(_field_error(e) for e in error.errors(include_url=False, include_context=False))
    if all(p.path[:1] == ("status",) for p in problems):
        return parse({k: v for k, v in manifest.items() if k != "status"})
    return tuple(p for p in problems if p.path[:1] != ("status",))


def _field_error(error: Any) -> FieldError:
    message = str(error["msg"]).removeprefix("Value error, ")
    return FieldError(tuple(error["loc"]), message, str(error["type"]))
