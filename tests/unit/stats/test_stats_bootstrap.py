"""The paired bootstrap keeps its promise: 95 % means 95 %, also on rows that hang together."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats

from controller.api.metrics import METRICS, QUANTILE_GRID
from controller.stats import bootstrap
from controller.stats.bootstrap import by_group, by_row, by_time, compare
from controller.stats.metrics import CLASSIFICATION, REGRESSION, Classification, Regression

LOW, HIGH = QUANTILE_GRID.index(0.05), QUANTILE_GRID.index(0.95)
HOUR = np.timedelta64(1, "h")
START = np.datetime64("2011-10-01T00:00:00", "ns")


def run(challenger, champion, units, names=("mae",), *, seed=7, resamples=1000):
    higher = {n: METRICS[n].direction == "Higher" for n in names}
    return compare(higher, challenger, champion, units, grid=QUANTILE_GRID, seed=seed, resamples=resamples)


def numbers(error, other) -> tuple[Regression, Regression]:
    """Two models with these errors on a target of zero: mae improvement is mean |other| - mean |error|."""
    return Regression(np.zeros(error.size), error), Regression(np.zeros(error.size), other)


def within_binomial(hits, draws, share=0.95, level=0.999):
    low, high = stats.binom.interval(level, draws, share)
    return low <= hits <= high


def test_a_95_percent_lower_bound_covers_in_95_percent_of_independent_draws():
    rng, draws, hits = np.random.default_rng(11), 400, 0
    for i in range(draws):
        error, other = np.abs(rng.normal(0, 1, 150)), np.abs(rng.normal(0, 1, 150))
        found = run(*numbers(error, other), by_row(150), seed=i, resamples=800)["mae"]
        hits += found.absolute[LOW] <= 0.0
    assert within_binomial(hits, draws), f"{hits} of {draws}"


def correlated(rng, days):
    """Hours of days whose difference between the models is mostly a matter of the day; true improvement 0."""
    day = np.repeat(rng.normal(0, 0.3, days), 24)
    return 2 + rng.normal(0, 0.3, days * 24), 2 + day + rng.normal(0, 0.3, days * 24)


@pytest.mark.parametrize("days", [12, 40])
def test_blocks_of_days_keep_the_promise_on_correlated_hours_and_single_rows_break_it(days):
    rng, draws = np.random.default_rng(5), 400
    times = START + np.arange(days * 24) * HOUR
    by_day, alone = by_time(times), by_row(times.size)
    hits = {"days": 0, "rows": 0}
    for i in range(draws):
        pair = numbers(*correlated(rng, days))
        hits["days"] += run(*pair, by_day, seed=i, resamples=600)["mae"].absolute[LOW] <= 0
        if i < 100:
            hits["rows"] += run(*pair, alone, seed=i, resamples=300)["mae"].absolute[LOW] <= 0
    assert by_day.kind == "days"
    assert within_binomial(hits["days"], draws), f"{hits['days']} of {draws}"
    assert not within_binomial(hits["rows"], 100), f"{hits['rows']} of 100: single rows should fail here"


def test_groups_keep_the_promise_on_rows_of_the_same_group():
    rng, draws, hits = np.random.default_rng(3), 300, 0
    group = np.repeat(np.arange(30), 20)
    for i in range(draws):
        other = 2 + rng.normal(0, 0.3, 30)[group] + rng.normal(0, 0.3, 600)
        pair = numbers(2 + rng.normal(0, 0.3, 600), other)
        hits += run(*pair, by_group(group.astype(str)), seed=i, resamples=600)["mae"].absolute[LOW] <= 0
    assert within_binomial(hits, draws), f"{hits} of {draws}"


def test_the_interval_of_a_mean_difference_is_that_of_a_paired_t_test():
    rng = np.random.default_rng(2)
    error, other = np.abs(rng.normal(1, 0.2, 60)), np.abs(rng.normal(1.2, 0.2, 60))
    found = run(*numbers(error, other), by_row(60), resamples=10_000)["mae"]
    gain = other - error
    sem = gain.std(ddof=1) / np.sqrt(60)
    for p in (LOW, HIGH):
        expected = gain.mean() + stats.t.ppf(QUANTILE_GRID[p], 59) * sem
        assert found.absolute[p] == pytest.approx(expected, abs=0.12 * sem)


def test_few_units_get_the_width_of_student_not_of_a_normal_curve():
    gain = np.linspace(-1, 1, 12)
    found = run(*numbers(np.full(12, 2.0), 2 + gain), by_row(12), resamples=10_000)["mae"]
    sem = gain.std(ddof=1) / np.sqrt(12)
    assert found.absolute[LOW] == pytest.approx(stats.t.ppf(0.05, 11) * sem, abs=0.1 * sem)


def test_positive_is_better_whatever_the_direction():
    rng = np.random.default_rng(0)
    truth = rng.normal(10, 3, 400)
    good, bad = Regression(truth, truth + rng.normal(0, 1, 400)), Regression(truth, truth + rng.normal(0, 2, 400))
    better, worse = run(good, bad, by_row(400), ("rmse", "r2")), run(bad, good, by_row(400), ("rmse", "r2"))
    for name in ("rmse", "r2"):
        assert better[name].absolute[LOW] > 0 > worse[name].absolute[HIGH]
    assert better["rmse"].relative[LOW] == pytest.approx(0.5, abs=0.1)


def test_a_copy_of_the_champion_is_neither_better_nor_worse_in_any_metric():
    rng = np.random.default_rng(0)
    truth = rng.normal(10, 3, 100)
    same = Regression(truth, truth + rng.normal(0, 1, 100))
    for found in run(same, same, by_row(100), tuple(REGRESSION)).values():
        assert set(found.absolute) == {0.0}
    classes = rng.integers(0, 2, 100)
    chance = np.clip(0.3 * classes + rng.random(100) * 0.7, 0, 1)
    rows = Classification(classes, (chance > 0.5).astype(int), ("0", "1"), 1, np.stack([1 - chance, chance], 1))
    for found in run(rows, rows, by_row(100), tuple(CLASSIFICATION)).values():
        assert set(found.absolute) == {0.0}


def test_the_same_seed_gives_the_same_quantiles_and_another_seed_others():
    pair = numbers(*correlated(np.random.default_rng(1), 20))
    first, again, other = (run(*pair, by_row(480), seed=s)["mae"].absolute for s in (1, 1, 2))
    assert first == again != other


def test_quantiles_ascend_at_every_point_of_the_grid():
    found = run(*numbers(*correlated(np.random.default_rng(1), 20)), by_row(480))["mae"]
    assert len(found.absolute) == len(found.relative) == len(QUANTILE_GRID)
    assert list(found.absolute) == sorted(found.absolute)


REFUSALS = [
    ("nine rows say nothing", by_row(9), "only 9 rows: at least 10 are needed to say how sure the difference is"),
    (
        "three groups say nothing however many rows",
        by_group(np.repeat(["a", "b", "c"], 100)),
        "only 3 groups: at least 10 are needed to say how sure the difference is",
    ),
    (
        "all rows at one moment are one block",
        by_time(np.repeat(START, 300)),
        "only 1 blocks of 18 rows: at least 10 are needed to say how sure the difference is",
    ),
]


@pytest.mark.parametrize(("units", "note"), [r[1:] for r in REFUSALS], ids=[r[0] for r in REFUSALS])
def test_too_few_units_have_no_interval(units, note):
    found = run(*numbers(np.ones(units.of_row.size), np.ones(units.of_row.size) * 2), units)["mae"]
    assert (found.absolute, found.relative, found.note) == (None, None, note)


def test_relative_is_unknown_when_the_champion_is_not_positive_and_absolute_stays():
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 1, 200)
    champion = Regression(truth, rng.normal(0, 1, 200))
    found = run(Regression(truth, truth * 0.5), champion, by_row(200), ("r2",))["r2"]
    assert found.absolute[LOW] > 0
    assert found.relative is None


def test_a_metric_that_some_draws_leave_undefined_is_unknown():
    truth = np.zeros(50, dtype=np.int64)
    truth[0] = 1
    rows = Classification(truth, truth, ("0", "1"), 1)
    found = run(rows, rows, by_row(50), ("recall",))["recall"]
    assert found.absolute is None
    assert found.note.startswith("undefined in ")
    assert found.note.endswith("of 1000 resamples of 50 rows: too few")


def test_who_lacks_the_metric_is_named():
    truth = np.tile([0, 1], 20)
    scored = Classification(truth, truth, ("0", "1"), 1, np.stack([1 - truth, truth], 1).astype(float))
    bare = Classification(truth, truth, ("0", "1"), 1)
    found = run(scored, bare, by_row(40), ("roc_auc",))["roc_auc"]
    assert found.note == "champion: the model gives no class probabilities"


BLOCKS = [
    ("hours are drawn by the day", START + np.arange(24 * 30) * HOUR, "days", 30),
    ("one row a day is drawn in runs of rows", START + np.arange(100) * 24 * HOUR, "blocks of 10 rows", 10),
    (
        "a week of minutes is drawn in runs of rows",
        START + np.arange(7 * 24 * 60) * np.timedelta64(1, "m"),
        "blocks of 101 rows",
        100,
    ),
    ("numbers with repeats are drawn by their value", np.repeat(np.arange(20.0), 5), "equal times", 20),
    ("numbers all different are drawn in runs", np.arange(400.0)[::-1], "blocks of 20 rows", 20),
]


@pytest.mark.parametrize(("times", "kind", "count"), [b[1:] for b in BLOCKS], ids=[b[0] for b in BLOCKS])
def test_blocks_of_time(times, kind, count):
    units = by_time(times)
    assert (units.kind, units.count) == (kind, count)


def test_blocks_follow_time_not_the_order_of_rows_and_keep_equal_times_together():
    rng = np.random.default_rng(0)
    times = np.sort(rng.integers(0, 90, 400)).astype(float) / 7
    times[::2] += 1000 + np.arange(200) / 1000
    shuffle = rng.permutation(400)
    units = by_time(times[shuffle])
    for block in range(units.count):
        inside = times[shuffle][units.of_row == block]
        outside = times[shuffle][units.of_row != block]
        assert not np.any((outside >= inside.min()) & (outside <= inside.max()))


def test_missing_times_are_one_more_time():
    times = np.concatenate([START + np.arange(24 * 12) * HOUR, np.repeat(np.datetime64("NaT", "ns"), 3)])
    assert by_time(times).count == 13


def test_very_many_rows_get_fewer_resamples_and_the_note_says_so(monkeypatch):
    monkeypatch.setattr(bootstrap, "ORDERED_CELLS", 300_000)
    rng = np.random.default_rng(0)
    pair = numbers(rng.normal(0, 1, 1000), rng.normal(0, 2, 1000))
    found = run(*pair, by_row(1000), ("median_ae", "mae"))
    assert found["median_ae"].note == "300 instead of 1000 resamples, since there are 1000 rows"
    assert found["mae"].note == ""


def test_all_metrics_of_twenty_thousand_rows_take_seconds_not_minutes():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 20_000)

    def model(noise):
        chance = np.clip(0.4 * truth + 0.3 + rng.normal(0, noise, truth.size), 0, 1)
        return Classification(truth, (chance > 0.5).astype(int), ("0", "1"), 1, np.stack([1 - chance, chance], 1))

    began = time.monotonic()
    found = run(model(0.2), model(0.3), by_row(20_000), tuple(CLASSIFICATION), resamples=200)
    assert time.monotonic() - began < 30
    assert found["roc_auc"].absolute[LOW] > 0
