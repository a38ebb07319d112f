"""Scenes: how a walk is led to a place where a promise is at stake, which chance alone would seldom reach.

A scene is one step of a walk, seeded like any other.  It begins with a world that is mended, lets people and
machines do what leads there, and ends in the middle of it or after.  It never judges.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.api.meta import Key, key_of
from tests.simulation import happenings, rest, truth
from tests.simulation.arena import Arena
from tests.simulation.leading import (
    BIKES,
    SLICE_S,
    best,
    go_on,
    in_canary,
    in_step,
    is_ready,
    is_stalled,
    model,
    push,
    retry,
    served,
    status,
)
from tests.simulation.specs import BROKEN, file, spec

# -- canaries ----------------------------------------------------------------------------------------------------


async def takes_over(arena: Arena, rng: random.Random) -> None:
    """A better model goes through its canary and takes over; a revert brings the one before back."""
    await served(arena, rng)
    for _ in range(2):
        await push(arena, await best(arena) - 3)
        await go_on(arena, lambda s: not is_ready(s), 30)
        await go_on(arena, is_ready)
    arena.git.push("Revert", {}, tree=arena.git.tree(arena.git.line[-2]))
    await rest.pass_quietly(arena, 60)


async def breach(arena: Arena, rng: random.Random) -> None:
    """A challenger answers with errors and is rolled back; it stays back when the errors have ended."""
    revision = await in_canary(arena, rng)
    arena.errors[revision] = 0.2
    await rest.pass_quietly(arena, 60)
    arena.errors.clear()
    await rest.pass_quietly(arena, 120)


async def breach_unheard(arena: Arena, rng: random.Random) -> None:
    """A challenger is rolled back while MLflow is away, so that only the status knows when it is back."""
    revision = await in_canary(arena, rng)
    arena.registry.down = True
    arena.errors[revision] = 0.2
    await go_on(arena, lambda s: (s.get("previous") or {}).get("verdict") == "RolledBack", 90)
    arena.errors.clear()
    arena.registry.down = False
    await rest.pass_quietly(arena, 90)


async def breach_again(arena: Arena, rng: random.Random) -> None:
    """A person lets a challenger that was rolled back try again, and it breaks again."""
    revision = await in_canary(arena, rng)
    for _ in range(2):
        arena.errors[revision] = 0.2
        await go_on(arena, lambda s: (s.get("previous") or {}).get("verdict") == "RolledBack", 90)
        arena.errors.clear()
        await rest.pass_quietly(arena, 40)
        if _ == 0:
            await retry(arena)
            await go_on(arena, in_step(truth.steps(await model(arena))[0]), 60)
    await rest.pass_quietly(arena, 120)


async def late_breach(arena: Arena, rng: random.Random) -> None:
    """Many good answers in the first step, a few bad ones in the second."""
    await served(arena, rng)
    first, second = truth.steps(await model(arena))[:2]
    await push(arena, await best(arena) - 3)
    await go_on(arena, in_step(first))
    arena.requests_per_s = 2000.0
    await rest.pass_quietly(arena, 40)
    arena.requests_per_s = 10.0
    await go_on(arena, in_step(second), 120)
    revision = ((await status(arena)).get("challenger") or {}).get("revision", "")
    arena.errors[revision] = 0.04
    await rest.pass_quietly(arena, 120)
    arena.errors.clear()


async def dies_as_champion(arena: Arena, rng: random.Random) -> None:
    """The servers of a challenger die when the ledger has just made it champion."""
    revision = await in_canary(arena, rng, truth.steps(await model(arena) or spec("bikes"))[-1])
    for _ in range(40):
        await arena.seats[0].look(BIKES)
        entries = truth.chain(await arena.registry.read_ledger("bikes", "default"), "bikes", "default")
        if truth.champion(entries) == revision:
            break
        await arena.pass_time(SLICE_S)
    arena.broken.add(revision)
    await arena.kubelet()
    await rest.pass_quietly(arena, 60)
    arena.broken.clear()
    await rest.pass_quietly(arena, 60)


async def unheard_servers(arena: Arena, rng: random.Random) -> None:
    """A challenger's counters cannot be read for longer than its step."""
    await in_canary(arena, rng)
    await arena_telemetry(arena, away=True)
    await rest.pass_quietly(arena, 150)
    await arena_telemetry(arena, away=False)
    await rest.pass_quietly(arena, 30)


