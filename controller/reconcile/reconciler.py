"""The screen every reader sees first: read the world once, decide, act, tell.

Level-triggered: each function decides from what is there now, never from the event that woke it, and is safe to
stop after any line and start again.
"""

from __future__ import annotations

import logging

from controller.api.base import seconds
from controller.api.meta import Key
from controller.clients.errors import ClientError
from controller.plan.model import plan_model
from controller.plan.overrides import plan_override
from controller.plan.repository import plan_repository
from controller.plan.revision import plan_revision
from controller.reconcile import access, apply, freshness, jobs, observe, report
from controller.reconcile.apply import Outcome
from controller.reconcile.queue import Next
from controller.reconcile.world import World

log = logging.getLogger(__name__)


async def reconcile_model(world: World, key: Key) -> Next:
    """Bring one ModelSpec one step closer to what it asks for."""
    world = await access.scoped(world, key)
    seen = await observe.model(world, key)
    if seen is None:
        return Next.done()
    plan = plan_model(seen, world.now())
    if plan.actions and await freshness.outdated(world, freshness.of_model(seen, plan.actions)):
        return Next.after(0.0)
    outcome = await apply.actions(world, plan.actions)
    if outcome.outdated:
        return Next.after(0.0)
    if not await report.plan_and_outcome(world, seen.manifest, plan, outcome):
        return Next.after(0.0)
    interval_s = seconds(seen.model.spec.source.interval) if seen.model else world.settings.resync_s
    return _next(world, outcome, plan.next_s, interval_s)


async def reconcile_revision(world: World, key: Key) -> Next:
    """Bring one ModelRevision one step closer to being measured."""
    world = await access.scoped(world, key)
    seen = await jobs.revision(world, key)
    if seen is None:
        return Next.done()
    plan = plan_revision(seen, world.now())
    if plan.actions and await freshness.outdated(world, freshness.of_revision(seen)):
        return Next.after(0.0)
    outcome = await apply.actions(world, plan.actions)
    if not await report.plan_and_outcome(world, seen.manifest, plan, outcome):
        return Next.after(0.0)
    return _next(world, outcome, plan.next_s, world.settings.resync_s)


async def reconcile_repository(world: World, key: Key) -> Next:
    """Bring the objects of one ModelRepository one step closer to what its path holds."""
    seen = await observe.repository(world, key)
    if seen is None:
        return Next.done()
    plan = plan_repository(seen, world.now())
    if plan.actions and await freshness.outdated(world, [freshness.taken(seen.manifest)]):
        return Next.after(0.0)
    outcome = await apply.actions(world, plan.actions)
    if not await report.plan_and_outcome(world, seen.manifest, plan, outcome):
        return Next.after(0.0)
    interval_s = seconds(seen.repository.spec.interval) if seen.repository else world.settings.resync_s
    return _next(world, outcome, plan.next_s, interval_s)


async def reconcile_override(world: World, key: Key) -> Next:
    """Say on the order of a person how it stands; the reconcile of its model obeys it."""
    manifest = await world.kube.get(key)
    if manifest is None:
        return Next.done()
    about = (manifest.get("spec") or {}).get("modelRef") or {}
    world = await access.scoped(world, Key("ModelSpec", key.namespace, str(about.get("name"))))
    plan = plan_override(await observe.override(world, manifest), world.now())
    if not await report.plan_and_outcome(world, manifest, plan, Outcome()):
        return Next.after(0.0)
    return Next.done() if plan.next_s is None else Next.after(plan.next_s)


RECONCILERS = {
    "ModelSpec": reconcile_model,
    "ModelRevision": reconcile_revision,
    "ModelRepository": reconcile_repository,
    "ModelOverride": reconcile_override,
}
"""By kind."""


async def reconcile(world: World, key: Key) -> Next:
    """Reconcile one object; a bug ends as a condition on it and never as the end of the process.

    Raises:
        ClientError: the object store itself does not answer.
    """
    try:
        return await RECONCILERS[key.kind](world, key)
    except ClientError:
        raise
    except Exception:
        log.exception("reconciling %s failed", key)
        manifest = await world.kube.get(key)
        if manifest is not None:
            await report.bug(world, manifest)
        return Next.failed()


def _next(world: World, outcome: Outcome, next_s: float | None, longest_s: float) -> Next:
    if outcome.error is not None:
        return Next.failed(outcome.error)
    longest = min(longest_s, world.settings.resync_s)
    return Next.after(longest if next_s is None else min(next_s, longest))
