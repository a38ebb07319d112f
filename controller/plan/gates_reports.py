"""Judges by what the training program itself left: a scanner's report, its own numbers.

Both are its word and nobody's proof, and every message says whose word it is.
"""

from __future__ import annotations

from controller.api.gates import Gate, ScanReport
from controller.api.metrics import METRICS
from controller.api.modelrevision import Evidence
from controller.api.modelstatus import GateVerdict
from controller.plan.verdict import judged

SEVERITIES = ("Low", "Medium", "High", "Critical", "Unknown")
"""Growing; what is unknown may be anything, so that it counts as the worst."""


def judge_scan(gate: Gate, rule: ScanReport, evidence: Evidence) -> GateVerdict:
    """Judge the findings of a scanner's report."""
    found = next((s for s in evidence.scans if s.path == rule.path), None)
    if found is None:
        message = f"the report {rule.path} was not read yet; the evidence is being renewed"
        return judged(gate, "Inconclusive", "EvidenceOutdated", message)
    if found.note:
        return judged(gate, "Failed", "ReportNotReadable", f"{rule.path}: {found.note}")
    allowed = 0 if rule.max_severity == "None" else SEVERITIES.index(rule.max_severity) + 1
    counts = ", ".join(f"{found.counts[s]:,} {s}" for s in reversed(SEVERITIES) if found.counts.get(s))
    over = sum(found.counts.get(s, 0) for s in SEVERITIES[allowed:])
    source = f"{found.format} report {rule.path} that the training left"
    if over:
        what = "finding" if over == 1 else "findings"
        message = f"{over:,} {what} above {rule.max_severity} in the {source}: {counts}"
        return judged(gate, "Failed", "SeverityExceeded", message)
    message = f"no finding above {rule.max_severity} in the {source}: {counts or 'none at all'}"
    return judged(gate, "Passed", "WithinLimits", message)


def judge_trainer(gate: Gate, evidence: Evidence) -> GateVerdict:
    """Judge a number that the training program wrote into metrics.json."""
    name = gate.metric or ""
    if evidence.trainer is None:
        message = "the trainer's own numbers were not kept yet; the evidence is being renewed"
        return judged(gate, "Inconclusive", "EvidenceOutdated", message)
    value = evidence.trainer.get(name)
    if value is None:
        there = ", ".join(sorted(evidence.trainer)[:10]) or "none"
        note = f" ({evidence.trainer_note})" if evidence.trainer_note else ""
        return judged(gate, "Failed", "MetricMissing", f"the trainer wrote no {name}; there are: {there}{note}")
    known = METRICS.get(name)
    if known is not None and not _in_range(value, known.low, known.high):
        return judged(gate, "Failed", "MetricOutOfRange", f"the trainer's {name} {value:.4g} cannot be")
    whose = "by the trainer's own word, which nobody checked"
    if gate.min is not None and not value >= gate.min:
        return judged(gate, "Failed", "BelowMinimum", f"{name} {value:.4g} < {gate.min:g}, {whose}")
    if gate.max is not None and not value <= gate.max:
        return judged(gate, "Failed", "AboveMaximum", f"{name} {value:.4g} > {gate.max:g}, {whose}")
    limit = f">= {gate.min:g}" if gate.min is not None else f"<= {gate.max:g}"
    return judged(gate, "Passed", "WithinLimits", f"{name} {value:.4g} {limit}, {whose}")


def _in_range(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)