async def arena_telemetry(arena: Arena, *, away: bool) -> None:
    """Let the servers' counters be away, or there again."""
    if (arena.servers.error is not None) != away:
        await happenings.telemetry(arena, random.Random(0))


# -- judging -----------------------------------------------------------------------------------------------------


async def refused(arena: Arena, rng: random.Random) -> None:
    """A worse model is refused, looked at again and again, and its object is lost."""
    await served(arena, rng)
    await push(arena, await best(arena) + rng.choice((5, 20)))
    await go_on(arena, is_stalled)
    await rest.pass_quietly(arena, 40)
    wanted = ((await status(arena)).get("source") or {}).get("wanted", "")
    await arena.store.delete(Key("ModelRevision", "default", wanted))
    await rest.pass_quietly(arena, 90)


async def uncertain(arena: Arena, rng: random.Random) -> None:
    """Without a gate against the champion, a model is about as good as it: nobody can say."""
    await served(arena, rng)
    gates = [{"name": "good-enough", "metric": "rmse", "max": 100}]
    await arena.store.patch_spec(BIKES, {"gates": gates})
    now = await best(arena)
    await push(arena, now + 0.02 * now)
    await rest.pass_quietly(arena, 120)


async def overtaken(arena: Arena, rng: random.Random) -> None:
    """While a challenger is rolled out one trains that is better than the champion of then, and worse than it."""
    last = truth.steps(await model(arena) or spec("bikes"))[-1]
    await in_canary(arena, rng, last)
    # It is trained against the champion of then, and done only when there is another.
    await rest.pass_quietly(arena, 45)
    await push(arena, await best(arena) - 1)
    await rest.pass_quietly(arena, 200)


async def forged(arena: Arena, rng: random.Random) -> None:
    """After a change of the champion somebody writes into the ledger that the one before is it again."""
    await takes_over(arena, rng)
    blobs = await arena.registry.read_ledger("bikes", "default")
    entries = truth.chain(blobs, "bikes", "default")
    serving = truth.champion(entries)
    others = [e for e in entries if e.kind == "Promoted" and e.champion != serving]
    if others:
        junk = happenings.forged(entries, others[-1], len(blobs) + 1)
        await arena.registry.append_ledger("bikes", "default", len(blobs) + 1, junk)
    await rest.pass_quietly(arena, 60)


async def trained_anew(arena: Arena, rng: random.Random) -> None:
    """All that is left of an admitted challenger is its entry; trained anew it is another model."""
    revision = await in_canary(arena, rng)
    run = ((await arena.store.get(Key("ModelRevision", "default", revision)) or {}).get("status") or {}).get(
        "run", ""
    )
    if run:
        arena.registry.lose_report(run)
        await arena.store.delete(Key("ModelRevision", "default", revision))
    await rest.pass_quietly(arena, 200)


async def namesakes(arena: Arena, rng: random.Random) -> None:
    """A model gets a namesake in another namespace, which trains the same commits anew: none takes the other's."""
    other = Key("ModelSpec", "prod", "bikes")
    if other.namespace not in arena.homes:
        return
    await arena.store.delete(other)
    await takes_over(arena, rng)
    await arena.store.apply(spec(other.name, other.namespace))
    await rest.pass_quietly(arena, 120)


