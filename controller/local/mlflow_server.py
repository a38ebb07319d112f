"""The MLflow server of local mode: started once on loopback, found again after a restart, stopped on request.

It is its own process in its own session, so that it outlives a controller that is killed; the next one adopts
it by process id and start time.  Its database and files lie in the data directory and are never deleted here.
Nothing of MLflow is imported into this process.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx

from controller.clients.errors import Unavailable

HOST: Final = "127.0.0.1"
START_S: Final = 90.0
"""Longest wait for the first answer: 6 s are normal, 12 s through the command line."""
STOP_S: Final = 10.0
PORT_S: Final = 2.0
"""Longest wait for the port of last time."""
_APP: Final = "mlflow.server.fastapi_app:app"
_MARK, _PORT = "MAINSPRING_MLFLOW", "MAINSPRING_MLFLOW_PORT"
"""By these in its environment a server is found that nobody noted."""
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


class MlflowServer:
    """One MLflow server. One owner at a time: the holder of local mode's lock."""

    def __init__(self, data_dir: Path, state_dir: Path) -> None:
        """Name the directories; nothing is started.

        Args:
            data_dir: holds `mlflow.db` and `artifacts/`; survives `state_dir`.
            state_dir: holds `mlflow.json` (process and port) and `mlflow.log`.
        """
        self._data = data_dir.absolute()
        self._state = state_dir.absolute()
        self._file = self._state / "mlflow.json"
        self._process: subprocess.Popen[bytes] | None = None
        self.log = self._state / "mlflow.log"
        """What the server wrote, for people."""

    @property
    def tracking_uri(self) -> str:
        """Address of the server; its port stays the same over restarts as long as it is free."""
        return f"http://{HOST}:{self._read().get('port', 0)}"

    def running(self) -> bool:
        """Tell whether the process that was started is alive: by process id, start time and boot."""
        saved = self._read()
        pid = int(saved.get("pid", 0))
        return pid > 0 and _identity(pid) == saved.get("identity")

    def start(self, progress: Callable[[str], None] = lambda _: None, *, deadline_s: float = START_S) -> str:
        """Start the server, or adopt the one that runs, wait until it answers, and return its address.

        **Repeat:** a server that runs and answers is adopted.

        Args:
            progress: told what is waited for, one line each, at the start and then about every five seconds.
            deadline_s: longest wait.

        Raises:
            Unavailable: MlflowNotStarted: it ended or does not answer; the message has its last words.
        """
        end = time.monotonic() + deadline_s
        if not self.running():
            self._note_forgotten()
        if self.running():
            progress(f"MLflow runs already at {self.tracking_uri}")
            self._wait(progress, end)
            return self.tracking_uri
        for directory in (self._data / "artifacts", self._state):
            directory.mkdir(parents=True, exist_ok=True)
        progress("starting MLflow (about 6 s)")
        self._spawn(self._direct(), self._direct_env())
        try:
            self._wait(progress, end)
        except Unavailable:
            # The short way depends on names inside MLflow. Should a version move them, the command line is slower
            # but documented.
            if self.running():
                raise
            progress("starting MLflow through its command line (about 12 s)")
            self._spawn(self._command_line(), {})
            self._wait(progress, end)
        return self.tracking_uri

    def stop(self) -> None:
        """End the server: politely, after ten seconds by force. **Repeat:** none running is fine."""
        saved = self._read()
        pid = int(saved.get("pid", 0))
        for how in (signal.SIGTERM, signal.SIGKILL):
            if not self.running():
                break
            with contextlib.suppress(ProcessLookupError):  # it ended between the look and the signal
                os.killpg(pid, how)
            _wait_until(lambda: not self.running(), STOP_S)
        if self._process is not None:
            self._process.poll()
        if saved:
            self._write({"port": saved.get("port", 0)})

    def _direct(self) -> list[str]:
        """Run MLflow's application in one process: half the time and half the memory of `mlflow server`."""
        port = str(self._port())
        return [sys.executable, "-m", "uvicorn", "--host", HOST, "--port", port, "--workers", "1", _APP]

    def _direct_env(self) -> dict[str, str]:
        """Say in the environment what `mlflow server` would, as of MLflow 3.17."""
        return {
            "_MLFLOW_SERVER_FILE_STORE": self._database(),
            "_MLFLOW_SERVER_REGISTRY_STORE": self._database(),
            "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(self._data / "artifacts"),
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
            "_MLFLOW_SGI_NAME": "uvicorn",
        }

    def _command_line(self) -> list[str]:
        return [
            *(
                sys.executable,
                "-m",
                "mlflow",
                "server",
                "--host",
                HOST,
                "--port",
                str(self._port()),
                "--workers",
                "1",
            ),
            *("--backend-store-uri", self._database(), "--serve-artifacts"),
            *("--artifacts-destination", str(self._data / "artifacts")),
        ]

    def _database(self) -> str:
        return f"sqlite:///{self._data / 'mlflow.db'}"

    def _port(self) -> int:
        """Return the port of last time if it is free, else a free one."""
        saved = int(self._read().get("port", 0))
        if saved:
            # Threads of a killed server hold the port a little longer; running Jobs know no other one.
            _wait_until(lambda: _free(saved), PORT_S)
        port = saved if saved and _free(saved) else _free_port()
        self._write({"port": port})
        return port

    def _spawn(self, command: list[str], more: dict[str, str]) -> None:
        settings = {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            # Scorers, gateways and their job runner execute code for whoever asks: not here.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "PYTHONUNBUFFERED": "1",
            _MARK: str(self._file),
            _PORT: str(self._read()["port"]),
            "MALLOC_ARENA_MAX": "2",
        }
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "_MLFLOW_"))}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._data,
                env={**kept, **settings, **more},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        saved = self._read()
        self._write({"port": saved["port"], "pid": self._process.pid, "identity": _identity(self._process.pid)})

    def _note_forgotten(self) -> None:
        """Note a server of ours whose starter was killed before it could: two must not share one database."""
        for pid, env in _environments():
            if env.get(_MARK) == str(self._file):
                self._write({"port": int(env[_PORT]), "pid": pid, "identity": _identity(pid)})
                return

    def _wait(self, progress: Callable[[str], None], end: float) -> None:
        """Wait until the database answers, too: the first request of all makes its tables."""
        told = time.monotonic()
        while (status := _look(self.tracking_uri)) != 200:
            now = time.monotonic()
            if status or not self.running() or now > end:
                what = f"answers {status}" if status else "does not answer" if self.running() else "ended at once"
                raise Unavailable(
                    f"MLflow {what}: {self._last_words()}; see {self.log}", reason="MlflowNotStarted"
                )
            if now - told > 5:
                progress("MLflow is still starting")
                told = now
            time.sleep(0.1)

    def _last_words(self) -> str:
        try:
            lines = self.log.read_text(errors="replace").strip().splitlines()
        except OSError:
            return "it wrote nothing"
        return lines[-1][:300] if lines else "it wrote nothing"

    def _read(self) -> dict[str, Any]:
        """Read the state file; one that is missing or torn means that nothing is known."""
        try:
            found = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self, state: dict[str, Any]) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(state))
        fresh.replace(self._file)


