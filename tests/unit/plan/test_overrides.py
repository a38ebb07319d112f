"""Which order of a person rules, and why the others do not: a table of how each stands."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import pytest

from controller.api.conditions import timestamp
from controller.api.kinds import ModelOverride, parse
from controller.api.meta import API_VERSION, Key
from controller.api.modelstatus import FormerChampion, OverrideStatus
from controller.plan.model import plan_model
from controller.plan.observed import ModelSeen, OverrideSeen
from controller.plan.overrides import ends_at, judge, left, plan_override
from controller.plan.round import Round, find_champion
from controller.plan.verdict import Unknown
from controller.reconcile import observe
from tests.support.hard_simulation import HardSimulation
from tests.unit.stories.test_more_stories import BETTER, A, better
from tests.unit.stories.test_stories import first_commit

KEY = Key("ModelSpec", "default", "bikes")
ZERO = f"sha256:{'0' * 64}"
AWAY = Unknown("RegistryUnavailable", "MLflow does not answer")


@cache
def seen_after_a_promotion() -> tuple[ModelSeen, datetime]:
    """See a model whose first champion was replaced by a better one."""
    s = HardSimulation()

    async def go() -> ModelSeen | None:
        await first_commit(s)
        await better(s, 240)
        return await observe.model(s.world, KEY)

    seen = asyncio.run(go())
    assert seen is not None
    return seen, s.clock.now()


def digest_of(seen: ModelSeen, revision: str) -> str:
    """Say which bytes a revision has; no revision has the zero ones."""
    found = seen.revisions.get(revision)
    return found.status.artifact.digest if found is not None and found.status.artifact else ZERO


def order(seen: ModelSeen, now: datetime, action: str, to: str, **more: Any) -> ModelOverride:
    """Make an order, ten seconds old and four hours long where nothing else is said."""
    name, age = more.pop("name", "order"), more.pop("age_s", 10.0)
    told = more.pop("told", None)
    spec = {
        "modelRef": {"name": "bikes"},
        "action": action,
        "to": to,
        "digest": digest_of(seen, to),
        "actor": "jane",
        "reason": "recall fell",
        "expiresAt": timestamp(now + timedelta(hours=4)),
        **more,
    }
    meta = {"name": name, "uid": f"uid-{name}", "creationTimestamp": timestamp(now - timedelta(seconds=age))}
    status: dict[str, Any] = {}
    if told is not None:
        condition = {"type": "Active", "status": "False", "reason": told, "message": "told before"}
        status = {"status": {"conditions": [{**condition, "lastTransitionTime": timestamp(now)}]}}
    made = parse({"apiVersion": API_VERSION, "kind": "ModelOverride", "metadata": meta, "spec": spec, **status})
    assert isinstance(made, ModelOverride), made
    return made


def standing(seen: ModelSeen, now: datetime, *orders: ModelOverride, **status: Any) -> dict[str, tuple[str, str]]:
    """Judge orders; returns status and reason of each by name."""
    assert seen.model is not None
    known = seen.model.status.model_copy(update=status)
    model = seen.model.model_copy(update={"status": known})
    seen = replace(seen, overrides=orders, model=model)
    r = Round(seen=seen, model=model, now=now, status=known, champion=find_champion(seen, known))
    return {j.override.metadata.name: (j.status, j.reason) for j in judge(r)}


@pytest.mark.parametrize(
    ("action", "to", "more", "stands"),
    [
        pytest.param("Rollback", A, {}, ("True", "Starting"), id="a former champion may serve again"),
        pytest.param(
            "Rollback", A, {"digest": ZERO}, ("Unknown", "RevisionUnknown"), id="other bytes are not meant"
        ),
        pytest.param(
            "Rollback", A, {"digest": ZERO, "age_s": 61}, ("False", "RevisionUnknown"), id="other bytes, for good"
        ),
        pytest.param("Rollback", "bikes-0", {"age_s": 61}, ("False", "RevisionUnknown"), id="no such revision"),
        pytest.param("Rollback", BETTER, {}, ("True", "Starting"), id="the champion itself may be held"),
        pytest.param(
            "Rollback", A, {"expiresAt": "2026-01-01T00:00:00Z"}, ("False", "Expired"), id="its end is past"
        ),
        pytest.param("Promote", BETTER, {}, ("False", "Done"), id="who is champion needs no promotion"),
        pytest.param("Promote", A, {"age_s": 61}, ("False", "NotOnItsWay"), id="nobody asks for it"),
        pytest.param("Abort", BETTER, {}, ("False", "IsChampion"), id="a champion is no challenger"),
        pytest.param("Abort", A, {}, ("True", "Applied"), id="what is not on its way is kept out too"),
    ],
)
def test_an_order_stands(action: str, to: str, more: dict[str, Any], stands: tuple[str, str]) -> None:
    seen, now = seen_after_a_promotion()
    assert standing(seen, now, order(seen, now, action, to, **more))["order"] == stands


@pytest.mark.parametrize("told", ["Expired", "SupersededByNewer", "RefusedUnhealthy", "RevisionUnknown", "Done"])
def test_what_was_told_once_stands(told: str) -> None:
    seen, now = seen_after_a_promotion()
    assert standing(seen, now, order(seen, now, "Rollback", A, told=told))["order"] == ("False", told)


def test_the_newest_rules_and_the_older_ones_are_over() -> None:
    seen, now = seen_after_a_promotion()
    older = order(seen, now, "Rollback", A, name="older", age_s=60)
    newer = order(seen, now, "Abort", A, name="newer")
    assert standing(seen, now, older, newer) == {
        "newer": ("True", "Applied"),
        "older": ("False", "SupersededByNewer"),
    }


def test_two_of_one_second_are_told_apart_by_name_whatever_their_order() -> None:
    seen, now = seen_after_a_promotion()
    a, b = (order(seen, now, "Abort", A, name=n) for n in ("a", "b"))
    assert standing(seen, now, a, b) == standing(seen, now, b, a)
    assert standing(seen, now, a, b)["b"] == ("True", "Applied")


@pytest.mark.parametrize(
    ("newer", "ends_the_older"),
    [
        pytest.param({"told": "RefusedUnhealthy"}, False, id="a refused one changes nothing"),
        pytest.param({"digest": ZERO, "age_s": 5}, False, id="one that is not understood yet changes nothing"),
        pytest.param({"told": "Expired"}, True, id="an expired one was in force"),
        pytest.param({"told": "Done"}, True, id="a done one was in force"),
    ],
)
def test_only_an_order_that_was_taken_up_ends_older_ones(newer: dict[str, Any], ends_the_older: bool) -> None:
    seen, now = seen_after_a_promotion()
    first = order(seen, now, "Rollback", A, name="older", age_s=60)
    second = order(seen, now, "Rollback", A, name="newer", **newer)
    stands = standing(seen, now, first, second)["older"]
    assert stands == (("False", "SupersededByNewer") if ends_the_older else ("True", "Starting"))


def test_without_the_ledger_the_status_says_who_was_let_through() -> None:
    seen, now = seen_after_a_promotion()
    away, wanted = replace(seen, ledger=AWAY), order(seen, now, "Rollback", A)
    former = FormerChampion(revision=A, digest=digest_of(seen, A))
    assert standing(away, now, wanted, former=(former,))["order"] == ("True", "Starting")
    assert standing(away, now, wanted, former=())["order"] == ("Unknown", "LedgerUnknown")
    bad = former.model_copy(update={"problem": "it was rolled back: error rate 4 %"})
    assert standing(away, now, wanted, former=(bad,))["order"] == ("False", "RefusedUnhealthy")


@pytest.mark.parametrize(
    ("state", "since_s", "stands"),
    [
        ("Starting", 299, ("True", "Starting")),
        ("Starting", 301, ("False", "RefusedUnhealthy")),
        ("Refused", 1, ("False", "RefusedUnhealthy")),
        ("Applied", 9000, ("True", "Applied")),
    ],
)
def test_servers_have_five_minutes_to_come_up(state: str, since_s: float, stands: tuple[str, str]) -> None:
    seen, now = seen_after_a_promotion()
    wanted = order(seen, now, "Rollback", A)
    since = timestamp(now - timedelta(seconds=since_s))
    known = OverrideStatus(
        name="order",
        uid="uid-order",
        action="Rollback",
        revision=A,
        state=state,
        since=since,
    )
    assert standing(seen, now, wanted, override=known)["order"] == stands


def test_an_order_holds_seven_days_at_most() -> None:
    seen, now = seen_after_a_promotion()
    wanted = order(seen, now, "Rollback", A, age_s=0, expiresAt="2030-01-01T00:00:00Z")
    assert ends_at(wanted) == now.replace(microsecond=0) + timedelta(days=7)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (14_400, "4h"),
        (14_399, "4h"),
        (7_000, "2h"),
        (6_900, "1h55m"),
        (901, "20m"),
        (900, "15m"),
        (61, "2m"),
        (30, "1m"),
    ],
)
def test_the_time_left_is_told_roughly(seconds: int, words: str) -> None:
    seen, now = seen_after_a_promotion()
    wanted = order(seen, now, "Rollback", A, expiresAt=timestamp(now + timedelta(seconds=seconds)))
    assert left(wanted, now) == words


def test_an_order_for_no_model_and_one_that_cannot_be_read_say_so() -> None:
    seen, now = seen_after_a_promotion()
    wanted = order(seen, now, "Rollback", A)
    lonely = plan_override(OverrideSeen(manifest={}, override=wanted), now)
    assert lonely.conditions == (
        ("Active", "False", "ModelUnknown", "there is no ModelSpec bikes in this namespace"),
    )
    assert lonely.next_s is not None
    broken = plan_override(OverrideSeen(manifest={}, override=None), now)
    assert broken.conditions[0][2] == "InvalidSpec"


def test_a_refusal_is_kept_until_the_order_says_so_itself() -> None:
    """Forgotten, the same rollback would be begun again, five minutes at a time."""
    seen, now = seen_after_a_promotion()
    assert seen.model is not None
    wanted, since = order(seen, now, "Rollback", A), timestamp(now - timedelta(seconds=301))
    known = OverrideStatus(
        name="order", uid="uid-order", action="Rollback", revision=A, state="Starting", since=since
    )
    model = seen.model.model_copy(update={"status": seen.model.status.model_copy(update={"override": known})})
    before = replace(seen, model=model, overrides=(wanted,))
    told = plan_model(before, now).status.override
    assert told is not None
    assert told.state == "Refused"
    after = replace(before, overrides=(order(seen, now, "Rollback", A, told="RefusedUnhealthy"),))
    assert plan_model(after, now).status.override is None
