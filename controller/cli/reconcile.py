"""`mainspring reconcile`: asks the controller to look at an object at once, and to try again what it gave up.

Only sets an annotation; whether anything is done about it is the controller's decision.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli.errors import WRONG, Failure
from controller.cli.output import note, say, utc_now
from controller.cli.session import DEFAULT_STATE, Namespace, Session, State, run
from controller.cli.target import find, spoken

if TYPE_CHECKING:
    from controller.api.meta import Key, Manifest


def reconcile_command(
    target: Annotated[str, typer.Argument(metavar="KIND/NAME", help="The object.")],
    namespace: Namespace = "default",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the controller has looked.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Longest wait in seconds.")] = 60.0,
    state: State = DEFAULT_STATE,
) -> None:
    """Ask for a look at once; also tries again what was given up."""

    async def work(session: Session) -> int:
        from controller.api.meta import ANNOTATION_REQUESTED_AT, Key, key_of

        manifest = await find(session.store, target, namespace)
        key = key_of(manifest)
        if key.kind == "ModelRevision":
            # A revision is tried again on behalf of the model that wants it.
            model = manifest["spec"]["model"]
            note(f"{key.name} belongs to modelspec/{model}; that is asked")
            key = Key("ModelSpec", namespace, model)
        asked = requested_now()
        await session.store.annotate(key, {ANNOTATION_REQUESTED_AT: asked})
        say(f"{spoken(key.kind, key.name)}: asked for a look at {asked}")
        return await _waited(session, key, asked, timeout) if wait else 0

    raise typer.Exit(run(state, work))


def requested_now() -> str:
    """Return the next whole second: later than every decision so far, whose times are cut to seconds."""
    from controller.api.conditions import timestamp

    return timestamp(utc_now() + timedelta(microseconds=999_999))


async def _waited(session: Session, key: Key, asked: str, timeout_s: float) -> int:
    """Wait until the status says that it was looked at, and print how the object stands.

    Raises:
        Failure: the time is over.
    """
    try:
        async with asyncio.timeout(timeout_s):
            async for event in session.store.watch([key.kind]):
                found: Manifest = event.object
                status = found.get("status") or {}
                if found["metadata"]["name"] == key.name and status.get("requestedAt") == asked:
                    return _stands(status)
    except TimeoutError:
        raise Failure(f"no look within {timeout_s:g}s; is {session.who} running?") from None
    return WRONG


def _stands(status: Manifest) -> int:
    conditions = {c["type"]: c for c in status.get("conditions", ())}
    ready = conditions.get("Ready", {})
    say(f"{ready.get('reason', 'Unknown')}: {ready.get('message', '')}")
    return WRONG if "Stalled" in conditions else 0
