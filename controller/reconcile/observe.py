"""Reads the world, once per round, into what the decisions take: clients → `ModelSeen`, `RepositorySeen`.

What could not be read becomes Unknown or Refused inside; only when the object store itself does not answer is
there nobody to tell, and the error goes up to the queue.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from difflib import get_close_matches
from weakref import WeakValueDictionary

from controller.api.base import seconds
from controller.api.hashes import files_digest
from controller.api.kinds import ModelOverride, ModelRepository, ModelRevision, ModelSpec, parse
from controller.api.meta import (
    ANNOTATION_REQUESTED_AT,
    ANNOTATION_SOURCE_COMMIT,
    LABEL_MODEL,
    LABEL_REPOSITORY,
    LABEL_REVISION,
    Key,
    Manifest,
)
from controller.api.modelspec import Ref
from controller.api.rollout import SmokeTest
from controller.api.validation import Checked, check_text
from controller.clients.errors import ClientError, Denied, NotFound
from controller.clients.git_types import GitRef, Head, TreeEntry
from controller.plan.observed import (
    ORDER_FIRST,
    ModelSeen,
    OverrideSeen,
    RepositorySeen,
    SourceSeen,
)
from controller.plan.revision import environment_of, registry_name
from controller.plan.selection import OUR_YAML_MAX_BYTES, is_our_yaml, may_be_our_yaml, select, unmatched
from controller.plan.verdict import Refused, Unknown
from controller.reconcile import datasets, queries, surroundings, survival
from controller.reconcile.access import git_for, log_secret
from controller.reconcile.jobs import has_ended
from controller.reconcile.world import World

_OURS: dict[str, bool] = {}
"""Blob → whether it is our own YAML; a blob never changes. Bounded by `_OURS_MOST`."""
_OURS_MOST = 100_000
_READING: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
YAML_LIMIT = 262_144
SMOKE_LIMIT = 65_536
"""Largest request of a smoke test, bytes: it is part of a pod."""
GIT_PATIENCE_S = 1.0
"""How often a look that waits for Git sees whether a person has ordered something meanwhile, seconds."""
_TOO_LARGE = b"# mainspring.dev\n" + b" " * YAML_LIMIT


def forget() -> None:
    """Forget which files are our own YAML, as a new process would; for measuring."""
    _OURS.clear()


async def model(world: World, key: Key, *, asks_git: bool = True) -> ModelSeen | None:
    """Read everything about one ModelSpec; None when it is gone."""
    manifest = await world.kube.get(key)
    if manifest is None:
        return None
    parsed = parse(manifest)
    if isinstance(parsed, tuple):
        nothing = Unknown("InvalidSpec", "the ModelSpec cannot be read")
        return ModelSeen(manifest=manifest, model=None, errors=parsed, source=nothing, ledger=nothing)
    assert isinstance(parsed, ModelSpec)
    labels = {LABEL_MODEL: key.name}
    namespace = key.namespace
    wanted = await _source_unless_ordered(world, parsed) if asks_git else Unknown("NotAsked", "Git was not asked")
    orders = await _orders(world, key)
    revisions = await world.kube.list("ModelRevision", namespace=namespace, labels=labels)
    jobs = await world.kube.list("Job", namespace=namespace, labels=labels)
    deployments = _made_for(manifest, await world.kube.list("Deployment", namespace=namespace, labels=labels))
    services = _made_for(manifest, await world.kube.list("Service", namespace=namespace, labels=labels))
    by_servers = not world.settings.local and parsed.spec.serving.route is None
    route = await world.kube.get(Key("HTTPRoute", namespace, key.name))
    environment = environment_of(parsed)
    noted = parsed.status.ledger.entries if parsed.status.ledger else 0
    ledger = await world.ledger.read(registry_name(parsed), environment, known_entries=noted)
    typed = _typed_revisions(revisions)
    pods = await surroundings.pods(world, parsed)
    figures = await surroundings.figures(world, parsed, pods)
    return ModelSeen(
        manifest=manifest,
        model=parsed,
        lost=await survival.lost_champion(world, parsed, ledger, typed),
        source=wanted,
        revisions=typed,
        running=frozenset(j["metadata"]["labels"].get(LABEL_REVISION, "") for j in jobs if not has_ended(j)),
        ledger=ledger,
        deployments={d["metadata"]["name"]: surroundings.deployment(d, pods) for d in deployments},
        services=frozenset(s["metadata"]["name"] for s in services) - {key.name},
        route=surroundings.shares(deployments) if by_servers else surroundings.weights(route),
        attached=surroundings.attached(route),
        spare_route=route["metadata"]["uid"] if route is not None and by_servers else "",
        by_servers=by_servers,
        stable=await surroundings.stable(world, key),
        has_budget=await surroundings.has_budget(world, key),
        autoscaler=await surroundings.autoscaler(world, key),
        loaded=figures.loaded(),
        strangers=figures.strangers,
        overrides=orders,
        log_secret=await log_secret(world, parsed),
        logs=figures.logs(),
        pods=world.settings.pods,
        traffic=figures.counters(parsed),
        counted=figures.counted(),
        queried=await queries.queried(world, parsed, typed),
        aliases=await world.ledger.aliases(registry_name(parsed)),
        url=world.url_of(namespace, key.name),
        tracking_uri=world.settings.tracking_uri,
        local=world.settings.local,
    )


def _made_for(owner: Manifest, found: tuple[Manifest, ...]) -> tuple[Manifest, ...]:
    """Leave out what only bears our labels: people's own objects, and those of a model of this name before."""
    uid = owner["metadata"]["uid"]
    return tuple(m for m in found if any(o["uid"] == uid for o in m["metadata"].get("ownerReferences", ())))


