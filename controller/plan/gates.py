"""Judges a revision's evidence by the gates: may it replace the champion?

Pure: numbers in, verdicts out.  All gates are judged, also when one has failed.  What is missing, not a number, or
too uncertain never passes.
"""

from __future__ import annotations

from collections.abc import Sequence

from controller.api.base import in_bytes, seconds
from controller.api.data import LEAKAGE_SUSPECTED
from controller.api.gates import Baseline, ChampionMargin, Gate, Probe, own_metric
from controller.api.metrics import METRICS, Metric, improvement, quantile
from controller.api.modelrevision import Artifact, Evidence, MetricEvidence
from controller.api.modelstatus import GateVerdict
from controller.plan import gates_cel, gates_groups, gates_reports, gates_slices
from controller.plan.verdict import amount, judged, judged_as, rows_needed

CHECKS_GATE = "data-checks"
"""Name of the verdict that sums up the data checks."""
DEFAULT_CONFIDENCE = 0.95
"""Confidence of the comparison that is made when no gate names the champion."""
DEFAULT_TOLERANCE = 0.02
"""Loss, as a share of the champion's value, that the default comparison tolerates."""


def effective_gates(gates: Sequence[Gate]) -> tuple[Gate, ...]:
    """Return the gates that are judged: those of the spec, and non-inferiority when none names the champion.

    The default compares the first gate's metric: the challenger may be at most 2 % worse than the champion, at
    95 % confidence. Without any metric gate there is nothing to compare by.
    """
    metric = next((m for g in gates if (m := own_metric(g))), None)
    if metric is None or any(g.champion and not g.dry_run for g in gates):
        return tuple(gates)
    margin = ChampionMargin(margin=-DEFAULT_TOLERANCE, mode="Relative", confidence=DEFAULT_CONFIDENCE)
    return (*gates, Gate(name="not-worse-than-champion", metric=metric, champion=margin))


def judge(
    gates: Sequence[Gate], evidence: Evidence, artifact: Artifact | None, champion: str
) -> tuple[GateVerdict, ...]:
    """Judge every gate.

    Args:
        gates: `effective_gates` of the spec.
        evidence: of the challenger.
        artifact: of the challenger, for its size.
        champion: digest of the champion's artifact, empty without one.
    """
    return tuple(_judge_one(g, evidence, artifact, champion) for g in gates)


def judge_checks(evidence: Evidence, checks: str) -> tuple[GateVerdict, ...]:
    """Sum the data checks up as one verdict more; none where no check was made and none is asked for.

    Args:
        evidence: of the challenger.
        checks: hash of the checks of now; evidence by other checks decides nothing.
    """
    count = len(evidence.checks)
    if evidence.checks_hash != checks:
        message = "the data checks have changed since the evidence was made; it is being renewed"
        return (judged_as(CHECKS_GATE, "Inconclusive", "EvidenceOutdated", message),)
    if not count:
        return ()
    bad = [c for c in evidence.checks if c.outcome != "Passed"]
    if bad:
        message = f"{len(bad)} of {count} checks failed: {bad[0].message}"
        return (judged_as(CHECKS_GATE, "Failed", "DataInvalid", message),)
    message = f"{count} of {count} checks passed on {evidence.training_rows + evidence.holdout_rows:,} rows"
    message += hints(evidence)
    return (judged_as(CHECKS_GATE, "Passed", "ChecksPassed", message),)


def hints(evidence: Evidence) -> str:
    """Say what checks that passed want people to know, ready to stand behind a sentence."""
    return "".join(f"; {c.message}" for c in evidence.checks if c.message.startswith(LEAKAGE_SUSPECTED))


def absolute_only(gates: Sequence[Gate]) -> tuple[Gate, ...]:
    """Return the gates that a revision that was once admitted must still pass (decision 4)."""
    return tuple(g for g in gates if g.champion is None and not gates_cel.names_champion(g))


def _judge_one(gate: Gate, evidence: Evidence, artifact: Artifact | None, champion: str) -> GateVerdict:
    found = _judge_kind(gate, evidence, artifact, champion)
    if not gate.dry_run:
        return found
    if found.reason == "EvidenceOutdated":
        message = "it was not measured; a dry run is shown with the next measurement and asks for none"
        found = found.model_copy(update={"reason": "NotMeasured", "message": message})
    return found.model_copy(update={"dry_run": True})


