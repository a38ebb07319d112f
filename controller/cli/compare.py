"""`mainspring compare`: two revisions side by side - code, data, settings, numbers, size, speed.  Runs nothing.

The numbers are those of the stored evidence, each on the hold-out rows it was measured on; where these are not the
same rows, the answer says so before it shows any difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.cli.output import Form, say, say_json, table
from controller.cli.session import DEFAULT_STATE, Namespace, Session, State, run

if TYPE_CHECKING:
    from controller.api.kinds import ModelRevision

Row = tuple[str, str, str, str]


def compare_command(
    first: Annotated[str, typer.Argument(metavar="A", help="A ModelRevision, or a commit (7 digits or more).")],
    second: Annotated[str, typer.Argument(metavar="B", help="The other one.")],
    output: Annotated[Form, typer.Option("--output", "-o", help="Form of the answer.")] = Form.TEXT,
    namespace: Namespace = "default",
    state: State = DEFAULT_STATE,
) -> None:
    """Show two revisions side by side: code, data, settings, numbers."""
    from controller.cli.revisions import by_name_or_commit

    async def work(session: Session) -> tuple[ModelRevision, ModelRevision]:
        return (
            await by_name_or_commit(session.store, first, namespace),
            await by_name_or_commit(session.store, second, namespace),
        )

    one, other = run(state, work)
    if output is Form.JSON:
        say_json(as_json(one, other))
        return
    names = (one.metadata.name, other.metadata.name)
    say(f"{names[0]} and {names[1]}", "")
    made = [row for row in made_of(one, other) if row[1] != row[2]]
    if made:
        table(("MADE OF", *names), [row[:3] for row in made])
    else:
        say("the same inputs")
    say("", note(one, other))
    rows = numbers(one, other)
    if rows:
        table(("MEASURED", *names, "B AGAINST A"), rows)


def made_of(one: ModelRevision, other: ModelRevision) -> list[Row]:
    """List the inputs of both, the same ones too; the last column says whether they differ."""
    sides = [_inputs(r) for r in (one, other)]
    keys = dict.fromkeys([*sides[0], *sides[1]])
    out = []
    for key in keys:
        a, b = sides[0].get(key, "absent"), sides[1].get(key, "absent")
        out.append((key, a, b, "" if a == b else "differs"))
    return out


def _inputs(revision: ModelRevision) -> dict[str, str]:
    from controller.api.hashes import short

    spec = revision.spec
    out = {
        "commit": f"{spec.source.commit[:7]} {spec.trigger.message}"[:60],
        "files": short(spec.source.files),
        **{f"data {d.name}": short(d.digest) for d in spec.data},
        "columns": ", ".join(f"{k}={v}" for k, v in spec.columns.model_dump(exclude_none=True).items()),
        "holdout": ", ".join(f"{k}={v}" for k, v in spec.holdout.model_dump(exclude_none=True).items()),
        "image": spec.training.image or "runtime image",
        "command": " ".join(spec.training.command),
        "seed": str(spec.training.seed),
        **{f"param {k}": str(v) for k, v in sorted(spec.training.params.items())},
        **{f"env {e.name}": e.value for e in spec.training.env},
    }
    return {k: v if len(v) <= 60 else f"{v[:59]}…" for k, v in out.items()}


def note(one: ModelRevision, other: ModelRevision) -> str:
    """Say on which rows the numbers are."""
    mine, theirs = one.status.evidence, other.status.evidence
    missing = [r.metadata.name for r in (one, other) if r.status.evidence is None]
    if mine is None or theirs is None:
        return f"{' and '.join(missing)} has no evidence: nothing to compare"
    if mine.holdout == theirs.holdout:
        return f"Both were measured on the same {mine.holdout_rows:,} hold-out rows."
    rows = f"{mine.holdout_rows:,} and {theirs.holdout_rows:,} rows"
    return f"They were measured on different hold-out rows ({rows}): differences say little."


def numbers(one: ModelRevision, other: ModelRevision) -> list[Row]:
    """List what was measured of either: value, value, and by how much the second is better."""
    from controller.api.metrics import METRICS, improvement

    sides = [_values(r) for r in (one, other)]
    out = []
    for key in dict.fromkeys([*sides[0], *sides[1]]):
        a, b = sides[0].get(key), sides[1].get(key)
        if a is None or b is None:
            change = ""
        elif key in METRICS:
            gain = improvement(METRICS[key], b, a)
            change = "the same" if gain == 0 else f"{'better' if gain > 0 else 'worse'} by {abs(gain):.4g}"
        else:
            change = "the same" if a == b else f"{b - a:+,.6g}"
        out.append((key, _shown(a), _shown(b), change))
    return out


def _values(revision: ModelRevision) -> dict[str, float]:
    evidence, artifact = revision.status.evidence, revision.status.artifact
    out: dict[str, float] = {}
    if evidence is not None:
        out |= {m.name: m.value for m in evidence.metrics if m.value is not None}
        out["training rows"] = float(evidence.training_rows)
        if probe := evidence.probe:
            out |= {"p50 ms": probe.p50_ms, "p95 ms": probe.p95_ms, "p99 ms": probe.p99_ms}
    if artifact is not None:
        out["size bytes"] = float(artifact.size_bytes)
    return out


def _shown(value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:,.0f}" if abs(value) >= 1e4 and value.is_integer() else f"{value:.5g}"


def as_json(one: ModelRevision, other: ModelRevision) -> dict[str, Any]:
    """Write the comparison for programs."""
    return {
        "a": one.metadata.name,
        "b": other.metadata.name,
        "inputs": [{"name": n, "a": a, "b": b, "same": not d} for n, a, b, d in made_of(one, other)],
        "note": note(one, other),
        "numbers": [
            {"name": n, "a": _values(one).get(n), "b": _values(other).get(n)} for n, *_ in numbers(one, other)
        ],
    }
