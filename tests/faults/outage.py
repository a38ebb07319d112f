"""The API server goes away in the middle of a training and comes back later (F11)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from controller.api.meta import Manifest
from tests.cluster.control_plane import ControlPlane
from tests.faults.ending import settled
from tests.faults.scene import Scene, Stuck
from tests.support.operator_process import POLL_S

STANDS_BY_WITHIN_S = 15.0
"""Ten seconds without a renewal, and a little."""


@dataclass
class Outage:
    """What it came to."""

    seconds_away: float
    stood_by_s: float = 0.0
    """When the leader stood by, after the beginning."""
    converged_s: float = 0.0
    """When all was as without an outage, after the end."""
    looks: int = 0
    """How often the process was asked whether it lives, while the API server was away."""
    wrong: list[str] = field(default_factory=list)


def outage(plane: ControlPlane, namespace: str, directory: Path, tracking_uri: str, seconds: float) -> Outage:
    """Be served, begin a training, be away, come back, and go through the rest of the story."""
    found = Outage(seconds)
    with Scene(plane, namespace, directory, tracking_uri) as scene:
        scene.operator()
        scene.begin()
        try:
            scene.play(0)
            _away(scene, found)
            scene.play(2)
            scene.play(3)
            expected = {
                "champion": "first",
                "ready": "Succeeded",
                "trainings": {"better": 1, "first": 1, "worse": 1},
            }
            found.wrong += settled(scene, expected)
        except Stuck as stuck:
            found.wrong.append(str(stuck)[:4000])
    return found


def _away(scene: Scene, found: Outage) -> None:
    """Be away while the second training runs; the process must live on, and what serves must not be touched."""
    process = scene.operators["operator"]
    before = _servers(scene)
    commit = scene.commit(1)
    scene.wait(lambda: len(scene.all("jobs")) == 2, "the second training has begun")
    begun = time.monotonic()
    scene.proxy.away()
    while time.monotonic() - begun < found.seconds_away:
        alive = process.ask("/healthz")
        if alive is None or alive.text != "alive\n":
            found.wrong.append(f"after {time.monotonic() - begun:.0f} s: {alive.text if alive else 'no answer'}")
            break
        found.looks += 1
        if not found.stood_by_s and process.ready_as("standby"):
            found.stood_by_s = time.monotonic() - begun
        scene.tend()
        # The outage itself is what is waited for.
        time.sleep(max(POLL_S, found.seconds_away / 600))
    if not 0 < found.stood_by_s < STANDS_BY_WITHIN_S:
        found.wrong.append(f"the leader stood by after {found.stood_by_s:.1f} s")
    if _servers(scene) != before:
        found.wrong.append("the servers were touched while the API server was away")
    scene.proxy.back()
    back = time.monotonic()
    scene.wait(lambda: scene.has(commit, "GateFailed"), "the verdict after the return", 60)
    found.converged_s = time.monotonic() - back
    scene.roles[scene.model()["status"]["source"]["wanted"]] = "worse"
    if process.process.poll() is not None or scene.operators["operator"] is not process:
        found.wrong.append("the process did not outlive it")


def _servers(scene: Scene) -> list[tuple[str, str]]:
    def of(kind: str, manifest: Manifest) -> tuple[str, str]:
        return kind, str(manifest["metadata"]["uid"])

    pods = [p for p in scene.all("pods") if "mainspring.dev/deployment" in p["metadata"]["labels"]]
    return sorted([*(of("pod", p) for p in pods), *(of("deployment", d) for d in scene.all("deployments"))])
