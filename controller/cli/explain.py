"""`mainspring explain`: what is asked, what serves and why it was let through, what blocks, what to type next.

Gathers what one screen needs; `explain_text.py` writes it.  Changes nothing and asks nobody but the store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.cli import podlogs
from controller.cli.output import Form, say, say_json, utc_now
from controller.cli.session import DEFAULT_STATE, Local, Namespace, State, run
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

    async def work(local: Local) -> Facts:
        return await gather(local, await find(local.store, target, namespace))

    facts = run(state, work)
    if output is Form.JSON:
        say_json(_as_json(facts))
        return
    from controller.cli import explain_kinds

    say(*explain_kinds.lines(facts))


async def gather(local: Local, manifest: Manifest) -> Facts:
    """Read what belongs to an object: its revisions, its events, the last words of a step that failed."""
    from controller.api.kinds import ModelRevision, parse
    from controller.api.meta import LABEL_MODEL
    from controller.cli.explain_text import Facts

    meta = manifest["metadata"]
    name, namespace = meta["name"], meta["namespace"]
    revisions: dict[str, ModelRevision] = {}
    if manifest["kind"] != "ModelRepository":
        model = name if manifest["kind"] == "ModelSpec" else manifest["spec"]["model"]
        found = await local.store.list("ModelRevision", namespace=namespace, labels={LABEL_MODEL: model})
        typed = (parse(m) for m in found)
        revisions = {r.metadata.name: r for r in typed if isinstance(r, ModelRevision)}
    return Facts(
        manifest=manifest,
        revisions=revisions,
        events=await _events(local, manifest),
        log=_log(local, manifest, revisions),
        now=utc_now(),
    )


async def _events(local: Local, manifest: Manifest) -> tuple[Manifest, ...]:
    """Read the newest events of an object, newest last."""
    found = await local.store.list("Event", namespace=manifest["metadata"]["namespace"])
    own = [e for e in found if e.get("involvedObject", {}).get("uid") == manifest["metadata"]["uid"]]
    return tuple(sorted(own, key=_order)[-EVENTS:])


def _order(event: Manifest) -> tuple[str, int]:
    """Order by time, then by the order of writing: several things happen in one second."""
    return event.get("lastTimestamp", ""), int(event["metadata"]["resourceVersion"])


def _log(local: Local, manifest: Manifest, revisions: dict[str, ModelRevision]) -> LogTail | None:
    """Read the end of the log of the step that failed, if the training that is asked for failed."""
    from controller.cli.explain_text import LogTail

    name = manifest["metadata"]["name"]
    if manifest["kind"] == "ModelSpec":
        name = ((manifest.get("status") or {}).get("source") or {}).get("wanted", "")
    revision = revisions.get(name)
    if revision is None or not revision.status.attempts or revision.status.attempts[-1].outcome != "Failed":
        return None
    found = podlogs.newest_attempt(local.pods(manifest["metadata"]["namespace"]), name)
    if found is None:
        return None
    # Steps run one after the other and the first that fails ends the pod, so the last log is the failed step's.
    steps = podlogs.steps_of(found[1])
    lines = podlogs.tail(found[1] / f"{steps[-1]}.log", LOG_LINES) if steps else []
    return LogTail(revision=name, step=steps[-1], lines=tuple(lines)) if lines else None


def _as_json(facts: Facts) -> dict[str, Any]:
    from controller.cli.explain_next import next_command

    status = facts.manifest.get("status") or {}
    return {
        "kind": facts.manifest["kind"],
        "name": facts.manifest["metadata"]["name"],
        "namespace": facts.manifest["metadata"]["namespace"],
        "status": status,
        "log": {"step": facts.log.step, "lines": list(facts.log.lines)} if facts.log else None,
        "events": [
            {"at": e.get("lastTimestamp"), "type": e.get("type"), "reason": e["reason"], "message": e["message"]}
            for e in facts.events
        ],
        "next": next_command(facts),
    }
