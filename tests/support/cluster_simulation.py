"""A simulated cluster for stories: pods with statuses, Deployments that roll, an autoscaler, a queue, a router.

It plays what Kubernetes itself does with the objects that the controller writes, as far as the controller can see
it; a test says what goes wrong.  It never decides anything about models.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from controller.api.conditions import timestamp
from controller.api.hashes import canonical
from controller.api.meta import LABEL_JOB_NAME, LABEL_MODEL, LABEL_REVISION, Key, Manifest, key_of, owner_reference
from controller.plan.manifests import LABEL_QUEUE
from controller.plan.pods import PodSettings
from controller.plan.servers import LABEL_DEPLOYMENT
from controller.reconcile.world import Settings
from tests.support.hard_simulation import HardSimulation
from tests.support.simulation import Traffic

JOBS, SERVER = "images.example.com/mainspring-jobs:1", "images.example.com/mainspring-server:1"
PODS = PodSettings(hardened=True, jobs_image=JOBS, server_image=SERVER)
LABEL_HASH = "pod-template-hash"
WAITING = {"waiting": {"reason": "PodInitializing"}}


def image_id(image: str) -> str:
    """Give an image its digest, as a node reports it."""
    return f"{image.rpartition(':')[0] or image}@sha256:{hashlib.sha256(image.encode()).hexdigest()}"


@dataclass
class SayingTraffic(Traffic):
    """Servers that also say which artifact they have loaded."""

    says: Callable[[str, str], str] = lambda _, digest: digest
    """Pod and the digest that it was started with → the digest that it says; empty: none."""

    async def counters(self, pods: Sequence[Manifest]) -> Mapping[str, float]:
        found = dict(await super().counters(pods))
        for pod in pods:
            name, command = pod["metadata"]["name"], pod["spec"]["containers"][0]["command"]
            told = self.says(name, command[command.index("--digest") + 1])
            if told:
                found[f"{name}|digest={told}"] = 1.0
        return found


@dataclass
class ClusterSimulation(HardSimulation):
    """The world of one story on a cluster."""

    pods: PodSettings = PODS
    fate: Callable[[str], str] = lambda _: "Done"
    """Name of a Job → how its pod ends: Done, OOMKilled, ImagePullBackOff, Unschedulable, Evicted, Drained,
    VolumeFull, TooLong, Deleted, Error, Code3 (of the training program), or LoginRefused (of fetch)."""
    queue_holds: bool = False
    """Kueue keeps Jobs with a queue's label from starting."""
    start_s: float = 0.0
    """How long a server takes to be ready."""
    room: int = 1000
    """How many servers fit on the nodes."""
    load: Callable[[str], int] | None = None
    """Name of a Deployment → how many servers its autoscaler would like."""
    traffic: SayingTraffic = field(default_factory=SayingTraffic)
    unanswered: float = 0.0
    """Requests that came to the model's name and found no ready server."""
    answering: list[int] = field(default_factory=list)
    """How many ready servers the model's name led to, each time somebody looked."""

    def settings(self) -> Settings:
        return Settings(runtime=self.pods.server_image, tracking_uri="http://mlflow:5000", pods=self.pods)

    async def spread(self, model: Manifest) -> str:
        shown = []
        for deployment in await self.deployments(model["metadata"]["name"]):
            wanted, ready = (
                deployment["spec"]["replicas"],
                (deployment.get("status") or {}).get("readyReplicas", 0),
            )
            count = f"{ready}" if ready == wanted else f"{ready} of {wanted}"
            shown.append(f"{deployment['metadata']['labels'][LABEL_REVISION]}={count}")
        route = await super().spread(model)
        told = f"servers {' '.join(shown) or 'none'}"
        declared = await self.condition("ServedAsDeclared", model["metadata"]["name"])
        if declared.get("status") == "False":
            told += f"\n  ServedAsDeclared {declared['reason']}: {declared['message']}"
        return told if route == "route none" else f"{told}  {route}"

    async def deployments(self, name: str = "bikes") -> tuple[Manifest, ...]:
        """Read the Deployments of a model."""
        return await self.store.list("Deployment", namespace="default", labels={LABEL_MODEL: name})

    async def sizes(self) -> dict[str, int]:
        """Say how many servers are asked for, by revision."""
        found = await self.deployments()
        return {d["metadata"]["labels"][LABEL_REVISION]: d["spec"]["replicas"] for d in found}

    async def end_state(self) -> dict[str, Any]:
        state = await super().end_state()
        del state["deployments"]
        found = {
            k: await self.store.list(k) for k in ("Service", "HorizontalPodAutoscaler", "PodDisruptionBudget")
        }
        declared = await self.condition("ServedAsDeclared")
        revisions = await self.store.list("ModelRevision")
        return {
            **state,
            "servers": {d["metadata"]["name"]: d["spec"]["replicas"] for d in await self.deployments()},
            "services": {s["metadata"]["name"]: s["spec"]["selector"] for s in found["Service"]},
            "autoscalers": [h["spec"] for h in found["HorizontalPodAutoscaler"]],
            "budgets": [b["spec"] for b in found["PodDisruptionBudget"]],
            "declared": (declared.get("status"), declared.get("reason")),
            "images": {r["metadata"]["name"]: (r.get("status") or {}).get("images") for r in revisions},
        }

    # -- Jobs --------------------------------------------------------------------------------------------------

    async def kubelet(self) -> None:
        await super().kubelet()
        await self._autoscale()
        for model in await self.store.list("ModelSpec"):
            found = await self._behind(model["metadata"]["name"])
            if found is not None:
                self.answering.append(sum(len(pods) for _, pods in found))

    async def _run_job(self, job: Manifest) -> None:
        status, spec = job.get("status") or {}, job["spec"]
        if status.get("conditions"):
            await self._expire(job)
            return
        queued = LABEL_QUEUE in job["metadata"]["labels"]
        if queued and spec.get("suspend") is None:
            job = await self.store.patch_spec(key_of(job), {"suspend": True})
        if queued and job["spec"]["suspend"]:
            if not self.queue_holds:
                await self.store.patch_spec(key_of(job), {"suspend": False})
            return
        now = timestamp(self.clock.now())
        name = job["metadata"]["name"]
        fate = self._fate(job)
        if "startTime" not in status:
            self.jobs_started.append(name)
            await self._make_pod(job, fate)
            await self.store.patch_status(key_of(job), {"startTime": now, "active": 1}, uid=job["metadata"]["uid"])
            return
        ran = (self.clock.now() - _moment(status["startTime"])).total_seconds()
        if ran >= spec["activeDeadlineSeconds"]:
            await self.store.delete(Key("Pod", job["metadata"]["namespace"], f"{name}-abcde"))
            await self._end_job(job, "Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
        elif ran >= self.train_s and fate not in ("ImagePullBackOff", "Unschedulable", "TooLong"):
            await self._end_pod(job, fate)

    def _fate(self, job: Manifest) -> str:
        return "Error" if self.fail_training(job) else self.fate(job["metadata"]["name"])

    async def _make_pod(self, job: Manifest, fate: str) -> None:
        template = job["spec"]["template"]
        labels = {**template["metadata"]["labels"], LABEL_JOB_NAME: job["metadata"]["name"]}
        name = f"{job['metadata']['name']}-abcde"
        await self._pod(name, job, labels, template["spec"], self._begun(template["spec"], fate))

    def _begun(self, spec: Manifest, fate: str) -> Manifest:
        """Say what the pod of a Job says while it runs, or does not."""
        if fate == "Unschedulable":
            text = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
            why = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": text}
            return {"phase": "Pending", "conditions": [why]}
        states = [{"name": c["name"], "imageID": "", "state": WAITING} for c in spec["initContainers"]]
        states[0] = {**states[0], "state": {"running": {"startedAt": timestamp(self.clock.now())}}}
        if fate == "ImagePullBackOff":
            done = {"terminated": {"exitCode": 0, "reason": "Completed"}}
            text = 'Back-off pulling image "images.example.com/tain:1": not found'
            states[0] = {**states[0], "state": done}
            states[1] = {**states[1], "state": {"waiting": {"reason": "ImagePullBackOff", "message": text}}}
        last = [{"name": c["name"], "imageID": "", "state": WAITING} for c in spec["containers"]]
        return {"phase": "Pending", "initContainerStatuses": states, "containerStatuses": last}

    async def _end_pod(self, job: Manifest, fate: str) -> None:
        key = Key("Pod", job["metadata"]["namespace"], f"{job['metadata']['name']}-abcde")
        pod = await self.store.get(key)
        assert pod is not None
        if fate == "Deleted":
            await self.store.delete(key)
        else:
            status = await self._ended(job, pod, fate)
            await self.store.patch_status(key, status, uid=pod["metadata"]["uid"])
        if fate == "Drained":
            text = f"Pod default/{key.name} has condition DisruptionTarget matching FailJob rule at index 0"
            await self.store.delete(key)
            await self._end_job(job, "Failed", "PodFailurePolicy", text)
        elif fate == "Evicted":
            text = f"Pod default/{key.name} has condition DisruptionTarget matching FailJob rule at index 0"
            await self._end_job(job, "Failed", "PodFailurePolicy", text)
        elif fate == "Done" and not self.refuse_data(job):
            await self._end_job(job, "Complete", "CompletionsReached", "Reached expected number of succeeded pods")
        else:
            await self._end_job(
                job, "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"
            )

    async def _ended(self, job: Manifest, pod: Manifest, fate: str) -> Manifest:
        if fate in ("Evicted", "VolumeFull"):
            text = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 52Mi."
            if fate == "VolumeFull":
                text = 'Usage of EmptyDir volume "output" exceeds the limit "20Gi". '
            by = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}
            killed = self._steps(pod, [("fetch", 0, "", "Completed"), ("train", 137, "", "Error")])
            given = [by] if fate == "Evicted" else []
            return {"phase": "Failed", "reason": "Evicted", "message": text, "conditions": given, **killed}
        if fate == "OOMKilled":
            ends = [("fetch", 0, "", "Completed"), ("train", 137, "Loading 12 GB\n", "OOMKilled")]
        elif fate == "Code3":
            ends = [("fetch", 0, "", "Completed"), ("train", 3, "usage: train.py", "Error")]
        elif fate == "LoginRefused":
            text = "data.example.com refuses the login (HTTP 401): correct the Secret of the dataset's secretRef"
            said_of_it = {"outcome": "Failed", "reason": "DataNotReadable", "message": text}
            ends = [("fetch", 1, json.dumps(said_of_it), "Error")]
        else:
            said = await self._finish(job, fate == "Error")
            ends = [
                (s["name"], t["exitCode"], t["message"], "Error" if t["exitCode"] else "Completed")
                for s in said
                for t in [s["state"]["terminated"]]
            ]
            if fate == "Done" and not self.refuse_data(job):
                steps = [c["name"] for c in pod["spec"]["initContainers"]]
                said_by = {name: (code, text, why) for name, code, text, why in ends}
                ends = [(n, *said_by.get(n, (0, "", "Completed"))) for n in (*steps, "evaluate")]
        phase = "Failed" if any(code for _, code, _, _ in ends) else "Succeeded"
        return {"phase": phase, **self._steps(pod, ends)}

    def _steps(self, pod: Manifest, ends: Sequence[tuple[str, int, str, str]]) -> Manifest:
        by_name = {name: (code, text, why) for name, code, text, why in ends}
        told: dict[str, list[Manifest]] = {}
        for part, statuses in (("initContainers", "initContainerStatuses"), ("containers", "containerStatuses")):
            told[statuses] = []
            for container in pod["spec"][part]:
                name = container["name"]
                if name not in by_name:
                    told[statuses].append({"name": name, "imageID": "", "state": WAITING})
                    continue
                code, text, why = by_name[name]
                state = {"terminated": {"exitCode": code, "reason": why, "message": text}}
                told[statuses].append({"name": name, "imageID": image_id(container["image"]), "state": state})
        return told

    async def _end_job(self, job: Manifest, kind: str, reason: str, message: str) -> None:
        now = timestamp(self.clock.now())
        ended = {"type": kind, "status": "True", "lastTransitionTime": now, "reason": reason, "message": message}
        status = {"startTime": job["status"]["startTime"], "conditions": [ended]}
        if kind == "Complete":
            status["completionTime"] = now
        await self.store.patch_status(key_of(job), status, uid=job["metadata"]["uid"])

    async def _expire(self, job: Manifest) -> None:
        after_s = job["spec"].get("ttlSecondsAfterFinished")
        ended = _moment(job["status"]["conditions"][0]["lastTransitionTime"])
        if after_s is not None and self.clock.now() - ended >= timedelta(seconds=after_s):
            await self.store.delete(key_of(job))

    # -- servers -----------------------------------------------------------------------------------------------

    async def _run_deployment(self, deployment: Manifest) -> None:
        """Replace old servers by new ones: never fewer than wanted, one more at most."""
        meta, template = deployment["metadata"], deployment["spec"]["template"]
        wanted, hash_ = deployment["spec"]["replicas"], hashlib.sha256(canonical(template)).hexdigest()[:8]
        labels = {LABEL_DEPLOYMENT: meta["name"]}
        mine = {p["metadata"]["name"]: p for p in await self.store.list("Pod", namespace="default", labels=labels)}
        new = {n: p for n, p in mine.items() if p["metadata"]["labels"][LABEL_HASH] == hash_}
        for name in sorted(new, key=lambda n: (is_ready(new[n]), n))[: max(len(new) - wanted, 0)]:
            await self.store.delete(key_of(new.pop(name)))
            del mine[name]
        missing = min(wanted - len(new), wanted + (1 if len(mine) > len(new) else 0) - len(mine))
        free = (n for n in (f"{meta['name']}-{hash_}-{i}" for i in range(10_000)) if n not in new)
        for name, _ in zip(free, range(max(missing, 0)), strict=False):
            lean = {"containers": template["spec"]["containers"]}
            given = {**template["metadata"]["labels"], LABEL_HASH: hash_}
            mine[name] = await self._pod(name, deployment, given, lean, {"phase": "Pending"})
        for name, pod in list(mine.items()):
            mine[name] = await self._start(pod)
        ready = [n for n, p in mine.items() if is_ready(p)]
        old = [n for n in ready if mine[n]["metadata"]["labels"][LABEL_HASH] != hash_]
        for name in old[: max(len(ready) - wanted, 0)]:
            await self.store.delete(key_of(mine.pop(name)))
        count = sum(1 for p in mine.values() if is_ready(p))
        text = "Deployment does not have minimum availability."
        bad = {"type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable", "message": text}
        status = {"replicas": len(mine), "readyReplicas": count, "conditions": [bad] if count < wanted else []}
        await self._say(deployment, status)

    async def _start(self, pod: Manifest) -> Manifest:
        """Give a pod a node if there is room, and let its server be ready after a while, or never."""
        conditions = (pod.get("status") or {}).get("conditions", ())
        placed = any(c["type"] == "PodScheduled" and c["status"] == "True" for c in conditions)
        if not placed and await self._taken() >= self.room:
            text = "0/3 nodes are available: 3 Insufficient memory."
            why = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": text}
            return await self._say(pod, {"phase": "Pending", "conditions": [why]})
        made = _moment(pod["metadata"]["creationTimestamp"])
        never = self.never_ready(pod["metadata"]["labels"][LABEL_REVISION])
        up = not never and self.clock.now() - made >= timedelta(seconds=self.start_s)
        state = {"name": "server", "imageID": image_id(pod["spec"]["containers"][0]["image"])}
        if never:
            told = {"exitCode": 3, "message": "ArtifactTampered: model.skops is not what was recorded"}
            waiting = {
                "reason": "CrashLoopBackOff",
                "message": "back-off 40s restarting failed container=fetch-model",
            }
            init = {"name": "fetch-model", "state": {"waiting": waiting}, "lastState": {"terminated": told}}
        else:
            init = {"name": "fetch-model", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}
        ready = [
            {"type": "PodScheduled", "status": "True"},
            {"type": "Ready", "status": "True" if up else "False"},
        ]
        status = {"phase": "Running", "conditions": ready, "podIP": "10.0.0.1"}
        return await self._say(pod, {**status, "initContainerStatuses": [init], "containerStatuses": [state]})

    async def _taken(self) -> int:
        """Count the servers that have a node."""
        placed = 0
        for pod in await self.store.list("Pod"):
            conditions = (pod.get("status") or {}).get("conditions", ())
            server = LABEL_DEPLOYMENT in pod["metadata"].get("labels", {})
            placed += server and any(c["type"] == "PodScheduled" and c["status"] == "True" for c in conditions)
        return placed

    async def _say(self, manifest: Manifest, status: Manifest) -> Manifest:
        if manifest.get("status") == status:
            return manifest
        return await self.store.patch_status(key_of(manifest), status, uid=manifest["metadata"]["uid"])

    async def _pod(
        self, name: str, owner: Manifest, labels: Mapping[str, str], spec: Manifest, status: Manifest
    ) -> Manifest:
        meta = {"name": name, "namespace": owner["metadata"]["namespace"], "labels": dict(labels)}
        meta["ownerReferences"] = [owner_reference(owner)]
        made = await self.store.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
        return await self._say(made, status)

    async def _autoscale(self) -> None:
        for scaler in await self.store.list("HorizontalPodAutoscaler"):
            name, spec = scaler["spec"]["scaleTargetRef"]["name"], scaler["spec"]
            found = await self.store.get(Key("Deployment", scaler["metadata"]["namespace"], name))
            if found is None:
                continue
            present = found["spec"]["replicas"]
            liked = self.load(name) if self.load else present
            wanted = min(max(liked, spec["minReplicas"]), spec["maxReplicas"])
            if wanted != present:
                await self.store.patch_spec(key_of(found), {"replicas": wanted})

    # -- requests ----------------------------------------------------------------------------------------------

    async def _behind(self, model: str) -> list[tuple[int, list[Manifest]]] | None:
        """Find the ready servers behind the model's name, and the percent of each group; None: no name yet."""
        route = await self.store.get(Key("HTTPRoute", "default", model))
        if route is not None:
            backends = route["spec"]["rules"][0]["backendRefs"]
            return [(b["weight"], await self._selected(b["name"])) for b in backends if b["weight"]]
        if await self.store.get(Key("Service", "default", model)) is None:
            return None
        return [(100, await self._selected(model))]

    async def _selected(self, service: str) -> list[Manifest]:
        found = await self.store.get(Key("Service", "default", service))
        if found is None:
            return []
        pods = await self.store.list("Pod", namespace="default", labels=found["spec"]["selector"])
        return [p for p in pods if is_ready(p)]

    async def _serve(self, seconds: float) -> None:
        for model in await self.store.list("ModelSpec"):
            for percent, pods in await self._behind(model["metadata"]["name"]) or []:
                requests = self.requests_per_s * seconds * percent / 100
                if not pods:
                    self.unanswered += requests
                for pod in pods:
                    labels, share = pod["metadata"]["labels"], requests / len(pods)
                    errors = share * self.error_rate(labels.get(LABEL_REVISION, ""))
                    self.traffic.add(pod["metadata"]["name"], share, errors, 0.02)


def is_ready(pod: Manifest) -> bool:
    """Tell whether a pod is ready."""
    conditions = (pod.get("status") or {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
