"""The simulated world that the walker walks through: the real object store in memory, and everybody in it.

The kubelet here can lie where the walker says so: Jobs that fail, are lost or run twice, servers that do not come
up.  What is true (which bytes a model is, how good it really is) is kept beside it, for the promises.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controller.api import hashes
from controller.api.conditions import timestamp
from controller.api.meta import LABEL_MODEL, LABEL_REVISION, Key, Manifest, key_of, owner_reference
from controller.clients.signing import Signer
from controller.local.store import Store
from controller.reconcile import datasets, observe
from tests.simulation import truth
from tests.simulation.outside import TOKENS, Git, Registry, Servers
from tests.simulation.promises import Promises
from tests.simulation.seat import Seat
from tests.support import measured
from tests.support.simulation import Clock, pod_of

KINDS = ("ModelRepository", "ModelSpec", "ModelRevision")


@dataclass(frozen=True)
class Cast:
    """Who takes part in a walk."""

    controllers: int = 1
    stale: bool = False
    """Views stop being renewed now and then."""
    repository: bool = False
    """A ModelRepository applies further models from Git."""
    fresh_bytes: bool = False
    """The same inputs trained again give other bytes."""
    jumps: bool = False
    """The clock jumps."""
    losses: bool = False
    """Entries of the ledger are damaged."""
    by_servers: bool = False
    """Whole servers split the requests, as on a cluster without a Gateway; False: a route does."""
    twin: bool = False
    """Another namespace has a model of the same name."""


class Arena:
    """The world, as it truly is."""

    def __init__(self, cast: Cast) -> None:
        observe.forget()
        datasets._POINTERS.clear()
        uids = iter(range(1, 10**9))
        self.cast = cast
        self.clock = Clock()
        self.store = Store.open(":memory:", now=self.clock.now, uids=lambda: f"uid-{next(uids)}")
        self.git, self.registry, self.servers = Git(), Registry(), Servers()
        self.signer = Signer(Ed25519PrivateKey.from_private_bytes(b"s" * 32))
        self.models: dict[str, float] = {}
        """Digest → its true error."""
        self.origin: dict[str, tuple[bytes, ...]] = {}
        """Digest → what it was trained from."""
        self.errors: dict[str, float] = {}
        """Revision → share of its answers that are errors."""
        self.broken: set[str] = set()
        """Revisions whose servers never come up."""
        self.endings: dict[str, str] = {}
        """Job → how it is to end, where not as all do."""
        self.ends = "well"
        """How Jobs end."""
        self.evaluator_lies = False
        """Reports name another champion than the evaluator was given."""
        self.made: dict[str, set[str]] = {}
        """Revision → digests of all models that were ever trained for it."""
        self.uploaded_again: set[str] = set()
        """Runs to which a second pod has uploaded."""
        self.requests_per_s = 10.0
        self.trainings = 0
        self.writes: Counter[str] = Counter()
        """Object → writes of the controllers."""
        self.deeds: list[str] = []
        self.promises = Promises(self)
        self.seats = [Seat(self, name) for name in "AB"[: cast.controllers]]

    @property
    def homes(self) -> tuple[str, ...]:
        """Namespaces that have a model `bikes`."""
        return ("default", "prod") if self.cast.twin else ("default",)

    def key(self, rng: random.Random) -> Key:
        """Choose one of the models `bikes`."""
        return Key("ModelSpec", rng.choice(self.homes), "bikes")

    def written(self, seat: Seat, verb: str, what: Any) -> None:
        """Count a write."""
        key = what if isinstance(what, Key) else key_of(what)
        self.writes[str(key)] += 1
        self.deeds.append(f"{seat.name} {verb} {key}")

    async def keys(self) -> list[Key]:
        """Name all objects that controllers look at."""
        return [key_of(m) for kind in KINDS for m in await self.store.list(kind)]

    # -- the kubelet -------------------------------------------------------------------------------------------

    async def kubelet(self) -> None:
        """Let Jobs begin and end, and servers come up."""
        for job in await self.store.list("Job"):
            await self._run_job(job)
        for deployment in await self.store.list("Deployment"):
            await self._run_servers(deployment)

    async def _run_job(self, job: Manifest) -> None:
        status, meta = job.get("status") or {}, job["metadata"]
        if status.get("conditions"):
            return
        now = timestamp(self.clock.now())
        if "startTime" not in status:
            if await self.store.get(Key("ConfigMap", meta["namespace"], meta["name"])) is not None:
                await self.store.patch_status(key_of(job), {"startTime": now, "active": 1}, uid=meta["uid"])
            return
        if abs((self.clock.now() - moment(status["startTime"])).total_seconds()) >= 20:
            await self.end_job(job, self.endings.get(meta["name"], self.ends))

    async def end_job(self, job: Manifest, how: str) -> None:
        """End a Job: well, or as `how` says; its pod tells what its containers said."""
        meta, now = job["metadata"], timestamp(self.clock.now())
        if "startTime" not in (job.get("status") or {}):
            return
        if await self.store.get(Key("ConfigMap", meta["namespace"], meta["name"])) is None and how == "well":
            how = "exit"  # Somebody deleted its tasks: it cannot end well.
        reason, steps = await self._outcome(job, how)
        made = await self.store.apply(pod_of(job))
        await self.store.patch_status(key_of(made), {"initContainerStatuses": steps}, uid=made["metadata"]["uid"])
        condition = {
            "type": "Complete" if how == "well" else "Failed",
            "status": "True",
            "lastTransitionTime": now,
        }
        if reason:
            condition["reason"] = reason
        ended = {"startTime": job["status"]["startTime"], "completionTime": now, "conditions": [condition]}
        await self.store.patch_status(key_of(job), ended, uid=meta["uid"])

    async def _outcome(self, job: Manifest, how: str) -> tuple[str, list[Manifest]]:
        match how:
            case "exit":
                text = "ValueError: cannot log in to https://jo:planted-pass-word-77@db.example.com/x"
                return "", [step("fetch", 0, ""), step("train", 1, text)]
            case "memory":
                return "", [step("fetch", 0, ""), step("train", 137, "Bearer plantedBearer88abcXYZ refused")]
            case "data":
                said = {"outcome": "Invalid", "reason": "DataInvalid", "message": "check nulls failed: 40 of 100"}
                return "", [step("fetch", 3, json.dumps(said))]
            case "evicted":
                return "Evicted", []
            case "late":
                return "DeadlineExceeded", [step("fetch", 0, ""), step("train", 143, "")]
            case _:
                return "", await self.measure(job)

    async def measure(self, job: Manifest) -> list[Manifest]:
        """Train and evaluate: what the evaluator uploads, and what it says at its end."""
        meta = job["metadata"]
        tasks = await self.store.get(Key("ConfigMap", meta["namespace"], meta["name"]))
        if tasks is None:
            return []
        fetch, evaluate = (json.loads(tasks["data"][f"{s}.json"]) for s in ("fetch", "evaluate"))
        tree = self.git.tree(fetch["source"]["commit"])
        made_of = tuple(tree[p] for p in ("quality", "train.py", "data.csv"))
        if fetch.get("artifact"):
            digest = fetch["artifact"]["digest"]
        else:
            self.trainings += 1
            salt = str(self.trainings).encode() if self.cast.fresh_bytes else b""
            digest = hashes.sha256(b"|".join((*made_of, salt, hashes.canonical(fetch.get("params", {})))))
            self.models[digest], self.origin[digest] = float(tree["quality"]), made_of
            self.made.setdefault(meta["labels"][LABEL_REVISION], set()).add(digest)
        told = {**evaluate, "champion": hashes.sha256(b"another")} if self.evaluator_lies else evaluate
        data = measured.report(
            meta["labels"][LABEL_REVISION],
            told,
            digest=digest,
            rmse=self.models[digest],
            against=self.models[evaluate["champion"]] if evaluate.get("champion") else None,
            data=tree["data.csv"],
        )
        await self.registry_upload(evaluate["run"], "model", {"model.skops": digest.encode()})
        await self.registry_upload(evaluate["run"], "mainspring", {"report.json": data})
        said = {"outcome": "Done", "run": evaluate["run"], "sha256": hashes.sha256(data)}
        return [step("fetch", 0, ""), step("train", 0, ""), step("evaluate", 0, json.dumps(said))]

    async def registry_upload(self, run: str, path: str, files: dict[str, bytes]) -> None:
        """Upload as a pod does, which tries until the registry answers."""
        down, self.registry.down = self.registry.down, False
        await self.registry.upload(run, path, files)
        self.registry.down = down

    def bytes_of(self, run: str) -> str:
        """Say which model a run holds; empty for none."""
        found = self.registry.runs.get(run)
        return found.artifacts.get("model/model.skops", b"").decode() if found else ""

    async def _run_servers(self, deployment: Manifest) -> None:
        meta, spec = deployment["metadata"], deployment["spec"]
        revision = meta["labels"].get(LABEL_REVISION, "")
        command = spec["template"]["spec"].get("initContainers", [{}])[0].get("command", [])
        given = dict(pairwise(command))
        loads = bool(given.get("--digest")) and self.bytes_of(given["--run"]) == given["--digest"]
        comes_up = loads and revision not in self.broken and not self.registry.down
        up = comes_up or self._was_up(deployment, revision)
        ready = spec["replicas"] if up else 0
        if self.cast.by_servers and up:
            # One server after the other comes up.
            ready = min(ready, (deployment.get("status") or {}).get("readyReplicas", 0) + 1)
        status: Manifest = {"replicas": spec["replicas"], "readyReplicas": ready}
        if not up:
            said = f"the model is not what was recorded: https://jo:{TOKENS[1]}@mlflow.example.com/a"
            status["conditions"] = [{"type": "Available", "status": "False", "message": said}]
        await self.store.patch_status(key_of(deployment), status, uid=meta["uid"])
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": pod_name(meta["name"], meta["namespace"]),
                "namespace": meta["namespace"],
                "labels": spec["template"]["metadata"]["labels"],
                "ownerReferences": [owner_reference(deployment)],
            },
            "spec": {"containers": spec["template"]["spec"]["containers"]},
        }
        made = await self.store.apply(pod)
        state = {"conditions": [{"type": "Ready", "status": "True" if up else "False"}], "podIP": "127.0.0.1"}
        await self.store.patch_status(key_of(made), state, uid=made["metadata"]["uid"])

    def _was_up(self, deployment: Manifest, revision: str) -> bool:
        """Tell whether servers run already, which need the registry no more."""
        ready = (deployment.get("status") or {}).get("readyReplicas", 0) > 0
        return ready and revision not in self.broken

    # -- requests ----------------------------------------------------------------------------------------------

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, with requests."""
        self.clock.advance(seconds)
        for model in await self.store.list("ModelSpec"):
            namespace = model["metadata"]["namespace"]
            for name, percent in (await self.shares(model)).items():
                requests = self.requests_per_s * seconds * percent / 100
                if requests >= 1:
                    errors = requests * self.errors.get(name.rpartition("-")[0], 0.0)
                    pod = pod_name(name, namespace)
                    self.servers.add(pod, float(round(requests)), float(round(errors)), 0.02)

    async def shares(self, model: Manifest) -> dict[str, int]:
        """Say how the requests of a model are really split: percent by the name of the servers."""
        name, namespace = model["metadata"]["name"], model["metadata"]["namespace"]
        if not self.cast.by_servers:
            return truth.shares(await self.store.get(Key("HTTPRoute", namespace, name)) or {})
        return truth.shares_of_servers(await self.servers_of(model))

    async def servers_of(self, model: Manifest) -> list[Manifest]:
        """List the Deployments of a model that the controller made."""
        labels = {LABEL_MODEL: model["metadata"]["name"]}
        found = await self.store.list("Deployment", namespace=model["metadata"]["namespace"], labels=labels)
        return [d for d in found if str(key_of(d)) not in self.promises.foreign]


def pod_name(servers: str, namespace: str) -> str:
    """Name the pod of servers: no two of the cluster have one name, so that counters are not mixed up."""
    return f"{servers}-0" if namespace == "default" else f"{servers}-{namespace}-0"


def step(name: str, code: int, message: str) -> Manifest:
    """Build the state of a container that ended."""
    return {"name": name, "state": {"terminated": {"exitCode": code, "message": message}}}


def moment(text: str) -> datetime:
    """Read a time as objects hold it."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
