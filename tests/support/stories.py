"""What all stories share: the ModelSpec and the files that they begin with, how one is told, its golden file."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from controller.api.meta import API_VERSION, Manifest
from tests.support.simulation import URL, Simulation

S = TypeVar("S", bound=Simulation)
FIRST = {"train.py": b"fit()", "quality": b"60", "data.csv": b"1,2", "README.md": b"hello"}


def spec(**changes: Any) -> Manifest:
    """Build the ModelSpec of the stories; keyword arguments replace fields of its spec."""
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelSpec",
        "metadata": {"name": "bikes", "namespace": "default"},
        "spec": {
            "source": {"url": URL, "ref": {"branch": "main"}, "paths": ["train.py", "quality"], "interval": "5s"},
            "data": [{"name": "train", "path": "data.csv"}],
            "columns": {"target": "bikers"},
            "training": {"command": ["python", "train.py"]},
            "gates": [
                {"name": "good-enough", "metric": "rmse", "max": 100},
                {"name": "not-worse", "metric": "rmse", "champion": {"margin": 0, "mode": "Absolute"}},
            ],
            "serving": {"canary": {"stepWeights": [10, 50], "interval": "60s"}},
            **changes,
        },
    }


def tell(story: Callable[[S], Awaitable[None]], simulation: S) -> tuple[S, dict[str, object]]:
    """Tell a story in a simulated world; returns the world and its end."""

    async def go() -> dict[str, object]:
        await story(simulation)
        return await simulation.end_state()

    return simulation, asyncio.run(go())


def golden(file: Path, transcript: str, request: pytest.FixtureRequest) -> str:
    """Read a golden file, after writing it anew where that is asked for."""
    if request.config.getoption("--update-golden"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(transcript)
    return file.read_text()
