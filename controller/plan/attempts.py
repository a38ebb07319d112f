"""What became of one attempt at a training: how far it is, why it waits, why it failed, whether to try again.

Pure: a Job as it was seen in, words and a choice out.  It must never believe what a training program says about
anything but itself, nor take an evaluation for done that measured something else than it was asked for.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final

from controller.api.conditions import timestamp
from controller.api.modelrevision import Attempt, Evidence
from controller.plan.observed import JobSeen, StepSeen

NEWEST_KEPT: Final = 9
"""So many lost ones in a row are waited for as long as any more would be."""
ATTEMPTS_KEPT: Final = 11 + NEWEST_KEPT
"""Among them one failure more than training.backoffLimit can allow, so that the limit is reached."""
NOT_STARTED: Final = "PodNotStarted"
"""Reason of an attempt whose pod does not start, or never did."""
DATA_REASONS: Final = frozenset(
    {"DataInvalid", "DataEmpty", "DataCorrupt", "DuplicateIds", "SchemaMismatch", "DataChanged", "LFSPointer"}
)
OUTPUT_TOO_LARGE_CODE: Final = 153
"""SIGXFSZ and 128: the program wrote more than it may; another attempt would write as much."""
LOGIN_REFUSED: Final = "LoginRefused"
_OF_LOGINS: Final = frozenset({"AuthenticationFailed", "DataNotReadable", "RegistryDenied"})
"""Reasons of `fetch` that speak of a login; a person corrects the Secret, and no commit."""
ENDED_BADLY: Final = ("Failed", "Lost", "Refused")
KEEP_REFUSED_S: Final = 3_600
"""How long the Job of an attempt whose login was refused is kept, seconds: there may be many of them."""
EXIT_CODES: Final = {
    126: "it may not be executed",
    127: "there is no such program",
    134: "it aborted",
    137: "it was killed, often for lack of memory",
    139: "segmentation fault",
    143: "it was told to stop",
}
"""What shells and the kernel mean by an exit code: 128 and the number of a signal, and two more."""


def remembering(attempts: tuple[Attempt, ...], job: JobSeen) -> JobSeen:
    """Add why the pod of a Job did not start, as it was seen before the pod was deleted with its deadline."""
    known = next((a for a in attempts if a.number == job.attempt), None)
    if job.outcome == "Failed" and not job.steps and not job.waits and known and known.reason == NOT_STARTED:
        return replace(job, waits=known.message)
    return job


def doing(job: JobSeen) -> str:
    """Name what an attempt that has not ended is at, as the reason of a condition."""
    if job.waits:
        return "Queued" if job.suspended else NOT_STARTED
    return "Evaluating" if job.evaluate_only else "Training"


def failure(job: JobSeen) -> tuple[str, str, bool]:
    """Say why a Job failed: reason, message, and whether trying again may help.

    Only our own containers' words are believed; exit code 3 of theirs means that the input is wrong.
    """
    if job.recalled is not None:
        return *job.recalled, True
    if job.unlike:
        return "NotAsAsked", job.unlike, True
    if job.outcome == "Lost":
        detail = f": {job.message}" if job.message else ""
        return "Lost", f"attempt {job.attempt} was lost with its process or machine{detail}", True
    bad = next((s for s in job.steps if s.exit_code not in (None, 0)), None)
    if job.evicted:
        more = "Write less, or have the operator's limit for volumes raised"
        return "DiskLimitExceeded", f"attempt {job.attempt} was ended by its node: {job.evicted} {more}", True
    if bad is None and job.waits:
        within = f" within training.activeDeadlineSeconds, {job.deadline_s} s" if job.deadline_s else ""
        return NOT_STARTED, f"attempt {job.attempt} never started{within}: {job.waits}", True
    if job.deadline_s:
        where = f"; it was ended in step {bad.name}" if bad is not None else ""
        message = (
            f"attempt {job.attempt} took longer than training.activeDeadlineSeconds, {job.deadline_s} s{where}"
        )
        return "DeadlineExceeded", message, True
    if bad is not None and bad.reason == "OOMKilled":
        what = "the training program" if bad.name == "train" else f"step {bad.name}"
        more = "training.resources.limits.memory" if bad.name == "train" else "the operator's memory for steps"
        return "OutOfMemory", f"{what} took more memory than it may and was killed; raise {more}", True
    if bad is None and not job.steps:
        said = f" (the Job says: {job.message})" if job.message else ""
        return "PodGone", f"the pod of attempt {job.attempt} is gone, and with it the reason{said}", True
    if bad is None:
        return "JobFailed", job.message or f"attempt {job.attempt} failed", True
    if bad.name == "train":
        last = f": {bad.text}" if bad.text else ""
        meaning = EXIT_CODES.get(bad.exit_code or 0, "")
        code = f"{bad.exit_code} ({meaning})" if meaning else str(bad.exit_code)
        if bad.exit_code == OUTPUT_TOO_LARGE_CODE:
            return "OutputTooLarge", f"the training program wrote too much{last}", False
        return "TrainingFailed", f"the training program ended with exit code {code}{last}{_meant(bad.text)}", True
    return _own_failure(bad)


def held_to(evidence: Evidence, job: JobSeen) -> JobSeen:
    """Count an evaluation as failed that measured something else than it was asked for.

    It would be asked for again at once, and without end: an evaluator of another release, or one that lies, must
    cost no more attempts than a program that fails. A training's report is taken in all the same: it has a model.
    """
    if job.outcome != "Succeeded" or not job.evaluate_only:
        return job
    for what, asked, told in (
        ("the champion to compare with", job.against, evidence.champion),
        ("the data checks", job.checks, evidence.checks_hash),
        ("what the gates ask for", job.measures, evidence.measures),
    ):
        if asked is not None and asked != told:
            text = f"evaluation {job.attempt} was given {what} as {_short(asked)}, its report is by {_short(told)}"
            return replace(job, outcome="Failed", unlike=text)
    return job


def _short(digest: str) -> str:
    return digest[:19] or "none"


def failures(attempts: tuple[Attempt, ...]) -> int:
    """Count the attempts that failed since the last one that succeeded; lost ones cost nothing."""
    since = next((n for n, a in enumerate(reversed(attempts)) if a.outcome == "Succeeded"), len(attempts))
    return sum(1 for a in attempts[len(attempts) - since :] if a.outcome == "Failed")


def _meant(text: str) -> str:
    """Explain an error that the isolation of the pod causes, which no program can know of."""
    if "Read-only file system" in text:
        return "; a pod can write to its work directory, MAINSPRING_OUTPUT and /tmp, and nowhere else"
    return ""


def _own_failure(step: StepSeen) -> tuple[str, str, bool]:
    said = step.termination
    if said is not None and said.reason:
        retryable = step.exit_code != 3
        refused = said.reason in _OF_LOGINS and (retryable or said.reason == "RegistryDenied")
        if step.name == "fetch" and refused:
            return LOGIN_REFUSED, said.message or said.reason, True
        return said.reason, said.message or said.reason, retryable
    return "StepFailed", f"step {step.name} ended with exit code {step.exit_code} {step.text}".strip(), True


def in_a_row(attempts: tuple[Attempt, ...], outcome: str) -> int:
    """Count the newest attempts that ended so, up to the first that ended otherwise."""
    return next((n for n, a in enumerate(reversed(attempts)) if a.outcome != outcome), len(attempts))


def recalled(attempts: tuple[Attempt, ...]) -> JobSeen | None:
    """Say how the newest attempt ended whose Job is gone; None: it did not end badly, or there was none."""
    if not attempts or attempts[-1].outcome not in ENDED_BADLY:
        return None
    last = attempts[-1]
    return JobSeen(
        name="",
        attempt=last.number,
        outcome="Lost" if last.outcome == "Lost" else "Failed",
        finished_at=last.finished_at,
        recalled=(last.reason or "JobFailed", last.message),
    )


def with_attempt(attempts: tuple[Attempt, ...], job: JobSeen) -> tuple[Attempt, ...]:
    """Note an attempt as it stands now among the newest ones."""
    reason, message = "", ""
    if job.outcome in ("Failed", "Lost"):
        reason, message, _ = failure(job)
    if job.waits and not job.suspended and reason in ("", NOT_STARTED):
        # The words of Kubernetes alone: they are read back once the pod is gone, and told within a sentence.
        reason, message = NOT_STARTED, job.waits
    outcome = "Refused" if reason == LOGIN_REFUSED else job.outcome
    entry = Attempt.model_validate(
        {
            "number": job.attempt,
            "outcome": outcome,
            "reason": reason,
            "message": message[:400],
            "startedAt": job.started_at,
            "finishedAt": job.finished_at,
        }
    )
    others = [a for a in attempts if a.number != job.attempt]
    kept = sorted([*others, entry], key=lambda a: a.number)
    while len(kept) > ATTEMPTS_KEPT:
        # What counts against the limit is kept longest.
        free = (a for a in kept[:-NEWEST_KEPT] if a.outcome in ("Lost", "Refused"))
        kept.remove(next(free, kept[0]))
    return tuple(kept)


def progress(job: JobSeen, now: datetime) -> str:
    """Say which step an attempt is at, or why it does not start."""
    if job.waits:
        return f"attempt {job.attempt} does not start: {job.waits}"
    running = next((s for s in job.steps if s.state == "Running"), None)
    step = f"step {running.name} of {len(job.steps)}" if running else "starting"
    began = job.started_at or timestamp(now)
    return f"attempt {job.attempt}, {step}, since {began}"
