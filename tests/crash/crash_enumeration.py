"""Kills the controller at every write of the story, and compares what it comes to: `make crash`.

A clean run lists the writes and their end.  Then each write is a point twice, before and after it.  A run takes
`--together` points of each stage, is killed at each of them and started again, and must come to the same end; a
run that does not is played again with each of its points alone, so that a violation has a name.  Points that a
run did not come to (how often a status is written depends on the machine) are tried once more.  Results are kept
a line per run, so that what was broken off goes on where it was.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import random
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from controller.local.mlflow_server import MlflowServer
from tests.support.crash_story import STAGES, Outcome, Play, Point

SEED = 20260302
OWN_SERVER = ("start: file", "start: start mlflow", "mlflow experiments/create", "start: create")
"""Writes that only a run with an MLflow server of its own comes to."""


@dataclass
class Result:
    """One run."""

    points: list[Point]
    reached: list[Point]
    seconds: float
    answered: int
    wrong: list[str]
    alone: list[tuple[Point, list[str]]] = field(default_factory=list)
    """What came of each point alone, when all together went wrong."""


class Bench:
    """A directory with the MLflow template, the clean run and the results."""

    def __init__(self, home: Path) -> None:
        self.home = home.absolute()
        self.home.mkdir(parents=True, exist_ok=True)
        self._shared: MlflowServer | None = None
        self._runs = 0

    @contextmanager
    def shared(self, name: str) -> Iterator[None]:
        """Run an MLflow server for all runs that do not need one of their own."""
        home = self.home / f"mlflow-{name}"
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(self.template(), home / "data")
        self._shared = MlflowServer(home / "data", home / "state")
        self._shared.start()
        try:
            yield
        finally:
            self._shared.stop()
            self._shared = None
            shutil.rmtree(home, ignore_errors=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with (self.home / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def template(self) -> Path:
        """Return MLflow's directory with its tables, made once."""
        home = self.home / "template"
        with self._alone():
            if not (home / "ready").exists():
                shutil.rmtree(home, ignore_errors=True)
                server = MlflowServer(home / "data", home / "state")
                server.start()
                server.stop()
                (home / "ready").touch()
        return home / "data"

    def play(self, name: str, points: list[Point], expected: dict[str, Any] | None) -> tuple[Play, Outcome]:
        """Play the story once."""
        self._runs += 1
        own = expected is None or any(start in p[1] for p in points for start in OWN_SERVER)
        home = self.home / "runs" / name
        shutil.rmtree(home, ignore_errors=True)
        home.parent.mkdir(exist_ok=True)
        play = Play(
            home,
            f"line-{name}",
            points,
            mlflow=self.template(),
            shared=None if own else self._shared,
            expected=expected,
        )
        return play, play.run()

    def clean(self) -> tuple[list[tuple[int, str, int]], dict[str, Any]]:
        """Return the writes and the end of a run without a crash, played once."""
        template, kept = self.template(), self.home / "clean.json"
        assert template.exists()
        with self._alone():
            if not kept.exists():
                say("playing the story without a crash")
                play, outcome = self.play_unlocked()
                if outcome.problem or outcome.lost:
                    raise SystemExit(f"the clean run failed: {outcome.problem or outcome.lost[:3]}")
                found = {"writes": play.writes(), "state": outcome.state, "seconds": outcome.seconds}
                kept.write_text(json.dumps(found, indent=1))
                shutil.rmtree(self.home / "runs" / "clean")
        found = json.loads(kept.read_text())
        return [(int(s), str(n), int(o)) for s, n, o in found["writes"]], found["state"]

    def play_unlocked(self) -> tuple[Play, Outcome]:
        """Play the clean run; the caller holds the lock."""
        home = self.home / "runs" / "clean"
        shutil.rmtree(home, ignore_errors=True)
        home.parent.mkdir(exist_ok=True)
        play = Play(home, "line-clean", [], mlflow=self.home / "template" / "data")
        return play, play.run()

    def check(self, name: str, points: list[Point], expected: dict[str, Any]) -> Result:
        """Play with crashes and say what is wrong; a run that went wrong is kept to look at."""
        _, outcome = self.play(name, points, expected)
        wrong = differences(outcome, expected)
        if not wrong:
            shutil.rmtree(self.home / "runs" / name)
        return Result(points, outcome.killed, outcome.seconds, outcome.answered, wrong)


def differences(outcome: Outcome, expected: dict[str, Any]) -> list[str]:
    """Say what of a run is not as it must be."""
    if outcome.problem:
        return [outcome.problem]
    wrong = [
        f"{what}: {outcome.state.get(what)!r}, not {wanted!r}"
        for what, wanted in expected.items()
        if outcome.state.get(what) != wanted
    ]
    if outcome.lost:
        wrong.append(f"{len(outcome.lost)} requests lost: {outcome.lost[0]}")
    return wrong


