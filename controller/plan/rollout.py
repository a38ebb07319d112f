"""Decides who gets the requests: keeps the champion served, brings a challenger up, steps, promotes, gives back.

Traffic only ever goes to servers that are ready, and the champion keeps all of its servers until it is replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from controller.api.base import human_seconds
from controller.api.conditions import parse_timestamp
from controller.api.meta import Key
from controller.api.modelstatus import ChallengerStatus, PreviousRevision
from controller.plan import manifests, pinning
from controller.plan.actions import (
    ApplyManifest,
    CreateRevision,
    DeleteManifest,
    RecordVerdict,
    SetAlias,
    SetWeights,
)
from controller.plan.canary import judge_step, position
from controller.plan.ledger import Ledger
from controller.plan.revision import registry_name
from controller.plan.round import ModelPlan, Round, Served
from controller.plan.verdict import Cause, Unknown


def keep_served(r: Round) -> None:
    """Repair what serves the champion, whatever else is decided: servers, Service, alias."""
    champion = r.champion
    if champion is None:
        return
    ensure_servers(r, champion, Cause("Champion", f"{champion.revision} is the champion"))
    if r.seen.lost is not None:
        why = Cause("Restored", f"the ledger names {champion.revision}, and its run kept what it was made from")
        spec = pinning.as_manifest(r.seen.lost)
        built = manifests.revision_object(r.model, r.seen.manifest, champion.revision, spec)
        r.actions.append(CreateRevision(manifest=built, why=why))


def point_alias(r: Round) -> None:
    """Point the registry's alias at the champion: last of all, since it is output only and must hinder nothing."""
    champion = r.champion
    if champion is None:
        return
    aliases, name = r.seen.aliases, f"{r.environment}-champion"
    if not isinstance(aliases, Unknown) and champion.version and aliases.get(name) != champion.version:
        was = aliases.get(name)
        message = f"version {champion.version} serves; the alias named {f'version {was}' if was else 'none'}"
        r.actions.append(
            SetAlias(
                registry_name=registry_name(r.model),
                alias=name,
                version=champion.version,
                why=Cause("ChampionMoved", message),
            )
        )


def ensure_servers(r: Round, served: Served, why: Cause) -> None:
    """Ask for the Deployment and the Service of a revision where they are missing or of another size."""
    name, wanted = served.deployment, r.model.spec.serving.min_replicas
    found = r.seen.deployments.get(name)
    if found is not None:
        why = Cause("ReplicasChanged", f"{name} has {found.replicas} servers, minReplicas asks for {wanted}")
    if found is None or found.replicas != wanted:
        built = manifests.deployment(
            r.model,
            r.seen.manifest,
            name=name,
            revision=served.revision,
            run=served.run,
            digest=served.digest,
            version=served.version,
            commit=served.commit,
            tracking_uri=r.seen.tracking_uri,
        )
        r.actions.append(ApplyManifest(manifest=built, why=why))
    if name not in r.seen.services:
        why = Cause("ServiceMissing", f"the servers of {served.revision} need one to be reached by")
        built = manifests.service(r.model, r.seen.manifest, name=name, revision=served.revision)
        r.actions.append(ApplyManifest(manifest=built, why=why))


def settle_route(r: Round, challenger: Served | None, weight: int, why: Cause) -> None:
    """Ask for the route: the champion's share and the challenger's, only to servers that are ready."""
    champion = r.champion
    if champion is None or not is_ready(r, champion):
        return
    wanted = {champion.deployment: 100 - weight}
    if challenger is not None and weight:
        wanted[challenger.deployment] = weight
    if r.seen.route != wanted:
        r.actions.append(
            SetWeights(manifest=manifests.route(r.model, r.seen.manifest, wanted), weights=wanted, why=why)
        )


def is_ready(r: Round, served: Served) -> bool:
    """Tell whether at least one server of a revision is ready."""
    servers = r.seen.deployments.get(served.deployment)
    return servers is not None and servers.ready > 0


def clean_up(r: Round) -> None:
    """Delete servers that neither serve nor are about to; only once the route has let go of them."""
    if r.champion is None and r.ledger is None:
        return  # Who is champion is not known: any of them may be.
    keep = {r.champion.deployment} if r.champion else set()
    coming = r.served(r.rolling) if r.rolling else None
    if coming is not None:
        keep.add(coming.deployment)
    route: Mapping[str, int] = r.seen.route or {}
    namespace = r.model.metadata.namespace
    for name in sorted(set(r.seen.deployments) | r.seen.services):
        if name in keep or route.get(name, 0) > 0:
            continue
        why = Cause("NotServing", f"{name.rpartition('-')[0]} gets no requests")
        present = [("Deployment", name in r.seen.deployments), ("Service", name in r.seen.services)]
        for kind in (kind for kind, there in present if there):
            r.actions.append(DeleteManifest(key=Key(kind, namespace, name), uid=None, why=why))


def roll_out(r: Round, target: Served, gates: str) -> ModelPlan:
    """Bring an admitted revision one step closer to being the champion."""
    r.rolling = target.revision
    ensure_servers(r, target, Cause("Admitted", f"{target.revision} passed {gates}"))
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
    if r.ledger is not None and target.revision in r.ledger.promoted and _same_bytes(r.ledger, target):
        return promote(
            r, target, Cause("Revert", f"{target.revision} was champion before; nothing is trained or judged")
        )
    return _canary(r, target, before, servers.ready if servers else 0)


def _same_bytes(ledger: Ledger, target: Served) -> bool:
    """Tell whether what was champion once is what would serve now: a training made anew may give another model."""
    entry = ledger.newest(target.revision)
    return entry is not None and entry.digest == target.digest


