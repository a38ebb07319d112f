"""Kill the operator before and after every write to the API server of a whole story, and compare the end (F1).

Plays the story once without a kill to learn the writes, then again and again with kills, several in each stage of
one run and never both moments of one write; a run that went wrong is played again with each of its kills alone.
Then the API server goes away for ten minutes, once (F11).  Prints what was tried; exits with 1 if anything was
violated.  Results are kept, so that a run which was broken off goes on where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.cluster.control_plane import ControlPlane
from tests.cluster.definitions import apply_definitions
from tests.cluster.namespaces import made, unmade
from tests.crash.crash_enumeration import batches, say
from tests.faults.crashes import Point, Result, tell
from tests.faults.outage import outage
from tests.support.mlflow_shared import tracking_uri

SEED = 20260302
SHOWN_MOST = 30


class Bench:
    """A directory with the results, and the servers of this run."""

    def __init__(self, home: Path) -> None:
        self.home = home.absolute()
        self.home.mkdir(parents=True, exist_ok=True)
        self.results = self.home / "results.jsonl"
        self._plane: ControlPlane | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run a control plane."""
        place = self.home / "control-plane"
        shutil.rmtree(place, ignore_errors=True)
        self._plane = ControlPlane.start(place)
        try:
            apply_definitions(self._plane)
            yield
        finally:
            self._plane.stop()
            shutil.rmtree(place, ignore_errors=True)

    @contextlib.contextmanager
    def place(self, name: str) -> Iterator[tuple[ControlPlane, str, Path, str]]:
        """Make a namespace and a directory, which stays when it is kept by name in `wrong`."""
        assert self._plane is not None
        namespace = f"{name}-{secrets.token_hex(3)}"
        directory = self.home / "runs" / namespace
        directory.mkdir(parents=True)
        made(self._plane, namespace)
        try:
            yield self._plane, namespace, directory, tracking_uri()
        finally:
            unmade(self._plane, namespace)

    def play(self, name: str, points: list[Point]) -> Result:
        """Play the story once; a run that went wrong is kept to look at."""
        with self.place(name) as (plane, namespace, directory, uri):
            result = tell(plane, namespace, directory, uri, points)
        if not result.wrong:
            shutil.rmtree(directory)
        return result

    def writes(self) -> list[tuple[int, str, int]]:
        """List the writes of a run without a kill, played once."""
        kept = self.home / "writes.json"
        if not kept.exists():
            say("playing the story without a kill")
            result = self.play("clean", [])
            if result.wrong:
                raise SystemExit(f"the clean run failed: {result.wrong}")
            kept.write_text(json.dumps(result.writes))
        return [(int(s), str(n), int(o)) for s, n, o in json.loads(kept.read_text())]

    def done(self) -> list[dict[str, Any]]:
        """Read the results so far."""
        return (
            [json.loads(line) for line in self.results.read_text().splitlines()] if self.results.exists() else []
        )

    def keep(self, result: dict[str, Any]) -> None:
        """Add a result."""
        with self.results.open("a") as out:
            out.write(json.dumps(result) + "\n")


def all_points(writes: list[tuple[int, str, int]]) -> list[Point]:
    """List every write twice, in an order that a seed decides."""
    points: list[Point] = [(s, n, o, m) for m in ("before", "after") for s, n, o in writes]
    random.Random(SEED).shuffle(points)
    return points


def still_to_play(points: list[Point], done: list[dict[str, Any]], together: int) -> list[list[Point]]:
    """Divide the points that no run has reached; those that one has missed come alone or in smaller company.

    Each kill repeats writes and so shifts what comes later.
    """
    asked = [tuple(p) for d in done for p in d["points"]]
    reached = {tuple(p) for d in done for p in d["reached"]}
    left = [p for p in points if p not in reached]
    fresh = [p for p in left if p not in asked]
    if fresh:
        return batches(fresh, together)
    return batches([p for p in left if asked.count(p) < 3], 1)


