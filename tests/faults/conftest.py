"""Scenes for fault tests: each in a namespace of its own of the shared control plane, with the shared MLflow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.faults.scene import Scene
from tests.support.mlflow_shared import tracking_uri


@pytest.fixture
def scene(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[Scene]:
    """A scene without operators."""
    with Scene(control_plane, namespace, tmp_path, tracking_uri()) as made:
        yield made
