"""Judges the orders of people (ModelOverride): which one rules, and why the others do not.

Pure.  The newest that is not refused rules until it expires, is deleted or is done; those before it are over for
good, and so is one that was refused once: who still wants it makes another.  An order names exact bytes, passes no
gate, and never gives requests to a model that was rolled back or rejected.  What an order does is in `orders.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from controller.api.base import human_seconds
from controller.api.conditions import ACTIVE, ConditionStatus, Wanted, find, parse_timestamp, timestamp
from controller.api.kinds import ModelOverride
from controller.api.modeloverride import LONGEST, ModelOverrideStatus
from controller.api.modelstatus import FormerChampion, OverrideStatus
from controller.plan import recall
from controller.plan.actions import Plan
from controller.plan.observed import OverrideSeen
from controller.plan.round import Round, Served, find_champion, served_from

NEVER_READY_S: Final = 300.0
"""How long the servers of a rollback may take to come up before it is refused, seconds."""
UNKNOWN_FOR_S: Final = 60.0
"""How long what an order names may be unknown before it is refused, seconds: it may be newer than what is read."""
SOON_S: Final = 900.0
"""From when on the end of an order is announced, seconds before it."""
OVER: Final = frozenset(
    {
        "Done",
        "Expired",
        "SupersededByNewer",
        "RefusedUnhealthy",
        "RevisionUnknown",
        "NotOnItsWay",
        "IsChampion",
        "InvalidSpec",
    }
)
"""Reasons that stand once they were told."""
_COUNT: Final = frozenset({"Starting", "Applied", "Done", "Expired", "SupersededByNewer"})
"""Reasons of orders that were taken up, so that older ones are over."""


@dataclass(frozen=True, slots=True)
class Judged:
    """How an order stands: the condition Active, and whether it rules."""

    override: ModelOverride
    status: ConditionStatus
    reason: str
    message: str

    @property
    def rules(self) -> bool:
        """Tell whether it is obeyed now."""
        return self.status == "True"


def ends_at(override: ModelOverride) -> datetime:
    """Say when an order ends: as it says, but at most 7 days after it was made."""
    said, made = parse_timestamp(override.spec.expires_at), override.metadata.creation_timestamp
    return min(said, parse_timestamp(made) + LONGEST) if made else said


def left(override: ModelOverride, now: datetime) -> str:
    """Say roughly how long an order still holds, so that the words do not change with every look."""
    seconds = max((ends_at(override) - now).total_seconds(), 0.0)
    step = 3600 if seconds > 7200 else 300 if seconds > SOON_S else 60
    return human_seconds(-(-seconds // step) * step)


def judge(r: Round) -> tuple[Judged, ...]:
    """Judge all orders about a model, the newest first."""
    return tuple(_judged(r))


def _judged(r: Round) -> Iterator[Judged]:
    newer = ""
    for override in sorted(r.seen.overrides, key=_age, reverse=True):
        found = _one(r, override, newer)
        if found.reason in _COUNT and not newer:
            newer = override.metadata.name
        yield found


def _age(override: ModelOverride) -> tuple[str, str]:
    """Order by the time of making; two of one second by name."""
    return override.metadata.creation_timestamp, override.metadata.name


def _one(r: Round, o: ModelOverride, newer: str) -> Judged:
    told = find(o.status.conditions, ACTIVE)
    if told is not None and told.status == "False" and told.reason in OVER:
        return Judged(o, "False", told.reason, told.message)
    if newer:
        return Judged(o, "False", "SupersededByNewer", f"{newer} was made later and rules in its place")
    if recorded(r, o.metadata.uid) and o.spec.action == "Promote":
        return Judged(o, "False", "Done", f"{o.spec.to} became champion by this order")
    if r.now >= ends_at(o):
        return Judged(o, "False", "Expired", f"it ended at {timestamp(ends_at(o))}; what Git asks for rules again")
    if r.model.spec.suspend:
        text = "spec.suspend of the ModelSpec is true; mainspring resume ends that"
        return Judged(o, "False", "Suspended", text)
    match o.spec.action:
        case "Rollback":
            return _rollback(r, o)
        case "Promote":
            return _promote(r, o)
        case _:
            return _abort(r, o)


def noted(r: Round, o: ModelOverride) -> OverrideStatus | None:
    """Return what the model's status remembers of an order; None when it speaks of another or of none."""
    known = r.status.override
    return known if known is not None and known.uid == o.metadata.uid else None


