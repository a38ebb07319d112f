"""`mainspring plan`: what would be done, and why, by the very code that does it.  Changes nothing.

Reads the world as a reconcile does, through a store that refuses writes, and asks the same decisions.  Git is
really looked at; a registry that is down is said to be unknown, as the controller would.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.cli.apply import Files, read_files
from controller.cli.errors import CHANGES, OK, USAGE, WRONG, Failure
from controller.cli.output import Form, say, say_json
from controller.cli.session import DEFAULT_STATE, Namespace, Session, State, run
from controller.cli.target import find

if TYPE_CHECKING:
    from controller.api.kinds import ModelSpec
    from controller.api.meta import Key, Manifest
    from controller.cli.overlay import ReadOnlyKube
    from controller.cli.plan_answer import Answer
    from controller.plan.actions import Action, Plan
    from controller.plan.observed import ModelSeen
    from controller.reconcile.world import World


def plan_command(
    target: Annotated[
        str | None, typer.Argument(metavar="[KIND/]NAME", help="One object. Default: every ModelSpec.")
    ] = None,
    files: Files = None,
    commit: Annotated[
        str | None, typer.Option("--commit", help="Plan for this commit, 40 hex digits, instead of the ref's.")
    ] = None,
    ref: Annotated[
        str | None, typer.Option("--ref", help="Plan for this branch, tag or full ref instead of the spec's.")
    ] = None,
    detailed: Annotated[
        bool, typer.Option("--detailed-exitcode", help="Exit with 0: no change, 1: error, 2: changes.")
    ] = False,
    output: Annotated[Form, typer.Option("--output", "-o", help="Form of the answer.")] = Form.TEXT,
    namespace: Namespace = "default",
    state: State = DEFAULT_STATE,
) -> None:
    """Show what would be done, and why; change nothing."""
    if target and files:
        raise Failure("give a NAME or -f FILE, not both", code=USAGE)
    if commit and ref:
        raise Failure("give --commit or --ref, not both", code=USAGE)
    given = read_files(files, namespace) if files else None

    async def work(session: Session) -> list[Answer]:
        wanted = given if given is not None else await _stored(session, target, namespace)
        world = await session.world()
        return [
            await answer(world, m, from_file=bool(given), ref=await _ref(world, m, commit, ref)) for m in wanted
        ]

    answers = run(state, work)
    _show(answers, output)
    raise typer.Exit(exit_code(answers, detailed=detailed))


def _show(answers: list[Answer], output: Form) -> None:
    if output is Form.JSON:
        say_json({"changes": any(a.changes for a in answers), "plans": [a.as_json() for a in answers]})
        return
    for found in answers:
        say(*found.lines())
    say("Nothing was changed.")


def exit_code(answers: list[Answer], *, detailed: bool) -> int:
    """Sum up: 1 where a person must act, or nothing can be said; 2 for changes, only if asked for."""
    if detailed and any(a.changes for a in answers):
        return CHANGES
    return WRONG if any((a.stalled or a.is_unknown) and not a.changes for a in answers) else OK


async def _stored(session: Session, target: str | None, namespace: str) -> list[Manifest]:
    if target is not None:
        return [await find(session.store, target, namespace)]
    found = await session.store.list("ModelSpec", namespace=namespace)
    if not found:
        raise Failure(f"no ModelSpec in namespace {namespace}; plan a file with mainspring plan -f FILE")
    return list(found)


async def _ref(world: World, manifest: Manifest, commit: str | None, ref: str | None) -> dict[str, str] | None:
    """Say what `spec.source.ref` is instead; a name is tried as a branch, then as a tag."""
    from controller.clients.errors import NotFound
    from controller.clients.git_types import GitRef

    if commit is not None:
        if len(commit) not in (40, 64) or set(commit) - set("0123456789abcdef"):
            raise Failure(
                f"--commit {commit}: 40 or 64 hex digits are wanted; git rev-parse prints them", code=USAGE
            )
        return {"commit": commit}
    if ref is None or manifest["kind"] != "ModelSpec":
        return None
    if ref.startswith("refs/"):
        return {"name": ref}
    try:
        await world.git.resolve(manifest["spec"]["source"]["url"], GitRef(branch=ref), max_age_s=60.0)
    except NotFound:
        return {"tag": ref}
    return {"branch": ref}


async def answer(
    world: World, manifest: Manifest, *, from_file: bool = False, ref: dict[str, str] | None = None
) -> Answer:
    """Plan one object: as it is stored, as a file has it, or at another commit.

    Args:
        world: the outside; its store is not written to.
        manifest: the object, stored or from a checked file.
        from_file: whether it is laid over the stored one.
        ref: what `spec.source.ref` of a ModelSpec is instead.
    """
    from controller.api.conditions import timestamp
    from controller.api.meta import key_of
    from controller.cli.overlay import ReadOnlyKube, laid_over
    from controller.cli.plan_answer import file_changes

    kube, key = ReadOnlyKube(world.kube), key_of(manifest)
    stored = await kube.get(key)
    changed: tuple[str, ...] = ()
    if from_file:
        changed = file_changes(stored, manifest)
        manifest = laid_over(stored, manifest, now=timestamp(world.now()))
        kube.lay(manifest)
    if ref is not None and key.kind == "ModelSpec":
        source = {**manifest["spec"]["source"], "ref": ref}
        kube.lay({**manifest, "spec": {**manifest["spec"], "source": source}})
    reading = replace(world, kube=kube)
    found = await _decide(reading, kube, key)
    return replace(found, file_changes=changed, is_new=from_file and stored is None)


async def _decide(world: World, kube: ReadOnlyKube, key: Key) -> Answer:
    from controller.cli.plan_answer import Answer
    from controller.cli.plan_steps import step_of
    from controller.plan.repository import plan_repository
    from controller.plan.revision import plan_revision
    from controller.plan.verdict import Unknown
    from controller.reconcile import jobs, observe

    if key.kind == "ModelSpec":
        return await _decide_model(world, kube, key)
    plan: Plan[Any]
    if key.kind == "ModelRevision":
        revision = await jobs.revision(world, key)
        if revision is None:
            raise Failure(f"{key} cannot be read; mainspring get {key.kind}/{key.name} -o yaml shows it")
        plan = plan_revision(revision, world.now())
        return Answer.of(key, plan, steps=tuple(step_of(a, set()) for a in plan.actions))
    repository = await observe.repository(world, key)
    assert repository is not None
    plan = plan_repository(repository, world.now())
    problems = tuple(f"{p.severity.lower()} {p.file}: {p.message}" for p in plan.status.problems)
    steps = tuple(step_of(a, set()) for a in plan.actions)
    unknown = isinstance(repository.problem, Unknown)
    return Answer.of(key, plan, steps=steps, notes=problems, is_unknown=unknown)


async def _decide_model(world: World, kube: ReadOnlyKube, key: Key) -> Answer:
    from controller.cli.plan_answer import Answer
    from controller.cli.plan_moves import baseline_of, moves
    from controller.cli.plan_steps import step_of
    from controller.plan.actions import CreateRevision, StartTraining
    from controller.plan.model import plan_model
    from controller.plan.verdict import Unknown, worst
    from controller.reconcile import observe

    seen = await observe.model(world, key)
    assert seen is not None
    plan = plan_model(seen, world.now())
    present = {*seen.deployments, *seen.services, *([key.name] if seen.route is not None else [])}
    steps = [step_of(a, present) for a in plan.actions]
    notes = []
    if isinstance(seen.ledger, Unknown) and seen.model is not None and not seen.model.spec.suspend:
        notes.append(
            f"the ledger could not be read ({seen.ledger.message}); decided from what the status remembers"
        )
    if seen.model is None:
        return Answer.of(key, plan, steps=tuple(steps), notes=tuple(notes))
    wanted = plan.status.source.wanted if plan.status.source else ""
    more = await _of_revision(world, kube, seen, plan, wanted)
    steps += [step_of(a, present) for a in more]
    trains = wanted in seen.running or any(
        isinstance(a, CreateRevision | StartTraining) for a in (*plan.actions, *more)
    )
    passed = bool(plan.verdicts) and worst(plan.verdicts) == "Passed"
    baseline, runtime = baseline_of(seen, seen.model), world.settings.runtime
    return Answer.of(
        key,
        plan,
        steps=tuple(steps),
        reuse=_reuse(seen, wanted),
        then=_then(seen, seen.model, wanted, trains=trains, passed=passed),
        moves=moves(seen, seen.model, baseline, runtime, judged=bool(plan.verdicts)),
        notes=tuple(notes),
        is_unknown=isinstance(seen.source, Unknown) and not seen.model.spec.suspend,
    )


async def _of_revision(
    world: World, kube: ReadOnlyKube, seen: ModelSeen, plan: Plan[Any], wanted: str
) -> tuple[Action, ...]:
    """Ask what the wanted revision's own reconcile would do next, once the model's plan is carried out."""
    from controller.api.base import dump
    from controller.api.meta import Key
    from controller.plan.actions import CreateRevision
    from controller.plan.revision import plan_revision
    from controller.plan.verdict import Unknown
    from controller.reconcile import jobs

    for action in plan.actions:
        if isinstance(action, CreateRevision):
            made = action.manifest
            kube.lay({**made, "metadata": {**made["metadata"], "uid": "not-created-yet"}})
    if not wanted or seen.model is None or seen.model.spec.suspend:
        return ()
    kube.lay({**seen.manifest, "status": dump(plan.status)})
    key = Key("ModelRevision", seen.model.metadata.namespace, wanted)
    revision = await jobs.revision(world, key) if await kube.get(key) else None
    if revision is None:
        return ()
    if isinstance(revision.kept, Unknown):
        # The controller would wait for the ledger; the reader is told so, and what comes then.
        revision = replace(revision, kept=None)
    return plan_revision(revision, world.now()).actions


def _reuse(seen: ModelSeen, wanted: str) -> str:
    """Say that a revision which is asked for again needs no training; empty when that is not so."""
    from controller.plan.observed import SourceSeen

    known = seen.revisions.get(wanted)
    champion = seen.model.status.champion if seen.model else None
    if (
        not isinstance(seen.source, SourceSeen)
        or known is None
        or known.status.evidence is None
        or (champion and champion.revision == wanted)
    ):
        return ""
    version = f", version {known.status.version}" if known.status.version else ""
    return f"{wanted}{version}: trained and measured before; nothing is trained"


def _then(seen: ModelSeen, model: ModelSpec, wanted: str, *, trains: bool, passed: bool) -> tuple[str, ...]:
    """Say what follows: the gates once a revision is measured, then its way to the requests."""
    from controller.cli.plan_moves import canary_words, gate_words
    from controller.plan import recall
    from controller.plan.verdict import Unknown

    champion = model.status.champion
    if not (trains or passed) or (champion and champion.revision == wanted):
        return ()
    gates = (f"gates: {' · '.join(gate_words(model)) or 'none'}",) if trains else ()
    if champion is None:
        return (*gates, "no canary: nothing serves yet, the first that passes gets all requests")
    window = model.spec.serving.rollback_window
    if not isinstance(seen.ledger, Unknown) and recall.in_window(seen.ledger, wanted, window):
        return (*gates, "no canary: it was champion before")
    return (*gates, f"canary: {canary_words(model)}")
