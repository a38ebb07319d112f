"""The command line as a whole: its help is quick and complete, and errors are one line with an exit code."""

from __future__ import annotations

import importlib
import resource
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from controller import __version__
from controller.cli.errors import EXIT_CODES, Failure
from controller.cli.main import VERBS, app, describe
from controller.clients.errors import Unavailable
from tests.support.cli_session import mainspring

HEAVY = {
    *("mlflow", "pandas", "numpy", "sklearn", "scipy", "git", "httpx", "kubernetes", "kopf", "cryptography"),
    *("pydantic", "rich", "yaml"),
}


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_help_names_every_verb_in_its_group_and_every_exit_code():
    shown = CliRunner().invoke(app, ["--help"]).stdout
    for verb in VERBS:
        assert verb.summary in shown
    groups = [line.rstrip(":") for line in shown.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert groups == ["Options", "Start here", "Write", "Look", "Use", "Steer"]
    for code, meaning in EXIT_CODES:
        assert f"{code}  {meaning}" in shown


def test_help_imports_nothing_heavy():
    code = f"""
import sys
from controller.cli.main import app
try:
    app(["--help"])
except SystemExit:
    print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)
"""
    assert python(code).stderr.strip() == "[]"


def test_help_takes_less_than_four_tenths_of_a_second():
    def cost() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        python("from controller.cli.main import app; app(['--help'])")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # Seconds of the processor, not of the wall: other tests may be running beside this one.
    assert min(cost() for _ in range(3)) < 0.4


@pytest.mark.parametrize("verb", VERBS, ids=lambda v: v.name)
def test_help_of_a_verb_says_what_the_list_says(verb):
    single = typer.Typer(rich_markup_mode=None)
    function = getattr(importlib.import_module(f"controller.cli.{verb.module}"), f"{verb.name}_command")
    single.command()(function)
    shown = CliRunner().invoke(single, ["--help"]).stdout
    assert " ".join(verb.summary.split()) in " ".join(shown.split())


def test_version_is_shown(tmp_path):
    assert mainspring(tmp_path, "--version").out == f"mainspring {__version__}\n"


def test_a_mistyped_verb_is_a_usage_error_with_the_nearest_verb(tmp_path):
    answer = mainspring(tmp_path, "histroy")
    assert answer.code == 2
    assert "No such command 'histroy'. Did you mean 'history'?" in answer.err


@pytest.mark.parametrize(
    "args",
    [
        ["get"],
        ["explain", "bikes"],
        ["plan"],
        ["history", "bikes"],
        ["logs", "bikes"],
        ["predict", "bikes", "--row", "{}"],
        ["reconcile", "bikes"],
        ["suspend", "bikes"],
        ["resume", "bikes"],
    ],
    ids=lambda args: args[0],
)
def test_without_a_state_every_verb_says_how_to_start_one(args, tmp_path):
    answer = mainspring(tmp_path / "nothing", *args)
    assert answer.code == 1
    assert answer.out == ""
    assert answer.err == f"error: no local state in {tmp_path / 'nothing'}; start it with mainspring up\n"
    assert not (tmp_path / "nothing").exists()


def test_a_damaged_state_is_one_line_and_no_traceback(tmp_path):
    (tmp_path / "objects.db").write_bytes(b"no database" * 1000)
    answer = mainspring(tmp_path, "get")
    assert answer.code == 1
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    ("error", "said", "code"),
    [
        (Failure("nothing serves", code=2), "nothing serves", 2),
        (Unavailable("MLflow does not answer"), "MLflow does not answer", 1),
        (ValueError("first line\nsecond"), "first line second", 1),
        (FileNotFoundError(2, "No such file or directory", "a.yaml"), "a.yaml: No such file or directory", 1),
        (
            KeyError("spec"),
            "KeyError: 'spec' (a bug in Mainspring; set MAINSPRING_DEBUG=1 to see where, and please report it)",
            1,
        ),
    ],
    ids=["a failure of a verb", "a client", "a value", "a file", "a bug"],
)
def test_every_kind_of_error_is_one_line_and_a_code(error, said, code):
    assert describe(error) == (said, code)


def test_the_traceback_is_shown_on_request(tmp_path):
    (tmp_path / "objects.db").write_bytes(b"no database" * 1000)
    env = {"MAINSPRING_STATE": str(tmp_path), "MAINSPRING_DEBUG": "1"}
    assert isinstance(CliRunner().invoke(app, ["get"], env=env).exception, Unavailable)
