"""The helm binary that tests run, calls of it, and releases of our chart.

`binary()` finds helm of the pinned version below the cache directory, or builds it there from its Go module, once
per machine.  Nothing is written into the tree, and no other helm of the machine is used: what charts render to may
differ between versions.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import httpx

from tests.cluster.build import KUBERNETES, BuildFailed, cache_directory, go_tool, locked, say
from tests.cluster.control_plane import ControlPlane

VERSION = "3.19.2"
CHART = Path(__file__).parents[2] / "helm" / "mainspring"
SLOWEST_BUILD_S = 1500.0


def binary() -> Path:
    """The binary, built now if this machine has none.

    Raises:
        BuildFailed: it could not be built; the message ends with what Go printed.
    """
    folder = cache_directory() / f"helm-{VERSION}"
    if not (folder / "helm").exists():
        with locked(folder.with_name(f"{folder.name}.lock"), "helm"):
            if not (folder / "helm").exists():
                _build(folder)
    return folder / "helm"


def _build(folder: Path) -> None:
    say(f"building helm {VERSION} into {folder} (once; some minutes)")
    partial = folder.with_name(f"{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "GOBIN": str(partial), "CGO_ENABLED": "0", "GOFLAGS": "-trimpath", "GOWORK": "off"}
    done = subprocess.run(
        [go_tool(), "install", "-ldflags", "-s -w", f"helm.sh/helm/v3/cmd/helm@v{VERSION}"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=SLOWEST_BUILD_S,
    )
    if done.returncode:
        raise BuildFailed(f"helm {VERSION} could not be built:\n{done.stderr[-3000:]}")
    partial.rename(folder)


def run(*arguments: str | Path, kubeconfig: Path | None = None, home: Path | None = None) -> tuple[int, str, str]:
    """Run helm; returns its exit code, what it printed, and what it complained about.

    Args:
        arguments: of the command line.
        kubeconfig: of the cluster; without one, helm finds none.
        home: where helm keeps what it keeps; the cache directory by default.
    """
    place = home or cache_directory() / "helm-home"
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HELM_", "KUBE"))}
    folders = {f"HELM_{kind}_HOME": str(place / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
    done = subprocess.run(
        [str(binary()), *(str(a) for a in arguments)],
        env={**kept, **folders, "KUBECONFIG": str(kubeconfig or os.devnull)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode, done.stdout, done.stderr


def template(*arguments: str | Path, release: str = "mainspring", namespace: str = "team") -> str:
    """Render the chart as for the Kubernetes of the tests.

    Raises:
        RuntimeError: helm refused; the message is what it said.
    """
    command = ("template", release, CHART, "--namespace", namespace, "--kube-version", KUBERNETES)
    code, out, err = run(*command, *arguments)
    if code:
        raise RuntimeError(err.strip())
    return out


class Release:
    """The chart in one namespace of a control plane, under the name `mainspring`."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        """Nothing is installed yet; the namespace must exist."""
        self.plane, self.namespace = plane, namespace

    def helm(self, verb: str, *arguments: str | Path, chart: Path = CHART) -> str:
        """Run one verb (install, upgrade, uninstall); returns what it printed; a failure fails the test."""
        if verb == "install":
            # Kinds that another release of the same control plane has left.
            arguments = ("--take-ownership", *arguments)
        where = ("--namespace", self.namespace)
        command = (verb, "mainspring", *(() if verb == "uninstall" else (chart,)), *where, *arguments)
        code, out, err = run(*command, kubeconfig=self.plane.kubeconfig)
        assert code == 0, err
        return out

    def get(self, path: str) -> Any:
        """Read an object of the namespace, `v1/secrets/x` or `apps/v1/deployments/x`; None when there is none."""
        version, _, rest = path.rpartition("v1/")
        group = "/apis" if version else "/api"
        try:
            return self.plane.request("GET", f"{group}/{version}v1/namespaces/{self.namespace}/{rest}")
        except httpx.HTTPStatusError as error:
            if ": 404 " in str(error):
                return None
            raise
