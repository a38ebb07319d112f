"""Models of XGBoost, LightGBM and ONNX answer as where they were trained; what cannot be read says why."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import lightgbm
import mlflow.lightgbm
import mlflow.onnx
import mlflow.xgboost
import numpy as np
import onnx
import pandas as pd
import pytest
import xgboost
import yaml
from onnx import TensorProto, helper

from controller.clients.errors import Denied
from controller.serving import loader
from tests.support.serving_models import digest_of


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    draw = np.random.default_rng(3)
    return pd.DataFrame({"heat": draw.normal(size=80), "wind": draw.normal(size=80)})


@pytest.fixture(scope="module")
def two(rows):
    return (rows["heat"] + rows["wind"] > 0).astype(int).to_numpy()


@pytest.fixture(scope="module")
def three(rows):
    return np.digitize(rows["heat"], [-0.5, 0.5])


def loaded(directory: Path):
    predictor, _ = loader.verify_and_load(directory, digest_of(directory))
    return predictor


def xgb(labels, **parameters):
    def make(rows, into):
        estimator = (xgboost.XGBRegressor if labels is None else xgboost.XGBClassifier)(
            n_estimators=4, **parameters
        )
        estimator.fit(rows, rows["heat"] * 2 if labels is None else labels)
        estimator.save_model(into)
        return estimator

    return make


def lgb(labels, **parameters):
    def make(rows, into):
        kind = lightgbm.LGBMRegressor if labels is None else lightgbm.LGBMClassifier
        estimator = kind(n_estimators=4, min_child_samples=2, verbose=-1, **parameters)
        estimator.fit(rows, rows["heat"] * 2 if labels is None else labels)
        estimator.booster_.save_model(into)
        return estimator

    return make


MAKERS = {"xgboost": xgb, "lightgbm": lgb}


@pytest.mark.parametrize("name", ["model.ubj", "model.json", "model.txt"])
@pytest.mark.parametrize("task", ["numbers", "two classes", "three classes"])
def test_a_native_file_answers_as_the_estimator_that_wrote_it(name, task, rows, two, three, tmp_path):
    make = lgb if name == "model.txt" else xgb
    labels = {"numbers": None, "two classes": two, "three classes": three}[task]
    estimator = make(labels)(rows, tmp_path / name)
    predictor = loaded(tmp_path)
    assert predictor.predict(rows) == pytest.approx(estimator.predict(rows).tolist(), rel=1e-6)
    assert predictor.columns == ("heat", "wind")
    assert predictor.kinds == {"heat": "number", "wind": "number"}
    found = predictor.scores(rows)
    if labels is None:
        assert found is None
    else:
        assert found is not None
        classes, scores = found
        assert classes == [str(c) for c in estimator.classes_]
        assert np.allclose(scores, estimator.predict_proba(rows), atol=1e-6)
    assert predictor.format == ("lightgbm" if make is lgb else "xgboost")


def test_a_booster_may_name_its_classes(rows, two, tmp_path):
    booster = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(rows, label=two), 4)
    booster.set_attr(classes='["calm", "storm"]')
    booster.save_model(tmp_path / "model.ubj")
    predictor = loaded(tmp_path)
    assert set(predictor.predict(rows)) == {"calm", "storm"}
    found = predictor.scores(rows)
    assert found is not None
    assert found[0] == ["calm", "storm"]


def test_trees_after_the_best_iteration_are_left_out_as_where_it_was_trained(rows, two, tmp_path):
    estimator = xgboost.XGBClassifier(n_estimators=200, early_stopping_rounds=2, learning_rate=1.0)
    estimator.fit(rows[:40], two[:40], eval_set=[(rows[40:], two[40:])], verbose=False)
    estimator.save_model(tmp_path / "model.json")
    assert estimator.best_iteration < estimator.get_booster().num_boosted_rounds() - 1
    found = loaded(tmp_path).scores(rows)
    assert found is not None
    assert np.allclose(found[1], estimator.predict_proba(rows), atol=1e-6)


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm"])
def test_columns_of_text_are_the_categories_of_the_training(kind, rows, two, tmp_path):
    table = rows.assign(city=pd.Series(np.where(rows["heat"] > 0, "Ulm", "Bonn")).astype("category"))
    name = "model.ubj" if kind == "xgboost" else "model.txt"
    options = {"enable_categorical": True} if kind == "xgboost" else {}
    estimator = MAKERS[kind](two, **options)(table, tmp_path / name)
    wanted = estimator.predict(table).tolist()
    as_text = table.assign(city=table["city"].astype(object))
    assert loaded(tmp_path).predict(as_text) == wanted
    one_city = as_text[as_text["city"] == "Ulm"]
    assert loaded(tmp_path).predict(one_city) == [
        w for w, c in zip(wanted, as_text["city"], strict=True) if c == "Ulm"
    ]


def classifier(*, zipmap: bool, strings: bool) -> onnx.ModelProto:
    """Build what converters write: label, and probabilities as a tensor or a list of maps."""
    names = {"classlabels_strings": ["no", "yes"]} if strings else {"classlabels_ints": [0, 1]}
    weights = {"coefficients": [-1.0, 0.0, 1.0, 0.0], "intercepts": [0.0, 0.0], "post_transform": "SOFTMAX"}
    nodes = [helper.make_node("LinearClassifier", ["x"], ["label", "p"], domain="ai.onnx.ml", **weights, **names)]
    key = TensorProto.STRING if strings else TensorProto.INT64
    outputs = [helper.make_tensor_value_info("label", key, [None])]
    if zipmap:
        labels = {"classlabels_strings": ["no", "yes"]} if strings else {"classlabels_int64s": [0, 1]}
        nodes.append(helper.make_node("ZipMap", ["p"], ["probabilities"], domain="ai.onnx.ml", **labels))
        value = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
        kind = helper.make_sequence_type_proto(helper.make_map_type_proto(key, value))
        outputs.append(helper.make_value_info("probabilities", kind))
    else:
        outputs.append(helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, 2]))
    return model(nodes, [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])], outputs)


def model(nodes, inputs, outputs, initializer=(), **metadata) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializer=list(initializer))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    helper.set_model_props(made, metadata)
    return made


@pytest.mark.parametrize("zipmap", [True, False], ids=["probabilities as maps", "probabilities as a tensor"])
@pytest.mark.parametrize("strings", [True, False], ids=["classes are text", "classes are numbers"])
def test_an_onnx_classifier_answers_label_and_probabilities(zipmap, strings, rows, tmp_path):
    made = classifier(zipmap=zipmap, strings=strings)
    helper.set_model_props(made, {"columns": '["heat", "wind"]', "classes": '["no", "yes"]' if strings else ""})
    onnx.save(made, tmp_path / "model.onnx")
    predictor = loaded(tmp_path)
    wanted = np.where(rows["heat"] > 0, "yes" if strings else 1, "no" if strings else 0)
    assert predictor.predict(rows[["wind", "heat"]]) == wanted.tolist()
    found = predictor.scores(rows)
    assert found is not None
    assert found[0] == (["no", "yes"] if strings else ["0", "1"])
    assert np.allclose(np.array(found[1])[:, 1], 1 / (1 + np.exp(-2 * rows["heat"])), atol=1e-5)
    assert predictor.parallel
    assert predictor.columns == ("heat", "wind")


def test_an_onnx_regression_with_one_input_per_column_knows_names_and_kinds(rows, tmp_path):
    inputs = [helper.make_tensor_value_info(n, TensorProto.DOUBLE, [None, 1]) for n in ("heat", "wind")]
    output = helper.make_tensor_value_info("sum", TensorProto.DOUBLE, [None, 1])
    onnx.save(
        model([helper.make_node("Add", ["heat", "wind"], ["sum"])], inputs, [output]), tmp_path / "model.onnx"
    )
    predictor = loaded(tmp_path)
    assert predictor.columns == ("heat", "wind")
    assert predictor.kinds == {"heat": "number", "wind": "number"}
    assert predictor.predict(rows) == pytest.approx((rows["heat"] + rows["wind"]).tolist())
    assert predictor.scores(rows) is None


def test_an_onnx_graph_with_scores_alone_is_told_what_is_expected(rows, tmp_path):
    tensors = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, 2]) for n in ("x", "y")]
    onnx.save(
        model([helper.make_node("Softmax", ["x"], ["y"])], tensors[:1], tensors[1:]), tmp_path / "model.onnx"
    )
    with pytest.raises(Denied, match=r"array of shape \(80, 2\); one value per row is expected"):
        loaded(tmp_path).predict(rows)


def mlflow_xgboost(rows, two, into):
    mlflow.xgboost.save_model(xgb(two)(rows, into.parent / "other.ubj"), into, input_example=rows.head(1))


def mlflow_lightgbm_estimator(rows, two, into):
    mlflow.lightgbm.save_model(lgb(np.where(two, "yes", "no"))(rows, into.parent / "other.txt"), into)


def mlflow_lightgbm_booster(rows, two, into):
    mlflow.lightgbm.save_model(lgb(two)(rows, into.parent / "other.txt").booster_, into)


def mlflow_onnx(rows, two, into):
    mlflow.onnx.save_model(classifier(zipmap=True, strings=False), into)


FLAVORS = {
    "xgboost estimator": mlflow_xgboost,
    "lightgbm estimator": mlflow_lightgbm_estimator,
    "lightgbm booster": mlflow_lightgbm_booster,
    "onnx": mlflow_onnx,
}


@pytest.mark.parametrize("save", FLAVORS.values(), ids=FLAVORS)
def test_mlflow_flavors_are_loaded_from_the_files_that_mlmodel_declares(save, rows, two, tmp_path):
    save(rows, two, tmp_path / "model")
    predictor = loaded(tmp_path)
    assert predictor.format == "mlflow"
    answers = predictor.predict(rows)
    right = [a in (label, ("no", "yes")[label]) for a, label in zip(answers, two, strict=True)]
    assert sum(right) > 50
    assert predictor.scores(rows) is not None


NEWER = [
    (
        "xgboost",
        mlflow_xgboost,
        {"xgb_version": "99.1.0"},
        r"trained with XGBoost 99\.1\.0, and 3\.\d+\.\d+ runs here",
    ),
    (
        "lightgbm",
        mlflow_lightgbm_booster,
        {"lgb_version": "99.1"},
        r"trained with LightGBM 99\.1, and 4\.\d+\.\d+ runs here",
    ),
    (
        "lightgbm",
        mlflow_lightgbm_estimator,
        {"lgb_version": "99.1"},
        r"trained with LightGBM 99\.1, and 4\.\d+\.\d+ runs here",
    ),
]


@pytest.mark.parametrize(
    ("flavor", "save", "change", "said"), NEWER, ids=["xgboost", "lightgbm booster", "lightgbm estimator"]
)
def test_a_file_of_a_newer_release_names_both_versions(flavor, save, change, said, rows, two, tmp_path):
    save(rows, two, tmp_path / "model")
    path = tmp_path / "model" / "MLmodel"
    document = yaml.safe_load(path.read_text())
    document["flavors"][flavor].update(change)
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(Denied, match=said) as caught:
        loaded(tmp_path)
    assert caught.value.reason == "EnvironmentMismatch"


def test_an_xgboost_file_states_its_own_version(rows, two, tmp_path):
    xgb(two)(rows, tmp_path / "model.json")
    assert loaded(tmp_path).packages == {"xgboost": xgboost.__version__}
    text = (tmp_path / "model.json").read_text()
    (tmp_path / "model.json").write_text(text.replace('"version":[3,', '"version":[93,'))
    with pytest.raises(Denied, match=r"trained with XGBoost 93\.") as caught:
        loaded(tmp_path)
    assert caught.value.reason == "EnvironmentMismatch"


def newer_ir(made):
    made.ir_version = 99


def newer_opset(made):
    made.opset_import[0].version = 99


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (newer_ir, r"trained with ONNX IR version 99, and ONNX Runtime \S+, which reads up to \d+, runs here"),
        (
            newer_opset,
            r"trained with ONNX opset 99 of ai\.onnx, and ONNX Runtime \S+, which reads up to \d+, runs here",
        ),
    ],
    ids=["file format", "operators"],
)
def test_an_onnx_file_of_a_newer_release_names_both_versions(change, said, tmp_path):
    made = classifier(zipmap=False, strings=False)
    change(made)
    (tmp_path / "model.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(Denied, match=said) as caught:
        loaded(tmp_path)
    assert caught.value.reason == "EnvironmentMismatch"


def unknown_operator() -> bytes:
    tensors = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, 2]) for n in ("x", "y")]
    made = model([helper.make_node("Mine", ["x"], ["y"], domain="my.ops")], tensors[:1], tensors[1:])
    made.opset_import.append(helper.make_opsetid("my.ops", 1))
    return bytes(made.SerializeToString())


def weights_elsewhere(place: str) -> bytes:
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", place), ("offset", "0"), ("length", "8")):
        entry = weights.external_data.add()
        entry.key, entry.value = key, value
    tensors = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, 2]) for n in ("x", "y")]
    made = model([helper.make_node("Add", ["x", "w"], ["y"])], tensors[:1], tensors[1:], [weights])
    return bytes(made.SerializeToString())


UNREADABLE = [
    ("model.onnx", b"", "cannot be read by ONNX Runtime"),
    ("model.onnx", b"garbage", "cannot be read by ONNX Runtime: Protobuf parsing failed"),
    ("model.onnx", unknown_operator(), r"an operator that ONNX Runtime does not have: .*my\.ops"),
    (
        "model.onnx",
        weights_elsewhere("weights.bin"),
        "keeps its weights elsewhere: .*leave model/ with model.onnx",
    ),
    ("model.onnx", weights_elsewhere("../secret"), "keeps its weights elsewhere: .*escapes"),
    ("model.onnx", weights_elsewhere("/etc/hostname"), "keeps its weights elsewhere: .*Absolute path not allowed"),
    ("model.ubj", b"", "is not a model file of XGBoost"),
    ("model.ubj", b"{garbage", "is not a model file of XGBoost"),
    ("model.json", b"{}", "is not a model file of XGBoost"),
    ("model.json", b"[1, 2]", "is not a model file of XGBoost"),
    ("model.txt", b"", "is not a model file of LightGBM: write it with Booster.save_model"),
    ("model.txt", b"garbage\n", "is not a model file of LightGBM"),
    ("model.txt", b"tree\nversion=v4\n", "is not a model file of LightGBM"),
]


@pytest.mark.parametrize(
    ("name", "data", "said"), UNREADABLE, ids=[f"{n} {i}: {s[:40]}" for i, (n, _, s) in enumerate(UNREADABLE)]
)
def test_a_file_that_cannot_be_read_says_why(name, data, said, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(Denied, match=said) as caught:
        loaded(tmp_path)
    assert caught.value.reason == "ModelNotLoadable"
    assert str(tmp_path) not in caught.value.message
    assert "mainspring-model-" not in caught.value.message
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    ("module", "name", "said"),
    [
        (
            "onnxruntime",
            "model.onnx",
            r"needs ONNX Runtime, .*: install mainspring\[onnx\], or set serving\.image",
        ),
        ("xgboost", "model.ubj", r"needs XGBoost, .*: install mainspring\[xgboost\], or set serving\.image"),
        ("lightgbm", "model.txt", r"needs LightGBM, .*: install mainspring\[lightgbm\], or set serving\.image"),
    ],
)
def test_a_library_that_is_not_installed_is_named_with_the_way_out(module, name, said, tmp_path, monkeypatch):
    (tmp_path / name).write_bytes(b"any")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(Denied, match=said) as caught:
        loaded(tmp_path)
    assert caught.value.reason == "ModelNotLoadable"


def test_two_models_of_different_formats_are_refused_by_name(rows, two, tmp_path):
    xgb(two)(rows, tmp_path / "model.ubj")
    shutil.copy(tmp_path / "model.ubj", tmp_path / "model.json")
    with pytest.raises(Denied, match=r"2 models were left \(model.ubj, model.json\): leave exactly one"):
        loaded(tmp_path)
