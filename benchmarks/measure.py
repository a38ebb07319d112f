"""How everything here is measured: side by side in one run, interleaved, medians; never against a stored number.

A figure alone says more about the machine than about the code.  So each round runs every subject
once, in turn, and the table shows each as a multiple of something that everybody has.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping


def interleaved(subjects: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Run each subject once per round, in turn, after one round that does not count; seconds per run."""
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(rounds + 1):
        for name, run in subjects.items():
            gc.collect()
            started = time.perf_counter()
            run()
            if number:
                times[name].append(time.perf_counter() - started)
    return times


def table(title: str, times: Mapping[str, list[float]], baselines: list[str], unit: str = "ms") -> str:
    """Write medians, the middle half, and the ratio of medians to each baseline."""
    scale = {"s": 1.0, "ms": 1e3, "us": 1e6}[unit]
    head = ["", f"median {unit}", "middle half", *(f"x {b}" for b in baselines)]
    rows = [head]
    for name, all_of_it in times.items():
        low, median, high = statistics.quantiles(all_of_it, n=4)
        ratios = [f"{median / statistics.median(times[b]):.2f}" for b in baselines]
        rows.append([name, f"{median * scale:.1f}", f"{low * scale:.1f} to {high * scale:.1f}", *ratios])
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = [title]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