def _judge_kind(gate: Gate, evidence: Evidence, artifact: Artifact | None, champion: str) -> GateVerdict:
    if gate.probe is not None:
        return _judge_probe(gate, gate.probe, evidence, artifact)
    if gate.fairness is not None:
        return gates_groups.judge_fairness(gate, gate.fairness, evidence)
    if gate.report is not None:
        return gates_reports.judge_scan(gate, gate.report, evidence)
    if gate.cel is not None:
        return gates_cel.judge_expression(gate, gate.cel, evidence, artifact, champion)
    if gate.from_ == "Trainer":
        return gates_reports.judge_trainer(gate, evidence)
    return _judge_metric(gate, evidence, champion)


def _judge_metric(gate: Gate, evidence: Evidence, champion: str) -> GateVerdict:
    assert gate.metric is not None
    metric = METRICS[gate.metric]
    if gate.champion is not None and (said := champion_trouble(gate, gate.champion, evidence, champion)):
        return said
    if gate.slices is not None:
        return gates_slices.judge_slices(gate, metric, gate.slices, evidence)
    measured = next((m for m in evidence.metrics if m.name == metric.name), None)
    if measured is None:
        have = ", ".join(m.name for m in evidence.metrics) or "none"
        return judged(gate, "Failed", "MetricMissing", f"{metric.name} was not measured; there are: {have}")
    if measured.value is None:
        return judged(gate, "Failed", "MetricMissing", f"{metric.name} has no value: {measured.note}")
    if gate.champion is not None:
        return _judge_champion(gate, gate.champion, metric, measured, evidence)
    if gate.baseline is not None:
        return _judge_baseline(gate, gate.baseline, metric, measured.value, evidence)
    return _judge_limit(gate, metric, measured.value, evidence)


def _judge_limit(gate: Gate, metric: Metric, value: float, evidence: Evidence) -> GateVerdict:
    rows = f"on {evidence.holdout_rows:,} hold-out rows"
    name = metric.name
    if gate.min is not None and not value >= gate.min:
        return judged(gate, "Failed", "BelowMinimum", f"{name} {value:.4g} < {gate.min:g} {rows}")
    if gate.max is not None and not value <= gate.max:
        return judged(gate, "Failed", "AboveMaximum", f"{name} {value:.4g} > {gate.max:g} {rows}")
    limits = [f">= {gate.min:g}"] if gate.min is not None else []
    limits += [f"<= {gate.max:g}"] if gate.max is not None else []
    return judged(gate, "Passed", "WithinLimits", f"{name} {value:.4g} {' and '.join(limits)} {rows}")


def _judge_baseline(gate: Gate, rule: Baseline, metric: Metric, value: float, evidence: Evidence) -> GateVerdict:
    """Compare with a model that learned nothing; it is always measured, so only old evidence lacks it."""
    if not evidence.baselines:
        message = f"the baseline {rule.dummy} was not measured yet; the evidence is being renewed"
        return judged(gate, "Inconclusive", "EvidenceOutdated", message)
    found = next((b for b in evidence.baselines if b.dummy == rule.dummy), None)
    base = found.values.get(metric.name) if found else None
    if base is None:
        message = f"{metric.name} of the baseline {rule.dummy} cannot be computed"
        note = f": {found.note}" if found and found.note else ""
        return judged(gate, "Failed", "BaselineNotMeasured", message + note)
    margin = ChampionMargin(margin=gate.margin or 0.0, mode=gate.mode or "Absolute")
    gain = improvement(metric, value, base)
    if margin.mode == "Relative":
        if base <= 0:
            message = f"{metric.name} of the baseline is {base:.4g}; a relative margin needs one above 0"
            return judged(gate, "Inconclusive", "BaselineNotPositive", message)
        gain /= base
    facts = f"{metric.name} {value:.4g} against {base:.4g} of the baseline {rule.dummy}"
    gains = f"improvement {amount(gain, margin)}, needed {amount(margin.margin, margin)}"
    rows = f"on {evidence.holdout_rows:,} hold-out rows"
    if gain >= margin.margin:
        return judged(gate, "Passed", "MarginMet", f"{facts} {rows}: {gains}")
    return judged(gate, "Failed", "MarginMissed", f"{facts} {rows}: {gains}")


