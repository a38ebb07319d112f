"""Expressions of gates: a clear true passes, everything else says why not."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from typing import Any

import pytest

from controller.api import expressions
from controller.api.expressions import Trouble, evaluate, problem, used

MAPS: dict[str, Any] = {
    "metrics": {"f1": 0.9, "recall": 0.7},
    "champion": {"f1": 0.8},
    "improvement": {"f1": 0.1},
    "data": {"holdout": {"rows": 2500.0}},
    "model": {"sizeBytes": 1000.0},
}


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        pytest.param("metrics.f1 >= 0.9", True, id="at least means at least"),
        pytest.param("metrics.f1 > 0.9", False, id="above means above"),
        pytest.param(
            "metrics['f1'] > 0.5 && data.holdout.rows >= 2000", True, id="keys in brackets, whole numbers"
        ),
        pytest.param("improvement.f1 >= 0.0 || metrics.recall > 0.9", True, id="either of two"),
        pytest.param(
            "has(champion.f1) ? metrics.f1 > champion.f1 : true", True, id="asks whether there is a value"
        ),
        pytest.param("has(champion.recall)", False, id="a value that is not there can be asked for"),
        pytest.param("['f1', 'recall'].all(m, metrics[m] > 0.6)", True, id="all of several metrics"),
    ],
)
def test_an_expression_is_true_or_false(text: str, answer: bool) -> None:
    assert problem(text) == ""
    assert evaluate(text, MAPS) is answer


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("metrics.rmse < 50.0", "there is no value rmse", id="a missing metric"),
        pytest.param("metrics.f1", "it gives double and not true or false", id="a number where truth is wanted"),
        pytest.param("1 / 0 > 1", "it cannot be evaluated: divide by zero", id="a division by zero"),
        pytest.param("metrics.f1 > 'a'", "it cannot be evaluated", id="a number against text"),
    ],
)
def test_what_cannot_be_decided_says_why(text: str, words: str) -> None:
    found = evaluate(text, MAPS)
    assert isinstance(found, Trouble)
    assert words in found.message


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_never_passes_not_even_when_it_is_negated(value: float) -> None:
    found = evaluate("!(metrics.f1 < 0.5)", {**MAPS, "metrics": {"f1": value}})
    assert isinstance(found, Trouble)
    assert "not a finite number" in found.message


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            "[0,1,2,3,4,5,6,7,8,9]" + ".all(a, [0,1,2,3,4,5,6,7,8,9]" * 9 + ".all(z, true)" + ")" * 9, id="9 loops"
        ),
        pytest.param("'" + "a" * 3000 + "b'.matches('(a+)+$')", id="a pattern that blows up elsewhere"),
        pytest.param("!" * 4000 + "true", id="4,000 negations"),
        pytest.param(" + ".join(["1"] * 1000) + " > 0", id="1,000 sums"),
        pytest.param("(" * 2000 + "true" + ")" * 2000, id="2,000 parentheses"),
    ],
)
def test_no_expression_takes_long(text: str) -> None:
    start = time.perf_counter()
    problem(text)
    evaluate(text, MAPS)
    assert time.perf_counter() - start < 2


def test_the_values_that_are_named_are_found_outside_of_texts_only() -> None:
    text = 'metrics.f1 > 0.5 && \'metrics.rmse\' != "x" && metrics["recall"] > data.holdout.rows && mymetrics.f1'
    assert used(text) == (("metrics", "f1"), ("metrics", "recall"), ("data", "holdout", "rows"))


def test_the_library_is_imported_with_the_first_expression_only() -> None:
    code = "import sys, controller.api.kinds, controller.plan.gates; print('cel_expr_python' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert expressions.problem("true") == ""
