"""`mainspring suspend` and `mainspring resume`: whether anything is decided for an object.

Sets `spec.suspend` and nothing else; what serves goes on serving.  Says so when a ModelRepository may undo it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli.output import note, say
from controller.cli.session import DEFAULT_STATE, Namespace, Session, State, run
from controller.cli.target import find, spoken

if TYPE_CHECKING:
    from controller.api.meta import Manifest

Which = Annotated[str, typer.Argument(metavar="KIND/NAME", help="A ModelSpec or a ModelRepository.")]


def suspend_command(target: Which, namespace: Namespace = "default", state: State = DEFAULT_STATE) -> None:
    """Stop deciding for an object; what serves goes on serving."""
    run(state, lambda session: _set(session, target, namespace, wanted=True))


def resume_command(target: Which, namespace: Namespace = "default", state: State = DEFAULT_STATE) -> None:
    """Go on deciding for a suspended object."""
    run(state, lambda session: _set(session, target, namespace, wanted=False))


async def _set(session: Session, target: str, namespace: str, *, wanted: bool) -> None:
    from controller.api.meta import key_of

    manifest = await find(session.store, target, namespace, kinds=("ModelSpec", "ModelRepository"))
    key = key_of(manifest)
    name, word = spoken(key.kind, key.name), "suspended" if wanted else "resumed"
    if bool(manifest["spec"].get("suspend", False)) is wanted:
        say(f"{name} was {'suspended' if wanted else 'not suspended'} already")
        return
    await session.store.patch_spec(key, {"suspend": wanted})
    say(f"{name} {word}" + ("; what serves goes on serving" if wanted and key.kind == "ModelSpec" else ""))
    if managed := _managed(manifest):
        note(managed)


def _managed(manifest: Manifest) -> str:
    """Say who may undo it: a sync that applies the object's file."""
    from controller.api.meta import ANNOTATION_SOURCE_FILE, LABEL_REPOSITORY

    meta = manifest["metadata"]
    owner = meta.get("labels", {}).get(LABEL_REPOSITORY)
    if not owner:
        return ""
    file = meta.get("annotations", {}).get(ANNOTATION_SOURCE_FILE, "its file")
    return (
        f"note: ModelRepository {owner} applies {file}; if that file sets spec.suspend, "
        "the next sync puts it back. Change it there to keep it"
    )
