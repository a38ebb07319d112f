"""What a server's page of numbers says of its predictions, its columns, its errors and its times."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from controller.api.bins import NAMES, bin_of
from controller.serving import monitor
from controller.serving.metrics import CLASSES_MAX, Metrics
from controller.serving.predict import request_body
from controller.serving.shared import Shared
from tests.support.serving_client import client_of

JSON = {"content-type": "application/json"}
ROW = {"age": 40, "income": 2.5, "city": "Ulm"}


def numbers(client, name: str) -> dict[str, float]:
    """Read a family: value of its label → number."""
    page = client.get("/metrics").text
    found = re.findall(rf'^{name}(?:{{[a-z]+="(.*)"}})? (\S+)$', page, re.MULTILINE)
    return {label: float(value) for label, value in found}


def send(client, rows, **headers):
    return client.post("/invocations", content=json.dumps({"instances": rows}), headers={**JSON, **headers})


@pytest.fixture
def client(pipeline, table):
    with client_of(pipeline, request_body(table.head(1))) as client:
        yield client


@pytest.mark.parametrize("repeat", [1, 40], ids=["a few rows", "many rows"])
def test_predictions_are_counted_by_class_and_confidence(repeat, client, pipeline, table):
    predicted = send(client, json.loads(table.to_json(orient="records")) * repeat).json()["predictions"]
    assert numbers(client, "mainspring_predictions_total") == {c: predicted.count(c) for c in sorted({*predicted})}
    highest = pipeline.predict_proba(table).max(axis=1)
    buckets = numbers(client, "mainspring_confidence_bucket")
    assert {k for k in buckets if k != "+Inf"} == {str(n / 20) for n in range(1, 21)}
    for bound in ("0.6", "0.8", "0.95", "1.0", "+Inf"):
        assert buckets[bound] == repeat * sum(highest <= float(bound))


def test_numbers_are_counted_by_bin(regression):
    with client_of(regression) as client:
        found = send(client, [[n] for n in range(50)]).json()["predictions"]
        one = send(client, [[7]]).json()["predictions"]
        bins = numbers(client, "mainspring_predictions_total")
    expected: dict[str, float] = {}
    for x in (*found, *one):
        expected[bin_of(x)] = expected.get(bin_of(x), 0) + 1
    assert bins == expected


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30))
def test_a_batch_is_counted_in_the_bins_of_its_numbers(values):
    classes, bins = monitor.predicted(values, classified=False)
    assert classes == {}
    assert sorted(NAMES[place] for place, count in bins.items() for _ in range(count)) == sorted(
        map(bin_of, values)
    )


def test_missing_values_and_unseen_categories_are_counted_by_column(client, gaps, table):
    rows = [{**ROW, "city": "Atlantis"}, ROW, {**ROW, "city": "Mu"}]
    assert send(client, rows).status_code == 200
    assert numbers(client, "mainspring_unseen_categories_total") == {"city": 2}
    assert numbers(client, "mainspring_missing_values_total") == {}
    with client_of(gaps, request_body(table[["age", "income"]].head(1))) as other:
        send(other, [[None, 1], [None, None]])
        assert numbers(other, "mainspring_missing_values_total") == {"age": 2, "income": 1}


def test_columns_that_are_not_of_the_signature_are_not_named(client):
    send(client, [{**ROW, "whatever": None}])
    assert "whatever" not in client.get("/metrics").text


@pytest.mark.parametrize(
    ("body", "headers", "kind"),
    [
        (b"{}", {}, "request"),
        (b"{}", {"content-type": "text/plain"}, "media-type"),
        (b" " * (16 * 2**20 + 1), {}, "too-large"),
        (b"{}", {"x-request-id": "../x"}, "request"),
    ],
    ids=["a bad request", "another type", "too much", "a bad id"],
)
def test_errors_are_counted_by_kind(body, headers, kind, client):
    client.post("/invocations", content=body, headers={**JSON, **headers})
    assert numbers(client, "mainspring_errors_total") == {kind: 1}
    assert numbers(client, "mainspring_predict_seconds_count") == {"": 0}


def test_times_are_counted_for_what_was_predicted_and_nothing_stays_in_flight(client):
    for _ in range(3):
        send(client, [ROW])
    assert numbers(client, "mainspring_predict_seconds_count") == {"": 3}
    assert numbers(client, "mainspring_queue_seconds_count") == {"": 3}
    assert 0 < numbers(client, "mainspring_predict_seconds_sum")[""] < 30
    assert numbers(client, "mainspring_requests_in_flight") == {"": 0}


def test_the_page_is_what_prometheus_reads():
    metrics = Metrics({"model": 'a "model"\n\\'}, ['in "quotes"', "plain"])
    metrics.classes({'say "hi"\n\\': 2})
    metrics.columns({'in "quotes"': 1}, {"plain": 3})
    found = {f.name: f for f in text_string_to_metric_families(metrics.text().decode())}
    assert found["mainspring_predictions"].samples[-1].labels == {"value": 'say "hi"\n\\'}
    assert found["mainspring_missing_values"].samples[0].labels == {"column": 'in "quotes"'}
    assert found["mainspring_model_info"].samples[0].labels == {"model": 'a "model"\n\\'}
    assert found["mainspring_request_duration_seconds"].type == "histogram"


def test_a_model_of_many_texts_does_not_fill_the_page():
    metrics = Metrics({})
    for n in range(10 * CLASSES_MAX):
        metrics.classes({f"class {n}": 1})
    lines = [
        line for line in metrics.text().decode().splitlines() if line.startswith("mainspring_predictions_total{")
    ]
    assert len(lines) == CLASSES_MAX + 1
    assert f'mainspring_predictions_total{{value="other"}} {9.0 * CLASSES_MAX}' in lines


def test_a_worker_that_takes_a_dead_ones_place_goes_on_counting():
    memory = Shared.create(2)
    first, second = (Metrics({}, ["age"], Shared.opened(memory, n, 2)) for n in range(2))
    first.classes({"yes": 1, "no": 2})
    second.classes({"no": 3, "yes": 4})
    first.began()
    again = Metrics({}, ["age"], Shared.opened(memory, 0, 2))
    again.classes({"no": 10})
    page = second.text().decode()
    assert 'mainspring_predictions_total{value="yes"} 5.0' in page
    assert 'mainspring_predictions_total{value="no"} 15.0' in page
    assert "mainspring_requests_in_flight 0.0" in page
