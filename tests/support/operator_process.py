"""The operator as a process of its own against a real API server, for tests: start, ask, signal, read its log."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from controller.api.meta import Key, Manifest
from controller.clients.kube import KubeClient

ROOT = Path(__file__).parents[2]
POLL_S = 0.1


class OperatorProcess:
    """One replica; a context that kills what still runs at its end."""

    def __init__(self, directory: Path, kubeconfig: Path, name: str, **settings: str) -> None:
        """Start it; `settings` are variables without their prefix."""
        self.log = directory / f"{name}.log"
        env = {k: v for k, v in os.environ.items() if not k.startswith(("MAINSPRING_", "KUBE"))}
        given = {
            "TRACKING_URI": "http://127.0.0.1:9",
            "SIGNING_KEY": str(directory / "key.pem"),
            "MIRRORS": str(directory / f"{name}-mirrors"),
            "METRICS_HOST": "127.0.0.1",
            "METRICS_PORT": "0",
            "HEALTH_PORT": "0",
            "IDENTITY": name,
            **settings,
        }
        env |= {f"MAINSPRING_{key}": value for key, value in given.items()} | {"KUBECONFIG": str(kubeconfig)}
        with self.log.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "controller.reconcile"], cwd=ROOT, env=env, stdout=out, stderr=out
            )

    def __enter__(self) -> OperatorProcess:
        return self

    def __exit__(self, *args: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def ask(self, path: str) -> httpx.Response | None:
        """Ask the figures' port or the probes'; None while nobody listens."""
        found = re.search(r"figures at port (\d+), probes at port (\d+)", self.said())
        if found is None:
            return None
        port = found[1] if path == "/metrics" else found[2]
        try:
            return httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False, timeout=5)
        except httpx.HTTPError:
            return None

    def ready_as(self, role: str) -> bool:
        answer = self.ask("/readyz")
        return answer is not None and answer.text == f"{role}\n"

    def terminate(self) -> float:
        """Send SIGTERM and return how long the end took, seconds."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=30)
        return time.monotonic() - begun


def wait_until(holds: Callable[[], Any], what: str, *, within_s: float = 30.0) -> Any:
    """Wait for a condition and return what it returned."""
    deadline = time.monotonic() + within_s
    while True:
        if found := holds():
            return found
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what}"
        # The look itself is what is waited for; the pause only spares the two cores.
        time.sleep(POLL_S)


def with_client(kubeconfig: Path, act: Callable[[KubeClient], Any]) -> Any:
    """Call one method of a client of its own."""

    async def go() -> Any:
        client = KubeClient.connect(kubeconfig)
        try:
            return await act(client)
        finally:
            await client.aclose()

    return asyncio.run(go())


def condition(manifest: Manifest | None, type_: str) -> Manifest:
    """Read one condition; empty when there is none."""
    conditions = ((manifest or {}).get("status") or {}).get("conditions", ())
    return next((c for c in conditions if c["type"] == type_), {})


def ready(kubeconfig: Path, key: Key) -> Manifest:
    """Read the condition Ready of an object, as of its present generation."""
    found = with_client(kubeconfig, lambda kube: kube.get(key))
    said = condition(found, "Ready")
    return said if said.get("observedGeneration") == (found or {}).get("metadata", {}).get("generation") else {}
