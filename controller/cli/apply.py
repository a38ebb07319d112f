"""`mainspring apply`: writes objects from files into the store, as `kubectl apply --server-side` would.

Every file is checked before anything is written: with one error nothing is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli.errors import USAGE, WRONG, Failure
from controller.cli.output import note, say
from controller.cli.session import DEFAULT_STATE, Namespace, Session, State, run

if TYPE_CHECKING:
    from controller.api.meta import Manifest

Files = Annotated[
    list[str] | None, typer.Option("--file", "-f", help="File or directory; `-` is standard input. Repeatable.")
]


def apply_command(
    paths: Annotated[list[str] | None, typer.Argument(metavar="[FILE]...", help="The same as -f FILE.")] = None,
    files: Files = None,
    namespace: Namespace = "default",
    state: State = DEFAULT_STATE,
) -> None:
    """Create or change objects from files."""
    given = [*(files or []), *(paths or [])]
    if not given:
        raise Failure("which file? mainspring apply -f FILE", code=USAGE)
    manifests = read_files(given, namespace)

    async def work(session: Session) -> None:
        from controller.api.meta import LABEL_REPOSITORY, key_of

        for manifest in manifests:
            before = await session.store.get(key_of(manifest))
            after = await session.store.apply(manifest)
            say(f"{manifest['kind'].lower()}.mainspring.dev/{manifest['metadata']['name']} {_what(before, after)}")
            owner = ((before or {}).get("metadata") or {}).get("labels", {}).get(LABEL_REPOSITORY)
            if owner:
                note(f"note: ModelRepository {owner} manages this object; its next sync puts its file back")

    run(state, work)


def _what(before: Manifest | None, after: Manifest) -> str:
    if before is None:
        return "created"
    same = before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]
    return "unchanged" if same else "configured"


def read_files(given: list[str], namespace: str) -> list[Manifest]:
    """Read and check files; each object gets its namespace. Hints are for `mainspring validate` to give.

    Raises:
        Failure: an error in a file (each is printed as `file:line:column: …` before), or no object at all.
    """
    from controller.api.validation import check_text

    found: list[Manifest] = []
    wrong = 0
    for name, text in _texts(given):
        checked = check_text(text, name)
        for problem in checked.problems:
            note(f"error: {problem}")
        if checked.skipped:
            note(f"skipped: {name}: {checked.skipped}")
        wrong += len(checked.problems)
        found += [d.manifest for d in checked.documents]
    if wrong:
        raise Failure(f"{wrong} error{'s' * (wrong != 1)} in the files; nothing was changed", code=WRONG)
    if not found:
        raise Failure(f"no object of Mainspring in {', '.join(given)}")
    return [_placed(m, namespace) for m in found]


def _placed(manifest: Manifest, namespace: str) -> Manifest:
    meta = manifest["metadata"]
    own = meta.get("namespace", namespace)
    if namespace not in ("default", own):
        raise Failure(f"{manifest['kind']} {meta['name']} says namespace {own}, -n says {namespace}", code=USAGE)
    return {**manifest, "metadata": {**meta, "namespace": own}}


def _texts(given: list[str]) -> Iterator[tuple[str, bytes]]:
    for name in given:
        path = Path(name)
        if name == "-":
            yield "<stdin>", sys.stdin.buffer.read()
        elif path.is_dir():
            yield from ((str(f), f.read_bytes()) for f in sorted(path.rglob("*.y*ml")) if f.is_file())
        elif path.exists():
            yield name, path.read_bytes()
        else:
            raise Failure(f"{name} is not there", code=USAGE)
