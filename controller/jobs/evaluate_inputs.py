"""What `evaluate` reads: hold-out labels and the predictions of both models, checked before anything is computed.

Predictions come from a container that ran the user's model, so they are hostile: sizes first, then columns, then
every value.  Nothing is repaired: a missing row or a NaN is an error with numbers, never a row left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from pydantic import ValidationError

from controller.api.data import Columns, Holdout, Scalar
from controller.api.reports import Facts, PredictFacts
from controller.jobs.entry import WrongInput
from controller.stats.bootstrap import Units, by_group, by_row, by_time
from controller.stats.metrics import Classification, Floats, Ints, Regression, Rows

FACTS_MAX_BYTES: Final = 1_048_576
"""Largest facts.json that is read."""
TABLE_MAX_BYTES: Final = 4 * 2**30
"""Largest predictions.parquet that is read."""
COLUMNS_MAX: Final = 1001
"""Most columns of predictions: one prediction and scores of 1,000 classes."""
SCORE: Final = "score:"
"""Prefix of the columns with class probabilities."""
FEW_VALUES: Final = 20
"""Whole numbers with at most so many different values are classes, where nobody says what they are."""

Task = Literal["Classification", "Regression"]


@dataclass(frozen=True, slots=True)
class Predictions:
    """One model's answers, as many as hold-out rows: values (a pandas Series), scores by class, facts."""

    values: Any
    scores: dict[str, Floats]
    facts: PredictFacts


def read_facts(directory: Path) -> Facts:
    """Read what `fetch` found.

    Raises:
        OSError, ValueError: it is not there or not readable, which is a fault of ours and worth trying again.
    """
    return Facts.model_validate_json((directory / "facts.json").read_bytes())


def read_labels(directory: Path, columns: Columns, facts: Facts) -> Any:
    """Read the hold-out's target, id, time and group: a pandas DataFrame in the order of the predictions.

    Raises:
        WrongInput: DataInvalid, when the target is missing in some rows.
        ValueError: not what `fetch` says it wrote.
    """
    import pandas as pd

    labels = pd.read_parquet(directory / "labels.parquet")
    if len(labels) != facts.holdout_rows or columns.target not in labels.columns:
        raise ValueError(
            f"labels.parquet has {len(labels)} rows and columns {list(labels.columns)[:10]}, but "
            f"{facts.holdout_rows} rows with {columns.target} were written"
        )
    missing = int(labels[columns.target].isna().sum())
    if missing or not len(labels):
        raise WrongInput(
            "DataInvalid",
            f"the target {columns.target} is missing in {missing} of {len(labels)} hold-out rows"
            if missing
            else "the hold-out has no rows",
        )
    return labels


def check_order(features: Path, labels: Any) -> None:
    """Compare the columns that features and labels share: rows in another order would be judged by other labels.

    Raises:
        ValueError: they differ.
    """
    import pyarrow.parquet as pq

    path = features / "features.parquet"
    schema = pq.read_schema(path)
    shared = [c for c in labels.columns if c in schema.names]
    table = pq.read_table(path, columns=shared).to_pandas()
    for column in shared:
        if not table[column].reset_index(drop=True).equals(labels[column].reset_index(drop=True)):
            raise ValueError(f"features.parquet and labels.parquet differ in {column}: they are not the same rows")


def read_predictions(directory: Path, rows: int) -> Predictions:
    """Read one model's predictions.

    Raises:
        WrongInput: PredictionsInvalid, with numbers.
    """
    facts = _predict_facts(directory / "facts.json")
    path = directory / "predictions.parquet"
    _regular(path, TABLE_MAX_BYTES)
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            found, names = file.metadata.num_rows, list(file.schema_arrow.names)
            if found != rows:
                raise _invalid(f"{found} predictions for {rows} hold-out rows")
            if names.count("prediction") != 1 or len(names) > COLUMNS_MAX or len(set(names)) < len(names):
                raise _invalid(f"columns must be prediction and {SCORE}<class>, not {', '.join(names[:5])}")
            kept = [n for n in names if n == "prediction" or n.startswith(SCORE)]
            table = file.read(columns=kept).to_pandas()
    except (pa.ArrowException, OSError, ValueError, UnicodeError) as error:
        raise _invalid(f"predictions.parquet cannot be read ({type(error).__name__})") from error
    if len(table) != rows:
        raise _invalid(f"{len(table)} predictions for {rows} hold-out rows")
    scores = {n.removeprefix(SCORE): _finite(table[n], n) for n in kept if n != "prediction"}
    return Predictions(table["prediction"], scores, facts)


