"""What the runner's tests share: a store in a file, manifests, waiting for a condition, other controllers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from controller.api.meta import API_VERSIONS, Key
from controller.local.runner import Runner
from controller.local.store import Store
from tests.support.processes import is_alive

DEADLINE_S = 30.0
SERVER = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    def answer(self):
        length = int(self.headers.get("content-length") or 0)
        self.rfile.read(length)
        body = (os.environ["NAME"] + " " + self.path).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_GET = do_POST = answer
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
CONTROLLER = """
import asyncio, sys
from pathlib import Path
from controller.local.runner import Runner
from controller.local.store import Store
async def main():
    await Runner(Store.open(Path(sys.argv[1]) / "store.db"), Path(sys.argv[1]) / "run").run(asyncio.Event())
asyncio.run(main())
"""


class World:
    """One state directory with its store; runners come and go."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = Store.open(path / "store.db")
        self.root = path / "run"
        self.runner = self.new_runner()

    def new_runner(self, **options) -> Runner:
        return Runner(self.store, self.root, **options)

    @asynccontextmanager
    async def running(self, *runners):
        stop = asyncio.Event()
        tasks = [asyncio.create_task(r.run(stop)) for r in runners or (self.runner,)]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*tasks)

    def controller_process(self) -> subprocess.Popen:
        """Start a controller that can be killed with SIGKILL."""
        return subprocess.Popen([sys.executable, "-c", CONTROLLER, str(self.path)])

    async def job(self, name, *containers, **spec) -> None:
        volumes = spec.pop("volumes", [{"name": "shared", "emptyDir": {}}])
        pod = {"initContainers": list(containers[:-1]), "containers": [containers[-1]], "volumes": volumes}
        pod |= spec.pop("pod", {})
        await self.store.apply(manifest("Job", name, {"backoffLimit": 0, **spec, "template": {"spec": pod}}))

    async def servers(self, name, replicas=1, *, script=SERVER, **env) -> None:
        labels = {"mainspring.dev/deployment": name}
        main = {
            "name": "server",
            "image": "runtime",
            "command": ["python", "-c", script],
            "env": [{"name": "NAME", "value": name}] + [{"name": k, "value": v} for k, v in env.items()],
            "ports": [{"containerPort": 8080}],
            "readinessProbe": {"httpGet": {"path": "/health/ready", "port": 8080}},
        }
        pod = {"terminationGracePeriodSeconds": 5, "containers": [main]}
        template = {"metadata": {"labels": labels}, "spec": pod}
        selector = {"matchLabels": labels}
        await self.store.apply(
            manifest("Deployment", name, {"replicas": replicas, "selector": selector, "template": template})
        )
        await self.store.apply(manifest("Service", name, {"selector": labels, "ports": [{"port": 8080}]}))

    async def route(self, model, **weights) -> None:
        refs = [{"name": n, "port": 8080, "weight": w} for n, w in weights.items()]
        await self.store.apply(manifest("HTTPRoute", model, {"rules": [{"backendRefs": refs}]}))

    async def get(self, kind, name):
        return await self.store.get(Key(kind, "default", name))

    async def status(self, kind, name):
        return ((await self.get(kind, name)) or {}).get("status", {})

    async def job_ended(self, name):
        async def ended():
            return (await self.status("Job", name)).get("conditions")

        return (await until(ended, f"Job {name} ends"))[0]

    async def ready(self, name, count):
        async def enough():
            status = await self.status("Deployment", name)
            return status.get("readyReplicas") == status.get("replicas") == status.get("updatedReplicas") == count

        await until(enough, f"{count} servers of {name} are ready")

    async def pods(self, name):
        """Return the pods of a Deployment by name."""
        found = await self.store.list("Pod", labels={"mainspring.dev/deployment": name})
        return {pod["metadata"]["name"]: pod for pod in found}

    def pid_of(self, pod, container):
        return int(json.loads((self.root / "pods" / "default" / pod / f"{container}.run.json").read_text())["pid"])

    def shim_of(self, pod):
        return int(json.loads((self.root / "pods" / "default" / pod / "shim.json").read_text())["pid"])

    def routed(self, model):
        """Return how many endpoints each backend of a model has, as the router was told."""
        try:
            table = json.loads((self.root / "router" / "routes.json").read_text())["routes"]
        except FileNotFoundError:
            return {}
        return {b["name"]: len(b["endpoints"]) for b in table.get(f"default/{model}", [])}

    async def router_answers(self):
        async def healthy():
            try:
                async with httpx.AsyncClient() as client:
                    return (await client.get(f"{self.runner.router_url}/_router/healthz")).status_code == 200
            except httpx.HTTPError:
                return False

        await until(healthy, "the router answers")


def manifest(kind, name, spec):
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": API_VERSIONS[kind], "kind": kind, "metadata": meta, "spec": spec}


def step(name, code, **fields):
    """Build a container that runs Python code, with the volume `shared` at /shared."""
    mounts = [{"name": "shared", "mountPath": "/shared"}]
    return {"name": name, "image": "runtime", "command": ["python", "-c", code], "volumeMounts": mounts, **fields}


async def until(condition, what, seconds=DEADLINE_S):
    """Wait for a condition, awaitable or not; returns its value, fails with what did not happen."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        found = await found if asyncio.iscoroutine(found) else found
        if found:
            return found
        assert time.monotonic() < end, f"did not happen within {seconds} s: {what}"
        await asyncio.sleep(0.02)


def processes_in(path):
    """List the processes that have something to do with a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                if str(path).encode() in text and is_alive(int(entry.name)):
                    found.append((int(entry.name), (entry / "cmdline").read_bytes()))
            except OSError:
                continue
    return found
