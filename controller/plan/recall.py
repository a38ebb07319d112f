"""What was decided before and still stands: rollbacks, who came before, when a person last asked to try again.

Pure.  The ledger's word counts first; what the status remembers counts where the ledger has not heard of it yet.
It must never bring back a revision that was taken out of the traffic, unless a person asked for it.
"""

from __future__ import annotations

from typing import Any, Final

from controller.api.conditions import parse_timestamp
from controller.api.gates import RollbackWindow
from controller.api.kinds import ModelOverride
from controller.api.meta import ANNOTATION_REQUESTED_AT
from controller.api.modelstatus import FormerChampion, PreviousRevision
from controller.api.statements import LedgerEntry
from controller.plan import evidence
from controller.plan.actions import RecordVerdict
from controller.plan.asked import asked_at
from controller.plan.ledger import Ledger
from controller.plan.round import Round, Served
from controller.plan.verdict import Cause

FORMER_MOST: Final = 5
"""Most champions before that the status remembers."""


def remember(r: Round) -> None:
    """Bring the status up to what the ledger, a new request or the end of a suspension has changed."""
    served, previous, challenger = r.status.champion, r.status.previous, r.status.challenger
    now = r.champion.revision if r.champion else ""
    if (r.ledger is not None or r.order is not None) and served is not None and now and served.revision != now:
        made = r.ledger.champion if r.ledger is not None and r.ledger.champion else None
        reason = without_word(made.reason) if made is not None else ""
        if r.order is not None and r.order.spec.to == now:
            reason = in_words(r.order)
        r.set(previous=PreviousRevision(revision=served.revision, verdict="Replaced", reason=reason))
    asked = r.model.metadata.annotations.get(ANNOTATION_REQUESTED_AT, "")
    if asked != r.status.requested_at and previous is not None and previous.verdict == "RolledBack":
        r.set(previous=None)
    r.set(requested_at=asked)
    if challenger is not None and r.champion is not None and challenger.revision == r.champion.revision:
        r.set(challenger=None)
    elif challenger is not None and challenger.started_at and _resumes(r):
        r.set(challenger=challenger.model_copy(update={"started_at": r.stamp}))


def _resumes(r: Round) -> bool:
    """Tell whether this is the first look after a suspension: its time counts against no deadline."""
    return r.status.stage == "Suspended" and not r.model.spec.suspend


def rolled_back(r: Round, revision: str) -> str:
    """Say why a revision was rolled back since a person last asked to try again; empty when it was not."""
    if (entry := _standing(r, revision)) is not None:
        return without_word(entry.reason)
    told = r.status.previous
    known = told is not None and told.verdict == "RolledBack" and told.revision == revision
    return told.reason if told is not None and known else ""


def catch_up(r: Round, served: Served, reason: str) -> None:
    """Write a rollback into the ledger of which only the status knows, since the ledger was away."""
    if _standing(r, served.revision) is not None:
        return
    why = Cause("RolledBack", reason)
    champion = r.champion.revision if r.champion else ""
    shown = evidence.fields(r, served.revision)
    entry = r.entry("RolledBack", served, champion=champion, reason=str(why)[:500], **shown)
    r.actions.append(RecordVerdict(entry=entry, statement=None, why=why))


def _standing(r: Round, revision: str) -> LedgerEntry | None:
    """Find the rollback of a revision that is its newest entry and younger than any request to try again.

    One that obeyed the order of a person ends with that order.
    """
    entries = r.ledger.entries if r.ledger else ()
    last = next((e for e in reversed(entries) if e.revision == revision and e.override is None), None)
    if last is None or last.kind != "RolledBack":
        return None
    asked = asked_at(r.model.metadata.annotations)
    return last if asked is None or asked <= parse_timestamp(last.at) else None


def champions(ledger: Ledger) -> tuple[str, ...]:
    """Name all that were champion before the one of now, the last one first."""
    names = [e.champion for e in ledger.entries if e.kind in ("Promoted", "RolledBack") and e.champion]
    now = ledger.champion.champion if ledger.champion is not None else ""
    return tuple(n for n in dict.fromkeys(reversed(names)) if n != now)


def problem(ledger: Ledger, revision: str) -> str:
    """Say why a revision must not serve again: its last entry rolled it back or rejected it; empty when it may."""
    last = next((e for e in reversed(ledger.entries) if e.revision == revision), None)
    if last is None or last.kind not in ("RolledBack", "Rejected"):
        return ""
    word = "rolled back" if last.kind == "RolledBack" else "rejected"
    return f"it was {word}: {without_word(last.reason)}"


def former(ledger: Ledger) -> tuple[FormerChampion, ...]:
    """List the champions before, the last one first, at most 5, each with what is needed to serve it again."""
    found = ((name, ledger.newest(name)) for name in champions(ledger))
    return tuple(
        FormerChampion(
            revision=name,
            version=entry.version,
            digest=entry.digest,
            commit=entry.commit,
            run=entry.run,
            runtime=entry.runtime,
            problem=problem(ledger, name)[:500],
        )
        for name, entry in found
        if entry is not None
    )[:FORMER_MOST]


def returns(r: Round, target: Served) -> bool:
    """Tell whether a revision comes back as it was: once champion, the same bytes, inside `rollbackWindow`."""
    if r.ledger is None or not in_window(r.ledger, target.revision, r.model.spec.serving.rollback_window):
        return False
    entry = r.ledger.newest(target.revision)
    # A training made anew may give another model under the same name.
    return entry is not None and entry.digest == target.digest


def in_window(ledger: Ledger, revision: str, window: RollbackWindow | None) -> bool:
    """Tell whether a revision was champion once, and not too many champions ago to come back without a canary."""
    if revision not in ledger.promoted:
        return False
    return window is None or revision in champions(ledger)[: window.revisions]


def is_ordered(r: Round, target: Served) -> bool:
    """Tell whether a person ordered that this revision takes no more canary steps."""
    return r.order is not None and r.order.spec.action == "Promote" and r.order.spec.to == target.revision


def in_words(order: ModelOverride) -> str:
    """Write an order as conditions and the ledger tell it."""
    spec = order.spec
    return f"{spec.action} to {spec.to} by order of {spec.actor} until {spec.expires_at}: {spec.reason}"


def obeying(order: ModelOverride) -> dict[str, Any]:
    """Write the fields of a ledger entry that say whose order it obeys."""
    meta, spec = order.metadata, order.spec
    known = {"name": meta.name, "uid": meta.uid, "action": spec.action, "expires_at": spec.expires_at}
    return {"author": spec.actor, "override": known}


def without_word(reason: str) -> str:
    """Take the word for programs off a recorded reason: `AnalysisFailed: error rate …` → `error rate …`."""
    word, colon, sentence = reason.partition(": ")
    return sentence if colon and word.isalpha() else reason
