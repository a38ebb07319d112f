"""Runs Jobs: one pod each, once, and tells how it ended.

What a Job asks for is started at most once, whatever is killed in between: the pod's directory decides, see
`shim.py`.  A Job is never tried again here; the reconcilers make a new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from controller.api.meta import Manifest
from controller.clients.errors import Denied
from controller.local.pod_status import job_refused, job_status, pod_status, waiting_status
from controller.local.pods import MissingConfigMap, Plan, plan_pod
from controller.local.processes import PodDirectory, Seen
from controller.local.runner_machine import Machine

UNBOUNDED: Final = frozenset({"fetch"})
"""Steps that run no code of the user and bring data of any size."""


def has_ended(job: Manifest) -> bool:
    """Tell whether a Job's status says Complete or Failed, for good."""
    conditions = job.get("status", {}).get("conditions", ())
    return any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions)


def pod_name(job: Manifest) -> str:
    """Name the only pod of a Job."""
    return f"{job['metadata']['name']}-0"


async def keep_job(machine: Machine, job: Manifest, pods: Mapping[tuple[str, str], Manifest]) -> bool:
    """Bring one Job a step further and write what is.

    Args:
        machine: where it runs.
        job: as read from the store in this pass.
        pods: all Pod objects by namespace and name.

    Returns:
        Whether to look again soon.
    """
    if has_ended(job):
        return False
    meta = job["metadata"]
    directory = machine.directories.pod(meta["namespace"], pod_name(job))
    pod = pods.get((meta["namespace"], directory.name))
    seen = directory.look()
    if seen is not None and seen.plan.owner != meta["uid"]:
        return True  # a namesake's, deleted meanwhile: it is being stopped
    started_at = job.get("status", {}).get("startTime", "")
    if seen is None and not started_at and not machine.frozen:
        seen = await _begin(machine, job, directory, pod)
        if seen is None:
            return True
    if seen is None and machine.frozen:
        return False
    if seen is not None:
        if seen.state == "New" and not machine.frozen:
            directory.start()
        elif seen.state == "Lost":
            directory.kill()
        pod = await machine.tell_pod(directory.name, job, pod, None)
        before, now = pod.get("status", {}), machine.now()
        await machine.tell_status("Pod", pod, pod_status(seen, ready=_runs(seen), before=before, now=now))
        if seen.state == "New" and machine.frozen:
            return False
    status = job_status(seen, started_at=started_at, now=machine.now())
    await machine.tell_status("Job", job, status)
    return "active" in status


async def _begin(machine: Machine, job: Manifest, directory: PodDirectory, pod: Manifest | None) -> Seen | None:
    """Prepare and start the pod of a Job; None when that is not possible (now), which is told."""
    try:
        plan = await _plan(machine, job, directory)
    except MissingConfigMap as missing:
        told = await machine.tell_pod(directory.name, job, pod, None)
        before = told.get("status", {})
        status = waiting_status(
            "ContainerCreating", str(missing), phase="Pending", before=before, now=machine.now()
        )
        await machine.tell_status("Pod", told, status)
        return None
    except Denied as refusal:
        await machine.tell_status("Job", job, job_refused(refusal.reason, refusal.message, now=machine.now()))
        return None
    directory.prepare(plan)
    directory.start()
    return directory.look()


async def _plan(machine: Machine, job: Manifest, directory: PodDirectory) -> Plan:
    template = job["spec"]["template"]
    deadline = job["spec"].get("activeDeadlineSeconds")
    config = await machine.config_maps(directory.namespace, template)
    plan = plan_pod(
        template,
        machine.place(directory.path),
        owner=job["metadata"]["uid"],
        template_hash="",
        restart=False,
        deadline=None if deadline is None else float(deadline),
        config_map=config.get,
    )
    bounded = [
        c if c.name in UNBOUNDED else replace(c, output_bytes=machine.output_bytes) for c in plan.containers
    ]
    return replace(plan, containers=bounded)


def _runs(seen: Seen) -> bool:
    return seen.running(seen.plan.containers[-1].name)
