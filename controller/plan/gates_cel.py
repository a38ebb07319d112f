"""Judges by an expression over the measured numbers.  Anything but a clear true does not pass, and says why.

The expression sees only what was measured: a value that could not be computed is absent, never 0 or NaN.
"""

from __future__ import annotations

from typing import Any

from controller.api import expressions
from controller.api.gates import Gate
from controller.api.metrics import METRICS, improvement
from controller.api.modelrevision import Artifact, Evidence
from controller.api.modelstatus import GateVerdict
from controller.plan.verdict import judged

SEEN_LIMIT = 0.01
"""Share of hold-out rows the champion was trained on above which a comparison says nothing (decision 14)."""
OF_CHAMPION = ("champion", "improvement")
SHOWN = 12
"""Most values that a message shows."""


def names_champion(gate: Gate) -> bool:
    """Tell whether an expression compares with the champion."""
    return gate.cel is not None and any(p[0] in OF_CHAMPION for p in expressions.used(gate.cel))


def judge_expression(
    gate: Gate, text: str, evidence: Evidence, artifact: Artifact | None, champion: str
) -> GateVerdict:
    """Judge by an expression."""
    comparable = bool(champion) and evidence.champion == champion
    if names_champion(gate) and champion:
        if not comparable:
            message = "the evidence compares with another champion than the one that serves; it is being renewed"
            return judged(gate, "Inconclusive", "EvidenceOutdated", message)
        if evidence.champion_seen_fraction > SEEN_LIMIT:
            share = f"{evidence.champion_seen_fraction:.1%} of the hold-out rows (limit 1 %)"
            return judged(gate, "Inconclusive", "ChampionSawHoldout", f"the champion was trained on {share}")
    maps = values(evidence, artifact, with_champion=comparable)
    shown = [f"{'.'.join(p)} = {_shown(expressions.value_at(maps, p))}" for p in expressions.used(text)[:SHOWN]]
    where = f" with {', '.join(shown)}" if shown else ""
    found = expressions.evaluate(text, maps)
    if isinstance(found, expressions.Trouble):
        return judged(gate, "Failed", "ExpressionError", f"{found.message}: {_cut(text)}{where}")
    if found:
        return judged(gate, "Passed", "ExpressionTrue", f"{_cut(text)} is true{where}")
    return judged(gate, "Failed", "ExpressionFalse", f"{_cut(text)} is false{where}")


def values(evidence: Evidence, artifact: Artifact | None, *, with_champion: bool) -> dict[str, Any]:
    """Build the maps that expressions see, of finite numbers only."""
    measured = {m.name: m.value for m in evidence.metrics if m.value is not None}
    other = {m.name: m.champion for m in evidence.metrics if m.champion is not None} if with_champion else {}
    model: dict[str, float] = {"sizeBytes": float(artifact.size_bytes)} if artifact else {}
    if evidence.probe is not None:
        probe = evidence.probe
        model |= {"p50Ms": probe.p50_ms, "p95Ms": probe.p95_ms, "p99Ms": probe.p99_ms}
    return {
        "metrics": measured,
        "champion": other,
        "improvement": {n: improvement(METRICS[n], measured[n], other[n]) for n in measured if n in other},
        "data": {
            "holdout": {"rows": float(evidence.holdout_rows)},
            "training": {"rows": float(evidence.training_rows)},
        },
        "model": model,
    }


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return "missing" if value is None else "several values"


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 160 else f"{line[:159]}…"
