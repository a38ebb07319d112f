"""Tells: status and events, from a plan and what became of it.  Always, and only when something changed."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any, Final

from controller.api.base import dump
from controller.api.conditions import (
    DEGRADED,
    OVERRIDDEN,
    READY,
    RECONCILING,
    STALLED,
    Condition,
    Wanted,
    bounded,
    find,
    merge_conditions,
    timestamp,
)
from controller.api.hashes import digest, short
from controller.api.meta import API_VERSIONS, Manifest, key_of, owner_reference
from controller.api.modelrevision import Attempt, ModelRevisionStatus
from controller.clients.errors import ClientError, Conflict, Denied, NotFound
from controller.clients.redact import redact
from controller.plan.actions import CloseRun, Plan, SetAlias
from controller.reconcile.apply import Outcome
from controller.reconcile.world import World

log = logging.getLogger(__name__)


async def plan_and_outcome(world: World, manifest: Manifest, plan: Plan[Any], outcome: Outcome) -> bool:
    """Write the status that a plan asks for, corrected by what went wrong, and an event for each thing done.

    Returns False when the object has changed since it was read: then the status is that of the past, and is not
    written.
    """
    now = world.now()
    wanted = tuple(plan.conditions)
    if outcome.error is not None:
        wanted = _with_error(wanted, outcome)
    status = plan.status
    if outcome.version and hasattr(status, "version"):
        status = status.model_copy(update={"version": outcome.version})
    if isinstance(outcome.failed, CloseRun):
        # The end of an attempt is noted only once its run is closed: the note keeps it from being tried again.
        status = status.model_copy(update={"attempts": _attempts_before(manifest)})
    old: tuple[Condition, ...] = status.conditions
    generation = manifest["metadata"].get("generation", 0)
    conditions = merge_conditions(old, wanted, generation=generation, now=now)
    status = status.model_copy(update={"conditions": conditions, "observed_generation": generation})
    written = await _write(world, manifest, dump(status))
    await _tell(world, manifest, outcome, old, conditions if written else old, now)
    return written


def _attempts_before(manifest: Manifest) -> tuple[Attempt, ...]:
    return ModelRevisionStatus.model_validate(manifest.get("status") or {}).attempts


async def bug(world: World, manifest: Manifest) -> None:
    """Say on the object that the controller itself failed; what happened is in its log."""
    status = dict(manifest.get("status") or {})
    message = "the controller failed on this object; its log says how. What serves goes on serving"
    old = tuple(Condition.model_validate(c) for c in status.get("conditions", ()))
    generation = manifest["metadata"].get("generation", 0)
    wanted: tuple[Wanted, ...] = ((READY, "Unknown", "InternalError", message),)
    kept = tuple((c.type, c.status, c.reason, c.message) for c in old if c.type != READY)
    conditions = merge_conditions(old, (*wanted, *kept), generation=generation, now=world.now())
    status["conditions"] = [dump(c) for c in conditions]
    await _write(world, manifest, status)


def _with_error(wanted: tuple[Wanted, ...], outcome: Outcome) -> tuple[Wanted, ...]:
    """Replace the summary by what stopped the round: a refusal stalls, everything else is tried again.

    The alias is output only: that it could not be set is told beside the summary.
    """
    error = outcome.error
    assert error is not None
    if isinstance(outcome.failed, SetAlias):
        text = redact(f"alias {outcome.failed.alias}: {error.message}")
        return (*(c for c in wanted if c[0] != DEGRADED), (DEGRADED, "True", "AliasNotSet", text))
    doing = _DOING.get(type(outcome.failed).__name__, "the next step")
    decided = next((message for type_, _, _, message in wanted if type_ == READY), "").rstrip(".")
    text = redact(f"{decided}. But {doing} failed: {error.message}".removeprefix(". But "))
    denied = isinstance(error, Denied)
    kind, reason = (STALLED, error.reason) if denied else (RECONCILING, "ProgressingWithRetry")
    if not denied and "it is tried again" not in text:
        text = f"{text}; it is tried again"
    rest = tuple(c for c in wanted if c[0] not in (READY, RECONCILING, STALLED))
    return ((READY, "False", reason, text), (kind, "True", reason, text), *rest)


_DOING: Final = {
    "CreateRevision": "creating the revision",
    "StartTraining": "starting the Job",
    "CloseRun": "closing the MLflow run",
    "RegisterVersion": "registering the version",
    "RecordVerdict": "writing the decision into the ledger",
    "ApplyManifest": "applying the servers",
    "SetWeights": "setting the route",
    "DeleteManifest": "deleting what is not needed any more",
    "ApplyModelSpec": "applying the ModelSpec",
}
"""What each action is called in a sentence."""


async def _write(world: World, manifest: Manifest, status: Manifest) -> bool:
    if manifest.get("status") == status:
        return True
    meta, key = manifest["metadata"], key_of(manifest)
    try:
        await world.kube.patch_status(key, status, uid=meta["uid"], version=meta["resourceVersion"])
    except NotFound:
        log.info("%s is gone; its status was not written", key)
    except Conflict:
        log.info("%s has changed since it was read: its status was not written, it is looked at anew", key)
        await world.kube.refresh(key)
        return False
    return True


async def _tell(
    world: World,
    manifest: Manifest,
    outcome: Outcome,
    old: tuple[Condition, ...],
    new: tuple[Condition, ...],
    now: datetime,
) -> None:
    for action in outcome.done:
        await _event(world, manifest, "Normal", type(action).__name__, str(action.why), now)
    before, after = find(old, READY), find(new, READY)
    stalled = find(new, STALLED)
    moved = after is not None and (
        before is None or (before.status, before.reason) != (after.status, after.reason)
    )
    await _tell_order(world, manifest, old, new, now)
    if stalled is not None and moved:
        await _event(world, manifest, "Warning", stalled.reason, stalled.message, now)
    elif after is not None and after.status == "True" and moved:
        await _event(world, manifest, "Normal", "Ready", after.message, now)


async def _tell_order(
    world: World, manifest: Manifest, old: tuple[Condition, ...], new: tuple[Condition, ...], now: datetime
) -> None:
    """Tell that a person's order begins to rule, that its end is near, and that it ended."""
    before, after = find(old, OVERRIDDEN), find(new, OVERRIDDEN)
    if after is not None and (before is None or before.reason != after.reason):
        await _event(world, manifest, "Warning", f"{OVERRIDDEN}{after.reason}", after.message, now)
    elif before is not None and after is None:
        await _event(world, manifest, "Normal", "OverrideEnded", f"it was: {before.message}", now)


async def _event(world: World, manifest: Manifest, type_: str, reason: str, message: str, now: datetime) -> None:
    """Write an event; losing one is no harm, so an error is logged and the round goes on."""
    meta = manifest["metadata"]
    text = bounded(redact(message))
    name = f"{meta['name'][:40]}.{short(digest([reason, text, timestamp(now)]), 16)}"
    event = {
        "apiVersion": API_VERSIONS["Event"],
        "kind": "Event",
        "metadata": {
            "name": name,
            "namespace": meta.get("namespace", "default"),
            "ownerReferences": [owner_reference(manifest)],
        },
        "involvedObject": {
            "apiVersion": manifest["apiVersion"],
            "kind": manifest["kind"],
            "name": meta["name"],
            "namespace": meta.get("namespace", "default"),
            "uid": meta["uid"],
        },
        "type": type_,
        "reason": reason,
        "message": text,
        "firstTimestamp": timestamp(now),
        "lastTimestamp": timestamp(now),
        "count": 1,
        "source": {"component": "mainspring"},
    }
    try:
        await world.kube.create(event)
    except ClientError as error:
        if error.reason != "AlreadyExists":
            log.warning("event %s of %s was not written: %s", reason, meta["name"], error.message)
