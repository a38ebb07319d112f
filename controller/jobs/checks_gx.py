"""A Great Expectations suite of the repository as a check of the data: read as data, judged by Great Expectations.

The suite's JSON (0.18 or 1.x) may name Great Expectations' own expectations with plain values.  What is code,
reaches other data or depends on the moment (conditions on rows, queries, parameters) is refused by name, as is
every expectation of a plug-in.  The library is an extra: it runs in a child of its own, without secrets, with a
limit of time, and only when a check asks for it.  What it found is told in our words, with its numbers.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from controller.api.git_rules import shown
from controller.clients.redact import escape
from controller.jobs import tables
from controller.jobs.entry import TryAgain, WrongInput
from controller.jobs.samples import private_column, sample

EXTRA: Final = "great-expectations"
LIMIT_S: Final = 600.0
"""Longest time that judging all suites of a dataset may take, in seconds."""
SHOWN: Final = 4
"""Expectations named in a message."""
EXPECTATIONS_MAX: Final = 1_000
"""Most expectations of a suite."""
_DEPTH_MAX: Final = 6
_COLUMN: Final = """
    distinct_values_to_be_in_set distinct_values_to_contain_set distinct_values_to_equal_set
    kl_divergence_to_be_less_than max_to_be_between mean_to_be_between median_to_be_between min_to_be_between
    most_common_value_to_be_in_set pair_values_a_to_be_greater_than_b pair_values_to_be_equal
    pair_values_to_be_in_set proportion_of_non_null_values_to_be_between proportion_of_unique_values_to_be_between
    quantile_values_to_be_between stdev_to_be_between sum_to_be_between to_exist
    unique_value_count_to_be_between value_lengths_to_be_between value_lengths_to_equal
    value_z_scores_to_be_less_than values_to_be_between values_to_be_dateutil_parseable values_to_be_decreasing
    values_to_be_in_set values_to_be_in_type_list values_to_be_increasing values_to_be_json_parseable
    values_to_be_null values_to_be_of_type values_to_be_unique values_to_match_regex values_to_match_regex_list
    values_to_match_strftime_format values_to_not_be_in_set values_to_not_be_null values_to_not_match_regex
    values_to_not_match_regex_list
"""
_TABLE: Final = """
    compound_columns_to_be_unique multicolumn_sum_to_equal multicolumn_values_to_be_equal
    select_column_values_to_be_unique_within_record table_column_count_to_be_between table_column_count_to_equal
    table_columns_to_match_ordered_list table_columns_to_match_set table_row_count_to_be_between
    table_row_count_to_equal
"""
KNOWN: Final = frozenset([f"expect_column_{n}" for n in _COLUMN.split()] + [f"expect_{n}" for n in _TABLE.split()])
"""Expectations that judge one table and nothing else."""
_WITHOUT_VALUES: Final = frozenset({"expect_column_values_to_be_null", "expect_column_to_exist"})
"""Expectations that a column without any value may meet."""
_PASSED_OVER: Final = frozenset({"batch_id", "result_format", "include_config", "catch_exceptions", "meta"})
"""Arguments that only say how results are reported."""
_REFUSED: Final[Mapping[str, str]] = {
    "row_condition": "is code that is run on the data; judge all rows, or prepare a column for it",
    "condition_parser": "is code that is run on the data; judge all rows, or prepare a column for it",
    "windows": "depends on the moment; write the numbers",
    "auto": "asks a profiler for the numbers; write the numbers",
    "profiler_config": "asks a profiler for the numbers; write the numbers",
    "url": "names another place",
}


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite that was read."""

    path: str
    """Its file."""
    expectations: tuple[dict[str, Any], ...]
    """`type` and `kwargs` of each, as Great Expectations 1.x names them."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of a suite."""

    problems: tuple[str, ...]
    """One sentence per expectation that was not met."""
    said: str
    """What was judged, for the evidence of a check that passed."""


class _TwiceError(ValueError):
    """A name comes twice in one object."""


