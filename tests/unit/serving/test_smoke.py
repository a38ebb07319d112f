"""The smoke test of a server: its request takes the way of all requests, and a wrong answer ends the server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controller.clients.errors import Denied
from controller.serving.predict import request_body
from controller.serving.smoke import pass_test, wrong
from tests.support.serving_client import client_of

TWO = b'{"predictions": [1.5, 2.0]}'
ANSWERS: dict[str, tuple[dict[str, Any], int, bytes, str]] = {
    "as expected by default": ({}, 200, TWO, ""),
    "as expected in everything": ({"rows": 2, "type": "Number", "min": 1, "max": 2}, 200, TWO, ""),
    "another status": ({}, 400, b'{"message": "no"}', 'status 400, not 200: {"message": "no"}'),
    "a status that is expected": ({"status": 400}, 400, b"{}", ""),
    "too few predictions": ({"rows": 3}, 200, TWO, "2 predictions, not 3"),
    "text for a number": ({"type": "Number"}, 200, b'{"predictions": ["a"]}', "prediction 1 is 'a', not a Number"),
    "text with a limit": (
        {"min": 0},
        200,
        b'{"predictions": ["a"]}',
        "prediction 1 is 'a', not a Number",
    ),
    "truth for a number": (
        {"type": "Number"},
        200,
        b'{"predictions": [true]}',
        "prediction 1 is True, not a Number",
    ),
    "below": ({"min": 1.8}, 200, TWO, "prediction 1 is 1.5, below 1.8"),
    "above": ({"max": 1.8}, 200, TWO, "prediction 2 is 2, above 1.8"),
    "another class": ({"among": ["a"]}, 200, b'{"predictions": ["b"]}', "prediction 1 is 'b', not one of a"),
    "classes that are numbers": ({"among": ["1", "2"]}, 200, b'{"predictions": [1, 2.0]}', ""),
    "no predictions": ({}, 200, b"[]", "the answer has no predictions"),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_an_answer_is_held_to_what_is_expected(what: str) -> None:
    expect, status, content, problem = ANSWERS[what]
    assert wrong(expect, status, content) == problem


def told(body: bytes, media: str = "application/json", **expect: Any) -> dict[str, str]:
    return {"MAINSPRING_SMOKE_TEST": json.dumps({"body": body.decode(), "type": media, "expect": expect})}


@pytest.fixture(scope="module")
def client(pipeline, table):
    return client_of(pipeline, request_body(table.head(1)))


def test_a_server_passes_and_counts_no_request(client, table):
    pass_test(client.app, told(request_body(table.head(3)), rows=3, among=["yes", "no"]))
    pass_test(client.app, told(b"age,income,city\n40,2.5,Ulm\n", "text/csv", rows=1))
    pass_test(client.app, {})
    text = client.state.metrics.text().decode()
    assert "mainspring_requests_total{" not in text
    assert "mainspring_predicted_rows_total 0" in text


@pytest.mark.parametrize(
    ("body", "expect", "problem"),
    [
        (
            b'{"dataframe_records": [{"age": 40, "income": 2.5, "city": "Ulm"}]}',
            {"type": "Number"},
            "not a Number",
        ),
        (b'{"dataframe_records": [{"age": 40}]}', {}, "smoke test: status 400, not 200"),
    ],
    ids=["another type", "a request that the model refuses"],
)
def test_a_server_that_answers_otherwise_ends_and_says_of_what(client, body, expect, problem):
    with pytest.raises(Denied, match=problem) as ended:
        pass_test(client.app, told(body, **expect))
    assert ended.value.reason == "SmokeTestFailed"
    assert len(ended.value.message) <= 160