def _typed_revisions(found: tuple[Manifest, ...]) -> dict[str, ModelRevision]:
    typed = (parse(m) for m in found)
    return {r.metadata.name: r for r in typed if isinstance(r, ModelRevision)}


async def _source_unless_ordered(world: World, parsed: ModelSpec) -> SourceSeen | Unknown | Refused:
    """Ask Git, unless a person's order is still to be taken up: going back must not wait for Git."""
    if parsed.spec.suspend:
        return Unknown("Suspended", "spec.suspend is true")
    if await _is_ordered(world, parsed):
        return Unknown(ORDER_FIRST, "the order of a person is taken up first; Git is asked after that")
    asking = asyncio.ensure_future(source(world, parsed))
    try:
        while not (await asyncio.wait({asking}, timeout=GIT_PATIENCE_S))[0]:
            if await _is_ordered(world, parsed):
                return Unknown(ORDER_FIRST, "Git has not answered; the order of a person is taken up first")
        return asking.result()
    finally:
        asking.cancel()


async def _is_ordered(world: World, parsed: ModelSpec) -> bool:
    """Tell whether there is an order that nothing was done about yet; one that was refused says so itself."""
    meta, known = parsed.metadata, parsed.status.override
    found = await _orders(world, Key("ModelSpec", meta.namespace, meta.name))
    told = {o.metadata.uid for o in found if any(c.status == "False" for c in o.status.conditions)}
    return any(o.metadata.uid not in told and (known is None or known.uid != o.metadata.uid) for o in found)


async def _orders(world: World, key: Key) -> tuple[ModelOverride, ...]:
    """Read the orders of people about a model; what cannot be read says so on itself."""
    found = await world.kube.list("ModelOverride", namespace=key.namespace)
    typed = (parse(m) for m in found if not m["metadata"].get("deletionTimestamp"))
    return tuple(o for o in typed if isinstance(o, ModelOverride) and o.spec.model_ref.name == key.name)


async def override(world: World, manifest: Manifest) -> OverrideSeen:
    """Read what an order of a person is judged by; `world` is that of its model."""
    parsed = parse(manifest)
    if isinstance(parsed, tuple):
        return OverrideSeen(manifest=manifest, override=None, errors=parsed)
    assert isinstance(parsed, ModelOverride)
    about = Key("ModelSpec", parsed.metadata.namespace, parsed.spec.model_ref.name)
    return OverrideSeen(manifest=manifest, override=parsed, model=await model(world, about, asks_git=False))


async def source(world: World, parsed: ModelSpec) -> SourceSeen | Unknown | Refused:
    """Resolve the commit that a ModelSpec asks for, and what it selects of it."""
    try:
        world = replace(world, git=await git_for(world, parsed))
        head, label = await _head(world, parsed)
        return await _selected(world, parsed, head, label)
    except (Denied, NotFound) as error:
        return Refused(error.reason, error.message)
    except ClientError as error:
        return Unknown(error.reason, error.message)


