"""`mainspring demo`: the whole loop on this machine, with a real repository, real data, and traffic all the time.

Each step waits for what status says, checks the promise it is about, and the end is a table.  A lost request or a
broken promise makes it exit non-zero.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

import typer

import controller
from controller.api.meta import LABEL_REVISION, Manifest
from controller.cli.demo_stage import Operator, Repository, Traffic, View, champion, condition, read_rows
from controller.cli.errors import Failure
from controller.local.session import Places

STEP_LIMIT_S = 150.0
POLL_S = 0.1
Say = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One line of the table at the end."""

    step: str
    happened: str
    seconds: float
    answered: int
    failed: int


class Running(Protocol):
    """The controller, as the steps handle it."""

    def start(self) -> None:
        """Start it, or start it again."""

    def kill(self) -> None:
        """End it at once."""

    def check(self) -> None:
        """Raise when it has ended by itself."""


class Eyes(Protocol):
    """The objects, as the steps read them."""

    async def model(self) -> Manifest | None:
        """Read the ModelSpec; None before there is one."""

    async def list(self, kind: str) -> Sequence[Manifest]:
        """Read all objects of a kind."""


@dataclass
class Stage:
    """What all steps share."""

    repository: Repository
    operator: Running
    traffic: Traffic
    view: Eyes
    say: Say
    limit_s: float = STEP_LIMIT_S

    async def until(self, what: str, ready: Callable[[Manifest], bool]) -> Manifest:
        """Wait until the ModelSpec is as wanted, telling what it says meanwhile.

        Raises:
            Failure: it is not within the limit, or the controller ended.
        """
        end = time.monotonic() + self.limit_s
        told = ""
        while time.monotonic() < end:
            self.operator.check()
            model = await self.view.model()
            if model is not None:
                told = self._tell(model, told)
                if ready(model):
                    return model
            await asyncio.sleep(POLL_S)
        raise Failure(f"waited {self.limit_s:.0f} s for: {what}; last was: {told or 'nothing'}")

    def _tell(self, model: Manifest, told: str) -> str:
        ready = condition(model, "Ready")
        text = f"{ready.get('reason')}: {ready.get('message')}"
        calm = _calm(text)
        if calm != told:
            self.say(f"    {text[:220]}")
        return calm

    async def jobs(self, revision: str = "") -> list[str]:
        """Name the training Jobs, all or of one revision."""
        found = await self.view.list("Job")
        return [j["metadata"]["name"] for j in found if revision in ("", j["metadata"]["labels"][LABEL_REVISION])]


def _calm(text: str) -> str:
    """Leave out what counts down or up, so that a line is told once."""
    return re.sub(r": \d+[hms][0-9a-z]* to go.*|, since .*", "", text)


def is_served(model: Manifest, commit: str) -> bool:
    """Tell whether this commit is what is asked for and what serves."""
    source = (model.get("status") or {}).get("source") or {}
    return condition(model, "Ready").get("status") == "True" and source.get("commit") == commit


def stands_at(model: Manifest, commit: str, reason: str) -> bool:
    """Tell whether this commit was looked at and ended as this reason says."""
    source = (model.get("status") or {}).get("source") or {}
    return source.get("commit") == commit and condition(model, "Ready").get("reason") == reason


async def first_commit(s: Stage) -> str:
    """Commit the example and see it served."""
    commit = s.repository.create()
    s.operator.start()
    model = await s.until("the first commit to be served", lambda m: is_served(m, commit))
    found = champion(model)
    return f"{found['revision']} version {found['version']} serves; gates {found['gates']} passed"


async def readme_only(s: Stage) -> str:
    """Commit a change that makes no other model."""
    before = await s.jobs()
    s.repository.edit("README.md", lambda text: f"{text}\nMaintained by the mobility team.\n")
    commit = s.repository.commit("Say who maintains this")
    model = await s.until("the README commit to be seen", lambda m: is_served(m, commit))
    said = condition(model, "SourceReady")
    if said["reason"] != "NoRelevantChange" or await s.jobs() != before:
        raise Failure(f"a README commit must train nothing, but: {said['message']}")
    return "no relevant change: nothing trained, nothing moved"


