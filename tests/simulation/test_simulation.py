"""Walks from each scene through the simulated world: no promise is broken on the way, and the world comes to rest.

A bounded form of `make walk`; a seed that fails here is cut down and told with its command. All mutants are hunted
by `make mutants`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.mutants import ROOT, DoesNotFit, hunt, plant
from tests.simulation.planted import MUTANTS, Mutant, planted
from tests.simulation.scenes import SCENES
from tests.simulation.truth import COUNTED, INVARIANTS
from tests.simulation.walk import play, scene_of, told, walk_of

SEEDS = (1, 2, 3, 4, 6)
"""Whole servers, a namesake, two controllers, stale views, a damaged ledger; as each has it, by `cast_of`."""
STEPS = 100
HUNTED = ("admits-the-name", "counts-since-ever", "trains-what-is-known", "prunes-what-it-cannot-read")
"""Mutants of the decisions, the canary, the training and the repository, each found by its scene alone."""


@pytest.mark.parametrize("seed", range(len(SCENES)), ids=list(SCENES))
def test_each_scene_puts_its_promises_at_stake_breaks_none_and_comes_to_rest(seed: int) -> None:
    found, _ = play(walk_of(seed, 1))
    assert found is None, told(seed, 1, found)
    scene = SCENES[scene_of(seed)]
    idle = [i for i in scene.stakes if not COUNTED.at_stake(i)]
    assert not idle, f"{scene_of(seed)}: nothing was at stake for {idle}"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_walk_through_a_random_world_breaks_no_promise_and_comes_to_rest(seed: int) -> None:
    found, arena = play(walk_of(seed, STEPS))
    assert found is None, told(seed, STEPS, found)
    assert arena.promises.held > 0


def test_some_scene_puts_each_promise_at_stake() -> None:
    assert {i for scene in SCENES.values() for i in scene.stakes} == set(INVARIANTS)


def test_the_same_seed_is_the_same_walk() -> None:
    one, two = (play(walk_of(5, 60))[1].deeds for _ in range(2))
    assert one == two
    assert one


@pytest.mark.parametrize("mutant", [m for m in MUTANTS if m.name in HUNTED], ids=lambda m: str(m.name))
def test_the_walks_find_a_fault_that_is_planted_in_a_copy_of_the_plan(mutant: Mutant) -> None:
    found = hunt(mutant, seeds=2)
    assert found.invariant, f"{mutant.name} survived {found.walks} walks: {mutant.breaks}"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: str(m.name))
def test_every_mutant_still_has_its_place_in_the_source(mutant: Mutant) -> None:
    for file, old, new in mutant.edits:
        assert old != new
        assert (ROOT / "controller" / file).read_text().count(old) == 1, f"{old!r} is not once in {file}"


def test_a_mutant_without_its_place_in_the_source_is_said_and_not_counted_as_found(tmp_path: Path) -> None:
    lost = planted("lost", "Nothing.", "plan/verdict.py", "no such line", "nor this", scene="served")
    with pytest.raises(DoesNotFit, match=r"lost: 0 times in plan/verdict\.py"):
        plant(lost, tmp_path)
