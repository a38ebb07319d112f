"""Pins what a spec asks for: from a spec and a commit to the exact inputs, their hash and the revision's name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.api.base import HashMark, dump
from controller.api.hashes import digest, marked
from controller.api.kinds import ModelSpec
from controller.api.modelrevision import (
    ModelRevisionSpec,
    PinnedData,
    PinnedSource,
    PinnedTraining,
    Trigger,
)
from controller.api.modelspec import ModelSpecSpec
from controller.plan import naming
from controller.plan.observed import SourceSeen


def inputs_hash(spec: ModelSpecSpec, files: str, data: tuple[PinnedData, ...]) -> str:
    """Hash everything that makes another model: code, data, split, target, parameters, image, command, env.

    The datasets count by content: what stands in the spec about them is replaced by name, place and digest.
    """
    fields: dict[str, Any] = marked(spec, HashMark.INPUTS)
    fields["data"] = [[d.name, d.path or "", d.digest] for d in data]
    fields["files"] = files
    return digest(fields)


def inputs_of(spec: ModelRevisionSpec) -> str:
    """Hash the inputs of a revision again: a spec kept elsewhere counts only if this is what it states."""
    training = spec.training
    fields: dict[str, Any] = {
        "columns": dump(spec.columns),
        "holdout": dump(spec.holdout),
        "training": dump(training),
        "data": [[d.name, d.path or "", d.digest] for d in spec.data],
        "files": spec.source.files,
    }
    return digest(fields)


def gate_hash(spec: ModelSpecSpec) -> str:
    """Hash the gates."""
    return digest(marked(spec, HashMark.GATE))


def checks_hash(spec: ModelSpecSpec) -> str:
    """Hash the data checks."""
    return digest(marked(spec, HashMark.EVIDENCE))


def pin(model: ModelSpec, source: SourceSeen, *, first: bool) -> tuple[str, ModelRevisionSpec]:
    """Return the name and the spec of the revision that a commit asks for.

    Args:
        model: the ModelSpec.
        source: the commit and what the spec selects of it.
        first: no revision exists yet (for the words of the trigger only).
    """
    spec, training = model.spec, model.spec.training
    hash_ = inputs_hash(spec, source.files, source.data)
    what = "first commit" if first else "commit"
    trigger = Trigger(
        type="Commit", message=f"{what} {source.commit[:7]}: {source.subject}"[:250], author=source.author[:120]
    )
    pinned = ModelRevisionSpec(
        model=model.metadata.name,
        inputs=hash_,
        source=PinnedSource(
            url=spec.source.url, commit=source.commit, paths=spec.source.paths, files=source.files
        ),
        data=source.data,
        columns=spec.columns,
        holdout=spec.holdout,
        training=PinnedTraining(
            image=training.image,
            command=training.command,
            params=training.params,
            seed=training.seed,
            env=training.env,
        ),
        trigger=trigger,
    )
    return naming.revision_name(model.metadata.name, hash_), pinned


def as_manifest(spec: ModelRevisionSpec) -> Mapping[str, Any]:
    """Write a revision's spec as JSON."""
    return dump(spec)