async def _head(world: World, parsed: ModelSpec) -> tuple[Head, str]:
    """Resolve the ref, and hold to the stamped commit where there is one.

    The branch is asked for in either case, since that costs one poll per repository and interval for all models.
    """
    wanted = parsed.spec.source
    ref, timeout_s = git_ref(wanted.ref), seconds(wanted.timeout)
    stamped = await _stamped_commit(world, parsed)
    asked = parsed.metadata.annotations.get(ANNOTATION_REQUESTED_AT, "")
    if asked and asked != parsed.status.requested_at and not stamped:
        head = await world.git.refresh(wanted.url, ref, timeout_s=timeout_s)
    else:
        age_s = seconds(wanted.interval)
        head = await world.git.resolve(wanted.url, ref, max_age_s=age_s, timeout_s=timeout_s)
    if stamped and head.commit != stamped:
        exact = GitRef(commit=stamped)
        head = await world.git.resolve(wanted.url, exact, max_age_s=86_400.0, timeout_s=timeout_s)
    return head, revision_label(wanted.ref, head.commit)


async def _stamped_commit(world: World, parsed: ModelSpec) -> str:
    """Return the commit that a ModelRepository of the same URL and ref stamped: code and spec never race."""
    owner = parsed.metadata.labels.get(LABEL_REPOSITORY)
    commit = parsed.metadata.annotations.get(ANNOTATION_SOURCE_COMMIT, "")
    if not owner or not commit:
        return ""
    found = await world.kube.get(Key("ModelRepository", parsed.metadata.namespace, owner))
    repository = parse(found) if found is not None else None
    if not isinstance(repository, ModelRepository):
        return ""
    same = repository.spec.url == parsed.spec.source.url and repository.spec.ref == parsed.spec.source.ref
    return commit if same else ""


def git_ref(ref: Ref) -> GitRef:
    """Translate a ref of the language into the Git client's."""
    return GitRef(branch=ref.branch, tag=ref.tag, name=ref.name, commit=ref.commit)


def revision_label(ref: Ref, commit: str) -> str:
    """Write a commit with its ref, as Flux does: `main@sha1:<40 hex>`."""
    algorithm = "sha1" if len(commit) == 40 else "sha256"
    return f"{algorithm}:{commit}" if ref.commit else f"{ref}@{algorithm}:{commit}"


async def _selected(world: World, parsed: ModelSpec, head: Head, label: str) -> SourceSeen | Refused:
    url, spec = parsed.spec.source.url, parsed.spec
    entries = await world.git.files(url, head.commit)
    by_path = {e.path: e for e in entries}
    try:
        data = await datasets.pin(world, url, head.commit, spec.data, by_path)
    except datasets.MissingFile as missing:
        return _missing(missing.what, missing.path, by_path, label)
    lines = [(e.mode, e.path, e.blob) for e in entries]
    if lost := unmatched(lines, spec.source.paths):
        return _missing(f"source.paths: {lost[0]}", lost[0], by_path, label)
    ours = await _our_yaml(world, url, head.commit, entries)
    chosen = select(lines, spec.source.paths, exclude=frozenset(ours) | datasets.files_of(data))
    if not chosen:
        return Refused("PathNotFound", f"source.paths selects no file of {label}")
    for check in spec.checks:
        of_file = check.pandera or check.great_expectations
        path = of_file.path if of_file else ""
        if path and all(line[1] != path for line in chosen):
            if path not in by_path:
                return _missing(f"check {check.name}: {path}", path, by_path, label)
            message = f"check {check.name}: {path} is not among source.paths, so a change of it would not be seen"
            return Refused("RuleInvalid", message)
    smoke = await _smoke_test(world, url, head.commit, spec.serving.smoke_test, by_path, label)
    if isinstance(smoke, Refused):
        return smoke
    return SourceSeen(
        smoke=smoke,
        commit=head.commit,
        label=label,
        author=head.author,
        subject=head.subject,
        files=files_digest(chosen),
        data=data,
    )


async def _smoke_test(
    world: World,
    url: str,
    commit: str,
    rule: SmokeTest | None,
    by_path: dict[str, TreeEntry],
    label: str,
) -> str | Refused:
    """Read the request of the smoke test; empty where none is wanted."""
    if rule is None:
        return ""
    entry = by_path.get(rule.path)
    if entry is None:
        return _missing(f"serving.smokeTest.path: {rule.path}", rule.path, by_path, label)
    if entry.size > SMOKE_LIMIT:
        size = f"{rule.path} has {entry.size:,} bytes"
        return Refused("SmokeTestInvalid", f"serving.smokeTest.path: {size}, more than {SMOKE_LIMIT:,}")
    found = await world.git.read_many(url, commit, [rule.path], limit=SMOKE_LIMIT)
    try:
        return found[rule.path].decode()
    except UnicodeDecodeError:
        return Refused("SmokeTestInvalid", f"serving.smokeTest.path: {rule.path} is no text in UTF-8")


