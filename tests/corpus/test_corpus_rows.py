"""Every row of the corpus has a test of its id, or the list says openly that it has none."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent.parent
ROW = re.compile(r"(?<![A-Za-z0-9])([YGDMJLQygdmjlq](?!00)[0-9]{2})(?![A-Za-z0-9])")


def listed() -> dict[str, str]:
    """Read `rows.txt`: id → state and words."""
    lines = [
        line for line in Path(__file__).with_name("rows.txt").read_text().splitlines() if line[:1] not in "# "
    ]
    return {line[:3]: line[4:] for line in lines}


def named() -> set[str]:
    """Find the ids that tests name in a string or in their own name; comments and module docstrings do not."""
    found: set[str] = set()
    for path in TESTS.rglob("*.py"):
        if path.name in ("test_corpus_rows.py", "rows.py"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        module = ast.get_docstring(tree, clean=False)
        for node in ast.walk(tree):
            text = ""
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value != module:
                text = node.value
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                text = node.name.replace("_", " ")
            found |= {row.upper() for row in ROW.findall(text)}
    return found


def test_every_row_that_counts_as_tested_has_a_test_of_its_id():
    wanted = {row for row, state in listed().items() if state.startswith("tested ")}
    assert wanted - named() == set()


def test_no_row_is_called_open_that_has_a_test():
    still = {row for row, state in listed().items() if not state.startswith("tested ")}
    assert still & named() == set()


def test_no_test_names_a_row_that_is_not_listed():
    assert named() - set(listed()) == set()


def test_a_row_that_is_held_by_another_test_names_one_that_is_there():
    texts = [path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py")]
    names = [state.removeprefix("by ") for state in listed().values() if state.startswith("by ")]
    assert [name for name in names if not any(f"def {name}(" in t or f'"{name}"' in t for t in texts)] == []
    assert names


TESTS_OF_A_ROW = """
import pytest
from tests.corpus import standing

@pytest.mark.parametrize("x", [pytest.param(1, id="Y01-without"), pytest.param(2, id="no row")])
def test_it(x):
    assert x

@pytest.mark.apart("")
def test_y02_apart_without_a_word():
    assert True

@pytest.mark.apart("nothing of it reaches a controller")
def test_y03_apart():
    assert True

def test_row():
    \"\"\"Y04.\"\"\"
    standing.ASSERTED.append("as `play` does")
"""


def test_no_row_counts_as_tested_without_the_standing_rule(tmp_path):
    (tmp_path / "test_rows.py").write_text(TESTS_OF_A_ROW)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.corpus.rows", "-p", "no:cacheprovider", str(tmp_path)]
    env = {"PYTHONPATH": str(TESTS.parent), "PATH": os.defpath}
    said = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120).stdout
    assert "Y01 was tested without the standing rule" in said
    assert "the mark apart says why" in said
    assert "2 failed, 3 passed" in said
    assert (
        "bad-input corpus: 2 rows (Y 2) in 2 cases; the standing rule was asserted under 1 of them (Y 1)" in said
    )


def test_every_row_has_a_state_that_is_known():
    states = {state.split()[0] for state in listed().values()}
    assert states <= {"tested", "by", "later", "open"}
    assert len(listed()) == 189
