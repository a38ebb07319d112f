"""`mainspring get`: lists objects, with the printer columns of their kinds.

The columns are those of the CRDs, so that `kubectl get` shows the same.  Reads the store and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.cli import jsonpath
from controller.cli.errors import Failure
from controller.cli.output import Output, age, note, say, say_json, say_yaml, table, utc_now
from controller.cli.session import DEFAULT_STATE, Namespace, Session, State, run
from controller.cli.target import Target, find, parse_target

if TYPE_CHECKING:
    from controller.api.meta import Manifest

CELL_MAX = 80
"""Longest cell without `-o wide`, characters."""


def get_command(
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="[KIND[/NAME]]...", help="What to list. Default: everything.")
    ] = None,
    namespace: Namespace = "default",
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="In every namespace.")] = False,
    output: Annotated[Output, typer.Option("--output", "-o", help="Form of the answer.")] = Output.TABLE,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="List again whenever something changes.")] = False,
    state: State = DEFAULT_STATE,
) -> None:
    """List objects."""
    scope = None if all_namespaces else namespace
    wanted = _targets(targets or [])

    async def work(session: Session) -> None:
        found = await _read(session, wanted, scope)
        _show(found, wanted, output, scope)
        if watch:
            await _follow(session, wanted, output, scope, found)

    run(state, work)


def _targets(texts: list[str]) -> list[Target]:
    """Read `KIND`, `KIND/NAME`, and `KIND NAME…` as kubectl takes it."""
    from controller.api.kinds import KINDS

    if not texts:
        return [Target(kind) for kind in KINDS]
    first = parse_target(texts[0])
    if len(texts) > 1 and first.name is None and not any("/" in t for t in texts):
        try:
            return [parse_target(t) for t in texts]
        except Failure:
            return [Target(first.kind, name) for name in texts[1:]]
    return [parse_target(t) for t in texts]


async def _read(session: Session, wanted: list[Target], scope: str | None) -> list[Manifest]:
    found: list[Manifest] = []
    for target in wanted:
        if target.name is None:
            found += await session.store.list(target.kind, namespace=scope)
        elif scope is None:
            everywhere = await session.store.list(target.kind)
            found += [m for m in everywhere if m["metadata"]["name"] == target.name]
        else:
            found.append(await find(session.store, f"{target.kind}/{target.name}", scope))
    return found


def _show(found: list[Manifest], wanted: list[Target], output: Output, scope: str | None) -> None:
    if output in (Output.JSON, Output.YAML):
        single = len(found) == 1 and len(wanted) == 1 and wanted[0].name is not None
        answer: Any = found[0] if single else {"apiVersion": "v1", "kind": "List", "items": found}
        (say_json if output is Output.JSON else say_yaml)(answer)
        return
    if output is Output.NAME:
        say(*(f"{m['kind'].lower()}.mainspring.dev/{m['metadata']['name']}" for m in found))
        return
    if not found:
        what = wanted[0].kind if len(wanted) == 1 else "object"
        where = f" in namespace {scope}" if scope else ""
        note(f"no {what}{where}; create one with mainspring apply -f FILE")
        return
    kinds = list(dict.fromkeys(m["kind"] for m in found))
    for number, kind in enumerate(kinds):
        if number:
            say("")
        headers, rows = rows_of(
            kind, [m for m in found if m["kind"] == kind], output is Output.WIDE, scope is None
        )
        table(headers, rows)


def rows_of(
    kind: str, objects: Sequence[Manifest], wide: bool, with_namespace: bool
) -> tuple[list[str], list[list[str]]]:
    """Evaluate the columns of a kind: headers and one row per object."""
    from controller.api.kinds import KINDS

    columns = [c for c in KINDS[kind].columns if wide or c[3] == 0]
    headers = ["NAMESPACE"] * with_namespace + ["NAME"] + [c[0].upper() for c in columns]
    rows = []
    for manifest in objects:
        meta = manifest["metadata"]
        head = [meta["namespace"]] * with_namespace + [f"{meta['name']}"]
        rows.append(
            head + [_cell(name, type_, jsonpath.read(path, manifest), wide) for name, type_, path, _ in columns]
        )
    return headers, rows


def _cell(name: str, type_: str, value: Any, wide: bool) -> str:
    if value is None or value == "":
        return ""
    if type_ == "date":
        return age(str(value), utc_now())
    text = str(value)
    if name == "Commit" and not wide:
        return text[:7]
    return text if wide or len(text) <= CELL_MAX else text[: CELL_MAX - 1] + "…"


async def _follow(
    session: Session, wanted: list[Target], output: Output, scope: str | None, shown: list[Manifest]
) -> None:
    """List again on every change, until the reader has had enough."""
    kinds = sorted({t.kind for t in wanted})
    async for _ in session.store.watch(kinds):
        found = await _read(session, wanted, scope)
        if found != shown:
            if output in (Output.TABLE, Output.WIDE):
                say("")
            _show(found, wanted, output, scope)
            shown = found