async def worse_commit(s: Stage) -> str:
    """Commit a worse model and see it refused."""
    serving = champion(await s.view.model())
    s.repository.patch("worse")
    commit = s.repository.commit("Drop the hour: it is in the time anyway")
    model = await s.until("the worse commit to be refused", lambda m: stands_at(m, commit, "GateFailed"))
    if champion(model)["digest"] != serving["digest"]:
        raise Failure("a refused commit must not touch the champion")
    verdicts = model["status"]["judgement"]["verdicts"]
    bad = [v for v in verdicts if v["outcome"] == "Failed"]
    first = bad[0]["message"].partition(" on ")[0]
    return f"refused by {len(bad)} of {len(verdicts)} gates ({first}); {serving['revision']} keeps serving"


async def better_commit(s: Stage) -> str:
    """Take the worse commit back, commit a better one, and see it take over by canary."""
    commit = s.repository.revert()
    await s.until("the revert of the refused commit", lambda m: is_served(m, commit))
    before = champion(await s.view.model())
    s.repository.patch("better")
    commit = s.repository.commit("Look at the season and the holidays")
    weights: list[int] = []

    def done(model: Manifest) -> bool:
        weight = ((model.get("status") or {}).get("challenger") or {}).get("weight", 0)
        if weight and weight not in weights:
            weights.append(weight)
        return is_served(model, commit)

    model = await s.until("the better commit to take over", done)
    found = champion(model)
    if found["revision"] == before["revision"] or not weights:
        raise Failure("the better commit must take over by canary")
    steps = " → ".join(f"{w}%" for w in [*weights, 100])
    return f"canary {steps}; {found['revision']} is champion"


async def git_revert(s: Stage) -> str:
    """Revert, and see the old bytes serve again without training."""
    before = await s.jobs()
    commit = s.repository.revert()
    model = await s.until("the revert to be served", lambda m: is_served(m, commit))
    found = champion(model)
    if await s.jobs() != before:
        raise Failure("a revert must start no Job")
    return f"{found['revision']} serves again, the same bytes ({found['digest'][:15]}…); 0 Jobs"


async def kill_controller(s: Stage) -> str:
    """Kill the controller in the middle of a training, and see exactly one result."""
    s.repository.patch("better")
    s.repository.edit("deploy/model.yaml", lambda text: text.replace("seed: 42", "seed: 7"))
    commit = s.repository.commit("Season, holidays and another seed")
    await s.until("the training to run", lambda m: stands_at(m, commit, "Training"))
    revision = (await s.view.model() or {})["status"]["source"]["wanted"]
    await _training(s, revision)
    s.operator.kill()
    s.say("    controller killed with SIGKILL; its jobs and servers go on")
    await asyncio.sleep(1.0)
    s.operator.start()
    model = await s.until("the training to end and be served", lambda m: is_served(m, commit))
    jobs = await s.jobs(revision)
    versions = {r["metadata"]["name"]: r["status"].get("version") for r in await s.view.list("ModelRevision")}
    if len(jobs) != 1 or champion(model)["revision"] != revision:
        raise Failure(f"the killed training must have exactly one result, not Jobs {jobs}")
    return f"adopted: 1 Job, 1 version ({versions[revision]}); {revision} is champion"


async def _training(s: Stage, revision: str) -> None:
    """Wait until the training program itself runs."""
    end = time.monotonic() + s.limit_s
    while time.monotonic() < end:
        for pod in await s.view.list("Pod"):
            if pod["metadata"]["labels"].get(LABEL_REVISION) != revision:
                continue
            for status in (pod.get("status") or {}).get("initContainerStatuses", ()):
                if status["name"] == "train" and "running" in status["state"]:
                    return
        await asyncio.sleep(POLL_S)
    raise Failure(f"the training of {revision} did not start within {s.limit_s:.0f} s")


