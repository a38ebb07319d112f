"""A simulated world for stories: the real object store in memory, and actors that a test drives by a fake clock.

Git, the registry, the kubelet and the traffic are simulated; everything that decides and writes is the real code.
The fakes are kept honest by the contract suites in tests/contract.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controller.api import hashes
from controller.api.conditions import timestamp
from controller.api.meta import LABEL_JOB_NAME, LABEL_REVISION, Key, Manifest, key_of, owner_reference
from controller.clients.errors import NotFound
from controller.clients.git_types import GitRef, Head, TreeEntry
from controller.clients.signing import Signer, Verifier
from controller.local.store import Store
from controller.reconcile.ledger import LedgerBook
from controller.reconcile.reconciler import RECONCILERS
from controller.reconcile.world import Settings, World
from tests.support import measured
from tests.support.fake_registry import FakeRegistry

START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
URL = "https://git.example.com/team/bikes.git"
WRITES = ("apply", "create", "patch_status", "patch_spec", "annotate", "delete")
"""Methods of the object store that change something."""


class CrashError(BaseException):
    """The controller dies here; nothing catches it but the simulation."""


@dataclass
class Clock:
    """Time that moves only when told."""

    moment: datetime = START

    def now(self) -> datetime:
        return self.moment

    def advance(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


class FakeGit:
    """One repository with a line of commits; the newest is the branch's head."""

    def __init__(self) -> None:
        self.commits: list[tuple[Head, dict[str, bytes]]] = []
        self.error: Exception | None = None
        self.polls = 0

    def commit(self, subject: str, files: Mapping[str, bytes | None]) -> str:
        """Commit changes of files (None deletes) on top of the newest commit."""
        tree = dict(self.commits[-1][1]) if self.commits else {}
        for path, content in files.items():
            if content is None:
                tree.pop(path, None)
            else:
                tree[path] = content
        return self.commit_tree(subject, tree)

    def revert(self, subject: str) -> str:
        """Commit the tree before the newest commit again, as `git revert` does."""
        return self.commit_tree(subject, dict(self.commits[-2][1]))

    def commit_tree(self, subject: str, tree: dict[str, bytes]) -> str:
        name = hashlib.sha1(f"{len(self.commits)}{subject}".encode()).hexdigest()
        head = Head(name, "refs/heads/main", "Jo Doe <jo@example.com>", START, subject, "")
        self.commits.append((head, tree))
        return name

    async def resolve(self, url: str, ref: GitRef, *, max_age_s: float, timeout_s: float | None = None) -> Head:
        self.polls += 1
        if self.error is not None:
            raise self.error
        if ref.commit is not None:
            found = next((h for h, _ in self.commits if h.commit == ref.commit), None)
            if found is None:
                raise NotFound(f"commit {ref.commit} is not there", reason="CommitNotFound")
            return found
        if ref.branch != "main" or not self.commits:
            raise NotFound(f"branch {ref.branch} is not there; the nearest is main", reason="RefNotFound")
        return self.commits[-1][0]

    async def refresh(self, url: str, ref: GitRef, *, timeout_s: float | None = None) -> Head:
        return await self.resolve(url, ref, max_age_s=0, timeout_s=timeout_s)

    async def files(self, url: str, commit: str) -> tuple[TreeEntry, ...]:
        tree = self._tree(commit)
        return tuple(
            TreeEntry("100644", path, hashlib.sha1(content).hexdigest(), len(content))
            for path, content in sorted(tree.items())
        )

    async def read_many(
        self, url: str, commit: str, paths: Sequence[str], *, limit: int | None = None
    ) -> Mapping[str, bytes]:
        tree = self._tree(commit)
        return {p: tree[p] for p in paths}

    def _tree(self, commit: str) -> dict[str, bytes]:
        return next(tree for head, tree in self.commits if head.commit == commit)


@dataclass
class Traffic:
    """Requests that servers have answered; grows with the clock by each pod's share."""

    counted: dict[str, float] = field(default_factory=dict)
    error: Exception | None = None

    async def counters(self, pods: Sequence[Manifest]) -> Mapping[str, float]:
        if self.error is not None:
            raise self.error
        names = {p["metadata"]["name"] for p in pods}
        return {k: v for k, v in self.counted.items() if k.partition("|")[0] in names}

    def add(self, pod: str, requests: float, errors: float, p95_s: float) -> None:
        for key, value in (
            ("requests", requests),
            ("errors", errors),
            (f"le={p95_s}", requests),
            ("le=inf", requests),
        ):
            self.counted[f"{pod}|{key}"] = self.counted.get(f"{pod}|{key}", 0.0) + value


