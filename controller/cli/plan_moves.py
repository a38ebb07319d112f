"""What a change means: which of the hashes moved, by which fields, and what that leads to.

Pure: compares what is wanted with what is.  Nothing here decides anything; the decision is `plan_model`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from controller.api.base import dump
from controller.api.conditions import STALLED, find
from controller.api.hashes import short
from controller.api.kinds import ModelRevision, ModelSpec
from controller.api.modelrevision import ModelRevisionSpec
from controller.cli.gate_words import words
from controller.plan import naming, pinning
from controller.plan.gates import effective_gates
from controller.plan.observed import ModelSeen, SourceSeen

SHOWN = 12
"""Most changed fields that one line names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One hash that moved: from what to what (first digits), because of which fields, leading to what."""

    hash: str
    before: str
    after: str
    fields: tuple[str, ...]
    means: str

    def __str__(self) -> str:
        """Write it on one line."""
        why = f" ({'; '.join(self.fields[:SHOWN])})" if self.fields else ""
        return f"{self.hash} {self.before or 'none'} → {self.after}{why}: {self.means}"


def differences(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Name every value that differs between two JSON values, as `training.params.depth 5 → 7`."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*before, *after]):
            yield from differences(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(before, list) and isinstance(after, list) and _named(before) and _named(after):
        yield from differences(_by_name(before), _by_name(after), path)
    elif before != after and isinstance(before or after, dict | list) and (before is None or after is None):
        yield f"{path} {'added' if before is None else 'removed'}"
    elif before != after:
        yield f"{path} {_shown(before)} → {_shown(after)}"


def _named(items: list[Any]) -> bool:
    return bool(items) and all(isinstance(i, dict) and "name" in i for i in items)


def _by_name(items: list[Any]) -> dict[str, Any]:
    return {i["name"]: {k: v for k, v in i.items() if k != "name"} for i in items}


def _shown(value: Any) -> str:
    if value is None:
        return "absent"
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    prefix, colon, digits = text.rpartition(":")
    if colon and len(digits) >= 40 and " " not in text:
        return f"{prefix}:{digits[:7]}"
    return text if len(text) <= 60 else f"{text[:59]}…"


def moves(
    seen: ModelSeen, model: ModelSpec, baseline: ModelRevision | None, runtime: str, *, judged: bool
) -> tuple[Move, ...]:
    """Compare what a ModelSpec asks for with a revision: what serves, or what was asked for last.

    Args:
        seen: the world of the plan.
        model: the ModelSpec of the plan.
        baseline: see `baseline_of`.
        runtime: environment in which models are measured and served now.
        judged: whether the plan judges a revision by the gates.
    """
    found: list[Move] = []
    source = seen.source
    wanted = ""
    if isinstance(source, SourceSeen):
        wanted, pinned = pinning.pin(model, source, first=not seen.revisions)
        if (move := _inputs(seen, wanted, pinned, baseline)) is not None:
            found.append(move)
    found += [
        m
        for m in (
            _gates(model, wanted, judged),
            _checks(model, baseline),
            _measures(model, baseline),
            _serve(baseline, runtime),
        )
        if m
    ]
    return tuple(found)


def baseline_of(seen: ModelSeen, model: ModelSpec) -> ModelRevision | None:
    """Find the revision to compare with: the champion, else the one that was asked for last."""
    status = model.status
    names = [
        status.champion.revision if status.champion else "",
        status.source.wanted if status.source else "",
    ]
    return next((seen.revisions[n] for n in names if n in seen.revisions), None)


def _inputs(
    seen: ModelSeen, wanted: str, pinned: ModelRevisionSpec, baseline: ModelRevision | None
) -> Move | None:
    if baseline is not None and baseline.metadata.name == wanted:
        return None
    known = seen.revisions.get(wanted)
    if known is not None and known.status.evidence is not None:
        means = f"{wanted} was trained before and is reused; nothing is trained"
    elif known is not None and find(known.status.conditions, STALLED) is not None:
        means = f"{wanted} was asked for before and could not be trained"
    elif known is not None:
        means = f"{wanted} is being trained"
    else:
        means = f"{wanted} is trained"
    before = baseline.spec.inputs if baseline else ""
    fields = tuple(_input_fields(baseline.spec, pinned)) if baseline else ()
    return Move(hash="inputs", before=short(before), after=short(pinned.inputs), fields=fields, means=means)


def _input_fields(before: ModelRevisionSpec, after: ModelRevisionSpec) -> Iterator[str]:
    """Name what differs among the inputs; the commit and the trigger are none."""
    old, new = dump(before), dump(after)
    if before.source.files != after.source.files:
        yield f"code of commit {before.source.commit[:7]} → {after.source.commit[:7]}"
    for part in ("data", "columns", "holdout", "training"):
        yield from differences(old.get(part), new.get(part), part)


def _gates(model: ModelSpec, wanted: str, judges: bool) -> Move | None:
    judged = model.status.judgement
    now = pinning.gate_hash(model.spec)
    if judged is None or judged.gate_hash == now:
        return None
    champion = model.status.champion
    if champion is not None and champion.revision == wanted:
        means = f"the next challenger is judged by them; {wanted} was let through and stays"
    elif judges:
        means = f"{wanted} is judged again from its stored evidence; nothing is trained"
    else:
        means = "the next challenger is judged by them"
    return Move(hash="gates", before=short(judged.gate_hash), after=short(now), fields=(), means=means)


def _checks(model: ModelSpec, baseline: ModelRevision | None) -> Move | None:
    now = pinning.checks_hash(model.spec)
    evidence = baseline.status.evidence if baseline else None
    if evidence is None or evidence.checks_hash == now:
        return None
    means = "the data checks apply to the next training; nothing is trained because of them"
    return Move(hash="checks", before=short(evidence.checks_hash), after=short(now), fields=(), means=means)


def _measures(model: ModelSpec, baseline: ModelRevision | None) -> Move | None:
    """Say that gates ask for what the evidence has not; that they ask for less moves nothing."""
    now = pinning.measures(model.spec)
    evidence = baseline.status.evidence if baseline else None
    if evidence is None or not now.hash or evidence.measures == now.hash:
        return None
    fields = (
        *(f"{s.metric} by {s.column}" for s in now.slices),
        *(f"groups of {g}" for g in now.groups),
        *now.scans,
    )
    means = "gates ask for what was not measured: what is not admitted yet is measured again; nothing is trained"
    return Move(
        hash="evidence", before=short(evidence.measures), after=short(now.hash), fields=fields, means=means
    )


def _serve(baseline: ModelRevision | None, runtime: str) -> Move | None:
    evidence = baseline.status.evidence if baseline else None
    if evidence is None or evidence.runtime == runtime:
        return None
    before, after = (short(naming.serve_hash(r), 6) for r in (evidence.runtime, runtime))
    means = "what is trained next is measured and served in the new environment"
    return Move(hash="serve", before=before, after=after, fields=(), means=means)


def gate_words(model: ModelSpec) -> list[str]:
    """Say in a few words what every gate asks, the default comparison included."""
    return [words(g) for g in effective_gates(model.spec.gates)]


def canary_words(model: ModelSpec) -> str:
    """Say how a challenger takes over, as the spec has it."""
    rule = model.spec.serving.canary
    steps = " → ".join(f"{w}%" for w in (*rule.step_weights, 100))
    limits = []
    for analysis in rule.analysis:
        if analysis.max is not None:
            limits.append(f"errors <= {analysis.max:.3g} of the requests")
        else:
            limits.append(f"p95 <= {analysis.max_duration}")
    return f"{steps}, {rule.interval} each" + (f", {' and '.join(limits)}" if limits else "")