def enumerate_points(bench: Bench, together: int, limit_s: float, only: str) -> None:
    """Play runs until all points are done or the time is up."""
    began = time.monotonic()
    points = [p for p in all_points(bench.writes()) if re.search(only, f"{p[0]} {p[1]} {p[2]} {p[3]}")]
    say(f"{len(points)} points")
    while (left := still_to_play(points, bench.done(), together)) and time.monotonic() - began < limit_s:
        result = bench.play("run", left[0])
        alone = []
        if result.wrong and len(left[0]) > 1:
            alone = [(p, bench.play("alone", [p]).wrong) for p in result.reached]
        bench.keep({**asdict(result), "alone": alone})
        verdict = "VIOLATION" if result.wrong else "the same end"
        say(
            f"{len(result.reached)} of {len(result.points)} kills, {verdict}, {result.seconds:.0f} s; "
            f"{len(left) - 1} runs to go"
        )
        for what in result.wrong:
            say(f"  {what[:1500]}")


def go_away(bench: Bench, seconds: float) -> None:
    """Play the outage and keep what it came to."""
    with bench.place("outage") as (plane, namespace, directory, uri):
        found = outage(plane, namespace, directory, uri, seconds)
    bench.keep({"points": [], "reached": [], "writes": [], "outage": asdict(found), **asdict(found)})
    say(f"the API server was away for {seconds:.0f} s; all converged {found.converged_s:.1f} s after its return")


def summary(bench: Bench) -> int:
    """Print what was found so far; returns the number of violations."""
    kept = bench.home / "writes.json"
    writes = [tuple(w) for w in json.loads(kept.read_text())] if kept.exists() else []
    results = bench.done()
    asked = {(*w, m) for w in writes for m in ("before", "after")}
    tried = {tuple(p) for r in results for p in r["reached"]} & asked
    wrong = [r for r in results if r["wrong"]]
    outages = [r["outage"] for r in results if r.get("outage")]
    say(f"writes of the story    {len(writes)} under {len({n for _, n, _ in writes})} names, in 4 stages")
    say(f"points                 {len(asked)}: before and after each")
    say(f"tried                  {len(tried)}, in {len(results) - len(outages)} runs")
    # How many statuses and events a stage has differs a little from run to run, so some writes do not come again.
    for point in sorted(asked - tried)[:SHOWN_MOST]:
        say(f"  not reached          {point}")
    for one in outages:
        away, after = one["seconds_away"], one["converged_s"]
        say(f"API server away        {away:.0f} s; converged {after:.1f} s after its return")
    say(f"violations             {len(wrong)}")
    for result in wrong:
        names = [p for p, what in result.get("alone", ()) if what] or result["reached"]
        say(f"VIOLATION at {names}:")
        for what in result["wrong"]:
            say(f"  {what[:1500]}")
    return len(wrong)


def main() -> int:
    """Run from the command line; the exit code is 1 if there was a violation."""
    parser = argparse.ArgumentParser(description="Kill the operator at every write and compare the end.")
    parser.add_argument("--dir", type=Path, default=Path(".mainspring/faults"), help="where results are kept")
    parser.add_argument("--together", type=int, default=4, help="kills in each stage of one run; 1: alone")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no run after that long")
    parser.add_argument("--only", default="", help="expression that `<stage> <write> <n> <moment>` must contain")
    parser.add_argument("--away", type=float, default=600.0, help="how long the API server is away; 0: never")
    parser.add_argument("--summary", action="store_true", help="only print what was found so far")
    given = parser.parse_args()
    bench = Bench(given.dir)
    if not given.summary:
        with bench.running():
            enumerate_points(bench, given.together, given.minutes * 60, given.only)
            if given.away and not any(r.get("outage") for r in bench.done()):
                go_away(bench, given.away)
    return 1 if summary(bench) else 0


if __name__ == "__main__":
    sys.exit(main())
