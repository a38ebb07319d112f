"""Reads a training Job and its pod: which step it is at, how it ended, what its containers said."""

from __future__ import annotations

import json
import re

from pydantic import ValidationError

from controller.api.hashes import sha256
from controller.api.kinds import ModelRevision, ModelSpec, parse
from controller.api.meta import LABEL_JOB_NAME, LABEL_MODEL, LABEL_REVISION, Key, Manifest
from controller.api.reports import REPORT_MAX_BYTES, Report, Termination
from controller.clients.errors import ClientError, NotFound
from controller.clients.redact import redact
from controller.plan.manifests import ANNOTATION_AGAINST, ANNOTATION_CHECKS, ANNOTATION_MEASURES, LABEL_QUEUE
from controller.plan.observed import JobSeen, RevisionSeen, StepSeen
from controller.plan.verdict import Refused, Unknown
from controller.reconcile import survival
from controller.reconcile.world import World

LOST_REASONS = frozenset({"NodeLost", "Lost", "Evicted", "NodeShutdown"})
TEXT_MOST = 300
_COLOURS = re.compile(r"\x1b\[[0-9;?]{0,20}[A-Za-z]")


async def revision(world: World, key: Key) -> RevisionSeen | None:
    """Read everything about one ModelRevision; None when it is gone."""
    manifest = await world.kube.get(key)
    parsed = parse(manifest) if manifest is not None else None
    if manifest is None or not isinstance(parsed, ModelRevision):
        return None
    owner = await world.kube.get(Key("ModelSpec", key.namespace, parsed.spec.model))
    model = parse(owner) if owner is not None else None
    typed = model if isinstance(model, ModelSpec) else None
    job = await _newest_job(world, key)
    entry, kept = await survival.known(world, typed, parsed) if job is None else (None, None)
    return RevisionSeen(
        manifest=manifest,
        revision=parsed,
        model=typed,
        champion=await _champion(world, typed, key),
        job=job,
        report=await _report(world, parsed, job),
        busy=await _busy(world, parsed),
        known=entry,
        kept=kept,
        runtime=world.settings.runtime,
        tracking_uri=world.settings.tracking_uri,
        pods=world.settings.pods,
    )


async def _champion(world: World, model: ModelSpec | None, key: Key) -> ModelRevision | None:
    serving = model.status.champion if model else None
    if serving is None or serving.revision == key.name:
        return None
    found = await world.kube.get(Key("ModelRevision", key.namespace, serving.revision))
    parsed = parse(found) if found is not None else None
    return parsed if isinstance(parsed, ModelRevision) else None


async def _busy(world: World, revision: ModelRevision) -> str:
    """Name another revision of the model whose Job has not ended."""
    meta = revision.metadata
    jobs = await world.kube.list("Job", namespace=meta.namespace, labels={LABEL_MODEL: revision.spec.model})
    names = (j["metadata"]["labels"].get(LABEL_REVISION, "") for j in jobs if not has_ended(j))
    return min((n for n in names if n != meta.name), default="")


async def _newest_job(world: World, key: Key) -> JobSeen | None:
    jobs = await world.kube.list("Job", namespace=key.namespace, labels={LABEL_REVISION: key.name})
    if not jobs:
        return None
    job = max(jobs, key=attempt_of)
    name = job["metadata"]["name"]
    pods = await world.kube.list("Pod", namespace=key.namespace, labels={LABEL_JOB_NAME: name})
    return job_seen(job, min(pods, key=_created) if pods else None)


def _created(pod: Manifest) -> tuple[str, str]:
    """Order pods by age: Kubernetes may run a second one for a Job, and the first counts."""
    return pod["metadata"].get("creationTimestamp", ""), pod["metadata"]["name"]


def attempt_of(job: Manifest) -> int:
    """Read the attempt's number from a Job's name, `<revision>-train-<attempt>` or `…-evaluate-<attempt>`."""
    return int(job["metadata"]["name"].rpartition("-")[2])


