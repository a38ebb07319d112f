"""The operator beside a bare asyncio watch loop on one API server: start, memory, rest, and a change's way.

`python -m benchmarks.cluster --models 1000`.  Both look after the same fleet of served models, one after the other
and in turn, round after round; both list and watch the same kinds and ask the same questions outside.  Only the
ratios say something about the code.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks import fleet
from benchmarks.watched import Watched, end_with_parent
from controller.api.meta import FIELD_MANAGER, LABEL_MANAGED_BY
from controller.clients.kube_kinds import resource_of
from controller.reconcile.cache import KINDS, OURS
from tests.cluster.control_plane import ControlPlane
from tests.cluster.definitions import apply_definitions
from tests.support.git_repos import GitServer, Scratch

ROOT = Path(__file__).parents[1]
SETTLED_S = 5.0
"""So long without a request, and the first lists are over."""
SETTLED_WITHIN_S = 120.0
START_WITHIN_S = 900.0
POLL_S = 0.25
"""When the last model was asked about is read off the stand-in for MLflow: this only says how often it is read."""


@dataclass
class Found:
    """What was measured of one program, over all rounds."""

    start_s: list[float] = field(default_factory=list)
    start_cpu_s: list[float] = field(default_factory=list)
    catch_up_s: list[float] = field(default_factory=list)
    memory_mib: list[float] = field(default_factory=list)
    peak_mib: list[float] = field(default_factory=list)
    rest_cores: list[float] = field(default_factory=list)
    rest_reads: list[int] = field(default_factory=list)
    rest_writes: list[int] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    changes_ms: list[float] = field(default_factory=list)

    def p99_ms(self) -> float:
        """Return the 99th percentile of the way of a change, ms."""
        return statistics.quantiles(self.changes_ms, n=100)[98]


class Place:
    """The server, the fleet on it, and what stands around it."""

    def __init__(self, stack: ExitStack, models: int, interval_s: int) -> None:
        self.models, self.interval_s = models, interval_s
        self.scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-")))
        Scratch.create(self.scratch / "git" / fleet.REPOSITORY).commit(dict(fleet.FILES))
        git = stack.enter_context(GitServer(self.scratch / "git"))
        self.plane = ControlPlane.start(self.scratch / "plane", controllers=False, audit=True)
        stack.callback(self.plane.stop)
        apply_definitions(self.plane)
        self.key = self.scratch / "key.pem"
        made = fleet.build(self.scratch, git, interval=f"{interval_s}s")
        file = self.scratch / "fleet.json"
        file.write_text(json.dumps({"ledger": made.ledger, "digest": made.digest}))
        command = [sys.executable, "-m", "benchmarks.outside", str(file), str(models), str(self.key)]
        outside = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, preexec_fn=end_with_parent
        )
        stack.callback(outside.wait)
        stack.callback(outside.terminate)
        assert outside.stdout is not None
        self.port = int(outside.stdout.readline())
        fleet.make_namespace(self.plane)
        asyncio.run(fleet.seed(self.plane, made.at(self.port), range(models)))

    def asked(self, *, forget: bool = False) -> dict[str, Any]:
        """Ask the stand-in for MLflow about how many models it was asked."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", f"/asked{'?forget=1' if forget else ''}")
            said: dict[str, Any] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return said

    def operator(self, name: str) -> Watched:
        """Start the operator."""
        return operator(self.scratch, self.plane, self.port, self.key, name)

    def bare(self, name: str, questions: str = "") -> Watched:
        """Start the bare loop."""
        selector = f"labelSelector={LABEL_MANAGED_BY}%3D{FIELD_MANAGER}"
        paths = {
            kind: f"{resource_of(kind).path(fleet.NAMESPACE)}?{'' if kind in OURS else selector}" for kind in KINDS
        }
        told = {
            "PATHS": json.dumps(paths),
            "NAMESPACE": fleet.NAMESPACE,
            "MLFLOW": f"http://127.0.0.1:{self.port}",
            "RESYNC": str(self.interval_s),
            "QUESTIONS": questions,
        }
        command = [sys.executable, str(ROOT / "benchmarks" / "bare.py")]
        return Watched(command, clean(self.plane) | told, self.scratch / f"{name}.log")


