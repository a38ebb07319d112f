"""`mainspring history`: every decision about a model, from its signed ledger.

While the registry does not answer, what the objects remember is shown instead, and said to be that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.cli.errors import Failure
from controller.cli.output import Form, note, say, say_json, table
from controller.cli.session import DEFAULT_STATE, Namespace, Session, State, run
from controller.cli.target import find

if TYPE_CHECKING:
    from controller.api.kinds import ModelRevision, ModelSpec
    from controller.plan.ledger import Ledger

REASON_MAX = 100
HEADERS = ("SEQ", "AT", "DECISION", "REVISION", "COMMIT", "VERSION", "REASON")


def history_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The ModelSpec.")],
    output: Annotated[Form, typer.Option("--output", "-o", help="Form of the answer.")] = Form.TEXT,
    namespace: Namespace = "default",
    state: State = DEFAULT_STATE,
) -> None:
    """List every decision about a model, from its signed ledger."""

    async def work(session: Session) -> None:
        from controller.api.kinds import ModelSpec, parse
        from controller.plan.revision import environment_of, registry_name
        from controller.plan.verdict import Unknown

        parsed = parse(await find(session.store, name, namespace, kinds=("ModelSpec",)))
        if not isinstance(parsed, ModelSpec):
            raise Failure(f"modelspec/{name} is not valid; mainspring explain modelspec/{name} says why")
        environment = environment_of(parsed)
        ledger = await (await session.world()).ledger.read(registry_name(parsed), environment)
        if isinstance(ledger, Unknown):
            note(f"the registry does not answer ({ledger.message}); this is what the objects remember")
            show_remembered(parsed, await _revisions(session, parsed), output)
        else:
            show_ledger(ledger, output)

    run(state, work)


def show_ledger(ledger: Ledger, output: Form) -> None:
    """Print the entries that count, and say which do not."""
    from controller.api.base import dump

    for problem in ledger.problems:
        note(f"warning: {problem}")
    if output is Form.JSON:
        champion = ledger.champion.champion if ledger.champion else None
        entries = [dump(e) for e in ledger.entries]
        say_json({"source": "ledger", "champion": champion, "entries": entries, "problems": list(ledger.problems)})
        return
    if not ledger.entries:
        say("no decision yet: the ledger is empty")
        return
    table(
        HEADERS,
        [[str(e.seq), e.at, e.kind, e.revision, e.commit[:7], e.version, _cut(e.reason)] for e in ledger.entries],
    )


async def _revisions(session: Session, model: ModelSpec) -> list[ModelRevision]:
    from controller.api.kinds import ModelRevision, parse
    from controller.api.meta import LABEL_MODEL

    labels = {LABEL_MODEL: model.metadata.name}
    found = await session.store.list("ModelRevision", namespace=model.metadata.namespace, labels=labels)
    typed = [r for m in found if isinstance(r := parse(m), ModelRevision)]
    return sorted(typed, key=lambda r: r.metadata.creation_timestamp)


def show_remembered(model: ModelSpec, revisions: list[ModelRevision], output: Form) -> None:
    """Print the revisions, and what the status of the model says about each."""
    rows = [(r.metadata.creation_timestamp, r, *_fate(model, r)) for r in revisions]
    if output is Form.JSON:
        entries: list[dict[str, Any]] = [
            {
                "at": at,
                "kind": word,
                "revision": r.metadata.name,
                "commit": r.spec.source.commit,
                "version": r.status.version,
                "reason": reason,
            }
            for at, r, word, reason in rows
        ]
        champion = model.status.champion.revision if model.status.champion else None
        say_json({"source": "objects", "champion": champion, "entries": entries, "problems": []})
        return
    if not rows:
        say("no revision yet")
        return
    table(
        HEADERS[1:],
        [
            [at, word, r.metadata.name, r.spec.source.commit[:7], r.status.version, _cut(reason)]
            for at, r, word, reason in rows
        ],
    )


def _fate(model: ModelSpec, revision: ModelRevision) -> tuple[str, str]:
    """Say in a word and a sentence what became of a revision."""
    from controller.api.conditions import find as condition

    status, name = model.status, revision.metadata.name
    if status.champion is not None and status.champion.revision == name:
        return "Champion", f"since {status.champion.since}, gates {status.champion.gates}"
    if status.challenger is not None and status.challenger.revision == name:
        return "Challenger", status.challenger.stage
    if status.previous is not None and status.previous.revision == name:
        return status.previous.verdict, status.previous.reason
    ready = condition(revision.status.conditions, "Ready")
    return ("Measured" if ready and ready.status == "True" else "NotReady"), ready.message if ready else ""


def _cut(text: str) -> str:
    return text if len(text) <= REASON_MAX else text[: REASON_MAX - 1] + "…"
