"""Local mode's stand-in for kubelet, Job and Deployment controllers, kube-proxy and gateway.

Level-triggered: `sync` makes the processes of this machine match the objects and writes what is; killing the
controller anywhere in it is safe, the next `sync` of any controller goes on.  Processes outlive the controller;
only `stop_all` ends them.  Decides nothing about models.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from controller.api.meta import Key, Manifest
from controller.clients.errors import ClientError
from controller.local.processes import PodDirectory, Seen
from controller.local.router_config import LOOK_EVERY_S
from controller.local.runner_jobs import has_ended, keep_job
from controller.local.runner_machine import OUTPUT_BYTES, Machine, age_of
from controller.local.runner_router import HOST, RouterKeeper
from controller.local.runner_servers import Pair, Probes, Server, keep_deployment
from controller.reconcile.kube import Kube

KINDS = ("Job", "Deployment", "Service", "HTTPRoute", "ConfigMap")
BUSY_S = 0.2
"""How long a pass waits for news while something runs."""
IDLE_S = 1.0
DRAIN_S = 5.0
"""Longest wait for the requests of a server that is to stop."""
KILL_AFTER_S = 5.0
"""Seconds after the grace period before a shim that does not end is killed."""
STOP_S = 10.0
"""Longest grace at Ctrl-C."""

log = logging.getLogger("mainspring.runner")


class Runner:
    """Runs the Jobs, Deployments and routes of one object store on this machine."""

    def __init__(
        self,
        kube: Kube,
        root: Path,
        *,
        env: Mapping[str, str] | None = None,
        step_env: Mapping[str, Mapping[str, str]] | None = None,
        python: str = sys.executable,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        router_port: int = 0,
        output_bytes: int = OUTPUT_BYTES,
    ) -> None:
        """Prepare; nothing runs before the first `sync`.

        Args:
            kube: the object store.
            root: directory of everything that runs, made if missing; one store has one.
            env: what every container gets besides its spec; nothing else of our environment but PATH.
            step_env: what containers of these names get besides, such as where the mirrors are; they must be
                names of our own steps, never of a container that runs the user's code.
            python: what `python` means in a command.
            clock: the present moment.
            router_port: 0 takes the port of last time, at first any that is free.
            output_bytes: most bytes that one step of a Job may write; `fetch` is not bounded.

        Raises:
            Unavailable: reason NoFreePort or PlatformNotSupported.
        """
        self._machine = Machine(
            kube=kube,
            root=root,
            python=python,
            extra_env=dict(env or {}),
            clock=clock,
            step_env=dict(step_env or {}),
            output_bytes=output_bytes,
        )
        self._kube = kube
        self._router = RouterKeeper(self._machine, router_port)
        self._probes = Probes()

    @property
    def router_url(self) -> str:
        """Where the router listens, `http://127.0.0.1:<port>`."""
        return f"http://{HOST}:{self._router.port}"

    def url(self, namespace: str, model: str) -> str:
        """Return where a model answers."""
        return f"{self.router_url}/{namespace}/{model}"

    def log_path(self, namespace: str, pod: str, container: str) -> Path:
        """Return the file with a container's output; it may not be there (yet)."""
        return self._machine.directories.pod(namespace, pod).path / f"{container}.log"

    async def run(self, stop: asyncio.Event) -> None:
        """Sync on every change, and often while something runs, until `stop` is set; processes stay."""
        wake = asyncio.Event()
        tasks = [asyncio.create_task(self._watch(wake)), asyncio.create_task(_set_after(stop, wake))]
        try:
            while not stop.is_set():
                wake.clear()
                busy = True
                try:
                    busy = await self.sync()
                except (ClientError, OSError) as error:
                    log.warning("this pass could not be finished, the next one goes on: %s", error)
                with contextlib.suppress(TimeoutError):  # nothing woke it: time to look
                    async with asyncio.timeout(BUSY_S if busy else IDLE_S):
                        await wake.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.close()

    async def _watch(self, wake: asyncio.Event) -> None:
        while True:
            try:
                async for _ in self._kube.watch(KINDS):
                    wake.set()
            except ClientError as error:
                log.warning("the watch broke off and is started again: %s", error)
                await asyncio.sleep(IDLE_S)

    async def close(self) -> None:
        """Close connections; processes are not touched."""
        await self._probes.close()
        await self._router.close()

    async def sync(self) -> bool:
        """Make one pass.

        Returns:
            Whether something runs or is on its way, so that another pass should follow soon.

        Raises:
            ClientError: the store does not answer.
        """
        async with self._machine.alone():
            return await self._pass()

    async def _pass(self) -> bool:
        machine = self._machine
        if not machine.frozen:
            machine.directories.clear_drafts()
        jobs = await self._kube.list("Job")
        deployments = await self._kube.list("Deployment")
        found = await self._kube.list("Pod")
        pods = {(p["metadata"]["namespace"], p["metadata"]["name"]): p for p in found}
        present = self._present()
        busy = False
        for job in jobs:
            with _told(job):
                busy |= await keep_job(machine, job, pods)
        taken = {seen.plan.port for _, seen in present if seen.plan.port} | {self._router.port}
        servers: list[Server] = []
        for deployment in deployments:
            mine = [pair for pair in present if pair[1].plan.owner == deployment["metadata"]["uid"]]
            with _told(deployment):
                servers += await keep_deployment(machine, deployment, mine, pods, self._probes, taken)
        owners = {m["metadata"]["uid"] for m in (*jobs, *deployments)}
        for directory, seen in present:
            if seen.plan.owner not in owners and not seen.stop and not machine.frozen:
                directory.mark_stop({"at": time.monotonic(), "reason": "Deleted"})
        self._router.write(await self._kube.list("HTTPRoute"), await self._kube.list("Service"), servers)
        if machine.frozen:
            return False
        self._router.keep()
        leaving = [pair for pair in self._present() if pair[1].stop]
        await self._let_go(leaving)
        await self._sweep(jobs, deployments, pods)
        self._probes.forget((d.namespace, d.name) for d, _ in present)
        return busy or bool(servers) or bool(leaving)

    def _present(self) -> list[Pair]:
        found = []
        for directory in self._machine.directories.present():
            seen = directory.look()
            if seen is not None:
                found.append((directory, seen))
            elif directory.exists():
                log.warning("%s has no readable plan; it is removed", directory.path)
                directory.kill()
                directory.remove(self._machine.directories.trash)
        return found

    async def _let_go(self, leaving: list[Pair]) -> None:
        """Stop pods in order: out of the router, no request left, SIGTERM, SIGKILL, removed."""
        inflight: dict[str, int] | None = {}
        if any(_waits_for_router(seen) for _, seen in leaving):
            inflight = await self._router.inflight()
        for directory, seen in leaving:
            if seen.state != "Running":
                directory.kill()
                if not directory.stragglers():
                    await self._kube.delete(Key("Pod", directory.namespace, directory.name))
                    directory.remove(self._machine.directories.trash)
            elif "terminated" in seen.stop:
                if age_of(seen.stop, "terminated") > seen.plan.grace + KILL_AFTER_S:
                    directory.kill()
            elif not _waits_for_router(seen) or _is_drained(seen, inflight):
                directory.mark_stop({**seen.stop, "terminated": time.monotonic()})
                directory.terminate()

    async def _sweep(
        self,
        jobs: tuple[Manifest, ...],
        deployments: tuple[Manifest, ...],
        pods: Mapping[tuple[str, str], Manifest],
    ) -> None:
        """Delete Pod objects behind which there is no directory; those of ended Jobs are history and stay."""
        ended = {job["metadata"]["uid"] for job in jobs if has_ended(job)}
        ours = {m["metadata"]["uid"] for m in (*jobs, *deployments)} - ended
        for (namespace, name), pod in pods.items():
            owners = {ref["uid"] for ref in pod["metadata"].get("ownerReferences", ())}
            waiting = pod.get("status", {}).get("phase") == "Pending"
            if owners & ours and not waiting and not self._machine.directories.pod(namespace, name).exists():
                await self._kube.delete(Key("Pod", namespace, name), uid=pod["metadata"]["uid"])

    async def stop_all(self) -> None:
        """End every process, router first: SIGTERM, then SIGKILL after at most ten seconds; write what is.

        A Job that ran shows as `NodeShutdown`, which costs no attempt.  The runner is of no use afterwards.
        """
        self._machine.frozen = True
        async with self._machine.alone():
            await _end([self._router.pod])
            await _end([directory for directory, seen in self._present() if seen.state != "Done"])
            await self._pass()
        await self.close()


