"""What one decision and one write cost, against a JSON round trip of the objects that are read for it.

`python -m benchmarks.plan --rounds 15`.  The world is the simulated one of the stories, after a first commit and a
better one: two revisions, a champion, a ledger.  Checks nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import interleaved, table
from controller.api.meta import Key
from controller.local.store import Store
from controller.plan.model import plan_model
from controller.reconcile import observe
from tests.support.simulation import Simulation
from tests.support.stories import spec
from tests.unit.stories.test_stories import better_takes_over

BATCH = 50
"""Calls per run: one is too short for the clock."""
ROUND_TRIP = "JSON round trip"
KEY = Key("ModelSpec", "default", "bikes")


def repeat(call: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        for _ in range(BATCH):
            call()

    return run


def round_trip(objects: Any) -> Callable[[], object]:
    return lambda: json.loads(json.dumps(objects))


def decisions(rounds: int) -> str:
    simulation = Simulation()
    asyncio.run(better_takes_over(simulation))

    async def read() -> tuple[Any, list[Any]]:
        kinds = ("ModelSpec", "ModelRevision", "Deployment", "Service", "Pod", "Job")
        objects = [m for kind in kinds for m in await simulation.store.list(kind)]
        return await observe.model(simulation.world, KEY), objects

    seen, objects = asyncio.run(read())
    now = simulation.world.now()
    with asyncio.Runner() as runner:
        times = interleaved(
            {
                ROUND_TRIP: repeat(round_trip(objects)),
                "plan_model": repeat(lambda: plan_model(seen, now)),
                "observe and plan": repeat(lambda: runner.run(_observe_and_plan(simulation))),
            },
            rounds,
        )
    return table(f"{BATCH} decisions about one model, {len(objects)} objects, {rounds} runs", times, [ROUND_TRIP])


async def _observe_and_plan(simulation: Simulation) -> None:
    seen = await observe.model(simulation.world, KEY)
    assert seen is not None
    plan_model(seen, simulation.world.now())


def writes(rounds: int) -> str:
    manifest = spec()
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        memory, file = Store.open(":memory:"), Store.open(Path(folder) / "objects.db")
        turn = iter(range(10**9))

        def write(store: Store) -> Callable[[], object]:
            async def once() -> None:
                # Each write changes something: an apply that changes nothing writes nothing.
                changed = {**manifest, "spec": {**manifest["spec"], "params": {"turn": next(turn)}}}
                await store.apply(changed)

            return lambda: runner.run(once())

        times = interleaved(
            {
                ROUND_TRIP: repeat(round_trip(manifest)),
                "apply in memory": repeat(write(memory)),
                "apply to a file": repeat(write(file)),
                "get from the file": repeat(lambda: runner.run(file.get(KEY))),
            },
            rounds,
        )
        memory.close()
        file.close()
    return table(f"{BATCH} operations on one ModelSpec, {rounds} runs", times, [ROUND_TRIP])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="runs of each that count")
    rounds = parser.parse_args().rounds
    print(decisions(rounds), writes(rounds), sep="\n\n")


if __name__ == "__main__":
    main()
