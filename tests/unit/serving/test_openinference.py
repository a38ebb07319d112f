# ruff: noqa: E501 - the tables have one case a line
"""The Open Inference Protocol as its clients speak it: what is told, tensors in JSON, raw ones, errors."""

from __future__ import annotations

import gzip
import json
import re
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.serving.predict import request_body
from tests.support.serving_client import client_of

NAME, VERSION = "churn", "7"
INFER = f"/v2/models/{NAME}/infer"


@pytest.fixture(scope="module")
def names(request):
    patch = pytest.MonkeyPatch()
    patch.setenv("MAINSPRING_MODEL", NAME)
    patch.setenv("MAINSPRING_VERSION", VERSION)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def client(names, pipeline, table):
    with client_of(pipeline, request_body(table.head(1))) as client:
        yield client


@pytest.fixture(scope="module")
def numbers(names, numeric, table):
    with client_of(numeric, request_body(table[["age", "income"]].head(1))) as client:
        yield client


@pytest.fixture(scope="module")
def plain(names, regression):
    with client_of(regression) as client:
        yield client


def tensor(name, datatype, data, shape=None):
    return {"name": name, "shape": shape or [len(data)], "datatype": datatype, "data": data}


AGE, INCOME = tensor("age", "INT64", [40, 20]), tensor("income", "FP64", [2.5, 1.0])
CITY = tensor("city", "BYTES", ["Ulm", "Bonn"])


def infer(client, inputs, path=INFER, **more):
    headers = more.pop("headers", {})
    return client.post(path, json={"inputs": inputs, **more}, headers=headers)


def data_of(answer, name="predict"):
    assert answer.status_code == 200, answer.text
    return next(o for o in answer.json()["outputs"] if o["name"] == name)


def test_server_and_model_say_what_they_are(client):
    about = client.get("/v2").json()
    assert (about["name"], about["extensions"]) == ("mainspring", ["binary_tensor_data"])
    for path in (f"/v2/models/{NAME}", f"/v2/models/{NAME}/versions/{VERSION}"):
        assert client.get(path).json() == {
            "name": NAME,
            "versions": [VERSION],
            "platform": "mainspring_joblib",
            "inputs": [
                {"name": "age", "datatype": "FP64", "shape": [-1]},
                {"name": "income", "datatype": "FP64", "shape": [-1]},
                {"name": "city", "datatype": "BYTES", "shape": [-1]},
            ],
            "outputs": [
                {"name": "predict", "datatype": "BYTES", "shape": [-1]},
                {"name": "predict_proba", "datatype": "FP64", "shape": [-1, 2]},
            ],
        }


def test_live_and_ready_are_told_for_server_and_model(client):
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get(f"/v2/models/{NAME}/ready").json() == {"name": NAME, "ready": True}
    client.state.unready = "because"
    try:
        answer = client.get(f"/v2/models/{NAME}/versions/{VERSION}/ready")
        assert (answer.status_code, answer.json()) == (503, {"name": NAME, "ready": False, "error": "because"})
        assert client.get("/v2/health/ready").status_code == 503
    finally:
        client.state.unready = ""


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param([AGE, INCOME, CITY], id="a tensor for each column"),
        pytest.param([CITY, INCOME, AGE], id="in another order"),
        pytest.param([{**t, "shape": [2, 1]} for t in (AGE, INCOME, CITY)], id="of two dimensions"),
        pytest.param([{**AGE, "data": [[40], [20]], "shape": [2, 1]}, INCOME, CITY], id="with nested data"),
        pytest.param([tensor("age", "FP32", [40, 20]), INCOME, CITY], id="numbers of another type"),
        pytest.param([AGE, INCOME, CITY, tensor("id", "BYTES", ["a", "b"])], id="with one that is not needed"),
    ],
)
@pytest.mark.parametrize("path", [INFER, f"/v2/models/{NAME}/versions/{VERSION}/infer"], ids=["model", "version"])
def test_tensors_of_columns_get_the_predictions_of_the_other_protocol(path, inputs, client):
    rows = [{"age": 40, "income": 2.5, "city": "Ulm"}, {"age": 20, "income": 1.0, "city": "Bonn"}]
    expected = client.post("/invocations", json={"instances": rows}).json()["predictions"]
    answer = infer(client, inputs, path)
    assert data_of(answer) == {"name": "predict", "datatype": "BYTES", "shape": [2], "data": expected}
    assert (answer.json()["model_name"], answer.json()["model_version"]) == (NAME, VERSION)


