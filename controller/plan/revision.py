"""Decides for one ModelRevision: is it trained and measured, so that it may be judged?

Starts the Job of the next attempt, takes in its report, registers the version.  Whether the revision may serve is
decided in `plan/model.py`, by the gates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Final

from controller.api.base import human_seconds
from controller.api.conditions import (
    DATA_VALID,
    READY,
    RECONCILING,
    REGISTERED,
    STALLED,
    TRAINED,
    Wanted,
    parse_timestamp,
)
from controller.api.kinds import ModelSpec
from controller.api.meta import Key
from controller.api.modelrevision import ModelRevisionStatus
from controller.api.reports import Report
from controller.plan import tasks
from controller.plan.actions import Action, CloseRun, ExpireJob, Plan, RegisterVersion, StartTraining
from controller.plan.asked import asked_at
from controller.plan.attempts import (
    DATA_REASONS,
    ENDED_BADLY,
    KEEP_REFUSED_S,
    LOGIN_REFUSED,
    doing,
    failure,
    failures,
    held_to,
    in_a_row,
    progress,
    recalled,
    remembering,
    with_attempt,
)
from controller.plan.gates import hints
from controller.plan.manifests import training_job
from controller.plan.observed import JobSeen, RevisionSeen
from controller.plan.pinning import checks_hash, measures
from controller.plan.verdict import Cause, Refused, Unknown

RETRY_FIRST_S: Final = 5.0
"""Wait before the second attempt; doubles with each, at most RETRY_MOST_S."""
RETRY_MOST_S: Final = 600.0

RevisionPlan = Plan[ModelRevisionStatus]


def plan_revision(seen: RevisionSeen, now: datetime) -> RevisionPlan:
    """Decide the next step for one revision. No I/O; same input, same plan."""
    before = seen.revision.status
    if seen.job is not None and is_measured(before) and seen.job.attempt + 1 < _next_attempt(before):
        # The Job of a later attempt is gone, its result is here: what is left of earlier ones says nothing.
        seen = replace(seen, job=None)
    job = seen.job
    if job is None:
        if is_measured(before):
            return _measured(seen, before)
        if seen.kept is not None:
            return _restore(seen, seen.kept, before)
        job = recalled(before.attempts)
    if job is None:
        why = Cause("NewRevision", f"{seen.revision.spec.trigger.message} has no trained model")
        return _start(seen, before, 1, why)
    job = remembering(before.attempts, job)
    if isinstance(seen.report, Report) and is_measured(before):
        job = held_to(seen.report.evidence, job)
    status = before
    if job.recalled is None:
        status = before.model_copy(update={"attempts": with_attempt(before.attempts, job)})
    match job.outcome:
        case "Running":
            return _waiting(status, doing(job), progress(job, now), next_s=1.0)
        case "Succeeded":
            said = _said(job)
            taken = status.evidence is not None and status.evidence.report == said
            return _measured(seen, status) if taken and said else _take_report(seen, status)
        case _:
            renewing = job.evaluate_only and is_measured(status) and status.version
            if renewing and _outdated(seen, status) is None:
                # It failed, and by now nothing needs it.
                return _closing_run(seen, before, job, _measured(seen, status))
            return _closing_run(seen, before, job, _let_go(seen, job, _after_failure(seen, status, job, now)))


def _restore(seen: RevisionSeen, kept: Report | Unknown | Refused, status: ModelRevisionStatus) -> RevisionPlan:
    """Take over what the ledger and the run kept of an earlier training, instead of training again."""
    if isinstance(kept, Unknown):
        return _waiting(status, kept.reason, kept.message, next_s=5.0)
    if isinstance(kept, Refused):
        message = f"the ledger knows a trained model, but its report is not usable: {kept.message}"
        return _start(seen, status, 1, Cause("ReportLost", message))
    known = seen.known
    assert known is not None
    evidence = kept.evidence.model_copy(update={"report": known.report})
    restored = status.model_copy(
        update={"artifact": kept.artifact, "evidence": evidence, "run": known.run, "version": known.version}
    )
    return _measured(seen, restored)


def is_measured(status: ModelRevisionStatus) -> bool:
    """Tell whether there is a trained model with its evidence."""
    return status.evidence is not None and status.artifact is not None


def _said(job: JobSeen) -> str:
    """Return the digest of the report that the Job's last step named; empty when it named none."""
    return next((s.termination.sha256 for s in job.steps if s.termination and s.name == "evaluate"), "")


