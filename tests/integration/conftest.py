"""What the integration tests share."""

from __future__ import annotations

import pytest

from tests.support.mlflow_shared import tracking_uri


@pytest.fixture(scope="session")
def mlflow_uri():
    return tracking_uri()
