"""Decides who gets the requests: keeps the champion served, brings a challenger up, steps, promotes, gives back.

Traffic only ever goes to servers that are ready, and the champion keeps all of its servers until it is replaced.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from controller.api.base import human_seconds
from controller.api.conditions import parse_timestamp
from controller.api.kinds import ModelSpec
from controller.api.modelstatus import ChallengerStatus, PreviousRevision
from controller.plan import evidence, manifests, pinning, recall, traffic, watching
from controller.plan.actions import (
    CreateRevision,
    RecordVerdict,
)
from controller.plan.canary import begin, begins_again, judge_step, position
from controller.plan.round import ModelPlan, Round, Served
from controller.plan.verdict import Cause, Unknown

_SMOKE: Final = re.compile(r'SmokeTestFailed[":,a-z ]*(smoke test: .*?)["}]*(?: \(started|$)')
"""What a server says that failed its smoke test, as the pod's message tells it."""


def keep_served(r: Round) -> None:
    """Repair what serves the champion, whatever else is decided: servers, Service, its object."""
    champion = r.champion
    if champion is None:
        return
    traffic.ensure_servers(r, champion, Cause("Champion", f"{champion.revision} is the champion"))
    if r.seen.lost is not None:
        why = Cause("Restored", f"the ledger names {champion.revision}, and its run kept what it was made from")
        spec = pinning.as_manifest(r.seen.lost)
        built = manifests.revision_object(r.model, r.seen.manifest, champion.revision, spec)
        r.actions.append(CreateRevision(manifest=built, why=why))


def roll_out(r: Round, target: Served, gates: str) -> ModelPlan:
    """Bring an admitted revision one step closer to being the champion."""
    r.rolling = target.revision
    why = Cause("Admitted", f"{target.revision} passed {gates}")
    traffic.ensure_servers(r, target, why, traffic.size_of(r, target))
    servers = r.seen.deployments.get(target.deployment)
    before = r.status.challenger
    if before is None or before.revision != target.revision:
        before = ChallengerStatus(revision=target.revision, stage="Starting", started_at=r.stamp)
    if not before.started_at:
        before = before.model_copy(update={"started_at": r.stamp})
    if before.stage != "Canary" and (servers is None or servers.ready == 0):
        return _starting(r, target, before)
    if r.ledger is None:
        assert isinstance(r.seen.ledger, Unknown)
        if before.stage != "Canary":
            r.look_in(5.0)
            return r.finish("False", r.seen.ledger.reason, r.seen.ledger.message, stage="Waiting")
    if r.champion is None:
        return promote(
            r, target, Cause("FirstChampion", f"{target.revision} passed {gates}; nothing served before")
        )
    if recall.returns(r, target):
        return promote(
            r, target, Cause("Revert", f"{target.revision} was champion before; nothing is trained or judged")
        )
    if recall.is_ordered(r, target) and servers and servers.ready >= max(1, traffic.servers_to_take_over(r)):
        assert r.order is not None
        why = Cause("PromotedByOrder", f"{target.revision} passed {gates}; {recall.in_words(r.order)}")
        return promote(r, target, why, recall.obeying(r.order))
    return _canary(r, target, before, servers.ready if servers else 0)


def _starting(r: Round, target: Served, challenger: ChallengerStatus) -> ModelPlan:
    r.set(challenger=challenger.model_copy(update={"stage": "Starting"}))
    traffic.settle(r, None, 0, Cause("Champion", "all requests go to the champion"))
    waited = (r.now - parse_timestamp(challenger.started_at)).total_seconds()
    limit = r.model.spec.serving.canary.progress_deadline_seconds
    servers = r.seen.deployments.get(target.deployment)
    detail = f": {servers.message}" if servers and servers.message else ""
    if failed := _SMOKE.search(servers.message if servers else ""):
        said = failed[1].replace('\\"', '"')
        return give_back(r, target, Cause("SmokeTestFailed", f"servers of {target.revision} fail the {said}"))
    if waited > limit:
        message = f"servers of {target.revision} are not ready after {human_seconds(waited)}{detail}"
        return give_back(r, target, Cause("ProgressDeadlineExceeded", message))
    r.look_in(1.0)
    message = f"servers of {target.revision} are starting{detail}"
    return r.finish("False", "Progressing", message, stage="Starting")


