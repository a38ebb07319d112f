"""The standing rule of the bad-input corpus, asserted the same way for every row.

Whatever a row found out about a bad input (what Git said, how a step ended, which file it was) happens here once
more in a simulated world, to a model that is being served and that has a healthy neighbour.  Asserted is then: the
champion serves all requests at every moment by the same servers, the neighbour's new commit is served at the very
same moments as without any trouble, nothing that was recorded is lost, the answer reaches the user on the object
and by `mainspring explain`, on one line, and neither a traceback nor a secret is anywhere.  Never decides itself
what the right answer is: the row says it.
"""

from __future__ import annotations

import asyncio
import copy
import json
import re
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from controller.api.conditions import timestamp
from controller.api.hashes import sha256
from controller.api.meta import API_VERSION, LABEL_REVISION, Key, Manifest, key_of
from controller.api.validation import Checked, check_text
from controller.clients.errors import ClientError, NotFound
from controller.clients.git_types import GitRef, Head, TreeEntry
from controller.jobs.entry import WrongInput
from controller.local.store import Store
from tests.support.cli_session import Answered, mainspring
from tests.support.hard_simulation import HardSimulation
from tests.support.simulation import FakeGit, pod_of

HOST = "https://git.example.com/team"
SPECS, BIKES, TRAMS = f"{HOST}/specs.git", f"{HOST}/bikes.git", f"{HOST}/trams.git"
SECRETS = ("hunter2", "s3cr3tT0kenValue99", "ghp_abcdefghijklmnop1234", "AKIAIOSFODNN7EXAMPLE")
"""What the rows use as a secret: it must be nowhere."""
TRACEBACK = re.compile(r"Traceback|File \"[^\"]{1,300}\", line \d")
LONGEST = 4_000
"""Characters of the longest message: it is read by people."""
LARGER = "larger than 256 KiB"
STEP_S, AFTER_S = 15.0, 90.0
KINDS = ("ModelSpec", "ModelRevision", "ModelRepository", "Event")

ASSERTED: list[str] = []
"""The rule was asserted for these since the list was last cleared: what happened, in a word."""


@dataclass(frozen=True)
class Answer:
    """What the bad input got: the condition that tells it."""

    kind: str
    type: str
    reason: str
    message: str


class HostileGit(FakeGit):
    """A repository whose server may refuse, at the poll or only when files are read."""

    late: Exception | None = None

    async def files(self, url: str, commit: str) -> tuple[TreeEntry, ...]:
        if self.late is not None:
            raise self.late
        return await super().files(url, commit)


class Gits:
    """Several repositories, each by its address."""

    def __init__(self) -> None:
        self.repos = {url: HostileGit() for url in (SPECS, BIKES, TRAMS)}

    @property
    def commits(self) -> list[tuple[Head, dict[str, bytes]]]:
        return [c for repo in self.repos.values() for c in repo.commits if "quality" in c[1]]

    def _of(self, url: str) -> HostileGit:
        if url not in self.repos:
            raise NotFound(f"there is no repository at {url}", reason="RepositoryNotFound")
        return self.repos[url]

    async def resolve(self, url: str, ref: GitRef, **more: Any) -> Head:
        return await self._of(url).resolve(url, ref, **more)

    async def refresh(self, url: str, ref: GitRef, **more: Any) -> Head:
        return await self._of(url).refresh(url, ref, **more)

    async def files(self, url: str, commit: str) -> tuple[TreeEntry, ...]:
        return await self._of(url).files(url, commit)

    async def read_many(self, url: str, commit: str, paths: Any, **more: Any) -> Mapping[str, bytes]:
        return await self._of(url).read_many(url, commit, paths, **more)


def spec(name: str, **changes: Any) -> Manifest:
    """Build the ModelSpec of bikes or trams; keyword arguments replace fields of its spec."""
    source = {"url": BIKES if name == "bikes" else TRAMS, "ref": {"branch": "main"}, "interval": "5s"}
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelSpec",
        "metadata": {"name": name},
        "spec": {
            "source": {**source, "paths": ["train.py", "quality"]},
            "data": [{"name": "train", "path": "data.csv"}],
            "columns": {"target": "bikers"},
            "training": {"command": ["python", "train.py"], "backoffLimit": 1},
            "gates": [{"name": "not-worse", "metric": "rmse", "champion": {"margin": 0, "mode": "Absolute"}}],
            "serving": {"canary": {"stepWeights": [50], "interval": "30s"}},
            **changes,
        },
    }


