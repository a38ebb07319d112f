"""Writes the status of Pods, Jobs and Deployments as the kubelet and its controllers would.

Pure: what was seen in, status out; the reconcilers read it exactly as they read a cluster's.  A lost or stopped
pod shows as a lost node (`NodeLost`, `NodeShutdown`), never as a failure of the container: it costs no attempt.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from controller.api.conditions import bounded
from controller.api.meta import Manifest
from controller.local.pods import Container
from controller.local.processes import Seen

POD_IP = "127.0.0.1"
LOST_CODE = 137
"""Exit code of a container whose end nobody saw, as the kubelet reports it."""

_JOB_REASONS = {
    "Lost": "NodeLost",
    "Stopped": "NodeShutdown",
    "DeadlineExceeded": "DeadlineExceeded",
    "OutputTooLarge": "OutputTooLarge",
}


def pod_status(seen: Seen, *, ready: bool, before: Manifest, now: str) -> Manifest:
    """Write the status of a pod.

    Args:
        seen: its directory and processes.
        ready: whether it may get requests.
        before: its status until now, for the time of the last transition.
        now: RFC 3339.
    """
    statuses = [_container_status(c, seen, ready=ready) for c in seen.plan.containers]
    inits = [c.init for c in seen.plan.containers]
    phase, reason = phase_of(seen)
    status: Manifest = {
        "phase": phase,
        "podIP": POD_IP,
        "hostIP": POD_IP,
        "conditions": [condition("Ready", ready, _not_ready(phase, ready), "", before, now)],
        "initContainerStatuses": [s for s, init in zip(statuses, inits, strict=True) if init],
        "containerStatuses": [s for s, init in zip(statuses, inits, strict=True) if not init],
    }
    if seen.started_at:
        status["startTime"] = seen.started_at
    if reason:
        status |= {"reason": reason, "message": failure(seen)}
    return status


def waiting_status(reason: str, message: str, *, phase: str, before: Manifest, now: str) -> Manifest:
    """Write the status of a pod that cannot be started: Pending with the cause, or Failed for good."""
    ready = condition("Ready", False, reason, message, before, now)
    return {"phase": phase, "reason": reason, "message": message, "conditions": [ready]}


def phase_of(seen: Seen) -> tuple[str, str]:
    """Return phase and reason of a pod: Pending, Running, Succeeded or Failed; the reason only if it has one."""
    if seen.state == "Lost":
        return "Failed", "Lost"
    if seen.state == "Done":
        return str(seen.done["outcome"]), str(seen.done["reason"])
    main = seen.plan.containers[-1].name
    return ("Running", "") if main in seen.runs else ("Pending", "")


def failure(seen: Seen) -> str:
    """Say in one sentence why a pod ended badly, with container and exit code; empty if it did not."""
    reason = "Lost" if seen.state == "Lost" else seen.done.get("reason", "")
    at = next(
        (c.name for c in seen.plan.containers if not _ended_well(seen, c.name)), seen.plan.containers[-1].name
    )
    if reason == "Lost":
        return f"the process that ran container {at} disappeared without a result; it may have been killed"
    if reason == "Stopped":
        return f"local mode was stopped while container {at} ran"
    if reason == "DeadlineExceeded":
        return f"container {at} was stopped: the deadline of {seen.plan.deadline or 0:g} s passed"
    if seen.done.get("outcome") == "Failed" and at in seen.exits:
        return exit_sentence(at, seen.exits[at])
    return ""


def exit_sentence(name: str, ended: dict[str, Any]) -> str:
    """Say how a container ended: its exit code, and what it left as its last word."""
    said = " ".join(str(ended["message"]).split())
    return bounded(f"container {name} exited with code {ended['exitCode']}" + (f": {said}" if said else ""))


def job_status(seen: Seen | None, *, started_at: str, now: str) -> Manifest:
    """Write the status of a Job from its only pod; without one (its directory was deleted) it is lost."""
    started = started_at or (seen.started_at if seen else "") or now
    if seen is None:
        message = "the pod's directory is gone: what ran is lost"
        return _job_failed(started, "NodeLost", message, now)
    phase, reason = phase_of(seen)
    ended = str(seen.done.get("finishedAt") or now)
    if phase == "Succeeded":
        done = condition("Complete", True, "CompletionsReached", "every container exited with code 0", {}, ended)
        return {"startTime": started, "completionTime": ended, "succeeded": 1, "conditions": [done]}
    if phase == "Failed":
        return _job_failed(started, _JOB_REASONS.get(reason, "BackoffLimitExceeded"), failure(seen), ended)
    return {"startTime": started, "active": 1}


def job_refused(reason: str, message: str, *, now: str) -> Manifest:
    """Write the status of a Job that asks for what local mode does not have."""
    return _job_failed(now, reason, message, now)


def _job_failed(started: str, reason: str, message: str, now: str) -> Manifest:
    return {"startTime": started, "failed": 1, "conditions": [condition("Failed", True, reason, message, {}, now)]}


def deployment_status(
    manifest: Manifest, *, updated: int, replicas: int, ready: int, trouble: str, now: str
) -> Manifest:
    """Write the status of a Deployment.

    Args:
        manifest: the Deployment.
        updated: pods of the present template.
        replicas: all its pods that are not being stopped.
        ready: those that may get requests.
        trouble: what keeps a pod from being ready, one sentence; may be empty.
        now: RFC 3339.
    """
    wanted = int(manifest["spec"].get("replicas", 1))
    before = manifest.get("status") or {}
    enough = ready >= wanted
    reason = "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable"
    message = f"{ready} of {wanted} replicas are ready" + (f"; {trouble}" if trouble and not enough else "")
    return {
        "observedGeneration": manifest["metadata"]["generation"],
        "replicas": replicas,
        "updatedReplicas": updated,
        "readyReplicas": ready,
        "availableReplicas": ready,
        "unavailableReplicas": max(0, wanted - ready),
        "conditions": [condition("Available", enough, reason, message, before, now)],
    }


def trouble_of(name: str, seen: Seen) -> str:
    """Say what a server's pod suffers from, if its containers have ended at least once."""
    for container in reversed(seen.plan.containers):
        ended = seen.exits.get(container.name)
        if ended and int(ended["exitCode"]) != 0 and not (container.init and _ended_well(seen, container.name)):
            return f"pod {name}: {exit_sentence(container.name, ended)} (started {int(ended['count']) + 1} times)"
    return ""