def parse(data: bytes, path: str) -> Suite:
    """Read a suite.

    Raises:
        WrongInput: RuleInvalid: no suite, or one that judges nothing. ExpectationUnsupported: it asks for what
            is not done here, by name.
    """
    try:
        whole = json.loads(data.decode("utf-8"), object_pairs_hook=_distinct, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        at = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)[:80]
        _invalid(path, f"is not JSON in UTF-8 ({at})")
    listed = whole.get("expectations") if isinstance(whole, dict) else None
    if not isinstance(listed, list):
        _invalid(path, "is no suite of Great Expectations: it has no list of expectations")
    if not listed:
        _invalid(path, "has no expectation: it judges nothing")
    if len(listed) > EXPECTATIONS_MAX:
        _invalid(path, f"has {len(listed):,} expectations, more than {EXPECTATIONS_MAX:,}")
    if not isinstance(whole.get("suite_parameters") or whole.get("evaluation_parameters") or {}, dict):
        _invalid(path, "has suite parameters that are no object")
    return Suite(path, tuple(_expectation(path, n, one) for n, one in enumerate(listed, start=1)))


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        raise _TwiceError("a name comes twice in one object")
    return out


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _expectation(path: str, number: int, given: Any) -> dict[str, Any]:
    where = f"expectation {number}"
    if not isinstance(given, dict):
        _invalid(path, f"{where} is no object")
    # 1.x says type, 0.18 expectation_type.
    name = given.get("type", given.get("expectation_type"))
    if not isinstance(name, str):
        _invalid(path, f"{where} has no type")
    if name not in KNOWN:
        _unsupported(
            path, f"{where} is {shown(name, 80)}, which is none of the {len(KNOWN)} that judge one table by itself"
        )
    kwargs = given.get("kwargs", {})
    if not isinstance(kwargs, dict):
        _invalid(path, f"{where} ({name}) has kwargs that are no object")
    kept = {k: v for k, v in kwargs.items() if k not in _PASSED_OVER and v is not None}
    for key, value in kept.items():
        if key in _REFUSED and value is not False:
            _unsupported(path, f"{where} ({name}) has {key}: it {_REFUSED[key]}")
        if problem := _not_plain(value):
            _unsupported(path, f"{where} ({name}) has in {shown(key, 40)} {problem}")
    return {"type": name, "kwargs": {k: v for k, v in kept.items() if k not in _REFUSED}}


def _not_plain(value: Any, depth: int = 0) -> str:
    """Say what is not allowed in an argument; empty when all of it is plain."""
    if depth > _DEPTH_MAX:
        return f"more than {_DEPTH_MAX} levels"
    if isinstance(value, dict):
        if "$PARAMETER" in value:
            return "a parameter ($PARAMETER), which has a value only in a run of yours; write the value"
        return next((p for v in value.values() if (p := _not_plain(v, depth + 1))), "")
    if isinstance(value, list):
        return next((p for v in value if (p := _not_plain(v, depth + 1))), "")
    return ""


def judge(frame: Any, suites: Mapping[str, Suite], *, limit_s: float = LIMIT_S) -> dict[str, Judged]:
    """Let Great Expectations judge a table by all suites at once.

    Args:
        frame: a pandas DataFrame numbered from 0.
        suites: the suites, by path.
        limit_s: longest time of it, in seconds.

    Raises:
        WrongInput: ChecksNeedExtra: it is not installed. RuleInvalid or ExpectationUnsupported: it does not accept
            a suite, or took too long. DataInvalid: a column mixes types.
        TryAgain: ChecksFailed: it ended without an answer.
    """
    if not suites:
        return {}
    if importlib.util.find_spec("great_expectations") is None:
        first = shown(min(suites))
        raise WrongInput(
            "ChecksNeedExtra",
            f"{first} is a suite of Great Expectations, which is not installed where the data is checked: install "
            f"it beside Mainspring, pip install 'mainspring[{EXTRA}]', on a cluster into the image of the jobs",
        )
    with tempfile.TemporaryDirectory(prefix="mainspring-checks-") as scratch:
        directory = Path(scratch)
        tables.write_frame(frame, directory / "frame.parquet")
        wanted = {path: list(suite.expectations) for path, suite in suites.items()}
        (directory / "suites.json").write_text(json.dumps(wanted), encoding="utf-8")
        found = _run(directory, limit_s, min(suites))
    return {path: _judged(suite, found, len(frame)) for path, suite in suites.items()}


