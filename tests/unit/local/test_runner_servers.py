"""Promises of the runner about servers: replicas, restarts, rolling replacement, and no lost request meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from contextlib import asynccontextmanager

import httpx
import pytest

from controller.api.meta import Key
from tests.support.processes import is_alive
from tests.unit.local.runner_world import SERVER, World, manifest, processes_in, until

pytestmark = pytest.mark.anyio
PATIENCE = httpx.Timeout(20.0)


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def world(tmp_path):
    made = World(tmp_path)
    yield made
    await made.runner.stop_all()
    made.store.close()
    assert processes_in(tmp_path) == []


async def ask(client, world, model="bikes"):
    return await client.post(f"{world.runner.url('default', model)}/predict", json={"rows": [1]})


@asynccontextmanager
async def under_load(world, clients=4):
    """Send requests without pause; yields the answers so far, by (status, text)."""
    answers: Counter = Counter()
    over = asyncio.Event()

    async def one(client):
        while not over.is_set():
            try:
                answer = await ask(client, world)
                answers[answer.status_code, answer.text.partition(" ")[0]] += 1
            except httpx.HTTPError as error:
                answers[0, repr(error)] += 1

    async with httpx.AsyncClient(timeout=PATIENCE) as client:
        tasks = [asyncio.create_task(one(client)) for _ in range(clients)]
        try:
            yield answers
        finally:
            over.set()
            await asyncio.gather(*tasks)


async def more(answers, count, what, wanted=lambda _: True):
    """Wait until so many further answers of a kind came."""
    before = sum(n for key, n in answers.items() if wanted(key))
    await until(lambda: sum(n for key, n in answers.items() if wanted(key)) >= before + count, what)


def lost(answers):
    return {key: count for key, count in answers.items() if key[0] != 200}


async def test_a_deployment_gets_its_servers_each_on_a_port_of_its_own(world):
    await world.servers("bikes-1", replicas=2)
    async with world.running():
        await world.ready("bikes-1", 2)
        pods = await world.pods("bikes-1")
    status = await world.status("Deployment", "bikes-1")
    assert status["observedGeneration"] == 1
    assert (status["availableReplicas"], status["conditions"][0]["status"]) == (2, "True")
    ports = {pod["spec"]["containers"][0]["ports"][0]["containerPort"] for pod in pods.values()}
    assert len(ports) == 2
    for pod in pods.values():
        assert pod["status"]["podIP"] == "127.0.0.1"
        assert pod["status"]["conditions"][0]["status"] == "True"


async def test_scaling_adds_servers_and_takes_them_away_with_their_processes(world):
    await world.servers("bikes-1", replicas=1)
    async with world.running():
        await world.ready("bikes-1", 1)
        await world.servers("bikes-1", replicas=3)
        await world.ready("bikes-1", 3)
        pids = [world.pid_of(name, "server") for name in await world.pods("bikes-1")]
        await world.servers("bikes-1", replicas=1)
        await world.ready("bikes-1", 1)

        async def one_left():
            return len(await world.pods("bikes-1")) == 1

        await until(one_left, "two pods are gone")
    assert sum(is_alive(pid) for pid in pids) == 1


async def test_a_server_that_crashed_is_started_again_and_counted(world):
    await world.servers("bikes-1")
    async with world.running():
        await world.ready("bikes-1", 1)
        (name,) = await world.pods("bikes-1")
        os.kill(world.pid_of(name, "server"), signal.SIGKILL)

        async def restarted():
            status = (await world.status("Pod", name))["containerStatuses"][0]
            return status["restartCount"] == 1 and status["ready"]

        await until(restarted, "the server is ready again")
    status = (await world.status("Pod", name))["containerStatuses"][0]
    assert status["lastState"]["terminated"]["exitCode"] == 137


async def test_a_server_whose_shim_was_killed_is_replaced(world):
    await world.servers("bikes-1")
    async with world.running():
        await world.ready("bikes-1", 1)
        (name,) = await world.pods("bikes-1")
        os.kill(world.shim_of(name), signal.SIGKILL)

        async def replaced():
            others = await world.pods("bikes-1")
            return name not in others and len(others) == 1

        await until(replaced, "another pod stands in for it")
        await world.ready("bikes-1", 1)


async def test_a_server_that_cannot_start_is_not_ready_and_the_deployment_says_why(world):
    await world.servers("bikes-1", script="raise SystemExit('model digest differs')")
    async with world.running():

        async def told():
            conditions = (await world.status("Deployment", "bikes-1")).get("conditions", [{}])
            return "exited with code 1" in conditions[0].get("message", "")

        await until(told, "the deployment says why")
    condition = (await world.status("Deployment", "bikes-1"))["conditions"][0]
    assert condition["reason"] == "MinimumReplicasUnavailable"
    assert condition["message"].startswith("0 of 1 replicas are ready; pod bikes-1-")


async def test_servers_and_router_outlive_the_controller_and_are_adopted_by_the_next(world):
    await world.servers("bikes-1", replicas=2)
    await world.route("bikes", **{"bikes-1": 100})
    first = world.controller_process()
    try:
        await world.ready("bikes-1", 2)
        await world.router_answers()
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    pids = {name: world.pid_of(name, "server") for name in await world.pods("bikes-1")}
    async with httpx.AsyncClient(timeout=PATIENCE) as client:
        assert (await ask(client, world)).status_code == 200
    async with world.running():
        await world.runner.sync()
        await world.ready("bikes-1", 2)
        assert {name: world.pid_of(name, "server") for name in await world.pods("bikes-1")} == pids
    assert all(is_alive(pid) for pid in pids.values())


async def test_weights_are_kept_exactly(world):
    await world.servers("bikes-1")
    await world.servers("bikes-2")
    await world.route("bikes", **{"bikes-1": 75, "bikes-2": 25})
    async with world.running():
        await until(lambda: world.routed("bikes") == {"bikes-1": 1, "bikes-2": 1}, "both are routed")
        await world.router_answers()
        async with httpx.AsyncClient(timeout=PATIENCE) as client:
            answers = [await ask(client, world) for _ in range(200)]
    assert Counter(a.headers["x-mainspring-backend"] for a in answers) == {"bikes-1": 150, "bikes-2": 50}
    assert answers[0].text == "bikes-1 /predict"


async def test_no_request_is_lost_while_servers_are_killed_scaled_replaced_and_weights_change(world):
    await world.servers("bikes-1", replicas=2)
    await world.servers("bikes-2", replicas=1)
    await world.route("bikes", **{"bikes-1": 75, "bikes-2": 25})
    async with world.running():
        await until(lambda: world.routed("bikes") == {"bikes-1": 2, "bikes-2": 1}, "all are routed")
        await world.router_answers()
        async with under_load(world) as answers:
            await more(answers, 50, "requests are answered")
            (victim, other) = await world.pods("bikes-1")
            os.kill(world.pid_of(victim, "server"), signal.SIGKILL)
            await more(answers, 100, "requests go on after a server was killed")
            os.kill(world.shim_of(other), signal.SIGKILL)
            await more(answers, 100, "requests go on after a shim was killed")
            await world.ready("bikes-1", 2)
            await world.servers("bikes-1", replicas=1)
            await until(lambda: world.routed("bikes")["bikes-1"] == 1, "one is taken out")
            await world.route("bikes", **{"bikes-1": 0, "bikes-2": 100})
            await more(answers, 100, "requests go to the other model", lambda key: key[1] == "bikes-2")
            await world.servers("bikes-2", replicas=1, FLAVOUR="new")
            await world.ready("bikes-2", 1)

            async def replaced():
                return len(await world.pods("bikes-2")) == 1

            await until(replaced, "the old server is gone")
            await world.store.delete(Key("Deployment", "default", "bikes-1"))
            await more(answers, 100, "requests go on after a deployment was deleted")
    assert lost(answers) == {}


SLOW = SERVER.replace(
    "        body =",
    "        while self.command == 'POST' and not os.path.exists(os.environ['GO']): os.sched_yield()\n"
    "        body =",
)


async def test_a_server_that_is_taken_away_first_answers_what_it_works_on(world, tmp_path):
    await world.servers("bikes-1", replicas=2, script=SLOW, GO=str(tmp_path / "go"))
    await world.route("bikes", **{"bikes-1": 100})
    async with world.running(), httpx.AsyncClient(timeout=PATIENCE) as client:
        await until(lambda: world.routed("bikes") == {"bikes-1": 2}, "both are routed")
        await world.router_answers()
        requests = [asyncio.create_task(ask(client, world)) for _ in range(2)]

        async def both_busy():
            return len((await client.get(f"{world.runner.router_url}/_router/healthz")).json()["inflight"]) == 2

        await until(both_busy, "each server works on a request")
        pids = [world.pid_of(name, "server") for name in await world.pods("bikes-1")]
        await world.servers("bikes-1", replicas=1, script=SLOW, GO=str(tmp_path / "go"))
        await until(lambda: world.routed("bikes") == {"bikes-1": 1}, "one is out of the router")
        assert all(map(is_alive, pids))
        (tmp_path / "go").touch()
        answers = await asyncio.gather(*requests)
        assert [a.status_code for a in answers] == [200, 200]
        counted = (await client.get(f"{world.runner.router_url}/_router/metrics")).json()["models"]
        assert counted["default/bikes"]["retries"] == 0
        await until(lambda: sum(map(is_alive, pids)) == 1, "then it goes")


async def test_a_rolling_replacement_waits_for_the_new_server_before_it_stops_the_old(world):
    await world.servers("bikes-1")
    async with world.running():
        await world.ready("bikes-1", 1)
        (old,) = await world.pods("bikes-1")
        await world.servers("bikes-1", script="raise SystemExit(1)")

        async def tried():
            pods = await world.pods("bikes-1")
            return any(pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods.values())

        await until(tried, "the new server fails")
        assert is_alive(world.pid_of(old, "server"))
        assert (await world.status("Deployment", "bikes-1"))["readyReplicas"] == 1
        await world.servers("bikes-1", script=SERVER, FLAVOUR="good")

        async def replaced():
            pods = await world.pods("bikes-1")
            return len(pods) == 1 and old not in pods

        await until(replaced, "the good one is alone")


async def test_the_router_comes_back_on_the_same_port_when_it_is_killed(world):
    async with world.running():
        await world.router_answers()
        port, home = world.runner.router_url, world.root / "router" / "default" / "router"
        before = (home / "shim.json").read_text()
        os.kill(int(json.loads(before)["pid"]), signal.SIGKILL)

        def another():
            try:
                return (home / "shim.json").read_text() != before
            except FileNotFoundError:
                return False

        await until(another, "another router is started")
        await world.router_answers()
    assert world.new_runner().router_url == port


async def test_a_deleted_deployment_leaves_no_pod_and_no_process(world):
    await world.servers("bikes-1", replicas=2)
    async with world.running():
        await world.ready("bikes-1", 2)
        pids = [world.pid_of(name, "server") for name in await world.pods("bikes-1")]
        await world.store.delete(Key("Deployment", "default", "bikes-1"))
        await until(lambda: not any(map(is_alive, pids)), "the servers are gone")
        await until(lambda: not list((world.root / "pods" / "default").iterdir()), "and their directories")
    assert await world.pods("bikes-1") == {}


async def test_one_unusable_object_does_not_keep_the_others_from_running(world):
    await world.store.apply(manifest("Deployment", "broken", {"replicas": 1, "selector": {}}))
    await world.servers("bikes-1")
    async with world.running():
        await world.ready("bikes-1", 1)


async def test_servers_start_again_after_everything_was_stopped(world):
    await world.servers("bikes-1")
    async with world.running():
        await world.ready("bikes-1", 1)
    await world.runner.stop_all()
    assert processes_in(world.path) == []
    assert (await world.status("Deployment", "bikes-1"))["readyReplicas"] == 0
    world.runner = world.new_runner()
    async with world.running():
        await world.ready("bikes-1", 1)