def test_one_tensor_of_all_columns_is_enough_where_all_are_numbers(numbers, numeric, table):
    matrix = table[["age", "income"]].to_numpy(dtype=float)
    for data in (matrix.tolist(), matrix.reshape(-1).tolist()):
        answer = infer(numbers, [tensor("x", "FP64", data, list(matrix.shape))])
        assert data_of(answer)["data"] == numeric.predict(table[["age", "income"]]).tolist()


def test_numbers_come_back_as_numbers_with_all_their_digits(plain, regression):
    answer = infer(plain, [tensor("input", "FP64", [[0.1 + 0.2], [-0.0]], [2, 1])])
    found = data_of(answer)
    assert (found["datatype"], found["data"]) == ("FP64", regression.predict([[0.1 + 0.2], [-0.0]]).tolist())


def test_probabilities_are_given_when_they_are_asked_for(client, pipeline, table):
    answer = infer(client, [AGE, INCOME, CITY], outputs=[{"name": "predict_proba"}])
    found = data_of(answer, "predict_proba")
    assert found["shape"] == [2, 2]
    rows = table.head(2).assign(age=[40, 20], income=[2.5, 1.0], city=["Ulm", "Bonn"])
    np.testing.assert_allclose(np.reshape(found["data"], (2, 2)), pipeline.predict_proba(rows), atol=1e-12)
    assert [o["name"] for o in answer.json()["outputs"]] == ["predict_proba"]


def test_an_id_comes_back_and_is_the_requests_own(client):
    answer = infer(client, [AGE, INCOME, CITY], id="order-7")
    assert (answer.json()["id"], answer.headers["x-request-id"]) == ("order-7", "order-7")
    answer = infer(client, [AGE, INCOME, CITY], id="order-7", headers={"x-request-id": "mine"})
    assert (answer.json()["id"], answer.headers["x-request-id"]) == ("order-7", "mine")
    answer = infer(client, [AGE, INCOME, CITY])
    assert answer.json()["id"] == answer.headers["x-request-id"]


rows = st.lists(
    st.tuples(
        st.integers(-(2**53), 2**53) | st.none(),
        st.floats(allow_nan=False, allow_infinity=False) | st.none(),
        st.sampled_from(["Ulm", "Bonn", "", "Köln", "a:b"]),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=150, deadline=None)
@given(rows=rows, as_numbers=st.booleans())
def test_any_rows_get_the_same_answer_in_both_protocols(rows, as_numbers, client):
    ages, incomes, cities = (list(column) for column in zip(*rows, strict=True))
    other = client.post("/invocations", json={"inputs": {"age": ages, "income": incomes, "city": cities}})
    kind = "FP64" if as_numbers else "INT64"
    answer = infer(
        client, [tensor("age", kind, ages), tensor("income", "FP64", incomes), tensor("city", "BYTES", cities)]
    )
    assert answer.status_code == other.status_code
    if other.status_code == 200:
        assert data_of(answer)["data"] == other.json()["predictions"]
    else:
        assert answer.json()["error"] == other.json()["message"]


def raw_request(inputs, blobs, **more):
    head = json.dumps({"inputs": inputs, **more}).encode()
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
    return head + b"".join(blobs), headers


def raw(name, datatype, shape, blob):
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(blob)}}


def texts(*values):
    return b"".join(struct.pack("<I", len(v.encode())) + v.encode() for v in values)


def test_raw_tensors_are_taken_and_given(client):
    age, income = np.array([40, 20], "<i4").tobytes(), np.array([2.5, 1.0], "<f8").tobytes()
    city = texts("Ulm", "Bonn")
    inputs = [
        raw("age", "INT32", [2], age),
        raw("income", "FP64", [2, 1], income),
        raw("city", "BYTES", [2], city),
    ]
    wanted = [{"name": "predict", "parameters": {"binary_data": True}}, {"name": "predict_proba"}]
    body, headers = raw_request(inputs, [age, income, city], outputs=wanted)
    for content, more in ((body, {}), (gzip.compress(body), {"content-encoding": "gzip"})):
        answer = client.post(INFER, content=content, headers={**headers, **more})
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/octet-stream"
        size = int(answer.headers["inference-header-content-length"])
        document, blob = json.loads(answer.content[:size]), answer.content[size:]
        expected = data_of(infer(client, [AGE, INCOME, CITY]))["data"]
        assert blob == texts(*expected)
        assert document["outputs"][0]["parameters"] == {"binary_data_size": len(blob)}
        assert len(document["outputs"][1]["data"]) == 4


