"""What the loop costs: from a commit to Ready, against the same steps run by hand, one after the other.

`python -m benchmarks.loop`.  The training takes 20 seconds by itself.  By hand means: the very commands of the
Job's containers and of the server, as the runner recorded them, started one after the other without a controller.
The second figure is a `git revert`: from the commit until it is served, against the start of a server.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.git_repos import Scratch
from tests.support.linear_model import TRAIN, csv, model, rows
from tests.support.local_mode import Local, fresh

SLOW = TRAIN + b"import time\ntime.sleep(20)\n"
OTHER = SLOW + b"# another\n"


@dataclass(frozen=True)
class Cost:
    """Seconds, as measured."""

    loop: float
    by_hand: float
    revert: float
    server: float


def measure(scratch: Path) -> Cost:
    """Run the loop, the same by hand, and a revert."""
    local, repository = fresh(scratch / "local"), Scratch.create(scratch / "models.git")
    try:
        files = {"rows.csv": csv(rows()), "train.py": SLOW}
        described = {"model.yaml": json.dumps(model(repository.url)).encode()}
        repository.commit(files)
        local.start("--repo", repository.url, "--interval", "1s")
        local.until("the first look", lambda: local.all("ModelRepository"))
        local.until(
            "the first sync", lambda: (local.all("ModelRepository")[0].get("status") or {}).get("revision")
        )
        began = time.monotonic()
        first = repository.commit({**files, **described})
        found = local.until_condition("Succeeded", commit=first)
        loop = time.monotonic() - began
        by_hand, server = replay(local, found["status"]["champion"]["revision"])
        second = repository.commit({**files, **described, "train.py": OTHER})
        local.until_condition("Succeeded", commit=second)
        began = time.monotonic()
        third = repository.commit({**files, **described})
        local.until_condition("Succeeded", commit=third)
        return Cost(loop, by_hand, time.monotonic() - began, server)
    finally:
        local.end()


def replay(local: Local, revision: str) -> tuple[float, float]:
    """Run the recorded commands of a revision's Job and server again; seconds of all, and of the server alone."""
    pods = local.state / "pods" / "default"
    job = next(p for p in pods.iterdir() if p.name.startswith(f"{revision}-train-"))
    servers = next(p for p in pods.iterdir() if p.name.startswith(revision) and "-train-" not in p.name)
    steps = _run_steps(job)
    server = _start_server(servers)
    return steps + server, server


def _run_steps(pod: Path) -> float:
    copy = pod.with_name(f"{pod.name}-by-hand")
    shutil.copytree(pod, copy, ignore=shutil.ignore_patterns("volumes", "*.log", "lock"))
    for volume in (pod / "volumes").iterdir():
        kept = volume.name == "tasks"
        if kept:
            shutil.copytree(volume, copy / "volumes" / volume.name)
        else:
            (copy / "volumes" / volume.name).mkdir(parents=True)
    plan = json.loads((copy / "plan.json").read_text().replace(str(pod), str(copy)))
    began = time.monotonic()
    for container in plan["containers"]:
        done = _command(container)
        assert done.returncode == 0, (
            f"{container['name']} by hand ended with {done.returncode}: {done.stderr[-400:]!r}"
        )
    return time.monotonic() - began


def _command(container: dict[str, Any]) -> subprocess.CompletedProcess[bytes]:
    Path(container["cwd"]).mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        container["argv"], cwd=container["cwd"], env=container["env"], capture_output=True, check=False
    )


def _start_server(pod: Path) -> float:
    copy = pod.with_name(f"{pod.name}-by-hand")
    shutil.copytree(pod, copy, ignore=shutil.ignore_patterns("volumes", "*.log", "lock"))
    (copy / "volumes" / "artifact").mkdir(parents=True)
    fetch, server = json.loads((copy / "plan.json").read_text().replace(str(pod), str(copy)))["containers"]
    server["env"]["PORT"] = port = "18765"
    began = time.monotonic()
    assert _command(fetch).returncode == 0
    running = subprocess.Popen(
        server["argv"], cwd=fetch["cwd"], env=server["env"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while time.monotonic() - began < 60:
            with suppress(OSError):  # it does not listen yet, or is not ready (503)
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=1).close()
                return time.monotonic() - began
            time.sleep(0.02)
        raise AssertionError("the server by hand was not ready within 60 s")
    finally:
        running.terminate()
        running.wait()


def text(cost: Cost) -> str:
    """Write the two figures with their ratio and difference."""
    return (
        f"commit to Ready       {cost.loop:6.1f} s   by hand {cost.by_hand:6.1f} s   "
        f"ratio {cost.loop / cost.by_hand:.2f}\n"
        f"git revert to served  {cost.revert:6.1f} s   server  {cost.server:6.1f} s   "
        f"above it {cost.revert - cost.server:.1f} s"
    )


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as directory:
        print(text(measure(Path(directory))))
