"""`python -m tests.simulation.mutants`: do the walks notice when the plan is wrong?

Each planted mutant is made in a copy of the tree, and random walks are taken there, in a process of their own,
until one breaks a promise.  A mutant that survives shows a promise that is missing, or a thing that never happens.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.planted import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
SEEDS = 30
"""Most walks on one mutant."""
STEPS = 6
"""Steps of each walk, the scene among them; then the world comes to rest."""
PARTS = ("controller", "tests/simulation", "tests/support")
"""What a walk needs of the tree."""


class DoesNotFit(Exception):
    """The source has changed, so that a mutant cannot be planted any more."""


@dataclass(frozen=True)
class Hunt:
    """How the walks on one mutant ended."""

    mutant: Mutant
    invariant: str
    """What was broken; empty when the mutant survived."""
    message: str
    seed: int
    steps: int
    """Steps of the walk until then."""
    walks: int
    seconds: float


def plant(mutant: Mutant, tree: Path) -> None:
    """Copy what a walk needs to `tree` and make the mutant's edits there.

    Raises:
        DoesNotFit: the text of an edit does not stand in its file exactly once.
    """
    for part in PARTS:
        shutil.copytree(ROOT / part, tree / part)
    for file, old, new in mutant.edits:
        path = tree / "controller" / file
        text = path.read_text()
        if text.count(old) != 1:
            raise misfit(mutant, file, text.count(old), old)
        path.write_text(text.replace(old, new))


def misfit(mutant: Mutant, file: str, count: int, old: str) -> DoesNotFit:
    """Say that a mutant cannot be planted any more."""
    return DoesNotFit(f"{mutant.name}: {count} times in {file}, not once: {old!r}")


def misfits(mutants: Sequence[Mutant]) -> list[DoesNotFit]:
    """Find the mutants that the source has outgrown."""
    edits = [
        (m, file, (ROOT / "controller" / file).read_text().count(old), old)
        for m in mutants
        for file, old, _ in m.edits
    ]
    return [misfit(*edit) for edit in edits if edit[2] != 1]


def hunt(mutant: Mutant, seeds: int = SEEDS, steps: int = STEPS) -> Hunt:
    """Walk on a mutant until a promise breaks: first the walk that found it before, then the others."""
    began = time.perf_counter()
    numbers = [mutant.seed, *(n for n in range(seeds) if n != mutant.seed)]
    with tempfile.TemporaryDirectory(prefix="mutant-") as made:
        tree = Path(made)
        plant(mutant, tree)
        asked = [
            "--numbers",
            ",".join(map(str, numbers)),
            "--scene",
            mutant.scene,
            "--steps",
            str(steps),
            "--json",
        ]
        # The copy comes first on the path, and the answer says whose source was walked on.
        done = subprocess.run(
            [sys.executable, "-m", "tests.simulation", *asked],
            cwd=tree,
            env={**os.environ, "PYTHONPATH": made},
            capture_output=True,
            text=True,
            check=False,
        )
        lines = done.stdout.splitlines()
        if not lines:
            raise RuntimeError(f"{mutant.name}: the walks ended with {done.returncode}: {done.stderr[-2000:]}")
        said = json.loads(lines[-1])
        if not Path(said["source"]).resolve().is_relative_to(tree.resolve()):
            raise RuntimeError(f"{mutant.name}: {said['source']} was walked on, not the copy")
    return Hunt(
        mutant=mutant,
        invariant=said["invariant"],
        message=said["message"],
        seed=said["seed"],
        steps=said["steps"],
        walks=said["walks"],
        seconds=time.perf_counter() - began,
    )


def row(found: Hunt) -> str:
    """Write one line of the table."""
    if not found.invariant:
        return f"{found.mutant.name:28} SURVIVED {found.walks} walks, {found.seconds:.1f} s: {found.mutant.breaks}"
    where = f"{found.invariant:4} {found.seed:5d} {found.steps:5d} {found.walks:5d} {found.seconds:7.1f}"
    return f"{found.mutant.name:28} {where}  {found.message[:110]}"


def main(words: Sequence[str] | None = None) -> int:
    """Hunt the mutants; 0 when all were found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="mutants; default: all")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="most walks on each")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of each walk")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    asked = parser.parse_args(words)
    known = {m.name: m for m in MUTANTS}
    if unknown := [n for n in asked.names if n not in known]:
        parser.error(f"no mutant is named {unknown[0]}; there are: {', '.join(known)}")
    chosen = [known[n] for n in asked.names] or list(MUTANTS)
    if lost := misfits(chosen):
        parser.error("; ".join(map(str, lost)))
    print(f"{'mutant':28} found  seed steps walks seconds  first broken promise", flush=True)
    ended: list[Hunt] = []
    with ThreadPoolExecutor(asked.jobs) as workers:
        for done in as_completed([workers.submit(hunt, m, asked.seeds, asked.steps) for m in chosen]):
            ended.append(done.result())
            print(row(ended[-1]), flush=True)
    caught = [h for h in ended if h.invariant]
    by = sorted({h.invariant for h in caught}, key=lambda i: (i[0], int(i[1:])))
    middle = statistics.median(h.seconds for h in ended)
    print(
        f"{len(caught)} of {len(ended)} mutants found, by {len(by)} promises ({', '.join(by)}); "
        f"{sum(h.walks for h in ended)} walks, median {middle:.1f} s a mutant"
    )
    return 0 if len(caught) == len(ended) else 1


if __name__ == "__main__":
    sys.exit(main())
