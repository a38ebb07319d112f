# ruff: noqa: E501 - the tables have one case a line
"""Every form of request, and for every bad one a sentence that says where it is wrong (ids: reliability 4.6)."""

from __future__ import annotations

import json
import re
import threading

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier

from controller.serving.predict import request_body
from tests.support.serving_client import client_of


@pytest.fixture(scope="module")
def client(pipeline, table):
    with client_of(pipeline, request_body(table.head(1))) as client:
        yield client


@pytest.fixture(scope="module")
def plain(regression):
    with client_of(regression) as client:
        yield client


def send(client, body, content_type="application/json", **headers):
    content = body if isinstance(body, bytes | str) else json.dumps(body)
    return client.post("/invocations", content=content, headers={"content-type": content_type, **headers})


ROW = {"age": 40, "income": 2.5, "city": "Ulm"}
OTHER = {"age": 20, "income": 1.0, "city": "Bonn"}
SPLIT = {"columns": list(ROW), "data": [list(ROW.values()), list(OTHER.values())]}

FORMS = [
    ("dataframe_split", {"dataframe_split": SPLIT}),
    ("dataframe_split with an index", {"dataframe_split": {**SPLIT, "index": [0, 1]}}),
    ("dataframe_records", {"dataframe_records": [ROW, OTHER]}),
    ("instances of objects", {"instances": [ROW, OTHER]}),
    ("instances of lists in the model's order", {"instances": [list(ROW.values()), list(OTHER.values())]}),
    ("inputs by column", {"inputs": {k: [ROW[k], OTHER[k]] for k in ROW}}),
    ("inputs of lists", {"inputs": [list(ROW.values()), list(OTHER.values())]}),
    ("Q03 columns in another order", {"inputs": {k: [ROW[k], OTHER[k]] for k in reversed(ROW)}}),
    ("Q03 an extra column is ignored", {"dataframe_records": [{**ROW, "id": "a"}, {**OTHER, "id": None}]}),
    ("empty params", {"dataframe_records": [ROW, OTHER], "params": {}}),
]


@pytest.mark.parametrize("body", [f[1] for f in FORMS], ids=[f[0] for f in FORMS])
def test_every_form_gets_the_same_predictions(body, client, pipeline):
    frame = pd.DataFrame([ROW, OTHER])
    answer = send(client, body)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"predictions": pipeline.predict(frame).tolist()}


def test_csv_gets_the_same_predictions(client, pipeline, table):
    answer = send(client, table.to_csv(index=False), "text/csv; charset=utf-8")
    assert answer.json() == {"predictions": pipeline.predict(table).tolist()}


def test_numbers_keep_all_their_digits(plain, regression):
    value = 0.1 + 0.2
    answer = send(plain, {"instances": [[value], [2**53 + 1], [-0.0]]})
    assert answer.json()["predictions"] == regression.predict([[value], [2**53 + 1], [-0.0]]).tolist()


def test_scalars_are_rows_of_one_column(plain, regression):
    assert send(plain, {"instances": [1, 2]}).json()["predictions"] == regression.predict([[1], [2]]).tolist()


def test_null_is_a_missing_value_where_the_model_takes_it(gaps, table):
    with client_of(gaps, request_body(table[["age", "income"]].head(1))) as client:
        rows = [{"age": None, "income": 2.5}, {"age": 30, "income": None}]
        want = gaps.predict(pd.DataFrame({"age": [np.nan, 30], "income": [2.5, np.nan]})).tolist()
        assert send(client, {"dataframe_records": rows}).json() == {"predictions": want}
        assert send(client, {"dataframe_records": rows[:1]}).json() == {"predictions": want[:1]}


def test_q06_an_unseen_category_is_the_models_own_matter(client):
    assert send(client, {"instances": [{**ROW, "city": "Atlantis"}]}).status_code == 200


