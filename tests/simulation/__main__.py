"""`python -m tests.simulation`: walk the plan through random worlds, or play one walk again."""

from __future__ import annotations

import argparse
import json
import sys

import controller
from tests.simulation.scenes import SCENES
from tests.simulation.truth import INVARIANTS, Counted
from tests.simulation.walk import STEPS, Found, Tally, Walk, play, seeds, told, walk_of


def main() -> int:
    """Walk; 0 when every promise held."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="one walk; default: many")
    parser.add_argument("--seeds", type=int, default=20, help="how many walks")
    parser.add_argument("--first", type=int, default=0, help="the first seed of many")
    parser.add_argument("--numbers", help="these seeds, one after the other")
    parser.add_argument("--json", action="store_true", help="say how it ended as one line of JSON")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of each walk")
    parser.add_argument("--scene", default="", choices=["", *SCENES], help="the scene that walks begin with")
    parser.add_argument("--only", help="numbers of the steps that are played, as a cut-down walk names them")
    parser.add_argument("--no-shrink", action="store_true", help="do not cut a broken walk down")
    asked = parser.parse_args()
    if asked.only:
        whole = walk_of(asked.seed or 0, asked.steps, asked.scene)
        numbers = [] if asked.only == "none" else [int(n) for n in asked.only.split(",")]
        found, arena = play(Walk(whole.cast, tuple(whole.steps[n - 1] for n in numbers)))
        sys.stdout.write("\n".join(arena.deeds[-40:]) + f"\n{found.message if found else 'every promise held'}\n")
        return 1 if found else 0
    numbers = [asked.seed] if asked.seed is not None else list(range(asked.first, asked.first + asked.seeds))
    if asked.numbers:
        numbers = [int(n) for n in asked.numbers.split(",")]
    tally = Tally()
    broken = seeds(numbers, asked.steps, tally, asked.scene)
    if asked.json:
        sys.stdout.write(json.dumps(_ended(broken, tally)) + "\n")
        return 1 if broken else 0
    rate = tally.steps / tally.seconds if tally.seconds else 0
    sys.stdout.write(
        f"{tally.walks} walks, {tally.steps:,} steps and their ends, {tally.held:,} writes held against the "
        f"promises, {tally.seconds:.1f} s, {rate:.0f} steps/s\n"
    )
    sys.stdout.write(counts(tally.counted))
    if broken is not None:
        ended = told(broken[0], asked.steps, broken[1], scene=asked.scene, cut_down=not asked.no_shrink)
        sys.stdout.write(ended + "\n")
        return 1
    idle = [i for i in INVARIANTS if not tally.counted.at_stake(i)]
    if idle and len(numbers) >= len(SCENES):
        sys.stdout.write(f"never at stake: {', '.join(idle)}\n")
        return 1
    return 0


def counts(counted: Counted) -> str:
    """Write how often each promise was held, how often something was at stake for it, and in which situations."""
    lines = [f"{'promise':8}{'held':>10}{'at stake':>10}  situations"]
    for invariant in INVARIANTS:
        found = sorted(((n, what) for (i, what), n in counted.stakes.items() if i == invariant), reverse=True)
        words = "; ".join(f"{what} {n:,}" for n, what in found)
        lines.append(f"{invariant:8}{counted.held[invariant]:>10,}{counted.at_stake(invariant):>10,}  {words}")
    return "\n".join(lines) + "\n"


def _ended(broken: tuple[int, Found] | None, tally: Tally) -> dict[str, object]:
    """Say how many walks ended, for programs; `source` is the controller that they were taken on."""
    seed, found = broken or (-1, Found("", "", 0))
    return {
        "source": controller.__file__,
        "walks": tally.walks,
        "seed": seed,
        "invariant": found.invariant,
        "message": found.message,
        "steps": found.steps,
    }


if __name__ == "__main__":
    sys.exit(main())
