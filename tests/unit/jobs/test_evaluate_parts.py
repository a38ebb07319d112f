"""What `evaluate` measures besides metrics on all rows: baselines, slices, groups, and what the training left."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference
from sklearn.dummy import DummyClassifier, DummyRegressor

from controller.jobs.fetch_target import target_facts
from tests.unit.jobs.test_evaluate import ROWS, World


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Build a hold-out with two classes, by country and gender."""
    world: Any = World(tmp_path, monkeypatch)
    rng = np.random.default_rng(3)
    world.target = pd.Series(np.where(rng.random(ROWS) < 0.4, "yes", "no"))
    world.country = pd.Series(rng.choice(["DE", "FR", "LU"], ROWS, p=[0.6, 0.38, 0.02]))
    world.gender = pd.Series(rng.choice(["f", "m"], ROWS)).where(rng.random(ROWS) > 0.01)
    world.task |= {"holdout": {"by": "Random"}, "columns": {"target": "y"}}
    world.training = pd.Series(np.where(rng.random(1920) < 0.3, "yes", "no"))
    facts = target_facts(pd.DataFrame({"y": world.training}), "y", range(1920))
    assert facts is not None
    world.fetched(target=facts.model_dump(by_alias=True))
    features = pd.DataFrame({"country": world.country, "gender": world.gender, "time": world.time.astype(str)})
    features.to_parquet(world.paths.features / "features.parquet")
    world.predicted(noisy(world, 0.1))
    return world


def noisy(world, share, seed=1):
    flipped = np.random.default_rng(seed).random(ROWS) < share
    return np.where(flipped, np.where(world.target == "yes", "no", "yes"), world.target)


def asked(world, **measures):
    world.task["measures"] = {"hash": "v1:asked", **measures}


def test_baselines_are_what_a_dummy_fitted_on_the_training_labels_reaches(world):
    assert world.run() == 0
    found = {b.dummy: b.values for b in world.report.evidence.baselines}
    assert set(found) == {"MostFrequent", "Prior"}
    rows = np.zeros((ROWS, 1))
    for dummy, strategy in (("MostFrequent", "most_frequent"), ("Prior", "prior")):
        model = DummyClassifier(strategy=strategy).fit(np.zeros((1920, 1)), world.training)
        said, scores = model.predict(rows), model.predict_proba(rows)
        assert found[dummy]["accuracy"] == pytest.approx(reference.accuracy_score(world.target, said))
        assert found[dummy]["recall"] == pytest.approx(reference.recall_score(world.target, said, pos_label="yes"))
        truth = (world.target == "yes").astype(int)
        assert found[dummy]["log_loss"] == pytest.approx(reference.log_loss(truth, scores))
        assert found[dummy]["roc_auc"] == 0.5
        assert found[dummy]["brier"] == pytest.approx(np.mean((scores[:, 1] - truth) ** 2))
    assert "precision" not in found["MostFrequent"], "nothing was called positive: there is no precision"


def test_baselines_of_numbers_are_mean_and_median_of_the_training_labels(tmp_path, monkeypatch):
    world = World(tmp_path, monkeypatch)
    training = pd.Series(np.random.default_rng(0).gamma(2, 50, 1920))
    facts = target_facts(pd.DataFrame({"y": training}), "y", range(1920))
    assert facts is not None
    world.fetched(target=facts.model_dump(by_alias=True))
    world.predicted(world.noisy(5))
    assert world.run() == 0
    found = {b.dummy: b.values for b in world.report.evidence.baselines}
    for dummy in ("Mean", "Median"):
        model = DummyRegressor(strategy=dummy.lower()).fit(np.zeros((1920, 1)), training)
        said = model.predict(np.zeros((ROWS, 1)))
        assert found[dummy]["rmse"] == pytest.approx(reference.root_mean_squared_error(world.target, said))
        assert found[dummy]["r2"] == pytest.approx(reference.r2_score(world.target, said))


