"""The kinds that a test cluster knows besides Kubernetes' own: ours, and the Gateway API's routes."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.cluster.build import SOURCES, built
from tests.cluster.control_plane import ControlPlane

CRDS = SOURCES.parent.parent / "crds"


def apply_definitions(plane: ControlPlane) -> None:
    """Apply crds/ and the Gateway API's kinds; return when all can be listed."""
    _apply(plane, sorted(CRDS.glob("*.yaml")))
    apply_gateway_api(plane)


def apply_gateway_api(plane: ControlPlane) -> None:
    """Apply the Gateway API's GatewayClass, Gateway and HTTPRoute; return when all can be listed."""
    _apply(plane, sorted((built() / "gateway-api").glob("*.yaml")))


def _apply(plane: ControlPlane, files: list[Path]) -> None:
    for file in files:
        for definition in yaml.safe_load_all(file.read_text()):
            plane.apply_definition(definition)
