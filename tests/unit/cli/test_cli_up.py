"""When `mainspring up --until-settled` may end: only on what it has looked at itself."""

from __future__ import annotations

import pytest

from controller.api.meta import API_VERSION, GROUP, Key
from controller.cli.up import settled

URL = "https://git.example.com/team/models.git"
MODEL, REPOSITORY = Key("ModelSpec", "default", "line"), Key("ModelRepository", "default", "models")
BOTH = {MODEL, REPOSITORY}
READY = [{"type": "Ready", "status": "True", "reason": "Succeeded", "message": ""}]
STALLED = [{"type": "Stalled", "status": "True", "reason": "GateFailed", "message": ""}]
LACKS = [
    *STALLED,
    {"type": "SourceReady", "status": "False", "reason": "PathNotFound", "message": "not in sha1:new"},
]


def repository(url=URL):
    spec = {"url": url, "ref": {"branch": "main"}}
    return _object("ModelRepository", "models", spec, {}, {"conditions": READY, "observedGeneration": 1})


def model(commit="new", conditions=READY, observed=1):
    meta = {"labels": {f"{GROUP}/repository": "models"}, "annotations": {f"{GROUP}/source-commit": "new"}}
    status = {"conditions": conditions, "observedGeneration": observed, "source": {"commit": commit}}
    return _object("ModelSpec", "line", {"source": {"url": URL, "ref": {"branch": "main"}}}, meta, status)


def _object(kind, name, spec, meta, status):
    meta = {"name": name, "namespace": "default", "generation": 1, **meta}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": meta, "spec": spec, "status": status}


CASES = {
    "all ready": ([repository(), model()], BOTH, 0),
    "one stalled": ([repository(), model(conditions=STALLED)], BOTH, 1),
    "no model yet": ([repository()], BOTH, None),
    "ready as an earlier run said, not looked at since": ([repository(), model()], {REPOSITORY}, None),
    "repository not looked at since the start": ([repository(), model()], {MODEL}, None),
    "ready at the commit before": ([repository(), model("old")], BOTH, None),
    "stalled at the commit before": ([repository(), model("old", STALLED)], BOTH, None),
    "stalled since the new commit lacks a file": ([repository(), model("old", LACKS)], BOTH, 1),
    "follows another repository than the one it is synced from": (
        [repository("https://git.example.com/platform.git"), model("old")],
        BOTH,
        0,
    ),
    "changed and not looked at since": ([repository(), model(observed=0)], BOTH, None),
}


@pytest.mark.parametrize(("objects", "looked", "code"), CASES.values(), ids=CASES)
def test_ends_only_on_what_is_true_now(objects, looked, code):
    assert settled(objects, looked) == code