def _missing(what: str, path: str, by_path: dict[str, TreeEntry], label: str) -> Refused:
    near = get_close_matches(path, by_path, n=3)
    hint = f"; the nearest are {', '.join(near)}" if near else ""
    return Refused("PathNotFound", f"{what} is not in {label}{hint}")


async def _our_yaml(world: World, url: str, commit: str, entries: tuple[TreeEntry, ...]) -> set[str]:
    """Find the files that are our own YAML: they configure and are no code.

    All models of a repository ask the same about the same commit, often at the same time: one reads, all know.
    """
    suspects = [e for e in entries if e.mode in ("100644", "100755") and may_be_our_yaml(e.path, e.size)]
    lock = _READING.setdefault((url, commit), asyncio.Lock())
    async with lock:
        answers = {e.blob: _OURS[e.blob] for e in suspects if e.blob in _OURS}
        unknown = [e for e in suspects if e.blob not in answers]
        if unknown:
            texts = await world.git.read_many(url, commit, [e.path for e in unknown], limit=OUR_YAML_MAX_BYTES)
            answers |= {e.blob: is_our_yaml(texts[e.path]) for e in unknown}
            if len(_OURS) > _OURS_MOST:
                _OURS.clear()
            _OURS.update(answers)
    return {e.path for e in suspects if answers[e.blob]}


async def repository(world: World, key: Key) -> RepositorySeen | None:
    """Read everything about one ModelRepository; None when it is gone."""
    manifest = await world.kube.get(key)
    if manifest is None:
        return None
    parsed = parse(manifest)
    if isinstance(parsed, tuple):
        return RepositorySeen(manifest=manifest, repository=None, errors=parsed)
    assert isinstance(parsed, ModelRepository)
    objects = await world.kube.list("ModelSpec", namespace=key.namespace)
    if parsed.spec.suspend:
        return RepositorySeen(manifest=manifest, repository=parsed, objects=objects)
    spec = parsed.spec
    try:
        world = replace(world, git=await git_for(world, parsed))
        asked = parsed.metadata.annotations.get(ANNOTATION_REQUESTED_AT, "")
        ref, timeout_s = git_ref(spec.ref), seconds(spec.timeout)
        if asked and asked != parsed.status.requested_at:
            head = await world.git.refresh(spec.url, ref, timeout_s=timeout_s)
        else:
            head = await world.git.resolve(spec.url, ref, max_age_s=seconds(spec.interval), timeout_s=timeout_s)
        files = await _spec_files(world, spec.url, head.commit, spec.path)
    except ClientError as error:
        problem = Refused if isinstance(error, Denied | NotFound) else Unknown
        return RepositorySeen(
            manifest=manifest, repository=parsed, objects=objects, problem=problem(error.reason, error.message)
        )
    return RepositorySeen(
        manifest=manifest,
        repository=parsed,
        commit=head.commit,
        label=revision_label(spec.ref, head.commit),
        author=head.author,
        subject=head.subject,
        files=files,
        objects=objects,
    )


async def _spec_files(world: World, url: str, commit: str, path: str) -> tuple[tuple[str, Checked], ...]:
    entries = await world.git.files(url, commit)
    prefix = "" if path == "." else f"{path.rstrip('/')}/"
    below = [e for e in entries if e.path.startswith(prefix)]
    if prefix and not below:
        if any(e.path == path.rstrip("/") for e in entries):
            raise Denied(f"{path} is a file or a link, not a directory", reason="PathNotAllowed")
        raise NotFound(f"{path} is not a directory of commit {commit[:7]}", reason="PathNotFound")
    yaml = [e for e in below if e.path.lower().endswith((".yaml", ".yml")) and e.mode in ("100644", "100755")]
    small = [e for e in yaml if e.size <= YAML_LIMIT]
    texts = await world.git.read_many(url, commit, [e.path for e in small], limit=YAML_LIMIT)
    checked = [(path, check_text(text, path)) for path, text in sorted(texts.items())]
    # Larger files are not read at all; the check says so in its own words.
    large = [(e.path, check_text(_TOO_LARGE, e.path)) for e in yaml if e.size > YAML_LIMIT]
    return tuple(sorted(checked + large, key=lambda pair: pair[0]))
