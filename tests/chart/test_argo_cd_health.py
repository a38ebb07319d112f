"""Health checks of our kinds for Argo CD, run as it runs them (Lua 5.1), on statuses of the reconcilers."""

from __future__ import annotations

import asyncio

import pytest
import yaml
from lupa import lua51

from controller.api.kinds import KINDS
from controller.api.meta import GROUP, Key
from controller.clients.errors import Unavailable
from tests.support.hard_simulation import HardSimulation
from tests.support.operator_process import ROOT
from tests.support.stories import FIRST, spec
from tests.unit.stories import test_override_stories as orders
from tests.unit.stories import test_repository_stories as repositories
from tests.unit.stories import test_stories as stories

CHECK = ROOT / "docs" / "argo-cd" / "health.lua"
PATCH = ROOT / "docs" / "argo-cd" / "argocd-cm.yaml"
BIKES = Key("ModelSpec", "default", "bikes")


def health(manifest):
    """Run the check; returns its status and message."""
    lua = lua51.LuaRuntime(register_eval=False, register_builtins=False)
    # Argo CD opens no library but these.
    lua.execute("io, os, package, debug, require, dofile, loadfile = nil")
    lua.globals().obj = lua.table_from(manifest, recursive=True)
    answer = lua.execute(CHECK.read_text())
    return answer["status"], answer["message"]


async def just_made(s):
    await s.store.apply(spec())


async def training(s):
    s.git.commit("Predict bikes", FIRST)
    await s.store.apply(spec())
    await s.run(20)


async def serving(s):
    await stories.first_commit(s)


async def refused(s):
    await stories.worse_is_refused(s)


async def in_canary(s):
    await stories.first_commit(s)
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(60)


async def promoted(s):
    await stories.better_takes_over(s)


async def rolled_back(s):
    await stories.breach_gives_all_traffic_back(s)


async def failed_for_good(s):
    await stories.training_fails_for_good(s)


async def suspended(s):
    await stories.suspended(s)


async def git_away(s):
    await stories.first_commit(s)
    s.git.error = Unavailable("git.example.com did not answer within 60 s; it is tried again", reason="GitTimeout")
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(60)


async def changed_and_not_looked_at(s):
    await stories.first_commit(s)
    await s.store.apply(spec(environment="production"))


MODELS = [
    (just_made, "Progressing", "waiting for the operator"),
    (training, "Progressing", "attempt 1"),
    (serving, "Healthy", "serves"),
    (refused, "Degraded", "gate"),
    (in_canary, "Progressing", "canary"),
    (promoted, "Healthy", "serves"),
    (rolled_back, "Degraded", "error"),
    (failed_for_good, "Degraded", "train"),
    (suspended, "Suspended", "spec.suspend is true"),
    (changed_and_not_looked_at, "Progressing", ""),
]


def at(moment):
    """Tell a story up to a moment; returns its world."""
    world = HardSimulation()
    asyncio.run(moment(world))
    return world


def read(world, key):
    found = asyncio.run(world.store.get(key))
    assert found is not None
    return found


@pytest.mark.parametrize(("moment", "wanted", "says"), MODELS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_model(moment, wanted, says):
    status, message = health(read(at(moment), BIKES))
    assert (status, says in message) == (wanted, True), message


def test_a_model_that_serves_stays_healthy_while_git_is_away():
    status, message = health(read(at(git_away), BIKES))
    assert status in ("Healthy", "Progressing"), message


@pytest.mark.parametrize(
    ("moment", "wanted"),
    [
        (training, {"Progressing"}),
        (serving, {"Healthy"}),
        (refused, {"Healthy"}),
        (failed_for_good, {"Healthy", "Degraded"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_revisions(moment, wanted):
    world = at(moment)
    assert {health(m)[0] for m in asyncio.run(world.store.list("ModelRevision"))} == wanted


async def synced(s):
    await repositories.begin(s, "bikes")
    await s.run(60)


async def unreachable(s):
    s.git.error = Unavailable("git.example.com did not answer within 60 s; it is tried again", reason="GitTimeout")
    await repositories.begin(s, "bikes")


async def with_a_file_that_is_wrong(s):
    s.git.commit("Models", FIRST | {"envs/bikes.yaml": b"kind: ModelSpec\nspec: {sauce: 1}\n"})
    await s.store.apply(repositories.REPOSITORY)
    await s.run(10)


async def told_to_wait(s):
    await repositories.begin(s, "bikes", suspend=True)


@pytest.mark.parametrize(
    ("moment", "wanted"),
    [
        (synced, "Healthy"),
        (unreachable, "Progressing"),
        (with_a_file_that_is_wrong, "Degraded"),
        (told_to_wait, "Suspended"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_repository(moment, wanted):
    status, message = health(read(at(moment), Key("ModelRepository", "default", "models")))
    assert status == wanted, message
    assert message


async def holding(s):
    await orders.a_person_rolls_back(s)


async def over(s):
    await orders.git_rules_again_after_the_end(s)


async def done(s):
    await orders.a_person_promotes(s)


async def not_possible(s):
    await orders.servers_of_a_rollback_never_come_up(s)


@pytest.mark.parametrize(
    ("moment", "wanted", "says"),
    [
        (holding, "Healthy", "then what Git asks for rules again"),
        (over, "Healthy", "it ended at"),
        (done, "Healthy", "became champion"),
        (not_possible, "Degraded", "no server of"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_order(moment, wanted, says):
    (found,) = asyncio.run(at(moment).store.list("ModelOverride"))
    status, message = health(found)
    assert (status, says in message) == (wanted, True), message


def test_a_model_that_is_overridden_waits_for_a_person():
    status, message = health(read(at(holding), BIKES))
    assert (status, "by order of jane" in message) == ("Degraded", True), message


def test_the_configuration_of_argo_cd_has_the_check_for_each_kind():
    data = yaml.safe_load(PATCH.read_text())["data"]
    names = {f"resource.customizations.health.{GROUP}_{kind}" for kind in KINDS}
    assert data == dict.fromkeys(names, CHECK.read_text())