async def _end(directories: list[PodDirectory]) -> None:
    """End the processes of pods, all at the same time."""
    until = time.monotonic() + STOP_S
    told: set[PodDirectory] = set()
    while waiting := [d for d in directories if d.busy()]:
        for directory in waiting:
            if time.monotonic() > until:
                directory.kill()
            elif directory not in told and directory.terminate():
                told.add(directory)
        await asyncio.sleep(LOOK_EVERY_S)
    for directory in directories:
        while directory.stragglers():
            directory.kill()
            await asyncio.sleep(LOOK_EVERY_S)


def _waits_for_router(seen: Seen) -> bool:
    return seen.plan.port is not None and seen.state == "Running" and "terminated" not in seen.stop


def _is_drained(seen: Seen, inflight: Mapping[str, int] | None) -> bool:
    """Tell whether no request is left at a server that the router does not know any more."""
    if age_of(seen.stop) > DRAIN_S:
        return True
    return inflight is not None and not inflight.get(f"{HOST}:{seen.plan.port}")


@contextlib.contextmanager
def _told(manifest: Manifest) -> Iterator[None]:
    """Keep one object's trouble from delaying the others."""
    try:
        yield
    except (ClientError, OSError, KeyError, TypeError, ValueError) as error:
        meta = manifest["metadata"]
        what = f"{manifest['kind']}/{meta['namespace']}/{meta['name']}"
        log.warning("%s could not be run in this pass: %s: %s", what, type(error).__name__, error)


async def _set_after(first: asyncio.Event, then: asyncio.Event) -> None:
    await first.wait()
    then.set()
