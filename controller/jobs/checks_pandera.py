"""A pandera schema in the repository as a check of the data: YAML read as data, judged by pandera itself.

The file may hold the schema of a table and pandera's own checks with plain values, nothing that names code: the
file is read by our strict reader, every key is on a list, and what pandera would look up by name never is
unknown to us.  Patterns are judged by RE2, which no pattern can make slow.  No row is ever changed or dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from controller.api import strictyaml
from controller.api.git_rules import shown
from controller.jobs import samples
from controller.jobs.entry import WrongInput

SHOWN: Final = 4
"""Rules named in a message."""
_SAMPLES: Final = 3
_PATTERNS: Final = frozenset({"str_matches", "str_contains"})
_CHECKS: Final = _PATTERNS | {
    "equal_to",
    "not_equal_to",
    "greater_than",
    "greater_than_or_equal_to",
    "less_than",
    "less_than_or_equal_to",
    "in_range",
    "isin",
    "notin",
    "str_startswith",
    "str_endswith",
    "str_length",
    "unique_values_eq",
}
_TABLE: Final = frozenset({"strict", "ordered", "unique", "unique_column_names", "coerce"})
_TABLE_PASSED_OVER: Final = frozenset(
    {"schema_type", "version", "name", "title", "description", "metadata", "report_duplicates"}
)
_TABLE_ONLY: Final[dict[str, tuple[Any, ...]]] = {
    "api": ("pandas", None),
    "dataframe_library": ("pandas", None),
    "index": (None,),
    "checks": (None, [], {}),
    "dtype": (None,),
    "add_missing_columns": (False, None),
    "drop_invalid_rows": (False, None),
}
"""Keys that only have the value that changes nothing: what they could say is code, or would change the data."""
_COLUMN: Final = frozenset({"dtype", "nullable", "unique", "coerce", "required"})
_COLUMN_PASSED_OVER: Final = frozenset({"title", "description", "metadata", "report_duplicates"})
_COLUMN_ONLY: Final[dict[str, tuple[Any, ...]]] = {
    "regex": (False, None),
    "default": (None,),
    "drop_invalid_rows": (False, None),
}
_DTYPE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\[[A-Za-z0-9_, ]{1,40}\])?")


@dataclass(frozen=True, slots=True)
class Suite:
    """A schema that was read."""

    path: str
    """Its file."""
    schema: dict[str, Any]
    """What pandera builds it from, without patterns."""
    patterns: tuple[tuple[str, str, str], ...]
    """(column, str_matches or str_contains, pattern)."""
    judged: tuple[str, ...]
    """Columns that have a check: one without any value is no pass."""


def parse(data: bytes, path: str) -> Suite:
    """Read a schema.

    Raises:
        WrongInput: RuleInvalid, with the place in the file.
    """
    parsed = strictyaml.read(data)
    if parsed.problems:
        first = parsed.problems[0]
        _invalid(path, f"line {first.line}: {first.message}")
    if len(parsed.documents) != 1 or not isinstance(parsed.documents[0].value, dict):
        _invalid(path, "one document with a pandera schema is wanted")
    whole: dict[str, Any] = parsed.documents[0].value
    if whole.get("schema_type", "dataframe") != "dataframe":
        _invalid(path, f"schema_type {shown(str(whole['schema_type']), 40)} is no dataframe")
    columns = whole.get("columns")
    if not isinstance(columns, dict) or not columns:
        _invalid(path, "columns is missing: a schema without columns judges nothing")
    rest = {k: v for k, v in whole.items() if k != "columns"}
    schema = dict(_kept(path, "", rest, _TABLE, _TABLE_PASSED_OVER, _TABLE_ONLY))
    patterns: list[tuple[str, str, str]] = []
    judged: list[str] = []
    schema["columns"] = {}
    for name, body in columns.items():
        given = body or {}
        if not isinstance(given, dict):
            _invalid(path, f"columns.{name} is no block of fields")
        rules = dict(_rules(path, name, given))
        fields = {k: v for k, v in given.items() if k not in _CHECKS and k != "checks"}
        column = dict(_kept(path, f"columns.{name}.", fields, _COLUMN, _COLUMN_PASSED_OVER, _COLUMN_ONLY))
        if (dtype := column.get("dtype")) is not None and not (isinstance(dtype, str) and _DTYPE.fullmatch(dtype)):
            _invalid(path, f"columns.{name}.dtype {shown(str(dtype), 40)} is no name of a type")
        patterns += [(name, kind, str(value)) for kind, value in rules.items() if kind in _PATTERNS]
        column["checks"] = {k: v for k, v in rules.items() if k not in _PATTERNS} or None
        schema["columns"][name] = column
        if rules or column.get("unique"):
            judged.append(name)
    for name, _, pattern in patterns:
        _check_pattern(path, name, pattern)
    suite = Suite(path, schema, tuple(patterns), tuple(judged))
    _build(suite)
    return suite


def judge(frame: Any, suite: Suite) -> Iterator[str]:
    """Judge a table; yields what is wrong, one sentence per column and rule, with numbers and rows."""
    import pandas as pd
    from pandera.errors import SchemaError, SchemaErrors

    problems: list[str] = []
    empty = [name for name in suite.judged if name in frame.columns and not frame[name].notna().any()]
    problems += [f"{name} has no value to judge in {len(frame):,} rows" for name in empty]
    try:
        _build(suite).validate(frame.copy(), lazy=True)
    except SchemaErrors as error:
        for (column, check), cases in error.failure_cases.groupby(["column", "check"], sort=False, dropna=False):
            problems.append(_said("" if pd.isna(column) else str(column), str(check), cases, len(frame)))
    except (SchemaError, TypeError, ValueError) as error:
        problems.append(" ".join(str(error).split())[:200])
    problems += [p for name, kind, pattern in suite.patterns for p in _by_pattern(frame, name, kind, pattern)]
    yield from problems[:SHOWN]
    if len(problems) > SHOWN:
        yield f"and {len(problems) - SHOWN:,} more"


def _rules(path: str, column: str, given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Read the checks of a column in each of the three ways that pandera's versions have written them."""
    older = given.get("checks") or {}
    if isinstance(older, list):
        pairs = [_listed(path, column, item) for item in older]
    elif isinstance(older, dict):
        pairs = list(older.items())
    else:
        _invalid(path, f"columns.{column}.checks is no list")
    pairs += [(k, v) for k, v in given.items() if k in _CHECKS]
    for name, value in pairs:
        if name not in _CHECKS:
            _invalid(
                path, f"columns.{column} has the check {shown(str(name), 40)}, which is none of pandera's own"
            )
        if isinstance(value, dict) and "options" in value:
            options = value["options"] if isinstance(value["options"], dict) else {"options": 1}
            if wrong := sorted(options.keys() - {"check_name", "ignore_na"}):
                _invalid(
                    path, f"columns.{column}.{name} has the option {shown(wrong[0], 40)}, which is not allowed"
                )
            value = {k: v for k, v in value.items() if k != "options"}
            value = value["value"] if set(value) == {"value"} else value
        if not _plain(value):
            _invalid(path, f"columns.{column}.{name} has no plain value")
        if name in _PATTERNS and not isinstance(value, str):
            _invalid(path, f"columns.{column}.{name} wants a pattern as text")
        yield name, value


