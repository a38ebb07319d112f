"""Decides for one ModelSpec: what is asked for, what serves, and the next step from one to the other.

The order of the first lines is a decision: deletion, then an invalid spec, then suspension, then everything else;
the champion is kept served before anything new is looked at.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from controller.api.conditions import (
    DATA_VALID,
    GATES_PASSED,
    SOURCE_READY,
    STALLED,
    TRAINED,
    Wanted,
    find,
)
from controller.api.kinds import ModelRevision
from controller.api.modelrevision import ModelRevisionSpec
from controller.api.modelstatus import (
    ChallengerStatus,
    DataStatus,
    GateVerdict,
    Judgement,
    LedgerStatus,
    ModelSpecStatus,
    PreviousRevision,
    ServedRevision,
    SourceStatus,
)
from controller.api.statements import lineage_statement
from controller.plan import gates, manifests, orders, pinning, recall, rollout, traffic
from controller.plan.actions import CreateRevision, Plan, RecordVerdict
from controller.plan.observed import ORDER_FIRST, ModelSeen, SourceSeen
from controller.plan.round import ModelPlan, Round, Served, find_champion, served_from
from controller.plan.verdict import Cause, Refused, Unknown, deciding, passed_of, worst


def plan_model(seen: ModelSeen, now: datetime) -> ModelPlan:
    """Decide the next step for one model. No I/O; same input, same plan."""
    status = seen.model.status if seen.model else _last_status(seen)
    if seen.manifest["metadata"].get("deletionTimestamp"):
        return Plan(status=status, conditions=(("Ready", "False", "Deleting", "its children go with it"),))
    if seen.model is None:
        message = "; ".join(str(e) for e in seen.errors[:3])
        more = f" (and {len(seen.errors) - 3} more)" if len(seen.errors) > 3 else ""
        text = f"{message}{more}. What serves goes on serving; correct the ModelSpec"
        conditions = (("Ready", "False", "InvalidSpec", text), (STALLED, "True", "InvalidSpec", text))
        return Plan(status=status.model_copy(update={"stage": "Stalled"}), conditions=conditions)  # type: ignore[arg-type]
    r = Round(seen=seen, model=seen.model, now=now, status=status, champion=find_champion(seen, status))
    if not seen.model.spec.suspend:
        orders.take_up(r)
    recall.remember(r)
    r.set(champion=_champion_status(r), ledger=_ledger_status(r))
    if r.ledger is not None:
        r.set(former=recall.former(r.ledger))
    if seen.model.spec.suspend:
        return r.finish(
            "False", "Suspended", "spec.suspend is true; what serves goes on serving", stage="Suspended"
        )
    rollout.keep_served(r)
    plan = _towards_source(r)
    before = len(r.actions)
    traffic.clean_up(r)
    traffic.support(r)
    orders.record(r)
    # Going back acts first: a ledger that cannot be written must hold up nothing of it.  Where no request was at
    # stake it is recorded first: what the servers last said goes with them.
    late = [a for a in r.actions if isinstance(a, RecordVerdict) and rollout.is_late(seen.model, a)]
    r.actions = [*(a for a in r.actions if a not in late), *late]
    traffic.point_alias(r)
    if len(r.actions) == before and not late:
        return plan
    return replace(plan, actions=tuple(r.actions), next_s=plan.next_s if plan.next_s is not None else 1.0)


def _towards_source(r: Round) -> ModelPlan:
    source = r.seen.source
    if isinstance(source, Unknown | Refused):
        known, last = find(r.status.conditions, SOURCE_READY), r.status.source
        if source.reason == ORDER_FIRST and known is not None:  # Git was not even asked.
            r.conditions.append((SOURCE_READY, known.status, known.reason, known.message))
        else:
            r.conditions.append((SOURCE_READY, "False", source.reason, source.message))
        if (plan := orders.obey(r, last.wanted if last else "", "Git, when last read,")) is not None:
            return plan
        _continue_rollout(r)
        stalled = isinstance(source, Refused)
        stage = "Stalled" if stalled else "Waiting"
        if not stalled:
            r.look_in(10.0)
        return r.finish("False", source.reason, source.message, stage=stage, stalled=stalled)
    wanted, pinned = pinning.pin(r.model, source, first=not r.seen.revisions)
    _note_source(r, source, wanted)
    if (plan := orders.obey(r, wanted, _named(source))) is not None:
        return plan
    if r.champion is not None and r.champion.revision == wanted:
        return _as_asked(r, source)
    revision = r.seen.revisions.get(wanted)
    if revision is None:
        return _create(r, wanted, pinned)
    served = served_from(revision)
    if served is None or wanted in r.seen.running:
        return _not_measured(r, revision)
    r.conditions += [c for c in _copied(revision) if c[0] in (DATA_VALID, TRAINED)]
    return _judge(r, revision, served)


def _note_source(r: Round, source: SourceSeen, wanted: str) -> None:
    before = r.status.source
    message = f"{source.label}: {source.subject}"
    reason = "Succeeded"
    if before is not None and before.commit != source.commit and before.wanted == wanted:
        reason = "NoRelevantChange"
    elif before is not None and before.commit == source.commit:
        old = find(r.status.conditions, SOURCE_READY)
        reason = old.reason if old is not None and old.status == "True" else reason
    if reason == "NoRelevantChange":
        message = f"no relevant change: {_named(source)} ({source.subject}) touches nothing that makes {wanted}"
    r.conditions.append((SOURCE_READY, "True", reason, message))
    r.set(
        source=SourceStatus(
            revision=source.label,
            commit=source.commit,
            author=source.author,
            subject=source.subject,
            wanted=wanted,
        )
    )


def _as_asked(r: Round, source: SourceSeen) -> ModelPlan:
    """The champion is what Git asks for: end any rollout, send it all requests, say Ready when it answers."""
    champion = r.champion
    assert champion is not None
    challenger = r.status.challenger
    why = Cause("Champion", f"{champion.revision} is what {_named(source)} asks for")
    if challenger is not None:
        why = Cause("Superseded", f"{_named(source)} asks for {champion.revision}, which is the champion")
        rollout.abort(r, challenger.revision, why)
    else:
        traffic.settle(r, None, 0, why)
    r.conditions.append(_gates_condition(r, champion))
    servers = r.seen.deployments.get(champion.deployment)
    routed = (r.seen.route or {}).get(champion.deployment, 0) == 100
    if servers is None or servers.ready == 0 or not routed:
        r.look_in(1.0)
        why_not = f": {servers.message}" if servers is not None and servers.message else ""
        message = f"{champion.revision} is being put in place{traffic.handed_over(r, champion)}{why_not}"
        return r.finish("False", "Progressing", message, stage="Starting")
    version = f" version {champion.version}" if champion.version else ""
    served = f"{champion.revision}{version} of commit {champion.commit[:7]}"
    message = f"{served} serves all requests, as {_named(source)} asks"
    return r.finish("True", "Succeeded", message, stage="Serving")


def _create(r: Round, wanted: str, pinned: ModelRevisionSpec) -> ModelPlan:
    """Ask for the revision, unless another one is training: one at a time, the newest commit waits."""
    _continue_rollout(r)
    busy = sorted(n for n in r.seen.running if n in r.seen.revisions)
    if busy:
        r.look_in(5.0)
        message = f"{wanted} waits until the training of {busy[0]} has ended"
        return r.finish("False", "WaitingForTraining", message, stage="Waiting")
    why = Cause("NewInputs", f"{pinned.trigger.message} makes {wanted}")
    built = manifests.revision_object(r.model, r.seen.manifest, wanted, pinning.as_manifest(pinned))
    r.actions.append(CreateRevision(manifest=built, why=why))
    _note_training(r, wanted)
    r.look_in(1.0)
    return r.finish("False", "Training", why.message, stage="Training")


def _not_measured(r: Round, revision: ModelRevision) -> ModelPlan:
    """The wanted revision is being trained, or could not be."""
    _continue_rollout(r)
    name = revision.metadata.name
    stalled = find(revision.status.conditions, STALLED)
    r.conditions += [c for c in _copied(revision) if c[0] in (DATA_VALID, TRAINED)]
    if stalled is not None:
        kept = f" {r.champion.revision} keeps serving." if r.champion else ""
        if r.status.challenger is not None and r.status.challenger.revision == name:
            r.set(challenger=None)
        message = f"{name}: {stalled.message.rstrip('.')}.{kept}"
        return r.finish("False", stalled.reason, message, stage="Stalled", stalled=True)
    ready = find(revision.status.conditions, "Ready")
    message = f"{name}: {ready.message}" if ready is not None else f"{name} was just asked for"
    _note_training(r, name)
    r.look_in(5.0)
    return r.finish("False", ready.reason if ready else "Training", message, stage="Training")


def _note_training(r: Round, revision: str) -> None:
    """Show the revision that is made as the challenger, unless another one is rolled out meanwhile."""
    current = r.status.challenger
    if current is None or current.stage not in ("Starting", "Canary"):
        r.set(challenger=ChallengerStatus(revision=revision, stage="Training"))


def _judge(r: Round, revision: ModelRevision, served: Served) -> ModelPlan:
    """Judge the wanted revision, or take the ledger's word for it, and act by the outcome."""
    name, ledger = revision.metadata.name, r.ledger
    if ledger is None:
        assert isinstance(r.seen.ledger, Unknown)
        _continue_rollout(r)
        r.look_in(5.0)
        return r.finish("False", r.seen.ledger.reason, r.seen.ledger.message, stage="Waiting")
    if reason := recall.rolled_back(r, name):
        traffic.settle(r, None, 0, Cause("RolledBack", reason))
        recall.catch_up(r, served, reason)
        return rollout.stay_back(r, name, reason)
    judgement = judge_revision(r, revision)
    r.verdicts = judgement.verdicts
    r.set(judgement=judgement)
    passed, total = passed_of(judgement.verdicts)
    score = f"{passed} of {total} gates"
    if judgement.outcome != "Passed":
        return _refuse(r, revision, served, judgement)
    r.conditions.append((GATES_PASSED, "True", "Passed", f"{name} passed {score}"))
    current = r.status.challenger
    if current is not None and current.revision != name and current.stage in ("Starting", "Canary"):
        rollout.abort(r, current.revision, Cause("Superseded", f"{name} was admitted"))
    if not judgement.admitted:
        why = Cause("GatesPassed", f"{name} passed {score}")
        _record(r, revision, served, judgement, "Admitted", why)
        r.look_in(0.0)
        return r.finish("False", "Admitting", why.message, stage="Judging")
    return rollout.roll_out(r, served, score)


