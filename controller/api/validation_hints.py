"""Warnings: what is right and may still surprise.  They never change the outcome of a check.

Pure functions over a manifest that may be wrong in any way, so every step looks before it leaps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from controller.api.meta import Manifest
from controller.api.pods import reachable
from controller.api.strictyaml import Path

Found = tuple[Path, str]


def warnings_of(manifest: Manifest) -> Iterator[Found]:
    """Find what deserves a warning: (path, message)."""
    if "status" in manifest:
        yield ("status",), "status is written by the controller; what the file says is ignored"
    if manifest.get("kind") != "ModelSpec":
        return
    image = _at(manifest, "spec", "training", "image")
    if isinstance(image, str) and "@sha256:" not in image:
        yield (
            ("spec", "training", "image"),
            "ImageNotPinned: without @sha256:… the same revision may be trained by another image tomorrow",
        )
    yield from _weights(manifest)


def _weights(manifest: Manifest) -> Iterator[Found]:
    path = ("spec", "serving", "canary", "stepWeights")
    weights, replicas = _at(manifest, *path), _at(manifest, "spec", "serving", "minReplicas")
    replicas = 1 if replicas is None else replicas
    route = _at(manifest, "spec", "serving", "route")
    if route is not None or not isinstance(weights, list) or not _whole(replicas, 1, 100):
        return
    missed = [w for w in weights if _whole(w, 1, 99) and abs(reachable(replicas, w) - w) > 1]
    if missed:
        got = ", ".join(f"{w} % becomes {reachable(replicas, w)} %" for w in missed)
        servers = "1 server" if replicas == 1 else f"{replicas} servers"
        yield (
            path,
            f"with {servers} of the champion (minReplicas) and no route, whole servers split the traffic: {got}; "
            "local mode and routes reach every weight",
        )


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _at(value: Any, *path: str) -> Any:
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value