def has_ended(job: Manifest) -> bool:
    """Tell whether a Job is Complete or Failed."""
    return _ended(job) is not None


def _ended(job: Manifest) -> Manifest | None:
    conditions = (job.get("status") or {}).get("conditions", ())
    return next((c for c in conditions if c["type"] in ("Complete", "Failed") and c["status"] == "True"), None)


def job_seen(job: Manifest, pod: Manifest | None) -> JobSeen:
    """Read a Job and its pod as the decisions take them."""
    ended, status = _ended(job), job.get("status") or {}
    outcome = "Running"
    if ended is not None:
        lost = ended.get("reason") in LOST_REASONS or _was_taken_away(ended, pod)
        outcome = "Succeeded" if ended["type"] == "Complete" else "Lost" if lost else "Failed"
    pod_status = (pod or {}).get("status") or {}
    states = [*pod_status.get("initContainerStatuses", ()), *pod_status.get("containerStatuses", ())]
    noted = job["metadata"].get("annotations") or {}
    return JobSeen(
        name=job["metadata"]["name"],
        attempt=attempt_of(job),
        evaluate_only="-evaluate-" in job["metadata"]["name"],
        checks=noted.get(ANNOTATION_CHECKS, ""),
        against=noted.get(ANNOTATION_AGAINST),
        measures=noted.get(ANNOTATION_MEASURES),
        outcome=outcome,
        started_at=status.get("startTime", ""),
        finished_at=(status.get("completionTime") or (ended or {}).get("lastTransitionTime") or "")
        if ended
        else "",
        deadline_s=job["spec"].get("activeDeadlineSeconds", 0)
        if (ended or {}).get("reason") == "DeadlineExceeded"
        else 0,
        message=redact(str((ended or {}).get("message", "")))[:TEXT_MOST],
        waits=redact(_waits(job, pod))[:TEXT_MOST],
        suspended=bool(job.get("spec", {}).get("suspend")),
        evicted=redact(_said_of_disk(pod_status))[:TEXT_MOST],
        expires="ttlSecondsAfterFinished" in job.get("spec", {}),
        steps=tuple(_step(s) for s in states),
    )


def _was_taken_away(ended: Manifest, pod: Manifest | None) -> bool:
    """Tell whether Kubernetes itself ended the pod: an eviction, a drained or lost node, a preemption."""
    if ended.get("reason") == "PodFailurePolicy" and "DisruptionTarget" in str(ended.get("message", "")):
        return True
    status = (pod or {}).get("status") or {}
    return (status.get("reason") in LOST_REASONS and not _said_of_disk(status)) or _is_disrupted(status)


def _is_disrupted(pod_status: Manifest) -> bool:
    conditions = pod_status.get("conditions", ())
    return any(c["type"] == "DisruptionTarget" and c["status"] == "True" for c in conditions)


def _said_of_disk(pod_status: Manifest) -> str:
    """Return what a node said that evicted a pod for the pod's own writing: then it names no disruption.

    It would happen again on any other node, so it must cost an attempt.
    """
    if pod_status.get("reason") != "Evicted" or _is_disrupted(pod_status):
        return ""
    return str(pod_status.get("message", "")).strip() or "the pod was evicted"


def _waits(job: Manifest, pod: Manifest | None) -> str:
    """Say why the pod of a Job does not start, in the words of Kubernetes; empty when it does."""
    if job.get("spec", {}).get("suspend"):
        queue = (job["metadata"].get("labels") or {}).get(LABEL_QUEUE, "")
        return f"it waits in queue {queue}" if queue else "the Job is suspended"
    status = job.get("status") or {}
    made = any(status.get(count) for count in ("active", "succeeded", "failed", "terminating", "conditions"))
    if pod is None and status.get("startTime") and not made:
        return f"no pod could be made of it; `kubectl describe job {job['metadata']['name']}` says why"
    return pod_waits((pod or {}).get("status") or {})