STEPS: tuple[tuple[str, Callable[[Stage], Awaitable[str]]], ...] = (
    ("first commit", first_commit),
    ("README-only commit", readme_only),
    ("a worse commit", worse_commit),
    ("a better commit", better_commit),
    ("git revert", git_revert),
    ("SIGKILL of the controller", kill_controller),
)


def demo_command(
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Directory to play in; default: a new one.")
    ] = None,
) -> None:
    """See the whole loop on this machine, with a model of its own."""
    example = Path(controller.__file__).parent.parent / "examples" / "bikes"
    if not example.exists():
        raise Failure("the example is not here; run the demo from a checkout of the project")
    if shutil.which("git") is None:
        raise Failure("git is not installed; the demo needs it")
    scratch = directory or Path(tempfile.mkdtemp(prefix="mainspring-demo-"))
    scratch.mkdir(parents=True, exist_ok=True)
    raise typer.Exit(asyncio.run(play(scratch.resolve(), example)))


async def play(scratch: Path, example: Path) -> int:
    """Play all steps; returns the exit code."""
    say = _sayer()
    where = Places(scratch / "state", scratch / "data")
    (scratch / "repository").mkdir()
    repository = Repository(scratch / "repository", example)
    operator = Operator(where, repository, scratch / "controller.log")
    traffic = Traffic(read_rows(example / "data" / "bikes.csv", "bikers"))
    view = View(where)
    stage = Stage(repository, operator, traffic, view, say)
    say(f"Playing in {scratch}; everything stops at the end, the directory stays.")
    rows: list[Row] = []
    sending: asyncio.Task[None] | None = None
    problem = ""
    try:
        for number, (name, step) in enumerate(STEPS, 1):
            say(f"\n{number}. {name}")
            began, answered, failed = time.monotonic(), traffic.answered, traffic.failed
            happened = await step(stage)
            if sending is None:
                url = (await stage.view.model() or {})["status"]["url"]
                sending = asyncio.create_task(traffic.run(url))
                say(f"    requests are sent to {url} from now on")
            seconds = time.monotonic() - began
            rows.append(Row(name, happened, seconds, traffic.answered - answered, traffic.failed - failed))
            say(f"  ✓ {happened}")
    except Failure as error:
        problem = error.message
    finally:
        if sending is not None:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        say("\nstopping jobs, servers, router and MLflow")
        operator.stop()
        view.close()
    return _end(rows, traffic, problem, where, operator.log)


def _end(rows: list[Row], traffic: Traffic, problem: str, where: Places, log: Path) -> int:
    _table(rows, traffic)
    print(f"\nLook further:\n  mainspring get --state {where.state} -o wide")
    print(f"  mainspring explain modelspec/bikes --state {where.state}")
    print(
        f"  mainspring up --state {where.state}      # starts it again; then `history`, `predict` and `plan` too"
    )
    print(f"  what the controller said: {log}")
    if problem:
        print(f"\nerror: {problem}", file=sys.stderr)
    for why in traffic.failures[:5]:
        print(f"failed request: {why}", file=sys.stderr)
    return 1 if problem or traffic.failed or len(rows) < len(STEPS) else 0


def _table(rows: list[Row], traffic: Traffic) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE if sys.stdout.isatty() else box.ASCII, show_footer=True)
    total = sum(r.seconds for r in rows)
    table.add_column("Step", footer="all")
    table.add_column("What happened", footer="", overflow="fold")
    table.add_column("Seconds", justify="right", footer=f"{total:.0f}")
    table.add_column("Answered", justify="right", footer=str(traffic.answered))
    table.add_column("Failed", justify="right", footer=str(traffic.failed))
    for row in rows:
        table.add_row(row.step, row.happened, f"{row.seconds:.0f}", str(row.answered), str(row.failed))
    width = None if sys.stdout.isatty() else 118
    Console(width=width, highlight=False).print("\n", table, sep="")


def _sayer() -> Say:
    began = time.monotonic()

    def say(text: str) -> None:
        blank = text.startswith("\n")
        print(f"{chr(10) if blank else ''}{time.monotonic() - began:6.1f}s {text.lstrip(chr(10))}", flush=True)

    return say