def file(name: str, **changes: Any) -> bytes:
    """Write the ModelSpec of a model as its file."""
    text: bytes = yaml.safe_dump(spec(name, **changes), allow_unicode=True, width=1000).encode("utf-8", "replace")
    return text


@dataclass
class Neighbours(HardSimulation):
    """Two models that are served, from three repositories."""

    ending: Callable[[Manifest], tuple[Manifest, Manifest] | None] = lambda _: None
    """Job → its status and its pod's, where a row says how it ends."""
    report: Callable[[bytes], bytes] = bytes
    """What becomes of the report on a bike's challenger."""
    forged: bool = False
    """The report is another one than the evaluator named."""
    seen: list[str] = field(default_factory=list)
    """What people see of the neighbour, with its time."""
    broken: list[str] = field(default_factory=list)
    """Moments at which the champion did not serve."""
    champion: str = ""
    later: list[tuple[float, Callable[[Neighbours], Awaitable[None]]]] = field(default_factory=list)
    """What happens so many seconds after the bad input came, while all goes on."""
    began: datetime | None = None
    held: bool = False
    """A queue holds the challenger's Job back, as Kueue does."""
    last_run: str = ""
    """The run that a row speaks of."""
    promoted: str = ""
    """Who serves at the end."""
    last: dict[str, Manifest] = field(default_factory=dict)
    """Every object that people see, at the end."""

    def __post_init__(self) -> None:
        self.git: Any = Gits()
        super().__post_init__()

    async def begin(self) -> None:
        """Serve both."""
        for number, url in enumerate((BIKES, TRAMS)):
            tree = {"train.py": b"fit(%d)" % number, "quality": b"60", "data.csv": b"%d,2" % number}
            self.git.repos[url].commit(f"First {number}", tree)
        self.git.repos[SPECS].commit("Models", {f"{n}.yaml": file(n) for n in ("bikes", "trams")})
        repository = {"url": SPECS, "ref": {"branch": "main"}, "path": ".", "interval": "5s"}
        meta = {"name": "models", "namespace": "default"}
        await self.store.apply(
            {"apiVersion": API_VERSION, "kind": "ModelRepository", "metadata": meta, "spec": repository}
        )
        await self.run(60)
        self.champion = (await self.status())["champion"]["revision"]

    def challenge(self, **files: bytes) -> None:
        """Commit a better model of bikes."""
        tree = {"quality": b"50", **{k.replace("__", "."): v for k, v in files.items()}}
        self.git.repos[BIKES].commit("A challenger", tree)

    async def note(self) -> None:
        """Look at both: is the champion served, and where is the neighbour."""
        trams = await self.store.get(Key("ModelSpec", "default", "trams"))
        status = (trams or {}).get("status") or {}
        ready: Manifest = next((c for c in status.get("conditions", ()) if c["type"] == "Ready"), {})
        champion = (status.get("champion") or {}).get("revision", "none")
        line = f"{timestamp(self.clock.now())} {champion} {await self.spread({'metadata': {'name': 'trams'}})}"
        self.seen.append(f"{line} {ready.get('reason')}")
        if self.champion:
            await self._look()

    async def _look(self) -> None:
        route = await self.store.get(Key("HTTPRoute", "default", "bikes"))
        backends = route["spec"]["rules"][0]["backendRefs"] if route else []
        if sum(b["weight"] for b in backends) != 100:
            self.broken.append(f"{self.clock.now():%H:%M:%S} {backends}")
        for backend in backends:
            if not await self.store.get(Key("Deployment", "default", backend["name"])):
                self.broken.append(f"{self.clock.now():%H:%M:%S} {backend['name']} has no server")

    async def _run_job(self, job: Manifest) -> None:
        told = self.ending(job) if self.is_challenger(job) else None
        if self.held and self.is_challenger(job):
            await self.store.patch_spec(key_of(job), {"suspend": True})
            return
        status = job.get("status") or {}
        if told is None or status.get("conditions") or "startTime" not in status:
            await super()._run_job(job)
            return
        made = await self.store.apply(pod_of(job))
        await self.store.patch_status(key_of(made), told[1], uid=made["metadata"]["uid"])
        await self.store.patch_status(key_of(job), {**status, **told[0]}, uid=job["metadata"]["uid"])

    async def kubelet(self) -> None:
        """Let what a row has planned happen in its time, then run Jobs and servers."""
        passed = (self.clock.moment - self.began).total_seconds() if self.began else -1.0
        due = [act for after, act in self.later if after <= passed]
        self.later = [(after, act) for after, act in self.later if after > passed]
        for act in due:
            await act(self)
        await super().kubelet()

    def is_challenger(self, job: Manifest) -> bool:
        """Tell whether a Job is one of bikes, and not its first."""
        name = job["metadata"]["labels"].get(LABEL_REVISION, "")
        return bool(self.champion) and name.startswith("bikes-") and name != self.champion

    async def _finish(self, job: Manifest, failed: bool) -> list[Manifest]:
        steps = await super()._finish(job, failed)
        if failed or not self.is_challenger(job):
            return steps
        said = json.loads(steps[-1]["state"]["terminated"]["message"])
        run = self.registry.runs[said["run"]]
        data = self.report(run.artifacts["mainspring/report.json"])
        run.artifacts["mainspring/report.json"] = data
        said["sha256"] = said["sha256"] if self.forged else sha256(data)
        steps[-1]["state"]["terminated"]["message"] = json.dumps(said)
        return steps

    # -- what is compared ----------------------------

    async def recorded(self) -> dict[str, Any]:
        """Read everything that must never be lost: decisions, versions, revisions."""
        runs = {i: dict(run.artifacts) for i, run in self.registry.runs.items()}
        return {
            "ledger": {f"{i}/{p}": d for i, files in runs.items() for p, d in files.items() if "ledger/" in p},
            "versions": {
                f"{name}/{v}": dict(t) for name, m in self.registry.models.items() for v, t in m.versions.items()
            },
            "revisions": {m["metadata"]["name"]: m["spec"] for m in await self.store.list("ModelRevision")},
        }

    async def servers(self) -> dict[str, Any]:
        """Read the champion's servers: who they are and what they were told to run."""
        found = await self.store.list("Deployment")
        mine = [d for d in found if d["metadata"]["labels"].get(LABEL_REVISION) == self.champion]
        return {d["metadata"]["uid"]: d["spec"] for d in mine}

    async def texts(self) -> list[tuple[str, Any]]:
        """Read every object that people see, as text with where it stands."""
        objects = [m for kind in KINDS for m in await self.store.list(kind)]
        return [(f"{m['kind']}/{m['metadata']['name']}", m) for m in objects]


