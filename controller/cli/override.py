"""`mainspring rollback`, `promote` and `abort`: writes the order of a person as a ModelOverride and follows it.

Creates or deletes that one object and nothing else; whether it is obeyed is the controller's decision.  Says how
far it is, how long it took, and which change in Git would make it permanent.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli.errors import OK, USAGE, WRONG, Failure
from controller.cli.output import note, say, utc_now
from controller.cli.session import DEFAULT_STATE, Namespace, Session, State, run
from controller.cli.target import find

if TYPE_CHECKING:
    from controller.api.kinds import ModelRevision, ModelSpec
    from controller.api.meta import Manifest

Name = Annotated[str, typer.Argument(metavar="NAME", help="The ModelSpec.")]
Reason = Annotated[
    str | None, typer.Option("--reason", "-m", help="Why; it stands in the condition and in the ledger.")
]
For = Annotated[str, typer.Option("--for", help="How long it holds, 1m to 168h; then Git rules again.")]
To = Annotated[str | None, typer.Option("--to", help="Revision. Default: the last healthy champion.")]
Which = Annotated[str | None, typer.Option("--to", help="Revision. Default: the one that is on its way.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done; change nothing.")]
End = Annotated[bool, typer.Option("--end", help="End the order that holds now: Git rules again.")]
Timeout = Annotated[float, typer.Option("--timeout", min=0, help="Longest time to follow it, seconds; 0: not.")]


def rollback_command(
    name: Name,
    to: To = None,
    reason: Reason = None,
    span: For = "24h",
    dry_run: DryRun = False,
    end: End = False,
    timeout: Timeout = 300.0,
    namespace: Namespace = "default",
    state: State = DEFAULT_STATE,
) -> None:
    """Serve a former champion at once, for a while; then Git rules again."""
    _verb("Rollback", name, to, reason, span, dry_run, end, timeout, namespace, state)


def promote_command(
    name: Name,
    to: Which = None,
    reason: Reason = None,
    span: For = "24h",
    dry_run: DryRun = False,
    end: End = False,
    timeout: Timeout = 300.0,
    namespace: Namespace = "default",
    state: State = DEFAULT_STATE,
) -> None:
    """Make what passed its gates champion without the rest of its canary."""
    _verb("Promote", name, to, reason, span, dry_run, end, timeout, namespace, state)


def abort_command(
    name: Name,
    to: Which = None,
    reason: Reason = None,
    span: For = "24h",
    dry_run: DryRun = False,
    end: End = False,
    timeout: Timeout = 300.0,
    namespace: Namespace = "default",
    state: State = DEFAULT_STATE,
) -> None:
    """Take what is on its way out of the requests, for a while."""
    _verb("Abort", name, to, reason, span, dry_run, end, timeout, namespace, state)


def _verb(
    action: str,
    name: str,
    to: str | None,
    reason: str | None,
    span: str,
    dry_run: bool,
    end: bool,
    timeout: float,
    namespace: str,
    state: Path,
) -> None:
    if end and (to or reason or dry_run):
        raise Failure("--end takes no other option of an order", code=USAGE)
    if not end and not (reason or "").strip():
        raise Failure(f"why? mainspring {action.lower()} {name} --reason '…'", code=USAGE)

    async def work(session: Session) -> int:
        model = await find(session.store, name, namespace, kinds=("ModelSpec",))
        if end:
            return await _end(session, model)
        return await _order(session, model, action, to, str(reason), span, dry_run, timeout)

    raise typer.Exit(run(state, work))


async def _order(
    session: Session,
    found: Manifest,
    action: str,
    to: str | None,
    reason: str,
    span: str,
    dry_run: bool,
    timeout: float,
) -> int:
    from controller.cli import going_back

    model = _typed(found)
    now = utc_now()
    expires_at = going_back.expiry(span, now)
    meant = going_back.known(model, await _revisions(session, model), going_back.chosen(model, action, to))
    actor = await session.whoami()
    order = going_back.manifest(found, action, meant, actor=actor, reason=reason, expires_at=expires_at, now=now)
    say(going_back.headline(model, action, meant, actor=actor, expires_at=expires_at, span=span))
    if dry_run:
        code = await _planned(session, found, order)
        say(*going_back.permanent(model, action, meant), "Nothing was changed.")
        return code
    made = await session.store.create(order)
    say(f"modeloverride.mainspring.dev/{made['metadata']['name']} created")
    if timeout > 0:
        from controller.cli.follow import follow

        await follow(session, made, timeout)
    say(*going_back.permanent(model, action, meant))
    return OK


def _typed(found: Manifest) -> ModelSpec:
    from controller.api.kinds import ModelSpec, parse

    name, model = found["metadata"]["name"], parse(found)
    if not isinstance(model, ModelSpec):
        raise Failure(f"modelspec/{name} is not valid; mainspring explain modelspec/{name} says why")
    if model.spec.suspend:
        raise Failure(f"modelspec/{name} is suspended, so nothing is decided for it: mainspring resume {name}")
    return model


async def _revisions(session: Session, model: ModelSpec) -> dict[str, ModelRevision]:
    from controller.api.kinds import ModelRevision, parse
    from controller.api.meta import LABEL_MODEL

    meta = model.metadata
    found = await session.store.list("ModelRevision", namespace=meta.namespace, labels={LABEL_MODEL: meta.name})
    return {r.metadata.name: r for m in found if isinstance(r := parse(m), ModelRevision)}


async def _planned(session: Session, model: Manifest, order: Manifest) -> int:
    """Show what the controller would do first, by its own decision; 1 when it would refuse."""
    from dataclasses import replace

    from controller.api.conditions import timestamp
    from controller.cli.overlay import ReadOnlyKube, laid_over
    from controller.cli.plan import answer
    from controller.plan.overrides import plan_override
    from controller.reconcile import observe

    world = await session.world()
    kube = ReadOnlyKube(world.kube)
    laid = laid_over(None, order, now=timestamp(world.now()))
    kube.lay(laid)
    reading = replace(world, kube=kube)
    judged = plan_override(await observe.override(reading, laid), world.now()).conditions[0]
    if judged[1] == "False" and judged[2] != "Done":
        say(f"  refused: {judged[2]}: {judged[3]}")
        return WRONG
    say(f"  {judged[2]}: {judged[3]}", *(await answer(reading, model)).lines())
    return OK


async def _end(session: Session, model: Manifest) -> int:
    """Delete every order about a model that is not over."""
    from controller.api.meta import key_of

    meta = model["metadata"]
    held = []
    for found in await session.store.list("ModelOverride", namespace=meta["namespace"]):
        about = (found.get("spec") or {}).get("modelRef") or {}
        said = [c["status"] for c in (found.get("status") or {}).get("conditions", ()) if c["type"] == "Active"]
        if about.get("name") == meta["name"] and said != ["False"]:
            held.append(found)
    if not held:
        raise Failure(f"no order holds for modelspec/{meta['name']}: what Git asks for rules")
    for found in held:
        await session.store.delete(key_of(found), uid=found["metadata"]["uid"])
        say(f"modeloverride.mainspring.dev/{found['metadata']['name']} deleted")
    note(f"what Git asks for rules again; mainspring get modelspec/{meta['name']} --watch shows it")
    return OK