def _closing_run(
    seen: RevisionSeen, before: ModelRevisionStatus, job: JobSeen, plan: RevisionPlan
) -> RevisionPlan:
    """Close the MLflow run of an attempt that failed, once: until its end is in the status.

    Nothing else is done before that: only the newest Job is looked at, so a crash after the start of the next
    attempt would leave this one without an end, and uncounted.
    """
    known = next((a for a in before.attempts if a.number == job.attempt), None)
    if known is not None and known.outcome in ENDED_BADLY:
        return plan
    name = registry_name(seen.model) if seen.model else seen.revision.spec.model
    close = CloseRun(
        experiment=name,
        environment=_environment(seen),
        revision=seen.revision.metadata.name,
        attempt=job.attempt,
        status="KILLED" if job.outcome == "Lost" else "FAILED",
        why=Cause("AttemptEnded", failure(job)[1]),
    )
    return replace(plan, actions=(close,), next_s=0.0 if plan.actions else plan.next_s)


def _start(
    seen: RevisionSeen, status: ModelRevisionStatus, attempt: int, why: Cause, *, evaluate_only: bool = False
) -> RevisionPlan:
    model = seen.model
    if model is None:
        return _waiting(
            status, "ModelSpecMissing", "the ModelSpec that asked for this revision is gone or invalid"
        )
    if model.spec.suspend:
        return _waiting(status, "Suspended", "spec.suspend of the ModelSpec is true: no training is started")
    wanted = model.status.source.wanted if model.status.source else ""
    if wanted != seen.revision.metadata.name:
        return _waiting(
            status, "Superseded", f"{wanted or 'another revision'} is asked for now; this one is not trained"
        )
    if seen.busy:
        message = f"{seen.busy} of the same model is still training; one trains at a time"
        return _waiting(status, "WaitingForTraining", message, next_s=5.0)
    job = training_job(
        seen.revision,
        seen.manifest,
        attempt=attempt,
        deadline_s=model.spec.training.active_deadline_seconds,
        tracking_uri=seen.tracking_uri,
        champion=_against(seen),
        checks=checks_hash(model.spec),
        measures=measures(model.spec).hash,
        evaluate_only=evaluate_only,
        wanted=model.spec.training,
        settings=seen.pods,
        runtime=seen.runtime,
        secrets=tasks.secrets(seen.revision, model),
    )
    action = StartTraining(
        revision=seen.revision,
        attempt=attempt,
        tasks=tasks.for_job(seen, model, evaluate_only=evaluate_only),
        manifest=job,
        experiment=registry_name(model),
        environment=environment_of(model),
        why=why,
    )
    reason = "Evaluating" if evaluate_only else "Training"
    conditions = _conditions(RECONCILING, reason, f"starting attempt {attempt}: {why.message}")
    return Plan(actions=(action,), status=status, conditions=conditions, next_s=1.0)


def _take_report(seen: RevisionSeen, status: ModelRevisionStatus) -> RevisionPlan:
    report = seen.report
    if report is None or isinstance(report, Unknown):
        message = report.message if report else "the Job is done; its report has not arrived yet"
        return _waiting(status, "ReportUnavailable", message, next_s=2.0)
    if isinstance(report, Refused):
        return _stalled(status, report.reason, report.message)
    sha = _said(seen.job) if seen.job else ""
    evidence = report.evidence.model_copy(update={"report": sha})
    images = {s.name: s.image_id for s in seen.job.steps if s.image_id} if seen.job else {}
    if seen.job is not None and seen.job.evaluate_only and "train" in status.images:
        images["train"] = status.images["train"]
    status = status.model_copy(
        update={"artifact": report.artifact, "evidence": evidence, "run": report.run, "images": images}
    )
    return _measured(seen, status)


def _reached(status: ModelRevisionStatus) -> list[Wanted]:
    """Say what a measured revision has behind it."""
    evidence, artifact = status.evidence, status.artifact
    assert evidence is not None
    assert artifact is not None
    count = len(evidence.checks)
    return [
        (DATA_VALID, "True", "ChecksPassed", f"{count} of {count} checks passed{hints(evidence)}"),
        (
            TRAINED,
            "True",
            "Succeeded",
            f"{artifact.format} model of {artifact.size_bytes:,} bytes, {artifact.digest[:19]}",
        ),
    ]