def condition(kind: str, true: bool, reason: str, message: str, before: Manifest, now: str) -> Manifest:
    """Write one condition; its transition time stays while its status stays."""
    status = "True" if true else "False"
    old: Iterable[Manifest] = before.get("conditions", ())
    since = next((c["lastTransitionTime"] for c in old if c["type"] == kind and c["status"] == status), now)
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since}


def _not_ready(phase: str, ready: bool) -> str:
    return "" if ready else {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(phase, "ContainersNotReady")


def _ended_well(seen: Seen, name: str) -> bool:
    return name in seen.exits and seen.exits[name]["exitCode"] == 0


def _container_status(container: Container, seen: Seen, *, ready: bool) -> Manifest:
    name, run, ended = container.name, seen.runs.get(container.name), seen.exits.get(container.name)
    ended_well = _ended_well(seen, name)
    status: Manifest = {
        "name": name,
        "image": container.image,
        "restartCount": int(run["count"]) if run else 0,
        "ready": ended_well if container.init else ready,
        "state": {"waiting": {"reason": "PodInitializing"}},
    }
    if run is not None and (ended is None or int(ended["count"]) < int(run["count"])):
        status["state"] = {"running": {"startedAt": run["startedAt"]}}
        if seen.state in ("Lost", "Done"):
            gone = {"exitCode": LOST_CODE, "reason": "ContainerStatusUnknown", "message": ""}
            # Nobody saw when; the status of a pod that is over must not move with the clock.
            times = {"startedAt": run["startedAt"], "finishedAt": seen.done.get("finishedAt", run["startedAt"])}
            status["state"] = {"terminated": {**gone, **times}}
        if ended is not None:
            status["lastState"] = {"terminated": _terminated(ended)}
    elif ended is not None:
        over = seen.state in ("Done", "Lost") or not seen.plan.restart or (container.init and ended_well)
        waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": exit_sentence(name, ended)}}
        status["state"] = {"terminated": _terminated(ended)} if over else waiting
        if not over:
            status["lastState"] = {"terminated": _terminated(ended)}
    return status


def _terminated(ended: dict[str, Any]) -> Manifest:
    return {
        "exitCode": ended["exitCode"],
        "reason": "Completed" if ended["exitCode"] == 0 else "Error",
        "message": ended["message"],
        "startedAt": ended["startedAt"],
        "finishedAt": ended["finishedAt"],
    }
