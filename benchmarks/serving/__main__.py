"""Model servers side by side: requests/s, latency, processor time per request, memory.

`python -m benchmarks.serving`.  Each server is started once for each model and asked in turn, round after round,
with 1 and 16 connections and 1 and 100 rows.  Ours logs every prediction, unless its row says otherwise; processor
time is that of all processes of a server, its shipper of the log included.  The client takes from the same cores:
rates are lower bounds, processor time per request is what to compare.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.serving import models, servers
from benchmarks.serving.servers import ROOT, Running

CASES = tuple((connections, rows) for rows in models.ROWS for connections in (1, 16))
"""Connections and rows of a request."""
WARM_S = 0.5


@dataclass
class Measured:
    """One server in one case, over all rounds."""

    rate: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)


Found = dict[str, dict[tuple[int, int], Measured]]


def ask(server: Running, directory: Path, connections: int, rows: int, seconds: float) -> dict[str, float]:
    """Ask a server for so many seconds; returns what the client saw, and `cpu_us` per request."""
    body = directory / f"{server.kind.body}-{rows}.json"
    given = [server.port, server.kind.path, body, connections, seconds]
    before = server.cpu_s()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.serving.client", *map(str, given)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    assert not found["failed"], f"{server.kind.name}: {found['failed']} of {found['requests']}: {found['said']}"
    found["cpu_us"] = (server.cpu_s() - before) / found["requests"] * 1e6
    return found


def measure(directory: Path, name: str, rounds: int, seconds: float, only: str) -> tuple[Found, dict[str, float]]:
    """Measure all servers with one model; returns figures by server and case, and memory in MiB by server."""
    found: Found = {}
    memory: dict[str, float] = {}
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        started: list[Running] = []
        for number, kind in enumerate(servers.kinds(directory, name, scratch)):
            if only and only not in kind.name and kind.name != "floor":
                continue
            started.append(stack.enter_context(servers.running(kind, directory, scratch / f"{number}.log")))
            print(f"{name}: {kind.name} answers", file=sys.stderr, flush=True)
        for number in range(rounds):
            for connections, rows in CASES:
                for server in started:
                    ask(server, directory, connections, rows, WARM_S)
                    seen = ask(server, directory, connections, rows, seconds)
                    kept = found.setdefault(server.kind.name, {}).setdefault((connections, rows), Measured())
                    for key in ("rate", "p50_ms", "p99_ms", "cpu_us"):
                        getattr(kept, key).append(seen[key])
            print(f"{name}: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        memory = {server.kind.name: server.resident_mib() for server in started}
    return found, memory


def table(found: Found, memory: dict[str, float]) -> str:
    """Write one table for each case: medians, and processor time as a multiple of the floor's."""
    lines: list[str] = []
    for connections, rows in CASES:
        lines.append(f"rows in a request: {rows}, connections: {connections}")
        head = f"  {'':28} {'requests/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'CPU us':>8} {'x floor':>8} {'MiB':>6}"
        lines.append(head)
        floor = statistics.median(found["floor"][connections, rows].cpu_us)
        for name, cases in found.items():
            got = cases[connections, rows]
            rate, p50, p99, cpu = map(statistics.median, (got.rate, got.p50_ms, got.p99_ms, got.cpu_us))
            times = f"{rate:10,.0f} {p50:8.2f} {p99:8.2f} {cpu:8,.0f} {cpu / floor:8.1f}"
            lines.append(f"  {name:28} {times} {memory[name]:6,.0f}")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.serving", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each case")
    parser.add_argument("--models", nargs="+", default=["linear", "trees"])
    parser.add_argument("--only", default="", help="only servers whose name has this, and the floor")
    given = parser.parse_args()
    if not given.only and (why := servers.install_peers()):
        print(f"MLServer and BentoML are left out: {why}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as scratch:
        models.write(directory := Path(scratch) / "models")
        for name in given.models:
            found, memory = measure(directory, name, given.rounds, given.seconds, given.only)
            print(f"\n{name}\n{table(found, memory)}", flush=True)


if __name__ == "__main__":
    main()