def _listed(path: str, column: str, item: Any) -> tuple[str, Any]:
    options = item.get("options") if isinstance(item, dict) else None
    name = options.get("check_name") if isinstance(options, dict) else None
    if not isinstance(name, str):
        _invalid(path, f"columns.{column}.checks has an entry without options.check_name")
    return name, item


def _plain(value: Any, depth: int = 0) -> bool:
    if isinstance(value, list):
        return depth < 2 and len(value) <= 10_000 and all(_plain(v, depth + 1) for v in value)
    if isinstance(value, dict):
        return depth < 1 and all(_plain(v, depth + 1) for v in value.values())
    return value is None or isinstance(value, str | int | float | bool)


def _kept(
    path: str,
    where: str,
    given: Mapping[str, Any],
    known: frozenset[str],
    passed_over: frozenset[str],
    only: Mapping[str, tuple[Any, ...]],
) -> Iterator[tuple[str, Any]]:
    """Keep the keys that judge, drop those that only describe, refuse the rest."""
    for key, value in given.items():
        if key in known:
            if value is not None and not _plain(value):
                _invalid(path, f"{where}{key} has no plain value")
            yield key, value
        elif key in only and value not in only[key]:
            _invalid(path, f"{where}{key} is not allowed here: it is code, or would change the data")
        elif key not in only and key not in passed_over:
            _invalid(path, f"{where}{key} is unknown; a check written in Python cannot be named here")


