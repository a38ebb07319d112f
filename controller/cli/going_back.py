"""What a rollback, a promotion or an abort is in words and as an object: which revision, which bytes, until when.

Also the change in Git that would make it permanent, since an order of a person ends by itself.  Pure: the model's
status and its revisions in, objects and lines out.  Whether an order is obeyed is the controller's decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from controller.api.base import DURATION_PATTERN, seconds
from controller.api.conditions import timestamp
from controller.api.hashes import digest, short
from controller.api.kinds import ModelRevision, ModelSpec
from controller.api.meta import API_VERSION, Manifest
from controller.api.modeloverride import LONGEST
from controller.cli.errors import USAGE, Failure


@dataclass(frozen=True, slots=True)
class Known:
    """A revision that an order may name, as far as status and objects know it."""

    revision: str
    digest: str
    version: str
    commit: str

    def __str__(self) -> str:
        """Write it for people: `bikes-dd1196040a (version 1, commit 0123456)`."""
        told = [f"version {self.version}"] if self.version else []
        told += [f"commit {self.commit[:7]}"] if self.commit else []
        return f"{self.revision} ({', '.join(told)})" if told else self.revision


def known(model: ModelSpec, revisions: Mapping[str, ModelRevision], name: str) -> Known:
    """Find a revision of a model with its bytes: among its objects, or as the status remembers it.

    Raises:
        Failure: there is none, or it has no artifact; with those that there are.
    """
    found = revisions.get(name)
    if found is not None and found.status.artifact is not None:
        return Known(name, found.status.artifact.digest, found.status.version, found.spec.source.commit)
    champion = model.status.champion
    if champion is not None and champion.revision == name:
        return Known(name, champion.digest, champion.version, champion.commit)
    former = next((f for f in model.status.former if f.revision == name), None)
    if former is not None:
        return Known(name, former.digest, former.version, former.commit)
    what = f"{name} is not trained" if found is not None else f"{model.metadata.name} has no revision {name}"
    others = ", ".join(f.revision for f in model.status.former if not f.problem)
    raise Failure(f"{what}; champions before: {others or 'none'}")


def chosen(model: ModelSpec, action: str, to: str | None) -> str:
    """Choose which revision is meant where nobody says: the last healthy champion, or what is on its way.

    Raises:
        Failure: nothing fits; with what to type instead.
    """
    if to:
        return to
    name, status = model.metadata.name, model.status
    current = status.challenger
    moving = current is not None and current.stage in ("Starting", "Canary")
    if action != "Rollback":
        if current is not None and (moving or action == "Promote"):
            return current.revision
        raise Failure(f"no revision of {name} is on its way; mainspring explain modelspec/{name} says more")
    if current is not None and moving:
        champion = status.champion.revision if status.champion else "the champion"
        raise Failure(
            f"{current.revision} is only on its way: mainspring abort {name} takes it out of the requests; "
            f"to replace {champion} too, say --to",
            code=USAGE,
        )
    healthy = [f.revision for f in status.former if not f.problem]
    if not healthy:
        bad = "; ".join(f"{f.revision}: {f.problem}" for f in status.former)
        raise Failure(f"{name} has no healthy champion before this one{f' ({bad})' if bad else ''}: push a fix")
    return healthy[0]


def expiry(span: str, now: datetime) -> str:
    """Say when an order of this length ends.

    Raises:
        Failure: no duration, or not between one minute and seven days. Exit code 2.
    """
    import re

    if not re.fullmatch(DURATION_PATTERN, span) or not 60 <= seconds(span) <= LONGEST.total_seconds():
        raise Failure(f"--for {span}: a duration from 1m to 168h is wanted, for example 4h", code=USAGE)
    return timestamp(now + timedelta(seconds=seconds(span)))


def manifest(
    model: Manifest, action: str, to: Known, *, actor: str, reason: str, expires_at: str, now: datetime
) -> Manifest:
    """Build the ModelOverride; it goes when its ModelSpec goes."""
    meta = model["metadata"]
    mark = short(digest([action, to.revision, actor, reason, now.isoformat()]), 6)
    owner = {"apiVersion": API_VERSION, "kind": "ModelSpec", "name": meta["name"], "uid": meta["uid"]}
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelOverride",
        "metadata": {
            "name": f"{meta['name']}-{action.lower()}-{mark}",
            "namespace": meta["namespace"],
            "ownerReferences": [owner],
        },
        "spec": {
            "modelRef": {"name": meta["name"]},
            "action": action,
            "to": to.revision,
            "digest": to.digest,
            "actor": actor,
            "reason": reason,
            "expiresAt": expires_at,
        },
    }


def headline(model: ModelSpec, action: str, to: Known, *, actor: str, expires_at: str, span: str) -> str:
    """Say in one line what is ordered."""
    serving = model.status.champion
    words = "promotion of" if action == "Promote" else "abort of"
    if action == "Rollback":
        now = f" from {serving.revision}" if serving and serving.revision != to.revision else ""
        words = f"rollback of {model.metadata.name}{now} to"
    return f"{words} {to}, by order of {actor}, until {expires_at} ({span})"


def permanent(model: ModelSpec, action: str, to: Known) -> list[str]:
    """Say which change in Git would make it permanent; nothing for a promotion, which Git asks for already."""
    if action == "Promote":
        return ["Nothing to do in Git: it asks for this revision."]
    source, now = model.spec.source, model.status.source
    if now is None:
        return []
    if action == "Rollback" and now.wanted == to.revision:
        return ["Nothing to do in Git: it asks for this revision."]
    champion = model.status.champion
    good = to.commit if action == "Rollback" else champion.commit if champion else ""
    if not good:
        return []
    head = "To make it permanent, change Git before it ends, else what Git asks for comes back:"
    if good == now.commit:
        return [head, f"  both are of commit {good[:7]}: take back what changed in the ModelSpec itself"]
    pin = f"  or hold the model at that commit, in its ModelSpec: spec.source.ref: {{commit: {good}}}"
    if source.ref.commit or source.ref.tag:
        return [head, pin.replace("  or hold", "  hold")]
    revert = f"git revert --no-edit {good[:12]}..{now.commit[:12]} && git push"
    return [head, f"  {revert}   # in a clone, {source.ref} of {source.url}", pin]