def judge_revision(r: Round, revision: ModelRevision) -> Judgement:
    """Judge a measured revision by the gates of now.

    A revision that the ledger admitted stays admitted: champion gates are not judged again, absolute ones only
    if the gates have changed since (decision 4).
    """
    evidence, artifact = revision.status.evidence, revision.status.artifact
    assert evidence is not None
    name, hash_ = revision.metadata.name, pinning.gate_hash(r.model.spec)
    champion = r.champion.digest if r.champion else ""
    entry = r.ledger.admitted.get(name) if r.ledger else None
    if entry is not None and (artifact is None or entry.digest != artifact.digest):
        entry = None  # It was made anew and is another model: what was admitted are other bytes.
    verdicts: tuple[GateVerdict, ...]
    wanted = gates.effective_gates(r.model.spec.gates)
    if entry is not None and entry.gate_hash == hash_:
        verdicts = tuple(entry.gates)
    elif entry is not None:
        verdicts = gates.judge(gates.absolute_only(wanted), evidence, artifact, champion)
    else:
        verdicts = gates.judge(wanted, evidence, artifact, champion)
        verdicts += gates.judge_checks(evidence, pinning.checks_hash(r.model.spec))
    return Judgement(
        revision=name,
        outcome=worst(verdicts),
        gate_hash=hash_,
        evidence=evidence.report,
        champion=champion,
        admitted=entry is not None,
        verdicts=verdicts,
    )