def _build(suite: Suite) -> Any:
    """Build pandera's schema; raises WrongInput (RuleInvalid) for what pandera itself does not accept."""
    from copy import deepcopy

    from pandera.errors import SchemaDefinitionError, SchemaInitError
    from pandera.io.pandas_io import deserialize_schema

    try:
        return deserialize_schema(deepcopy(suite.schema))
    except (SchemaDefinitionError, SchemaInitError, TypeError, ValueError, KeyError, AttributeError) as error:
        _invalid(suite.path, f"pandera does not accept it: {' '.join(str(error).split())[:160]}")


def _check_pattern(path: str, column: str, pattern: str) -> None:
    import pyarrow as pa

    try:
        _matches([""], "str_contains", pattern)
    except pa.ArrowException as error:
        why = " ".join(str(error).split())[:100]
        _invalid(path, f"columns.{column} has a pattern that RE2 does not read (no look-around, no \\1): {why}")


def _matches(texts: list[str], kind: str, pattern: str) -> list[bool]:
    import pyarrow as pa
    import pyarrow.compute as pc

    whole = f"^(?:{pattern})" if kind == "str_matches" else pattern
    found: list[bool] = pc.match_substring_regex(
        pa.array(texts, type=pa.large_string()), pattern=whole
    ).to_pylist()
    return found


def _by_pattern(frame: Any, name: str, kind: str, pattern: str) -> Iterator[str]:
    if name not in frame.columns:
        return
    values = frame[name].dropna()
    texts = [v if isinstance(v, str) else str(v) for v in values]
    wrong = [not ok for ok in _matches(texts, kind, pattern)]
    bad = values[wrong]
    if len(bad):
        word = "do not begin with" if kind == "str_matches" else "do not contain"
        rows = ", ".join(f"{samples.value(v, name)} at row {row + 1:,}" for row, v in bad.iloc[:_SAMPLES].items())
        yield f"{name} has {len(bad):,} of {len(values):,} values that {word} {shown(pattern, 60)} ({rows})"


def _said(column: str, check: str, cases: Any, rows: int) -> str:
    """Say one rule of pandera that failed."""
    first = cases.iloc[0]
    if check == "column_in_dataframe":
        names = ", ".join(str(v)[:60] for v in cases["failure_case"].iloc[:5])
        return f"{len(cases)} columns are missing: {names}"
    if check in ("column_in_schema", "column_ordered"):
        names = ", ".join(str(v)[:60] for v in cases["failure_case"].iloc[:5])
        return f"columns are {'not expected' if check == 'column_in_schema' else 'in another order'}: {names}"
    where = [i for i in cases["index"].iloc[:_SAMPLES] if isinstance(i, int | float) and i == i]
    if not where:
        return f"{column or 'the table'} fails {check[:80]}: {_cut(first['failure_case'], 80)}"
    pairs = zip(cases["failure_case"].iloc[:_SAMPLES], where, strict=False)
    told = ", ".join(f"{samples.value(value, column)} at row {int(row) + 1:,}" for value, row in pairs)
    return f"{column} has {len(cases):,} of {rows:,} values that fail {check[:80]} ({told})"


def _cut(value: Any, most: int = 24) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return f"{text[:most]}{'…' if len(text) > most else ''}"


def _invalid(path: str, what: str) -> NoReturn:
    raise WrongInput("RuleInvalid", f"{shown(path)}: {what}")
