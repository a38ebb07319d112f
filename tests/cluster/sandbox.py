"""The place where the node lives: its own network, mounts and processes, so that it leaves nothing behind.

A sandbox is one process (`pause`) in fresh network, mount and process namespaces.  Whatever runs in it dies with
that process, and the kernel takes mounts, bridges, packet filter rules and network namespaces of pods away with
it, however this test run ends.  A pair of network devices joins it with the machine.  The machine's own packet
filter, `ip_forward` and kernel settings are never changed.  Several can be up at once: each has a number.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import IO

from tests.cluster.build import built, cache_directory
from tests.cluster.processes import NotReady, Server, wait_until

SANDBOXES = 16
# What kubelet sets on its machine.  Files with these values lie over the real settings, inside the sandbox only.
_KERNEL = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
# /proc is still the machine's when the first line reads it: that is the process id by which others enter.
_SETUP = """
set -eu
read -r pid rest < /proc/self/stat
mount --bind "$1/lib" /var/lib
mount --bind "$4" /var/lib/containerd
mount --bind "$1/log" /var/log
mount -t tmpfs tmpfs /run
mkdir /run/netns /run/lock
mount -t proc proc /proc
for setting in $3; do mount --bind "$1/kernel/$setting" "/proc/sys/$setting"; done
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward
echo "$pid" > "$1/pid.partial"
mv "$1/pid.partial" "$1/pid"
exec "$2"
"""
# Folders of the machine that look different inside.
_COVERED = (Path("/var/lib"), Path("/var/log"), Path("/run"), Path("/proc"))


class Sandbox:
    """A running sandbox; see `start`.

    number: 0 to 15; machine: the machine's address towards it (an API server binds it); address: its own;
    pods, services: the ranges of addresses within it, which the machine reaches through it; cgroup: the control
    group of its pods; directory: `lib` is its /var/lib and `log` its /var/log; images: its
    /var/lib/containerd, which the next sandbox of number 0 finds as it was left.
    """

    def __init__(self, directory: Path, number: int, lock: IO[str]) -> None:
        self.directory, self.number, self._lock = directory, number, lock
        self.machine, self.address = f"10.201.{number}.1", f"10.201.{number}.2"
        self.pods, self.services = f"10.202.{number}.0/24", f"10.203.{number}.0/24"
        self.cgroup = f"mainspring-{number}"
        self.images = cache_directory() / f"containerd-{number}"
        self._device = f"mainspring{number}"
        self._pid = 0
        self._holder: Server | None = None

    @classmethod
    def start(cls, directory: Path) -> Sandbox:
        """Start a sandbox that keeps its files in `directory` (made when missing); root only.

        Raises NotReady when 16 are up, and when the machine refuses something; nothing is left behind then.
        """
        covered = [place for place in _COVERED if directory.resolve().is_relative_to(place)]
        if covered:
            raise NotReady(
                f"{directory} cannot hold a sandbox: {covered[0]} is replaced inside; choose another place"
            )
        number, lock = _free_number()
        sandbox = cls(directory.resolve(), number, lock)
        try:
            # What a killed run with this number left behind.
            sandbox._sweep()
            sandbox._enter()
            sandbox._connect()
        except BaseException:
            sandbox.stop()
            raise
        return sandbox

    def inside(self, command: list[str]) -> list[str]:
        """The command line that runs `command` in the sandbox."""
        return ["nsenter", f"--target={self._pid}", "--mount", "--net", "--pid", "--", *command]

    def run(self, command: list[str], *, seconds: float = 300) -> str:
        """Run a command in the sandbox to its end; its standard output.  Raises NotReady with what it said."""
        return run(self.inside(command), seconds)

    def stop(self) -> None:
        """End everything in the sandbox and remove what had its number; stopping twice is harmless."""
        if self._holder:
            self._holder.stop()
            self._holder = None
            self._sweep()
            if self.number:
                # One store of images is enough; more than one sandbox at once is rare.
                shutil.rmtree(self.images, ignore_errors=True)
        self._lock.close()

    def _enter(self) -> None:
        for place in (self.directory / "lib" / "containerd", self.directory / "log", self.images):
            place.mkdir(parents=True, exist_ok=True)
        for setting, value in _KERNEL.items():
            file = self.directory / "kernel" / setting
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(value + "\n")
        told = self.directory / "pid"
        told.unlink(missing_ok=True)
        command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "slave"]
        command += ["/bin/sh", "-c", _SETUP, "sandbox", str(self.directory), str(built() / "pause")]
        command += [" ".join(_KERNEL), str(self.images)]
        self._holder = Server("sandbox", command, self.directory / "sandbox.log")
        wait_until(told.exists, "waiting for the sandbox", 30, self._holder)
        self._pid = int(told.read_text())
        version1, version2 = _hierarchies()
        # On machines with both, nothing is governed by version 2.
        for hierarchy in version1 or version2:
            (hierarchy / self.cgroup).mkdir(exist_ok=True)

    def _connect(self) -> None:
        device = self._device
        for command in (
            ["link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", str(self._pid)],
            ["address", "add", f"{self.machine}/30", "dev", device],
            ["link", "set", device, "up"],
            ["route", "add", self.pods, "via", self.address],
            ["route", "add", self.services, "via", self.address],
        ):
            run(["ip", *command])
        for command in (
            ["address", "add", f"{self.address}/30", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
            ["route", "add", "default", "via", self.machine],
        ):
            self.run(["ip", *command])

    def _sweep(self) -> None:
        """Take away what has this number: processes of its pods, the device, control groups."""
        for hierarchy in itertools.chain(*_hierarchies()):
            _end_group(hierarchy / self.cgroup)
        if (Path("/sys/class/net") / self._device).exists():
            # It goes with the sandbox, by itself, some time after the last process.
            subprocess.run(["ip", "link", "delete", self._device], capture_output=True, check=False)


def _free_number() -> tuple[int, IO[str]]:
    for number in range(SANDBOXES):
        lock = (cache_directory() / f"sandbox-{number}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        return number, lock
    raise NotReady(f"{SANDBOXES} sandboxes are up on this machine; stop one")


def _hierarchies() -> tuple[list[Path], list[Path]]:
    """Where control groups are made: the hierarchies of version 1, and those of version 2."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    first, second = (
        sorted({Path(place) for _, place, kind, *_ in mounts if kind == name}) for name in ("cgroup", "cgroup2")
    )
    return first, second


