"""Judges fairness between groups of rows, from counts.  What cannot be computed fails; it never passes.

Groups with too few rows are left out, and the message says so: a rate of three rows says nothing about anybody.
"""

from __future__ import annotations

from controller.api import fairness
from controller.api.gates import DEFAULT_MIN_ROWS, Gate
from controller.api.modelrevision import Evidence, GroupsEvidence
from controller.api.modelstatus import GateVerdict
from controller.plan.verdict import judged

NOT_COMPUTABLE = "FairnessNotComputable"
MISSING_MOST = 0.2
"""Share of rows whose group is not known from which on nothing is said about groups."""


def judge_fairness(gate: Gate, name: str, evidence: Evidence) -> GateVerdict:
    """Judge one measure of fairness by one column."""
    table = next((g for g in evidence.groups if g.column == gate.by), None)
    if table is None:
        message = f"the groups of {gate.by} were not counted yet; the evidence is being renewed"
        return judged(gate, "Inconclusive", "EvidenceOutdated", message)
    if table.note:
        return judged(gate, "Failed", NOT_COMPUTABLE, f"{name} by {gate.by}: {table.note}")
    least = gate.min_rows or DEFAULT_MIN_ROWS
    if table.left_out.most >= least:
        message = f"{gate.by} has {len(table.table) + table.left_out.count:,} groups, more than are counted"
        return judged(gate, "Failed", NOT_COMPUTABLE, f"{name} by {gate.by}: {message}")
    missing = sum(g.rows for g in table.table if not g.value)
    rows = sum(g.rows for g in table.table) + table.left_out.rows
    if missing > MISSING_MOST * rows:
        message = f"{gate.by} is missing in {missing:,} of {rows:,} rows, more than {MISSING_MOST:.0%}"
        return judged(gate, "Failed", NOT_COMPUTABLE, f"{name} by {gate.by}: {message}")
    groups = [
        fairness.Group(f"{gate.by}={g.value or '(missing)'}", g.rows, g.positive, g.selected, g.true_positive)
        for g in table.table
        if g.rows >= least
    ]
    found = fairness.measure(name, groups)
    small = _small(table, least)
    if isinstance(found, str):
        return judged(gate, "Failed", NOT_COMPUTABLE, f"{name} by {gate.by}: {found}{small}")
    sides = " to ".join(f"{rate:.4g} ({g.value}, {g.rows:,} rows)" for g, rate in (found.low, found.high))
    detail = f"{found.rate} from {sides}{small}"
    if gate.max is not None:
        passed, sign, limit, reason = found.value <= gate.max, ("<=", ">"), gate.max, "AboveMaximum"
    else:
        assert gate.min is not None
        passed, sign, limit, reason = found.value >= gate.min, (">=", "<"), gate.min, "BelowMinimum"
    message = f"{name} by {gate.by} {found.value:.4g} {sign[not passed]} {limit:g}: {detail}"
    return judged(gate, "Passed" if passed else "Failed", "WithinLimits" if passed else reason, message)


def _small(table: GroupsEvidence, least: int) -> str:
    small = [g for g in table.table if g.rows < least]
    count, rows = len(small) + table.left_out.count, sum(g.rows for g in small) + table.left_out.rows
    if not count:
        return ""
    groups = "1 group" if count == 1 else f"{count:,} groups"
    return f"; {groups} of fewer than {least:,} rows ({rows:,} rows together) left out"