def _predict_facts(path: Path) -> PredictFacts:
    _regular(path, FACTS_MAX_BYTES)
    try:
        return PredictFacts.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise _invalid("facts.json of the predict step cannot be read") from error


def _regular(path: Path, limit: int) -> None:
    if path.is_symlink() or not path.is_file():
        raise _invalid(f"{path.name} of the predict step is not there")
    if (size := path.stat().st_size) > limit:
        raise _invalid(f"{path.name} has {size:,} bytes; at most {limit:,} are read")


def _invalid(message: str) -> WrongInput:
    return WrongInput("PredictionsInvalid", message)


def _finite(column: Any, name: str) -> Floats:
    """Give a column as finite floats.

    Raises:
        WrongInput: it holds something else, with how many and the first row.
    """
    from pandas.api import types

    what = "predictions" if name == "prediction" else f"values of {name[:60]}"
    if not types.is_numeric_dtype(column) or types.is_bool_dtype(column) or types.is_complex_dtype(column):
        raise _invalid(f"{what} are {_kind_word(column)}, not numbers")
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    bad = ~np.isfinite(values)
    if bad.any():
        count, first = int(bad.sum()), int(bad.argmax())
        raise _invalid(f"{count} of {values.size} {what} are not finite numbers; the first is in row {first}")
    return np.asarray(values)


def _kind_word(column: Any) -> str:
    from pandas.api import types

    if types.is_bool_dtype(column):
        return "true or false"
    return "text" if types.is_string_dtype(column) or column.dtype == object else str(column.dtype)


def task_of(target: Any, wanted: Task | None, seen: Task | None) -> Task:
    """Decide which part of the metric table applies: what the gates say, else what the data shows.

    Raises:
        WrongInput: TaskMismatch: the gates want numbers and the target is not numeric.
    """
    from pandas.api import types

    numeric = types.is_numeric_dtype(target) and not types.is_bool_dtype(target)
    if wanted == "Regression" and not numeric:
        raise WrongInput(
            "TaskMismatch",
            f"the gates use metrics of numbers, but the target {target.name} is {_kind_word(target)}",
        )
    if said := wanted or seen:
        return said
    if not numeric:
        return "Classification"
    distinct = target.unique()
    whole = all(float(v).is_integer() for v in distinct[: FEW_VALUES + 1])
    return "Classification" if whole and len(distinct) <= FEW_VALUES else "Regression"


@dataclass(frozen=True, slots=True)
class Encoding:
    """Classes as text: those of the truth in their order, then further ones that a model has probabilities for.

    `kind` is what the truth is made of, so that 1, 1.0, True and "1" of a model mean the same class.
    """

    classes: tuple[str, ...]
    positive: int | None
    kind: Literal["number", "bool", "text"]


