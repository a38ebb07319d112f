"""Where scenes lead a walk: what its model is at, time that passes until it is there, the first places on the way.

Everything here is about the model `bikes` of the first namespace.  It never judges.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from controller.api.conditions import timestamp
from controller.api.meta import Key, Manifest, key_of
from tests.simulation import rest, truth
from tests.simulation.arena import Arena
from tests.simulation.specs import spec

BIKES = Key("ModelSpec", "default", "bikes")
SLICE_S = 5.0


async def model(arena: Arena) -> Manifest:
    """Read the model that scenes are about; empty when it is gone."""
    return await arena.store.get(BIKES) or {}


async def status(arena: Arena) -> Manifest:
    """Read its status."""
    return (await model(arena)).get("status") or {}


async def go_on(arena: Arena, until: Callable[[Manifest], object], most_s: float = 400) -> bool:
    """Let time pass until the status of the model is as wanted; False when it never was."""
    timers, passed = rest.Timers(), 0.0
    while passed < most_s:
        if until(await status(arena)):
            return True
        # What pass_quietly keeps of time begins at 0 in each slice.
        timers.due = {key: due - SLICE_S for key, due in timers.due.items()}
        await rest.pass_quietly(arena, SLICE_S, timers)
        passed += SLICE_S
    return False


def is_ready(status: Manifest) -> bool:
    """Tell whether the model is Ready."""
    return truth.condition({"status": status}, "Ready").get("status") == "True"


def is_stalled(status: Manifest) -> bool:
    """Tell whether the model needs a person."""
    return truth.condition({"status": status}, "Stalled").get("status") == "True"


def in_step(weight: int) -> Callable[[Manifest], bool]:
    """Tell whether a canary stands at a step."""
    return lambda s: (s.get("challenger") or {}).get("stage") == "Canary" and s["challenger"]["weight"] == weight


async def push(arena: Arena, quality: float) -> None:
    """Commit what makes a model of this error."""
    arena.git.push(f"Quality {quality:g}", {"quality": f"{quality:g}".encode()})


async def served(arena: Arena, rng: random.Random) -> None:
    """All is mended, the spec is as at first, and a champion of a middling error serves."""
    await rest.end_faults(arena)
    for namespace in arena.homes:
        servers = {"minReplicas": rng.randint(2, 3)} if arena.cast.by_servers else {}
        wanted = spec("bikes", namespace)
        wanted["spec"]["serving"] |= servers
        await arena.store.apply(wanted)
        await arena.store.patch_spec(
            Key("ModelSpec", namespace, "bikes"),
            {part: wanted["spec"][part] for part in ("gates", "serving", "training")},
        )
    if not is_ready(await status(arena)) or min(arena.models.values(), default=0) < 20:
        await retry(arena)
        await push(arena, 90)
        await go_on(arena, is_ready)


async def retry(arena: Arena) -> None:
    """A person asks to try again."""
    arena.clock.advance(1)
    for found in await arena.store.list("ModelSpec"):
        asked = {"mainspring.dev/requested-at": timestamp(arena.clock.now())}
        await arena.store.annotate(key_of(found), asked)


async def best(arena: Arena) -> float:
    """Read the error of the champion."""
    return arena.models.get((await status(arena)).get("champion", {}).get("digest", ""), 90.0)


async def in_canary(arena: Arena, rng: random.Random, weight: int = 0) -> str:
    """A better model has reached a step of its canary; returns its revision."""
    await served(arena, rng)
    steps = truth.steps(await model(arena))
    await push(arena, await best(arena) - 3)
    await go_on(arena, in_step(weight or rng.choice(steps)))
    return str(((await status(arena)).get("challenger") or {}).get("revision", ""))
