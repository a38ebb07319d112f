"""What gates ask for besides the metrics on all rows: baselines, slices, groups.  Always bounded.

A column that is not there, or a question that the rows cannot answer, is a note in the evidence and never an error
of the step: the gate that asked fails by it, with that sentence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from controller.api.metrics import METRICS, SLICE_GRID
from controller.api.modelrevision import (
    BaselineEvidence,
    GroupCounts,
    GroupsEvidence,
    LeftOut,
    SliceEvidence,
    SlicesEvidence,
)
from controller.api.reports import EvaluateTask, SliceAsked, TargetFacts
from controller.jobs import evaluate_inputs as inputs
from controller.stats import baseline, bootstrap, metrics, slices
from controller.stats.metrics import Classification, Ints, Regression, Rows

SLICES_MAX: Final = 100
"""Slices measured in all; shared by what is asked for, at least SLICES_MIN for each."""
SLICES_MIN: Final = 5
GROUPS_MAX: Final = 50
"""Most groups of one column."""
VALUE_MAX: Final = 60
"""Characters of a value that are kept."""

Part = tuple[str, Ints]
"""A value of a column as text, and the positions of its rows."""


def baselines(target: Any, columns: Any, rows: Rows, known: TargetFacts | None) -> tuple[BaselineEvidence, ...]:
    """Measure the models that learned nothing but the training labels.

    Args:
        target: the hold-out's labels.
        columns: meaning of the columns.
        rows: the challenger's, of which only the truth is used.
        known: statistics of the training labels.
    """
    if isinstance(rows, Regression):
        numbers = {"Mean": known.mean if known else None, "Median": known.median if known else None}
        return tuple(
            _none(d, "the training labels are not all numbers")
            if n is None
            else _measured(d, baseline.constant_number(rows, n))
            for d, n in numbers.items()
        )
    counts = known.counts if known else {}
    if not counts:
        note = "the training labels have more than 1,000 classes"
        return tuple(_none(d, note) for d in ("MostFrequent", "Prior"))
    by = inputs.encoding(target, columns.positive, list(counts))
    truth = Classification(inputs.codes(target, by), inputs.codes(target, by), by.classes, by.positive)
    of_class = np.zeros(len(by.classes), dtype=np.int64)
    for name, count in counts.items():
        of_class[by.classes.index(inputs.text_of(name, by.kind))] += count
    return (
        _measured("MostFrequent", baseline.constant_class(truth, of_class, shares=False)),
        _measured("Prior", baseline.constant_class(truth, of_class, shares=True)),
    )


def _measured(dummy: str, rows: Rows) -> BaselineEvidence:
    kind = "Regression" if isinstance(rows, Regression) else "Classification"
    found = {m.name: metrics.value(m.name, rows)[0] for m in METRICS.values() if m.task == kind}
    return BaselineEvidence(dummy=dummy, values={n: v for n, v in found.items() if v is not None})


def _none(dummy: str, note: str) -> BaselineEvidence:
    return BaselineEvidence(dummy=dummy, note=note)


def column_of(name: str, labels: Any, features: Path) -> Any | None:
    """Read a column of the hold-out from the labels, else from the features; None where neither has it."""
    if name in labels.columns:
        return labels[name].reset_index(drop=True)
    import pyarrow.parquet as pq

    path = features / "features.parquet"
    if name not in pq.read_schema(path).names:
        return None
    return pq.read_table(path, columns=[name]).to_pandas()[name].reset_index(drop=True)


def parts_of(column: Any) -> list[Part]:
    """Split rows by the values of a column, most rows first; missing values are a part of their own, named ""."""
    import pandas as pd

    codes, distinct = pd.factorize(column.astype(object), use_na_sentinel=False)
    names = ["" if pd.isna(v) else _text(v) for v in distinct]
    return [(names[c], p) for c, p in slices.largest_first(np.asarray(codes, dtype=np.int64), len(names))]


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = "".join(c if c.isprintable() else "?" for c in str(value))
    return text if len(text) <= VALUE_MAX else f"{text[: VALUE_MAX - 1]}…"


def _left_out(parts: list[Part], kept: int) -> LeftOut:
    rest = [p.size for _, p in parts[kept:]]
    return LeftOut(count=len(rest), rows=int(sum(rest)), most=int(max(rest, default=0)))


def by_slice(
    task: EvaluateTask, labels: Any, features: Path, challenger: Rows, champion: Rows | None
) -> tuple[SlicesEvidence, ...]:
    """Measure every metric in the slices that are asked for, and the improvement over the champion in each."""
    asked = task.measures.slices
    most = max(SLICES_MIN, SLICES_MAX // max(1, len(asked)))
    kind = "Regression" if isinstance(challenger, Regression) else "Classification"
    out = []
    for one in asked:
        column = column_of(one.column, labels, features)
        metric = METRICS.get(one.metric)
        note = f"the hold-out has no column {one.column}" if column is None else ""
        if metric is None or metric.task != kind:
            note = f"{one.metric} is no metric of {kind.lower()}"
        if note:
            out.append(SlicesEvidence(column=one.column, metric=one.metric, note=note))
            continue
        parts = parts_of(column)
        table = tuple(_slice(task, one, labels, p, challenger, champion) for p in parts[:most])
        out.append(
            SlicesEvidence(column=one.column, metric=one.metric, table=table, left_out=_left_out(parts, most))
        )
    return tuple(out)


def _slice(
    task: EvaluateTask, asked: SliceAsked, labels: Any, part: Part, challenger: Rows, champion: Rows | None
) -> SliceEvidence:
    value, positions = part
    mine = slices.take(challenger, positions)
    number, why = metrics.value(asked.metric, mine)
    if champion is None:
        return SliceEvidence(value=value, rows=positions.size, metric=number, note=why)
    other = slices.take(champion, positions)
    base, base_why = metrics.value(asked.metric, other)
    rows = labels.iloc[positions].reset_index(drop=True)
    gain = bootstrap.compare(
        {asked.metric: METRICS[asked.metric].direction == "Higher"},
        mine,
        other,
        inputs.units(rows, task.columns, task.holdout, mine),
        grid=SLICE_GRID,
        seed=task.seed,
        resamples=task.resamples,
    )[asked.metric]
    notes = [why, f"champion: {base_why}" if base_why else "", gain.note if not (why or base_why) else ""]
    return SliceEvidence(
        value=value,
        rows=positions.size,
        metric=number,
        champion=base,
        absolute=_rounded(gain.absolute),
        relative=_rounded(gain.relative),
        note="; ".join(n for n in notes if n)[:300],
    )


def _rounded(values: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Six digits are more than a bootstrap knows, and keep the status small."""
    return tuple(float(f"{v:.6g}") for v in values) if values is not None else None


def by_group(task: EvaluateTask, labels: Any, features: Path, rows: Rows) -> tuple[GroupsEvidence, ...]:
    """Count rows, positive ones and those called positive in every group of the columns that are asked for."""
    out = []
    for name in task.measures.groups:
        column = column_of(name, labels, features)
        note = ""
        if column is None:
            note = f"the hold-out has no column {name}"
        elif isinstance(rows, Regression):
            note = "the model predicts numbers; fairness is measured on two classes"
        elif rows.positive is None:
            note = f"it needs two classes or columns.positive; there are {len(rows.classes)} classes"
        if note or column is None or not isinstance(rows, Classification):
            out.append(GroupsEvidence(column=name, note=note))
            continue
        parts = parts_of(column)
        table = []
        for value, positions in parts[:GROUPS_MAX]:
            positive, selected, both = slices.counted(rows, positions)
            table.append(
                GroupCounts(
                    value=value, rows=positions.size, positive=positive, selected=selected, true_positive=both
                )
            )
        out.append(GroupsEvidence(column=name, table=tuple(table), left_out=_left_out(parts, GROUPS_MAX)))
    return tuple(out)