def _measured(seen: RevisionSeen, status: ModelRevisionStatus) -> RevisionPlan:
    evidence, artifact = status.evidence, status.artifact
    assert evidence is not None
    assert artifact is not None
    rows = f"{evidence.holdout_rows:,} hold-out rows, {evidence.training_rows:,} training rows"
    good = _reached(status)
    if status.version and (why := _outdated(seen, status)) is not None:
        return _start(seen, status, _next_attempt(status), why, evaluate_only=True)
    if status.version:
        good.append((REGISTERED, "True", "Succeeded", f"version {status.version}"))
        message = f"version {status.version}, measured on {rows}"
        expiring = tuple(_expiring(seen, seen.job))
        return Plan(actions=expiring, status=status, conditions=((READY, "True", "Succeeded", message), *good))
    spec = seen.revision.spec
    name = registry_name(seen.model) if seen.model else spec.model
    action = RegisterVersion(
        registry_name=name,
        environment=_environment(seen),
        revision=seen.revision.metadata.name,
        run=status.run,
        tags={
            "mainspring.commit": spec.source.commit,
            "mainspring.inputs": spec.inputs,
            "mainspring.digest": artifact.digest,
        },
        why=Cause("Trained", f"measured on {rows}"),
    )
    waiting: tuple[Wanted, ...] = (
        (READY, "False", "Registering", "measured; being registered"),
        (RECONCILING, "True", "Progressing", "measured; being registered"),
    )
    actions: tuple[Action, ...] = (action,)
    return Plan(actions=actions, status=status, conditions=(*waiting, *good), next_s=1.0)


def _expiring(seen: RevisionSeen, job: JobSeen | None) -> Iterator[ExpireJob]:
    """Let a Job go whose result is in the status: until then nobody may delete it."""
    if job is None or not seen.pods.hardened or job.expires or job.recalled or job.outcome == "Running":
        return
    key, after_s = Key("Job", seen.revision.metadata.namespace, job.name), seen.pods.keep_jobs_s
    if job.outcome == "Succeeded":
        why = Cause("ResultTakenIn", f"the result of attempt {job.attempt} is in the status and in the registry")
    else:
        why = Cause("EndNoted", f"how attempt {job.attempt} ended is in the status")
        after_s = min(after_s, KEEP_REFUSED_S) if failure(job)[0] == LOGIN_REFUSED else after_s
    yield ExpireJob(key=key, after_s=after_s, why=why)


def _let_go(seen: RevisionSeen, job: JobSeen, plan: RevisionPlan) -> RevisionPlan:
    """Let the Job of a bad end go once another follows, or nobody asks any more; else its log is still wanted."""
    source = seen.model.status.source if seen.model else None
    if not plan.actions and (source is None or source.wanted == seen.revision.metadata.name):
        return plan
    return replace(plan, actions=(*_expiring(seen, job), *plan.actions))


def _next_attempt(status: ModelRevisionStatus) -> int:
    return max((a.number for a in status.attempts), default=0) + 1


def _against(seen: RevisionSeen) -> str:
    """Digest of the champion to compare with; empty without one."""
    champion = seen.champion
    return champion.status.artifact.digest if champion and champion.status.artifact else ""


def _outdated(seen: RevisionSeen, status: ModelRevisionStatus) -> Cause | None:
    """Say why the evidence must be renewed before the wanted revision can be judged; None when it need not be.

    The judgement of the ModelSpec says that it cannot judge by this evidence; that the evidence is still the one
    it spoke of is looked at here, so that one judgement starts one Job.
    """
    model, evidence = seen.model, status.evidence
    assert evidence is not None
    judged = model.status.judgement if model else None
    if model is None or judged is None or judged.revision != seen.revision.metadata.name:
        return None
    if judged.evidence != evidence.report or not any(v.reason == "EvidenceOutdated" for v in judged.verdicts):
        return None
    if evidence.champion != _against(seen):
        name = seen.champion.metadata.name if seen.champion else "none"
        return Cause("ChampionChanged", f"the evidence does not compare with the champion of now, {name}")
    if evidence.checks_hash != checks_hash(model.spec):
        return Cause("ChecksChanged", "the data checks have changed since the evidence was made")
    if evidence.trainer is None or evidence.measures != measures(model.spec).hash:
        return Cause("MoreAsked", "the gates ask for what was not measured yet")
    return None


