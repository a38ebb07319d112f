"""`mainspring logs`: what the steps of a training Job, or the servers of a model, have written.

Reads the files of local mode, or the logs of pods through the API server; never asks a process.  Printed without
control characters, since a training program may write anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.cli.errors import Failure
from controller.cli.output import say
from controller.cli.session import DEFAULT_STATE, Namespace, Session, State, run
from controller.cli.target import find

if TYPE_CHECKING:
    from controller.api.meta import Manifest
    from controller.cli.podlogs import Log, Logs


def logs_command(
    target: Annotated[str, typer.Argument(metavar="KIND/NAME", help="A ModelRevision or a ModelSpec.")],
    step: Annotated[
        str | None, typer.Option("--step", help="One step: fetch, train, predict-champion, predict or evaluate.")
    ] = None,
    lines: Annotated[int, typer.Option("--lines", min=1, help="Last lines of each log.")] = 100,
    servers: Annotated[bool, typer.Option("--servers", help="The servers instead of the training.")] = False,
    namespace: Namespace = "default",
    state: State = DEFAULT_STATE,
) -> None:
    """Show what training steps or servers have written."""

    async def work(session: Session) -> None:
        manifest = await find(session.store, target, namespace, kinds=("ModelSpec", "ModelRevision"))
        if servers:
            found = await _servers(session.logs, namespace, manifest)
        else:
            found = await _training(session.logs, namespace, training_revision(manifest), step)
        for number, (title, log) in enumerate(found):
            if len(found) > 1:
                say(*([""] if number else []), f"==> {title} <==")
            say(*await session.logs.tail(namespace, log, lines))

    run(state, work)


def training_revision(manifest: Manifest) -> str:
    """Name the revision whose training is meant: itself, or the one that a ModelSpec wants or brings up.

    Raises:
        Failure: the ModelSpec has none yet.
    """
    name: str = manifest["metadata"]["name"]
    if manifest["kind"] == "ModelRevision":
        return name
    status: dict[str, Any] = manifest.get("status") or {}
    wanted = (status.get("source") or {}).get("wanted") or (status.get("challenger") or {}).get("revision")
    if not wanted:
        raise Failure(f"modelspec/{name} has asked for no training yet; mainspring explain modelspec/{name}")
    return str(wanted)


async def _training(logs: Logs, namespace: str, revision: str, step: str | None) -> list[tuple[str, Log]]:
    found = await logs.attempt(namespace, revision)
    if found is None:
        text = f"no log of a training of {revision} in this state; it has not started, or ran elsewhere"
        raise Failure(f"{text}, or its Job was deleted, a day after its end: explain shows how it ended")
    there = [log.container for log in found.logs]
    if step is not None and step not in there:
        known = ", ".join(there)
        raise Failure(f"attempt {found.number} of {revision} has no log of step {step}; there is: {known}")
    wanted = [log for log in found.logs if step in (None, log.container)]
    return [(f"{revision}, attempt {found.number}, step {log.container}", log) for log in wanted]


async def _servers(logs: Logs, namespace: str, manifest: Manifest) -> list[tuple[str, Log]]:
    status: dict[str, Any] = manifest.get("status") or {}
    if manifest["kind"] == "ModelRevision":
        revisions = [manifest["metadata"]["name"]]
    else:
        holders = (status.get("champion") or {}, status.get("challenger") or {})
        revisions = [h["revision"] for h in holders if h.get("revision")]
    found = await logs.servers(namespace, revisions)
    if not found:
        raise Failure(f"no log of a server of {manifest['metadata']['name']} in this state; nothing serves yet")
    return [(f"server {log.pod}", log) for log in found]