BAD = [
    ("Q01 an empty body", "", "the body is empty"),
    ("Q01 null", "null", "must be a JSON object with one of dataframe_split"),
    ("Q01 a list", "[]", "must be a JSON object"),
    ("Q01 an empty object", "{}", "must have exactly one of dataframe_split, .* it has 0"),
    ("Q01 not JSON", "hello", "is not JSON: Expecting value at line 1 column 1"),
    ("Q01 JSON that was cut off", '{"instances": [[1', "is not JSON: .* at line 1 column 18"),
    ("Q01 bytes that are not UTF-8", b'{"instances": "\xff"}', "not UTF-8: byte 15"),
    ("two forms at once", {"instances": [], "inputs": []}, "exactly one of .* it has 2"),
    ("an unknown field", {"instances": [ROW], "data": 1}, "'data' is not known"),
    ("parameters", {"instances": [ROW], "params": {"a": 1}}, "'params' is not known"),
    ("Q03 a missing column", {"instances": [{"age": 1, "city": "Ulm"}]}, "1 of the 3 columns .* missing: 'income'"),
    ("Q03 all columns renamed", {"inputs": {"x": [1]}}, "3 of the 3 columns .*'age', 'income', 'city'"),
    ("Q03 a name twice in a row", '{"instances": [{"age": 1, "age": 2}]}', "'age' comes twice"),
    ("Q03 a column twice", {"dataframe_split": {"columns": ["age", "age"], "data": [[1, 2]]}}, "'age' comes twice"),
    ("a row that lacks a column", {"instances": [ROW, {"age": 1}]}, "'city' is missing in row 1"),
    ("a row with another column", {"instances": [ROW, {**ROW, "x": 1}]}, "'x' is not in row 0 but in row 1"),
    ("a row that is no object", {"dataframe_records": [ROW, 3]}, "row 1 must be an object"),
    ("a row that is too short", {"instances": [[1, 2, "x"], [1, 2]]}, "row 1 has 2 values for 3 columns"),
    ("a split row that is too long", {"dataframe_split": {"columns": ["age"], "data": [[1, 2]]}}, "row 0 has 2 values"),
    ("a split without columns", {"dataframe_split": {"data": []}}, "must be an object with columns and data"),
    ("a split with numbers as names", {"dataframe_split": {"columns": [1], "data": []}}, "must be a list of names"),
    ("columns of different lengths", {"inputs": {"age": [1], "city": []}}, "'city' has 0 values and column 'age' 1"),
    ("instances that is an object", {"instances": ROW}, "instances must be a list of rows"),
    ("Q04 a string for a number", {"instances": [ROW, {**ROW, "age": "old"}]}, "row 1, column 'age': a string where .* a number"),
    ("Q04 a number for a string", {"instances": [{**ROW, "city": 3}]}, "row 0, column 'city': a number where .* a string"),
    ("Q04 a boolean for a number", {"instances": [{**ROW, "age": True}]}, "row 0, column 'age': a boolean where"),
    ("Q04 null where the model has no use for it", {"instances": [ROW, {**ROW, "income": None}]}, "row 1, column 'income': null, and the model does not take missing values"),
    ("Q04 NaN", '{"instances": [{"age": NaN, "income": 1, "city": "Ulm"}]}', "row 0, column 'age': NaN, Infinity .* refused; send null"),
    ("Q04 Infinity", '{"instances": [{"age": -Infinity, "income": 1, "city": "Ulm"}]}', "row 0, column 'age': NaN, Infinity"),
    ("Q04 1e400", '{"instances": [{"age": 1e400, "income": 1, "city": "Ulm"}]}', "numbers beyond 1.8e308"),
    ("Q04 a nested list", {"instances": [{**ROW, "age": [1]}]}, "row 0, column 'age': a list or object is not a value"),
    ("Q04 a nested object", {"instances": [{**ROW, "city": {"a": 1}}]}, "row 0, column 'city': a list or object"),
    ("Q05 an integer of 65 bits", {"instances": [{**ROW, "age": 2**64}]}, "row 0, column 'age': the number has more than 64 bits"),
    ("Q05 an integer of 5,000 digits", '{"instances": [[' + "9" * 5000 + "]]}", "a number that cannot be read"),
    ("Q07 no rows", {"instances": []}, "0 rows"),
    ("Q07 no rows by column", {"inputs": {"age": [], "income": [], "city": []}}, "0 rows"),
    ("Q07 10,001 rows", {"dataframe_split": {"columns": list(ROW), "data": [[1, 2, "a"]] * 10_001}}, "10,001 rows; 1 to 10,000"),
    ("Q10 a depth of 100,000", '{"instances":' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
    ("Q10 100,000 columns", {"inputs": {str(n): [1] for n in range(100_000)}}, "100,000 columns; 1 to 10,000"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "said"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_a_bad_request_gets_400_and_one_sentence_that_says_where(body, said, client):
    answer = send(client, body)
    assert answer.status_code == 400, answer.text
    assert answer.json().keys() == {"error_code", "message"}
    assert answer.json()["error_code"] == "BAD_REQUEST"
    assert re.search(said, answer.json()["message"]), answer.json()["message"]
    assert len(answer.json()["message"]) < 600


BAD_CSV = [
    ("an empty body", "", "not CSV with a header line"),
    ("a header only", "age,income,city\n", "0 rows"),
    ("a missing column", "age,city\n1,Ulm\n", "'income'"),
    ("text for a number", "age,income,city\nold,1,Ulm\n", "row 0, column 'age': a string"),
    ("infinity", "age,income,city\ninf,1,Ulm\n", "row 0, column 'age': NaN, Infinity"),
    ("a ragged row", "age,income,city\n1,2,Ulm\n1,2,3,4,5\n", "not CSV"),
    ("bytes that are not UTF-8", b"age,income,city\n1,2,\xff\n", "not CSV"),
    ("10,001 rows", "age,income,city\n" + "1,2,Ulm\n" * 10_001, "10,001 rows"),
]


@pytest.mark.parametrize(("body", "said"), [b[1:] for b in BAD_CSV], ids=[b[0] for b in BAD_CSV])
def test_bad_csv_gets_400_and_one_sentence(body, said, client):
    answer = send(client, body, "text/csv")
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["message"]


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"content-type": "text/plain"}, "must be application/json or text/csv, not text/plain"),
        ({"content-type": ""}, "not absent"),
        ({"content-type": "application/octet-stream"}, "application/octet-stream"),
        ({"content-type": "application/json; charset=utf-16"}, "charset must be utf-8, not utf-16"),
        (
            {"content-type": "application/json", "content-encoding": "br"},
            "content-encoding br is not accepted: send gzip, or the body as it is",
        ),
    ],
    ids=["Q02 text", "Q02 none", "Q02 bytes", "Q02 utf-16", "Q09 brotli"],
)
def test_q02_another_content_type_gets_415(headers, said, client):
    answer = client.post("/invocations", content=b"{}", headers=headers)
    assert answer.status_code == 415
    assert answer.json()["error_code"] == "UNSUPPORTED_MEDIA_TYPE"
    assert said in answer.json()["message"]