def _refuse(r: Round, revision: ModelRevision, served: Served, judgement: Judgement) -> ModelPlan:
    name = revision.metadata.name
    bad = [v for v in deciding(judgement.verdicts) if v.outcome == judgement.outcome]
    numbers = "; ".join(f"gate {v.gate}: {v.message}" for v in bad)
    kept = f" {r.champion.revision} keeps serving." if r.champion else " Nothing serves."
    current = r.status.challenger
    if current is not None and current.revision == name and current.stage in ("Starting", "Canary"):
        rollout.abort(r, name, Cause("Refused", numbers))
    else:
        _continue_rollout(r)
    if any(v.reason == "EvidenceOutdated" for v in bad):
        if (given_up := find(revision.status.conditions, STALLED)) is not None:
            message = f"{name} cannot be judged: {given_up.message.rstrip('.')}.{kept}"
            return r.finish("False", given_up.reason, message, stage="Stalled", stalled=True)
        r.look_in(5.0)
        return r.finish("False", "EvidenceOutdated", f"{name}: {numbers}", stage="Judging")
    if r.status.challenger is not None and r.status.challenger.revision == name:
        r.set(challenger=None)
    reason = "GateFailed" if judgement.outcome == "Failed" else "GateInconclusive"
    r.conditions.append((GATES_PASSED, "False", reason, f"{name}: {numbers}"))
    message = f"{name} was refused: {numbers}.{kept}"
    if judgement.outcome == "Failed":
        r.set(previous=PreviousRevision(revision=name, verdict="Rejected", reason=numbers[:1000]))
        assert r.ledger is not None
        known = r.ledger.rejected.get(name)
        if known is None or known.gate_hash != judgement.gate_hash or known.champion_digest != judgement.champion:
            _record(r, revision, served, judgement, "Rejected", Cause(reason, numbers))
            r.look_in(0.0)
    return r.finish("False", reason, message, stage="Stalled", stalled=True)


