"""What starts quickly stays quick, and the operator runs on its own lock: what is imported, and where from."""

from __future__ import annotations

import json
import os
import pkgutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import controller
from tests.support import operator_env

ROOT = Path(__file__).parents[2]
SCIENTIFIC = {"mlflow", "numpy", "pandas", "pyarrow", "scipy", "sklearn", "skops", "joblib"}
SERVERS = {"kopf", "kubernetes", "starlette", "uvicorn"}
SLOW_TO_START = SCIENTIFIC | SERVERS | {"git", "httpx", "cryptography"}
OPERATOR_ROOMS = ("api", "plan", "clients", "reconcile")

VERB = """
import json, sys
from controller.cli.main import main
sys.argv = ["mainspring", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    print(json.dumps([end.code or 0, sorted(sys.modules)]))
"""
IMPORT = """
import json, sys
from importlib import import_module
for name in sys.argv[1:]:
    import_module(name)
print(json.dumps([0, sorted(sys.modules)]))
"""


def imported(python: Path | str, script: str, *arguments: str, cwd: Path = ROOT) -> set[str]:
    """Run a script in a new process and return the top-level names of what it has imported."""
    # No path of ours leaks in: in the operator's environment only the installed wheel may be found.
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MAINSPRING_"))}
    command = [str(python), "-c", script, *arguments]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr[-2000:]}"
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stdout + done.stderr
    return {m.partition(".")[0] for m in modules}


def operator_modules() -> list[str]:
    rooms = [f"controller.{room}" for room in OPERATOR_ROOMS]
    found = pkgutil.walk_packages(controller.__path__, "controller.")
    return [m.name for m in found if m.name.startswith(tuple(f"{r}." for r in rooms)) or m.name in rooms]


@pytest.fixture(scope="session")
def operator_python() -> Path:
    return operator_env.ready()


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["--help"], id="the help"),
        pytest.param(["--version"], id="the version"),
        pytest.param(["validate", "examples/"], id="validate"),
        pytest.param(["up", "--help"], id="the help of up"),
        pytest.param(["plan", "--help"], id="the help of plan"),
    ],
)
def test_the_command_line_starts_without_what_is_slow_to_import(arguments):
    assert not imported(sys.executable, VERB, *arguments) & SLOW_TO_START


def test_the_operators_rooms_import_nothing_scientific_even_where_it_is_installed():
    names = operator_modules()
    assert "controller.reconcile.controller" in names
    assert not imported(sys.executable, IMPORT, *names) & (SCIENTIFIC | SERVERS)


def test_the_operator_process_imports_nothing_scientific():
    assert not imported(sys.executable, IMPORT, "controller.reconcile.process", "kopf") & SCIENTIFIC


def test_every_module_of_the_operator_imports_with_its_lock_alone(operator_python, tmp_path):
    assert "controller" in imported(operator_python, IMPORT, *operator_modules(), cwd=tmp_path)


def test_the_operators_environment_has_nothing_scientific_to_import(operator_python, tmp_path):
    script = "import json, importlib.metadata as m; print(json.dumps([0, [d.name for d in m.distributions()]]))"
    installed = {name.lower().replace("_", "-") for name in imported(operator_python, script, cwd=tmp_path)}
    ours = packages_distributions()
    assert "mainspring" in installed
    assert not installed & {d.lower() for name in SCIENTIFIC for d in ours.get(name, [name])}


def test_the_wheel_validates_files_with_the_operators_lock_alone(operator_python, tmp_path):
    assert "yaml" in imported(operator_python, VERB, "validate", str(ROOT / "examples"), cwd=tmp_path)
