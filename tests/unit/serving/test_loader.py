"""Only the verified bytes are loaded, only by our own readers, and what cannot be loaded says why."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import joblib
import pytest
import skops.io
import yaml

from controller.clients.errors import Denied, NotFound
from controller.serving import loader
from tests.corpus import standing
from tests.support.serving_models import FORMATS, as_artifact, digest_of


class Marker:
    """Unpickling this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


class Foreign:
    """A type of nobody's library."""

    def predict(self, rows):
        return [0] * len(rows)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_model_of_every_format_predicts_what_it_predicted_before(kind, saved, pipeline, table):
    predictor, files = loader.verify_and_load(saved[kind], digest_of(saved[kind]))
    assert predictor.predict(table) == pipeline.predict(table).tolist()
    found = predictor.scores(table)
    assert found is not None
    classes, scores = found
    assert classes == ["no", "yes"]
    assert scores == pipeline.predict_proba(table).tolist()
    assert predictor.columns == ("age", "income", "city")
    assert predictor.packages["scikit-learn"] == "1.9.1"
    assert files


@pytest.mark.parametrize("kind", FORMATS)
def test_extra_columns_and_another_order_change_nothing(kind, saved, pipeline, table):
    predictor, _ = loader.verify_and_load(saved[kind], digest_of(saved[kind]))
    shuffled = table.assign(extra=1)[["city", "extra", "income", "age"]]
    assert predictor.predict(shuffled) == pipeline.predict(table).tolist()


def test_a_missing_column_is_named(saved, table):
    predictor, _ = loader.verify_and_load(saved["joblib"], digest_of(saved["joblib"]))
    with pytest.raises(Denied, match="1 of the 3 columns that the model needs are missing: 'income'"):
        predictor.predict(table.drop(columns="income"))


def test_a_model_without_column_names_or_scores_takes_the_table_as_it_is(tmp_path, regression, table):
    where = as_artifact(regression, tmp_path)
    predictor, _ = loader.verify_and_load(where, digest_of(where))
    assert predictor.columns is None
    assert predictor.features == 1
    assert predictor.scores(table[["age"]]) is None
    assert len(predictor.predict(table[["age"]])) == len(table)


def test_a_hostile_pickle_whose_digest_differs_never_runs(tmp_path):
    marker = tmp_path / "ran"
    where = as_artifact(Marker(marker), tmp_path / "a")
    with pytest.raises(Denied) as caught:
        loader.verify_and_load(where, "sha256:" + "0" * 64)
    assert caught.value.reason == "ManifestMismatch"
    assert not marker.exists()
    with pytest.raises(Denied, match="no predict method"):
        loader.verify_and_load(where, digest_of(where))
    assert marker.exists(), "the pickle was harmless: this test would prove nothing"


