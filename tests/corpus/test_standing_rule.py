"""The standing rule is no empty word: every part of it fails where it is broken."""

from __future__ import annotations

import pytest

from controller.api.meta import LABEL_REVISION, key_of
from controller.clients.errors import Denied, Unavailable
from tests.corpus import standing


async def nothing(world):
    """Let nothing happen."""


async def no_server(world):
    for deployment in await world.store.list("Deployment"):
        if deployment["metadata"]["labels"][LABEL_REVISION] == world.champion:
            await world.store.delete(key_of(deployment))


async def no_route(world):
    for route in await world.store.list("HTTPRoute"):
        if route["metadata"]["name"] == "bikes":
            await world.store.delete(key_of(route))
            await world.note()


async def slow_neighbour(world):
    world.git.repos[standing.TRAMS].error = Unavailable("nobody answers", reason="GitTimeout")


async def no_ledger(world):
    for run in (r for r in world.registry.runs.values() if "trams" not in str(r)):
        run.artifacts = {path: data for path, data in run.artifacts.items() if "ledger/" not in path}


async def no_version(world):
    world.registry.models["bikes"].versions.clear()


BROKEN = [
    pytest.param(no_server, "by the same servers", id="the champion's server is another one"),
    pytest.param(no_route, "the champion was not served", id="no request arrives for a moment"),
    pytest.param(slow_neighbour, "the neighbour is not delayed", id="the neighbour waits"),
    pytest.param(no_ledger, "ledger that were recorded are lost", id="decisions are gone"),
    pytest.param(no_version, "versions that were recorded are lost", id="versions are gone"),
]


@pytest.mark.parametrize(("arrive", "words"), BROKEN)
def test_what_breaks_the_rule_is_found(arrive, words):
    with pytest.raises(AssertionError, match=words):
        standing.meddled(arrive)


def test_what_breaks_nothing_is_not():
    assert standing.meddled(nothing) is None


SAID = [
    pytest.param(Denied("a\nb", reason="Odd"), "explain|Git|a", id="a message of two lines"),
    pytest.param(Denied("it says hunter2", reason="Odd"), "shows a secret", id="a secret"),
    pytest.param(Denied('File "x.py", line 3, in f', reason="Odd"), "shows a traceback", id="a traceback"),
]


@pytest.mark.parametrize(("error", "words"), SAID)
def test_an_answer_that_nobody_should_read_is_found(error, words):
    with pytest.raises(AssertionError, match=words):
        standing.git_says(error)


def test_an_answer_that_does_not_arrive_is_found():
    with pytest.raises(AssertionError, match="nobody says GitTimeout"):
        standing.meddled(nothing, reason="GitTimeout")