def pod_waits(status: Manifest) -> str:
    """Say why a pod does not start, in the words of Kubernetes, from its status; empty when it does."""
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason', 'Unschedulable')}: {condition.get('message', '')}"
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        state = container.get("state") or {}
        waiting = state.get("waiting") or {}
        reason = str(waiting.get("reason", ""))
        last = ((container.get("lastState") or {}).get("terminated") or {}).get("message", "").strip()
        said = f"; it last said: {last}" if last else ""
        if reason and reason not in ("PodInitializing", "ContainerCreating"):
            return f"{container['name']}: {reason}: {waiting.get('message', '')}{said}"
        # Started again, and not yet as far as to fail again: what it failed of last is still the news.
        if said and "running" in state and not container.get("ready"):
            return f"{container['name']}: started {container.get('restartCount', 0) + 1} times{said}"
    return ""


def _step(status: Manifest) -> StepSeen:
    state = status.get("state") or {}
    name = status["name"]
    if "terminated" in state:
        ended = state["terminated"]
        said = str(ended.get("message", ""))
        return StepSeen(
            name=name,
            state="Terminated",
            exit_code=int(ended["exitCode"]),
            started_at=ended.get("startedAt", ""),
            termination=None if name == "train" else parse_termination(said),
            text=redact(_last_line(said) if name == "train" else said)[:TEXT_MOST],
            reason=str(ended.get("reason", "")),
            image_id=str(status.get("imageID", ""))[:512],
        )
    if "running" in state:
        return StepSeen(name=name, state="Running", started_at=state["running"].get("startedAt", ""))
    return StepSeen(name=name, state="Waiting")


def _last_line(text: str) -> str:
    """Keep the last line of a log, where a traceback has its error, without what no terminal should see."""
    lines = [line.strip() for line in _COLOURS.sub("", text).splitlines() if line.strip()]
    return "".join(c if c.isprintable() else " " for c in lines[-1]) if lines else ""


def parse_termination(text: str) -> Termination | None:
    """Read what one of our containers said last; None when it is not in the format."""
    try:
        return Termination.model_validate_json(text[:4096])
    except ValidationError:
        return None


async def _report(world: World, parsed: ModelRevision, job: JobSeen | None) -> Report | Unknown | Refused | None:
    """Fetch the full report of a Job that succeeded, unless it was taken in already."""
    if job is None or job.outcome != "Succeeded":
        return None
    said = next((s.termination for s in job.steps if s.name == "evaluate"), None)
    if said is None or not said.run or not said.sha256:
        return Refused(
            "ReportInvalid", f"Job {job.name} succeeded but its last step did not say where the report is"
        )
    evidence = parsed.status.evidence
    if evidence is not None and evidence.report == said.sha256:
        return None
    try:
        data = await world.registry.read_artifact(said.run, "mainspring/report.json", REPORT_MAX_BYTES)
    except NotFound as error:
        return Refused("ReportInvalid", f"the report of Job {job.name} is not in run {said.run}: {error.message}")
    except ClientError as error:
        return Unknown(error.reason, error.message)
    return read_report(data, said, parsed.metadata.name)


def read_report(data: bytes, said: Termination, revision: str) -> Report | Refused:
    """Parse a report: hostile text until its digest, its form and whom it speaks of are what they must be."""
    found = sha256(data)
    if found != said.sha256:
        return Refused("ReportInvalid", f"the report has digest {found[:19]}, the Job said {said.sha256[:19]}")
    try:
        report = Report.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(p) for p in first["loc"])
        return Refused("ReportInvalid", f"the report cannot be read: {where}: {first['msg']}")
    except json.JSONDecodeError:
        return Refused("ReportInvalid", "the report is not JSON")
    if report.revision != revision or report.run != said.run:
        return Refused("ReportInvalid", f"the report speaks of {report.revision[:60]}, not of {revision}")
    return report
