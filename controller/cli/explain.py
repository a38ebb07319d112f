"""`mainspring explain`: what is asked, what serves and why it was let through, what blocks, what to type next.

Gathers what one screen needs; `explain_text.py` writes it.  Changes nothing and asks nobody but the store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.cli.output import Form, say, say_json, utc_now
from controller.cli.session import DEFAULT_STATE, Namespace, Session, State, run
from controller.cli.target import find

if TYPE_CHECKING:
    from controller.api.kinds import ModelRevision
    from controller.api.meta import Manifest
    from controller.cli.explain_text import Facts, LogTail

EVENTS = 8
LOG_LINES = 15


def explain_command(
    target: Annotated[str, typer.Argument(metavar="KIND/NAME", help="The object.")],
    output: Annotated[Form, typer.Option("--output", "-o", help="Form of the answer.")] = Form.TEXT,
    namespace: Namespace = "default",
    state: State = DEFAULT_STATE,
) -> None:
    """Say what serves, why it was let through, and what blocks."""

    async def work(session: Session) -> Facts:
        return await gather(session, await find(session.store, target, namespace))

    facts = run(state, work)
    if output is Form.JSON:
        say_json(_as_json(facts))
        return
    from controller.cli import explain_kinds

    say(*explain_kinds.lines(facts))


async def gather(session: Session, manifest: Manifest) -> Facts:
    """Read what belongs to an object: its revisions, its events, the last words of a step that failed."""
    from controller.api.kinds import ModelRevision, parse
    from controller.api.meta import LABEL_MODEL
    from controller.cli.explain_text import Facts

    meta = manifest["metadata"]
    name, namespace = meta["name"], meta["namespace"]
    revisions: dict[str, ModelRevision] = {}
    if manifest["kind"] in ("ModelSpec", "ModelRevision"):
        model = name if manifest["kind"] == "ModelSpec" else manifest["spec"]["model"]
        found = await session.store.list("ModelRevision", namespace=namespace, labels={LABEL_MODEL: model})
        typed = (parse(m) for m in found)
        revisions = {r.metadata.name: r for r in typed if isinstance(r, ModelRevision)}
    return Facts(
        manifest=manifest,
        revisions=revisions,
        events=await _events(session, manifest),
        log=await _log(session, manifest, revisions),
        now=utc_now(),
    )


async def _events(session: Session, manifest: Manifest) -> tuple[Manifest, ...]:
    """Read the newest events of an object, newest last."""
    found = await session.store.list("Event", namespace=manifest["metadata"]["namespace"])
    own = [e for e in found if e.get("involvedObject", {}).get("uid") == manifest["metadata"]["uid"]]
    return tuple(sorted(own, key=_order)[-EVENTS:])


def _order(event: Manifest) -> tuple[str, int]:
    """Order by time, then by the order of writing: several things happen in one second."""
    from controller.cli.explain_text import happened

    return happened(event), int(event["metadata"]["resourceVersion"])


async def _log(session: Session, manifest: Manifest, revisions: dict[str, ModelRevision]) -> LogTail | None:
    """Read the end of the log of the step that failed, if the training that is asked for failed."""
    from controller.cli.explain_text import LogTail

    name = manifest["metadata"]["name"]
    if manifest["kind"] == "ModelSpec":
        name = ((manifest.get("status") or {}).get("source") or {}).get("wanted", "")
    revision = revisions.get(name)
    if revision is None or not revision.status.attempts or revision.status.attempts[-1].outcome != "Failed":
        return None
    from controller.clients.errors import ClientError

    namespace = manifest["metadata"]["namespace"]
    try:
        found = await session.logs.attempt(namespace, name)
        if found is None or not found.logs:
            return None
        # Steps run one after the other and the first that fails ends the pod: the last log is the failed step's.
        lines = await session.logs.tail(namespace, found.logs[-1], LOG_LINES)
    except ClientError as error:
        # On a cluster the node may be away, or the right missing: all else is still worth saying.
        lines = [f"(the log cannot be read: {error.message})"]
        return LogTail(revision=name, step="unknown", lines=tuple(lines))
    return LogTail(revision=name, step=found.logs[-1].container, lines=tuple(lines)) if lines else None


def _as_json(facts: Facts) -> dict[str, Any]:
    from controller.cli.explain_next import next_command
    from controller.cli.explain_text import happened

    status = facts.manifest.get("status") or {}
    return {
        "kind": facts.manifest["kind"],
        "name": facts.manifest["metadata"]["name"],
        "namespace": facts.manifest["metadata"]["namespace"],
        "status": status,
        "log": {"step": facts.log.step, "lines": list(facts.log.lines)} if facts.log else None,
        "events": [
            {"at": happened(e), "type": e.get("type"), "reason": e.get("reason"), "message": e.get("message")}
            for e in facts.events
        ],
        "next": next_command(facts),
    }