def recorded(r: Round, uid: str) -> bool:
    """Tell whether the ledger has an entry that obeys this order."""
    return r.ledger is not None and any(e.override and e.override.uid == uid for e in r.ledger.entries)


def applied(r: Round, o: ModelOverride) -> bool:
    """Tell whether a rollback has taken the requests over already."""
    known = noted(r, o)
    return (known is not None and known.state == "Applied") or recorded(r, o.metadata.uid)


def _rollback(r: Round, o: ModelOverride) -> Judged:
    to, known = o.spec.to, noted(r, o)
    until = f"until {timestamp(ends_at(o))}"
    if applied(r, o):
        return Judged(o, "True", "Applied", f"{to} serves {until}; then what Git asks for rules again")
    served = serve_of(r, to)
    if served is None or not _was_let_through(r, served):
        if r.ledger is None:
            text = f"whether {to} was ever let through cannot be read just now; it waits for the ledger"
            return Judged(o, "Unknown", "LedgerUnknown", text)
        return _unknown(r, o, f"{to} never was champion nor admitted{_instead(r, to)}")
    if served.digest != o.spec.digest:
        text = f"{to} is {served.digest[:19]}, the order names {o.spec.digest[:19]}{_instead(r, to)}"
        return _unknown(r, o, text)
    if problem := problem_of(r, to):
        return Judged(o, "False", "RefusedUnhealthy", f"{to} must not serve: {problem}{_instead(r, to)}")
    if known is not None and (known.state == "Refused" or _too_late(r, known)):
        servers = r.seen.deployments.get(served.deployment)
        detail = f" ({servers.message})" if servers is not None and servers.message else ""
        text = f"no server of {to} was ready within {human_seconds(NEVER_READY_S)}{detail}{_instead(r, to)}"
        return Judged(o, "False", "RefusedUnhealthy", text)
    return Judged(o, "True", "Starting", f"servers of {to} come up; it serves all requests once they are ready")


def _too_late(r: Round, known: OverrideStatus) -> bool:
    return (r.now - parse_timestamp(known.since)).total_seconds() > NEVER_READY_S and known.state == "Starting"


def _promote(r: Round, o: ModelOverride) -> Judged:
    to, champion = o.spec.to, r.champion
    if champion is not None and champion.revision == to:
        return Judged(o, "False", "Done", f"{to} is the champion")
    served = serve_of(r, to)
    if served is None or served.digest != o.spec.digest:
        text = f"{to} is {served.digest[:19]}, the order names {o.spec.digest[:19]}" if served else f"no {to}"
        return _unknown(r, o, text)
    current, source = r.status.challenger, r.status.source
    if to not in (current.revision if current else "", source.wanted if source else ""):
        text = f"{to} is not on its way: Git asks for {source.wanted if source else 'nothing yet'}"
        return _unknown(r, o, text, "NotOnItsWay")
    if reason := recall.rolled_back(r, to):
        text = f"{to} was rolled back: {reason}; push a fix, or `mainspring reconcile` to try its canary again"
        return Judged(o, "False", "RefusedUnhealthy", text)
    judged = r.status.judgement
    if judged is not None and judged.revision == to and judged.outcome == "Failed":
        return Judged(o, "False", "RefusedUnhealthy", f"the gates refused {to}; no order passes a gate")
    return Judged(o, "True", "Starting", f"{to} becomes champion once its servers are ready, without more canary")


def _abort(r: Round, o: ModelOverride) -> Judged:
    to, champion = o.spec.to, r.champion
    if champion is not None and champion.revision == to:
        text = f"{to} is the champion; mainspring rollback gives its requests to another{_instead(r, to)}"
        return Judged(o, "False", "IsChampion", text)
    served = serve_of(r, to)
    if served is None or served.digest != o.spec.digest:
        text = f"{to} is {served.digest[:19]}, the order names {o.spec.digest[:19]}" if served else f"no {to}"
        return _unknown(r, o, text)
    return Judged(o, "True", "Applied", f"{to} gets no requests until {timestamp(ends_at(o))}")


def _unknown(r: Round, o: ModelOverride, text: str, reason: str = "RevisionUnknown") -> Judged:
    """Refuse what is not there; for a short time that may only mean that it is newer than what was read."""
    made = o.metadata.creation_timestamp
    if made and (r.now - parse_timestamp(made)) < timedelta(seconds=UNKNOWN_FOR_S):
        return Judged(o, "Unknown", reason, f"{text}; looked at again")
    return Judged(o, "False", reason, text)


