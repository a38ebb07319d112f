"""What can happen in one step of a walk: each a function of the world and of a random source of its own.

A step is a name and a number; the number seeds the choices, so that a step means the same whatever is left out
before it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controller.api.meta import Key, key_of
from controller.api.statements import LEDGER_TYPE, LedgerEntry, chain_digest, ledger_payload
from controller.clients.errors import Unavailable
from controller.clients.signing import Signer
from tests.simulation import people, rest, truth
from tests.simulation.arena import Arena
from tests.simulation.specs import FIRST, file, repository, spec

Happening = Callable[[Arena, random.Random], Awaitable[object]]
_STRANGER = Signer(Ed25519PrivateKey.from_private_bytes(b"x" * 32))


async def begin(arena: Arena) -> None:
    """Set the scene: a repository and a model that asks for it."""
    files = {"models/cars.yaml": file("cars"), "models/trains.yaml": file("trains", suspend=True)}
    arena.git.push("Predict bikes", FIRST | (files if arena.cast.repository else {}))
    for namespace in arena.homes:
        await arena.store.apply(spec("bikes", namespace))
    if arena.cast.repository:
        await arena.store.apply(repository())


# -- controllers -----------------------------------------------------------------------------------------------


async def look(arena: Arena, rng: random.Random) -> None:
    """One controller looks at one object."""
    keys = await arena.keys()
    if keys:
        await rng.choice(arena.seats).look(rng.choice(keys))


async def look_round(arena: Arena, rng: random.Random) -> None:
    """One controller looks at everything, in any order."""
    keys = await arena.keys()
    rng.shuffle(keys)
    seat = rng.choice(arena.seats)
    for key in keys:
        await seat.look(key)


async def part(arena: Arena, rng: random.Random) -> None:
    """One controller goes a few calls further in a look, and stands there."""
    seat, calls = rng.choice(arena.seats), rng.randint(1, 20)
    keys = await arena.keys()
    if seat.task is not None:
        await seat.advance(calls)
    elif keys:
        await seat.look(rng.choice(keys), calls)


async def crash(arena: Arena, rng: random.Random) -> None:
    """One controller goes a few calls further and is killed."""
    await part(arena, rng)
    await rng.choice(arena.seats).crash()


async def freeze(arena: Arena, rng: random.Random) -> None:
    """One controller's view of some kinds is not renewed any more."""
    kinds = ("ModelSpec", "ModelRevision", "Job", "Deployment", "Service", "HTTPRoute", "Pod")
    if arena.cast.stale:
        await rng.choice(arena.seats).freeze(rng.sample(kinds, rng.randint(1, 4)))


async def thaw(arena: Arena, rng: random.Random) -> None:
    """One controller's view is fresh again."""
    rng.choice(arena.seats).frozen.clear()


async def api_fault(arena: Arena, rng: random.Random) -> None:
    """One of the next calls of the object store fails, before or after it was done."""
    rng.choice(arena.seats).trouble.comes(rng.randint(1, 25), after=rng.random() < 0.5)


# -- kubelet and servers ---------------------------------------------------------------------------------------


async def pods(arena: Arena, rng: random.Random) -> None:
    """Jobs and servers go on."""
    await arena.kubelet()


async def job_ends(arena: Arena, rng: random.Random) -> None:
    """A running Job ends now, well or badly."""
    jobs = [j for j in await arena.store.list("Job") if not (j.get("status") or {}).get("conditions")]
    how = rng.choice(("well", "exit", "memory", "evicted", "late", "exit", "data"))
    if jobs:
        await arena.end_job(rng.choice(jobs), how)


async def job_twice(arena: Arena, rng: random.Random) -> None:
    """The pod of a Job that ended goes on elsewhere, and uploads once more."""
    jobs = [j for j in await arena.store.list("Job") if (j.get("status") or {}).get("conditions")]
    if jobs and not arena.cast.fresh_bytes:
        job = rng.choice(jobs)
        await arena.measure(job)
        tasks = await arena.store.get(Key("ConfigMap", job["metadata"]["namespace"], job["metadata"]["name"]))
        if tasks is not None:
            arena.uploaded_again.add(json.loads(tasks["data"]["evaluate.json"])["run"])


async def jobs_fail(arena: Arena, rng: random.Random) -> None:
    """From now on all Jobs end in one way: well, or not."""
    arena.ends = rng.choice(("well", "well", "exit", "memory", "late"))


async def evaluator_lies(arena: Arena, rng: random.Random) -> None:
    """Reports compare with another champion than they were to, or do so no more."""
    arena.evaluator_lies = not arena.evaluator_lies


async def job_gone(arena: Arena, rng: random.Random) -> None:
    """A Job is deleted, by its age or by a person."""
    jobs = await arena.store.list("Job")
    if jobs:
        await arena.store.delete(key_of(rng.choice(jobs)))


async def servers_break(arena: Arena, rng: random.Random) -> None:
    """Servers of a revision stop answering, or come back."""
    found = await arena.store.list("Deployment")
    if found:
        revision = rng.choice(found)["metadata"]["name"].rpartition("-")[0]
        arena.broken ^= {revision}
    await arena.kubelet()


async def server_restarts(arena: Arena, rng: random.Random) -> None:
    """A server is restarted and counts anew."""
    found = await arena.store.list("Deployment")
    if found:
        arena.servers.restart(f"{rng.choice(found)['metadata']['name']}-0")


