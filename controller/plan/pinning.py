"""Pins what a spec asks for: from a spec and a commit to the exact inputs, their hash and the revision's name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.api.base import HashMark, dump
from controller.api.data import Columns
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
from controller.api.reports import Measures, SliceAsked
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
    return digest({"checks": marked(spec, HashMark.EVIDENCE)["checks"]})


def measures(spec: ModelSpecSpec) -> Measures:
    """Collect what the gates ask for besides the metrics on all rows, each once and in order, and hash it."""
    slices = {(g.metric, c): None for g in spec.gates if g.metric and g.slices for c in g.slices}
    groups = sorted({g.by for g in spec.gates if g.by})
    scans = sorted({g.report.path for g in spec.gates if g.report})
    if not slices and not groups and not scans:
        return Measures()
    asked = [SliceAsked(metric=m, column=c) for m, c in sorted(slices)]
    hash_ = digest({"slices": sorted(map(list, slices)), "groups": groups, "scans": scans})
    return Measures(slices=tuple(asked), groups=tuple(groups), scans=tuple(scans), hash=hash_)


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
        columns=columns_of(spec),
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


def columns_of(spec: ModelSpecSpec) -> Columns:
    """Return what a revision pins of the columns: what the model learns from, not who may see which of them."""
    return Columns.model_validate({k: v for k, v in dump(spec.columns).items() if k != "sensitive"})


def as_manifest(spec: ModelRevisionSpec) -> Mapping[str, Any]:
    """Write a revision's spec as JSON."""
    return dump(spec)
