"""The server's own description is true: its example is answered, its columns the model's, no fuzz breaks it."""

from __future__ import annotations

import re

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings

from controller.serving.predict import request_body
from tests.support.serving_client import client_of
from tests.support.serving_models import as_artifact, digest_of
from tests.support.serving_process import Process


@pytest.fixture(scope="module")
def process(tmp_path_factory, pipeline, table):
    base = tmp_path_factory.mktemp("described")
    artifact = as_artifact(pipeline, base / "artifact")
    (artifact / "sample.json").write_bytes(request_body(table.head(1)))
    with Process(artifact, digest_of(artifact), base) as process:
        process.until_ready()
        yield process


def test_the_description_names_the_models_columns_and_its_example_is_answered(process):
    found = httpx.get(f"{process.url}/openapi.json").json()
    assert found["openapi"] == "3.1.0"
    assert (found["info"]["title"], found["info"]["version"]) == ("churn", "7")
    record = found["components"]["schemas"]["Record"]
    assert {name: cell["type"] for name, cell in record["properties"].items()} == {
        "age": "number",
        "income": "number",
        "city": "string",
    }
    example = found["paths"]["/invocations"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert httpx.post(f"{process.url}/invocations", json=example).status_code == 200


def test_everything_that_is_described_is_there(process):
    for path, operations in httpx.get(f"{process.url}/openapi.json").json()["paths"].items():
        for method in operations:
            answer = httpx.request(method, process.url + path, json={} if method == "post" else None)
            assert str(answer.status_code) in operations[method]["responses"]


def test_null_is_described_where_the_model_takes_it(gaps, regression, table):
    def age(client):
        return client.get("/openapi.json").json()["components"]["schemas"]["Record"]["properties"]["age"]["type"]

    with client_of(gaps, request_body(table[["age", "income"]].head(1))) as client:
        assert age(client) == ["number", "null"]
    with client_of(regression) as client:
        assert client.get("/openapi.json").json()["components"]["schemas"]["Row"]["maxItems"] == 1


def test_the_page_for_people_stands_alone(process):
    answer = httpx.get(f"{process.url}/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert not re.search(r"https?://|<script|src=|@import", answer.text)
    for said in ("churn", "income", "/invocations", "/v2/models/churn/infer", "Retry-After"):
        assert said in answer.text


def test_a_column_whose_name_is_markup_is_only_shown():
    class Named:
        feature_names_in_ = ("<script>alert(1)</script>",)

        def predict(self, rows):
            return [1.0] * len(rows)

    with client_of(Named()) as client:
        assert "<script>" not in client.get("/docs").text
        assert "&lt;script&gt;" in client.get("/docs").text


CHECKS = [
    schemathesis.checks.not_a_server_error,
    *(
        getattr(schemathesis.openapi.checks, name, None) or schemathesis.checks.CHECKS.get_one(name)
        for name in ("status_code_conformance", "content_type_conformance", "response_schema_conformance")
    ),
]


def test_fuzzing_finds_no_answer_that_is_not_described(process):
    """Every operation with what its description allows, and with what it does not."""
    schema = schemathesis.openapi.from_url(f"{process.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]  # type: ignore[union-attr]
    asked = {"right": 0, "wrong": 0}
    for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
        for operation in operations:
            if mode is schemathesis.GenerationMode.NEGATIVE and operation.method != "post":
                continue

            @seed(20251125)
            @settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case):
                response = case.call(timeout=30)
                case.validate_response(response, checks=CHECKS)
                asked["right" if response.status_code == 200 else "wrong"] += 1
                right = mode is schemathesis.GenerationMode.POSITIVE  # noqa: B023 - called in this very turn
                if right and case.media_type == "application/json":
                    assert response.status_code == 200 or case.path != "/invocations", response.text

            ask()
    assert min(asked.values()) > 30, asked
    assert httpx.get(f"{process.url}/health/ready").status_code == 200
