"""Obeys the order of a person that rules (see `overrides.py`): what a rollback, a promotion or an abort does.

Traffic moves first and the ledger hears of it as soon as it can, since going back must work while MLflow and Git
are down; only a promotion needs its entry first.  An order moves nothing to servers that are not ready, trains
nothing and judges nothing.  Promotion itself is a step of `rollout.py`.
"""

from __future__ import annotations

from dataclasses import replace

from controller.api.conditions import OVERRIDDEN, timestamp
from controller.api.kinds import ModelOverride
from controller.api.modelstatus import OverrideStatus
from controller.plan import overrides, recall, rollout, traffic
from controller.plan.actions import RecordVerdict
from controller.plan.observed import SourceSeen
from controller.plan.overrides import Judged, ends_at, left
from controller.plan.round import ModelPlan, Round, Served
from controller.plan.verdict import Cause


def take_up(r: Round) -> None:
    """Note the order that rules, and let whom it puts into place be the champion of this round.

    What an order did stays done after its end until the ledger knows of it: then Git rules again.
    """
    judged, known = overrides.judge(r), r.status.override
    refused = known if known is not None and _is_refused(known, judged) else None
    ruling = next((j for j in judged if j.rules), None)
    if ruling is not None:
        r.order = ruling.override
        if ruling.override.spec.action == "Rollback":
            _take_place(r, ruling.override)
        else:
            _note(r, ruling)
    elif known is not None and known.state == "Applied" and _unrecorded(r, known):
        done = overrides.serve_of(r, known.revision) if known.action == "Rollback" else None
        r.champion = replace(done, since=known.since) if done is not None else r.champion
    else:
        r.set(override=None)
    if refused is not None:
        r.set(override=refused.model_copy(update={"state": "Refused"}))


def _is_refused(known: OverrideStatus, judged: tuple[Judged, ...]) -> bool:
    """Tell whether an order that was begun is refused and does not say so itself yet.

    Until it does, this is kept: forgotten, it would be begun again.
    """
    found = next((j for j in judged if j.override.metadata.uid == known.uid), None)
    if known.state == "Applied" or found is None or found.reason != "RefusedUnhealthy":
        return False
    return all(c.reason != found.reason for c in found.override.status.conditions)


def _unrecorded(r: Round, known: OverrideStatus) -> bool:
    """Tell whether the ledger has yet to hear of what an order did; True while it cannot be read."""
    return bool(known.replaced) and not overrides.recorded(r, known.uid)


def _note(r: Round, ruling: Judged) -> None:
    """Remember which promotion or abort rules."""
    o, known = ruling.override, overrides.noted(r, ruling.override)
    if known is None:
        state = "Applied" if ruling.reason == "Applied" else "Starting"
        replaced = o.spec.to if o.spec.action == "Abort" else ""
        r.set(override=_status(r, o, state, replaced))


def _status(r: Round, o: ModelOverride, state: str, replaced: str) -> OverrideStatus:
    return OverrideStatus.model_validate(
        {
            "name": o.metadata.name,
            "uid": o.metadata.uid,
            "action": o.spec.action,
            "revision": o.spec.to,
            "actor": o.spec.actor,
            "reason": o.spec.reason,
            "expires_at": timestamp(ends_at(o)),
            "state": state,
            "since": r.stamp,
            "replaced": replaced,
        }
    )


def _take_place(r: Round, o: ModelOverride) -> None:
    """Make a rollback's revision the champion once its servers are ready; until then they come up beside."""
    served, known, before = overrides.serve_of(r, o.spec.to), overrides.noted(r, o), r.champion
    assert served is not None
    stays = before is not None and before.revision == served.revision
    found = r.seen.deployments.get(served.deployment)
    ready = found is not None and found.ready >= max(1, traffic.servers_to_take_over(r))
    if not (overrides.applied(r, o) or stays or ready or before is None):
        r.coming = served
        if known is None:
            r.set(override=_status(r, o, "Starting", ""))
        return
    current = r.status.challenger
    if known is None or known.state != "Applied":
        taken = "" if before is None or stays else before.revision
        if not taken and current is not None and current.stage in ("Starting", "Canary"):
            taken = current.revision
        known = _status(r, o, "Applied", "" if taken == served.revision else taken)
        r.set(override=known)
    moved = r.ledger is not None and known.replaced in r.ledger.promoted
    r.champion = served if served.since and not moved else replace(served, since=known.since)


def obey(r: Round, wanted: str, named: str) -> ModelPlan | None:
    """Do what the order asks for; None where Git rules, beside the order or because there is none.

    Args:
        r: the round; `take_up` was called.
        wanted: the revision that Git asks for, or asked for when it could last be read.
        named: the commit that asks for it, in words.
    """
    known, order = r.status.override, r.order
    if order is None:
        over = known is not None and known.state == "Applied" and _unrecorded(r, known)
        return _ended(r, known) if known is not None and over else None
    r.conditions.append((OVERRIDDEN, "True", _reason(r, order), _condition(r, order, wanted)))
    r.look_in(max((ends_at(order) - r.now).total_seconds(), 0.0))
    match order.spec.action:
        case "Rollback":
            return _roll_back(r, order, wanted, named)
        case "Abort":
            return _abort(r, order, wanted, named)
        case _:
            return None


