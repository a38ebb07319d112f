"""Decides for one ModelRepository: which ModelSpecs are applied, and which are deleted.

A file with an error changes nothing of its own and hinders no other file.  Nothing is deleted because something
could not be read.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime

from controller.api.conditions import HEALTHY, READY, RECONCILING, SOURCE_READY, STALLED, ConditionStatus, Wanted
from controller.api.kinds import ModelRepository
from controller.api.meta import (
    ANNOTATION_PRUNE,
    ANNOTATION_REQUESTED_AT,
    ANNOTATION_SOURCE_COMMIT,
    ANNOTATION_SOURCE_FILE,
    GROUP,
    LABEL_REPOSITORY,
    Key,
    Manifest,
    key_of,
)
from controller.api.modelrepository import FileProblem, ModelRepositoryStatus, SyncedObject
from controller.plan.actions import Action, ApplyModelSpec, DeleteManifest, Plan
from controller.plan.observed import RepositorySeen
from controller.plan.verdict import Cause, Refused

ANNOTATION_CONFIRM_PRUNE = f"{GROUP}/confirm-prune"
"""On a ModelRepository: the commit whose deletions a person has confirmed."""

RepositoryPlan = Plan[ModelRepositoryStatus]


def plan_repository(seen: RepositorySeen, now: datetime) -> RepositoryPlan:  # noqa: ARG001
    """Decide what to apply and what to delete. No I/O; same input, same plan."""
    return _with_health(seen, _decide(seen))


def _decide(seen: RepositorySeen) -> RepositoryPlan:
    repository = seen.repository
    if repository is None:
        status = ModelRepositoryStatus.model_validate(seen.manifest.get("status") or {})
        text = "; ".join(str(e) for e in seen.errors[:3])
        return Plan(status=status, conditions=_summary(STALLED, "InvalidSpec", text))
    status = repository.status
    asked = repository.metadata.annotations.get(ANNOTATION_REQUESTED_AT, "")
    status = status.model_copy(update={"requested_at": asked})
    if repository.spec.suspend:
        return Plan(status=status, conditions=_summary(RECONCILING, "Suspended", "spec.suspend is true"))
    if seen.problem is not None:
        kind = STALLED if isinstance(seen.problem, Refused) else RECONCILING
        problem: Wanted = (SOURCE_READY, "False", seen.problem.reason, seen.problem.message)
        conditions = (*_summary(kind, seen.problem.reason, seen.problem.message), problem)
        return Plan(status=status, conditions=conditions, next_s=10.0 if kind == RECONCILING else None)
    return _sync(seen, repository, status)


def _with_health(seen: RepositorySeen, plan: RepositoryPlan) -> RepositoryPlan:
    """Add whether what was applied is Ready; that is another question than whether all could be applied."""
    present = {o["metadata"]["name"]: o for o in seen.objects}
    objects = tuple(o.model_copy(update={"ready": _ready(present.get(o.name))}) for o in plan.status.objects)
    waiting = [o.name for o in objects if o.ready != "True"]
    good = len(objects) - len(waiting)
    text = f"{good} of {len(objects)} ModelSpecs Ready"
    healthy: Wanted = (HEALTHY, "True", "Succeeded", text)
    if waiting:
        more = f" and {len(waiting) - 3} more" if len(waiting) > 3 else ""
        text = f"{text}; not yet, or not any more: {', '.join(waiting[:3])}{more}"
        healthy = (HEALTHY, "False", "NotReady", text)
    status = plan.status.model_copy(update={"objects": objects})
    return replace(plan, status=status, conditions=(*plan.conditions, healthy))


def _ready(manifest: Manifest | None) -> ConditionStatus:
    """Read the condition Ready of an object; Unknown where it speaks of an older spec."""
    conditions = ((manifest or {}).get("status") or {}).get("conditions") or ()
    found: Manifest = next((c for c in conditions if c.get("type") == READY), {})
    current = manifest is not None and found.get("observedGeneration") == manifest["metadata"].get("generation")
    said: ConditionStatus = found["status"] if current and found.get("status") in ("True", "False") else "Unknown"
    return said


def _sync(seen: RepositorySeen, repository: ModelRepository, status: ModelRepositoryStatus) -> RepositoryPlan:
    mine = [
        o
        for o in seen.objects
        if o["metadata"].get("labels", {}).get(LABEL_REPOSITORY) == repository.metadata.name
    ]
    wanted, problems = _collect(seen)
    problems += _broken(seen, mine)
    actions: list[Action] = []
    by_name = {o["metadata"]["name"]: o for o in seen.objects}
    for name, (file, manifest) in sorted(wanted.items()):
        present = by_name.get(name)
        owner = (present or {}).get("metadata", {}).get("labels", {}).get(LABEL_REPOSITORY)
        if owner not in (None, repository.metadata.name):
            text = f"ModelSpec {name} belongs to ModelRepository {owner}; one of the two must let go of it"
            problems.append(FileProblem(file=file, severity="Error", message=f"OwnershipConflict: {text}"))
        elif (action := _apply(seen, repository, file, manifest, present)) is not None:
            actions.append(action)
    deletions, guard = _prune(seen, repository, wanted, problems, mine)
    actions += deletions
    status = status.model_copy(
        update={
            "revision": seen.label,
            "author": seen.author,
            "subject": seen.subject,
            "objects": tuple(
                SyncedObject(kind="ModelSpec", name=n, file=f) for n, (f, _) in sorted(wanted.items())
            ),
            "problems": tuple(problems),
        }
    )
    errors = [p for p in problems if p.severity == "Error"]
    source: Wanted = (SOURCE_READY, "True", "Succeeded", f"{seen.label}: {seen.subject}")
    if guard:
        return Plan(
            actions=tuple(actions), status=status, conditions=(*_summary(STALLED, "PruneGuard", guard), source)
        )
    if errors:
        first = errors[0]
        reason = "OwnershipConflict" if first.message.startswith("OwnershipConflict") else "InvalidFile"
        bad = len({p.file for p in errors})
        text = f"{bad} of {len(seen.files)} files were not applied; {first.file}: {first.message}"
        return Plan(actions=tuple(actions), status=status, conditions=(*_summary(STALLED, reason, text), source))
    message = f"{len(wanted)} ModelSpec{'s' if len(wanted) != 1 else ''} of {seen.label} applied"
    return Plan(actions=tuple(actions), status=status, conditions=((READY, "True", "Succeeded", message), source))


def _collect(seen: RepositorySeen) -> tuple[dict[str, tuple[str, Manifest]], list[FileProblem]]:
    """Gather the objects of all good files by name, and what is wrong with the others."""
    problems: list[FileProblem] = []
    found: list[tuple[str, Manifest]] = []
    namespace = seen.manifest["metadata"].get("namespace", "default")
    for file, checked in seen.files:
        if checked.problems:
            first = checked.problems[0]
            text = f"{first.line}:{first.column}: {first.path + ': ' if first.path else ''}{first.message}"
            problems.append(FileProblem(file=file, severity="Error", message=text))
            continue
        for document in checked.documents:
            manifest = document.manifest
            if manifest["kind"] != "ModelSpec":
                text = f"a {manifest['kind']} is not synced; only ModelSpecs are"
                problems.append(FileProblem(file=file, severity="Skipped", message=text))
            elif manifest["metadata"].get("namespace", namespace) != namespace:
                text = f"namespace {manifest['metadata']['namespace']} is not {namespace}, the repository's own"
                problems.append(FileProblem(file=file, severity="Error", message=text))
            else:
                found.append((file, manifest))
    counts = Counter(m["metadata"]["name"] for _, m in found)
    wanted = {}
    for path, manifest in found:
        name = manifest["metadata"]["name"]
        if counts[name] > 1:
            text = f"OwnershipConflict: ModelSpec {name} comes {counts[name]} times in this repository"
            problems.append(FileProblem(file=path, severity="Error", message=text))
        else:
            wanted[name] = (path, manifest)
    return wanted, problems


def _broken(seen: RepositorySeen, mine: list[Manifest]) -> list[FileProblem]:
    """Report files that held one of our objects and can no longer be read; others are none of our business."""
    problems = []
    for file, checked in seen.files:
        held = sorted(o["metadata"]["name"] for o in mine if _source_file(o) == file) if checked.unreadable else []
        if held:
            names = ", ".join(held[:5])
            text = f"{checked.skipped}; ModelSpec {names} came from it and stays as it is: mend or delete the file"
            problems.append(FileProblem(file=file, severity="Error", message=text))
    return problems


def _source_file(present: Manifest) -> str | None:
    file: str | None = present["metadata"].get("annotations", {}).get(ANNOTATION_SOURCE_FILE)
    return file


def _apply(
    seen: RepositorySeen, repository: ModelRepository, file: str, manifest: Manifest, present: Manifest | None
) -> Action | None:
    meta = manifest["metadata"]
    stamped = {
        **manifest,
        "metadata": {
            **meta,
            "namespace": repository.metadata.namespace,
            "labels": {**meta.get("labels", {}), LABEL_REPOSITORY: repository.metadata.name},
            "annotations": {
                **meta.get("annotations", {}),
                ANNOTATION_SOURCE_COMMIT: seen.commit,
                ANNOTATION_SOURCE_FILE: file,
            },
        },
    }
    name = f"ModelSpec {meta['name']}"
    if present is None:
        return ApplyModelSpec(manifest=stamped, why=Cause("New", f"{name} is in {file} at {seen.label}"))
    if not _covers(present, stamped):
        return ApplyModelSpec(
            manifest=stamped, why=Cause("Changed", f"{name} differs from {file} at {seen.label}")
        )
    return None


def _covers(present: object, wanted: object) -> bool:
    """Tell whether an object already says everything that is wanted; fields beyond that belong to others."""
    if isinstance(present, dict) and isinstance(wanted, dict):
        return all(key == "status" or _covers(present.get(key), value) for key, value in wanted.items())
    if isinstance(present, list) and isinstance(wanted, list):
        return len(present) == len(wanted) and all(map(_covers, present, wanted))
    return present == wanted


def _prune(
    seen: RepositorySeen,
    repository: ModelRepository,
    wanted: dict[str, tuple[str, Manifest]],
    problems: list[FileProblem],
    mine: list[Manifest],
) -> tuple[list[Action], str]:
    if not repository.spec.prune:
        return [], ""
    if any(checked.problems and not checked.names for _, checked in seen.files):
        return [], ""  # A file that cannot be read at all may hold any of them.
    unread = {p.file for p in problems if p.severity == "Error"}
    named = {name for _, checked in seen.files for kind, name in checked.names if kind == "ModelSpec"}
    doomed = [
        o
        for o in mine
        if o["metadata"]["name"] not in wanted
        and o["metadata"]["name"] not in named
        and _source_file(o) not in unread
        and o["metadata"].get("annotations", {}).get(ANNOTATION_PRUNE) != "disabled"
    ]
    share = 100 * len(doomed) / len(mine) if mine else 0.0
    limit = repository.spec.prune_limit_percent
    confirmed = repository.metadata.annotations.get(ANNOTATION_CONFIRM_PRUNE) == seen.commit
    if len(doomed) > 1 and share > limit and limit < 100 and not confirmed:
        names = ", ".join(sorted(o["metadata"]["name"] for o in doomed)[:5])
        return [], (
            f"{seen.label} would delete {len(doomed)} of {len(mine)} ModelSpecs ({share:.0f} %, limit {limit} %): "
            f"{names}. Nothing was deleted; annotate {ANNOTATION_CONFIRM_PRUNE}={seen.commit} to allow it"
        )
    actions: list[Action] = []
    for present in doomed:
        why = Cause("FileGone", f"ModelSpec {present['metadata']['name']} is not in {seen.label} any more")
        key: Key = key_of(present)
        actions.append(DeleteManifest(key=key, uid=present["metadata"]["uid"], why=why))
    return actions, ""


def _summary(kind: str, reason: str, message: str) -> tuple[Wanted, ...]:
    return ((READY, "False", reason, message), (kind, "True", reason, message))