@cache
def begun() -> tuple[bytes, Any]:
    """Serve both once; returns the file of the objects, and all else that there is, to go on from."""
    with tempfile.TemporaryDirectory(prefix="standing-") as place:
        world = Neighbours()
        uids = iter(range(1, 10**4))
        file = Path(place) / "objects.db"
        world.store = Store.open(file, now=world.clock.now, uids=lambda: f"uid-{next(uids)}")
        world.restart()
        asyncio.run(world.begin())
        world.store.close()
        rest = (world.git, world.registry, world.clock.moment, world.traffic, world.jobs_started, world.champion)
        return file.read_bytes(), copy.deepcopy(rest)


def open_world(directory: Path) -> Neighbours:
    """Make a world in which both are served, whose objects the command line can read."""
    data, rest = begun()
    world = Neighbours()
    world.git, world.registry, moment, world.traffic, world.jobs_started, champion = copy.deepcopy(rest)
    world.clock.moment, world.champion = moment, champion
    file, uids = directory / "objects.db", iter(range(10**4, 10**6))
    file.write_bytes(data)
    world.store = Store.open(file, now=world.clock.now, uids=lambda: f"uid-{next(uids)}")
    world.restart()
    return world


async def _go_on(world: Neighbours) -> None:
    world.seen.clear()
    world.git.repos[TRAMS].commit("Better trams", {"quality": b"50"})
    await world.run(AFTER_S, STEP_S)


