"""Probes, figures and logs of the operator: what ends the pod, what takes it out, what is shown."""

from __future__ import annotations

import asyncio
import json
import logging
import re

import httpx
import pytest

from controller.api.meta import Key
from controller.clients.errors import Unavailable
from controller.reconcile.cache import Cache
from controller.reconcile.health import Answer, Canary, JsonFormatter, Pulse, probe, serve
from controller.reconcile.metrics import Live, Metrics
from controller.reconcile.queue import Next, Queue


class Clock:
    def __init__(self):
        self.time = 1000.0

    def __call__(self):
        return self.time


def lease(version, name="mainspring-canary"):
    return {"kind": "Lease", "metadata": {"namespace": "system", "name": name, "resourceVersion": str(version)}}


def pulse():
    clock = Clock()
    canary = Canary("system", "mainspring-canary", clock, deaf_after_s=120)
    return Pulse(clock=clock, canary=canary, tick_at=clock.time), canary, clock


def test_a_watch_is_deaf_when_the_echo_of_an_own_write_is_owed_for_two_minutes():
    health, canary, clock = pulse()
    canary.sent(lease(10))
    clock.time += 119
    health.tick_at = clock.time
    assert health.alive() == (True, "alive")
    clock.time += 2
    health.tick_at = clock.time
    assert health.alive() == (False, "the watch is deaf: no echo of our own write for 121 s")
    canary.heard(lease(11))
    assert health.alive() == (True, "alive")


def test_an_echo_of_an_older_write_or_of_another_object_is_none():
    _, canary, clock = pulse()
    canary.sent(lease(10))
    canary.heard(lease(9))
    canary.heard(lease(12, "another"))
    clock.time += 121
    assert canary.is_deaf()


def test_an_echo_that_is_quicker_than_the_answer_counts():
    _, canary, clock = pulse()
    canary.heard(lease(10))
    canary.sent(lease(10))
    clock.time += 121
    assert not canary.is_deaf()


def test_later_writes_do_not_hide_that_nothing_is_heard():
    _, canary, clock = pulse()
    for version in range(10, 15):
        canary.sent(lease(version))
        clock.time += 30
    assert canary.is_deaf()


def test_an_api_server_that_is_away_makes_nobody_deaf():
    _, canary, clock = pulse()
    canary.sent(lease(10))

    class Away:
        async def get(self, key):
            assert key == Key("Lease", "system", "mainspring-canary")
            clock.time += 600
            raise Unavailable("no connection")

    async def story():
        running = asyncio.create_task(canary.run(Away(), "me"))
        async with asyncio.timeout(5):
            while clock.time < 1600:
                await asyncio.sleep(0)
            await asyncio.sleep(0)
        running.cancel()

    asyncio.run(story())
    assert not canary.is_deaf()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param({"ended": "the work loop"}, "the work loop has ended", id="a part has ended"),
        pytest.param({"tick_at": 900.0}, "the event loop is 100 s late", id="the loop hangs"),
    ],
)
def test_what_ends_the_pod(change, why):
    health, _, _ = pulse()
    assert health.alive()[0]
    for name, value in change.items():
        setattr(health, name, value)
    assert health.alive() == (False, why)


def test_a_standby_is_ready_once_it_has_seen_all():
    health, _, _ = pulse()
    health.waiting_for = "a list of ModelSpec: no CRDs"
    assert health.ready() == (False, "waiting for a list of ModelSpec: no CRDs")
    health.synced = True
    assert health.ready() == (True, "standby")
    health.leading = True
    assert health.ready() == (True, "leader")
    health.stopping = True
    assert health.ready() == (False, "stopping")


def test_the_server_answers_its_pages_and_survives_nonsense():
    good = {"is": True}

    async def story():
        pages = {"/healthz": probe(lambda: (good["is"], "because")), "/metrics": lambda: Answer(200, b"x 1\n")}
        server = await serve("127.0.0.1", 0, pages)
        port = server.sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"\0\0\0" * 10_000)
            writer.close()
            first = await client.get("/healthz")
            good["is"] = False
            answers = [
                first,
                await client.get("/healthz"),
                await client.get("/metrics?x=1"),
                await client.get("/"),
            ]
            answers.append(await client.post("/healthz"))
        server.close()
        return [(answer.status_code, answer.text) for answer in answers]

    assert asyncio.run(story()) == [
        (200, "because\n"),
        (503, "because\n"),
        (200, "x 1\n"),
        (404, "not found\n"),
        (405, "only GET\n"),
    ]