@pytest.mark.parametrize("kind", FORMATS)
def test_one_flipped_byte_in_any_file_is_refused(kind, saved, tmp_path):
    digest = digest_of(saved[kind])
    for path in sorted(p for p in saved[kind].rglob("*") if p.is_file()):
        copy = tmp_path / path.name
        shutil.copytree(saved[kind], copy)
        victim = copy / path.relative_to(saved[kind])
        data = bytearray(victim.read_bytes())
        data[len(data) // 2] ^= 1
        victim.write_bytes(bytes(data))
        with pytest.raises(Denied) as caught:
            loader.verify_and_load(copy, digest)
        assert caught.value.reason == "ManifestMismatch", path.name


def test_an_added_file_or_link_is_refused(saved, tmp_path):
    digest = digest_of(saved["mlflow-cloudpickle"])
    copy = tmp_path / "a"
    shutil.copytree(saved["mlflow-cloudpickle"], copy)
    (copy / "model" / "sitecustomize.py").write_text("")
    with pytest.raises(Denied, match="files have digest"):
        loader.verify_and_load(copy, digest)
    (copy / "model" / "sitecustomize.py").unlink()
    (copy / "model" / "link").symlink_to("MLmodel")
    with pytest.raises(Denied, match="is a link"):
        loader.verify_and_load(copy, digest)


def test_the_original_may_change_after_verification(saved, table, tmp_path):
    copy = tmp_path / "a"
    shutil.copytree(saved["joblib"], copy)
    predictor, _ = loader.verify_and_load(copy, digest_of(copy))
    (copy / "model.joblib").write_bytes(b"other")
    assert len(predictor.predict(table)) == len(table)


def mlmodel(change):
    def apply(root: Path) -> None:
        path = root / "MLmodel"
        document = yaml.safe_load(path.read_text())
        change(document)
        path.write_text(yaml.safe_dump(document))

    return apply


def sklearn_says(**fields):
    return mlmodel(lambda d: d["flavors"]["sklearn"].update(fields))


def says(text: str):
    return lambda root: (root / "MLmodel").write_text(text)


def plant(root: Path) -> None:
    marker = root.parent.parent / "ran"
    (root / "code").mkdir()
    (root / "code" / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    mlmodel(lambda d: d["flavors"]["python_function"].update(loader_module="evil", code="code"))(root)


BAD_MLMODELS = [
    ("A04 model path that leaves the directory", sklearn_says(pickled_model="../x"), "not one of the artifact's"),
    ("A04 model path that is absolute", sklearn_says(pickled_model="/etc/passwd"), "not one of the artifact's"),
    ("A04 unknown serialization", sklearn_says(serialization_format="dill"), "known are joblib, pickle"),
    ("A04 another flavour only", mlmodel(lambda d: d["flavors"].pop("sklearn")), "flavors python_function, not"),
    ("A04 a YAML tag", says("!!python/object/apply:os.system ['true']"), "not a YAML file"),
    ("A04 no mapping", says("- 1"), "not a YAML file"),
    ("A04 bytes that are no text", lambda r: (r / "MLmodel").write_bytes(b"\xff\xfe"), "not a YAML file"),
    ("A04 a file of 2 MB", says("#" * 2_000_000), "more than 1,048,576"),
    ("flavors is a number", says("flavors: 3"), "not a YAML file"),
    ("sklearn is a list", says("flavors: {sklearn: [1]}"), "not a YAML file"),
]


@pytest.mark.parametrize(("change", "said"), [b[1:] for b in BAD_MLMODELS], ids=[b[0] for b in BAD_MLMODELS])
def test_a_bad_mlmodel_is_refused_even_when_its_digest_is_right(saved, tmp_path, change, said):
    copy = tmp_path / "a"
    shutil.copytree(saved["mlflow-cloudpickle"], copy)
    change(copy / "model")
    with pytest.raises(Denied, match=said) as caught:
        loader.verify_and_load(copy, digest_of(copy))
    assert caught.value.reason == "ModelNotLoadable"


def test_a_loader_and_code_that_mlmodel_names_are_never_imported(saved, tmp_path, table):
    copy = tmp_path / "a"
    shutil.copytree(saved["mlflow-cloudpickle"], copy)
    plant(copy / "model")
    predictor, _ = loader.verify_and_load(copy, digest_of(copy))
    assert len(predictor.predict(table)) == len(table)
    assert not (tmp_path / "ran").exists()


def other_release(root: Path) -> None:
    mlmodel(lambda d: d["flavors"]["sklearn"].update(sklearn_version="1.2.2"))(root)


def test_another_release_of_scikit_learn_in_mlmodel_names_both_versions(saved, tmp_path):
    copy = tmp_path / "a"
    shutil.copytree(saved["mlflow-skops"], copy)
    other_release(copy / "model")
    with pytest.raises(Denied, match=r"trained with scikit-learn 1\.2\.2, and 1\.9\.1 runs here") as caught:
        loader.verify_and_load(copy, digest_of(copy))
    assert caught.value.reason == "EnvironmentMismatch"


@pytest.mark.parametrize("kind", ["joblib", "skops"])
def test_another_release_of_scikit_learn_in_the_model_itself_names_both_versions(kind, tmp_path, numeric):
    state = numeric.__getstate__()
    assert state["_sklearn_version"] == "1.9.1"
    buffer = io.BytesIO()
    if kind == "joblib":
        joblib.dump(numeric, buffer)
        data = buffer.getvalue().replace(b"1.9.1", b"1.4.2")
        (tmp_path / "model.joblib").write_bytes(data)
    else:
        skops.io.dump(numeric, tmp_path / "raw")
        with zipfile.ZipFile(tmp_path / "raw") as old, zipfile.ZipFile(tmp_path / "model.skops", "w") as new:
            for member in old.namelist():
                new.writestr(member, old.read(member).replace(b"1.9.1", b"1.4.2"))
        (tmp_path / "raw").unlink()
    with pytest.raises(Denied, match=r"trained with scikit-learn 1\.4\.2, and 1\.9\.1 runs here") as caught:
        loader.verify_and_load(tmp_path, digest_of(tmp_path))
    assert caught.value.reason == "EnvironmentMismatch"


def test_a_patch_release_of_scikit_learn_is_no_mismatch(tmp_path, numeric, table):
    buffer = io.BytesIO()
    joblib.dump(numeric, buffer)
    (tmp_path / "model.joblib").write_bytes(buffer.getvalue().replace(b"1.9.1", b"1.9.0"))
    predictor, _ = loader.verify_and_load(tmp_path, digest_of(tmp_path))
    assert predictor.packages == {"scikit-learn": "1.9.0"}


def zip_with(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


BAD_FILES = [
    ("A07 a pickle named .skops", "model.skops", pickle.dumps({}), "is not a skops file"),
    ("A07 a path in the archive that leaves it", "model.skops", zip_with(("../x", b"")), "leaves it"),
    ("A07 an absolute path in the archive", "model.skops", zip_with(("/x", b"")), "leaves it"),
    ("A07 the same name twice", "model.skops", zip_with(("x", b""), ("x", b"")), "same name twice"),
    ("a zip without a schema", "model.skops", zip_with(("x", b"")), "cannot be loaded"),
    ("a joblib file that was cut off", "model.joblib", pickle.dumps(list(range(99)))[:20], "cannot be loaded"),
    ("an empty joblib file", "model.joblib", b"", "cannot be loaded: EOFError"),
    ("a joblib file that needs a module", "model.joblib", b"cnowhere_at_all\nThing\n.", "in code/ beside it"),
    ("a joblib file with no model", "model.joblib", pickle.dumps({}), "holds dict, which has no predict method"),
]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("name", "data", "said"), [b[1:] for b in BAD_FILES], ids=[b[0] for b in BAD_FILES])
def test_a_file_that_is_no_model_says_why(tmp_path, name, data, said):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(Denied, match=said) as caught:
        loader.verify_and_load(tmp_path, digest_of(tmp_path))
    assert caught.value.reason == "ModelNotLoadable"
    assert "Traceback" not in caught.value.message


def test_a_skops_file_with_foreign_types_is_refused_by_their_names(tmp_path):
    """J07: a class that nobody trusts."""
    skops.io.dump(Foreign(), tmp_path / "model.skops")
    with pytest.raises(
        Denied, match=r"1 types that are not of scikit-learn, .*test_loader.Foreign; leave model.joblib"
    ) as caught:
        loader.verify_and_load(tmp_path, digest_of(tmp_path))
    said = {"outcome": "Invalid", "reason": caught.value.reason, "message": caught.value.message}
    standing.step_says(said, step="predict")


def test_a_model_whose_class_is_in_code_is_loaded_with_it(tmp_path, table):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "my_own_model.py").write_text(
        "class Mine:\n    def predict(self, rows):\n        return [7] * len(rows)\n"
    )
    (tmp_path / "model.joblib").write_bytes(b"cmy_own_model\nMine\n)\x81.")
    predictor, _ = loader.verify_and_load(tmp_path, digest_of(tmp_path))
    assert predictor.predict(table.head(2)) == [7, 7]
    assert predictor.parallel is False


def test_no_model_at_all_says_so(tmp_path):
    with pytest.raises(NotFound, match="no model was left"):
        loader.verify_and_load(tmp_path, "sha256:" + "0" * 64)


def test_the_example_that_mlflow_keeps_is_a_request(saved):
    predictor, _ = loader.verify_and_load(saved["mlflow-skops"], digest_of(saved["mlflow-skops"]))
    assert json.loads(predictor.example or b"null")["dataframe_split"]["columns"] == ["age", "income", "city"]
    assert predictor.kinds == {"age": "number", "income": "number", "city": "string"}
