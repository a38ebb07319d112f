"""Plays the kubelet of one namespace on a real API server: pods run, steps end, servers become ready and count.

The Job and Deployment controllers are real; only what happens inside of pods is played.  A training measures what
the file `quality` of its commit says, as in the simulated world, and writes its report to the real MLflow.  Talks
to the API server itself, past the fault proxy: nodes have connections of their own.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from controller.api import hashes
from controller.api.conditions import timestamp
from controller.api.meta import LABEL_JOB_NAME, LABEL_REVISION, Manifest
from controller.clients.git_types import Head
from controller.clients.registry import Registry
from tests.cluster.control_plane import ControlPlane
from tests.support.plain_server import http
from tests.support.simulation import FakeGit, report_of

LOOK_S = 0.1
REQUESTS_PER_S = 50.0
PORT = 8080
MERGE = {"Content-Type": "application/merge-patch+json"}


class Player(threading.Thread):
    """The pods of one namespace; a context that ends them."""

    def __init__(self, plane: ControlPlane, namespace: str, tracking_uri: str) -> None:
        super().__init__(name=f"player-{namespace}", daemon=True)
        self.namespace = namespace
        self.history = FakeGit()
        """The commits whose quality trainings measure."""
        self.trained: Counter[str] = Counter()
        """Trainings that ran, by revision."""
        self.away_from: frozenset[str] = frozenset()
        """Names of Jobs whose pods do not get on."""
        self._tracking_uri = tracking_uri
        self._client = http(plane)
        self._ended = threading.Event()
        self._servers: dict[str, _Server] = {}
        # The whole of 127/8 is this machine; each run has a part of its own, so that runs may overlap.
        self._network = f"127.{random.randrange(10, 250)}.{random.randrange(1, 250)}"
        self.failed: list[str] = []

    def __enter__(self) -> Player:
        self.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._ended.set()
        self.join(30)
        for server in self._servers.values():
            server.stop()
        self._client.close()
        assert not self.failed, self.failed[0]

    def knows(self, commit: str, files: Mapping[str, bytes]) -> None:
        """Learn what a commit holds."""
        head = Head(commit, "refs/heads/main", "Jo Doe <jo@example.com>", datetime(2026, 3, 2, tzinfo=UTC), "", "")
        self.history.commits.append((head, dict(files)))

    def run(self) -> None:
        """Look after the pods until the end."""
        while not self._ended.wait(LOOK_S):
            try:
                self._look()
            except httpx.TransportError:
                # The API server is away; pods go on meanwhile.
                continue
            except Exception as error:
                self.failed.append(f"{type(error).__name__}: {error}")

    def _look(self) -> None:
        answer = self._client.get(f"/api/v1/namespaces/{self.namespace}/pods")
        if not answer.is_success:
            return
        pods = answer.json()["items"]
        for name in self._servers.keys() - {p["metadata"]["name"] for p in pods}:
            self._servers.pop(name).stop()
        for pod in pods:
            if "deletionTimestamp" in pod["metadata"] or pod["status"]["phase"] in ("Succeeded", "Failed"):
                continue
            if LABEL_JOB_NAME in pod["metadata"]["labels"]:
                self._job(pod)
            elif pod["metadata"]["name"] not in self._servers:
                self._serve(pod)

    def _job(self, pod: Manifest) -> None:
        name = pod["metadata"]["labels"][LABEL_JOB_NAME]
        if name in self.away_from:
            return
        self.trained[pod["metadata"]["labels"][LABEL_REVISION]] += 1
        said = self._trained(pod, name)
        steps = [c["name"] for c in pod["spec"].get("initContainers", ())]
        status = {
            "phase": "Succeeded",
            "initContainerStatuses": [_ended(step, "") for step in steps],
            "containerStatuses": [_ended(c["name"], said) for c in pod["spec"]["containers"]],
        }
        self._say(pod, status)

    def _trained(self, pod: Manifest, name: str) -> str:
        """Measure, write the report and return what the last step says."""
        answer = self._client.get(f"/api/v1/namespaces/{self.namespace}/configmaps/{name}")
        answer.raise_for_status()
        tasks = answer.json()["data"]
        fetch, evaluate = (json.loads(tasks[f"{step}.json"]) for step in ("fetch", "evaluate"))
        data = report_of(pod["metadata"]["labels"][LABEL_REVISION], fetch, evaluate, self.history)

        async def upload() -> None:
            registry = Registry(self._tracking_uri)
            await registry.upload(evaluate["run"], "mainspring", {"report.json": data})
            await registry.aclose()

        asyncio.run(upload())
        return json.dumps({"outcome": "Done", "run": evaluate["run"], "sha256": hashes.sha256(data)})

    def _serve(self, pod: Manifest) -> None:
        command = pod["spec"]["initContainers"][0]["command"]
        server = _Server(self._address(), command[command.index("--digest") + 1])
        self._servers[pod["metadata"]["name"]] = server
        now = timestamp(datetime.now(UTC))
        status = {
            "phase": "Running",
            "startTime": now,
            "podIP": server.address,
            "podIPs": [{"ip": server.address}],
            "conditions": [
                {"type": kind, "status": "True", "lastTransitionTime": now}
                for kind in ("Initialized", "ContainersReady", "Ready", "PodScheduled")
            ],
        }
        self._say(pod, status)

    def _address(self) -> str:
        taken = {server.address for server in self._servers.values()}
        return next(a for a in (f"{self._network}.{n}" for n in range(1, 255)) if a not in taken)

    def _say(self, pod: Manifest, status: Mapping[str, Any]) -> None:
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod['metadata']['name']}/status"
        body = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": status}
        answer = self._client.patch(path, content=json.dumps(body), headers=MERGE)
        if not answer.is_success and answer.status_code not in (404, 409):
            raise RuntimeError(f"{path}: {answer.status_code} {answer.text[:500]}")


def _ended(name: str, said: str) -> Manifest:
    now = timestamp(datetime.now(UTC))
    ended = {"exitCode": 0, "reason": "Completed", "message": said, "startedAt": now, "finishedAt": now}
    return {
        "name": name,
        "image": "played",
        "imageID": f"played@sha256:{'0' * 64}",
        "ready": False,
        "restartCount": 0,
        "state": {"terminated": ended},
    }


class _Server:
    """The figures of one server, which answers requests all the time."""

    def __init__(self, address: str, digest: str) -> None:
        self.address = address
        begun = time.monotonic()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                count = int((time.monotonic() - begun) * REQUESTS_PER_S)
                body = (
                    f'mainspring_requests_total{{status="200"}} {count}\n'
                    f'mainspring_request_duration_seconds_bucket{{le="0.02"}} {count}\n'
                    f'mainspring_request_duration_seconds_bucket{{le="+Inf"}} {count}\n'
                    f'mainspring_model_info{{digest="{digest}"}} 1\n'
                ).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                """Stay silent."""

        self._server = ThreadingHTTPServer((address, PORT), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Be no more."""
        self._server.shutdown()
        self._server.server_close()
