"""What people do in a walk: they push, revert, edit, suspend, delete, retry, and leave things lying about.

Each is a function of the world and of a random source of its own; how often each happens is in `happenings.py`.
"""

from __future__ import annotations

import random

from controller.api.conditions import timestamp
from controller.api.meta import LABEL_REVISION, Manifest, key_of
from controller.clients.errors import ClientError
from tests.simulation.arena import Arena
from tests.simulation.specs import BROKEN, FIRST, file, spec

QUALITIES = (b"60", b"55", b"50", b"45", b"40", b"70", b"120")

# -- Git -------------------------------------------------------------------------------------------------------


async def push(arena: Arena, rng: random.Random) -> None:
    """A commit that makes another model."""
    value = rng.choice(QUALITIES)
    arena.git.push(f"Quality {value.decode()}", {"quality": value})


async def improve(arena: Arena, rng: random.Random) -> None:
    """A commit that makes a better model than any before, by little."""
    best = min(arena.models.values(), default=60.0)
    value = f"{max(best - rng.choice((1, 2, 3)), 1):g}"
    arena.git.push(f"Quality {value}", {"quality": value.encode()})


async def push_code(arena: Arena, rng: random.Random) -> None:
    """A commit of code or data."""
    path = rng.choice(("train.py", "data.csv", "README.md"))
    arena.git.push(f"Change {path}", {path: str(rng.randint(1, 5)).encode()})


async def revert(arena: Arena, rng: random.Random) -> None:
    """The newest commit is reverted."""
    if len(arena.git.line) > 1:
        arena.git.push("Revert", {}, tree=arena.git.tree(arena.git.line[-2]))


async def force_push(arena: Arena, rng: random.Random) -> None:
    """The branch is moved back by force."""
    arena.git.reset(rng.randint(1, 3))


async def remove_file(arena: Arena, rng: random.Random) -> None:
    """A commit without a file that is needed; the next commit of it repairs that."""
    path = rng.choice(("quality", "data.csv"))
    if path in arena.git.tree():
        arena.git.push(f"Remove {path}", {path: None})
    else:
        arena.git.push("Repair", FIRST)


async def models_in_git(arena: Arena, rng: random.Random) -> None:
    """A file of a ModelSpec comes, changes, breaks or goes."""
    name = rng.choice(("cars", "trains", "ships"))
    content = rng.choice(
        (file(name), file(name, suspend=True), None, b"kind: [", BROKEN, file(name) + b"---\n: :\n")
    )
    if arena.cast.repository:
        arena.git.push(f"File of {name}", {f"models/{name}.yaml": content})


async def git_away(arena: Arena, rng: random.Random) -> None:
    """Git does not answer, or does again; or the branch has another name for a while."""
    if rng.random() < 0.7:
        arena.git.down = not arena.git.down
    else:
        arena.git.branch = "trunk" if arena.git.branch == "main" else "main"


# -- people ----------------------------------------------------------------------------------------------------


async def edit_spec(arena: Arena, rng: random.Random) -> None:
    """A person changes the ModelSpec, well or badly."""
    key = arena.key(rng)
    changes: list[Manifest] = [
        {"serving": {"canary": {"stepWeights": rng.choice(([10, 50], [20], [5, 10, 50]))}}},
        {"serving": {"minReplicas": rng.randint(1, 3)}},
        {"serving": {"canary": {"interval": rng.choice(("30s", "60s"))}}},
        {"gates": [{"name": "good-enough", "metric": "rmse", "max": rng.choice((100, 58, 48))}]},
        {"gates": spec("bikes")["spec"]["gates"]},
        {"training": {"params": {"depth": rng.randint(1, 2)}}},
        {"bad": rng.choice((True, None))},
    ]
    if await arena.store.get(key) is not None:
        await arena.store.patch_spec(key, rng.choice(changes))


async def suspend(arena: Arena, rng: random.Random) -> None:
    """A person suspends a model, or lets it go on."""
    model = await arena.store.get(arena.key(rng))
    if model is not None:
        await arena.store.patch_spec(key_of(model), {"suspend": not model["spec"].get("suspend", False)})


async def delete_model(arena: Arena, rng: random.Random) -> None:
    """A person deletes the model, or applies it again."""
    key = arena.key(rng)
    if await arena.store.get(key) is None:
        await arena.store.apply(spec("bikes", key.namespace))
    elif rng.random() < 0.3:
        await arena.store.delete(key)


async def delete_child(arena: Arena, rng: random.Random) -> None:
    """A person deletes something that the controller made."""
    found = await arena.store.list(
        rng.choice(("ModelRevision", "Deployment", "Service", "HTTPRoute", "ConfigMap"))
    )
    if found:
        await arena.store.delete(key_of(rng.choice(found)))


async def edit_child(arena: Arena, rng: random.Random) -> None:
    """A person changes servers or the route by hand."""
    deployments, routes = await arena.store.list("Deployment"), await arena.store.list("HTTPRoute")
    if deployments and rng.random() < 0.5:
        await arena.store.patch_spec(key_of(rng.choice(deployments)), {"replicas": rng.randint(0, 3)})
    elif routes:
        route = rng.choice(routes)
        backends = route["spec"]["rules"][0]["backendRefs"]
        chosen = rng.randrange(len(backends))
        moved = [{**b, "weight": 100 if i == chosen else 0} for i, b in enumerate(backends)]
        rules = [{**route["spec"]["rules"][0], "backendRefs": moved}]
        await arena.store.patch_spec(key_of(route), {"rules": rules})


async def retry(arena: Arena, rng: random.Random) -> None:
    """A person asks to try again."""
    for model in await arena.store.list("ModelSpec"):
        asked = {"mainspring.dev/requested-at": timestamp(arena.clock.now())}
        await arena.store.annotate(key_of(model), asked)


async def stranger(arena: Arena, rng: random.Random) -> None:
    """A person makes a ModelSpec that no repository owns, by a name that Git has too."""
    if arena.cast.repository:
        try:
            await arena.store.create(spec("ships", suspend=True))
        except ClientError:
            return
        arena.promises.foreign.add("ModelSpec/default/ships")


async def by_hand(arena: Arena, rng: random.Random) -> None:
    """A person makes servers or a Service of their own, with the labels of a model."""
    kind = rng.choice(("Deployment", "Service"))
    for found in (await arena.store.list(kind))[:1]:
        labels = dict(found["metadata"]["labels"])
        if rng.random() < 0.5:
            labels.pop(LABEL_REVISION, None)
        namespace = found["metadata"]["namespace"]
        meta = {"name": f"by-hand-{rng.randint(1, 3)}", "namespace": namespace, "labels": labels}
        made = await arena.store.apply({**found, "metadata": meta, "status": {}})
        arena.promises.foreign.add(str(key_of(made)))