def _look(uri: str) -> int:
    """Return the HTTP status of a first request to MLflow's API, through no proxy; 0 while nothing answers."""
    try:
        with httpx.Client(trust_env=False, timeout=10) as client:
            answer = client.post(f"{uri}/api/2.0/mlflow/experiments/search", json={"max_results": 1})
    except httpx.HTTPError:
        return 0
    return answer.status_code


def _identity(pid: int) -> str:
    """Name a process so that no later one has the same name: its start, and the boot it is counted from.

    Empty when there is no such process, or only its corpse.
    """
    try:
        # The name of the program stands in brackets and may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = _BOOT.read_text().strip()
    except OSError:
        return _identity_by_ps(pid)
    return "" if fields[0] in ("Z", "X") else f"{boot}/{fields[19]}"


def _environments() -> Iterator[tuple[int, dict[str, str]]]:
    """Read the environments of this user's leaders of sessions; none where there is no /proc."""
    for entry in sorted(Path("/proc").glob("[0-9]*")):
        with contextlib.suppress(OSError):  # it ended meanwhile, or is another user's
            pid = int(entry.name)
            pairs = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
            if os.getsid(pid) == pid:
                yield pid, dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def _identity_by_ps(pid: int) -> str:
    """Do the same where there is no /proc, or the process is gone."""
    if Path("/proc/self/stat").exists():
        return ""
    found = subprocess.run(
        ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False, timeout=5
    )
    state, _, started = found.stdout.strip().partition(" ")
    return "" if not state or state.startswith("Z") else started.strip()


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _wait_until(done: Callable[[], bool], seconds: float) -> None:
    """Wait for a condition, or until the time is over."""
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.05)
