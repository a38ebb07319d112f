"""Asks, before anything is done, whether what a plan was made from is still so.

A cache may hold the past: a list that was answered late, a watch that is behind.  Most of what is done because of
that is harmless, since it is done again when the watch catches up; an entry of the ledger stands for ever.  So
every plan that does something is held against a read that no cache answers.  Never decides what to do: an
outdated plan is dropped whole, and made anew from what was read.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence

from controller.api.meta import Key, Manifest
from controller.plan.actions import Action, RecordVerdict
from controller.plan.observed import ModelSeen, RevisionSeen
from controller.reconcile.world import World

log = logging.getLogger(__name__)

Taken = tuple[Key, str, str]
"""An object as a plan took it: key, uid, resourceVersion."""


def of_model(seen: ModelSeen, actions: Sequence[Action]) -> Iterator[Taken]:
    """Name what the actions for a ModelSpec rest on: itself, and what each ledger entry speaks of.

    That is its revision, the servers that take over, and the order of a person that it obeys.
    """
    yield taken(seen.manifest)
    namespace = seen.manifest["metadata"]["namespace"]
    for entry in (a.entry for a in actions if isinstance(a, RecordVerdict)):
        if (revision := seen.revisions.get(entry.revision)) is not None:
            meta = revision.metadata
            yield Key("ModelRevision", namespace, meta.name), meta.uid, meta.resource_version
        for order in (
            o.metadata for o in seen.overrides if entry.override and o.metadata.uid == entry.override.uid
        ):
            yield Key("ModelOverride", namespace, order.name), order.uid, order.resource_version
        servers = (d for d in seen.deployments.values() if d.revision == entry.revision)
        # Only who takes over needs servers that are really there.
        for found in servers if entry.kind == "Promoted" else ():
            yield Key("Deployment", namespace, found.name), found.uid, found.version


def of_revision(seen: RevisionSeen) -> Iterator[Taken]:
    """Name what the actions for a ModelRevision rest on: itself, and the ModelSpec that wants it."""
    yield taken(seen.manifest)
    if seen.model is not None:
        meta = seen.model.metadata
        yield Key("ModelSpec", meta.namespace, meta.name), meta.uid, meta.resource_version


def taken(manifest: Manifest) -> Taken:
    """Name an object as it was read."""
    meta = manifest["metadata"]
    key = Key(manifest["kind"], meta["namespace"], meta["name"])
    return key, meta["uid"], str(meta.get("resourceVersion") or "")


async def outdated(world: World, took: Iterable[Taken]) -> bool:
    """Read each object anew and tell whether one has changed since the plan took it.

    Raises:
        ClientError: the API server did not answer; nothing may be done.
    """
    for key, uid, version in took:
        found = await world.kube.refresh(key)
        if found is None or _is_other(found, uid, version):
            now = found["metadata"]["resourceVersion"] if found else "gone"
            message = (
                "%s has changed since it was read (version %s, now %s): nothing is done, it is looked at anew"
            )
            log.info(message, key, version, now)
            return True
    return False


def _is_other(found: Manifest, uid: str, version: str) -> bool:
    """Tell whether an object is another one, or newer than it was taken."""
    meta = found["metadata"]
    now = str(meta.get("resourceVersion") or "")
    if meta["uid"] != uid:
        return True
    # An answer that is older than what the watch has brought changes nothing.
    return int(now) > int(version) if now.isdecimal() and version.isdecimal() else now != version