def _record(
    r: Round, revision: ModelRevision, served: Served, judgement: Judgement, kind: str, why: Cause
) -> None:
    evidence = revision.status.evidence
    assert evidence is not None
    numbers = {m.name: m.value for m in evidence.metrics if m.value is not None}
    entry = r.entry(
        kind,
        served,
        champion=r.champion.revision if r.champion else "",
        champion_digest=judgement.champion,
        gate_hash=judgement.gate_hash,
        gates=judgement.verdicts,
        evidence=numbers,
        report=evidence.report,
        reason=str(why)[:500],
    )
    statement = lineage_statement(revision, entry=entry, model=r.model)
    r.actions.append(RecordVerdict(entry=entry, statement=statement, why=why))


def _continue_rollout(r: Round) -> None:
    """While the wanted revision is not ready for traffic, go on with the rollout of an older one."""
    current = r.status.challenger
    if current is None or current.stage not in ("Starting", "Canary"):
        traffic.settle(r, None, 0, Cause("Champion", "all requests go to the champion"))
        return
    served = r.served(current.revision)
    admitted = r.ledger.admitted.get(current.revision) if r.ledger else None
    same = served is not None and admitted is not None and admitted.digest == served.digest
    if served is None or (r.ledger is not None and not same):
        rollout.abort(r, current.revision, Cause("Superseded", "it is not admitted any more"))
        return
    if reason := recall.rolled_back(r, current.revision):
        rollout.abort(r, current.revision, Cause("RolledBack", reason), verdict="RolledBack")
        return
    rollout.roll_out(r, served, "its gates before")


def _copied(revision: ModelRevision) -> list[Wanted]:
    return [(c.type, c.status, c.reason, c.message) for c in revision.status.conditions]


def _gates_condition(r: Round, champion: Served) -> Wanted:
    entry = r.ledger.admitted.get(champion.revision) if r.ledger else None
    if entry is None:
        return (GATES_PASSED, "Unknown", "LedgerUnknown", "the ledger cannot be read just now")
    passed, total = passed_of(entry.gates)
    return (
        GATES_PASSED,
        "True",
        "Passed",
        f"{champion.revision} passed {passed} of {total} gates at {entry.at}",
    )


def _champion_status(r: Round) -> ServedRevision | None:
    champion = r.champion
    if champion is None:
        return None
    cached, weight = r.status.champion, (r.seen.route or {}).get(champion.deployment, 0)
    if r.ledger is None and cached is not None and cached.revision == champion.revision:
        return cached.model_copy(update={"weight": weight})
    entry = r.ledger.admitted.get(champion.revision) if r.ledger is not None else None
    found = r.seen.revisions.get(champion.revision)
    passed = "{}/{}".format(*passed_of(entry.gates)) if entry else ""
    return ServedRevision(
        revision=champion.revision,
        version=champion.version,
        digest=champion.digest,
        commit=champion.commit,
        data=tuple(DataStatus(name=d.name, digest=d.digest) for d in found.spec.data) if found else (),
        trigger=found.spec.trigger.message if found else "",
        gates=passed,
        weight=weight,
        since=champion.since,
        evidence=f"mlflow:/{champion.run}/mainspring/report.json",
        runtime=champion.runtime,
        form=_form(r, found),
    )


def _form(r: Round, champion: ModelRevision | None) -> str:
    evidence = champion.status.evidence if champion is not None else None
    if evidence is None or evidence.form is None or r.model.spec.serving.accelerate == "Off":
        return ""
    return evidence.form.name


def _ledger_status(r: Round) -> LedgerStatus | None:
    if r.ledger is None:
        return r.status.ledger
    # Never fewer than before, or the report that entries are gone would be gone with the next look.
    before = r.status.ledger.entries if r.status.ledger else 0
    return LedgerStatus(entries=max(before, len(r.ledger.entries)), ignored=r.ledger.ignored)


def _named(source: SourceSeen) -> str:
    """Name a commit for people: the label with seven digits instead of forty."""
    return source.label.replace(source.commit, source.commit[:7])


def _last_status(seen: ModelSeen) -> ModelSpecStatus:
    return ModelSpecStatus.model_validate(seen.manifest.get("status") or {})
