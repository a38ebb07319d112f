"""Decides who gets the requests: keeps the champion served, brings a challenger up, steps, promotes, gives back.

Traffic only ever goes to servers that are ready, and the champion keeps all of its servers until it is replaced.
"""

from __future__ import annotations

from collections.abc import Mapping

from controller.api.base import human_seconds
from controller.api.conditions import parse_timestamp, timestamp
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
from controller.plan.canary import judge_step
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
        built = manifests.service(r.model, r.seen.manifest, name=name, revision=served.revision)
        r.actions.append(ApplyManifest(manifest=built, why=why))


def settle_route(r: Round, challenger: Served | None, weight: int, why: Cause) -> None:
    """Ask for the route: the champion's share and the challenger's, only to servers that are ready."""
    champion = r.champion
    if champion is None:
        return
    servers = r.seen.deployments.get(champion.deployment)
    if servers is None or servers.ready == 0:
        return
    wanted = {champion.deployment: 100 - weight}
    if challenger is not None and weight:
        wanted[challenger.deployment] = weight
    if r.seen.route != wanted:
        r.actions.append(
            SetWeights(manifest=manifests.route(r.model, r.seen.manifest, wanted), weights=wanted, why=why)
        )


def clean_up(r: Round) -> None:
    """Delete servers that neither serve nor are about to; only once the route has let go of them."""
    keep = {r.champion.deployment} if r.champion else set()
    coming = r.served(r.rolling) if r.rolling else None
    if coming is not None:
        keep.add(coming.deployment)
    route: Mapping[str, int] = r.seen.route or {}
    namespace = r.model.metadata.namespace
    for name, servers in sorted(r.seen.deployments.items()):
        if name in keep or route.get(name, 0) > 0:
            continue
        why = Cause("NotServing", f"{servers.revision} gets no requests")
        for kind in ("Deployment", "Service"):
            r.actions.append(DeleteManifest(key=Key(kind, namespace, name), uid=None, why=why))


def roll_out(r: Round, target: Served, gates: str) -> ModelPlan:
    """Bring an admitted revision one step closer to being the champion."""
    r.rolling = target.revision
    ensure_servers(r, target, Cause("Admitted", f"{target.revision} passed {gates}"))
    servers = r.seen.deployments.get(target.deployment)
    before = r.status.challenger
    if before is None or before.revision != target.revision:
        before = ChallengerStatus(revision=target.revision, stage="Starting", started_at=timestamp(r.now))
    if not before.started_at:
        before = before.model_copy(update={"started_at": timestamp(r.now)})
    if before.stage != "Canary" and (servers is None or servers.ready == 0):
        return _starting(r, target, before)
    if r.ledger is None:
        assert isinstance(r.seen.ledger, Unknown)
        if before.stage != "Canary":
            r.next_s = 5.0
            return r.finish("False", r.seen.ledger.reason, r.seen.ledger.message, stage="Waiting")
    if r.champion is None:
        return promote(
            r, target, Cause("FirstChampion", f"{target.revision} passed {gates}; nothing served before")
        )
    if r.ledger is not None and target.revision in r.ledger.promoted:
        return promote(
            r, target, Cause("Revert", f"{target.revision} was champion before; nothing is trained or judged")
        )
    return _canary(r, target, before, servers.ready if servers else 0)


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
    r.next_s = 1.0
    message = f"servers of {target.revision} are starting{detail}"
    return r.finish("False", "Progressing", message, stage="Starting")


def promote(r: Round, target: Served, why: Cause) -> ModelPlan:
    """Write into the ledger that the revision is champion; traffic follows in the next round."""
    if r.ledger is None:
        assert isinstance(r.seen.ledger, Unknown)
        r.next_s = 5.0
        return r.finish("False", r.seen.ledger.reason, r.seen.ledger.message, stage="Waiting")
    entry = r.entry("Promoted", target, champion=target.revision, reason=str(why)[:500])
    r.actions.append(RecordVerdict(entry=entry, statement=None, why=why))
    r.next_s = 0.0
    if r.champion is not None:
        ended = PreviousRevision(revision=r.champion.revision, verdict="Replaced", reason=why.message)
        r.set(previous=ended)
    return r.finish("False", "Promoting", why.message, stage="Promoting")


def _canary(r: Round, target: Served, challenger: ChallengerStatus, ready: int) -> ModelPlan:
    rule = r.model.spec.serving.canary
    if challenger.stage != "Canary":
        return _enter_step(r, target, challenger, _resumed_step(r, target), Cause("Admitted", "the canary begins"))
    step = judge_step(rule, challenger, r.seen.traffic, ready, r.now)
    why = Cause(step.reason, step.message)
    if step.do == "RollBack":
        return give_back(r, target, why)
    if step.do == "Next":
        following = challenger.step + 1
        if following >= len(rule.step_weights):
            r.set(challenger=challenger)
            return promote(r, target, Cause("CanaryPassed", step.message))
        return _enter_step(r, target, challenger, following, why)
    r.set(challenger=challenger)
    settle_route(r, target, rule.step_weights[challenger.step], why)
    r.next_s = step.next_s
    return r.finish("False", "Progressing", step.message, stage="Canary")


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
            "since": timestamp(r.now),
            "counters": counters,
        }
    )
    r.set(challenger=entered)
    settle_route(r, target, weight, Cause(why.reason, f"{weight}% to {target.revision}: {why.message}"))
    r.next_s = 1.0
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
    message = f"{why.message}. {champion or 'Nothing'} serves all requests. Push a fix, or `mainspring reconcile`"
    return r.finish("False", "RolledBack", message, stage="Stalled", stalled=True)


def abort(r: Round, revision: str, why: Cause) -> None:
    """Take a challenger that is not wanted any more out of the traffic."""
    r.set(
        challenger=None,
        previous=PreviousRevision(revision=revision, verdict="Aborted", reason=why.message),
    )
    settle_route(r, None, 0, why)