def _reason(r: Round, o: ModelOverride) -> str:
    soon = (ends_at(o) - r.now).total_seconds() <= overrides.SOON_S
    return "ExpiresSoon" if soon else o.spec.action


def _condition(r: Round, o: ModelOverride, wanted: str) -> str:
    spec = o.spec
    then = f"then what Git asks for{f', {wanted},' if wanted and wanted != spec.to else ''} rules again"
    words = {"Rollback": "rollback to", "Promote": "promotion of", "Abort": "abort of"}[spec.action]
    text = f"{words} {spec.to} by order of {spec.actor}: {spec.reason}"
    return f"{text}. It ends at {timestamp(ends_at(o))}, in about {left(o, r.now)}; {then} ({o.metadata.name})"


def _roll_back(r: Round, o: ModelOverride, wanted: str, named: str) -> ModelPlan:
    to, why = o.spec.to, Cause("RolledBackByOrder", recall.in_words(o))
    current = r.status.challenger
    if current is not None and current.stage in ("Starting", "Canary") and current.revision != to:
        rollout.abort(r, current.revision, why)
    r.set(challenger=None)
    if r.coming is not None:
        return _coming(r, r.coming, why)
    traffic.settle(r, None, 0, why)
    champion = r.champion
    assert champion is not None
    servers = r.seen.deployments.get(champion.deployment)
    routed = (r.seen.route or {}).get(champion.deployment, 0) == 100
    if servers is None or servers.ready == 0 or not routed:
        r.look_in(1.0)
        detail = f": {servers.message}" if servers is not None and servers.message else ""
        place = f"in place{traffic.handed_over(r, champion)} by order of {o.spec.actor}"
        message = f"{to} is being put {place}{detail}"
        return r.finish("False", "Progressing", message, stage="Starting")
    serves = f"{to} serves all requests"
    if wanted == to and isinstance(r.seen.source, SourceSeen):
        text = f"{serves}, as {named} asks; the order of {o.spec.actor} holds until {timestamp(ends_at(o))}"
        return r.finish("True", "Succeeded", text, stage="Serving")
    return _held(r, o, serves, wanted, named)


def _coming(r: Round, served: Served, why: Cause) -> ModelPlan:
    """Bring the servers of a rollback up; the champion keeps all requests until they are ready."""
    r.rolling = served.revision
    traffic.ensure_servers(r, served, why, traffic.champions(r))
    traffic.settle(r, None, 0, why)
    servers = r.seen.deployments.get(served.deployment)
    detail = f": {servers.message}" if servers is not None and servers.message else ""
    r.look_in(1.0)
    message = f"servers of {served.revision} are starting, by order of a person{detail}"
    return r.finish("False", "Progressing", message, stage="Starting")


def _abort(r: Round, o: ModelOverride, wanted: str, named: str) -> ModelPlan | None:
    to, why = o.spec.to, Cause("AbortedByOrder", recall.in_words(o))
    current = r.status.challenger
    if current is not None and current.revision == to:
        rollout.abort(r, to, why)
    if wanted != to:
        return None
    traffic.settle(r, None, 0, why)
    serves = f"{r.champion.revision} serves all requests" if r.champion is not None else "nothing serves"
    return _held(r, o, serves, wanted, named)


def _held(r: Round, o: ModelOverride, serves: str, wanted: str, named: str) -> ModelPlan:
    """Say that what serves is not what Git asks for: a person must make the two agree, or wait."""
    until = f"until {timestamp(ends_at(o))} by order of {o.spec.actor}: {o.spec.reason.rstrip('.')}"
    asks = f"{named} asks for {wanted}" if wanted else "what Git asks for is not known"
    text = f"{serves} {until}. {asks}; change Git, or it comes back then"
    return r.finish("False", "Overridden", text, stage="Overridden", stalled=True)


def record(r: Round) -> None:
    """Write into the ledger what an order did, once, last of all, as soon as that can be written.

    A round writes one entry: where it writes another, this one's turn comes with the next.
    """
    known = r.status.override
    if known is None or known.state != "Applied" or r.ledger is None or not _unrecorded(r, known):
        return
    served = overrides.serve_of(r, known.replaced)
    if served is None or any(isinstance(a, RecordVerdict) for a in r.actions):
        return
    champion = r.champion.revision if r.champion is not None else ""
    what = "rollback to" if known.action == "Rollback" else "abort of"
    words = f"{what} {known.revision} by order of {known.actor}: {known.reason}"
    why = Cause("RolledBackByOrder" if known.action == "Rollback" else "AbortedByOrder", words)
    by = {"name": known.name, "uid": known.uid, "action": known.action, "expires_at": known.expires_at}
    more = {"author": known.actor, "override": by}
    entry = r.entry("RolledBack", served, champion=champion, reason=str(why)[:500], **more)
    r.actions.append(RecordVerdict(entry=entry, statement=None, why=why))


def _ended(r: Round, known: OverrideStatus) -> ModelPlan | None:
    """Wait until the ledger knows what an order did that is over by now: nothing is left out of it."""
    if known.action == "Abort":
        return None
    traffic.settle(r, None, 0, Cause("OrderEnded", f"{known.revision} serves until the ledger knows that it does"))
    r.look_in(1.0 if r.ledger is not None else 5.0)
    message = f"the order of {known.actor} has ended; what Git asks for rules once the ledger knows of it"
    return r.finish("False", "OrderEnded", message, stage="Waiting")
