"""`mainspring logs`: what the steps of a training Job, or the servers of a model, have written.

Reads the files of local mode; never asks a process.  Printed without control characters, since a training program
may write anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.cli import podlogs
from controller.cli.errors import Failure
from controller.cli.output import say
from controller.cli.session import DEFAULT_STATE, Local, Namespace, State, run
from controller.cli.target import find

if TYPE_CHECKING:
    from controller.api.meta import Manifest


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

    async def work(local: Local) -> None:
        manifest = await find(local.store, target, namespace, kinds=("ModelSpec", "ModelRevision"))
        pods = local.pods(namespace)
        if servers:
            _show(_server_files(pods, manifest), lines)
        else:
            _show(_training_files(pods, training_revision(manifest), step), lines)

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


def _training_files(pods: Path, revision: str, step: str | None) -> list[tuple[str, Path]]:
    found = podlogs.newest_attempt(pods, revision)
    if found is None:
        raise Failure(f"no log of a training of {revision} in this state; it has not started, or ran elsewhere")
    attempt, pod = found
    there = podlogs.steps_of(pod)
    if step is not None and step not in there:
        raise Failure(f"attempt {attempt} of {revision} has no log of step {step}; there is: {', '.join(there)}")
    wanted = there if step is None else [step]
    return [(f"{revision}, attempt {attempt}, step {s}", pod / f"{s}.log") for s in wanted]


def _server_files(pods: Path, manifest: Manifest) -> list[tuple[str, Path]]:
    status: dict[str, Any] = manifest.get("status") or {}
    if manifest["kind"] == "ModelRevision":
        revisions = [manifest["metadata"]["name"]]
    else:
        holders = (status.get("champion") or {}, status.get("challenger") or {})
        revisions = [h["revision"] for h in holders if h.get("revision")]
    files = podlogs.server_logs(pods, revisions)
    if not files:
        raise Failure(f"no log of a server of {manifest['metadata']['name']} in this state; nothing serves yet")
    return [(f"server {f.parent.name}", f) for f in files]


def _show(files: list[tuple[str, Path]], lines: int) -> None:
    for number, (title, file) in enumerate(files):
        if len(files) > 1:
            say(*([""] if number else []), f"==> {title} <==")
        say(*podlogs.tail(file, lines))
