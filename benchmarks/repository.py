"""A commit's way into the cluster: from the push of 1 and of 100 ModelSpecs until the API server has all of them.

`python -m benchmarks.repository`.  A ModelRepository whose look at Git is an hour away is asked by its annotation,
as a webhook asks.  Beside it, in the same run, stands what nobody can do without: fetch the commit and apply its
files, by hand and nothing else.  The repository has 100 directories in either case.  The ModelSpecs are suspended,
so that nothing but the sync is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks import fleet
from benchmarks.cluster import ROOT, operator
from benchmarks.watched import Watched, end_with_parent
from controller.api.meta import ANNOTATION_REQUESTED_AT, API_VERSION, Manifest
from controller.clients.kube_kinds import resource_of
from tests.cluster.control_plane import ControlPlane
from tests.cluster.definitions import apply_definitions
from tests.support.git_repos import ENV, GitServer, Scratch
from tests.support.stories import spec

DIRECTORIES = 100
FLUX_S = {1: "0.40 (0.35 to 0.52)", 100: "20 to 21"}
"""Flux on the same kind of server, one Kustomization for each directory; measured once, on a busy machine."""
APPLY = {"Content-Type": "application/apply-patch+yaml"}
WITHIN_S = 120.0


@dataclass
class Way:
    """What was measured for so many ModelSpecs."""

    operator_s: list[float] = field(default_factory=list)
    by_hand_s: list[float] = field(default_factory=list)
    git_requests: list[int] = field(default_factory=list)


class Place:
    """A server without controllers, a Git server, and an operator that leads."""

    def __init__(self, stack: ExitStack) -> None:
        self.scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="repository-")))
        self.origin = Scratch.create(self.scratch / "git" / fleet.REPOSITORY)
        self.git = stack.enter_context(GitServer(self.scratch / "git"))
        self.commit("0")
        self.plane = ControlPlane.start(self.scratch / "plane", controllers=False)
        stack.callback(self.plane.stop)
        apply_definitions(self.plane)
        template = self.scratch / "fleet.json"
        template.write_text(json.dumps({"ledger": [{"version": ""}], "digest": ""}))
        command = [sys.executable, "-m", "benchmarks.outside", str(template), "0", str(self.scratch / "key.pem")]
        outside = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, preexec_fn=end_with_parent
        )
        stack.callback(outside.wait)
        stack.callback(outside.terminate)
        assert outside.stdout is not None
        self.port = int(outside.stdout.readline())
        fleet.make_namespace(self.plane)

    def commit(self, word: str) -> None:
        """Commit all directories, each ModelSpec with this word in it."""
        files = {f"m{n:03d}/model.yaml": json.dumps(self.manifest(n, word)).encode() for n in range(DIRECTORIES)}
        self.origin.commit(files)

    def manifest(self, number: int, word: str) -> Manifest:
        """Write one ModelSpec of the repository."""
        manifest = spec(suspend=True)
        manifest["metadata"] = {"name": f"m{number:03d}", "namespace": fleet.NAMESPACE}
        manifest["spec"]["source"] |= {"url": self.git.url(fleet.REPOSITORY), "interval": "1h"}
        manifest["spec"]["training"] = {"command": ["python", "train.py", word]}
        return manifest


async def applied(http: aiohttp.ClientSession, count: int, word: str, version: str) -> None:
    """Wait until so many ModelSpecs carry the word."""
    path = resource_of("ModelSpec").path(fleet.NAMESPACE)
    query = {"watch": "true", "resourceVersion": version}
    have: set[str] = set()
    async with http.get(path, params=query, timeout=aiohttp.ClientTimeout(total=WITHIN_S)) as answer:
        waiting = b""
        async for chunk in answer.content.iter_any():
            *lines, waiting = (waiting + chunk).split(b"\n")
            for line in lines:
                item = json.loads(line)["object"]
                if item["spec"]["training"]["command"][-1] == word:
                    have.add(item["metadata"]["name"])
            if len(have) >= count:
                return
    raise AssertionError(f"{len(have)} of {count}")


async def ask(http: aiohttp.ClientSession, place: Place, count: int, word: str) -> float:
    """Commit, ask, and wait until all is applied; seconds since the commit."""
    path = resource_of("ModelSpec").path(fleet.NAMESPACE)
    async with http.get(path, params={"limit": "1"}) as answer:
        version = (await answer.json())["metadata"]["resourceVersion"]
    waiting = asyncio.create_task(applied(http, count, word, version))
    await asyncio.to_thread(place.commit, word)
    begun = time.perf_counter()
    body = json.dumps({"metadata": {"annotations": {ANNOTATION_REQUESTED_AT: word}}})
    where = f"{resource_of('ModelRepository').path(fleet.NAMESPACE)}/models"
    media = {"Content-Type": "application/merge-patch+json"}
    async with http.patch(where, data=body, headers=media) as answer:
        answer.raise_for_status()
    await waiting
    return time.perf_counter() - begun


async def by_hand(http: aiohttp.ClientSession, place: Place, count: int, word: str) -> float:
    """Fetch a commit into a mirror and apply its files, one after the other; seconds since the commit."""
    await asyncio.to_thread(place.commit, word)
    begun = time.perf_counter()
    mirror, url = place.scratch / "by-hand", place.git.url(fleet.REPOSITORY)

    async def git(*args: str, stdin: bytes = b"") -> bytes:
        process = await asyncio.create_subprocess_exec(
            "git", "-C", str(mirror), *args, stdin=-1, stdout=-1, stderr=-1, env=ENV
        )
        out, _ = await process.communicate(stdin)
        return out

    if not mirror.exists():
        mirror.mkdir()
        await git("init", "-q", "--bare")
    await git("fetch", "-q", "--depth=1", url, "main")
    names = [f"m{n:03d}" for n in range(count)]
    asked = "".join(f"FETCH_HEAD:{name}/model.yaml\n" for name in names).encode()
    found = await git("cat-file", "--batch", stdin=asked)
    path = resource_of("ModelSpec").path(fleet.NAMESPACE)
    texts = [line for line in found.split(b"\n") if line.startswith(b"{")]
    for name, text in zip(names, texts, strict=True):
        query = {"fieldManager": "by-hand", "force": "true"}
        async with http.patch(f"{path}/{name}", params=query, data=text, headers=APPLY) as answer:
            answer.raise_for_status()
    return time.perf_counter() - begun


def repository(place: Place, count: int) -> Manifest:
    """Write a ModelRepository of one directory or of all."""
    path = "m000" if count == 1 else "."
    source = {"url": place.git.url(fleet.REPOSITORY), "ref": {"branch": "main"}, "path": path, "interval": "1h"}
    meta = {"name": "models", "namespace": fleet.NAMESPACE}
    return {"apiVersion": API_VERSION, "kind": "ModelRepository", "metadata": meta, "spec": source}


@contextmanager
def running(place: Place, count: int) -> Iterator[Watched]:
    """Have an operator that has applied the repository once; its objects are gone afterwards."""
    with operator(place.scratch, place.plane, place.port, place.scratch / "key.pem", f"sync-{count}") as process:
        where = resource_of("ModelRepository").path(fleet.NAMESPACE)
        place.plane.apply(repository(place, count), where)
        deadline = time.monotonic() + WITHIN_S
        while not ready(place):
            process.check()
            assert time.monotonic() < deadline, process.log.read_text()[-3000:]
            time.sleep(0.2)
        yield process
    for kind in ("ModelRepository", "ModelSpec"):
        place.plane.request("DELETE", resource_of(kind).path(fleet.NAMESPACE))


def ready(place: Place) -> bool:
    """Tell whether the repository is applied."""
    found: dict[str, Any] = place.plane.request(
        "GET", f"{resource_of('ModelRepository').path(fleet.NAMESPACE)}/models"
    )
    conditions = (found.get("status") or {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def measure(rounds: int, counts: tuple[int, ...] = (1, 100)) -> dict[int, Way]:
    """Measure all counts, the operator and the work by hand in turn."""
    found = {count: Way() for count in counts}
    with ExitStack() as stack:
        place = Place(stack)

        async def go(count: int, way: Way) -> None:
            async with fleet.session(place.plane) as http:
                for number in range(rounds + 1):
                    before = len(place.git.seen)
                    ours = await ask(http, place, count, f"{count}-{number}-asked")
                    requests = len(place.git.seen) - before
                    theirs = await by_hand(http, place, count, f"{count}-{number}-by-hand")
                    if number:
                        way.operator_s.append(ours)
                        way.by_hand_s.append(theirs)
                        way.git_requests.append(requests)

        for count, way in found.items():
            with running(place, count):
                asyncio.run(go(count, way))
    return found


def table(found: dict[int, Way]) -> str:
    """Write the medians beside Flux's."""
    lines = [
        f"{'ModelSpecs':>10} {'operator, s':>24} {'by hand, s':>11} {'ratio':>6} {'requests to Git':>16}  Flux, s"
    ]
    for count, way in found.items():
        ours, theirs = statistics.median(way.operator_s), statistics.median(way.by_hand_s)
        shown = f"{ours:.2f} ({min(way.operator_s):.2f} to {max(way.operator_s):.2f})"
        requests = statistics.median(way.git_requests)
        flux = FLUX_S.get(count, "")
        lines.append(f"{count:>10} {shown:>24} {theirs:>11.2f} {ours / theirs:>6.2f} {requests:>16.0f}  {flux}")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    print("From a commit and a request until all is applied\n" + table(measure(parser.parse_args().rounds)))