def batches(points: list[Point], together: int) -> list[list[Point]]:
    """Divide points into runs: at most `together` of each stage, never both moments of one write."""
    made: list[list[Point]] = []
    for moment in ("before", "after"):
        stages = [[p for p in points if p[0] == s and p[3] == moment] for s in range(len(STAGES))]
        runs = max(-(-len(found) // together) for found in stages)
        # Spread evenly, so that no run has all the kills of a long stage and none of a short one.
        made += [[p for found in stages for p in found[run::runs]] for run in range(runs)]
    return [sorted(b) for b in made if b]


def all_points(writes: list[tuple[int, str, int]]) -> list[Point]:
    """List every write twice, in an order that a seed decides."""
    points: list[Point] = [(s, n, o, m) for m in ("before", "after") for s, n, o in writes]
    random.Random(SEED).shuffle(points)
    return points


def enumerate_points(bench: Bench, shard: tuple[int, int], together: int, limit_s: float, only: str = "") -> None:
    """Play this shard's runs, those that are not done yet, until time is up; `only` is searched in the points."""
    writes, expected = bench.clean()
    points = [p for p in all_points(writes) if re.search(only, f"{p[0]} {p[1]} {p[2]} {p[3]}")]
    mine = batches(points, together)[shard[0] - 1 :: shard[1]]
    label = f"-{hashlib.sha256(only.encode()).hexdigest()[:6]}" if only else ""
    file = bench.home / f"results-{shard[0]}-of-{shard[1]}-by-{together}{label}.jsonl"
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    say(f"{len(writes)} writes, {len(points)} points; shard {shard[0]} of {shard[1]}: {len(mine)} runs")
    began, before = time.monotonic(), len(done)
    with bench.shared(f"{shard[0]}-of-{shard[1]}{label}"):
        while (left := still_to_play(mine, done, together)) and time.monotonic() - began < limit_s:
            name = f"{shard[0]}-{len(done) + 1}{label}"
            result = bench.check(name, left[0], expected)
            if result.wrong and len(left[0]) > 1:
                result.alone = find_culprits(bench, name, result.reached, expected)
            with file.open("a") as out:
                out.write(json.dumps(asdict(result)) + "\n")
            done.append(json.loads(json.dumps(asdict(result))))
            eta = (time.monotonic() - began) / (len(done) - before) * (len(left) - 1)
            tell(result, f"run {len(done)}, {len(left) - 1} to go", eta)


def still_to_play(mine: list[list[Point]], done: list[dict[str, Any]], together: int) -> list[list[Point]]:
    """List the runs that are left; when all are done, those of the points that were not reached, once more.

    Each crash repeats writes and so shifts what comes later: the second time there are half as many in a run.
    """
    played = [d["points"] for d in done]
    if fresh := [b for b in mine if [list(p) for p in b] not in played]:
        return fresh
    asked = Counter(tuple(p) for points in played for p in points)
    reached = {tuple(p) for d in done for p in d["reached"]}
    return batches([p for b in mine for p in b if p not in reached and asked[p] < 2], max(1, together // 2))


def tell(result: Result, where: str, eta_s: float) -> None:
    """Print what a run came to."""
    verdict = "VIOLATION" if result.wrong else "the same end"
    crashes = f"{len(result.reached)} of {len(result.points)} crashes"
    say(f"{where}: {crashes}, {verdict}, {result.seconds:.0f} s; ETA {eta_s / 60:.0f} min")
    for what in result.wrong:
        say(f"  {what[:1500]}")
    for point, wrong in result.alone:
        say(f"  alone {point}: {wrong[0][:300] if wrong else 'the same end'}")


def find_culprits(
    bench: Bench, name: str, points: list[Point], expected: dict[str, Any]
) -> list[tuple[Point, list[str]]]:
    """Play a run that went wrong again with each of its points alone."""
    found = []
    for number, point in enumerate(points):
        result = bench.check(f"{name}-alone-{number}", [point], expected)
        found.append((point, result.wrong))
        if result.wrong:
            break
    return found


def summary(bench: Bench) -> int:
    """Print what all shards have found; returns the number of violations."""
    writes, _ = bench.clean()
    results = [json.loads(line) for f in sorted(bench.home.glob("results-*.jsonl")) for line in f.open()]
    tried = {tuple(p) for r in results for p in r["reached"]}
    asked = {tuple(p) for p in all_points(writes)}
    wrong = [r for r in results if r["wrong"]]
    seconds = [r["seconds"] for r in results]
    say(f"writes of the story    {len(writes)} under {len({n for _, n, _ in writes})} names")
    say(f"points                 {len(asked)}: before and after each")
    say(f"tried                  {len(tried & asked)} in {len(results)} runs; {sum(seconds) / 60:.0f} min in all")
    say(f"violations             {len(wrong)}")
    say(f"requests answered      {sum(r['answered'] for r in results)}; lost ones count as violations")
    if seconds:
        say(f"slowest run            {max(seconds):.0f} s")
    for result in wrong:
        names = [p for p, what in result["alone"] if what] or result["reached"]
        say(f"VIOLATION at {names}:")
        for what in result["wrong"]:
            say(f"  {what[:1500]}")
    return len(wrong)


def say(text: str) -> None:
    """Print a line with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main() -> int:
    """Run from the command line; the exit code is 1 if there was a violation."""
    parser = argparse.ArgumentParser(description="Kill the controller at every write and compare the end.")
    parser.add_argument("--dir", type=Path, default=Path(".mainspring/crash"), help="where results are kept")
    parser.add_argument("--shard", default="1/1", help="which part: 2/4 is the second of four")
    parser.add_argument("--together", type=int, default=5, help="crashes in each stage of one run; 1: alone")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no run after that long")
    parser.add_argument(
        "--only", default="", help="expression that a point must contain: '<stage> <write> <n> <moment>'"
    )
    parser.add_argument("--summary", action="store_true", help="only print what was found so far")
    given = parser.parse_args()
    bench = Bench(given.dir)
    if not given.summary:
        number, _, count = given.shard.partition("/")
        enumerate_points(bench, (int(number), int(count)), given.together, given.minutes * 60, given.only)
    return 1 if summary(bench) else 0


if __name__ == "__main__":
    sys.exit(main())