@cache
def quiet() -> tuple[str, ...]:
    """Tell what is seen of the neighbour when there is no trouble."""
    with tempfile.TemporaryDirectory(prefix="standing-") as place:
        world = open_world(Path(place))
        asyncio.run(_go_on(world))
        world.store.close()
    lines = tuple(dict.fromkeys(world.seen))
    assert any("=100% Succeeded" in line and lines[0].split()[1] not in line for line in lines), lines
    return lines


def play(
    what: str,
    arrive: Callable[[Neighbours], Awaitable[None]],
    *,
    reason: str = "",
    words: str = "",
    promotes: bool = False,
    respecs: bool = False,
    secrets: tuple[str, ...] = (),
) -> Answer | None:
    """Let a bad input arrive, and assert the standing rule.

    Args:
        what: one word for the record.
        arrive: brings the input into the world.
        reason: the reason that the user must read on an object; empty when nothing is wrong.
        words: words of the message beside it, at most its first 200 characters.
        promotes: whether the challenger may rightly take over in the end.
        respecs: whether the servers may rightly be told something else; they stay the same ones.
        secrets: what must be nowhere, besides what all rows use.
    """
    quiet()
    with tempfile.TemporaryDirectory(prefix="standing-") as place:
        world = open_world(Path(place))
        try:
            asyncio.run(_play(world, arrive, promotes, respecs))
            told = mainspring(Path(place), "explain", "modelspec/bikes")
            return _judge(asyncio.run(world.texts()), told, reason, words, (*SECRETS, *secrets))
        finally:
            world.store.close()
            ASSERTED.append(what)


async def _play(
    world: Neighbours, arrive: Callable[[Neighbours], Awaitable[None]], promotes: bool, respecs: bool
) -> None:
    """Assert what happens: who serves, who waits, what is kept."""
    before, servers, champion = await world.recorded(), await world.servers(), world.champion
    assert servers
    world.began = world.clock.moment
    await arrive(world)
    await _go_on(world)

    world.promoted = (await world.status())["champion"]["revision"]
    world.last = dict(await world.texts())
    assert world.broken == [], "the champion was not served"
    if not promotes:
        assert await world.shares() == {champion: 100}, "the champion keeps serving"
        now = await world.servers()
        assert now.keys() == servers.keys() if respecs else now == servers, "by the same servers"
        assert world.promoted == champion
    assert tuple(dict.fromkeys(world.seen)) == quiet(), "the neighbour is not delayed"
    after = await world.recorded()
    for kind, entries in before.items():
        assert entries.items() <= after[kind].items(), f"{kind} that were recorded are lost"


def _judge(
    texts: list[tuple[str, Manifest]], told: Answered, reason: str, words: str, secrets: tuple[str, ...]
) -> Answer | None:
    """Assert what is said: the answer is there, fit to be read, and so is everything else."""
    for name, manifest in texts:
        _fit_to_be_read(name, manifest, secrets)
    answer = _answer(texts, reason, words)
    _clean("explain", told.out + told.err, secrets)
    assert told.code == 0, told.err
    if answer is not None and answer.kind == "ModelSpec":
        assert answer.message[:60] in " ".join(told.out.split()) or reason in told.out, told.out
    return answer


def _fit_to_be_read(name: str, manifest: Manifest, secrets: tuple[str, ...]) -> None:
    """Look at what a controller wrote on an object; what people wrote into its spec is theirs."""
    status = manifest.get("status") or {}
    messages = [c["message"] for c in status.get("conditions", ())] + [manifest.get("message", "")]
    for message in messages:
        assert message.isprintable(), f"{name}: {message!r}"
        assert len(message) <= LONGEST, f"{name}: {len(message)} characters"
    _clean(name, json.dumps([status, messages], ensure_ascii=False), secrets)


def _clean(where: str, text: str, secrets: tuple[str, ...]) -> None:
    assert not TRACEBACK.search(text), f"{where} shows a traceback"
    assert not [s for s in secrets if s in text], f"{where} shows a secret"


