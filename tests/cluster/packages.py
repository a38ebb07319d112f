"""The programs of the system that the node and the image builds need, and how they come onto a machine.

Debian's packages are installed when root asks for something that is missing; nobody else's machine is touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.build import cache_directory, locked, say

CNI = Path("/usr/lib/cni")
# What must be found (a program, or a file by its path), and the package that brings it.
NODE: Mapping[str, str] = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    str(CNI / "bridge"): "containernetworking-plugins",
    str(CNI / "portmap"): "containernetworking-plugins",
    "conntrack": "conntrack",
    "iptables": "iptables",
    "nft": "nftables",
    "ip": "iproute2",
    "mount": "mount",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}
IMAGES: Mapping[str, str] = {
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
    "skopeo": "skopeo",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
}
# Administrators' programs are not on everyone's PATH.
_PLACES = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


class NotInstalled(RuntimeError):
    """Something is missing and cannot be installed from here; the message says what to run."""


def missing(programs: Mapping[str, str]) -> list[str]:
    """The packages, sorted, of those programs that this machine lacks."""
    return sorted({package for program, package in programs.items() if not _there(program)})


def _there(program: str) -> bool:
    return Path(program).exists() if program.startswith("/") else bool(shutil.which(program, path=_PLACES))


def installed(programs: Mapping[str, str], what: str) -> None:
    """Return when all of the programs are there, installing packages if need be; `what` needs them and root.

    Raises NotInstalled for anyone but root, where there is no apt-get, and when apt-get fails.
    """
    if os.geteuid() != 0:
        raise NotInstalled(f"{what} needs root (the user id here is {os.geteuid()}); run it as root")
    with locked(cache_directory() / "apt.lock", "Debian packages"):
        wanted = missing(programs)
        if not wanted:
            return
        if not shutil.which("apt-get"):
            raise NotInstalled(
                f"{what} needs {', '.join(wanted)}; this machine has no apt-get: install them by hand"
            )
        say(f"installing {' '.join(wanted)}")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for arguments in (["update", "-qq"], ["install", "-qq", "--yes", "--no-install-recommends", *wanted]):
            command = ["apt-get", *arguments]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise NotInstalled(
                    f"{what} needs {', '.join(wanted)}: `{' '.join(command)}` failed:\n{done.stderr[-2000:]}"
                )
        if left := missing(programs):
            raise NotInstalled(f"{what} needs {', '.join(left)}: installed, but their programs are not found")