def promote(r: Round, target: Served, why: Cause, ordered: Mapping[str, Any] | None = None) -> ModelPlan:
    """Write into the ledger that the revision is champion; traffic follows in the next round.

    `ordered`: fields of the entry that say who ordered it, where a person did.
    """
    if r.ledger is None:
        assert isinstance(r.seen.ledger, Unknown)
        r.look_in(5.0)
        return r.finish("False", r.seen.ledger.reason, r.seen.ledger.message, stage="Waiting")
    fields = ordered or {}
    entry = r.entry("Promoted", target, champion=target.revision, reason=str(why)[:500], **fields)
    r.actions.append(RecordVerdict(entry=entry, statement=None, why=why))
    r.look_in(0.0)
    return r.finish("False", "Promoting", why.message, stage="Promoting")


def _canary(r: Round, target: Served, challenger: ChallengerStatus, ready: int) -> ModelPlan:
    rule = r.model.spec.serving.canary
    if challenger.stage != "Canary":
        return _enter_step(r, target, challenger, _resumed_step(r, target), Cause("Admitted", "the canary begins"))
    at, wanted = position(rule.step_weights, challenger), traffic.servers_for(r, challenger.weight)
    live = watching.live(r, challenger.weight, ready)
    interrupted = not challenger.since
    if interrupted:
        if not isinstance(live.traffic, Unknown) and ready >= max(wanted, 1):
            # What was counted before belongs to another time: nothing is judged by it.
            message = f"it did not get its {challenger.weight}%; the step begins again"
            return _enter_step(r, target, challenger, at, Cause("StepBeginsAgain", message))
        challenger = challenger.model_copy(update={"since": r.stamp})
    step = judge_step(rule, challenger, live, r.now)
    why = Cause(step.reason, step.message)
    challenger = step.challenger
    watching.note(r, step, at)
    if step.do == "RollBack":
        return give_back(r, target, why)
    if ready == 0 or ready < wanted:
        return _hold_without_servers(r, target, challenger, ready, wanted)
    if rule.step_weights[at] != challenger.weight:
        message = f"stepWeights have no {challenger.weight}% any more"
        return _enter_step(r, target, challenger, at, Cause("StepsChanged", message))
    challenger = challenger.model_copy(update={"step": at})
    if interrupted:
        # What its servers have counted before cannot be told from what they count now: it has not begun yet.
        r.set(challenger=challenger.model_copy(update={"since": ""}))
        traffic.settle(r, target, challenger.weight, why)
        r.look_in(step.next_s)
        return r.finish("False", "Progressing", step.message, stage="Canary")
    if traffic.falls_short(r, target, challenger.weight):
        message = f"it did not get its {challenger.weight}%; the step begins again"
        return _enter_step(r, target, challenger, at, Cause("StepBeginsAgain", message))
    if begins_again(challenger, live):
        message = "the champion's figures could not be read when it began; the step begins again"
        return _enter_step(r, target, challenger, at, Cause("StepBeginsAgain", message))
    if step.do == "Next":
        following = at + 1
        if following >= len(rule.step_weights):
            if ready < (needed := traffic.servers_to_take_over(r)):
                return _hold_without_servers(r, target, challenger, ready, needed)
            r.set(challenger=challenger)
            shown = evidence.fields(r, target.revision)
            return promote(r, target, Cause("CanaryPassed", step.message), shown)
        return _enter_step(r, target, challenger, following, why)
    r.set(challenger=challenger)
    traffic.settle(r, target, challenger.weight, why)
    r.look_in(step.next_s)
    return r.finish("False", "Progressing", step.message, stage="Canary")


