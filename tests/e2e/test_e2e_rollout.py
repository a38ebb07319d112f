"""A rollout judged on the model, in local mode with real servers: drift, disagreement, what is kept of it.

The tests build on each other, in order: they share one `mainspring up`.
"""

from __future__ import annotations

import json
import random
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.support.git_repos import Scratch
from tests.support.linear_model import TRAIN, csv, model, rows
from tests.support.local_mode import Local

CANARY = {
    "stepWeights": [50],
    "interval": "5s",
    "analysis": [
        {"name": "drift", "metric": "prediction-drift", "max": 0.2, "minRequests": 50},
        {"name": "same", "metric": "disagreement", "max": 0.2, "sample": 1.0, "tolerance": 0.2, "minRequests": 20},
    ],
    "builtIn": {"dryRun": True},
}


LOOSE = {"name": "loose", "metric": "rmse", "champion": {"margin": -1000, "mode": "Absolute"}}
"""A gate that lets a worse model through, so that only the rollout can find it."""


def written(repository: Scratch, alpha: float, message: str, smoke: str = "Number") -> str:
    manifest = model(repository.url, serving={"canary": CANARY}, gates=[LOOSE])
    manifest["spec"]["training"]["params"]["alpha"] = alpha
    manifest["spec"]["serving"]["smokeTest"] = {"path": "smoke.json", "expect": {"rows": 1, "type": smoke}}
    request = {"dataframe_records": [{"x1": 1.0, "x2": 2.0}]}
    files = {
        "smoke.json": json.dumps(request).encode(),
        "train.py": TRAIN,
        "rows.csv": csv(rows()),
        "deploy/line.yaml": json.dumps(manifest).encode(),
    }
    return repository.commit(files, message=message)


@pytest.fixture(scope="module")
def up(shared: Local, shared_repository: Scratch) -> Local:
    commit = written(shared_repository, 1.0, "Fit a line")
    shared.start("--repo", str(shared_repository.path), "--path", "deploy", "--interval", "1s")
    shared.until_condition("Succeeded", commit=commit)
    return shared


@contextmanager
def asked(local: Local) -> Iterator[Counter[int]]:
    """Ask the model all the time; counts the answers by status."""
    url, seen, ended, rng = local.model()["status"]["url"], Counter[int](), threading.Event(), random.Random(5)

    def ask() -> None:
        with httpx.Client(trust_env=False, timeout=30) as client:
            while not ended.wait(0.005):
                row = {"x1": rng.uniform(0, 10), "x2": rng.uniform(0, 10)}
                seen[client.post(f"{url}/invocations", json={"dataframe_records": [row]}).status_code] += 1

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def figures(local: Local, revision: str) -> dict[str, float]:
    """Read the metrics of the server of a revision."""
    url = local.model()["status"]["url"].rpartition("/")[0]
    (service,) = (
        s["metadata"]["name"] for s in local.all("Service") if s["metadata"]["name"].startswith(revision)
    )
    text = httpx.get(f"{url}/{service}/metrics", trust_env=False).text
    return {m[1]: float(m[2]) for m in re.finditer(r"^(mainspring_\w+) ([-0-9.e+]+)$", text, re.M)}


def test_a_model_that_says_something_else_goes_back_with_the_numbers(up: Local, shared_repository: Scratch):
    first = up.model()["status"]["champion"]["revision"]
    with asked(up) as seen:
        commit = written(shared_repository, 1e9, "Regularise far too much")
        found = up.until_condition("RolledBack", commit=commit, timeout_s=180)
    assert set(seen) == {200}
    told = found["status"]["analysis"]
    checks = {c["name"]: c for c in told["checks"]}
    failed = {name for name in ("drift", "same") if checks[name]["outcome"] == "Failed"}
    assert failed
    message = found["status"]["previous"]["reason"]
    assert any(f"{name}: {checks[name]['message']}" in message for name in failed)
    assert found["status"]["champion"]["revision"] == first
    copies = figures(up, first)
    assert copies["mainspring_copied_requests_total"] > 0
    out = up.run("explain", "line").out
    assert f"Measured in the canary of {told['revision']}, at 50% since" in out
    assert "constant-predictions" in out


def test_a_model_that_says_the_same_takes_over(up: Local, shared_repository: Scratch):
    with asked(up) as seen:
        commit = written(shared_repository, 2.0, "Regularise a little more")
        found = up.until_condition("Succeeded", commit=commit, timeout_s=180)
    assert set(seen) == {200}
    checks = {c["name"]: c for c in found["status"]["analysis"]["checks"]}
    assert (checks["drift"]["outcome"], checks["same"]["outcome"]) == ("Passed", "Passed")
    assert re.match(r"disagreement \d+\.\d% <= 20.0% of \d+ rows", checks["same"]["message"])
    assert checks["volume"]["outcome"] == "Passed"
    history = json.loads(up.run("history", "line", "-o", "json").out)
    assert history["entries"][-1]["evidence"]["step1.same"] <= 0.2


def test_servers_that_fail_the_smoke_test_get_no_request(up: Local, shared_repository: Scratch):
    champion = up.model()["status"]["champion"]["revision"]
    with asked(up) as seen:
        commit = written(shared_repository, 3.0, "Expect text of numbers", smoke="Text")
        found = up.until_condition("RolledBack", commit=commit, timeout_s=180)
    assert set(seen) == {200}
    assert "fail the smoke test: prediction 1 is " in found["status"]["previous"]["reason"]
    assert ", not a Text" in found["status"]["previous"]["reason"]
    assert found["status"]["champion"]["revision"] == champion
