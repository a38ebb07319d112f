"""How often the champion gate promotes a challenger that is no better: true gain 0, confidence 0.95.

`python -m benchmarks.champion_gate --draws 2000`.  Judged by the gates themselves, on evidence as the evaluator
makes it, for rows that know nothing of each other, rows of one day alike, rows of one group alike.  The promise is
at most 5 %; beside each rate stands its 95 % interval, and, last, what drawing single rows would have done.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from scipy import stats

from controller.api.gates import Gate
from controller.api.metrics import QUANTILE_GRID
from controller.api.modelrevision import Evidence
from controller.plan import gates
from controller.stats import bootstrap
from controller.stats.metrics import Regression

GATE = Gate.model_validate({"name": "better", "metric": "mae", "champion": {"margin": 0, "confidence": 0.95}})
CHAMPION = "sha256:" + "c" * 64
ROWS_OF_A_UNIT = 8
UNITS = 40
ROWS = UNITS * ROWS_OF_A_UNIT

Draw = tuple[Regression, Regression]


def independent(rng: np.random.Generator) -> Draw:
    """Two models whose errors have one distribution, row by row."""
    truth = rng.normal(size=ROWS)
    one, two = (Regression(truth, truth + rng.normal(size=ROWS)) for _ in range(2))
    return one, two


def alike(rng: np.random.Generator) -> Draw:
    """The same, but the errors of a unit go up and down together."""
    truth = rng.normal(size=ROWS)

    def errors() -> np.ndarray:
        together = np.repeat(rng.normal(size=UNITS) * 1.5, ROWS_OF_A_UNIT)
        return together + rng.normal(size=ROWS) * 0.5

    return Regression(truth, truth + errors()), Regression(truth, truth + errors())


DAYS = np.repeat(np.arange(UNITS), ROWS_OF_A_UNIT).astype("datetime64[D]")
GROUPS = np.repeat([f"g{n}" for n in range(UNITS)], ROWS_OF_A_UNIT)
CASES: dict[str, tuple[Callable[[np.random.Generator], Draw], bootstrap.Units]] = {
    "independent rows": (independent, bootstrap.by_row(ROWS)),
    "rows alike in time": (alike, bootstrap.by_time(DAYS)),
    "grouped rows": (alike, bootstrap.by_group(GROUPS)),
    "alike, drawn row by row": (alike, bootstrap.by_row(ROWS)),
}


def promoted(draw: Draw, units: bootstrap.Units, seed: int) -> bool:
    """Judge one challenger."""
    champion, challenger = draw
    found = bootstrap.compare(
        {"mae": False}, challenger, champion, units, grid=QUANTILE_GRID, seed=seed, resamples=1000
    )["mae"]
    values = [float(np.mean(np.abs(m.truth - m.prediction))) for m in (challenger, champion)]
    metric = {"name": "mae", "value": values[0], "champion": values[1], "absolute": found.absolute}
    evidence = Evidence.model_validate(
        {
            "artifact": "a",
            "holdout": "h",
            "champion": CHAMPION,
            "runtime": "r",
            "checksHash": "",
            "task": "Regression",
            "holdoutRows": ROWS,
            "trainingRows": ROWS,
            "metrics": [metric],
            "report": "",
        }
    )
    (verdict,) = gates.judge([GATE], evidence, None, CHAMPION)
    return verdict.outcome == "Passed"


def measure(name: str, draws: int) -> int:
    """Count how many of so many challengers are promoted; seeded."""
    make, units = CASES[name]
    return sum(promoted(make(np.random.default_rng([7, n])), units, n) for n in range(draws))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000)
    draws = parser.parse_args().draws
    print(f"promoted of {draws} challengers with a true gain of 0, at confidence 0.95")
    for case in CASES:
        count = measure(case, draws)
        low, high = stats.binomtest(count, draws).proportion_ci(0.95)
        print(f"{case:24} {count / draws:6.1%}   (95 % interval {low:.1%} to {high:.1%})")