def operator(scratch: Path, plane: ControlPlane, port: int, key: Path, name: str) -> Watched:
    """Start the operator beside a server and a stand-in for MLflow on a port of loopback."""
    settings = {
        "NAMESPACES": fleet.NAMESPACE,
        "LEASE_NAMESPACE": fleet.NAMESPACE,
        "TRACKING_URI": f"http://127.0.0.1:{port}",
        "SIGNING_KEY": str(key),
        "MIRRORS": str(scratch / "mirrors-operator"),
        "METRICS_HOST": "127.0.0.1",
        "METRICS_PORT": "0",
        "HEALTH_PORT": "0",
        "ALLOWED_HOSTS": "127.0.0.1",
        "GIT_PROTOCOLS": "http",
        "LOG_FORMAT": "text",
        "IDENTITY": name,
    }
    env = clean(plane) | {f"MAINSPRING_{key}": value for key, value in settings.items()}
    return Watched([sys.executable, "-m", "controller.reconcile"], env, scratch / f"{name}.log")


def clean(plane: ControlPlane) -> dict[str, str]:
    """Build an environment that names the server and nothing of ours."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MAINSPRING_", "KUBE"))}
    return kept | {"KUBECONFIG": str(plane.kubeconfig), "PYTHONPATH": str(ROOT)}


@contextmanager
def place(models: int, interval_s: int) -> Iterator[Place]:
    """Have a fleet, and nothing left of it afterwards."""
    with ExitStack() as stack:
        yield Place(stack, models, interval_s)


def start(at: Place, program: Watched, found: Found) -> None:
    """Wait until every ModelSpec was looked at: MLflow was asked about each."""
    deadline = time.time() + START_WITHIN_S
    while (said := at.asked())["models"] < at.models:
        program.check()
        assert time.time() < deadline, f"{said}: {program.log.read_text()[-3000:]}"
        time.sleep(POLL_S)
    found.start_s.append(said["at"] - program.began)
    found.start_cpu_s.append(program.cpu_s())


class Audit:
    """What the program asks of the API server, read from where the last reading ended."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._at = log.stat().st_size

    def new(self) -> list[dict[str, Any]]:
        """Return the requests since the last call."""
        with self._log.open("rb") as file:
            file.seek(self._at)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._at += len(whole)
        return [event for event in map(json.loads, whole.splitlines()) if ours(event)]


def rest(at: Place, program: Watched, found: Found, seconds: float) -> None:
    """Leave it alone and count what it does, once its first lists are over."""
    audit, deadline = Audit(at.plane.audit_log), time.time() + SETTLED_WITHIN_S
    while True:
        time.sleep(SETTLED_S)
        if not audit.new() or time.time() > deadline:
            break
    at.asked(forget=True)
    cpu, began = program.cpu_s(), time.time()
    time.sleep(seconds)
    found.rest_cores.append((program.cpu_s() - cpu) / (time.time() - began))
    found.asked.append(at.asked()["requests"])
    events = audit.new()
    found.rest_reads.append(sum(e["verb"] in ("get", "list") for e in events))
    found.rest_writes.append(sum(e["verb"] not in ("get", "list") for e in events))
    found.memory_mib.append(program.resident_mib())
    found.peak_mib.append(program.peak_mib())


def ours(event: dict[str, Any]) -> bool:
    """Tell whether an audit event is a request of the program about objects.

    No watch, no Lease, and no Secret: Secrets are never watched, so that one is read now and then, per namespace.
    """
    told, agent = event.get("objectRef") or {}, event.get("userAgent", "")
    if not agent.startswith(("mainspring", "kopf", "bare")) or event["verb"] == "watch":
        return False
    return told.get("resource") not in ("leases", "secrets", None)


async def catch_up(at: Place, begin: Callable[[], Watched], found: Found) -> None:
    """Change every spec while nobody looks, start the program, wait until every status is of its generation."""
    path = resource_of("ModelSpec").path(fleet.NAMESPACE)
    body = json.dumps({"spec": {"source": {"timeout": f"{30 + time.time_ns() % 9999}s"}}})
    media, pace = {"Content-Type": "application/merge-patch+json"}, asyncio.Semaphore(fleet.AT_ONCE)
    async with fleet.session(at.plane) as api:

        async def one(number: int) -> int:
            async with pace, api.patch(f"{path}/{fleet.name_of(number)}", data=body, headers=media) as answer:
                return int((await answer.json())["metadata"]["resourceVersion"])

        version = max(await asyncio.gather(*(one(n) for n in range(at.models))))
        query = {"watch": "true", "resourceVersion": str(version)}
        written: set[str] = set()
        with begin() as program:
            async with api.get(path, params=query, timeout=aiohttp.ClientTimeout(total=START_WITHIN_S)) as answer:
                waiting = b""
                async for chunk in answer.content.iter_any():
                    *lines, waiting = (waiting + chunk).split(b"\n")
                    for item in (json.loads(line)["object"] for line in lines):
                        if (item.get("status") or {}).get("observedGeneration") == item["metadata"]["generation"]:
                            written.add(item["metadata"]["name"])
                    if len(written) == at.models:
                        break
            program.check()
            found.catch_up_s.append(time.time() - program.began)


