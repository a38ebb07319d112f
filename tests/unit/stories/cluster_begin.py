"""How stories on a cluster begin: the ModelSpec, and the first model that serves."""

from __future__ import annotations

from typing import Any

from controller.api.meta import Manifest
from tests.support.cluster_simulation import ClusterSimulation
from tests.support.stories import FIRST
from tests.support.stories import spec as plain_spec

SERVING: dict[str, Any] = {"minReplicas": 3, "canary": {"stepWeights": [10, 50], "interval": "20s"}}

GATEWAY: dict[str, Any] = {"gatewayRefs": [{"name": "public", "namespace": "infra"}]}


def spec(training: dict[str, object] | None = None, **serving: object) -> Manifest:
    """Build the ModelSpec of the stories: three servers of the champion."""
    train = {"command": ["python", "train.py"], **(training or {})}
    return plain_spec(training=train, serving={**SERVING, **serving})


async def begin(s: ClusterSimulation, training: dict[str, object] | None = None, **serving: object) -> None:
    """Let the first model serve."""
    s.git.commit("Predict bikes", FIRST)
    await s.store.apply(spec(training, **serving))
    await s.run(60)
    s.told_before = s.writes[0]
