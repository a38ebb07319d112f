"""The checks that are always on: without them a training means nothing.  Pure: tables in, evidence out.

A failed one has a reason of its own; `refusal` sums up all checks as the one sentence that a person reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

from controller.api.data import LEAKAGE_SUSPECTED, Columns
from controller.api.modelrevision import CheckEvidence
from controller.jobs.checks import as_numbers, duplicates, failed, passed
from controller.jobs.entry import WrongInput

PREFIX: Final = "builtin-"
TARGET: Final = f"{PREFIX}target-present"
ROWS: Final = f"{PREFIX}rows"
UNIQUE_ID: Final = f"{PREFIX}unique-id"
NOT_CONSTANT: Final = f"{PREFIX}not-constant"
FEATURES: Final = f"{PREFIX}features-not-empty"
SPLIT: Final = f"{PREFIX}split"
"""Only there when it failed: the split could not be made."""
HOLDOUT_COLUMNS: Final = f"{PREFIX}holdout-columns"
"""Only there when it failed."""
HOLDOUT_UNSEEN: Final = f"{PREFIX}holdout-unseen"
"""Only there for datasets that the training is given whole; the dataset's name follows."""

NO_COPY: Final = f"{PREFIX}no-copy-of-target"
"""Only there where a column gives the target away; it passes with a hint that begins with that word."""

LARGEST: Final = 1e150
"""Targets beyond it are refused: their squares, and with them every error, would be infinite."""
TRAINING_ROWS_MIN: Final = 20
HOLDOUT_ROWS_MIN: Final = 10
DISTINCT_CLASSES_MAX: Final = 20
"""Whole numbers with more different values are a quantity, not classes."""
SEEN_SHARE_MAX: Final = 0.01
"""Share of hold-out rows that a dataset given whole may hold by chance (rows that happen to be equal)."""

NO_COLUMN: Final = "there is no column"
_REASONS: Final = {ROWS: "DataEmpty", UNIQUE_ID: "DuplicateIds"}


def judge_table(frame: Any, columns: Columns, dataset: str = "") -> Iterator[CheckEvidence]:
    """Check one dataset by itself: target, ids, features; `dataset` names it where it is not the first."""
    where, after = (f"{dataset}: ", f"-{dataset}") if dataset else ("", "")
    target = columns.target
    problems = _target_problems(frame, target)
    if problems:
        yield failed(TARGET + after, where + "; ".join(problems))
    else:
        yield passed(TARGET + after, f"{where}{target} has a value in all {len(frame):,} rows")
    if columns.id is not None:
        yield _unique_id(frame, columns.id, where, UNIQUE_ID + after)
    features = [c for c in frame.columns if c != target]
    empty = [str(c)[:60] for c in features if bool(frame[c].isna().all())]
    if not features:
        yield failed(FEATURES + after, f"{where}there is no column besides the target {target}")
    elif empty:
        names = ", ".join(empty[:5])
        yield failed(
            FEATURES + after, f"{where}{len(empty)} of {len(features)} columns have no value at all: {names}"
        )
    else:
        yield passed(FEATURES + after, f"{where}{len(features)} columns, each with values")


def judge_columns(training: Any, holdout: Any, target: str) -> Iterator[CheckEvidence]:
    """Check that a hold-out dataset has the columns that the training learns from; says nothing if it has.

    Args:
        training: the first dataset, a DataFrame.
        holdout: the dataset holdout.
        target: the column to predict, which is judged by itself.
    """
    names = [str(c) for c in training.columns if c != target]
    there = {str(c) for c in holdout.columns}
    if missing := [c for c in names if c not in there]:
        shown = ", ".join(c[:60] for c in missing[:5])
        text = f"the dataset holdout lacks {len(missing)} of {len(names)} columns of the first: {shown}"
        yield failed(HOLDOUT_COLUMNS, text)
    pairs = [(c, _kind(training[c]), _kind(holdout[c])) for c in names if c in there]
    if other := [f"{c[:60]} has {a} in the first and {b} in it" for c, a, b in pairs if a and b and a != b]:
        text = f"the dataset holdout has {len(other)} columns of another type: {', '.join(other[:5])}"
        yield failed(HOLDOUT_COLUMNS, text)


def _kind(column: Any) -> str:
    """Say what a column has; empty where it has no value at all, which fits everything."""
    from pandas.api import types

    if column.isna().all():
        return ""
    if types.is_bool_dtype(column):
        return "truth values"
    if types.is_numeric_dtype(column):
        return "numbers"
    return "times" if types.is_datetime64_any_dtype(column) else "texts"


def judge_copies(frame: Any, target: str) -> Iterator[CheckEvidence]:
    """Hint at columns that give the target away: equal to it, a multiple of it, or another name for its classes.

    It is no failure: a column may be known when the model is asked. Says nothing when there is none.
    """
    if target not in frame.columns or frame[target].nunique() < 2:
        return
    copies = [str(c) for c in frame.columns if c != target and _gives_away(frame[c], frame[target])]
    if copies:
        names = ", ".join(c[:60] for c in copies[:5])
        yield passed(
            NO_COPY,
            f"{LEAKAGE_SUSPECTED}: {len(copies)} columns give the target {target} away in all {len(frame):,} rows"
            f": {names}; if they are not known when the model is asked, take them out",
        )


