"""`python -m tests.cluster`: the cluster that tests use, for people.

    shell [COMMAND ...]  a cluster for one shell (or command) with kubectl, helm and KUBECONFIG; gone when it ends
    up / down            the same in the background: `up` prints the kubeconfig's path, `down` ends it
    images               build our images and print their uncompressed sizes

Root gets a node that runs pods, with our images on it; anyone else gets the control plane alone.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.build import KUBERNETES, BuildFailed, built, cache_directory, say
from tests.cluster.control_plane import ControlPlane
from tests.cluster.definitions import apply_definitions, apply_gateway_api
from tests.cluster.images import TARGETS, ImageFailed, base_image, build, imported
from tests.cluster.node import Node
from tests.cluster.packages import NotInstalled
from tests.cluster.processes import NotReady, wait_until
from tests.support.helm import binary


@contextlib.contextmanager
def cluster(directory: Path) -> Iterator[tuple[Path, list[str]]]:
    """A cluster with our kinds in `directory`: its kubeconfig, and lines that say what is there."""
    if os.geteuid() == 0:
        node = Node.start(directory)
        try:
            apply_gateway_api(node.plane)
            imported(node)
            lines = [
                "a node that runs pods and has our images (mainspring-operator, -jobs, -server)",
                "The README's five minutes on a cluster run here as they stand; the chart brings our kinds.",
            ]
            yield node.plane.kubeconfig, lines
        finally:
            node.stop()
        return
    plane = ControlPlane.start(directory)
    try:
        apply_definitions(plane)
        lines = [
            "our kinds, and no node: no pod ever starts (run as root to have one)",
            "Try: kubectl apply -f examples/bikes/model.yaml; kubectl get modelspecs",
        ]
        yield plane.kubeconfig, lines
    finally:
        plane.stop()


def tools(kubeconfig: Path) -> dict[str, str]:
    """The variables with which a shell reaches the cluster, helm, kubectl and `kubectl mainspring` on its PATH."""
    programs = kubeconfig.parent / "bin"
    programs.mkdir(exist_ok=True)
    kubectl = programs / "kubectl"
    kubectl.write_text(f'#!/bin/sh\nexec {built() / "kube"} kubectl "$@"\n')
    kubectl.chmod(0o755)
    helm = programs / "helm"
    helm.unlink(missing_ok=True)
    helm.symlink_to(binary())
    places = [programs, Path(sys.executable).parent]
    path = os.pathsep.join([*map(str, places), os.environ.get("PATH", os.defpath)])
    return {"KUBECONFIG": str(kubeconfig), "KUBECACHEDIR": str(kubeconfig.parent / "kubectl"), "PATH": path}


def shell(command: list[str]) -> int:
    """Run a shell, or a command, with a cluster of its own; its exit code."""
    with (
        tempfile.TemporaryDirectory(prefix="mainspring-cluster-") as place,
        cluster(Path(place)) as (config, lines),
    ):
        environment = {**os.environ, **tools(config)}
        if not command:
            describe(config, lines)
            print("It ends with this shell.", flush=True)
        # An interrupt is for the shell; a handler, unlike ignoring, is not passed on to it.
        signal.signal(signal.SIGINT, lambda *_: None)
        return subprocess.call(command or [os.environ.get("SHELL", "/bin/sh")], env=environment)


def describe(kubeconfig: Path, lines: list[str]) -> None:
    """Tell a person what is there and what to try."""
    print(f"Kubernetes {KUBERNETES}: a control plane and {lines[0]}.")
    for line in lines[1:]:
        print(f"  {line}")
    print(f"  KUBECONFIG={kubeconfig}", flush=True)


def hold(place: Path) -> int:
    """Keep a cluster until told to end; writes `ready` into `place` when it is there."""
    with cluster(place / "cluster") as (config, lines):
        variables = tools(config)
        describe(config, lines)
        print(f"  PATH={config.parent / 'bin'}:$PATH")
        (place / "ready.partial").write_text(variables["KUBECONFIG"])
        (place / "ready.partial").rename(place / "ready")
        # Whoever ends us raises SystemExit here.
        signal.pause()
    return 0


def up() -> int:
    """Start a cluster in the background and print how to reach it; one per user and machine."""
    place = cache_directory() / "cluster"
    if running(place):
        print((place / "log").read_text(), end="")
        return 0
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    with (place / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster", "hold", str(place)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=None,
            start_new_session=True,
        )
    (place / "pid").write_text(str(process.pid))
    wait_until(lambda: (place / "ready").exists() or process.poll() is not None, "starting the cluster", 1800)
    print((place / "log").read_text(), end="")
    return process.poll() or 0


def down() -> int:
    """End the cluster that `up` started; nothing to do is fine."""
    place = cache_directory() / "cluster"
    if running(place):
        pid = int((place / "pid").read_text())
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not running(place), f"ending the cluster (process {pid})", 120)
    shutil.rmtree(place, ignore_errors=True)
    return 0


def running(place: Path) -> bool:
    """Whether the process that `up` started in `place` is there."""
    try:
        pid = int((place / "pid").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return False
    return str(place).encode() in command


def images() -> int:
    """Build our images and print name and uncompressed size of each."""
    for image in (base_image(), *build(*TARGETS).values()):
        print(f"{image.name:<48} {image.size / 1e6:6.0f} MB")
    return 0


def main(arguments: list[str]) -> int:
    """Do what the arguments ask; the exit code, with one message where something is missing."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("verb", choices=["up", "down", "shell", "images", "hold"])
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="for shell: a command to run instead")
    asked = parser.parse_args(arguments)
    # Everything started is stopped when somebody ends us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    verbs = {"up": up, "down": down, "images": images}
    try:
        if asked.verb == "shell":
            return shell(asked.rest)
        return hold(Path(asked.rest[0])) if asked.verb == "hold" else verbs[asked.verb]()
    except (BuildFailed, ImageFailed, NotInstalled, NotReady) as error:
        say(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
