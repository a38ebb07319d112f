"""A faster form serves only where it predicted the hold-out as the model does; the rest goes to the model."""

from __future__ import annotations

import base64
import json

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from controller.api.reports import PredictTask
from controller.serving import faster
from controller.serving.engine import Engine
from controller.serving.faster import NoFasterForm
from controller.serving.pool import Pool
from controller.serving.predict import predict
from controller.serving.predictor import Predictor
from tests.support.serving_models import as_artifact

ROWS = np.random.default_rng(3).normal(size=(400, 5))
NUMBERS = ROWS @ [3.0, -2.0, 0.5, 0.0, 1.0] + 10
CLASSES = np.where(NUMBERS > 10, "yes", "no")
FRAME = pd.DataFrame(ROWS, columns=list("abcde"))

MODELS = {
    "linear classes": (make_pipeline(StandardScaler(), LogisticRegression()), CLASSES),
    "linear numbers": (make_pipeline(StandardScaler(), Ridge()), NUMBERS),
    "boosted classes": (GradientBoostingClassifier(n_estimators=20), CLASSES),
    "forest of three classes": (RandomForestClassifier(20), np.digitize(NUMBERS, [8, 12])),
    "forest of numbers": (RandomForestRegressor(20), NUMBERS),
}


def fitted(name):
    model, target = MODELS[name]
    return model.fit(FRAME, target)


def served(model, form=True):
    """An engine that was proven with ten rows, as a server has it."""
    predictor = Predictor(model, kind="joblib", kinds=dict.fromkeys("abcde", "number"))
    if form:
        predictor.form = predictor.faster()
    engine = Engine(predictor, Pool(parallel=True, queue=8, timeout_s=10), predictor.kinds)
    engine.prove(FRAME.head(10))
    return predictor, engine


def body(rows):
    data = [[None if np.isnan(v) else v for v in row] for row in rows.tolist()]
    return json.dumps({"dataframe_split": {"columns": list("abcde"), "data": data}}).encode()


@pytest.mark.parametrize("name", MODELS)
def test_the_predict_step_compares_it_on_the_whole_holdout(name, tmp_path):
    model = as_artifact(fitted(name), tmp_path / "model") / "model"
    features = tmp_path / "features"
    features.mkdir()
    FRAME.to_parquet(features / "features.parquet")
    facts = predict(PredictTask(digest=None, scores=True, probe_requests=0), model, features, tmp_path / "out")
    assert facts.form is not None
    assert facts.form.name.startswith("ONNX float"), facts.form.why
    assert 350 <= facts.form.rows <= 400
    assert facts.form.difference <= facts.form.tolerance == 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_a_server_with_it_answers_as_one_without(name):
    model = fitted(name)
    quick, engine = served(model)
    _, slow = served(model, form=False)
    assert quick.form is not None
    for rows in (ROWS[:1], ROWS[7:107]):
        found, _ = engine.ask(engine.read_json(body(rows)))
        expected, _ = slow.ask(slow.read_json(body(rows)))
        assert faster.alike(found, expected)


def test_what_it_must_not_decide_goes_to_the_model_itself():
    quick, _ = served(fitted("linear classes"))
    assert quick.form.answer(ROWS[:1]) is not None
    missing = ROWS[:2].copy()
    missing[1, 3] = np.nan
    assert quick.form.answer(missing) is None
    assert quick.form.answer(np.full((1, 5), np.inf)) is None
    single, _ = served(fitted("boosted classes"))
    assert single.form.answer(np.full((1, 5), 1e308)) is None, "float32 has no such number"
    line = quick._model.decision_function(FRAME)
    nearest = FRAME.to_numpy()[np.abs(line).argmin()]
    step = quick._model[-1].coef_[0] / quick._model[0].scale_
    on_the_edge = nearest - step * (quick._model.decision_function([nearest])[0] / (step @ step))
    assert quick.form.answer(on_the_edge.reshape(1, -1)) is None, "two classes are as likely as each other"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        pytest.param(
            make_pipeline(
                ColumnTransformer([("one", OneHotEncoder(), ["a"])], remainder="passthrough"), Ridge()
            ).fit(FRAME.round(), NUMBERS),
            "only scikit-learn models of columns of numbers",
            id="columns-of-words",
        ),
        pytest.param(
            HistGradientBoostingClassifier(max_iter=3).fit(FRAME, CLASSES), "it cannot be converted", id="unknown"
        ),
        pytest.param(object(), "only scikit-learn models of columns of numbers", id="no-estimator"),
    ],
)
def test_where_there_is_none_it_says_why(model, said):
    with pytest.raises(NoFasterForm, match=said):
        faster.form_of(model)


def test_trees_without_end_are_not_converted(monkeypatch):
    monkeypatch.setattr(faster, "NODES_MAX", 50)
    with pytest.raises(NoFasterForm, match=r"its trees have [\d,]+ nodes, more than the 50 that are converted"):
        faster.form_of(fitted("forest of numbers"))


@pytest.mark.parametrize(
    ("own", "given", "why"),
    [
        (["no", "yes"], ["no", "no"], "predicts 'no' for row 1 of the hold-out, the model 'yes'"),
        ([1.0, 2.0], [1.0, 2.001], "for row 1 of the hold-out, the model 2.0: 0.0005 apart, 1e-05 is allowed"),
        ([0, 1], [0, 0], "predicts 0 for row 1 of the hold-out, the model 1"),
    ],
)
def test_one_other_prediction_is_enough_to_leave_it(own, given, why):
    found = faster.compared("ONNX float64", own, None, given, None, [0, 1])
    assert found.name == ""
    assert why in found.why


def test_probabilities_count_too():
    found = faster.compared("ONNX", ["a"], [[0.7, 0.3]], ["a"], [[0.6, 0.4]], [0])
    assert (found.name, round(found.difference, 3)) == ("", 0.1)


def test_a_form_that_decides_nothing_proves_nothing():
    found = faster.compared("ONNX float64", ["a"], None, [], None, [])
    assert (found.name, found.why) == ("", "ONNX float64 would have decided no row of the hold-out")


def test_a_server_drops_it_when_its_sample_says_otherwise(caplog):
    model, other = fitted("linear numbers"), make_pipeline(StandardScaler(), Ridge()).fit(FRAME, NUMBERS + 5)
    predictor = Predictor(model, kind="joblib", kinds=dict.fromkeys("abcde", "number"))
    predictor.form = faster.form_of(other)
    engine = Engine(predictor, Pool(parallel=True, queue=8, timeout_s=10), predictor.kinds)
    engine.prove(FRAME.head(10))
    assert predictor.form is None
    assert engine.arrays
    assert "ONNX float64 does not predict the sample as the model does; it is not used" in caplog.text


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ({"predicate": {"mainspring_record": {"evidence": {"form": {"name": "ONNX float32"}}}}}, "ONNX float32"),
        ({"predicate": {"mainspring_record": {"evidence": {}}}}, ""),
        ({"predicate": []}, ""),
    ],
)
def test_the_lineage_says_which_form_is_proven(statement, name, tmp_path):
    path = tmp_path / "lineage.json"
    payload = base64.b64encode(json.dumps(statement).encode()).decode()
    path.write_text(json.dumps({"payload": payload}))
    assert faster.proven(path) == name
    assert faster.proven(tmp_path / "absent.json") == ""