def _after_failure(seen: RevisionSeen, status: ModelRevisionStatus, job: JobSeen, now: datetime) -> RevisionPlan:
    reason, message, retryable = failure(job)
    data_bad = reason in DATA_REASONS
    if data_bad and seen.model is not None and job.checks != checks_hash(seen.model.spec):
        why = Cause("ChecksChanged", f"the data checks have changed since attempt {job.attempt}: {message}")
        return _start(seen, status, job.attempt + 1, why, evaluate_only=job.evaluate_only)
    if not retryable:
        condition = DATA_VALID if data_bad else TRAINED
        return _stalled(status, reason, message, (condition, "False", reason, message))
    limit = seen.model.spec.training.backoff_limit if seen.model else 0
    failed, refused = failures(status.attempts), reason == LOGIN_REFUSED
    requested = _requested_after(seen, job) or _asked_anew(seen, job)
    if failed > limit and not requested and not refused:
        count = f"{failed} of {limit + 1} attempts failed"
        if job.unlike:
            fix = "Bring the operator and its jobs_image to one release, then `mainspring reconcile` to try again"
            return _stalled(status, "EvaluationFailed", f"{message} ({count}). {fix}", *_reached(status))
        text = f"{message} ({count}). Push a fix, or `mainspring reconcile` to try again"
        return _stalled(status, "TrainingFailed", text, (TRAINED, "False", reason, message))
    # A machine that is lost once costs no wait; a program that kills its supervisor is lost every time.
    again = in_a_row(status.attempts, "Lost") - 1 if job.outcome == "Lost" else failed
    again = in_a_row(status.attempts, "Refused") if refused else again
    pause = 0.0 if requested or again < 1 else min(RETRY_FIRST_S * 2 ** (again - 1), RETRY_MOST_S)
    ended = parse_timestamp(job.finished_at) if job.finished_at else now
    left = pause - (now - ended).total_seconds()
    if left > 0:
        text = f"{message}; next attempt in {human_seconds(left)}"
        if refused:
            text = f"{text}, or at once by `mainspring reconcile`; this one does not count"
        return _waiting(status, LOGIN_REFUSED if refused else "RetryBackoff", text, next_s=left)
    why = Cause("Retry", f"attempt {job.attempt} ended: {message}")
    return _start(seen, status, job.attempt + 1, why, evaluate_only=job.evaluate_only)


def _asked_anew(seen: RevisionSeen, job: JobSeen) -> bool:
    """Tell whether something else is to be measured by now than an evaluation that failed was asked for."""
    if not job.evaluate_only or seen.model is None:
        return False
    now = (_against(seen), checks_hash(seen.model.spec), measures(seen.model.spec).hash)
    asked = (job.against, job.checks, job.measures)
    return any(then not in (None, this) for then, this in zip(asked, now, strict=True))


def _requested_after(seen: RevisionSeen, job: JobSeen) -> bool:
    if seen.model is None or not job.finished_at:
        return False
    asked = asked_at(seen.model.metadata.annotations)
    return asked is not None and asked > parse_timestamp(job.finished_at)


def environment_of(model: ModelSpec) -> str:
    """Name of the environment, by default the namespace: it shares no decision, run or version with others."""
    return model.spec.environment or model.metadata.namespace


def _environment(seen: RevisionSeen) -> str:
    return environment_of(seen.model) if seen.model else seen.revision.metadata.namespace


def registry_name(model: ModelSpec) -> str:
    """Name of the registered model."""
    wanted = model.spec.registry.name if model.spec.registry else None
    return wanted or model.metadata.name


def _waiting(status: ModelRevisionStatus, reason: str, message: str, next_s: float | None = None) -> RevisionPlan:
    return Plan(status=status, conditions=_conditions(RECONCILING, reason, message), next_s=next_s)


def _stalled(status: ModelRevisionStatus, reason: str, message: str, *more: Wanted) -> RevisionPlan:
    return Plan(status=status, conditions=(*_conditions(STALLED, reason, message), *more))


def _conditions(kind: str, reason: str, message: str) -> tuple[Wanted, ...]:
    return ((READY, "False", reason, message), (kind, "True", reason, message))