def _answer(texts: list[tuple[str, Manifest]], reason: str, words: str) -> Answer | None:
    if not reason:
        return None
    conditions = [
        Answer(m["kind"], c["type"], c["reason"], c["message"])
        for _, m in texts
        for c in (m.get("status") or {}).get("conditions", ())
    ]
    # Conditions write each run of spaces as one; a line end they must not be given at all.
    wanted = re.sub(" +", " ", words[:200])
    fitting = [c for c in conditions if c.reason == reason and wanted in c.message]
    said = [(c.kind, c.reason, c.message) for c in conditions if c.reason not in ("Succeeded",)]
    assert fitting, f"nobody says {reason}: {words[:200]}; said is {said}"
    # What a person reads first: Ready of the model itself, where it is there.
    order = ("ModelSpec", "ModelRepository", "ModelRevision")
    return min(fitting, key=lambda c: (order.index(c.kind), c.type != "Ready"))


# -- how bad input arrives ----------------------------


def git_says(error: ClientError, *, late: bool = False) -> Answer | None:
    """Assert the rule where Git answers the model's poll so; `late`: only when the commit's files are read."""

    async def arrive(world: Neighbours) -> None:
        world.challenge()
        repo = world.git.repos[BIKES]
        if late:
            repo.late = error
        else:
            repo.error = error

    return play(f"Git: {error.reason}", arrive, reason=error.reason, words=_start(error.message))


def _start(message: str) -> str:
    """Take the beginning of a message: its end may be said in another way where it stands."""
    return message.removesuffix("; it is tried again").removesuffix("it is tried again")[:80].rstrip(" ;")


def git_finds(head: Head) -> None:
    """Assert the rule where the challenger's commit has this author, subject and date."""

    async def arrive(world: Neighbours) -> None:
        world.challenge()
        repo = world.git.repos[BIKES]
        repo.commits[-1] = (head, repo.commits[-1][1])

    play("Git: a commit", arrive, promotes=True)


def refused(error: WrongInput, *, secrets: tuple[str, ...] = ()) -> Answer | None:
    """Assert the rule where the step `fetch` ends with this."""
    return step_says({"outcome": "Invalid", "reason": error.reason, "message": error.message}, secrets=secrets)


def step_says(
    said: Mapping[str, Any], *, step: str = "fetch", code: int = 3, told: str = "", secrets: tuple[str, ...] = ()
) -> Answer | None:
    """Assert the rule where a step of the model's Job ended so, with its termination message.

    `told`: the reason that the object gives, where it is not the step's own.
    """
    ran = {"fetch": [], "train": ["fetch"], "predict": ["fetch", "train"]}.get(step, ["fetch", "train", "predict"])
    states = [{"name": s, "state": {"terminated": {"exitCode": 0}}} for s in ran]
    states.append({"name": step, "state": {"terminated": {"exitCode": code, "message": json.dumps(said)}}})
    failed = {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]}
    pod = {"initContainerStatuses": states}
    return job_ends(failed, pod, told or said["reason"], _start(said["message"]), secrets=secrets)


def job_ends(
    job: Manifest,
    pod: Manifest,
    reason: str,
    words: str,
    *,
    promotes: bool = False,
    secrets: tuple[str, ...] = (),
) -> Answer | None:
    """Assert the rule where the model's Job and its pod ended with these statuses."""

    async def arrive(world: Neighbours) -> None:
        moment = timestamp(world.clock.now())
        ended = [{**c, "lastTransitionTime": moment} for c in job.get("conditions", ())]
        rest = {k: v for k, v in job.items() if k not in ("conditions", "startTime", "completionTime")}
        world.ending = lambda _: ({**rest, "conditions": ended}, pod)
        world.challenge()

    what = f"Job: {reason or 'done'}"
    return play(what, arrive, reason=reason, words=words, promotes=promotes, secrets=secrets)