async def ledger_away(arena: Arena, rng: random.Random) -> None:
    """A controller that has just begun cannot read the ledger while somebody serves."""
    await served(arena, rng)
    arena.registry.down = True
    for seat in arena.seats:
        await seat.crash()
    await push(arena, await best(arena) - 3)
    await rest.pass_quietly(arena, 60)
    arena.registry.down = False
    await rest.pass_quietly(arena, 60)


async def meddled(arena: Arena, rng: random.Random) -> None:
    """A person moves the alias, and deletes the champion's servers, its Service and the route."""
    await takes_over(arena, rng)
    for found in arena.registry.models.values():
        for alias in found.aliases:
            found.aliases[alias] = min(found.versions)
    await rest.pass_quietly(arena, 60)
    for kind in ("Deployment", "Service", "HTTPRoute"):
        for one in await arena.store.list(kind):
            await arena.store.delete(key_of(one))
    await rest.pass_quietly(arena, 60)


# -- training ----------------------------------------------------------------------------------------------------


async def fails_for_good(arena: Arena, rng: random.Random) -> None:
    """A training fails as often as it may."""
    await served(arena, rng)
    await arena.store.patch_spec(BIKES, {"training": {"backoffLimit": rng.choice((2, 3))}})
    await push(arena, await best(arena) - 3)
    arena.ends = rng.choice(("exit", "memory"))
    await rest.pass_quietly(arena, 240)


async def asked_while_another_trains(arena: Arena, rng: random.Random) -> None:
    """A revision that failed is asked for again while the one that came after it trains."""
    await fails_for_good(arena, rng)
    failed = arena.git.tree()
    arena.ends = "well"
    await push(arena, await best(arena) - 4)
    await go_on(arena, lambda s: (s.get("challenger") or {}).get("stage") == "Training", 30)
    for _ in range(3):
        await rest.pass_quietly(arena, SLICE_S)
    arena.git.push("Revert", {}, tree=failed)
    await retry(arena)
    await rest.pass_quietly(arena, 90)


async def wanted_no_more(arena: Arena, rng: random.Random) -> None:
    """A revision is asked for, and another one before it could be trained."""
    await fails_for_good(arena, rng)
    arena.ends = "well"
    await retry(arena)
    await push(arena, await best(arena) - 4)
    for seat in arena.seats:
        await seat.look(BIKES)
    for found in await arena.store.list("ModelRevision"):
        await arena.seats[0].look(key_of(found))
    await rest.pass_quietly(arena, 60)


async def suspended(arena: Arena, rng: random.Random) -> None:
    """A model is suspended in the middle of a canary."""
    await in_canary(arena, rng)
    await arena.store.patch_spec(BIKES, {"suspend": True})
    await rest.pass_quietly(arena, 150)


async def suspended_before(arena: Arena, rng: random.Random) -> None:
    """A model is suspended before the training that a person has asked for."""
    await fails_for_good(arena, rng)
    arena.ends = "well"
    await arena.store.patch_spec(BIKES, {"suspend": True})
    await retry(arena)
    await rest.pass_quietly(arena, 60)


async def lying_evaluator(arena: Arena, rng: random.Random) -> None:
    """Every report compares with another champion than it was to."""
    await served(arena, rng)
    arena.evaluator_lies = True
    await push(arena, await best(arena) - 3)
    await rest.pass_quietly(arena, 300)


# -- telling, Git ------------------------------------------------------------------------------------------------


async def secrets(arena: Arena, rng: random.Random) -> None:
    """Programs and servers say passwords with their last words."""
    await fails_for_good(arena, rng)
    arena.ends = "well"
    await retry(arena)
    await go_on(arena, lambda s: (s.get("challenger") or {}).get("stage") == "Canary")
    arena.broken |= {d["metadata"]["name"].rpartition("-")[0] for d in await arena.store.list("Deployment")}
    await rest.pass_quietly(arena, 40)


