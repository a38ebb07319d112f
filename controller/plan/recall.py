"""What was decided before and still stands: rollbacks, who came before, when a person last asked to try again.

Pure.  The ledger's word counts first; what the status remembers counts where the ledger has not heard of it yet.
It must never bring back a revision that was taken out of the traffic, unless a person asked for it.
"""

from __future__ import annotations

from controller.api.conditions import parse_timestamp
from controller.api.meta import ANNOTATION_REQUESTED_AT
from controller.api.modelstatus import PreviousRevision
from controller.api.statements import LedgerEntry
from controller.plan.actions import RecordVerdict
from controller.plan.asked import asked_at
from controller.plan.round import Round, Served
from controller.plan.verdict import Cause


def remember(r: Round) -> None:
    """Bring the status up to what the ledger, a new request or the end of a suspension has changed."""
    served, previous, challenger = r.status.champion, r.status.previous, r.status.challenger
    now = r.champion.revision if r.champion else ""
    if r.ledger is not None and served is not None and now and served.revision != now:
        made = r.ledger.champion
        reason = without_word(made.reason) if made is not None else ""
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
    entry = r.entry("RolledBack", served, champion=champion, reason=str(why)[:500])
    r.actions.append(RecordVerdict(entry=entry, statement=None, why=why))


def _standing(r: Round, revision: str) -> LedgerEntry | None:
    """Find the rollback of a revision that is its newest entry and younger than any request to try again."""
    entries = r.ledger.entries if r.ledger else ()
    last = next((e for e in reversed(entries) if e.revision == revision), None)
    if last is None or last.kind != "RolledBack":
        return None
    asked = asked_at(r.model.metadata.annotations)
    return last if asked is None or asked <= parse_timestamp(last.at) else None


def without_word(reason: str) -> str:
    """Take the word for programs off a recorded reason: `AnalysisFailed: error rate …` → `error rate …`."""
    word, colon, sentence = reason.partition(": ")
    return sentence if colon and word.isalpha() else reason