def test_q08_a_large_body_gets_413_announced_or_not(client):
    def endless():
        for _ in range(40):
            yield b" " * 2**20

    announced = client.post(
        "/invocations", content=b"{}", headers={"content-type": "application/json", "content-length": str(2**30)}
    )
    chunked = client.post("/invocations", content=endless(), headers={"content-type": "application/json"})
    for answer in (announced, chunked):
        assert answer.status_code == 413
        assert answer.json() == {
            "error_code": "PAYLOAD_TOO_LARGE",
            "message": "the body has more than 16,777,216 bytes",
        }


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/invocations", 405),
        ("DELETE", "/invocations", 405),
        ("TRACE", "/invocations", 405),
        ("GET", "/nothing", 404),
        ("GET", "//etc/passwd", 404),
        ("GET", "/%2e%2e/etc/passwd", 404),
        ("POST", "/metadata", 405),
    ],
)
def test_q13_other_methods_and_paths_get_no_file(method, path, status, client):
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error_code"] in ("NOT_FOUND", "METHOD_NOT_ALLOWED")


@pytest.mark.parametrize("given", ["a\tb", "x" * 129, "../x", "ü".encode(), "a b"])
def test_q16_a_request_id_that_could_not_be_a_key_gets_400(given, client):
    answer = send(client, {"instances": [ROW]}, **{"x-request-id": given})
    assert answer.status_code == 400
    assert "x-request-id must be" in answer.json()["message"]
    assert answer.headers["x-request-id"] != given


def test_a_request_id_comes_back_and_is_made_up_where_there_is_none(client):
    assert send(client, {"instances": [ROW]}, **{"x-request-id": "order-7"}).headers["x-request-id"] == "order-7"
    assert len(send(client, {"instances": [ROW]}).headers["x-request-id"]) == 32