def _run(directory: Path, limit_s: float, first: str) -> dict[str, Any]:
    """Run the child and read what it found."""
    command = [sys.executable, "-I", str(Path(__file__).with_name("checks_gx_run.py")), str(directory)]
    env = {"PATH": os.defpath, "HOME": str(directory), "LANG": "C.UTF-8", "GX_ANALYTICS_ENABLED": "false"}
    # Its own words go to a file: what it prints is not bounded.
    with (directory / "said").open("wb") as said:
        child = subprocess.Popen(
            command,
            cwd=directory,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            code = child.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise WrongInput(
                "RuleInvalid",
                f"{shown(first)}: Great Expectations has not judged the data within {limit_s:g} s; a regular "
                "expression may take for ever, or the data be too large for it",
            ) from None
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    if code:
        raise TryAgain("ChecksFailed", f"Great Expectations {_how(code)}: {_last(directory / 'said')}")
    found: dict[str, Any] = json.loads((directory / "found.json").read_bytes())
    return found


def _how(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed, as happens when the memory of the step is used up"
    return f"ended with exit code {code}"


def _last(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = file.read().decode("utf-8", "replace").split("\n")
    return next((escape(line.strip())[:200] for line in reversed(lines) if line.strip()), "it said nothing")


def _judged(suite: Suite, found: Mapping[str, Any], rows: int) -> Judged:
    answer, version = found["suites"][suite.path], found["version"]
    if "refused" in answer:
        index, kind, message = answer["refused"]
        name = suite.expectations[index]["type"]
        what = (
            f"expectation {index + 1} ({name}) is not accepted by Great Expectations {version}: {escape(message)}"
        )
        if kind == "ExpectationNotFoundError":
            _unsupported(suite.path, what)
        _invalid(suite.path, what)
    pairs = zip(suite.expectations, answer["results"], strict=True)
    problems = [said for wanted, result in pairs for said in _problem(wanted, result)]
    more = [f"and {len(problems) - SHOWN:,} more of {len(suite.expectations):,} expectations"]
    return Judged(
        tuple(problems[:SHOWN] + (more if len(problems) > SHOWN else [])),
        f"{len(suite.expectations):,} expectations of Great Expectations {version} are met by {rows:,} rows",
    )


def _problem(wanted: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[str]:
    """Say what is wrong with one expectation; nothing when it is met."""
    kwargs, name = wanted["kwargs"], wanted["type"]
    columns = _columns(kwargs)
    what = f"{', '.join(columns)[:120]}: {name}" if columns else name
    if result["error"]:
        yield f"{what} cannot be judged: {escape(result['error'])}"
        return
    if name not in _WITHOUT_VALUES and _is_vacuous(result):
        yield f"{what} has no value to judge in {result.get('element_count', 0):,} rows"
        return
    if result["success"]:
        return
    if "element_count" in result:
        counted = result["element_count"] - result.get("missing_count", 0)
        bad = result.get("unexpected_count", 0)
        share = f"{bad / counted:.2%}" if counted else "all"
        mostly = kwargs.get("mostly")
        most = f", at most {1 - mostly:.2%}" if isinstance(mostly, int | float) and mostly < 1 else ""
        samples = _samples(result, hide=any(private_column(c) for c in columns))
        yield f"{what}{_limits(kwargs)} is not met by {bad:,} of {counted:,} values ({share}{most}{samples})"
    elif result.get("mismatched"):
        yield f"{what} is not met: {escape(result['mismatched'])[:120]}"
    elif result.get("observed", "None") != "None":
        yield f"{what}{_limits(kwargs)} is not met: observed {escape(result['observed'])[:80]}"
    else:
        yield f"{what}{_limits(kwargs)} is not met{_samples(result, '; ')}"


def _is_vacuous(result: Mapping[str, Any]) -> bool:
    if "element_count" in result:
        return bool(result["element_count"] == result.get("missing_count", 0))
    return bool(result["success"]) and result.get("observed") in ("None", "nan")


def _columns(kwargs: Mapping[str, Any]) -> list[str]:
    named = [kwargs[k] for k in ("column", "column_A", "column_B") if isinstance(kwargs.get(k), str)]
    listed = kwargs.get("column_list")
    return named + ([c for c in listed if isinstance(c, str)] if isinstance(listed, list) else [])


def _limits(kwargs: Mapping[str, Any]) -> str:
    """Say the bounds of an expectation: what its other arguments are is in the file."""
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    if low is not None and high is not None:
        return f" {_short(low)} to {_short(high)}"
    if low is not None or high is not None:
        return f" from {_short(low)}" if low is not None else f" up to {_short(high)}"
    return ""


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else escape(str(value))[:40]


def _samples(result: Mapping[str, Any], before: str = "; ", *, hide: bool = False) -> str:
    values = [sample(v, hide=hide) for v in result["samples"]]
    if not values:
        return ""
    rows = result["rows"]
    pairs = zip(values, rows, strict=False)
    return before + ", ".join(f"{v} at row {r:,}" for v, r in pairs) if rows else before + ", ".join(values)


def _invalid(path: str, what: str) -> NoReturn:
    raise WrongInput("RuleInvalid", f"{shown(path)}: {what}")


def _unsupported(path: str, what: str) -> NoReturn:
    raise WrongInput("ExpectationUnsupported", f"{shown(path)}: {what}")
