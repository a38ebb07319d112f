"""Random walks through the simulated world: no promise is broken on the way, and the world comes to rest.

A bounded form of `python -m tests.simulation`; a seed that fails here is cut down and told with its command.
"""

from __future__ import annotations

import pytest

from tests.simulation.walk import play, told, walk_of

STEPS = 300


@pytest.mark.parametrize("seed", [0, 2, 3, 4, 7, 9, 13, 16])
def test_a_walk_through_a_random_world_breaks_no_promise_and_comes_to_rest(seed: int) -> None:
    found, _ = play(walk_of(seed, STEPS))
    assert found is None, told(seed, STEPS, found)


def test_the_same_seed_is_the_same_walk() -> None:
    one, two = (play(walk_of(5, 120))[1].deeds for _ in range(2))
    assert one == two
    assert one
