"""What a gate asks, in a few words.  Pure."""

from __future__ import annotations

from controller.api.gates import DEFAULT_MIN_ROWS, Gate


def words(gate: Gate) -> str:
    """Say what a gate asks: `recall >= 0.7 in every slice by country of 300 rows`."""
    text = _asks(gate)
    if gate.slices is not None:
        text += f" in every slice by {', '.join(gate.slices)} of {gate.min_rows or DEFAULT_MIN_ROWS:,} rows"
    return f"{text} (dry run)" if gate.dry_run else text


def _asks(gate: Gate) -> str:
    if gate.champion is not None:
        rule = gate.champion
        margin = f"{rule.margin:+.4g}" if rule.mode == "Absolute" else f"{rule.margin:+.2%}"
        sure = f" at {rule.confidence:.0%} confidence" if rule.confidence else ""
        return f"{gate.metric} against the champion >= {margin}{sure}"
    if gate.baseline is not None:
        least = gate.margin or 0.0
        margin = f"{least:+.2%}" if gate.mode == "Relative" else f"{least:+.4g}"
        return f"{gate.metric} against the baseline {gate.baseline.dummy} >= {margin}"
    if gate.probe is not None:
        limits = [f"{n} <= {v}" for n in ("p50", "p95", "p99") if (v := getattr(gate.probe, n))]
        size = [f"size <= {gate.probe.max_model_size}"] if gate.probe.max_model_size else []
        return ", ".join([*limits, *size]) or gate.name
    if gate.fairness is not None:
        return (
            f"{gate.fairness} by {gate.by} {_limits(gate)} in groups of {gate.min_rows or DEFAULT_MIN_ROWS:,} rows"
        )
    if gate.report is not None:
        return f"no finding above {gate.report.max_severity} in {gate.report.path}"
    if gate.cel is not None:
        return " ".join(gate.cel.split())
    whose = "the trainer's " if gate.from_ == "Trainer" else ""
    return f"{whose}{gate.metric} {_limits(gate)}"


def _limits(gate: Gate) -> str:
    limits = [f">= {gate.min:g}"] if gate.min is not None else []
    limits += [f"<= {gate.max:g}"] if gate.max is not None else []
    return " and ".join(limits)