class Broken:
    """A model that does what its only feature says."""

    feature_names_in_ = ("what",)

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def predict(self, rows):
        what = rows["what"][0]
        if what == "raise":
            raise RuntimeError("secret path of ours")
        if what == "hang":
            self.go_on.wait(60)
        return {"nan": [float("nan")], "long": [1, 2], "none": None}.get(what, [1.5])


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("raise", "the model failed with RuntimeError; the server's log says more"),
        ("nan", "the model predicts nan for row 0; a prediction must be finite"),
        ("long", "the model answers 1 rows with 2 predictions"),
        ("none", "the model answers with NoneType; one value per row is expected"),
    ],
    ids=["Q19 the model raises", "Q20 NaN", "Q20 another length", "Q20 nothing"],
)
def test_a_models_own_fault_is_500_without_a_traceback_and_counted(what, said, caplog):
    with client_of(Broken()) as client:
        answer = send(client, {"instances": [{"what": what}]})
        assert answer.status_code == 500
        assert answer.json() == {"error_code": "INTERNAL_ERROR", "message": said}
        assert 'mainspring_requests_total{status="500"} 1.0' in client.get("/metrics").text
        assert send(client, {"instances": [{"what": "fine"}]}).json() == {"predictions": [1.5]}


class Picky:
    """A model that fails on one kind of row."""

    feature_names_in_ = ("what",)

    def predict(self, rows):
        if "odd" in list(rows["what"]):
            raise KeyError("odd")
        return [1.0] * len(rows)


def test_q19_the_row_that_a_model_failed_on_is_named_and_no_row_is_answered():
    with client_of(Picky()) as client:
        answer = send(client, {"instances": [{"what": w} for w in ("even", "odd", "even")]})
        assert answer.status_code == 500
        assert answer.json()["message"] == "the model failed with KeyError for row 1; the server's log says more"


def test_a_number_that_is_too_large_for_the_model_is_named(table, target):
    forest = RandomForestClassifier(3, random_state=1).fit(table[["age", "income"]], target)
    with client_of(forest, request_body(table[["age", "income"]].head(1))) as client:
        answer = send(client, {"instances": [[1, 2], [3, 1e300]]})
        assert (answer.status_code, answer.json()["message"]) == (
            400,
            "row 1, column 'income': a number of the size 1e+300 is too large for the model",
        )


def test_q21_a_model_that_hangs_gets_504_then_429_and_the_server_is_not_alive():
    model = Broken()
    with client_of(model, timeout_s=0.2, queue=1) as client:
        assert client.get("/livez").status_code == 200
        slow = send(client, {"instances": [{"what": "hang"}]})
        assert (slow.status_code, slow.json()["error_code"]) == (504, "DEADLINE_EXCEEDED")
        full = send(client, {"instances": [{"what": "fine"}]})
        assert (full.status_code, full.headers["retry-after"]) == (429, "1")
        assert full.json()["message"] == "too many requests are waiting; try again"
        assert client.get("/livez").status_code == 503
        model.go_on.set()
        for _ in range(1000):
            if send(client, {"instances": [{"what": "fine"}]}).status_code == 200:
                break
        assert client.get("/livez").status_code == 200


def test_ready_is_said_only_after_a_prediction(pipeline, table):
    with client_of(pipeline, request_body(table.head(1))) as client:
        assert (client.get("/health/ready").status_code, client.get("/readyz").text) == (200, "ready")
    with client_of(pipeline, b'{"instances": [{"age": 1}]}') as client:
        answer = client.get("/health/ready")
        assert answer.status_code == 503
        assert answer.text.startswith("not ready: the model does not predict its sample: 2 of the 3 columns")
        assert client.get("/health/live").status_code == 200
    with client_of(Broken()) as client:
        assert client.get("/ping").status_code == 200


def test_without_a_sample_a_category_that_the_model_knows_makes_the_first_row(pipeline):
    with client_of(pipeline) as client:
        assert client.get("/readyz").text == "ready"


def test_a_model_without_a_sample_that_takes_neither_zeros_nor_text_says_what_to_add():
    class Choosy:
        def predict(self, rows):
            raise ValueError("no")

    with client_of(Choosy()) as client:
        assert client.get("/readyz").status_code == 503
        assert "add sample.json with one row" in client.get("/readyz").text


def test_metrics_have_fine_buckets_and_count_rows(pipeline, table):
    with client_of(pipeline, request_body(table.head(1))) as client:
        send(client, {"instances": [ROW, OTHER]})
        send(client, "")
        text = client.get("/metrics").text
    lines = text.splitlines()
    assert 'mainspring_requests_total{status="200"} 1.0' in lines
    assert 'mainspring_requests_total{status="400"} 1.0' in lines
    assert "mainspring_predicted_rows_total 2.0" in lines
    assert "mainspring_request_duration_seconds_count 2.0" in lines
    bounds = [float(line.split('le="')[1].split('"')[0]) for line in lines if "duration_seconds_bucket{" in line]
    assert len(bounds) >= 20
    assert (bounds[0], bounds[-2]) == (0.001, 10.0)
