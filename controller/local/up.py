"""Local mode, running: MLflow, the runner, the router and the reconcilers of one state directory.

Killed at any moment it leaves jobs and servers running; started again it adopts them.  `stop_all` ends everything.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from controller.clients.errors import Denied
from controller.clients.signing import public_text
from controller.local.mlflow_server import MlflowServer
from controller.local.runner import Runner
from controller.local.runner_machine import OUTPUT_BYTES
from controller.local.session import Places, git_roots, note, open_store, open_world, prepare, trusted_keys
from controller.local.store import Store
from controller.reconcile.controller import Controller
from controller.reconcile.world import World
from controller.serving.lineage import KEYS_ENV

log = logging.getLogger(__name__)
Progress = Callable[[str], None]


@dataclass(slots=True)
class LocalMode:
    """Everything that runs, once started."""

    where: Places
    store: Store
    world: World
    runner: Runner
    mlflow: MlflowServer
    lock: IO[str]
    controller: Controller

    @classmethod
    async def start(cls, where: Places, *, router_port: int = 0, progress: Progress = log.info) -> LocalMode:
        """Start or adopt MLflow and the router, and open the world.

        Raises:
            Denied: reason AlreadyRunning: another controller works on this state directory.
        """
        prepare(where)
        lock = _lock(where.state / "controller.lock")
        store = open_store(where)
        mlflow = MlflowServer(where.mlflow, where.state)
        progress("starting the MLflow server (its first start makes its database)")
        tracking_uri = await asyncio.to_thread(mlflow.start, progress)
        progress(f"MLflow is at {tracking_uri}")
        note(where.state / "tracking-uri", f"{tracking_uri}\n")
        roots = ":".join(str(r) for r in git_roots(where))
        env = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
        # Only `fetch` may read Git: the mirrors hold every hold-out row, and the training must not be led there.
        fetch = {"MAINSPRING_GIT_FILE_ROOTS": roots, "MAINSPRING_MIRRORS": str(where.mirrors)}
        trusted = {KEYS_ENV: public_text(trusted_keys(where))}
        step_env = {
            "fetch": {**fetch, **data_settings(os.environ, Path.home())},
            "fetch-model": trusted,
            # Of the log's shipper, which a server starts here.
            "server": store_settings(os.environ, Path.home()),
        }
        most = output_limit(os.environ)
        runner = Runner(store, where.run, env=env, step_env=step_env, router_port=router_port, output_bytes=most)
        await runner.sync()
        world = open_world(where, store, tracking_uri=tracking_uri, router_url=runner.router_url)
        note(where.state / "router-url", f"{runner.router_url}\n")
        return cls(where, store, world, runner, mlflow, lock, Controller(world))

    async def run(self, stop: asyncio.Event) -> None:
        """Reconcile and run processes until `stop` is set."""
        tasks = [asyncio.create_task(self.controller.run(stop)), asyncio.create_task(self.runner.run(stop))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.world.close()

    async def stop_all(self) -> None:
        """End all processes: jobs, servers, router, MLflow. What is recorded stays."""
        await self.runner.stop_all()
        await asyncio.to_thread(self.mlflow.stop)

    def close(self) -> None:
        """Let go of files; processes are not touched."""
        self.store.close()
        self.lock.close()


def data_settings(environment: Mapping[str, str], home: Path) -> dict[str, str]:
    """Choose what `fetch` is told about data in S3 services: names of files and profiles, and allowed hosts.

    Never a credential itself: what a process is told is written down in the state directory.
    """
    told = ("MAINSPRING_ALLOWED_HOSTS", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION")
    files = {"AWS_SHARED_CREDENTIALS_FILE": "credentials", "AWS_CONFIG_FILE": "config"}
    # A step has a home directory of its own, so that the usual places are named.
    places = {name: environment.get(name) or str(home / ".aws" / file) for name, file in files.items()}
    found = {name: place for name, place in places.items() if Path(place).is_file()}
    return {**{name: environment[name] for name in told if environment.get(name)}, **found}


def store_settings(environment: Mapping[str, str], home: Path) -> dict[str, str]:
    """Choose what the shipper of the prediction log is told about stores: names of files, accounts and addresses.

    Never a credential itself, as with `data_settings`.
    """
    told = ("AWS_ENDPOINT_URL", "GOOGLE_APPLICATION_CREDENTIALS", "AZURE_STORAGE_ACCOUNT")
    found = {name: environment[name] for name in told if environment.get(name)}
    of_data = data_settings(environment, home)
    return {**{k: v for k, v in of_data.items() if k.startswith("AWS_")}, **found}


def output_limit(environment: Mapping[str, str]) -> int:
    """Read MAINSPRING_OUTPUT_LIMIT: bytes, or with Mi or Gi; 10 GiB when it is not set.

    Raises:
        Denied: SettingInvalid.
    """
    text = environment.get("MAINSPRING_OUTPUT_LIMIT", "")
    found = re.fullmatch(r"([1-9][0-9]{0,14})(Mi|Gi)?", text)
    if text and found is None:
        raise Denied(
            f"MAINSPRING_OUTPUT_LIMIT is {text[:40]!r}; write bytes, or a number with Mi or Gi: 10Gi",
            reason="SettingInvalid",
        )
    return int(found[1]) * {"Mi": 2**20, "Gi": 2**30}.get(found[2], 1) if found else OUTPUT_BYTES


def _lock(path: Path) -> IO[str]:
    """Take the lock that one controller holds; the kernel frees it with the process, however that ends."""
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        message = (
            f"another `mainspring up` (process {holder}) works on {path.parent}; stop it or use another --state"
        )
        raise Denied(message, reason="AlreadyRunning") from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file
