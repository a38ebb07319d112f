"""`mainspring validate`: what people and CI see of it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from controller.cli.validate import validate, validate_command

GOOD = """\
apiVersion: mainspring.dev/v1alpha1
kind: ModelSpec
metadata: {name: churn}
spec:
  source: {url: "https://git.example.com/churn.git", ref: {branch: main}}
  data: [{name: train, path: train.csv}]
  columns: {target: churned}
  training: {command: [python, train.py]}
"""
BAD = GOOD.replace("training:", "trainig:")


def test_a_right_directory_ends_with_a_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    assert validate([tmp_path]) == 0
    assert capsys.readouterr().out == "1 file, 1 object, 0 errors\n"


def test_errors_are_lines_that_an_editor_can_jump_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "b.yml").write_text(BAD)
    (tmp_path / "a.yaml").write_text(GOOD)
    assert validate([tmp_path]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f'{tmp_path}/b.yml:4:1: error: spec: the field "training" is missing',
        f'{tmp_path}/b.yml:8:3: error: spec.trainig: unknown field "trainig"; did you mean "training"?',
        "2 files, 1 object, 2 errors",
    ]


def test_files_of_others_and_hidden_directories_are_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.yaml").write_text(BAD)
    (tmp_path / "params.yaml").write_text("lr: 0.1\n")
    (tmp_path / "model.yaml").write_text(GOOD)
    (tmp_path / "notes.txt").write_text("a: *b")
    assert validate([tmp_path]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/params.yaml: skipped: no Kubernetes object",
        "2 files, 1 object, 0 errors",
    ]


def test_nothing_to_check_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate([tmp_path]) == 1
    assert "error: no object of Mainspring in these files" in capsys.readouterr().out


def test_a_path_that_is_not_there_is_a_mistake_in_the_call(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert validate([tmp_path / "none.yaml"]) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path}/none.yaml is not there; name a file or a directory with YAML\n"
    )


def test_a_link_out_of_the_directory_is_not_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    (tmp_path / "secret.yaml").write_text("password: hunter2")
    (inside / "a.yaml").symlink_to(tmp_path / "secret.yaml")
    assert validate([inside]) == 1
    out = capsys.readouterr().out
    assert "a.yaml:1:1: error: a link out of the directory is not followed; copy the file here" in out
    assert "hunter2" not in out


def test_a_pipe_does_not_hang_and_a_huge_file_is_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.write(b"# mainspring.dev\n")
        file.truncate(2**33)
    assert validate([tmp_path]) == 1
    out = capsys.readouterr().out
    assert "pipe.yaml:1:1: error: cannot be read: not a regular file" in out
    assert "huge.yaml:1:1: error: larger than 256 KiB" in out


def test_the_same_object_in_two_files_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "b.yaml").write_text(GOOD)
    assert validate([tmp_path]) == 1
    assert f'ModelSpec "churn" is also in {tmp_path}/a.yaml:3; keep one of them' in capsys.readouterr().out


def test_json_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "b.yaml").write_text(BAD)
    assert validate([tmp_path], "json") == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["files"], answer["objects"], len(answer["errors"])) == (1, 0, 2)
    assert answer["errors"][1] == {
        "file": f"{tmp_path}/b.yaml",
        "line": 8,
        "column": 3,
        "path": "spec.trainig",
        "message": 'unknown field "trainig"; did you mean "training"?',
    }


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(BAD.encode())))
    assert validate([Path("-")]) == 1
    assert capsys.readouterr().out.startswith("<stdin>:4:1: error: ")


def test_it_is_a_command(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(BAD)
    app = typer.Typer()
    app.command("validate")(validate_command)
    result = CliRunner().invoke(app, [str(tmp_path), "-o", "json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["files"] == 1


def test_it_imports_nothing_heavy() -> None:
    heavy = ["mlflow", "pandas", "numpy", "sklearn", "scipy", "kubernetes", "kopf", "git", "httpx", "rich.console"]
    code = f"import sys, controller.cli.validate; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
