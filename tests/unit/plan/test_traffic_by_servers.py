"""Whole servers split the requests: how a share becomes a number of servers, and what is never given up for it."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.meta import LABEL_REVISION
from controller.api.pods import MOST_CHALLENGERS, challengers, reachable
from tests.support.cluster_simulation import ClusterSimulation
from tests.unit.stories.cluster_begin import begin

SERVERS, WEIGHT = st.integers(1, 100), st.integers(1, 99)


@given(SERVERS, WEIGHT)
def test_the_number_of_servers_is_never_off_by_one_whole_server(champions: int, weight: int) -> None:
    exact = min(champions * weight / (100 - weight), MOST_CHALLENGERS * champions)
    assert abs(challengers(champions, weight) - exact) < 1


@given(SERVERS, WEIGHT)
def test_every_step_has_at_least_one_server_of_each_and_a_bound(champions: int, weight: int) -> None:
    assert 1 <= challengers(champions, weight) <= MOST_CHALLENGERS * champions
    assert 1 <= reachable(champions, weight) <= 80


@given(SERVERS)
def test_a_larger_weight_never_gets_fewer_servers(champions: int) -> None:
    counts = [challengers(champions, weight) for weight in range(1, 100)]
    assert all(a <= b for a, b in pairwise(counts))


@given(SERVERS, WEIGHT)
def test_no_other_number_of_servers_comes_nearer_by_more_than_its_rounding(champions: int, weight: int) -> None:
    count = challengers(champions, weight)
    if count in (1, MOST_CHALLENGERS * champions):
        return
    # n : k as (100 - w) : w, so the error of k in servers is n * |w / (100 - w) - k / n|.
    exact = champions * weight / (100 - weight)
    assert all(abs(count - exact) <= abs(other - exact) for other in (count - 1, count + 1))


CANARIES = [
    pytest.param(1, [50], None, 1, id="one server and a half of the requests"),
    pytest.param(2, [10, 75], None, 2, id="a small and a large step with two servers"),
    pytest.param(3, [99], None, 3, id="nearly everything in one step"),
    pytest.param(4, [5, 25, 50, 80], None, 4, id="four steps with four servers"),
    pytest.param(2, [10], 9, 7, id="an autoscaler has made seven of two"),
    pytest.param(1, [10, 90], 3, 3, id="an autoscaler at its limit"),
]


@pytest.mark.parametrize(("least", "weights", "most", "liked"), CANARIES)
def test_a_canary_never_takes_a_server_of_the_champion_nor_more_than_its_step(
    least: int, weights: list[int], most: int | None, liked: int
) -> None:
    s = ClusterSimulation(start_s=5, load=lambda _: liked)
    seen: list[dict[str, int]] = []

    async def look(verb: str, _: Any) -> None:
        if verb in ("apply", "delete") and s.answering:
            seen.append(await s.sizes())

    async def go() -> dict[str, Any]:
        serving: dict[str, Any] = {"minReplicas": least, "canary": {"stepWeights": weights, "interval": "10s"}}
        await begin(s, **(serving | ({"maxReplicas": most} if most else {})))
        s.answering.clear()
        s.after_write = look
        s.restart()
        s.git.commit("More trees", {"quality": b"50"})
        await s.run(90 + 20 * len(weights))
        return await s.end_state()

    end = asyncio.run(go())
    assert end["ready"] == ("True", "Succeeded")
    assert [kind for kind, _ in end["ledger"]] == ["Admitted", "Promoted"] * 2
    assert min(s.answering) >= liked, "fewer servers answered than before the canary"
    (old, new) = [revision for kind, revision in end["ledger"] if kind == "Promoted"]
    beside = [sizes[new] for sizes in seen if sizes.get(old) == liked and new in sizes]
    allowed = [challengers(liked, weight) for weight in weights]
    assert [n for i, n in enumerate(beside) if i == 0 or n != beside[i - 1]][: len(set(allowed))] == sorted(
        set(allowed)
    )
    assert list(end["servers"].values()) == [liked], "the new champion has as many as the one before"


def test_the_servers_of_a_challenger_are_its_own_and_named_by_their_revision() -> None:
    s = ClusterSimulation()

    async def go() -> list[str]:
        await begin(s, canary={"stepWeights": [50], "interval": "60s"})
        s.git.commit("More trees", {"quality": b"50"})
        await s.run(50)
        return sorted(d["metadata"]["labels"][LABEL_REVISION] for d in await s.deployments())

    assert len(asyncio.run(go())) == 2
