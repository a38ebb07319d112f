"""Judges a metric in every slice of the hold-out: is the model good enough, or no worse, for each part?

Slices with too few rows are not judged, and the message says how many they are; a gate that could judge none of a
column's slices, or not all of the large ones, never passes.  Pure: evidence in, one verdict out.
"""

from __future__ import annotations

from dataclasses import dataclass

from controller.api.gates import DEFAULT_MIN_ROWS, ChampionMargin, Gate
from controller.api.metrics import SLICE_GRID, Metric, improvement, quantile
from controller.api.modelrevision import Evidence, SliceEvidence, SlicesEvidence
from controller.api.modelstatus import GateVerdict, Outcome
from controller.plan.verdict import amount, judged, rows_needed


@dataclass(frozen=True, slots=True)
class _Judged:
    """How one slice came out; `worse` orders slices, the greatest is the worst; `text` has its numbers."""

    outcome: Outcome
    reason: str
    worse: float
    text: str


def judge_slices(gate: Gate, metric: Metric, columns: tuple[str, ...], evidence: Evidence) -> GateVerdict:
    """Judge a limit or a champion margin in the slices of every column."""
    least = gate.min_rows or DEFAULT_MIN_ROWS
    tables = {t.column: t for t in evidence.slices if t.metric == metric.name}
    if missing := [c for c in columns if c not in tables]:
        message = f"{metric.name} by {', '.join(missing)} was not measured yet; the evidence is being renewed"
        return judged(gate, "Inconclusive", "EvidenceOutdated", message)
    for column in columns:
        if found := _unusable(gate, tables[column], least):
            return found
    large = [(c, s) for c in columns for s in tables[c].table if s.rows >= least]
    results = [_judge_one(gate, metric, column, part, len(large)) for column, part in large]
    order = {"Failed": 2, "Inconclusive": 1, "Passed": 0}
    worst = max(results, key=lambda r: (order[r.outcome], r.worse))
    bad = sum(r.outcome == worst.outcome for r in results)
    if worst.outcome == "Passed":
        head = f"{metric.name} holds in all {len(results)} slices; the worst is {worst.text}"
    else:
        word = "misses" if worst.outcome == "Failed" else "is not decided"
        head = f"{metric.name} {word} in {bad} of {len(results)} slices; the worst is {worst.text}"
    return judged(
        gate, worst.outcome, worst.reason, f"{head}{_corrected(gate, len(large))}{_small(columns, tables, least)}"
    )


def _unusable(gate: Gate, table: SlicesEvidence, least: int) -> GateVerdict | None:
    """Say why a column's slices cannot be judged, if so."""
    if table.note:
        return judged(gate, "Failed", "SlicesNotComputable", f"slices by {table.column}: {table.note}")
    if table.left_out.most >= least:
        message = (
            f"{table.column} has {len(table.table) + table.left_out.count:,} values, and only the "
            f"{len(table.table)} largest are measured; one of {table.left_out.most:,} rows is not. Use a column "
            "with fewer values, or raise minRows"
        )
        return judged(gate, "Inconclusive", "TooManySlices", message)
    if not any(s.rows >= least for s in table.table):
        most = max((s.rows for s in table.table), default=0)
        message = f"no slice by {table.column} has {least:,} hold-out rows; the largest has {most:,}"
        return judged(gate, "Inconclusive", "TooFewRows", message)
    return None


def _judge_one(gate: Gate, metric: Metric, column: str, part: SliceEvidence, count: int) -> _Judged:
    where = f"{column}={part.value or '(missing)'} with {part.rows:,} rows"
    if part.metric is None:
        return _Judged("Failed", "MetricMissing", 0.0, f"{where}, which has no value: {part.note}")
    if gate.champion is not None:
        return _against_champion(gate.champion, metric, part, where, count)
    value = part.metric
    if gate.min is not None and not value >= gate.min:
        return _Judged("Failed", "BelowMinimum", gate.min - value, f"{value:.4g} < {gate.min:g} in {where}")
    if gate.max is not None and not value <= gate.max:
        return _Judged("Failed", "AboveMaximum", value - gate.max, f"{value:.4g} > {gate.max:g} in {where}")
    limits = [f">= {gate.min:g}"] if gate.min is not None else []
    limits += [f"<= {gate.max:g}"] if gate.max is not None else []
    slack = min(
        [value - gate.min] if gate.min is not None else [gate.max - value] if gate.max is not None else [0.0]
    )
    return _Judged("Passed", "WithinLimits", -slack, f"{value:.4g} {' and '.join(limits)} in {where}")


def _against_champion(
    rule: ChampionMargin, metric: Metric, part: SliceEvidence, where: str, count: int
) -> _Judged:
    if part.champion is None or part.metric is None:
        why = part.note or "the champion has no value"
        return _Judged("Inconclusive", "ChampionNotMeasured", 0.0, f"{where}: {why}")
    gain = improvement(metric, part.metric, part.champion)
    if rule.mode == "Relative":
        if part.champion <= 0:
            text = f"{where}: the champion's {part.champion:.4g} is not above 0, as a relative margin needs"
            return _Judged("Inconclusive", "ChampionNotPositive", 0.0, text)
        gain /= part.champion
    text = (
        f"{part.metric:.4g} against the champion's {part.champion:.4g} in {where}: improvement "
        f"{amount(gain, rule)}, needed {amount(rule.margin, rule)}"
    )
    short = rule.margin - gain
    if rule.confidence is None:
        met = gain >= rule.margin
        return _Judged("Passed" if met else "Failed", "MarginMet" if met else "MarginMissed", short, text)
    kept = part.relative if rule.mode == "Relative" else part.absolute
    if kept is None:
        return _Judged("Inconclusive", "NoInterval", short, f"{text}; no interval could be computed: {part.note}")
    low = quantile(kept, 1 - rule.confidence, SLICE_GRID)
    high = quantile(kept, _each(rule.confidence, count), SLICE_GRID)
    text += f", between {amount(low, rule)} and {amount(high, rule)}"
    if low >= rule.margin:
        return _Judged("Passed", "MarginMet", rule.margin - low, text)
    if high < rule.margin:
        return _Judged("Failed", "MarginMissed", rule.margin - high, text)
    text += rows_needed(part.rows, gain, low, rule.margin, of="such rows")
    return _Judged("Inconclusive", "MarginUncertain", rule.margin - low, text)


def _each(confidence: float, count: int) -> float:
    """How sure one of many slices must be that it is worse, so that all together err no oftener (Bonferroni)."""
    return 1 - (1 - confidence) / count


def _corrected(gate: Gate, count: int) -> str:
    """State the correction.

    To pass, every slice must pass on its own: that needs none (an intersection-union test, Berger 1982). To fail,
    one of many is enough, and by chance alone one of many would.
    """
    rule = gate.champion
    if rule is None or rule.confidence is None or count < 2:
        return ""
    each = _each(rule.confidence, count)
    return (
        f"; lower bounds at {rule.confidence:.1%} confidence, upper ones at {each:.2%} each, corrected for "
        f"{count} slices (Bonferroni)"
    )


def _small(columns: tuple[str, ...], tables: dict[str, SlicesEvidence], least: int) -> str:
    """Say which slices were not judged."""
    small = [s.rows for c in columns for s in tables[c].table if s.rows < least]
    count = len(small) + sum(tables[c].left_out.count for c in columns)
    rows = sum(small) + sum(tables[c].left_out.rows for c in columns)
    if not count:
        return ""
    slices = "1 slice" if count == 1 else f"{count:,} slices"
    return f"; {slices} of fewer than {least:,} rows ({rows:,} rows together) not judged"
