"""In CI a figure that was disturbed is measured again; one that is wrong every time stays wrong."""

from __future__ import annotations

import pytest

from benchmarks.check import nearest

RANGES = [(0.5, 1.5), (0.0, 3.0)]


@pytest.mark.parametrize(
    ("runs", "attempts", "found", "measured"),
    [
        ([[1.0, 2.0]], 3, [1.0, 2.0], 1),
        ([[9.0, 2.0], [1.0, 8.0]], 3, [1.0, 2.0], 2),
        ([[9.0, 2.0], [7.0, 2.0], [8.0, 2.0]], 3, [7.0, 2.0], 3),
        ([[0.1, 2.0], [0.3, 2.0], [0.2, 2.0]], 3, [0.3, 2.0], 3),
        ([[9.0, 2.0]], 1, [9.0, 2.0], 1),
    ],
    ids=["inside at once", "each inside once", "too high every time", "too low every time", "outside of CI"],
)
def test_what_lies_outside_is_measured_again(runs, attempts, found, measured, capsys):
    left = list(runs)
    assert nearest(lambda: left.pop(0), RANGES, attempts) == found
    assert len(runs) - len(left) == measured
    assert capsys.readouterr().out.count("measured again") == measured - 1