def _was_let_through(r: Round, served: Served) -> bool:
    """Tell whether these very bytes were champion or admitted once."""
    former = next((f for f in former_of(r) if f.revision == served.revision), None)
    if former is not None and former.digest == served.digest:
        return True
    if r.champion is not None and r.champion.revision == served.revision:
        return r.champion.digest == served.digest
    if r.ledger is None:
        judged = r.status.judgement
        return judged is not None and judged.revision == served.revision and judged.admitted
    entry = r.ledger.newest(served.revision)
    return entry is not None and entry.digest == served.digest


def former_of(r: Round) -> tuple[FormerChampion, ...]:
    """List the champions before, the newest first: by the ledger, or as the status remembers them."""
    return r.status.former if r.ledger is None else recall.former(r.ledger)


def problem_of(r: Round, revision: str) -> str:
    """Say why a revision must not serve again: it was rolled back or rejected last; empty when it may."""
    if r.ledger is not None:
        return recall.problem(r.ledger, revision)
    known = next((f.problem for f in r.status.former if f.revision == revision), "")
    told = r.status.previous
    if told is not None and told.revision == revision and told.verdict in ("RolledBack", "Rejected"):
        return known or told.reason
    return known


def serve_of(r: Round, revision: str) -> Served | None:
    """Gather what is needed to serve a revision, whoever still knows it: the ledger, its object, the status."""
    if r.champion is not None and r.champion.revision == revision:
        return r.champion
    entry = r.ledger.newest(revision) if r.ledger is not None else None
    if entry is not None and entry.runtime:
        return Served(
            revision=revision,
            run=entry.run,
            digest=entry.digest,
            version=entry.version,
            commit=entry.commit,
            runtime=entry.runtime,
        )
    found = r.seen.revisions.get(revision)
    if found is not None and (made := served_from(found)) is not None:
        return made
    former = next((f for f in r.status.former if f.revision == revision), None)
    return Served(**former.model_dump(exclude={"problem"})) if former is not None else None


def _instead(r: Round, but: str) -> str:
    """Name where a rollback may go instead, as the end of a sentence."""
    serving = r.champion.revision if r.champion else ""
    others = [f.revision for f in former_of(r) if not f.problem and f.revision not in (but, serving)]
    if not others:
        return "; no other champion before it may serve: push a fix"
    return f"; {others[0]} was champion too and may serve: mainspring rollback --to {others[0]}"


OverridePlan = Plan[ModelOverrideStatus]


def plan_override(seen: OverrideSeen, now: datetime) -> OverridePlan:
    """Say on one order how it stands; the model's own plan obeys it. No I/O; same input, same plan."""
    override = seen.override
    if override is None:
        status = ModelOverrideStatus.model_validate(seen.manifest.get("status") or {})
        text = "; ".join(str(e) for e in seen.errors[:3])
        return Plan(status=status, conditions=((ACTIVE, "False", "InvalidSpec", text),))
    found = _judge_of(seen, override, now)
    condition: Wanted = (ACTIVE, found.status, found.reason, found.message)
    if found.status == "False" and found.reason in OVER:
        return Plan(status=override.status, conditions=(condition,))
    soon = 2.0 if found.reason != "Applied" else 10.0
    due = max((ends_at(override) - now).total_seconds(), 1.0)
    return Plan(status=override.status, conditions=(condition,), next_s=min(soon, due))


def _judge_of(seen: OverrideSeen, override: ModelOverride, now: datetime) -> Judged:
    told = find(override.status.conditions, ACTIVE)
    if told is not None and told.status == "False" and told.reason in OVER:
        return Judged(override, "False", told.reason, told.message)
    model, name = seen.model, override.spec.model_ref.name
    if model is None:
        return Judged(override, "False", "ModelUnknown", f"there is no ModelSpec {name} in this namespace")
    if model.model is None:
        text = f"ModelSpec {name} is not valid, so nothing is decided for it; mainspring explain says why"
        return Judged(override, "False", "ModelInvalid", text)
    status = model.model.status
    r = Round(seen=model, model=model.model, now=now, status=status, champion=find_champion(model, status))
    uid = override.metadata.uid
    return next((j for j in judge(r) if j.override.metadata.uid == uid), _not_read(override))


def _not_read(override: ModelOverride) -> Judged:
    return Judged(override, "Unknown", "Pending", "it was just made")
