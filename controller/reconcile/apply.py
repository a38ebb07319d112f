"""Carries actions out, in order; an error ends it and becomes part of the outcome.

Each action is safe to repeat, so a crash between any two writes is nothing but a later round.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from controller.api.base import dump
from controller.api.hashes import canonical
from controller.api.meta import Manifest, key_of
from controller.clients.errors import ClientError, Conflict, Denied
from controller.plan.actions import (
    Action,
    ApplyManifest,
    ApplyModelSpec,
    CloseRun,
    CreateRevision,
    DeleteManifest,
    ExpireJob,
    RecordVerdict,
    RegisterVersion,
    SetAlias,
    SetWeights,
    StartTraining,
)
from controller.plan.manifests import task_map
from controller.reconcile.access import check_mounts
from controller.reconcile.world import World

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done, and what stopped it; `facts` are what only the doing could tell."""

    done: tuple[Action, ...] = ()
    failed: Action | None = None
    error: ClientError | None = None
    version: str = ""
    """Version that was registered."""
    outdated: bool = False
    """An object had changed since it was read, and was left alone: it is looked at anew."""


async def actions(world: World, wanted: Sequence[Action]) -> Outcome:
    """Carry out actions until one fails."""
    done: list[Action] = []
    version = ""
    for action in wanted:
        try:
            version = await _one(world, action) or version
        except Conflict as error:
            if not (isinstance(action, ApplyManifest) and "resourceVersion" in action.manifest["metadata"]):
                return Outcome(tuple(done), action, error, version)
            log.info("%s: nothing is done, it is looked at anew", error.message)
            await world.kube.refresh(key_of(action.manifest))
            return Outcome(tuple(done), version=version, outdated=True)
        except ClientError as error:
            return Outcome(tuple(done), action, error, version)
        log.info("%s because %s", type(action).__name__, action.why)
        done.append(action)
    return Outcome(tuple(done), version=version)


async def _one(world: World, action: Action) -> str | None:
    match action:
        case CreateRevision():
            await _create_revision(world, action)
        case StartTraining():
            await _start_training(world, action)
        case CloseRun():
            await _close_run(world, action)
        case RegisterVersion():
            await world.registry.finish_run(action.run, "FINISHED")
            return await world.registry.ensure_version(
                action.registry_name,
                action.run,
                environment=action.environment,
                revision=action.revision,
                tags=action.tags,
            )
        case RecordVerdict():
            if action.statement is not None:
                await world.ledger.write_statement(action.entry.run, action.statement)
            await world.ledger.append(action.entry)
        case ApplyManifest():
            if action.manifest["kind"] == "Deployment":
                await check_mounts(world, action.manifest)
            await world.kube.apply(action.manifest)
        case SetWeights() | ApplyModelSpec():
            await world.kube.apply(action.manifest)
        case DeleteManifest():
            await world.kube.delete(action.key, uid=action.uid)
        case ExpireJob():
            await world.kube.patch_spec(action.key, {"ttlSecondsAfterFinished": action.after_s})
        case SetAlias():
            await world.ledger.set_alias(action.registry_name, action.alias, action.version)
        case _:
            assert_never(action)
    return None


async def _create_revision(world: World, action: CreateRevision) -> None:
    try:
        await world.kube.create(action.manifest)
    except Conflict as error:
        if error.reason != "AlreadyExists":
            raise


async def _close_run(world: World, action: CloseRun) -> None:
    run = await world.registry.ensure_run(
        action.experiment, environment=action.environment, revision=action.revision, attempt=action.attempt
    )
    await world.registry.finish_run(run, action.status)


async def _start_training(world: World, action: StartTraining) -> None:
    """Make the run, then the tasks, then the Job: whoever finds the Job finds what it needs."""
    revision, job = action.revision, action.manifest
    await check_mounts(world, job)
    run = await world.registry.ensure_run(
        action.experiment,
        environment=action.environment,
        revision=revision.metadata.name,
        attempt=action.attempt,
        tags={
            "mainspring.commit": revision.spec.source.commit,
            "mainspring.inputs": revision.spec.inputs,
            "mainspring.trigger": revision.spec.trigger.message,
        },
        params=revision.spec.training.params,
    )
    spec = canonical(dump(revision.spec))
    await world.registry.upload(run, "mainspring", {"revision.json": spec})
    tasks = {step: dict(task) for step, task in action.tasks.items()}
    tasks["evaluate"]["run"] = run
    files = {f"{step}.json": json.dumps(task) for step, task in tasks.items()}
    await _hand_tasks(world, job, task_map(job, files))
    await world.kube.apply(job)


async def _hand_tasks(world: World, job: Manifest, tasks: Manifest) -> None:
    """Write the tasks of a Job.

    They are immutable. Those of a Job that is gone, or that a crash kept from being made, may be others by now:
    the champion has changed. They are made anew, but never under a Job that is there.
    """
    try:
        await world.kube.apply(tasks)
    except Denied as error:
        if error.reason != "Invalid" or await world.kube.get(key_of(job)) is not None:
            raise
        await world.kube.delete(key_of(tasks))
        await world.kube.apply(tasks)
