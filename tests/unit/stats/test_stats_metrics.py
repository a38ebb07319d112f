"""Every metric against scikit-learn, in closed form, under weights, and where it is undefined."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from controller.api.metrics import METRICS
from controller.stats.metrics import (
    CLASSIFICATION,
    REGRESSION,
    Classification,
    Regression,
    Undefined,
    measure,
    value,
)


def regression(seed=0, n=301):
    rng = np.random.default_rng(seed)
    truth = rng.normal(50, 20, n)
    return Regression(truth, truth + rng.normal(1, 5, n))


def binary(seed=0, n=300, ties=False):
    rng = np.random.default_rng(seed)
    truth = (rng.random(n) < 0.3).astype(np.int64)
    chance = np.clip(0.3 + 0.25 * (truth - 0.3) + rng.normal(0, 0.2, n), 0.001, 0.999)
    chance = np.round(chance, 1 if ties else 9)
    return Classification(truth, (chance > 0.4).astype(np.int64), ("0", "1"), 1, np.stack([1 - chance, chance], 1))


def many(seed=0, n=300):
    rng = np.random.default_rng(seed)
    scores = rng.dirichlet(np.ones(4), n)
    truth = np.array([rng.choice(4, p=p) for p in scores])
    return Classification(truth, scores.argmax(axis=1), ("a", "b", "c", "d"), None, scores)


def resampled(name, rows, counts):
    measured = measure(name, rows)
    assert not isinstance(measured, Undefined), measured.note
    return measured.at(counts)


SKLEARN_REGRESSION = {
    "rmse": sk.root_mean_squared_error,
    "mae": sk.mean_absolute_error,
    "median_ae": sk.median_absolute_error,
    "mape": sk.mean_absolute_percentage_error,
    "r2": sk.r2_score,
    "bias": lambda t, p, sample_weight=None: abs(np.average(p - t, weights=sample_weight)),
}
SKLEARN_LABELS = {
    "accuracy": sk.accuracy_score,
    "balanced_accuracy": sk.balanced_accuracy_score,
    "precision": sk.precision_score,
    "recall": sk.recall_score,
    "f1": sk.f1_score,
}
SKLEARN_SCORES = {
    "roc_auc": sk.roc_auc_score,
    "average_precision": sk.average_precision_score,
    "brier": sk.brier_score_loss,
    "log_loss": sk.log_loss,
}


def test_the_metric_table_and_the_functions_name_the_same_metrics():
    assert {n for n, m in METRICS.items() if m.task == "Regression"} == set(REGRESSION)
    assert {n for n, m in METRICS.items() if m.task == "Classification"} == set(CLASSIFICATION)


@pytest.mark.parametrize("name", REGRESSION)
@pytest.mark.parametrize("n", [2, 300, 301])
def test_metrics_of_numbers_are_those_of_scikit_learn(name, n):
    rows = regression(n=n)
    assert value(name, rows)[0] == pytest.approx(SKLEARN_REGRESSION[name](rows.truth, rows.prediction), rel=1e-9)


@pytest.mark.parametrize("name", SKLEARN_LABELS)
def test_metrics_of_labels_are_those_of_scikit_learn(name):
    rows = binary()
    assert value(name, rows)[0] == pytest.approx(SKLEARN_LABELS[name](rows.truth, rows.prediction), rel=1e-9)


@pytest.mark.parametrize("ties", [False, True], ids=["scores all different", "many equal scores"])
@pytest.mark.parametrize("name", SKLEARN_SCORES)
def test_metrics_of_scores_are_those_of_scikit_learn(name, ties):
    rows = binary(ties=ties)
    chance = np.clip(rows.scores[:, 1], 0, 1)
    assert value(name, rows)[0] == pytest.approx(SKLEARN_SCORES[name](rows.truth, chance), rel=1e-9)


@pytest.mark.parametrize("name", [*SKLEARN_LABELS, *SKLEARN_SCORES])
def test_a_resample_is_the_metric_of_the_repeated_rows(name):
    rows = binary(ties=True)
    rng = np.random.default_rng(1)
    picks = rng.integers(0, 300, (5, 300))
    counts = np.stack([np.bincount(p, minlength=300) for p in picks]).astype(float)
    found = resampled(name, rows, counts)
    for draw, p in zip(found, picks, strict=True):
        if name in SKLEARN_LABELS:
            expected = SKLEARN_LABELS[name](rows.truth[p], rows.prediction[p])
        else:
            expected = SKLEARN_SCORES[name](rows.truth[p], np.clip(rows.scores[p, 1], 0, 1))
        assert draw == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", REGRESSION)
@pytest.mark.parametrize("n", [300, 301])
def test_a_resample_of_numbers_is_the_metric_of_the_repeated_rows(name, n):
    rows = regression(n=n)
    picks = np.random.default_rng(1).integers(0, n, (5, n))
    counts = np.stack([np.bincount(p, minlength=n) for p in picks]).astype(float)
    found = resampled(name, rows, counts)
    for draw, p in zip(found, picks, strict=True):
        assert draw == pytest.approx(SKLEARN_REGRESSION[name](rows.truth[p], rows.prediction[p]), rel=1e-9)


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy"])
def test_labels_of_four_classes_are_measured_as_scikit_learn_does(name):
    rows = many()
    assert value(name, rows)[0] == pytest.approx(SKLEARN_LABELS[name](rows.truth, rows.prediction), rel=1e-9)
    assert value("log_loss", rows)[0] == pytest.approx(sk.log_loss(rows.truth, rows.scores), rel=1e-9)


@pytest.mark.parametrize("name", ["precision", "recall", "f1", "roc_auc", "average_precision", "brier"])
def test_four_classes_without_a_positive_one_are_refused_by_name_not_averaged(name):
    assert value(name, many()) == (None, "needs two classes or columns.positive; there are 4: a, b, c, d")


def test_one_of_four_classes_can_be_the_positive_one():
    rows = many()
    rows = Classification(rows.truth, rows.prediction, rows.classes, 2, rows.scores)
    assert rows.scores is not None
    assert value("f1", rows)[0] == pytest.approx(sk.f1_score(rows.truth == 2, rows.prediction == 2))
    assert value("roc_auc", rows)[0] == pytest.approx(sk.roc_auc_score(rows.truth == 2, rows.scores[:, 2]))


CLOSED_FORMS = [
    ("rmse of errors 3 and 4 is sqrt(12.5)", "rmse", [0, 0], [3, 4], math.sqrt(12.5)),
    ("mae of errors -3 and 4 is 3.5", "mae", [0, 0], [-3, 4], 3.5),
    ("bias is absolute: errors -3 and 1 give 1", "bias", [0, 0], [-3, 1], 1.0),
    ("median of errors 1, 2, 9 is 2", "median_ae", [0, 0, 0], [9, 1, 2], 2.0),
    ("mape of 110 for 100 is a tenth", "mape", [100, 100], [110, 90], 0.1),
    ("r2 of the mean as prediction is 0", "r2", [1, 2, 3], [2, 2, 2], 0.0),
    ("r2 of a bad model is below 0", "r2", [1, 2, 3], [3, 2, 1], -3.0),
    ("r2 keeps its digits far from zero", "r2", [1e9 + 1, 1e9 + 2, 1e9 + 3], [1e9 + 1, 1e9 + 2, 1e9 + 4], 0.5),
]


@pytest.mark.parametrize(
    ("name", "truth", "prediction", "expected"), [c[1:] for c in CLOSED_FORMS], ids=[c[0] for c in CLOSED_FORMS]
)
def test_closed_forms(name, truth, prediction, expected):
    rows = Regression(np.array(truth, float), np.array(prediction, float))
    assert value(name, rows)[0] == pytest.approx(expected, abs=1e-9)


def of(truth, prediction, scores=None):
    chance = None if scores is None else np.stack([1 - np.array(scores), np.array(scores)], 1)
    return Classification(np.array(truth), np.array(prediction), ("no", "yes"), 1, chance)


UNDEFINED = [
    (
        "no positive called: precision is unknown, not 0",
        "precision",
        of([0, 1], [0, 0]),
        "no row was called positive",
    ),
    ("no positive row: recall is unknown", "recall", of([0, 0], [0, 1]), "no row is positive"),
    (
        "no positive at all: f1 is unknown",
        "f1",
        of([0, 0], [0, 0]),
        "no row is positive and none was called positive",
    ),
    (
        "one class only: roc_auc is unknown",
        "roc_auc",
        of([1, 1], [1, 1], [0.1, 0.9]),
        "needs rows that are positive and rows that are not",
    ),
    ("no scores: roc_auc is unknown", "roc_auc", of([0, 1], [0, 1]), "the model gives no class probabilities"),
    (
        "scores of a margin are no probabilities",
        "brier",
        of([0, 1], [0, 1], [-3.0, 7.5]),
        "2 scores are outside 0 to 1 and are no probabilities",
    ),
    (
        "constant target: r2 is unknown",
        "r2",
        Regression(np.ones(5), np.arange(5.0)),
        "the target has the same value in every row",
    ),
    (
        "a target of 0: mape is unknown",
        "mape",
        Regression(np.array([0.0, 2]), np.ones(2)),
        "the target is 0 in 1 of 2 rows",
    ),
    (
        "an overflowing error is no number",
        "rmse",
        Regression(np.zeros(2), np.array([1e200, 1])),
        "the result is not a finite number",
    ),
    ("no rows", "mae", Regression(np.zeros(0), np.zeros(0)), "there are no rows"),
]


@pytest.mark.parametrize(("name", "rows", "why"), [u[1:] for u in UNDEFINED], ids=[u[0] for u in UNDEFINED])
def test_what_is_undefined_has_no_value_and_says_why(name, rows, why):
    assert value(name, rows) == (None, why)


def test_probabilities_that_do_not_add_up_are_refused():
    rows = Classification(np.array([0, 1]), np.array([0, 1]), ("a", "b"), 1, np.array([[0.5, 0.5], [0.9, 0.9]]))
    assert value("log_loss", rows) == (None, "probabilities do not add up to 1 in 1 rows")


def test_log_loss_of_a_certain_mistake_is_finite():
    assert value("log_loss", of([1], [0], [0.0]))[0] == pytest.approx(-math.log(np.finfo(float).eps))


def test_a_class_of_no_truth_is_simply_wrong():
    rows = Classification(np.array([0, 1]), np.array([-1, 1]), ("no", "yes"), 1)
    assert value("accuracy", rows)[0] == 0.5
    assert value("precision", rows)[0] == 1.0


def test_too_many_classes_are_said_to_be_too_many():
    n = 5000
    rows = Classification(np.arange(n), np.arange(n), tuple(map(str, range(n))), None)
    found = measure("balanced_accuracy", rows)
    assert isinstance(found, Undefined)
    assert found.note == "5000 classes in 5000 rows are too many to compute it"
