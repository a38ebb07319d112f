"""`mainspring gates`: what every gate asks, what was measured, how it judges; over challenger and champion.

Reads the store and judges by the very code that decides; runs nothing and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.cli.errors import Failure
from controller.cli.output import Form, say, say_json, table
from controller.cli.session import DEFAULT_STATE, Namespace, Session, State, run
from controller.cli.target import find

if TYPE_CHECKING:
    from controller.api.gates import Gate
    from controller.api.kinds import ModelRevision, ModelSpec
    from controller.api.modelstatus import GateVerdict


@dataclass(frozen=True, slots=True)
class Over:
    """All verdicts over one revision, and where they are from."""

    revision: ModelRevision
    title: str
    verdicts: tuple[GateVerdict, ...]


def gates_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The ModelSpec, or one ModelRevision.")],
    output: Annotated[Form, typer.Option("--output", "-o", help="Form of the answer.")] = Form.TEXT,
    namespace: Namespace = "default",
    state: State = DEFAULT_STATE,
) -> None:
    """Say what every gate asks, what was measured, and how it judges."""

    async def work(session: Session) -> tuple[ModelSpec, list[Over]]:
        return await gather(session, name, namespace)

    model, found = run(state, work)
    from controller.plan.gates import effective_gates

    asked = effective_gates(model.spec.gates)
    if output is Form.JSON:
        say_json(_as_json(model, asked, found))
        return
    show(model, asked, found)


async def gather(session: Session, name: str, namespace: str) -> tuple[ModelSpec, list[Over]]:
    """Find the model and the revisions that matter: those that were named, or were judged last and serve now.

    Raises:
        Failure: there is none of the name, or it is not valid.
    """
    from controller.api.kinds import ModelRevision, ModelSpec, parse
    from controller.api.meta import LABEL_MODEL

    manifest = await find(session.store, name, namespace, kinds=("ModelSpec", "ModelRevision"))
    is_model = manifest["kind"] == "ModelSpec"
    owner = manifest["metadata"]["name"] if is_model else manifest["spec"]["model"]
    parsed = parse(manifest if is_model else await find(session.store, f"modelspec/{owner}", namespace))
    if not isinstance(parsed, ModelSpec):
        raise Failure(f"modelspec/{owner} is not valid; mainspring explain modelspec/{owner} says why")
    listed = await session.store.list("ModelRevision", namespace=namespace, labels={LABEL_MODEL: owner})
    revisions = {r.metadata.name: r for m in listed if isinstance(r := parse(m), ModelRevision)}
    status = parsed.status
    names = [
        status.judgement.revision if status.judgement else "",
        status.challenger.revision if status.challenger else "",
    ]
    names += [status.champion.revision if status.champion else ""]
    if not is_model:
        names = [manifest["metadata"]["name"]]
    wanted = [revisions[n] for n in dict.fromkeys(names) if n in revisions]
    return parsed, [_over(parsed, r) for r in wanted]


def _over(model: ModelSpec, revision: ModelRevision) -> Over:
    """Take the verdicts that decided where they are remembered, else judge the stored evidence again."""
    from controller.plan import gates, pinning

    name, status = revision.metadata.name, model.status
    evidence, judged = revision.status.evidence, status.judgement
    champion = status.champion
    serves = champion is not None and champion.revision == name
    role = "champion" if serves else "challenger" if judged and judged.revision == name else "revision"
    if evidence is None:
        return Over(revision, f"{role} {name}: not measured yet", ())
    on = f"on {evidence.holdout_rows:,} hold-out rows"
    now = pinning.gate_hash(model.spec)
    if judged is not None and judged.revision == name and judged.gate_hash == now:
        admitted = ", admitted" if judged.admitted else ""
        return Over(revision, f"{role} {name}: {judged.outcome}{admitted}, {on}", judged.verdicts)
    wanted = gates.effective_gates(model.spec.gates)
    if serves:
        found = gates.judge(gates.absolute_only(wanted), evidence, revision.status.artifact, "")
        title = f"champion {name}, {on}, by the gates of now; what compares with the champion is left out"
        return Over(revision, title, found)
    digest = champion.digest if champion else ""
    found = gates.judge(wanted, evidence, revision.status.artifact, digest)
    found += gates.judge_checks(evidence, pinning.checks_hash(model.spec))
    return Over(revision, f"{role} {name}, {on}, by the gates of now", found)


def outcome_words(verdict: GateVerdict) -> str:
    """Write an outcome; one that decides nothing says so."""
    return f"{verdict.outcome} (dry run)" if verdict.dry_run else verdict.outcome


def show(model: ModelSpec, asked: tuple[Gate, ...], found: list[Over]) -> None:
    """Print what is asked, then how it judges."""
    from controller.cli.gate_words import words

    say(f"Gates of modelspec/{model.metadata.name}")
    if not asked:
        say("", "none: every model that was trained is let through")
    else:
        table(("GATE", "ASKS"), [(g.name, words(g)) for g in asked])
    for over in found:
        say("", over.title[0].upper() + over.title[1:])
        if over.verdicts:
            table(
                ("GATE", "OUTCOME", "REASON", "MESSAGE"),
                [(v.gate, outcome_words(v), v.reason, v.message) for v in over.verdicts],
            )
    if not found:
        say("", "nothing was judged yet")


def _as_json(model: ModelSpec, asked: tuple[Gate, ...], found: list[Over]) -> dict[str, Any]:
    from controller.api.base import dump
    from controller.cli.gate_words import words

    return {
        "model": model.metadata.name,
        "gates": [{"name": g.name, "asks": words(g), "dryRun": bool(g.dry_run)} for g in asked],
        "revisions": [
            {
                "revision": o.revision.metadata.name,
                "title": o.title,
                "evidence": dump(o.revision.status.evidence) if o.revision.status.evidence else None,
                "verdicts": [dump(v) for v in o.verdicts],
            }
            for o in found
        ],
    }