def _gives_away(column: Any, target: Any) -> bool:
    """Tell whether one value of the column always stands for one of the target, and the other way round."""
    import numpy as np
    from pandas.api import types

    if column.isna().any() or target.isna().any():
        return False
    distinct = int(target.nunique())
    if distinct <= DISTINCT_CLASSES_MAX:
        return bool(column.nunique() == distinct == len(set(zip(column, target, strict=True))))
    if not types.is_numeric_dtype(column):
        return False
    x, y = as_numbers(column).to_numpy(dtype=float), as_numbers(target).to_numpy(dtype=float)
    if not (np.isfinite(x).all() and np.isfinite(y).all()) or np.ptp(x) == 0 or np.ptp(y) == 0:
        return False
    x, y = (x - x.min()) / np.ptp(x), (y - y.min()) / np.ptp(y)
    return bool(np.allclose(x, y, rtol=0, atol=1e-9) or np.allclose(1 - x, y, rtol=0, atol=1e-9))


def judge_split(frame: Any, target: str, training: Sequence[int], holdout_rows: int) -> Iterator[CheckEvidence]:
    """Check what the split left: enough rows on both sides, and a target that varies in the training part."""
    rows = len(training)
    text = f"{rows:,} training and {holdout_rows:,} hold-out rows"
    if rows < TRAINING_ROWS_MIN or holdout_rows < HOLDOUT_ROWS_MIN:
        yield failed(ROWS, f"{text}, at least {TRAINING_ROWS_MIN} and {HOLDOUT_ROWS_MIN} are needed")
    else:
        yield passed(ROWS, text)
    if target in frame.columns and rows:
        values = frame[target].iloc[list(training)]
        distinct = int(values.nunique())
        if distinct < 2:
            shown = str(values.iloc[0])[:40]
            yield failed(
                NOT_CONSTANT, f"{target} is {shown} in all {rows:,} training rows: there is nothing to learn"
            )
        else:
            yield passed(NOT_CONSTANT, f"{target} has {distinct:,} different values")


def judge_unseen(name: str, seen: int, holdout_rows: int) -> CheckEvidence:
    """Check that a dataset which the training is given whole does not hold the hold-out."""
    check, text = (
        f"{HOLDOUT_UNSEEN}-{name}",
        f"{seen:,} of {holdout_rows:,} hold-out rows are also in dataset {name}",
    )
    if seen > SEEN_SHARE_MAX * holdout_rows:
        return failed(check, f"{text}, which the training is given whole; take them out")
    return passed(check, text)


def task_of(column: Any) -> Literal["Classification", "Regression"]:
    """Tell the kind of task: numbers with fractions, or more than 20 different ones, are a quantity."""
    numbers = as_numbers(column.dropna())
    if numbers.isna().any() or not len(numbers):
        return "Classification"
    distinct = numbers.drop_duplicates().astype(float)
    whole = bool((distinct == distinct.round()).all())
    return "Classification" if whole and len(distinct) <= DISTINCT_CLASSES_MAX else "Regression"


def refusal(checks: Sequence[CheckEvidence]) -> WrongInput | None:
    """Sum up failed checks: reason and one sentence with the numbers of the first ones; None if all passed.

    The reason is the built-in check's own where only built-in ones failed, else DataInvalid.
    """
    bad = [c for c in checks if c.outcome == "Failed"]
    if not bad:
        return None
    reason = _reason(bad[0]) if all(c.name.startswith(PREFIX) for c in bad) else "DataInvalid"
    if len(bad) == 1:
        return WrongInput(reason, f"check {bad[0].name} failed: {bad[0].message}")
    first = "; ".join(f"{c.name}: {c.message[:200]}" for c in bad[:4])
    return WrongInput(reason, f"{len(bad)} of {len(checks)} checks failed: {first}")


def _reason(check: CheckEvidence) -> str:
    if check.name == HOLDOUT_COLUMNS or NO_COLUMN in check.message:
        return "SchemaMismatch"
    return next((r for name, r in _REASONS.items() if check.name.startswith(name)), "DataInvalid")


def _target_problems(frame: Any, target: str) -> list[str]:
    import numpy as np

    if target not in frame.columns:
        names = ", ".join(str(c)[:40] for c in list(frame.columns)[:8])
        return [f"{NO_COLUMN} {target}, the target; there are {names}"]
    column = frame[target]
    problems = []
    if missing := int(column.isna().sum()):
        row = int(column.isna().to_numpy().argmax()) + 1
        problems.append(f"{target} is missing in {missing:,} of {len(column):,} rows (first at row {row:,})")
    infinite = np.isinf(as_numbers(column.dropna()).astype(float))
    if infinite.any():
        problems.append(f"{target} is infinite in {int(infinite.sum()):,} of {len(column):,} rows")
    huge = (as_numbers(column.dropna()).astype(float).abs() > LARGEST) & ~infinite
    if huge.any():
        row = int(huge.index[huge][0]) + 1
        problems.append(
            f"{target} is beyond {LARGEST:g} in {int(huge.sum()):,} of {len(column):,} rows (first at row "
            f"{row:,}), so large that no error of it can be measured; use another unit"
        )
    return problems


def _unique_id(frame: Any, name: str, where: str, check: str) -> CheckEvidence:
    if name not in frame.columns:
        return failed(check, f"{where}{NO_COLUMN} {name}, which columns.id names")
    column = frame[name]
    missing = int(column.isna().sum())
    problems = [f"{name} is missing in {missing:,} of {len(column):,} rows"] if missing else []
    problems += duplicates(column.dropna())
    if problems:
        return failed(check, where + "; ".join(problems))
    return passed(check, f"{where}{name} names each of {len(column):,} rows")