def champion_trouble(gate: Gate, rule: ChampionMargin, evidence: Evidence, champion: str) -> GateVerdict | None:
    """Judge what can be said without a number: no champion, another one, or one that knows the hold-out."""
    if not champion:
        if rule.required:
            return judged(
                gate, "Failed", "NoChampion", "there is no champion to compare with, and one is required"
            )
        return judged(
            gate, "Passed", "NoChampion", "first model of this name: there is no champion to compare with"
        )
    if evidence.champion != champion:
        message = "the evidence compares with another champion than the one that serves; it is being renewed"
        return judged(gate, "Inconclusive", "EvidenceOutdated", message)
    if evidence.champion_seen_fraction > gates_cel.SEEN_LIMIT:
        message = (
            f"the champion was trained on {evidence.champion_seen_fraction:.1%} of the hold-out rows (limit 1 %)"
        )
        return judged(gate, "Inconclusive", "ChampionSawHoldout", message)
    return None


def _judge_champion(
    gate: Gate, rule: ChampionMargin, metric: Metric, measured: MetricEvidence, evidence: Evidence
) -> GateVerdict:
    if measured.champion is None:
        note = measured.note or f"{metric.name} of the champion is missing"
        return judged(gate, "Inconclusive", "ChampionNotMeasured", note)
    assert measured.value is not None
    return _compare(gate, rule, metric, measured.value, measured.champion, measured, evidence.holdout_rows)


def _compare(
    gate: Gate,
    rule: ChampionMargin,
    metric: Metric,
    value: float,
    champion: float,
    measured: MetricEvidence,
    rows: int,
) -> GateVerdict:
    gain = improvement(metric, value, champion)
    if rule.mode == "Relative":
        if champion <= 0:
            message = f"{metric.name} of the champion is {champion:.4g}; a relative margin needs one above 0"
            return judged(gate, "Inconclusive", "ChampionNotPositive", message)
        gain /= champion
    facts = f"{metric.name} {value:.4g} against the champion's {champion:.4g} on the same {rows:,} rows"
    found = f"improvement {amount(gain, rule)}, needed {amount(rule.margin, rule)}"
    if rule.confidence is None:
        if gain >= rule.margin:
            return judged(gate, "Passed", "MarginMet", f"{facts}: {found}")
        return judged(gate, "Failed", "MarginMissed", f"{facts}: {found}")
    kept = measured.relative if rule.mode == "Relative" else measured.absolute
    if kept is None:
        return judged(gate, "Inconclusive", "NoInterval", f"{facts}: no interval could be computed")
    low, high = quantile(kept, 1 - rule.confidence), quantile(kept, rule.confidence)
    found += f"; at {rule.confidence:.1%} confidence between {amount(low, rule)} and {amount(high, rule)}"
    if low >= rule.margin:
        return judged(gate, "Passed", "MarginMet", f"{facts}: {found}")
    if high < rule.margin:
        return judged(gate, "Failed", "MarginMissed", f"{facts}: {found}")
    needed = rows_needed(rows, gain, low, rule.margin)
    return judged(gate, "Inconclusive", "MarginUncertain", f"{facts}: {found}{needed}")


def _judge_probe(gate: Gate, probe: Probe, evidence: Evidence, artifact: Artifact | None) -> GateVerdict:
    parts: list[tuple[bool, str]] = []
    if probe.max_model_size is not None:
        if artifact is None:
            return judged(gate, "Failed", "MetricMissing", "the size of the model is not known")
        size, limit = artifact.size_bytes, in_bytes(probe.max_model_size)
        parts.append((size <= limit, f"size {_mib(size)} {'<=' if size <= limit else '>'} {probe.max_model_size}"))
    limits = (("p50", probe.p50), ("p95", probe.p95), ("p99", probe.p99))
    found = evidence.probe
    if found is None and any(limit for _, limit in limits):
        return judged(gate, "Failed", "MetricMissing", "the latency of the model was not measured")
    for name, limit_text in limits:
        if limit_text is not None and found is not None:
            value, most = getattr(found, f"{name}_ms"), seconds(limit_text) * 1000
            passed = value <= most
            parts.append((passed, f"{name} {value:.3g} ms {'<=' if passed else '>'} {limit_text}"))
    message = ", ".join(text for _, text in parts) or "no limit is set"
    if found is not None:
        message += f" ({found.requests} requests of one row)"
    if all(ok for ok, _ in parts):
        return judged(gate, "Passed", "WithinLimits", message)
    return judged(gate, "Failed", "ProbeLimit", message)


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.1f} KiB"