def test_one_raw_tensor_of_all_columns_is_read_and_nan_in_it_is_missing(names, gaps, table):
    with client_of(gaps, request_body(table[["age", "income"]].head(1))) as client:
        matrix = np.array([[40.0, np.nan], [np.nan, 1.0]], "<f8")
        blob = matrix.tobytes()
        body, headers = raw_request(
            [raw("x", "FP64", [2, 2], blob)], [blob], parameters={"binary_data_output": True}
        )
        answer = client.post(INFER, content=body, headers=headers)
        nested = infer(client, [tensor("x", "FP64", [[40, None], [None, 1]], [2, 2])])
        assert answer.content.endswith(texts(*data_of(nested)["data"]))
        assert 'mainspring_missing_values_total{column="income"} 2.0' in client.get("/metrics").text


BAD = [
    ("no inputs", [], "inputs must be a list of one tensor or more"),
    ("a tensor that is none", [3], "tensor 0 must be an object"),
    ("a tensor without a name", [{"shape": [1]}], "tensor 0 has no name"),
    ("an unknown type", [{**AGE, "datatype": "FP8"}], "'age': datatype must be one of FP64, .* not 'FP8'"),
    ("a shape of three dimensions", [{**AGE, "shape": [1, 1, 2]}], "'age': shape must be"),
    ("a shape of text", [{**AGE, "shape": ["2"]}], "'age': shape must be"),
    ("a negative shape", [{**AGE, "shape": [-1]}], "'age': shape must be"),
    ("no rows", [{**AGE, "shape": [0], "data": []}], "'age' has 0 rows"),
    ("Q07 10,001 rows", [tensor("age", "INT64", [1] * 10_001)], "'age' has 10,001 rows; 1 to 10,000"),
    ("another number of values", [{**AGE, "shape": [3]}], "'age' has 2 values for the shape \\[3\\]"),
    ("Q03 a missing column", [AGE, CITY], "1 of the 3 columns .* missing: 'income'"),
    ("a tensor twice", [AGE, AGE], "'age' comes twice"),
    ("Q04 a text for a number", [{**AGE, "data": [1, "old"]}], "'age', row 1: a string where INT64 is announced"),
    ("Q04 a number for a text", [AGE, INCOME, tensor("city", "FP64", [1, 2])], "row 0, column 'city': a number where .* a string"),
    ("Q04 a boolean for a number", [tensor("age", "BOOL", [True, False]), INCOME, CITY], "row 0, column 'age': a boolean"),
    ("Q04 a nested list", [{**AGE, "data": [1, [2]]}], "'age', row 1: a list or object"),
    ("Q04 null where the model has no use for it", [{**AGE, "data": [1, None]}, INCOME, CITY], "row 1, column 'age': null"),
    ("Q05 a number of more than 32 bits", [{**AGE, "datatype": "INT32", "data": [1, 2**31]}], "'age', row 1: .* 32 bits"),
    ("a number beyond FP32", [{**INCOME, "datatype": "FP32", "data": [1e300, 1]}], "'income', row 0: Infinity"),
    ("columns of different lengths", [AGE, tensor("income", "FP64", [1.0]), CITY], "'income' has 1 rows and 'age' 2"),
    ("several columns in one of many", [tensor("age", "FP64", [1, 2], [1, 2]), INCOME], "'age' has 2 columns: send one of all"),
    ("another width", [tensor("x", "FP64", [1, 2], [1, 2])], "'x' has 2 columns; the model needs 3"),
]  # fmt: skip