class CrashingKube:
    """Passes everything on, and dies after the n-th write."""

    def __init__(self, inner: Store, writes: list[int], crash_at: int | None) -> None:
        self._inner = inner
        self._writes = writes
        self._crash_at = crash_at

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in WRITES:
            return found

        async def write(*args: Any, **kwargs: Any) -> Any:
            result = await found(*args, **kwargs)
            self._writes[0] += 1
            if self._writes[0] == self._crash_at:
                raise CrashError
            return result

        return write


class StaleKube:
    """Passes everything on, but answers each read of an object first with what it was before its last change."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._seen: dict[Key, Manifest] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def get(self, key: Key) -> Manifest | None:
        fresh: Manifest | None = await self._inner.get(key)
        if fresh is None:
            return None
        before = self._seen.get(key, fresh)
        self._seen[key] = fresh
        return before

    async def list(
        self, kind: str, *, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> tuple[Manifest, ...]:
        found = await self._inner.list(kind, namespace=namespace, labels=labels)
        out = []
        for fresh in found:
            out.append(self._seen.get(key_of(fresh), fresh))
            self._seen[key_of(fresh)] = fresh
        return tuple(out)


def pod_of(job: Manifest) -> Manifest:
    """Build the pod of a Job."""
    meta = job["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{meta['name']}-0",
            "namespace": meta["namespace"],
            "labels": {**meta["labels"], LABEL_JOB_NAME: meta["name"]},
            "ownerReferences": [owner_reference(job)],
        },
        "spec": {"containers": [{"name": "evaluate"}]},
    }


@dataclass
class Simulation:
    """The world of one story."""

    crash_at: int | None = None
    stale: bool = False
    look_every_s: float | None = None
    """Missed events: objects are looked at only every so often, once each, and never until all is settled."""
    train_s: float = 30.0
    clock: Clock = field(default_factory=Clock)
    git: FakeGit = field(default_factory=FakeGit)
    traffic: Traffic = field(default_factory=Traffic)
    error_rate: Callable[[str], float] = lambda _: 0.0
    requests_per_s: float = 10.0
    fail_training: Callable[[Manifest], bool] = lambda _: False
    refuse_data: Callable[[Manifest], bool] = lambda _: False
    retell: Callable[[bytes], bytes] = lambda report: report
    """What the evaluator makes of a report that is right."""
    lines: list[str] = field(default_factory=list)
    writes: list[int] = field(default_factory=lambda: [0])
    told_before: int = 0
    """Writes of the part that another story tells too."""

    def __post_init__(self) -> None:
        uids = iter(range(1, 10**9))
        self.store = Store.open(":memory:", now=self.clock.now, uids=lambda: f"uid-{next(uids)}")
        self.registry = FakeRegistry()
        self.signer = Signer(Ed25519PrivateKey.from_private_bytes(b"s" * 32))
        self.jobs_started: list[str] = []
        self._last_line = ""
        self.restart()

    def lose_objects(self) -> None:
        """Delete the object store; Git, the registry and the key remain."""
        uids = iter(range(10**6, 10**9))
        self.store = Store.open(":memory:", now=self.clock.now, uids=lambda: f"uid-{next(uids)}")
        self.restart()

    def restart(self) -> None:
        """Start the controller anew: nothing of the old one's memory is left."""
        kube: Any = CrashingKube(self.store, self.writes, self.crash_at)
        if self.stale:
            kube = StaleKube(kube)
        book = LedgerBook(self.registry, self.signer, Verifier([self.signer.public]), self.clock.now)
        self.world = World(
            kube=kube,
            git=self.git,
            registry=self.registry,
            ledger=book,
            telemetry=self.traffic,
            settings=self.settings(),
            now=self.clock.now,
            url_of=lambda namespace, name: f"http://127.0.0.1:8080/{namespace}/{name}",
        )

    def settings(self) -> Settings:
        """Say how the controller is set up: as in local mode."""
        return Settings(runtime="sim", tracking_uri="http://127.0.0.1:5000", local=True)

    # -- time --------------------------------------------------------------------------------------------------

    async def run(self, seconds: float, step_s: float = 10.0) -> None:
        """Let time pass: all reconcilers, the kubelet and the traffic take turns until the time is over."""
        end = self.clock.moment + timedelta(seconds=seconds)
        step_s = self.look_every_s or step_s
        while True:
            await self.settle()
            if self.clock.moment >= end:
                return
            self.clock.advance(step_s)
            await self.kubelet()
            await self._serve(step_s)

    async def settle(self, rounds: int = 40) -> None:
        """Reconcile everything until nothing changes any more at this moment."""
        if self.look_every_s is not None:
            await self._round()
            return
        for _ in range(rounds):
            before = self._version()
            await self._round()
            if self._version() == before:
                return
        raise AssertionError(f"not settled after {rounds} rounds at {self.clock.moment}")

    async def _round(self) -> None:
        for kind in ("ModelRepository", "ModelOverride", "ModelSpec", "ModelRevision"):
            for manifest in await self.store.list(kind):
                await self.reconcile(key_of(manifest))
        await self.kubelet()
        await self.note()

    def _version(self) -> tuple[int, int]:
        """Say how much was written so far, to the object store and to the registry."""
        artifacts = sum(len(run.artifacts) for run in self.registry.runs.values())
        return self.store._db.version(), artifacts

    async def reconcile(self, key: Key) -> None:
        """Reconcile one object; a crash is followed by a restart."""
        try:
            await RECONCILERS[key.kind](self.world, key)
        except CrashError:
            self.restart()

    # -- the other actors ----------------------------------------------------------------------------------------

    async def kubelet(self) -> None:
        """Run Jobs and servers: Jobs end after `train_s`, servers are ready at once."""
        for job in await self.store.list("Job"):
            await self._run_job(job)
        for deployment in await self.store.list("Deployment"):
            await self._run_deployment(deployment)

    async def _run_job(self, job: Manifest) -> None:
        status = job.get("status") or {}
        now = timestamp(self.clock.now())
        if status.get("conditions"):
            return
        if "startTime" not in status:
            self.jobs_started.append(job["metadata"]["name"])
            await self.store.patch_status(key_of(job), {"startTime": now, "active": 1}, uid=job["metadata"]["uid"])
            return
        started = datetime.strptime(status["startTime"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        if (self.clock.now() - started).total_seconds() < self.train_s:
            return
        failed = self.fail_training(job) or self.refuse_data(job)
        steps = await self._finish(job, failed)
        made = await self.store.apply(pod_of(job))
        await self.store.patch_status(key_of(made), {"initContainerStatuses": steps}, uid=made["metadata"]["uid"])
        kind = "Failed" if failed else "Complete"
        ended = {
            "startTime": status["startTime"],
            "completionTime": now,
            "conditions": [{"type": kind, "status": "True", "lastTransitionTime": now}],
        }
        await self.store.patch_status(key_of(job), ended, uid=job["metadata"]["uid"])

    async def _finish(self, job: Manifest, failed: bool) -> list[Manifest]:
        def ended(name: str, code: int, message: str) -> Manifest:
            return {"name": name, "state": {"terminated": {"exitCode": code, "message": message}}}

        if self.refuse_data(job):
            said = {
                "outcome": "Invalid",
                "reason": "DataInvalid",
                "message": "check nulls failed: 40 of 100 are null",
            }
            return [ended("fetch", 3, json.dumps(said))]
        if failed:
            return [ended("fetch", 0, ""), ended("train", 1, "ValueError: no such column: temp")]
        key = Key("ConfigMap", job["metadata"]["namespace"], job["metadata"]["name"])
        tasks = await self.store.get(key)
        assert tasks is not None
        fetch, evaluate = (json.loads(tasks["data"][f"{s}.json"]) for s in ("fetch", "evaluate"))
        revision = job["metadata"]["labels"][LABEL_REVISION]
        data = self.retell(report_of(revision, fetch, evaluate, self.git))
        await self.registry.upload(evaluate["run"], "mainspring", {"report.json": data})
        said = {"outcome": "Done", "run": evaluate["run"], "sha256": hashes.sha256(data)}
        return [ended("fetch", 0, ""), ended("train", 0, ""), ended("evaluate", 0, json.dumps(said))]

    async def _run_deployment(self, deployment: Manifest) -> None:
        replicas = deployment["spec"]["replicas"]
        status = {"replicas": replicas, "readyReplicas": replicas}
        await self.store.patch_status(key_of(deployment), status, uid=deployment["metadata"]["uid"])
        name = deployment["metadata"]["name"]
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{name}-0",
                "namespace": deployment["metadata"]["namespace"],
                "labels": deployment["spec"]["template"]["metadata"]["labels"],
                "ownerReferences": [owner_reference(deployment)],
            },
            "spec": {"containers": [{"name": "server", "ports": [{"name": "http", "containerPort": 8080}]}]},
        }
        made = await self.store.apply(pod)
        ready = {"conditions": [{"type": "Ready", "status": "True"}], "podIP": "127.0.0.1"}
        await self.store.patch_status(key_of(made), ready, uid=made["metadata"]["uid"])

    async def _serve(self, seconds: float) -> None:
        for route in await self.store.list("HTTPRoute"):
            for backend in route["spec"]["rules"][0]["backendRefs"]:
                requests = self.requests_per_s * seconds * backend["weight"] / 100
                revision = backend["name"].rpartition("-")[0]
                if requests:
                    errors = requests * self.error_rate(revision)
                    self.traffic.add(f"{backend['name']}-0", requests, errors, 0.02)

    # -- the transcript ------------------------------------------------------------------------------------------

    async def note(self) -> None:
        """Add a line when what people see has changed."""
        for manifest in await self.store.list("ModelSpec"):
            status = manifest.get("status") or {}
            ready = next((c for c in status.get("conditions", ()) if c["type"] == "Ready"), None)
            if ready is None:
                continue
            champion = (status.get("champion") or {}).get("revision", "none")
            text = f"{status.get('stage')}: {ready['reason']}: {ready['message']}"
            line = f"  champion {champion}  {await self.spread(manifest)}\n  {text}"
            seen = re.sub(r"[0-9hms]+ to go.*", "", line)
            if seen != self._last_line:
                self._last_line = seen
                passed = (self.clock.moment - START).total_seconds()
                self.lines.append(f"{int(passed // 60):02d}:{int(passed % 60):02d}\n{line}")

    async def spread(self, model: Manifest) -> str:
        """Say how the requests of a model are split, as a transcript tells it."""
        route = await self.store.get(Key("HTTPRoute", "default", model["metadata"]["name"]))
        backends = route["spec"]["rules"][0]["backendRefs"] if route else []
        shares = " ".join(f"{b['name'].rpartition('-')[0]}={b['weight']}%" for b in backends)
        return f"route {shares or 'none'}"

    async def model(self, name: str = "bikes") -> Manifest:
        """Read the ModelSpec."""
        found = await self.store.get(Key("ModelSpec", "default", name))
        assert found is not None
        return found

    async def end_state(self) -> dict[str, Any]:
        """Say what counts at the end, without times: who serves, who judged what, what was trained."""
        manifest = await self.model()
        status = manifest["status"]
        route = await self.store.get(Key("HTTPRoute", "default", "bikes"))
        backends = route["spec"]["rules"][0]["backendRefs"] if route else []
        deployments = await self.store.list("Deployment")
        ledger = await self.world.ledger.read("bikes", "default")
        ready = next(c for c in status["conditions"] if c["type"] == "Ready")
        return {
            "ready": (ready["status"], ready["reason"]),
            "champion": (status.get("champion") or {}).get("revision"),
            "route": {b["name"]: b["weight"] for b in backends},
            "deployments": sorted(d["metadata"]["name"] for d in deployments),
            "jobs": sorted(set(self.jobs_started)),
            "ledger": [(e.kind, e.revision) for e in ledger.entries],  # type: ignore[union-attr]
            "aliases": await self.registry.get_aliases("bikes") if status.get("champion") else {},
        }


def report_of(revision: str, fetch: dict[str, Any], evaluate: dict[str, Any], git: FakeGit) -> bytes:
    """Measure as the evaluator would: the file `quality` of the commit is the model's rmse."""
    tree = next(t for h, t in git.commits if h.commit == fetch["source"]["commit"])
    known = {_bytes_of(t): float(t["quality"]) for _, t in git.commits}
    against = known[evaluate["champion"]] if evaluate.get("champion") else None
    return measured.report(
        revision,
        evaluate,
        digest=_bytes_of(tree),
        rmse=float(tree["quality"]),
        against=against,
        data=tree["data.csv"],
        slices=True,
    )


def _bytes_of(tree: Mapping[str, bytes]) -> str:
    """Name the model that a commit makes."""
    return hashes.sha256(tree["quality"] + tree["train.py"])
