"""Walks: a seed becomes a cast and a list of steps; the steps are played, then the world must come to rest.

The same seed is the same walk, on every machine. A walk that breaks a promise is cut down to the steps that it
needs, and told with the command that plays it again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tests.simulation import happenings, rest, truth
from tests.simulation.arena import Arena, Cast
from tests.simulation.scenes import SCENES
from tests.simulation.truth import BrokenPromise, Counted

STEPS = 150
SHRINKS = 400
"""Most plays to cut a walk down."""
Step = tuple[str, int]


@dataclass(frozen=True)
class Walk:
    """What is played: by whom, and which steps."""

    cast: Cast
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Found:
    """A promise that was broken."""

    invariant: str
    message: str
    steps: int
    """Steps played until then; the end of the walk counts as one."""


def cast_of(seed: int, scene: str = "") -> Cast:
    """Choose who takes part; whom the scene needs is there."""
    rng = random.Random(f"cast {seed}")
    controllers = 2 if seed % 5 == 3 else 1
    chosen = Cast(
        controllers=controllers,
        stale=seed % 5 == 4,
        repository=rng.random() < 0.3,
        fresh_bytes=rng.random() < 0.3,
        jumps=rng.random() < 0.3,
        losses=seed % 7 == 6,
        by_servers=seed % 3 == 1,
        twin=seed % 4 == 2,
    )
    return replace(chosen, **SCENES[scene].cast) if scene else chosen


def scene_of(seed: int) -> str:
    """Choose the scene that a walk begins with."""
    names = list(SCENES)
    return names[seed % len(names)]


def walk_of(seed: int, steps: int = STEPS, scene: str = "") -> Walk:
    """Make the walk of a seed; a longer one begins with the shorter one.

    It begins with the scene that is named, else with one that the seed chooses.
    """
    rng = random.Random(seed)
    names = [*(h.__name__ for h in happenings.HAPPENINGS), *SCENES]
    weights = [*happenings.HAPPENINGS.values(), *(1 for _ in SCENES)]
    chosen = [(rng.choices(names, weights)[0], rng.getrandbits(32)) for _ in range(steps - 1)]
    first = scene or scene_of(seed)
    return Walk(cast_of(seed, first), ((first, rng.getrandbits(32)), *chosen))


def happening_of(name: str) -> happenings.Happening:
    """Find a step by its name: a scene, or what happens anyway."""
    return SCENES[name].play if name in SCENES else happenings.BY_NAME[name]


def play(walk: Walk) -> tuple[Found | None, Arena]:
    """Play a walk to its end, or to the promise that it breaks."""
    return asyncio.run(_play(walk))


async def _play(walk: Walk) -> tuple[Found | None, Arena]:
    truth.COUNTED.held.clear()
    truth.COUNTED.stakes.clear()
    arena, number = Arena(walk.cast), 0
    logging.disable(logging.CRITICAL)
    try:
        await happenings.begin(arena)
        for name, choice in walk.steps:
            number += 1
            rng = random.Random(choice)
            await happening_of(name)(arena, rng)
        number += 1
        await rest.come_to_rest(arena)
        await rest.delete_all(arena)
    except BrokenPromise as broken:
        return Found(broken.invariant, str(broken), number), arena
    except Exception as error:
        # Whatever else comes out of a look is a bug of the controller: it must never fail on what it sees.
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        place = f"{where.tb_frame.f_code.co_filename.rpartition('/')[2]}:{where.tb_lineno}" if where else ""
        return Found("S0", f"S0: {type(error).__name__} at {place}: {error}", number), arena
    finally:
        logging.disable(logging.NOTSET)
        arena.store.close()
    return None, arena


def shrink(walk: Walk, found: Found, most: int = SHRINKS) -> tuple[Walk, Found, tuple[int, ...]]:
    """Leave out all steps without which the same invariant still breaks; also returns the numbers that remain."""
    kept = list(range(min(found.steps, len(walk.steps))))
    size, plays = max(len(kept) // 2, 1), 0
    best = found
    while size >= 1 and plays < most:
        at = 0
        while at < len(kept) and plays < most:
            rest_of = kept[:at] + kept[at + size :]
            plays += 1
            again, _ = play(Walk(walk.cast, tuple(walk.steps[i] for i in rest_of)))
            if again is not None and again.invariant == found.invariant:
                kept, best = rest_of, again
            else:
                at += size
        size //= 2
    return Walk(walk.cast, tuple(walk.steps[i] for i in kept)), best, tuple(i + 1 for i in kept)


@dataclass
class Tally:
    """What many walks came to."""

    walks: int = 0
    steps: int = 0
    held: int = 0
    counted: Counted = field(default_factory=Counted)
    seconds: float = 0.0


def seeds(
    numbers: Sequence[int], steps: int, tally: Tally | None = None, scene: str = ""
) -> tuple[int, Found] | None:
    """Walk seed after seed; the first that breaks a promise, or None."""
    tally = tally or Tally()
    for seed in numbers:
        began = time.perf_counter()
        found, arena = play(walk_of(seed, steps, scene))
        tally.walks += 1
        tally.steps += found.steps if found else steps
        tally.held += arena.promises.held
        tally.counted.add(truth.COUNTED)
        tally.seconds += time.perf_counter() - began
        if found is not None:
            return seed, found
    return None


def told(seed: int, steps: int, found: Found, *, scene: str = "", cut_down: bool = True) -> str:
    """Tell of a broken promise: what, after which steps, and how to see it again."""
    lines = [f"seed {seed}: {found.message} (step {found.steps})"]
    again = f"python -m tests.simulation --seed {seed} --steps {steps}"
    again += f" --scene {scene}" if scene else ""
    if cut_down:
        walk, less, numbers = shrink(walk_of(seed, steps, scene), found)
        again += f" --only {','.join(map(str, numbers))}" if numbers else " --only none"
        lines += [f"cut down to {len(numbers)} steps, {walk.cast}: {less.message}"]
        lines += [
            f"  {number:4d} {name} {choice}" for number, (name, choice) in zip(numbers, walk.steps, strict=True)
        ]
    return "\n".join([*lines, f"again: {again}"])