async def looked_at_twice(arena: Arena, rng: random.Random) -> None:
    """A controller does not see yet what it has done, and does it again at the same moment."""
    kinds = ("ModelSpec", "ModelRevision", "Job", "Deployment", "Service", "HTTPRoute", "Pod")
    await served(arena, rng)
    await push(arena, await best(arena) - 3)
    for _ in range(30):
        seat = rng.choice(arena.seats)
        await seat.freeze(kinds)
        for key in await arena.keys():
            await seat.look(key)
            await seat.look(key)
        seat.frozen.clear()
        await rest.pass_quietly(arena, SLICE_S)


async def files_break(arena: Arena, rng: random.Random) -> None:
    """Files of ModelSpecs break, come and go; a person has one of a name that Git has not; Git is away."""
    if not arena.cast.repository:
        return
    await rest.end_faults(arena)
    both = {"models/cars.yaml": file("cars", suspend=True), "models/trains.yaml": file("trains", suspend=True)}
    arena.git.push("Two models", {**both, "models/ships.yaml": None})
    await rest.pass_quietly(arena, 40)
    own = Key("ModelSpec", "default", "planes")
    if await arena.store.get(own) is None:
        await arena.store.apply(spec("planes", suspend=True))
    arena.promises.foreign.add(str(own))
    arena.git.push("Break cars", {"models/cars.yaml": b"kind: ["})
    await rest.pass_quietly(arena, 30)
    arena.git.push("Rename trains, and break it", {"models/trains.yaml": None, "models/more.yaml": BROKEN})
    await rest.pass_quietly(arena, 30)
    arena.git.push("Take that back", {"models/trains.yaml": both["models/trains.yaml"], "models/more.yaml": None})
    arena.git.down = True
    await rest.pass_quietly(arena, 30)
    arena.git.down = False
    arena.git.push(
        "Mend cars, remove trains", {"models/cars.yaml": both["models/cars.yaml"], "models/trains.yaml": None}
    )
    await rest.pass_quietly(arena, 30)
    arena.git.push(
        "Break cars again", {"models/cars.yaml": b"kind: [", "models/trains.yaml": both["models/trains.yaml"]}
    )
    await rest.pass_quietly(arena, 30)


@dataclass(frozen=True)
class Scene:
    """A scene, whom it needs, and what it puts at stake."""

    play: happenings.Happening
    stakes: tuple[str, ...]
    cast: Mapping[str, Any] = field(default_factory=dict)
    """What a walk that begins with it changes in its cast."""


ROUTED: Mapping[str, Any] = {"by_servers": False}
SCENES: Mapping[str, Scene] = {
    s.play.__name__: s
    for s in (
        Scene(served, ("L1", "L3")),
        Scene(takes_over, ("S1", "S2", "S5", "S6", "S7")),
        Scene(breach, ("S5",)),
        Scene(breach_unheard, ("S5", "S2")),
        Scene(breach_again, ("S5",)),
        Scene(late_breach, ("S5",), ROUTED),
        Scene(dies_as_champion, ("S6",), ROUTED),
        Scene(unheard_servers, ("S5",)),
        Scene(refused, ("S1", "S3", "L2", "L4")),
        Scene(uncertain, ("S1",)),
        Scene(overtaken, ("S1", "S10")),
        Scene(forged, ("S2",)),
        Scene(trained_anew, ("S13",), {"fresh_bytes": True}),
        Scene(namesakes, ("S10",), {"twin": True, "fresh_bytes": True}),
        Scene(ledger_away, ("S2",)),
        Scene(meddled, ("S2", "S6")),
        Scene(fails_for_good, ("S3", "L4")),
        Scene(asked_while_another_trains, ("S3",)),
        Scene(wanted_no_more, ("S4",)),
        Scene(suspended, ("S4",)),
        Scene(suspended_before, ("S4",)),
        Scene(lying_evaluator, ("L4",)),
        Scene(secrets, ("S8",)),
        Scene(looked_at_twice, ("S14",), {"stale": True}),
        Scene(files_break, ("S9", "S12", "L5"), {"repository": True}),
    )
}