@pytest.mark.parametrize(("inputs", "said"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_a_bad_tensor_gets_400_and_one_sentence_that_says_where(inputs, said, client):
    answer = infer(client, inputs)
    assert answer.status_code == 400, answer.text
    assert answer.json().keys() == {"error"}
    assert re.search(said, answer.json()["error"]), answer.json()["error"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        pytest.param({"outputs": [{"name": "x"}]}, "there is no output 'x'", id="an unknown output"),
        pytest.param({"outputs": 3}, "outputs must be a list", id="outputs that are no list"),
        pytest.param({"id": "../x"}, "id must be 1 to 128 letters", id="Q16 an id that could not be a key"),
        pytest.param({"id": 3}, "id must be", id="an id that is a number"),
        pytest.param({"parameters": {"binary_data_output": 1}}, "must be true or false", id="a flag that is none"),
        pytest.param({"data": 1}, "'data' is not known", id="an unknown field"),
    ],
)
def test_what_else_is_wrong_is_said_too(more, said, client):
    answer = infer(client, [AGE, INCOME, CITY], **more)
    assert (answer.status_code, said in answer.json()["error"]) == (400, True), answer.text


def test_a_model_without_probabilities_says_so(plain):
    answer = infer(plain, [tensor("input", "FP64", [1.0], [1, 1])], outputs=[{"name": "predict_proba"}])
    assert (answer.status_code, "gives no probabilities" in answer.text) == (400, True)


EIGHT = np.array([1.0]).tobytes()


@pytest.mark.parametrize(
    ("inputs", "blobs", "said"),
    [
        pytest.param([raw("x", "FP64", [1, 1], EIGHT)], [b""], "binary_data_size is 8, but 0 bytes", id="too short"),
        pytest.param([raw("x", "FP64", [1, 1], EIGHT)], [EIGHT, b"x"], "1 bytes after the JSON", id="too long"),
        pytest.param([raw("x", "FP64", [2, 1], EIGHT)], [EIGHT], "8 bytes for FP64", id="another shape"),
        pytest.param([raw("x", "BOOL", [1], b"\2")], [b"\2"], "neither 0 nor 1", id="no boolean"),
        pytest.param([raw("x", "BYTES", [1], b"\x09\0\0\0a")], [b"\x09\0\0\0a"], "are not 1 texts", id="a text cut off"),
        pytest.param([raw("x", "BYTES", [1], texts("a") + b"\xff")], [texts("a") + b"\xff"], "are not", id="rest"),
        pytest.param(
            [raw("x", "BYTES", [1], b"\1\0\0\0\xff")], [b"\1\0\0\0\xff"], "row 0: the text is not UTF-8", id="no UTF-8"
        ),
        pytest.param(
            [raw("x", "FP64", [1, 1], struct.pack("<d", float("inf")))],
            [struct.pack("<d", float("inf"))],
            "row 0, column 0: Infinity",
            id="infinity",
        ),
        pytest.param([{**raw("x", "FP64", [1], EIGHT), "data": [1]}], [EIGHT], "has both data and", id="both"),
    ],
)  # fmt: skip
def test_bad_raw_tensors_get_400(inputs, blobs, said, plain):
    body, headers = raw_request(inputs, blobs)
    answer = plain.post(INFER, content=body, headers=headers)
    assert (answer.status_code, said in answer.json()["error"]) == (400, True), answer.text


@pytest.mark.parametrize("size", ["x", "-1", "9" * 30, "1000000"])
def test_a_length_of_the_json_that_cannot_be_gets_400(size, plain):
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": size}
    answer = plain.post(INFER, content=b'{"inputs": []}', headers=headers)
    assert (answer.status_code, "must be a number up to the" in answer.json()["error"]) == (400, True)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", INFER, 405),
        ("POST", f"/v2/models/{NAME}", 405),
        ("POST", "/v2/models/other/infer", 404),
        ("POST", f"/v2/models/{NAME}/versions/8/infer", 404),
        ("GET", f"/v2/models/{NAME}/versions", 404),
        ("GET", "/v2/models/", 404),
        ("GET", "/v2/x", 404),
    ],
)
def test_another_model_version_or_method_is_not_served(method, path, status, client):
    answer = client.request(method, path)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])


def test_another_content_type_gets_415(client):
    answer = client.post(INFER, content=b"{}", headers={"content-type": "text/plain"})
    assert (answer.status_code, "must be application/json" in answer.json()["error"]) == (415, True)
