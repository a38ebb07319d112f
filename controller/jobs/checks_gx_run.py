"""The child that imports Great Expectations: a suite and a table in a directory, what it found in another file.

    python -I checks_gx_run.py DIRECTORY      # suites.json and frame.parquet in, found.json out

Great Expectations judges; this only builds its suite from plain values and writes plain values of its results.  It
imports nothing of ours, so that the 35 packages and the 6 seconds of its import stay out of every other process,
and it is given no secret and no address.  It never decides whether a check passed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

SAMPLES: Final = 3
"""Values that are told of an expectation that failed."""
TEXT_MAX: Final = 200
"""Characters of one text that is handed back."""


def main(directory: Path) -> None:
    """Judge every suite of `suites.json` (name → list of expectations) and write `found.json`.

    It holds `version`, and `suites`: name → either `refused` (an index and what Great Expectations says against
    the expectation there) or `results`, one per expectation in their order.
    """
    import pandas as pd
    from great_expectations import __version__, get_context

    frame = pd.read_parquet(directory / "frame.parquet")
    context = get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("mainspring").add_dataframe_asset("data")
    whole = asset.add_batch_definition_whole_dataframe("whole")
    batch = whole.get_batch(batch_parameters={"dataframe": frame})
    suites = json.loads((directory / "suites.json").read_bytes())
    found = {name: _judge(batch, name, wanted) for name, wanted in suites.items()}
    text = json.dumps({"version": __version__, "suites": found}, allow_nan=False)
    (directory / "found.json").write_text(text, encoding="utf-8")


def _judge(batch: Any, name: str, wanted: list[dict[str, Any]]) -> dict[str, Any]:
    from great_expectations.core import ExpectationSuite
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    for index, one in enumerate(wanted):
        try:
            ExpectationConfiguration(type=one["type"], kwargs=one["kwargs"]).to_domain_obj()
        except Exception as error:  # noqa: BLE001  # whatever it is, it is said with the expectation's place
            return {"refused": [index, type(error).__name__, _said_against(error)]}
    numbered = [{**one, "meta": {"mainspring": index}} for index, one in enumerate(wanted)]
    suite = ExpectationSuite(name=name, expectations=numbered)
    told = batch.validate(suite, result_format={"result_format": "SUMMARY", "partial_unexpected_count": SAMPLES})
    results: list[Any] = [None] * len(wanted)
    for result in told.results:
        results[result.expectation_config.meta["mainspring"]] = _plain(result)
    return {"results": results}


def _said_against(error: Exception) -> str:
    """Say what is wrong with an expectation in one line: pydantic's first finding, or the error's first line."""
    errors = getattr(error, "errors", None)
    if callable(errors):
        first = errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "__root__")
        return f"{where}: {first['msg']}"[:TEXT_MAX] if where else str(first["msg"])[:TEXT_MAX]
    return _line(str(error))


def _plain(result: Any) -> dict[str, Any]:
    """Keep of a result what a person needs, as plain values of bounded size."""
    found = result.result or {}
    out: dict[str, Any] = {"success": bool(result.success), "error": _error(result.exception_info)}
    for key in ("element_count", "missing_count", "unexpected_count"):
        if isinstance(found.get(key), int):
            out[key] = found[key]
    if "observed_value" in found:
        out["observed"] = _text(found["observed_value"])
    details = found.get("details")
    if isinstance(details, dict) and "mismatched" in details:
        out["mismatched"] = _text(details["mismatched"])
    samples = list(found.get("partial_unexpected_list") or [])[:SAMPLES]
    rows = list(found.get("partial_unexpected_index_list") or [])[:SAMPLES]
    out["samples"] = [_text(value) for value in samples]
    out["rows"] = [int(row) + 1 for row in rows] if all(hasattr(r, "__index__") for r in rows) else []
    return out


def _error(info: Any) -> str:
    """Return the first error that judging raised, empty when there was none."""
    if not isinstance(info, dict):
        return ""
    parts = [info] if "raised_exception" in info else [v for v in info.values() if isinstance(v, dict)]
    return next((_line(str(p["exception_message"])) for p in parts if p.get("exception_message")), "")


def _line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[0] if lines else "an error without words")[:TEXT_MAX]


def _text(value: Any) -> str:
    """Write a value as a person would read it: numbers in short, texts in quotes, at most 200 characters."""
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_text(v) for v in value[:20])}]"[:TEXT_MAX]
    if isinstance(value, dict):
        return ", ".join(f"{k}: {_text(v)}" for k, v in list(value.items())[:20])[:TEXT_MAX]
    return (repr(value) if isinstance(value, str) else str(value))[:TEXT_MAX]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