def _hold_without_servers(
    r: Round, target: Served, challenger: ChallengerStatus, ready: int, wanted: int
) -> ModelPlan:
    """Keep requests from servers that are gone, or wait for those that are coming; then the step begins again.

    That it must is kept as a step without a beginning: the route alone would forget it in a crash.
    """
    where = f"canary {challenger.weight}% of {challenger.revision}"
    rule = r.model.spec.serving.canary
    limit = human_seconds(rule.progress_deadline_seconds)
    waited = (r.now - parse_timestamp(challenger.started_at)).total_seconds()
    state = "no server of the challenger is ready" if ready == 0 else f"{ready} of {wanted} servers are ready"
    servers = r.seen.deployments.get(target.deployment)
    detail = f" ({servers.message})" if wanted and servers is not None and servers.message else ""
    if waited > rule.progress_deadline_seconds:
        message = f"{where}: {state}{detail}; the rollout has taken longer than {limit}"
        return give_back(r, target, Cause("ProgressDeadlineExceeded", message))
    challenger = challenger.model_copy(update={"since": ""})
    r.set(challenger=challenger)
    why = Cause("TelemetryUnknown", f"{where}: {state}{detail}")
    keeps = r.seen.by_servers or ready > 0
    traffic.settle(r, target if keeps else None, challenger.weight if keeps else 0, why)
    r.look_in(1.0)
    if ready == 0:
        then = f"it gets no requests until one is, and is rolled back after {limit} of rollout"
    else:
        then = f"its step begins once all are, and it is rolled back after {limit} of rollout"
    return r.finish("False", "ServersNotReady", f"{why.message}; {then}", stage="Canary")


def _resumed_step(r: Round, target: Served) -> int:
    """Find the step that the traffic already stands at, after a crash between it and the status; 0 otherwise."""
    weights = r.model.spec.serving.canary.step_weights
    return next((i for i, weight in enumerate(weights) if traffic.stands_at(r, target, weight)), 0)


def _enter_step(r: Round, target: Served, challenger: ChallengerStatus, step: int, why: Cause) -> ModelPlan:
    weight = r.model.spec.serving.canary.step_weights[step]
    begun = begin(r.model.spec.serving.canary, watching.live(r, weight), r.now)
    entered = challenger.model_copy(update={"stage": "Canary", "step": step, "weight": weight, **begun})
    r.set(challenger=entered)
    traffic.settle(r, target, weight, Cause(why.reason, f"{weight}% to {target.revision}: {why.message}"))
    r.look_in(1.0)
    steps = len(r.model.spec.serving.canary.step_weights)
    message = f"canary {weight}% of {target.revision}, step {step + 1} of {steps}{traffic.in_words(r, weight)}"
    return r.finish("False", "Progressing", message, stage="Canary")


def give_back(r: Round, target: Served, why: Cause) -> ModelPlan:
    """Give all traffic back to the champion at once; the ledger hears of it as soon as it can."""
    r.rolling = ""
    ended = PreviousRevision(revision=target.revision, verdict="RolledBack", reason=why.message)
    r.set(challenger=None, previous=ended)
    traffic.settle(r, None, 0, why)
    champion = r.champion.revision if r.champion else ""
    if r.ledger is not None:
        shown = evidence.fields(r, target.revision)
        entry = r.entry("RolledBack", target, champion=champion, reason=str(why)[:500], **shown)
        r.actions.append(RecordVerdict(entry=entry, statement=None, why=why))
    return stay_back(r, target.revision, why.message)


def is_late(model: ModelSpec, record: RecordVerdict) -> bool:
    """Tell whether an entry comes after what it tells of: a rollback of what may have got requests."""
    before = model.status.challenger
    unasked = before is not None and before.stage != "Canary" and before.revision == record.entry.revision
    return record.entry.kind == "RolledBack" and not unasked


def stay_back(r: Round, revision: str, reason: str) -> ModelPlan:
    """Keep a revision that was rolled back away from requests, and say why and what a person can do."""
    told = r.status.previous
    if told is None or (told.revision, told.verdict) != (revision, "RolledBack"):
        r.set(previous=PreviousRevision(revision=revision, verdict="RolledBack", reason=reason))
    r.set(challenger=None)
    kept = f"{r.champion.revision} serves all requests." if r.champion else "Nothing serves."
    message = f"{revision} was rolled back: {reason}. {kept} Push a fix, or `mainspring reconcile` to try again"
    return r.finish("False", "RolledBack", message, stage="Stalled", stalled=True)


def abort(r: Round, revision: str, why: Cause, verdict: Literal["Aborted", "RolledBack"] = "Aborted") -> None:
    """Take a challenger that is not wanted any more out of the traffic."""
    r.set(challenger=None, previous=PreviousRevision(revision=revision, verdict=verdict, reason=why.message))
    traffic.settle(r, None, 0, why)
