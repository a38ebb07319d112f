"""Which revision is meant: by its name, by a commit, or by what stands for it in the cluster or the registry.

Shared by the verbs that look back.  Reads the store and never guesses.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from controller.cli.errors import USAGE, Failure

if TYPE_CHECKING:
    from controller.api.kinds import ModelRevision
    from controller.reconcile.kube import Kube

_COMMIT: Final = re.compile(r"[0-9a-f]{7,64}")
SHOWN: Final = 8
"""Most names that a message lists."""


async def all_revisions(store: Kube, namespace: str) -> list[ModelRevision]:
    """Read every valid ModelRevision of a namespace, oldest first."""
    from controller.api.kinds import ModelRevision, parse

    found = [
        r
        for m in await store.list("ModelRevision", namespace=namespace)
        if isinstance(r := parse(m), ModelRevision)
    ]
    return sorted(found, key=lambda r: (r.metadata.creation_timestamp, r.metadata.name))


async def by_name_or_commit(store: Kube, text: str, namespace: str) -> ModelRevision:
    """Find a revision by its name (`modelrevision/` may stand before it) or by a commit, 7 to 64 hex digits.

    Raises:
        Failure: there is none, or several; with what there is.
    """
    from controller.api.kinds import ModelSpec, parse

    found = await all_revisions(store, namespace)
    name = text.rpartition("/")[2]
    if named := [r for r in found if r.metadata.name == name]:
        return named[0]
    if not _COMMIT.fullmatch(name):
        raise Failure(f'no revision "{name}" in namespace {namespace}; {_there(found)}')
    hits = {r.metadata.name: r for r in found if r.spec.source.commit.startswith(name)}
    for manifest in await store.list("ModelSpec", namespace=namespace):
        model = parse(manifest)
        source = model.status.source if isinstance(model, ModelSpec) else None
        if source is not None and source.commit.startswith(name):
            hits |= {r.metadata.name: r for r in found if r.metadata.name == source.wanted}
    if len(hits) == 1:
        return next(iter(hits.values()))
    if hits:
        raise Failure(f"commit {name} made {' and '.join(sorted(hits)[:SHOWN])}; say which", code=USAGE)
    raise Failure(f"no revision in namespace {namespace} was first made by commit {name}; {_there(found)}")


def _there(found: list[ModelRevision]) -> str:
    if not found:
        return "there is none yet"
    names = [f"{r.metadata.name} ({r.spec.source.commit[:7]})" for r in found[-SHOWN:]]
    return f"there is: {', '.join(names)}"
