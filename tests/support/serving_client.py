"""A client of a model server in this process, without a socket."""

from __future__ import annotations

import warnings

from controller.serving import app, server
from controller.serving.pool import Pool
from controller.serving.predictor import Predictor

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it asks for another HTTP library than the one we have
    from starlette.testclient import TestClient

DIGEST = "sha256:" + "d" * 64


def client_of(model, sample=None, **pool) -> TestClient:
    """Serve a model as the process does after it was loaded."""
    predictor = Predictor(model, kind="joblib")
    state = server.new_state(predictor, DIGEST, Pool(parallel=predictor.parallel, **pool))
    server.prove(state, sample)
    client = TestClient(app.build(state), raise_server_exceptions=False)
    client.state = state
    return client