def _starting(r: Round, target: Served, challenger: ChallengerStatus) -> ModelPlan:
    r.set(challenger=challenger.model_copy(update={"stage": "Starting"}))
    settle_route(r, None, 0, Cause("Champion", "all requests go to the champion"))
    waited = (r.now - parse_timestamp(challenger.started_at)).total_seconds()
    limit = r.model.spec.serving.canary.progress_deadline_seconds
    servers = r.seen.deployments.get(target.deployment)
    detail = f": {servers.message}" if servers and servers.message else ""
    if waited > limit:
        message = f"servers of {target.revision} are not ready after {human_seconds(waited)}{detail}"
        return give_back(r, target, Cause("ProgressDeadlineExceeded", message))
    r.look_in(1.0)
    message = f"servers of {target.revision} are starting{detail}"
    return r.finish("False", "Progressing", message, stage="Starting")


def promote(r: Round, target: Served, why: Cause) -> ModelPlan:
    """Write into the ledger that the revision is champion; traffic follows in the next round."""
    if r.ledger is None:
        assert isinstance(r.seen.ledger, Unknown)
        r.look_in(5.0)
        return r.finish("False", r.seen.ledger.reason, r.seen.ledger.message, stage="Waiting")
    entry = r.entry("Promoted", target, champion=target.revision, reason=str(why)[:500])
    r.actions.append(RecordVerdict(entry=entry, statement=None, why=why))
    r.look_in(0.0)
    return r.finish("False", "Promoting", why.message, stage="Promoting")


def _canary(r: Round, target: Served, challenger: ChallengerStatus, ready: int) -> ModelPlan:
    rule = r.model.spec.serving.canary
    if challenger.stage != "Canary":
        return _enter_step(r, target, challenger, _resumed_step(r, target), Cause("Admitted", "the canary begins"))
    interrupted = not challenger.since
    if interrupted:
        challenger = challenger.model_copy(update={"since": r.stamp})
    step = judge_step(rule, challenger, r.seen.traffic, ready, r.now)
    why = Cause(step.reason, step.message)
    if step.do == "RollBack":
        return give_back(r, target, why)
    if ready == 0:
        return _hold_without_servers(r, challenger, why)
    at = position(rule.step_weights, challenger)
    if rule.step_weights[at] != challenger.weight:
        message = f"stepWeights have no {challenger.weight}% any more"
        return _enter_step(r, target, challenger, at, Cause("StepsChanged", message))
    challenger = challenger.model_copy(update={"step": at})
    share = (r.seen.route or {}).get(target.deployment, 0)
    if interrupted or (share < challenger.weight and r.champion is not None and is_ready(r, r.champion)):
        message = f"it did not get its {challenger.weight}%; the step begins again"
        return _enter_step(r, target, challenger, at, Cause("StepBeginsAgain", message))
    if step.do == "Next":
        following = at + 1
        if following >= len(rule.step_weights):
            r.set(challenger=challenger)
            return promote(r, target, Cause("CanaryPassed", step.message))
        return _enter_step(r, target, challenger, following, why)
    r.set(challenger=challenger)
    settle_route(r, target, challenger.weight, why)
    r.look_in(step.next_s)
    return r.finish("False", "Progressing", step.message, stage="Canary")


def _hold_without_servers(r: Round, challenger: ChallengerStatus, why: Cause) -> ModelPlan:
    """Keep requests from servers that are gone; when they come back, the step begins again.

    That it must is kept as a step without a beginning: the route alone would forget it in a crash.
    """
    r.set(challenger=challenger.model_copy(update={"since": ""}))
    settle_route(r, None, 0, why)
    r.look_in(1.0)
    limit = human_seconds(r.model.spec.serving.canary.progress_deadline_seconds)
    message = f"{why.message}; it gets no requests until one is, and is rolled back after {limit} of rollout"
    return r.finish("False", "ServersNotReady", message, stage="Canary")


def _resumed_step(r: Round, target: Served) -> int:
    """Find the step that the route already stands at, after a crash between traffic and status; 0 otherwise."""
    weight = (r.seen.route or {}).get(target.deployment, 0)
    weights = r.model.spec.serving.canary.step_weights
    return weights.index(weight) if weight in weights else 0


def _enter_step(r: Round, target: Served, challenger: ChallengerStatus, step: int, why: Cause) -> ModelPlan:
    weight = r.model.spec.serving.canary.step_weights[step]
    counters = {} if isinstance(r.seen.traffic, Unknown) else dict(r.seen.traffic)
    entered = challenger.model_copy(
        update={
            "stage": "Canary",
            "step": step,
            "weight": weight,
            "since": r.stamp,
            "counters": counters,
        }
    )
    r.set(challenger=entered)
    settle_route(r, target, weight, Cause(why.reason, f"{weight}% to {target.revision}: {why.message}"))
    r.look_in(1.0)
    steps = len(r.model.spec.serving.canary.step_weights)
    message = f"canary {weight}% of {target.revision}, step {step + 1} of {steps}"
    return r.finish("False", "Progressing", message, stage="Canary")


def give_back(r: Round, target: Served, why: Cause) -> ModelPlan:
    """Give all traffic back to the champion at once; the ledger hears of it as soon as it can."""
    r.rolling = ""
    settle_route(r, None, 0, why)
    champion = r.champion.revision if r.champion else ""
    ended = PreviousRevision(revision=target.revision, verdict="RolledBack", reason=why.message)
    r.set(challenger=None, previous=ended)
    if r.ledger is not None:
        entry = r.entry("RolledBack", target, champion=champion, reason=str(why)[:500])
        r.actions.append(RecordVerdict(entry=entry, statement=None, why=why))
    return stay_back(r, target.revision, why.message)


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
    settle_route(r, None, 0, why)