def report_is(
    change: Callable[[bytes], bytes],
    reason: str,
    words: str,
    *,
    promotes: bool = False,
    forged: bool = False,
    **changes: Any,
) -> Answer | None:
    """Assert the rule where the record on the challenger is another one; keyword arguments change the spec.

    `forged`: the evaluator named the digest of the right one.
    """

    async def arrive(world: Neighbours) -> None:
        world.report, world.forged = change, forged
        if changes:
            world.git.repos[SPECS].commit("Other gates", {"bikes.yaml": file("bikes", **changes)})
        world.challenge()

    what = f"report: {reason or 'fine'}"
    return play(what, arrive, reason=reason, words=words, promotes=promotes, respecs=bool(changes))


def with_report(**changes: Any) -> Callable[[bytes], bytes]:
    """Make a change of a report: fields of it, and by `evidence` fields of its evidence."""

    def change(data: bytes) -> bytes:
        report = json.loads(data)
        evidence = {**report["evidence"], **changes.get("evidence", {})}
        return json.dumps({**report, **changes, "evidence": evidence}).encode()

    return change


def spec_is(**changes: Any) -> Answer | None:
    """Assert the rule where the model's file asks for this; keyword arguments replace fields of its spec."""
    return file_is(file("bikes", **changes))


def file_is(text: bytes, *, reason: str | None = None, words: str = "") -> Answer | None:
    """Assert the rule where a file of the specs' repository is this.

    A file that is refused takes the place of the model's own; one that is accepted comes beside it. The answer of
    `validate` must be on the ModelRepository.
    """
    checked = check_text(text, "bikes.yaml")
    lines = [str(p) for p in checked.problems]
    for line in lines:
        _clean("validate", line, SECRETS)
        assert line.isprintable(), line
    own = bool(lines) or checked.unreadable or ("ModelSpec", "bikes") in checked.names

    async def arrive(world: Neighbours) -> None:
        world.git.repos[SPECS].commit("A file", {"bikes.yaml" if own else "more.yaml": text})

    if reason is None:
        reason, words = ("InvalidFile", first[:100]) if (first := _first(checked)) else ("", "")
    what = f"file: {'refused' if lines else 'accepted'}"
    return play(what, arrive, reason=reason, words=words, respecs=not lines)


def _first(checked: Checked) -> str:
    """Return what a ModelRepository says first of a file that is refused."""
    if checked.problems:
        # What is too large is not even read: its size is not told.
        large = checked.problems[0].message.startswith(LARGER)
        return LARGER if large else str(checked.problems[0]).removeprefix("bikes.yaml:")
    return f"{checked.skipped}; ModelSpec bikes came from it and stays as it is" if checked.unreadable else ""


def challenger_is_fine() -> None:
    """Assert the rule where nothing is wrong in the end: the challenger takes over, and nobody waits for it."""

    async def arrive(world: Neighbours) -> None:
        world.challenge()

    play("a good challenger", arrive, promotes=True)


def meddled(
    arrive: Callable[[Neighbours], Awaitable[None]], *, reason: str = "", words: str = "", promotes: bool = False
) -> Answer | None:
    """Assert the rule where somebody does something to the objects, to MLflow or to the clock."""
    return play("meddling", arrive, reason=reason, words=words, promotes=promotes)


def later(
    seconds: float,
    act: Callable[[Neighbours], Awaitable[None]],
    *,
    reason: str = "",
    words: str = "",
    promotes: bool = True,
) -> Neighbours:
    """Assert the rule where something happens so long after a challenger came; returns the world at its end."""
    worlds = []

    async def arrive(world: Neighbours) -> None:
        world.challenge()
        world.later = [(seconds, act)]
        worlds.append(world)

    meddled(arrive, reason=reason, words=words, promotes=promotes)
    return worlds[0]


@cache
def challenger() -> str:
    """Name the revision that `challenge` makes: its inputs alone decide it."""
    with tempfile.TemporaryDirectory(prefix="standing-") as place:
        world = open_world(Path(place))

        async def go() -> set[str]:
            before = {m["metadata"]["name"] for m in await world.store.list("ModelRevision")}
            world.challenge()
            await world.run(0)
            return {m["metadata"]["name"] for m in await world.store.list("ModelRevision")} - before

        try:
            (name,) = asyncio.run(go())
        finally:
            world.store.close()
    return name
