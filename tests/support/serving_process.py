"""A model server as people run it: a process on a free port, ended at the end of the test whatever happens."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx

DEADLINE_S = 90.0
JSON = {"content-type": "application/json"}


class Process:
    """A server; `said` is its termination message, `url` where it listens once it is ready."""

    def __init__(self, model: Path, digest: str, tmp_path: Path, *more: str, **environment: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.said = tmp_path / "said.json"
        self.url = f"http://127.0.0.1:{self.port}"
        names = {"MODEL": "churn", "REVISION": "churn-0123456789", "VERSION": "7", "COMMIT": "a" * 40}
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "controller.serving.server", "--model", model, "--digest", digest, *more],
            env={
                **os.environ,
                "PORT": str(self.port),
                "MAINSPRING_TERMINATION_LOG": str(self.said),
                **{f"MAINSPRING_{k}": v for k, v in names.items()},
                **environment,
            },
            stderr=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> httpx.Response:
        """Wait until /health/ready answers, and return the answer."""
        until = time.monotonic() + DEADLINE_S
        while time.monotonic() < until and self.popen.poll() is None:
            try:
                return httpx.get(f"{self.url}/health/ready", timeout=5)
            except httpx.TransportError:
                continue
        raise AssertionError(f"the server did not answer: {self.popen.communicate(timeout=5)[1]}")

    def until_ready(self) -> None:
        """Wait until the server is ready."""
        until = time.monotonic() + DEADLINE_S
        while self.ready().status_code != 200:
            assert time.monotonic() < until, self.ready().text

    def connect(self, timeout: float = 30.0) -> socket.socket:
        """Open a connection for whatever is no proper request."""
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.popen.kill()
        self.popen.communicate()


def drained_under_load(process: Process, body: bytes, clients: int) -> list[int | str]:
    """Tell a server to end while clients ask it without a pause; returns every status or error that they saw.

    Each client asks until an answer tells it to connect elsewhere, or a request fails.
    """
    results: list[int | str] = []
    busy = threading.Barrier(clients + 1)

    def load() -> None:
        with httpx.Client(base_url=process.url, timeout=30) as client:
            for n in range(100_000):
                try:
                    answer = client.post(
                        "/invocations", content=body, headers={"content-type": "application/json"}
                    )
                except httpx.HTTPError as error:
                    results.append(repr(error))
                    return
                results.append(answer.status_code)
                if n == 5:
                    busy.wait(60)
                if answer.headers.get("connection") == "close":
                    return

    threads = [threading.Thread(target=load) for _ in range(clients)]
    for thread in threads:
        thread.start()
    busy.wait(60)
    process.popen.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(60)
    return results
