"""Turns changes of objects into looks at their owners, and keeps the queue running.

The only thing that an event decides is whose turn it is; what is done is decided from the world.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

from controller.api.meta import (
    LABEL_JOB_NAME,
    LABEL_MODEL,
    LABEL_REPOSITORY,
    LABEL_REVISION,
    Key,
    Manifest,
    key_of,
)
from controller.clients.errors import ClientError
from controller.reconcile.cache import KINDS, LABELLED, OURS
from controller.reconcile.queue import Queue
from controller.reconcile.reconciler import reconcile
from controller.reconcile.world import World

log = logging.getLogger(__name__)


class Controller:
    """The reconcilers of one world, running."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.queue = Queue(lambda key: reconcile(world, key))

    async def run(self, stop: asyncio.Event) -> None:
        """Reconcile until `stop` is set."""
        watching = asyncio.create_task(self._watch(stop))
        try:
            await self.queue.run(stop)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _watch(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                async for event in self.world.kube.watch(KINDS):
                    for key in owners(event.object):
                        self.queue.add(key)
            except ClientError as error:
                log.warning("the watch ended and is begun again: %s", error.message)
                await asyncio.sleep(1.0)


def owners(manifest: Manifest) -> Iterator[Key]:
    """Name the objects whose turn it is when this one changed."""
    kind, namespace = manifest["kind"], manifest["metadata"].get("namespace", "default")
    labels = manifest["metadata"].get("labels") or {}
    if kind in OURS:
        yield key_of(manifest)
    if kind == "ModelSpec":
        if LABEL_REPOSITORY in labels:
            yield Key("ModelRepository", namespace, labels[LABEL_REPOSITORY])
        wanted = ((manifest.get("status") or {}).get("source") or {}).get("wanted")
        if wanted:
            yield Key("ModelRevision", namespace, wanted)
        order = ((manifest.get("status") or {}).get("override") or {}).get("name")
        if order:
            yield Key("ModelOverride", namespace, order)
    elif kind == "ModelOverride":
        model = ((manifest.get("spec") or {}).get("modelRef") or {}).get("name")
        if model:
            yield Key("ModelSpec", namespace, model)
    elif kind == "Job" or (kind == "Pod" and LABEL_JOB_NAME in labels):
        if LABEL_REVISION in labels:
            yield Key("ModelRevision", namespace, labels[LABEL_REVISION])
    elif kind in ("ModelRevision", *LABELLED) and LABEL_MODEL in labels:
        yield Key("ModelSpec", namespace, labels[LABEL_MODEL])
