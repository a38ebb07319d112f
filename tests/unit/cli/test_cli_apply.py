"""`mainspring apply`: all files are right or nothing is written, and each object says what became of it."""

from __future__ import annotations

import pytest
import yaml

from tests.support.cli_session import mainspring, model, put, snapshot, stored


@pytest.fixture
def state(tmp_path):
    put(tmp_path / "state")
    return tmp_path / "state"


def file(tmp_path, name, *manifests):
    path = tmp_path / name
    path.write_text(yaml.safe_dump_all(manifests))
    return str(path)


def test_an_object_is_created_then_unchanged_then_configured(state, tmp_path):
    path = file(tmp_path, "bikes.yaml", model())
    assert mainspring(state, "apply", "-f", path).out == "modelspec.mainspring.dev/bikes created\n"
    assert mainspring(state, "apply", "-f", path).out == "modelspec.mainspring.dev/bikes unchanged\n"
    path = file(tmp_path, "bikes.yaml", model(training={"command": ["python", "fit.py"]}))
    assert mainspring(state, "apply", path).out == "modelspec.mainspring.dev/bikes configured\n"
    assert stored(state, "ModelSpec", "bikes")["spec"]["training"]["command"] == ["python", "fit.py"]


def test_many_objects_come_from_directories_and_from_standard_input(state, tmp_path):
    (tmp_path / "models").mkdir()
    file(tmp_path / "models", "a.yaml", model("ants"), model("bees"))
    file(tmp_path / "models", "c.yml", model("cats"))
    answer = mainspring(
        state, "apply", "-f", str(tmp_path / "models"), "-f", "-", stdin=yaml.safe_dump(model("dogs"))
    )
    assert answer.lines == [f"modelspec.mainspring.dev/{n} created" for n in ("ants", "bees", "cats", "dogs")]


def test_one_error_in_one_file_and_nothing_is_written(state, tmp_path):
    good = file(tmp_path, "good.yaml", model("good"))
    bad = tmp_path / "bad.yaml"
    bad.write_text(yaml.safe_dump(model("bad")).replace("paths:", "pahts:"))
    line = next(n for n, text in enumerate(bad.read_text().splitlines(), 1) if "pahts" in text)
    answer = mainspring(state, "apply", "-f", good, "-f", str(bad))
    assert answer.code == 1
    assert answer.out == ""
    first, last = answer.err.splitlines()
    assert first.startswith(f'error: {bad}:{line}:5: spec.source.pahts: unknown field "pahts"')
    assert last == "error: 1 error in the files; nothing was changed"
    assert snapshot(state) == {}


def test_a_file_without_anything_of_ours_is_an_error(state, tmp_path):
    path = file(tmp_path, "other.yaml", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}})
    answer = mainspring(state, "apply", "-f", path)
    assert answer.code == 1
    assert answer.err.splitlines()[-1] == f"error: no object of Mainspring in {path}"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "error: which file? mainspring apply -f FILE\n"),
        (["-f", "nowhere.yaml"], "error: nowhere.yaml is not there\n"),
    ],
    ids=["no file", "a file that is not there"],
)
def test_a_wrong_call_is_a_usage_error(args, said, state):
    answer = mainspring(state, "apply", *args)
    assert (answer.code, answer.err) == (2, said)


def test_the_namespace_is_filled_in_but_never_overruled(state, tmp_path):
    path = file(tmp_path, "bikes.yaml", model())
    assert mainspring(state, "apply", "-f", path, "-n", "team").code == 0
    assert stored(state, "ModelSpec", "bikes", "team") is not None
    placed = model()
    placed["metadata"]["namespace"] = "prod"
    answer = mainspring(state, "apply", "-f", file(tmp_path, "prod.yaml", placed), "-n", "team")
    assert (answer.code, answer.err) == (2, "error: ModelSpec bikes says namespace prod, -n says team\n")


def test_who_changes_an_object_of_a_repository_is_told_that_it_will_not_last(state, tmp_path):
    managed = model()
    managed["metadata"]["labels"] = {"mainspring.dev/repository": "team"}
    put(state, managed)
    answer = mainspring(state, "apply", "-f", file(tmp_path, "bikes.yaml", model()))
    assert answer.err == "note: ModelRepository team manages this object; its next sync puts its file back\n"
