"""The operator beside served models at rest: no request to the API server, nothing scientific in the process."""

from __future__ import annotations

import re
import time

import pytest

from benchmarks import cluster
from tests.support.operator_process import wait_until

MODELS = 3
SCIENTIFIC = {
    "mlflow",
    "numpy",
    "pandas",
    "pyarrow",
    "scipy",
    "sklearn",
    "skops",
    "joblib",
    "onnxruntime",
    "torch",
}


@pytest.fixture(scope="module")
def place():
    with cluster.place(MODELS, interval_s=1) as made:
        yield made


@pytest.fixture
def operator(place, monkeypatch):
    """An operator that has looked at every model, and writes down what it imports."""
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    place.asked(forget=True)
    with place.operator("at-rest") as process:
        wait_until(lambda: looked(place), process.log.read_text(), within_s=120)
        yield process


def looked(place) -> bool:
    """Tell whether every model was looked at since it was forgotten: MLflow is asked about each."""
    return bool(place.asked()["models"] == MODELS)


def requests(place) -> list[tuple[str, str]]:
    """Every request of the operator about objects so far; watches and Leases are none."""
    events = (e for e in place.plane.audited() if cluster.ours(e))
    return [(e["verb"], e["requestURI"]) for e in events]


def test_models_at_rest_are_looked_at_without_any_request_to_the_api_server(place, operator):
    seen: list[list[tuple[str, str]]] = []
    deadline = time.monotonic() + 240

    def quiet() -> bool:
        before = len(requests(place))
        for _ in range(2):
            place.asked(forget=True)
            wait_until(lambda: looked(place), "all models are looked at again", within_s=90)
        seen.append(requests(place)[before:])
        return not seen[-1]

    # The first lists, of ours and of kopf, come before the rest.
    while not quiet():
        assert time.monotonic() < deadline, f"at rest it asked for {seen[-1]}"
    assert not [request for request in requests(place) if request[0] not in ("get", "list")]


def test_the_running_operator_has_imported_nothing_scientific_and_no_full_mlflow(place, operator):
    with operator:
        wait_until(lambda: "Initial authentication has finished" in operator.log.read_text(), "kopf watches")
    named = re.findall(r"^import time:.*\| +(\S+)$", operator.log.read_text(), flags=re.MULTILINE)
    top = {name.partition(".")[0] for name in named}
    assert {"kopf", "git", "aiohttp"} <= top
    assert "controller.plan.model" in named
    assert not top & SCIENTIFIC
