"""The checks that a ModelSpec states, carried out on a dataset.  Pure: a DataFrame and rules in, evidence out.

Every check is judged, also when one failed, and says its numbers either way.  Missing values belong to
`maxNullFraction` alone; a rule that finds nothing to judge does not pass.  Rows are numbered from 1.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from controller.api.base import human_seconds, seconds
from controller.api.data import Check, SchemaCheck
from controller.api.modelrevision import CheckEvidence
from controller.jobs import checks_gx, checks_pandera, samples
from controller.jobs.checks_pandera import Suite
from controller.jobs.entry import WrongInput
from controller.jobs.split import MILLISECONDS_FROM, times_of

SAMPLES: Final = 3
"""Rows named in a message."""

Problem = str
"""What is wrong, one sentence with numbers."""


def judge(
    frame: Any,
    checks: Sequence[Check],
    *,
    target: str,
    champion_rows: int | None,
    now: datetime,
    suites: Mapping[str, Suite] | None = None,
    expected: Mapping[str, checks_gx.Judged] | None = None,
) -> tuple[CheckEvidence, ...]:
    """Carry out all checks, in their order.

    Args:
        frame: the dataset, a pandas DataFrame numbered from 0.
        checks: the rules.
        target: the column to predict, which no schema check needs to name.
        champion_rows: rows of the champion's data; None without a champion.
        now: moment that `maxAge` counts from, with a zone.
        suites: the pandera schemas that checks name, by path.
        expected: what Great Expectations made of the suites that checks name, by path.
    """
    files = (suites or {}, expected or {})
    return tuple(_one(frame, check, target, champion_rows, now, *files) for check in checks)


def failed(name: str, message: str) -> CheckEvidence:
    """Write the evidence of a check that failed."""
    return CheckEvidence(name=name, outcome="Failed", message=message)


def passed(name: str, message: str) -> CheckEvidence:
    """Write the evidence of a check that passed."""
    return CheckEvidence(name=name, outcome="Passed", message=message)


def _one(
    frame: Any,
    check: Check,
    target: str,
    champion_rows: int | None,
    now: datetime,
    suites: Mapping[str, Suite],
    expected: Mapping[str, checks_gx.Judged],
) -> CheckEvidence:
    problems: list[Problem] = []
    judged: checks_gx.Judged | None = None
    if check.schema_ is not None:
        problems += _schema(check.schema_, [str(c) for c in frame.columns], target)
    problems += _volume(check, len(frame), champion_rows)
    if check.pandera is not None:
        problems += checks_pandera.judge(frame, suites[check.pandera.path])
    if check.great_expectations is not None:
        judged = expected[check.great_expectations.path]
        problems += judged.problems
    if check.column is not None:
        if check.column in frame.columns:
            problems += _column(frame[check.column], check, now)
        else:
            problems.append(_no_column(check.column, [str(c) for c in frame.columns]))
    if problems:
        return failed(check.name, "; ".join(problems))
    if judged is not None:
        return passed(check.name, judged.said)
    what = f"{check.column}: " if check.column else ""
    return passed(check.name, f"{what}{len(frame):,} rows hold to it")


def _no_column(name: str, columns: list[str]) -> Problem:
    near = difflib.get_close_matches(name, columns[:2000], n=3, cutoff=0.5) or columns[:5]
    return f"there is no column {name}; nearest: {', '.join(c[:60] for c in near)}"


def _schema(schema: SchemaCheck, columns: list[str], target: str) -> Iterator[Problem]:
    there, wanted = set(columns), set(schema.columns)
    if missing := [c for c in schema.columns if c not in there]:
        yield f"{len(missing)} of {len(schema.columns)} columns are missing: {_names(missing)}"
    if schema.extra == "Refuse" and (extra := [c for c in columns if c not in wanted and c != target]):
        yield f"{len(extra)} columns are not expected: {_names(extra)}"
    if schema.order == "Enforce":
        found = [c for c in columns if c in wanted]
        asked = [c for c in schema.columns if c in there]
        first = next(((f, a) for f, a in zip(found, asked, strict=False) if f != a), None)
        if first:
            yield f"columns are in another order: {first[0]} comes where {first[1]} is expected"


def _volume(check: Check, rows: int, champion_rows: int | None) -> Iterator[Problem]:
    if check.min_rows is not None and rows < check.min_rows:
        yield f"{rows:,} rows, fewer than {check.min_rows:,}"
    if check.max_change is not None and champion_rows:
        change = (rows - champion_rows) / champion_rows
        if abs(change) > check.max_change:
            yield (
                f"{rows:,} rows are {change:+.1%} against the {champion_rows:,} of the champion's data, "
                f"more than {check.max_change:.1%}"
            )


def _column(column: Any, check: Check, now: datetime) -> Iterator[Problem]:
    null = column.isna()
    if check.max_null_fraction is not None and len(column):
        share = float(null.mean())
        if share > check.max_null_fraction:
            yield (
                f"{check.column} has {int(null.sum()):,} of {len(column):,} values missing "
                f"({share:.2%}, at most {check.max_null_fraction:.2%})"
            )
    values = column[~null]
    rules = (check.type, check.min, check.max, check.allowed, check.unique or None, check.max_age)
    if not len(values):
        if any(rule is not None for rule in rules):
            yield f"{check.column} has no value to judge in {len(column):,} rows"
        return
    if check.type is not None:
        yield from _type(values, check.type)
    if check.min is not None or check.max is not None:
        yield from _range(values, check.min, check.max)
    if check.allowed is not None:
        yield from _allowed(values, check.allowed)
    if check.unique:
        yield from duplicates(values)
    if check.max_age is not None:
        yield from _age(values, check.max_age, now)


def duplicates(values: Any) -> Iterator[Problem]:
    """Say how many values of a column come again, and the first rows where they do."""
    again = values.duplicated(keep="first")
    if again.any():
        yield (
            f"{values.name} has {int(again.sum()):,} of {len(values):,} values that came before "
            f"(row {_rows(values[again].index)})"
        )


def as_numbers(values: Any) -> Any:
    """Read values as numbers; what is none becomes NaN, and true and false are none."""
    import pandas as pd
    from pandas.api import types

    if types.is_bool_dtype(values):
        return pd.Series(math.nan, index=values.index, name=values.name)
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(object)
    if types.is_numeric_dtype(values):
        return values
    if types.is_datetime64_any_dtype(values):
        return pd.Series(math.nan, index=values.index, name=values.name)
    plain = values.astype(object).map(lambda v: math.nan if isinstance(v, str | bool) else v)
    return pd.to_numeric(plain, errors="coerce")


def _type(values: Any, wanted: str) -> Iterator[Problem]:
    bad = values[~_is_of(values, wanted)]
    if len(bad) and wanted in ("Integer", "Number") and len(odd := _unreadable(bad)) < len(bad):
        yield _read_as_text(values, odd, "no integers" if wanted == "Integer" else "no numbers")
    elif len(bad):
        word = {"Integer": "no integers", "Number": "no numbers", "String": "no strings"}
        word |= {"Boolean": "neither true nor false", "Datetime": "no times"}
        yield f"{values.name} has {len(bad):,} of {len(values):,} values that are {word[wanted]} ({_samples(bad)})"


def _unreadable(bad: Any) -> Any:
    """Return the values that made a column text: of those that are no numbers, the ones that cannot be read so.

    One such value in a CSV turns all others into text, and only it has to be found. All, where each can be read.
    """
    import pandas as pd

    texts = bad.map(lambda v: isinstance(v, str)).astype(bool)
    odd = bad[pd.to_numeric(bad.where(texts).astype(object), errors="coerce").isna()]
    return odd if len(odd) else bad


def _read_as_text(values: Any, odd: Any, word: str) -> Problem:
    rest = len(values) - len(odd)
    because = "; because of that all are read as text" if rest and isinstance(values.iloc[0], str) else ""
    return f"{values.name} has {len(odd):,} of {len(values):,} values that are {word} ({_samples(odd)}){because}"


def _is_of(values: Any, wanted: str) -> Any:
    """Return a mask: which values are of a type."""
    import numpy as np
    import pandas as pd
    from pandas.api import types

    if wanted in ("Integer", "Number"):
        numbers = as_numbers(values).astype(float)
        finite = np.isfinite(numbers)
        return finite & (numbers == np.floor(numbers)) if wanted == "Integer" else finite
    if wanted == "Datetime":
        if types.is_datetime64_any_dtype(values):
            return pd.Series(True, index=values.index)
        text = values.astype(object).map(lambda v: v if isinstance(v, str) or hasattr(v, "isoformat") else None)
        return pd.to_datetime(text, utc=True, format="ISO8601", errors="coerce").notna()
    kind: Any = str if wanted == "String" else bool | np.bool_
    return values.astype(object).map(lambda v: isinstance(v, kind)).astype(bool)


def _range(values: Any, low: float | None, high: float | None) -> Iterator[Problem]:
    import numpy as np

    numbers = as_numbers(values).astype(float)
    text = numbers.isna()
    if text.any():
        yield _read_as_text(values, _unreadable(values[text]), "no numbers")
    below = (low - numbers).where(~text, -np.inf) if low is not None else None
    above = (numbers - high).where(~text, -np.inf) if high is not None else None
    off = below if above is None else above if below is None else np.maximum(below, above)
    assert off is not None, "called with min or max"
    outside = (off > 0) | np.isinf(numbers)
    if not outside.any():
        return
    at = off.where(outside).idxmax() if (off[outside] > 0).any() else outside.idxmax()
    if low is not None and high is not None:
        where = f"outside {low:g} to {high:g}"
    else:
        where = f"below {low:g}" if low is not None else f"above {high:g}"
    yield (
        f"{values.name} has {int(outside.sum()):,} of {len(values):,} values {where} "
        f"(worst {numbers[at]:.6g} at row {at + 1:,})"
    )


def _allowed(values: Any, allowed: tuple[Any, ...]) -> Iterator[Problem]:
    known = {_plain(v) for v in allowed}
    wrong = [v for v in values.unique() if _plain(v) not in known]
    if wrong:
        bad = values[values.isin(wrong)]
        yield (
            f"{values.name} has {len(bad):,} of {len(values):,} values that are not allowed, "
            f"{len(wrong):,} different ones ({_samples(bad.drop_duplicates())})"
        )


def _plain(value: Any) -> str:
    """Write a value so that 1, 1.0 and the text 1 are one, and true is the text true."""
    if type(value).__name__ in ("bool", "bool_"):
        return "true" if value else "false"
    text = str(value)
    return text.lower() if text in ("True", "False") else text.removesuffix(".0")


def _age(values: Any, limit: str, now: datetime) -> Iterator[Problem]:
    try:
        newest = float(times_of(values.reset_index(drop=True), str(values.name)).max())
    except WrongInput as error:
        yield error.message
        return
    newest = newest / 1000 if newest >= MILLISECONDS_FROM else newest
    age = now.astimezone(UTC).timestamp() - newest
    if age > seconds(limit):
        yield f"the newest {values.name} is {human_seconds(age)} old, more than {limit}"


def _samples(values: Any) -> str:
    """Name up to three values and their rows."""
    first = values.iloc[:SAMPLES]
    shown = [samples.value(v, values.name) for v in first]
    return ", ".join(f"{v} at row {row + 1:,}" for v, row in zip(shown, first.index, strict=True))


def _rows(index: Any) -> str:
    more = ", …" if len(index) > SAMPLES else ""
    return ", ".join(f"{row + 1:,}" for row in index[:SAMPLES]) + more


def _names(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(n[:60] for n in names[:most]) + more
