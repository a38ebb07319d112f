"""What the chart's tests share: a control plane that knows none of our kinds, so that the chart brings them."""

from __future__ import annotations

import pytest
import yaml

from tests.cluster.build import built
from tests.cluster.control_plane import ControlPlane


@pytest.fixture(scope="session")
def bare_plane(tmp_path_factory):
    """An API server with controllers, an audit log and the Gateway API's kinds; nothing of ours."""
    plane = ControlPlane.start(tmp_path_factory.mktemp("bare-plane"), audit=True)
    try:
        for file in sorted((built() / "gateway-api").glob("*.yaml")):
            for definition in yaml.safe_load_all(file.read_text()):
                plane.apply_definition(definition)
        yield plane
    finally:
        plane.stop()
