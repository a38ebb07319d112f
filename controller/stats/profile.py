"""What a column looked like: counts, quantiles, frequent values.  Later drift checks compare with it.

Small by construction, and careful with people: of text only values that several rows share are named, so that an
e-mail address or an identifier never lands in a report.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

QUANTILES: Final = 21
"""Quantiles kept of numbers: 0, 5, …, 100 %."""
FREQUENT: Final = 50
"""Most values of a category that are named."""
SHARED: Final = 5
"""Fewest rows that must share a text for it to be named."""
LONGEST: Final = 100
"""Characters kept of a value."""


def profile(column: Any) -> dict[str, Any]:
    """Profile one column.

    Args:
        column: a pandas Series. Booleans and text are counted, numbers get quantiles, times their ends.

    Returns:
        JSON: `kind` (Numeric, Categorical, Time), `count` of rows, `nulls`. Numeric: mean, std (n - 1), min, max
        and 21 `quantiles` over the finite values, and `infinite` where there are some. Categorical: `distinct`,
        `values` (the 50 most frequent, by count then name), `other` (rows of the rest). Time: min, max, ISO 8601.
    """
    import pandas as pd

    nulls = int(column.isna().sum())
    base: dict[str, Any] = {"count": len(column), "nulls": nulls}
    kind = pd.api.types
    if kind.is_datetime64_any_dtype(column):
        return {"kind": "Time", **base, **_times(column.dropna())}
    if kind.is_numeric_dtype(column) and not kind.is_bool_dtype(column) and not kind.is_complex_dtype(column):
        return {"kind": "Numeric", **base, **_numbers(column.dropna().to_numpy(dtype=np.float64))}
    return {"kind": "Categorical", **base, **_categories(column.dropna(), kind.is_bool_dtype(column))}


def _times(present: Any) -> dict[str, Any]:
    if not len(present):
        return {}
    return {"min": present.min().isoformat(), "max": present.max().isoformat()}


def _numbers(present: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, Any]:
    finite = present[np.isfinite(present)]
    out: dict[str, Any] = {}
    if finite.size < present.size:
        out["infinite"] = int(present.size - finite.size)
    if not finite.size:
        return out
    with np.errstate(over="ignore", invalid="ignore"):
        spread = float(finite.std(ddof=1)) if finite.size > 1 else 0.0
        mean = float(finite.mean())
    out |= {"min": float(finite.min()), "max": float(finite.max())}
    # Both can overflow where every value is finite, and JSON carries no infinity.
    out |= {k: v for k, v in (("mean", mean), ("std", spread)) if np.isfinite(v)}
    out["quantiles"] = [float(q) for q in np.quantile(finite, np.linspace(0, 1, QUANTILES), method="inverted_cdf")]
    return out


def _categories(present: Any, named: bool) -> dict[str, Any]:
    counts: dict[str, int] = {}
    for text, times in present.astype(str).value_counts().items():
        key = str(text)[:LONGEST]
        counts[key] = counts.get(key, 0) + int(times)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    values = {k: n for k, n in ranked[:FREQUENT] if named or n >= SHARED}
    return {"distinct": len(counts), "values": values, "other": sum(counts.values()) - sum(values.values())}