def _end_group(group: Path) -> None:
    """Kill what runs in the control group and below, and remove it."""
    deadline = time.monotonic() + 20
    while group.exists():
        # Children before parents.
        for place in sorted(group.rglob("cgroup.procs"), key=lambda path: -len(path.parts)):
            with contextlib.suppress(OSError):  # it went in between
                for pid in re.findall(r"\d+", place.read_text()):
                    with contextlib.suppress(ProcessLookupError):  # it ended in between
                        os.kill(int(pid), signal.SIGKILL)
            with contextlib.suppress(OSError):  # still in use: the next round
                place.parent.rmdir()
        if time.monotonic() > deadline:
            raise NotReady(f"processes in {group} do not end; look at its cgroup.procs")
        if group.exists():
            time.sleep(0.05)


def run(command: list[str], seconds: float = 60) -> str:
    """Run a command of an administrator to its end; its standard output.  Raises NotReady with what it said."""
    program = shutil.which(command[0], path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    done = subprocess.run(
        [program or command[0], *command[1:]], capture_output=True, text=True, timeout=seconds, check=False
    )
    if done.returncode:
        raise NotReady(
            f"`{' '.join(command)}` ended with {done.returncode}: {(done.stderr or done.stdout)[-2000:]}"
        )
    return done.stdout