def encoding(target: Any, positive: Scalar | None, scored: list[str]) -> Encoding:
    """Find the classes; `scored` names those that models have probabilities for."""
    from pandas.api import types

    kind: Literal["number", "bool", "text"] = "text"
    if types.is_bool_dtype(target):
        kind = "bool"
    elif types.is_numeric_dtype(target):
        kind = "number"
    order = (lambda c: (float(c), c)) if kind == "number" else (lambda c: (0.0, c))
    truth = sorted({text_of(v, kind) for v in target.unique()}, key=order)
    extra = sorted({text_of(s, kind) for s in scored} - set(truth))
    classes = [*truth, *extra]
    if positive is not None:
        named = text_of(positive, kind)
        classes += [] if named in classes else [named]
        return Encoding(tuple(classes), classes.index(named), kind)
    if len(truth) == 2:
        return Encoding(tuple(classes), 1, kind)
    if len(classes) == 2:
        classes.sort(key=lambda c: (_number(c), c))
        return Encoding(tuple(classes), 1, kind)
    return Encoding(tuple(classes), None, kind)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def text_of(value: Any, kind: str) -> str:
    """Write a class in one way, whatever type it comes in."""
    if isinstance(value, bool | np.bool_):
        return str(int(value)) if kind == "number" else str(bool(value))
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    text = str(value)
    if kind == "number":
        whole = _number(text)
        text = {"True": "1", "False": "0"}.get(text, str(int(whole)) if whole and whole.is_integer() else text)
        return "0" if text in ("0.0", "-0.0") else text
    return {"1": "True", "1.0": "True", "0": "False", "0.0": "False"}.get(text, text) if kind == "bool" else text


def numbers(target: Any, found: Predictions) -> Regression:
    """Pair truth and predictions of a regression.

    Raises:
        WrongInput: predictions that are no finite numbers, or a target that is not.
    """
    truth = target.to_numpy(dtype=np.float64, na_value=np.nan)
    if not np.isfinite(truth).all():
        raise WrongInput("DataInvalid", f"{int((~np.isfinite(truth)).sum())} labels are not finite numbers")
    return Regression(truth, _finite(found.values, "prediction"))


def classes(target: Any, found: Predictions, by: Encoding) -> Classification:
    """Pair truth and predictions of a classification.

    Raises:
        WrongInput: a prediction is missing.
    """
    missing = found.values.isna().to_numpy()
    if missing.any():
        count, first = int(missing.sum()), int(missing.argmax())
        raise _invalid(f"{count} of {missing.size} predictions are missing; the first is in row {first}")
    scores = {text_of(name, by.kind): column for name, column in found.scores.items()}
    matrix: Floats | None = None
    if scores and len(by.classes) == 2 and len(scores) == 1:
        (name, column), *_ = scores.items()
        matrix = np.stack([column if c == name else 1 - column for c in by.classes], axis=1)
    elif scores:
        matrix = np.stack([scores.get(c, np.zeros(len(target))) for c in by.classes], axis=1)
    return Classification(codes(target, by), codes(found.values, by), by.classes, by.positive, matrix)


def codes(column: Any, by: Encoding) -> Ints:
    """Give the position of every row's class; -1 for one that is not among them."""
    import pandas as pd

    position = {c: i for i, c in enumerate(by.classes)}
    code, distinct = pd.factorize(column.astype(object))
    of = np.array([position.get(text_of(v, by.kind), -1) for v in distinct], dtype=np.int64)
    return np.asarray(of[code])


def units(labels: Any, columns: Columns, holdout: Holdout, rows: Rows) -> Units:
    """Decide what the bootstrap draws: rows, groups, or blocks of time.

    Raises:
        ValueError: the column that says it is not among the labels.
    """
    import pandas as pd

    if holdout.by == "Random":
        return by_row(rows.truth.size)
    name = holdout.column or (columns.time if holdout.by == "Time" else None)
    if name is None or name not in labels.columns:
        raise ValueError(f"labels.parquet lacks the column {name} that holdout.by: {holdout.by} needs")
    column = labels[name]
    if holdout.by == "Group":
        return by_group(column.astype(str).to_numpy(dtype=str))
    if pd.api.types.is_numeric_dtype(column):
        return by_time(column.to_numpy(dtype=np.float64, na_value=np.nan))
    times = pd.to_datetime(column, utc=True, format="ISO8601", errors="coerce")
    return by_time(times.dt.tz_localize(None).to_numpy(dtype="datetime64[ns]"))
