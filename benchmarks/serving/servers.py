"""How each server of the measurement is started, asked and ended, and what it takes, by the kernel's account."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from controller.clients import artifacts

PEERS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mainspring" / "bench-peers"
"""An environment of its own for the servers that are only measured."""
PEER_PACKAGES = ("mlserver>=1.7,<2", "mlserver-sklearn>=1.7,<2", "bentoml>=1.4,<2")
START_S = 180.0
ROOT = Path(__file__).parents[2]
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Kind:
    """One server: its command (`{port}` is filled in), what it is told, and where and with what it is asked."""

    name: str
    command: Sequence[str]
    path: str
    body: str
    """Name of the body without the number of rows."""
    env: Mapping[str, str] = field(default_factory=dict)


class Running:
    """A server, with all the processes that it has started."""

    def __init__(self, kind: Kind, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.kind, self.port, self.process, self.log = kind, port, process, log

    def cpu_s(self) -> float:
        """Read the processor seconds of all its processes so far."""
        return sum(_cpu(pid) for pid in self._pids())

    def resident_mib(self) -> float:
        """Read the memory that all its processes hold, MiB; what they share is counted once (PSS)."""
        return sum(_proportional(pid) for pid in self._pids())

    def _pids(self) -> list[int]:
        parents: dict[int, int] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (words := _stat(int(entry.name))):
                parents[int(entry.name)] = int(words[1])
        found = [self.process.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return []


def _cpu(pid: int) -> float:
    words = _stat(pid)
    return sum(int(w) for w in words[11:15]) / _TICKS if words else 0.0


def _proportional(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("Pss:")), 0.0)


def kinds(models: Path, name: str, scratch: Path) -> list[Kind]:
    """List what is measured for one model: the floor, us in four ways, the others as far as they install."""
    here, python = models / name, sys.executable
    found = artifacts.locate(here / "model")
    digest = artifacts.manifest_digest(artifacts.build_manifest(found.root, found.files))
    ours = [python, "-m", "controller.serving.server", "--model", str(here / "model"), "--digest", digest]
    ours += ["--port", "{port}", "--drain-s", "0"]
    who = {"MAINSPRING_MODEL": "m", "MAINSPRING_REVISION": "m-0123456789", "MAINSPRING_VERSION": "1"}
    logged = {
        "MAINSPRING_PREDICTION_LOG": json.dumps({"spool": str(scratch / f"{name}-spool")}),
        "MAINSPRING_LOG_SHIP": json.dumps(["--uri", str(scratch / f"{name}-log")]),
    }
    off = {"MAINSPRING_ACCELERATE": "Off"}
    rows = [
        Kind("floor", [python, "-m", "benchmarks.serving.floor", "{port}"], "/", "split"),
        Kind("mainspring", ours, "/invocations", "split", who | logged),
        Kind("mainspring, no log", ours, "/invocations", "split", who),
        Kind("mainspring, v2", ours, "/v2/models/m/infer", "v2", who | logged),
        Kind("mainspring, accelerate: Off", ours, "/invocations", "split", who | logged | off),
        Kind(
            "MLflow",
            [
                *(python, "-m", "mlflow", "models", "serve", "-m", str(here / "mlflow"), "--env-manager", "local"),
                *("-p", "{port}", "-h", "127.0.0.1", "--workers", "1"),
            ],
            "/invocations",
            "split",
            {"MLFLOW_DISABLE_ENV_CREATION": "true", "PATH": f"{Path(python).parent}:{os.environ.get('PATH', '')}"},
        ),
    ]
    peers = PEERS / "bin"
    if (peers / "mlserver").exists():
        told = {
            "MLSERVER_HOST": "127.0.0.1",
            "MLSERVER_HTTP_PORT": "{port}",
            "MLSERVER_GRPC_PORT": "{port2}",
            "MLSERVER_METRICS_PORT": "{port3}",
            "MLSERVER_PARALLEL_WORKERS": "0",
            "MLSERVER_DEBUG": "false",
        }
        command = [str(peers / "mlserver"), "start", str(here / "mlserver")]
        rows.append(Kind("MLServer", command, "/v2/models/m/infer", "v2", told))
    if (peers / "bentoml").exists():
        command = [str(peers / "bentoml"), "serve", "bento:Model", "--port", "{port}", "--host", "127.0.0.1"]
        told = {"BENCH_MODEL": str(here / "plain.joblib"), "BENTOML_DO_NOT_TRACK": "True"}
        command += ["--working-dir", str(Path(__file__).parent)]
        rows.append(Kind("BentoML", command, "/invocations", "bento", told))
    return rows


def install_peers() -> str:
    """Make the environment of the other servers where there is none; returns why it could not be, or nothing."""
    import sklearn

    if (PEERS / "bin" / "mlserver").exists():
        return ""
    uv = Path(sys.executable).parent / "uv"
    exactly = f"scikit-learn=={sklearn.__version__}"
    for command in (
        [uv, "venv", "--quiet", "--python", sys.executable, PEERS],
        [uv, "pip", "install", "--quiet", "--python", PEERS / "bin" / "python", *PEER_PACKAGES, exactly],
    ):
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
        if done.returncode:
            return done.stderr.strip()[-300:]
    return ""


@contextmanager
def running(kind: Kind, models: Path, log: Path) -> Iterator[Running]:
    """Run a server until the block ends; it has answered its first request when the block begins."""
    port = _free()
    fill = {"{port}": str(port), "{port2}": str(_free()), "{port3}": str(_free())}

    def filled(text: str) -> str:
        for name, value in fill.items():
            text = text.replace(name, value)
        return text

    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    if str(PEERS) in kind.command[0]:
        del env["PYTHONPATH"]
    env |= {k: filled(v) for k, v in kind.env.items()}
    with log.open("w") as out:
        command = [filled(c) for c in kind.command]
        process = subprocess.Popen(
            command, env=env, stdout=out, stderr=out, start_new_session=True, cwd=log.parent
        )
    server = Running(kind, port, process, log)
    try:
        _first_answer(server, models)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        # Some servers leave workers of theirs behind.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _first_answer(server: Running, models: Path) -> None:
    import httpx

    deadline, said = time.monotonic() + START_S, ""
    body = (models / f"{server.kind.body}-1.json").read_bytes()
    url = f"http://127.0.0.1:{server.port}{server.kind.path}"
    while time.monotonic() < deadline:
        assert server.process.poll() is None, f"{server.kind.name} ended: {server.log.read_text()[-2000:]}"
        try:
            answer = httpx.post(url, content=body, headers={"content-type": "application/json"}, timeout=10)
        except httpx.HTTPError as error:
            said = type(error).__name__
        else:
            if answer.status_code == 200:
                return
            said = f"{answer.status_code} {answer.text[:300]}"
        time.sleep(0.2)
    raise AssertionError(f"{server.kind.name} did not answer within {START_S:g} s: {said}")
