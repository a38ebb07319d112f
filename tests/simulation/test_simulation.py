"""Random walks through the simulated world: no promise is broken on the way, and the world comes to rest.

A bounded form of `make walk` and `make mutants`; a seed that fails here is cut down and told with its command.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.mutants import ROOT, DoesNotFit, hunt, plant
from tests.simulation.planted import MUTANTS, Mutant, planted
from tests.simulation.walk import STEPS, play, told, walk_of

SEEDS = range(10)
"""One of each cast twice: two controllers, stale views, a repository, fresh bytes, a clock that jumps."""
HUNTED = ("deletes-the-champion", "counts-a-failure-twice", "trains-what-nobody-wants", "serves-before-admitting")
"""Mutants of the servers, the training and the decisions that are found in one walk or two."""


@pytest.mark.parametrize("seed", SEEDS)
def test_a_walk_through_a_random_world_breaks_no_promise_and_comes_to_rest(seed: int) -> None:
    found, arena = play(walk_of(seed, STEPS))
    assert found is None, told(seed, STEPS, found)
    assert arena.promises.held > 0


def test_the_same_seed_is_the_same_walk() -> None:
    one, two = (play(walk_of(5, 60))[1].deeds for _ in range(2))
    assert one == two
    assert one


@pytest.mark.parametrize("mutant", [m for m in MUTANTS if m.name in HUNTED], ids=lambda m: str(m.name))
def test_the_walks_find_a_fault_that_is_planted_in_a_copy_of_the_plan(mutant: Mutant) -> None:
    found = hunt(mutant, seeds=4)
    assert found.invariant, f"{mutant.name} survived {found.walks} walks: {mutant.breaks}"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: str(m.name))
def test_every_mutant_still_has_its_place_in_the_source(mutant: Mutant) -> None:
    for file, old, new in mutant.edits:
        assert old != new
        assert (ROOT / "controller" / file).read_text().count(old) == 1, f"{old!r} is not once in {file}"


def test_a_mutant_without_its_place_in_the_source_is_said_and_not_counted_as_found(tmp_path: Path) -> None:
    lost = planted("lost", "Nothing.", "plan/verdict.py", "no such line", "nor this")
    with pytest.raises(DoesNotFit, match=r"lost: 0 times in plan/verdict\.py"):
        plant(lost, tmp_path)
