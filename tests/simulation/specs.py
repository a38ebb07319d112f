"""What people ask for in a walk: the files of the first commit, a ModelSpec, a ModelRepository.

`truth.py` knows how to judge these and nothing else; a new kind of gate or step here needs a judge there.
"""

from __future__ import annotations

from typing import Any

import yaml

from controller.api.meta import API_VERSION, Manifest
from tests.support.simulation import URL

FIRST = {"train.py": b"fit()", "quality": b"60", "data.csv": b"1,2", "README.md": b"hello"}

BROKEN = f"apiVersion: {API_VERSION}\nkind: [".encode()
"""A file of ours that cannot be read; without the first line it would be anybody's."""


def spec(name: str, namespace: str = "default", **changes: Any) -> Manifest:
    """Build a ModelSpec of the walk; beside the namespace `default` its environment has a name of its own."""
    canary = {
        "stepWeights": [10, 50],
        "interval": "60s",
        "progressDeadlineSeconds": 600,
        "analysis": [{"name": "errors", "metric": "request-error-rate", "max": 0.01, "minRequests": 20}],
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelSpec",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            **({} if namespace == "default" else {"environment": "live"}),
            "source": {"url": URL, "ref": {"branch": "main"}, "paths": ["train.py", "quality"], "interval": "5s"},
            "data": [{"name": "train", "path": "data.csv"}],
            "columns": {"target": "bikers"},
            "training": {"command": ["python", "train.py"], "backoffLimit": 1},
            "gates": [
                {"name": "good-enough", "metric": "rmse", "max": 100},
                {"name": "not-worse", "metric": "rmse", "champion": {"margin": 0, "mode": "Absolute"}},
            ],
            "serving": {"minReplicas": 1, "canary": canary},
            "suspend": False,
            **changes,
        },
    }


def repository() -> Manifest:
    """Build the ModelRepository of the walk."""
    what = {"url": URL, "ref": {"branch": "main"}, "path": "models", "interval": "5s", "prune": True}
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelRepository",
        "metadata": {"name": "team", "namespace": "default"},
        "spec": what,
    }


def file(name: str, **changes: Any) -> bytes:
    """Write a ModelSpec as a file of the repository."""
    built = spec(name, **changes)
    built["metadata"] = {"name": name}
    return yaml.safe_dump(built).encode()