def figures(cache):
    clock = Clock()
    live = Live(
        cache=cache,
        clock=clock,
        depth=lambda: 3,
        oldest_s=lambda: 1.5,
        leading=lambda: True,
        deaf_s=lambda: 0.0,
        heard_at={"Job": clock.time - 7},
    )
    return Metrics(live)


def test_the_figures_name_no_object():
    cache = Cache()
    conditions = [{"type": "Ready", "status": "True"}, {"type": "secret-name", "status": "True"}]
    meta = {"name": "secret-name", "namespace": "secret-name", "resourceVersion": "1"}
    status = {"conditions": conditions, "attempts": [{"number": 1, "outcome": "Succeeded"}]}
    spec = {"trigger": {"type": "Commit", "message": "secret-name"}}
    cache.put({"kind": "ModelRevision", "metadata": meta, "spec": spec, "status": status})
    counted = figures(cache)
    counted.worked("ModelSpec", 0.2, "ok")
    counted.requeued("ModelSpec", "backoff")
    counted.requested("patch", "Lease", "200")
    text = counted.page().decode()
    for line in (
        'mainspring_reconciles_total{kind="ModelSpec",outcome="ok"} 1.0',
        'mainspring_requeues_total{kind="ModelSpec",why="backoff"} 1.0',
        'mainspring_api_requests_total{code="200",kind="Lease",verb="patch"} 1.0',
        "mainspring_queue_depth 3.0",
        "mainspring_leader 1.0",
        'mainspring_watch_silent_seconds{kind="Job"} 7.0',
        'mainspring_conditions{kind="ModelRevision",status="True",type="Ready"} 1.0',
        'mainspring_trainings{outcome="Succeeded",trigger="Commit"} 1.0',
    ):
        assert line in text
    assert "secret-name" not in text
    assert re.search(r"mainspring_reconcile_seconds_count\{kind=\"ModelSpec\"\} 1\.0", text)


def test_a_line_of_the_log_is_json_with_the_object_and_without_secrets():
    record = logging.LogRecord("controller", logging.WARNING, "f", 1, "token=%s\nnext", ("hunter2hunter2",), None)

    async def inside():
        return JsonFormatter().format(record)

    async def story():
        return await asyncio.create_task(inside(), name="ModelSpec/default/bikes")

    entry = json.loads(asyncio.run(story()))
    assert entry["object"] == "ModelSpec/default/bikes"
    assert entry["level"] == "warning"
    assert "hunter2" not in entry["message"]
    assert "\n" not in entry["message"]


def test_what_is_worked_on_at_the_stop_may_end_and_what_takes_too_long_is_cut():
    ended = []

    async def work(key):
        await asyncio.sleep(0.05 if key.name == "quick" else 60)
        ended.append(key.name)
        return Next.done()

    async def story():
        queue, stop = Queue(work, drain_s=0.5), asyncio.Event()
        running = asyncio.create_task(queue.run(stop))
        for name in ("quick", "slow"):
            queue.add(Key("ModelSpec", "a", name))
        async with asyncio.timeout(10):
            while queue.depth() < 2 or queue.oldest_s() > 0:
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            stop.set()
            await running

    asyncio.run(story())
    assert ended == ["quick"]


def test_what_is_cut_off_because_another_leads_is_forgotten_with_its_failures():
    ended = []

    async def work(key):
        await asyncio.sleep(60)
        ended.append(key.name)
        return Next.done()

    async def story():
        queue, never = Queue(work, workers=1), asyncio.Event()
        running = asyncio.create_task(queue.run(never))
        for name in ("busy", "waiting"):
            queue.add(Key("ModelSpec", "a", name))
        queue.add(Key("ModelSpec", "a", "later"), 3600)
        async with asyncio.timeout(10):
            while queue.oldest_s() == 0:
                await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        queue.clear()
        return queue.depth(), queue.oldest_s()

    assert asyncio.run(story()) == (0, 0.0)
    assert ended == []