def test_a_fetch_of_before_leaves_a_baseline_without_values_and_a_reason(world):
    world.fetched()
    assert world.run() == 0
    assert [(b.values, bool(b.note)) for b in world.report.evidence.baselines] == [({}, True)] * 2


def test_every_slice_is_measured_with_both_models_on_its_rows(world):
    world.with_champion(noisy(world, 0.3, seed=2))
    asked(world, slices=[{"metric": "recall", "column": "country"}])
    assert world.run() == 0
    (found,) = world.report.evidence.slices
    sizes = world.country.value_counts()
    assert [(s.value, s.rows) for s in found.table] == [(v, sizes[v]) for v in ("DE", "FR", "LU")]
    here = world.country == "DE"
    said = noisy(world, 0.1)
    want = reference.recall_score(world.target[here], said[here], pos_label="yes")
    assert found.table[0].metric == pytest.approx(want)
    assert (
        found.table[0].absolute[0] < found.table[0].metric - found.table[0].champion < found.table[0].absolute[-1]
    )
    assert found.table[2].absolute is None, "eight rows cannot say how sure they are"
    assert world.report.evidence.measures == "v1:asked"


def test_many_values_are_bounded_and_the_rest_is_counted(world):
    world.country = pd.Series([f"c{i % 240}" for i in range(ROWS)])
    features = pd.DataFrame({"country": world.country, "time": world.time.astype(str)})
    features.to_parquet(world.paths.features / "features.parquet")
    asked(world, slices=[{"metric": "recall", "column": "country"}], groups=["country"])
    assert world.run() == 0
    found, groups = world.report.evidence.slices[0], world.report.evidence.groups[0]
    assert (len(found.table), found.left_out.count, found.left_out.rows, found.left_out.most) == (100, 140, 280, 2)
    assert (len(groups.table), groups.left_out.count) == (50, 190)


def test_groups_are_counted_and_missing_values_are_a_group(world):
    asked(world, groups=["gender"])
    assert world.run() == 0
    (found,) = world.report.evidence.groups
    said = noisy(world, 0.1)
    here = (world.gender == "f").to_numpy()
    one = next(g for g in found.table if g.value == "f")
    assert (one.rows, one.positive) == (here.sum(), (world.target[here] == "yes").sum())
    assert (one.selected, one.true_positive) == (
        (said[here] == "yes").sum(),
        ((said == "yes") & (world.target == "yes").to_numpy() & here).sum(),
    )
    assert found.table[-1].value == ""
    assert sum(g.rows for g in found.table) == ROWS


@pytest.mark.parametrize("kind", ["slices", "groups"])
def test_a_column_that_is_not_there_is_told_and_fails_no_step(world, kind):
    asked(world, **{kind: [{"metric": "recall", "column": "region"}] if kind == "slices" else ["region"]})
    assert world.run() == 0
    (found,) = getattr(world.report.evidence, kind)
    assert found.note == "the hold-out has no column region"


def test_the_trainers_numbers_are_kept_apart_from_ours(world):
    (world.paths.output / "metrics.json").write_text(json.dumps({"recall": 1.0, "odd": "0.91"}))
    assert world.run() == 0
    evidence = world.report.evidence
    assert evidence.trainer == {"recall": 1.0}
    assert (
        evidence.trainer_note
        == "metrics.json: 1 entries were left out: not a finite number, an unusual name, or beyond 200"
    )
    assert world.metric("recall").value < 1


def test_a_model_that_is_measured_again_keeps_what_its_training_had_left(world):
    known = {"scans": [{"path": "scan.sarif", "format": "Grype", "counts": {"Low": 2}}], "trainer": {"loss": 0.1}}
    world.task["known"] = known
    asked(world, scans=["scan.sarif", "other.json"])
    assert world.run() == 0
    first, second = world.report.evidence.scans
    assert (first.format, first.counts) == ("Grype", {"Low": 2})
    assert "train again" in second.note
    assert world.report.evidence.trainer == {"loss": 0.1}