async def answers(arena: Arena, rng: random.Random) -> None:
    """A revision begins or ends to answer with errors."""
    found = await arena.store.list("Deployment")
    if found:
        arena.errors[rng.choice(found)["metadata"]["name"].rpartition("-")[0]] = rng.choice((0.0, 0.2))


async def requests(arena: Arena, rng: random.Random) -> None:
    """More or fewer requests come."""
    arena.requests_per_s = rng.choice((0.0, 0.2, 10.0, 10.0))


async def telemetry(arena: Arena, rng: random.Random) -> None:
    """The servers' counters cannot be read, or can again."""
    said = Unavailable("http://127.0.0.1:1 did not answer, Authorization: Bearer ***", reason="Unreachable")
    arena.servers.error = said if arena.servers.error is None else None


# -- time ------------------------------------------------------------------------------------------------------


async def tick(arena: Arena, rng: random.Random) -> None:
    """Time passes, with requests."""
    await arena.pass_time(rng.choice((1, 5, 10, 20, 30, 65)))
    await arena.kubelet()


async def calm(arena: Arena, rng: random.Random) -> None:
    """For some minutes nothing happens but what should: models are trained, canaries go on."""
    await rest.stand_by(arena)
    await rest.pass_quietly(arena, rng.choice((40, 100, 200, 300)))


async def mended(arena: Arena, rng: random.Random) -> None:
    """People have mended what was broken outside."""
    arena.registry.down = arena.git.down = False
    arena.git.branch, arena.servers.error, arena.requests_per_s = "main", None, 10.0
    arena.ends, arena.evaluator_lies = "well", False
    arena.broken.clear()
    if rng.random() < 0.5:
        arena.errors.clear()
    for model in await arena.store.list("ModelSpec"):
        if model["metadata"]["name"] == "bikes":
            await arena.store.patch_spec(key_of(model), {"suspend": False, "bad": None})


async def jump(arena: Arena, rng: random.Random) -> None:
    """The clock is set, forward or back."""
    if arena.cast.jumps:
        arena.clock.advance(rng.choice((-86400, -3600, -30, 30, 3600, 86400)))


# -- MLflow ----------------------------------------------------------------------------------------------------


async def registry_away(arena: Arena, rng: random.Random) -> None:
    """MLflow does not answer, or does again."""
    arena.registry.down = not arena.registry.down


async def registry_fault(arena: Arena, rng: random.Random) -> None:
    """One of the next calls of MLflow fails, before or after it was done."""
    arena.registry.trouble.comes(rng.randint(1, 15), after=rng.random() < 0.5)


async def alias_by_hand(arena: Arena, rng: random.Random) -> None:
    """A person moves the alias in MLflow."""
    for model in arena.registry.models.values():
        if model.versions:
            alias = rng.choice(sorted(model.aliases) or ["default-champion"])
            model.aliases[alias] = rng.choice(sorted(model.versions))


async def junk_entry(arena: Arena, rng: random.Random) -> None:
    """Somebody appends to the ledger what our key did not sign, or one of our entries again; or one is lost."""
    down, arena.registry.down = arena.registry.down, False
    blobs = await arena.registry.read_ledger("bikes", "default")
    entries = truth.chain(blobs, "bikes", "default")
    if entries and arena.cast.losses and rng.random() < 0.7:
        arena.registry.lose("bikes", "default", rng.choice(entries).seq)
    elif entries:
        junk = b'{"payload": "forged"}' if rng.random() < 0.3 else rng.choice(blobs)
        if rng.random() < 0.6:
            junk = forged(entries, rng.choice(entries), len(blobs) + 1)
        await arena.registry.append_ledger("bikes", "default", len(blobs) + 1, junk)
    arena.registry.down = down


def forged(entries: list[LedgerEntry], model: LedgerEntry, seq: int) -> bytes:
    """Make a revision that was judged once champion, in an entry that has everything but our signature."""
    fields = {
        "kind": "Promoted",
        "seq": seq,
        "prev": chain_digest(ledger_payload(entries[-1])),
        "champion": model.revision,
        "reason": "Because: I say so",
    }
    return _STRANGER.sign(ledger_payload(model.model_copy(update=fields)), LEDGER_TYPE)


HAPPENINGS: dict[Happening, int] = {
    look: 60,
    look_round: 60,
    part: 40,
    crash: 8,
    freeze: 6,
    thaw: 6,
    api_fault: 6,
    pods: 20,
    job_ends: 10,
    job_twice: 1,
    job_gone: 3,
    jobs_fail: 3,
    evaluator_lies: 1,
    servers_break: 3,
    server_restarts: 2,
    answers: 10,
    requests: 6,
    telemetry: 6,
    tick: 60,
    calm: 16,
    mended: 16,
    jump: 2,
    people.push: 6,
    people.improve: 10,
    people.push_code: 2,
    people.revert: 2,
    people.force_push: 1,
    people.remove_file: 1,
    people.models_in_git: 4,
    people.git_away: 2,
    people.edit_spec: 4,
    people.suspend: 2,
    people.delete_model: 1,
    people.delete_child: 3,
    people.edit_child: 3,
    people.retry: 3,
    people.stranger: 1,
    people.by_hand: 1,
    registry_away: 2,
    registry_fault: 6,
    alias_by_hand: 1,
    junk_entry: 1,
}
"""How often each happens, beside the others."""
BY_NAME = {happening.__name__: happening for happening in HAPPENINGS}
