"""The end of a walk: trouble ends, only timers wake the controllers, the world must come to rest (L1 to L5).

No event is ever heard here: what a look does not ask for by its own timer does not happen.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import yaml

from controller.api.conditions import timestamp
from controller.api.meta import ANNOTATION_SOURCE_COMMIT, Key, Manifest, key_of
from tests.simulation import truth
from tests.simulation.arena import KINDS, Arena
from tests.simulation.seat import FREE
from tests.simulation.specs import FIRST, spec
from tests.simulation.truth import must, stake

STEP_S = 5.0
REST_S = 1800.0
"""Within this much time after the last fault the world matches the spec."""
OUTAGE_S = 120.0
RESYNC_S = 30.0


@dataclass
class Timers:
    """When each object is looked at next, as the queue would."""

    due: dict[Key, float] = field(default_factory=dict)
    failures: dict[Key, int] = field(default_factory=dict)


async def pass_quietly(
    arena: Arena, seconds: float, timers: Timers | None = None, *, until_settled: bool = False
) -> None:
    """Let time pass; each object is looked at when its own timer says so.

    `until_settled`: no longer than until everything has its end and nothing was written for a while.
    """
    timers = timers or Timers()
    passed = wrote = 0.0
    writes = sum(arena.writes.values())
    while passed < seconds:
        if until_settled and passed - wrote > 2 * RESYNC_S and await _is_settled(arena):
            return
        await arena.kubelet()
        for number, key in enumerate(await arena.keys()):
            if timers.due.get(key, 0.0) > passed:
                continue
            seat = arena.seats[number % len(arena.seats)]
            after = await seat.look(key)
            assert after is not None
            failed = timers.failures[key] = timers.failures.get(key, 0) + 1 if after.is_failure else 0
            wait = min(2.0**failed, 300.0) if failed else after.after_s if after.after_s is not None else RESYNC_S
            timers.due[key] = passed + wait
        await arena.pass_time(STEP_S)
        passed += STEP_S
        if (now := sum(arena.writes.values())) != writes:
            writes, wrote = now, passed


async def _is_settled(arena: Arena) -> bool:
    """Tell whether every object says of its newest generation that it is ready or needs a person."""
    for kind in KINDS[:2]:
        for manifest in await arena.store.list(kind):
            ready, stalled = truth.condition(manifest, "Ready"), truth.condition(manifest, "Stalled")
            known = (manifest.get("status") or {}).get("observedGeneration") == manifest["metadata"]["generation"]
            ended = "True" in (ready.get("status"), stalled.get("status")) or ready.get("reason") == "Suspended"
            if not (known and ended):
                return False
    return True


async def stand_by(arena: Arena) -> None:
    """Let every look that goes on come to its end."""
    for seat in arena.seats:
        if seat.task is not None:
            await seat.advance(FREE)


async def end_faults(arena: Arena) -> None:
    """Everything works again, and the spec and the branch are good."""
    await stand_by(arena)
    for seat in arena.seats:
        seat.frozen.clear()
        seat.trouble.ends()
    arena.registry.down = False
    arena.registry.trouble.ends()
    arena.git.down, arena.git.branch = False, "main"
    arena.servers.error, arena.requests_per_s = None, 10.0
    arena.ends, arena.evaluator_lies = "well", False
    arena.errors.clear()
    arena.broken.clear()
    if not {"quality", "data.csv", "train.py"} <= arena.git.tree().keys():
        arena.git.push("Repair", FIRST)
    for namespace in arena.homes:
        model = await arena.store.get(Key("ModelSpec", namespace, "bikes"))
        if model is None:
            await arena.store.apply(spec("bikes", namespace))
        else:
            await arena.store.patch_spec(key_of(model), {"suspend": False, "bad": None})


async def outage(arena: Arena) -> None:
    """L4: while everything outside is away, nobody writes the same thing over and over."""
    arena.registry.down = arena.git.down = True
    await pass_quietly(arena, 60)
    before = dict(arena.writes)
    await pass_quietly(arena, OUTAGE_S)
    for key, count in arena.writes.items():
        new = count - before.get(key, 0)
        stake(new, "L4", "something is written in an outage")
        must(new < OUTAGE_S, "L4", f"{new} writes of {key} in {OUTAGE_S:.0f} s while MLflow and Git are away")
    arena.registry.down = arena.git.down = False


async def come_to_rest(arena: Arena) -> None:
    """L1, L2, L5: what is asked for is reached, or it is said why not; then nothing is written any more."""
    await end_faults(arena)
    await outage(arena)
    await pass_quietly(arena, REST_S, until_settled=True)
    await _judge_all(arena, asked_again=False)
    await _hold_still(arena)
    for model in await arena.store.list("ModelSpec"):
        asked = {"mainspring.dev/requested-at": timestamp(arena.clock.now())}
        await arena.store.annotate(key_of(model), asked)
    arena.clock.advance(1)
    await pass_quietly(arena, REST_S, until_settled=True)
    await _judge_all(arena, asked_again=True)
    await _hold_still(arena)


async def _hold_still(arena: Arena) -> None:
    stake(True, "L1", "nothing is written any more")
    before, deeds = sum(arena.writes.values()), len(arena.deeds)
    await pass_quietly(arena, 3 * RESYNC_S + STEP_S)
    must(sum(arena.writes.values()) == before, "L1", f"still writing at rest: {arena.deeds[deeds:][:5]}")


async def _judge_all(arena: Arena, *, asked_again: bool) -> None:
    if arena.cast.repository:
        await _applied(arena)
    for kind in KINDS[:2]:
        for manifest in await arena.store.list(kind):
            name, generation = str(key_of(manifest)), manifest["metadata"]["generation"]
            status = manifest.get("status") or {}
            must(status.get("observedGeneration") == generation, "L1", f"{name} was not looked at")
            ready, stalled = truth.condition(manifest, "Ready"), truth.condition(manifest, "Stalled")
            said = f"{ready.get('reason')}: {ready.get('message')}"
            quiet = ready.get("reason") == "Suspended"
            stake(stalled.get("status") == "True", "L2", "an end that needs a person")
            settled = ready.get("status") == "True" or (stalled.get("status") == "True" and stalled.get("message"))
            must(settled or quiet, "L2", f"{name} ends as {said}")
            if kind == "ModelSpec" and not quiet:
                await _judge(arena, manifest, asked_again=asked_again)


async def _applied(arena: Arena) -> None:
    """L5: every good file of the repository is applied, whatever others there are."""
    files = {p: text for p, text in arena.git.tree().items() if p.startswith("models/")}
    good = {p: text for p, text in files.items() if b"kind: ModelSpec" in text and b": :" not in text}
    bad = len(files) - len(good)
    stake(bad and good, "L5", "good files beside bad ones")
    for path, text in good.items():
        key = Key("ModelSpec", "default", path.removeprefix("models/").removesuffix(".yaml"))
        wanted, found = yaml.safe_load(text)["spec"], await arena.store.get(key) or {"spec": {}}
        mine = str(key) not in arena.promises.foreign
        same = found["spec"].get("suspend") == wanted["suspend"]
        must(same or not mine, "L5" if bad else "L1", f"{path} is not applied, {bad} other files are bad")


async def _judge(arena: Arena, model: Manifest, *, asked_again: bool) -> None:
    """Hold the end of one model against what Git asks for and how good that truly is."""
    name, namespace = model["metadata"]["name"], model["metadata"]["namespace"]
    status, ready = model["status"], truth.condition(model, "Ready")
    said = f"{name} ends as {ready['reason']}: {ready['message']}"
    environment = truth.environment(model)
    entries = truth.chain(await arena.registry.read_ledger(name, environment), name, environment)
    serving = truth.champion(entries)
    must(
        (status.get("champion") or {}).get("revision", "") == serving, "S2", f"{name}: the ledger names {serving}"
    )
    if serving:
        await _served(arena, model, serving, truth.champion_digest(entries))
    if ready["status"] == "True":
        return
    wanted, reason = (status.get("source") or {}).get("wanted", ""), ready["reason"]
    stamp = model["metadata"].get("annotations", {}).get(ANNOTATION_SOURCE_COMMIT, "")
    if reason in ("PathNotFound", "CommitNotFound") and stamp not in ("", arena.git.line[-1]):
        return  # Its file cannot be applied any more, so that it is held to the commit that last could.
    if reason == "RolledBack" and not asked_again:
        return
    if reason in ("EvaluationFailed", "EvidenceOutdated"):
        must(not asked_again, "L1", said)
        return
    if reason in ("TrainingFailed", "DataInvalid", "DeadlineExceeded"):
        failed = [j for j in await arena.store.list("Job") if truth.ended(j).get("type") == "Failed"]
        must(failed and (not asked_again or reason == "DataInvalid"), "L1", said)
        return
    must(reason in ("GateFailed", "GateInconclusive", "ReportInvalid"), "L1", said)
    if reason == "ReportInvalid":
        must(arena.uploaded_again, "S10", f"{said}, and every run was written by one pod")
        return
    revision = await arena.store.get(Key("ModelRevision", namespace, wanted))
    assert revision is not None
    value = arena.models[revision["status"]["artifact"]["digest"]]
    against = arena.models[truth.champion_digest(entries)] if serving else None
    must(
        truth.judged(model, value, against) != "Passed",
        "L1",
        f"{said}, and {value} is good enough beside {against}",
    )


async def _served(arena: Arena, model: Manifest, serving: str, digest: str) -> None:
    """Hold that the champion, and nobody else, is served with as many servers as asked for, and named so."""
    name, namespace = model["metadata"]["name"], model["metadata"]["namespace"]
    shares, found = await arena.shares(model), await arena.servers_of(model)
    names = [d["metadata"]["name"] for d in found]
    must(list(shares.values()) == [100], "L1", f"{name}: the route is {shares}")
    must(names == list(shares), "L1", f"{name}: there are servers {names}, the route is {shares}")
    must(names[0].rpartition("-")[0] == serving, "S2", f"{name}: {names} serve, the ledger names {serving}")
    told = found[0]["metadata"]["annotations"]["mainspring.dev/digest"]
    must(told == digest, "S1", f"{name}: {told[:19]} is served, the ledger names {digest[:19]}")
    least = truth.least(model)
    if arena.cast.by_servers:
        service = await arena.store.get(Key("Service", namespace, name)) or {"spec": {"selector": {"none": ""}}}
        labels = found[0]["spec"]["template"]["metadata"]["labels"]
        must(service["spec"]["selector"].items() <= labels.items(), "L1", f"{name}: its Service reaches nobody")
    must(found[0]["spec"]["replicas"] == least, "L1", f"{name}: {found[0]['spec']['replicas']} of {least} servers")
    registered = arena.registry.models[name]
    version = registered.aliases.get(f"{truth.environment(model)}-champion", "")
    must(registered.versions[version].get("mainspring.revision") == serving, "L1", f"{name}: alias on {version}")
    must(
        arena.bytes_of(registered.versions[version]["run"]) == digest,
        "S10",
        f"{name}: version {version} is other bytes",
    )


async def delete_all(arena: Arena) -> None:
    """L3: deletion ends though MLflow and Git are gone for good."""
    arena.registry.down = arena.git.down = True
    children = [m for kind in ("ModelRevision", "Job", "Deployment") for m in await arena.store.list(kind)]
    stake(children, "L3", "a model goes with what it made")
    for model in await arena.store.list("ModelSpec"):
        await arena.store.delete(key_of(model))
    await pass_quietly(arena, 60)
    for kind in (*KINDS[1:], "Job", "ConfigMap", "Deployment", "Service", "HTTPRoute", "PodDisruptionBudget"):
        left = [key_of(m) for m in await arena.store.list(kind) if str(key_of(m)) not in arena.promises.foreign]
        must(not left, "L3", f"{left} are left after their model was deleted")
