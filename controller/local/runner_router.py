"""Keeps the router running and tells it where the servers are.

The router is a process like a server: under a shim, adopted by the next controller, started again when it died,
always on the same port.  Its table is made from HTTPRoutes, Services and the servers that are ready.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx

from controller.api.meta import Manifest
from controller.clients.errors import Unavailable
from controller.local.pods import Plan, plan_pod
from controller.local.processes import PodDirectory
from controller.local.router_config import Backend, dump
from controller.local.runner_machine import Machine, free_port, is_free, template_hash
from controller.local.runner_servers import Server
from controller.local.shim import write_json

HOST = "127.0.0.1"
HEALTH_TIMEOUT_S = 1.0
GRACE_S = 10


class RouterKeeper:
    """The one router of a root directory."""

    def __init__(self, machine: Machine, port: int) -> None:
        """Take a port (0: the one of last time, or a free one) and remember it in the root directory.

        Raises:
            Unavailable: no port is free.
        """
        self._machine = machine
        self._home = machine.root / "router"
        self._home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._pod = PodDirectory(self._home / "default" / "router")
        self._wanted = port
        self._written = ""
        self._client: httpx.AsyncClient | None = None
        self.port = port or self._remembered() or self._new_port()
        self._remember()

    @property
    def config(self) -> Path:
        """The file with the routes."""
        return self._home / "routes.json"

    @property
    def pod(self) -> PodDirectory:
        """Where the router's process lives."""
        return self._pod

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def write(self, routes: Iterable[Manifest], services: Iterable[Manifest], servers: Iterable[Server]) -> None:
        """Write the table if it changed; a reader sees the old file or the new one."""
        by_key = {(s["metadata"]["namespace"], s["metadata"]["name"]): s for s in services}
        ready = [server for server in servers if server.ready]
        table = {}
        for route in routes:
            namespace, name = route["metadata"]["namespace"], route["metadata"]["name"]
            rules = route["spec"].get("rules") or [{}]
            table[f"{namespace}/{name}"] = [
                Backend(
                    ref["name"], int(ref.get("weight", 1)), _endpoints(by_key.get((namespace, ref["name"])), ready)
                )
                for ref in rules[0].get("backendRefs", [])
            ]
        # Every Service has a path of its own too: servers of a challenger ask the champion's there.
        for (namespace, name), service in by_key.items():
            table.setdefault(f"{namespace}/{name}", [Backend(name, 1, _endpoints(service, ready))])
        text = dump(table)
        if text == self._written or (self.config.exists() and self.config.read_text(encoding="utf-8") == text):
            self._written = text
            return
        temporary = self.config.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self.config)
        self._written = text

    def keep(self) -> None:
        """Start the router, or start it again when it is gone or of another version."""
        seen, plan = self._pod.look(), self._plan()
        if seen is not None and (seen.state in ("Lost", "Done") or seen.plan.template != plan.template):
            self._pod.kill()
            self._pod.remove(self._machine.directories.trash)
            seen = None
        if seen is None:
            if not self._wanted and not is_free(self.port):
                self.port = self._new_port()
                self._remember()
                plan = self._plan()
            for draft in self._pod.path.parent.glob(".draft-*"):  # of a controller that was killed in `prepare`
                shutil.rmtree(draft, ignore_errors=True)
            self._pod.prepare(plan)
        if seen is None or seen.state == "New":
            self._pod.start()

    async def inflight(self) -> dict[str, int] | None:
        """Ask how many requests each endpoint works on, under the table as written; None: no router says so."""
        if self._client is None:
            limits = httpx.Limits(max_keepalive_connections=0)
            self._client = httpx.AsyncClient(
                timeout=HEALTH_TIMEOUT_S,
                limits=limits,
                trust_env=False,
                verify=False,  # noqa: S501  # plain http
            )
        try:
            answer = await self._client.get(f"http://{HOST}:{self.port}/_router/healthz")
            found: dict[str, Any] = answer.json()
            generation = json.loads(self._written or "{}").get("generation")
            return (
                {str(k): int(v) for k, v in found["inflight"].items()}
                if found["generation"] == generation
                else None
            )
        except (httpx.HTTPError, ValueError, KeyError):
            return None

    def _plan(self) -> Plan:
        command = ["python", "-m", "controller.local.router", "--config", str(self.config)]
        command += ["--host", HOST, "--port", str(self.port)]
        template = {
            "spec": {
                "terminationGracePeriodSeconds": GRACE_S,
                "containers": [{"name": "router", "image": self._machine.python, "command": command}],
            }
        }
        return plan_pod(
            template,
            self._machine.place(self._pod.path),
            owner="router",
            template_hash=template_hash(template),
            restart=True,
            deadline=None,
            config_map=lambda _: None,
        )

    def _remembered(self) -> int:
        try:
            return int(json.loads((self._home / "port.json").read_bytes())["port"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def _remember(self) -> None:
        if self._remembered() != self.port:
            write_json(str(self._home / "port.json"), {"port": self.port})

    def _new_port(self) -> int:
        try:
            return free_port(set())
        except OSError as error:
            raise Unavailable(f"the router cannot start: {error}", reason="NoFreePort") from error


def _endpoints(service: Manifest | None, ready: list[Server]) -> tuple[str, ...]:
    """List the ready servers that a Service selects."""
    selector = (service or {}).get("spec", {}).get("selector", {})
    if service is None or not selector:
        return ()
    namespace = service["metadata"]["namespace"]
    chosen = [s for s in ready if s.namespace == namespace and selector.items() <= s.labels.items()]
    return tuple(f"{HOST}:{server.port}" for server in sorted(chosen, key=lambda s: s.name))