async def changes(at: Place, program: Watched, found: Found, count: int) -> None:
    """Change one spec after the other and wait until its status is of the new generation."""
    path = resource_of("ModelSpec").path(fleet.NAMESPACE)
    async with fleet.session(at.plane) as api:
        async with api.get(path, params={"limit": "1"}) as answer:
            version = (await answer.json())["metadata"]["resourceVersion"]
        written: dict[tuple[str, int], float] = {}
        arrived = asyncio.Event()
        query = {"watch": "true", "resourceVersion": version}
        timeout = aiohttp.ClientTimeout(total=None)

        async def listen() -> None:
            async with api.get(path, params=query, timeout=timeout) as answer:
                waiting = b""
                async for chunk in answer.content.iter_any():
                    *lines, waiting = (waiting + chunk).split(b"\n")
                    for line in lines:
                        item = json.loads(line)["object"]
                        seen = (item.get("status") or {}).get("observedGeneration", 0)
                        written.setdefault((item["metadata"]["name"], seen), time.perf_counter())
                    arrived.set()

        listening = asyncio.create_task(listen())
        for number in range(count):
            name = fleet.name_of(number * 7919 % at.models)
            begun = time.perf_counter()
            body = json.dumps({"spec": {"source": {"timeout": f"{30 + time.time_ns() % 9999}s"}}})
            media = {"Content-Type": "application/merge-patch+json"}
            async with api.patch(f"{path}/{name}", data=body, headers=media) as answer:
                wanted = (name, (await answer.json())["metadata"]["generation"])
            while wanted not in written:
                program.check()
                arrived.clear()
                await asyncio.wait_for(arrived.wait(), 60)
            found.changes_ms.append((written[wanted] - begun) * 1000)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


def measure(models: int, rounds: int, rest_s: float, change_count: int, interval_s: int = 60) -> dict[str, Found]:
    """Measure both in turn."""
    found = {"operator": Found(), "bare loop": Found()}
    with place(models, interval_s) as at:
        for number in range(rounds):
            for name, begin in (("bare loop", at.bare), ("operator", at.operator)):
                at.asked(forget=True)
                with begin(f"{name.replace(' ', '-')}-{number}") as program:
                    start(at, program, found[name])
                    rest(at, program, found[name], rest_s)
                    asyncio.run(changes(at, program, found[name], change_count))
                again = functools.partial(begin, f"{name.replace(' ', '-')}-{number}-again")
                asyncio.run(catch_up(at, again, found[name]))
    return found


def table(found: dict[str, Found]) -> str:
    """Write both and the ratios."""
    us, floor = found["operator"], found["bare loop"]
    rows = [
        ("start to all reconciled, s", us.start_s, floor.start_s),
        ("start with all specs changed, s", us.catch_up_s, floor.catch_up_s),
        ("processor for the first start, s", us.start_cpu_s, floor.start_cpu_s),
        ("memory at rest, MiB", us.memory_mib, floor.memory_mib),
        ("most memory, MiB", us.peak_mib, floor.peak_mib),
        ("processor at rest, cores", us.rest_cores, floor.rest_cores),
        (
            "spec change to status, p50, ms",
            [statistics.median(us.changes_ms)],
            [statistics.median(floor.changes_ms)],
        ),
        ("spec change to status, p99, ms", [us.p99_ms()], [floor.p99_ms()]),
    ]
    lines = [f"{'':32} {'operator':>10} {'bare loop':>10} {'ratio':>7}"]
    for name, ours_, theirs in rows:
        a, b = statistics.median(ours_), statistics.median(theirs)
        # Below a thousandth, the kernel's ticks are all that a ratio would show.
        ratio = f"{a / b:.2f}" if b >= 0.001 else "-"
        lines.append(f"{name:32} {a:>10.3f} {b:>10.3f} {ratio:>7}")
    lines.append(f"requests at rest: writes {us.rest_writes}, reads {us.rest_reads}; to MLflow {us.asked}")
    lines.append(f"      bare loop: writes {floor.rest_writes}, reads {floor.rest_reads}; to MLflow {floor.asked}")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, nargs="+", default=[1000])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--rest", type=float, default=65.0, help="seconds")
    parser.add_argument("--changes", type=int, default=200)
    parser.add_argument("--interval", type=int, default=60, help="of the ModelSpecs' look at Git, seconds")
    told = parser.parse_args()
    for models in told.models:
        result = measure(models, told.rounds, told.rest, told.changes, told.interval)
        print(f"{models} ModelSpecs\n{table(result)}", flush=True)
