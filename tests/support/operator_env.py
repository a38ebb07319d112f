"""The operator's environment: what `requirements/operator.txt` names and our wheel, nothing else.

`python -m tests.support.operator_env` makes it (`make operator-env`); tests call `ready`.  The packages are
synchronised only when the lock has changed; the wheel is built and installed anew every time.  Never resolves
anything: what the lock does not name is not there.
"""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACE = ROOT / ".venv-operator"
LOCK = ROOT / "requirements" / "operator.txt"
UV = (str(Path(sys.executable).with_name("uv")), "--quiet")
SLOWEST_S = 300.0
"""Longest time of one command: a first download over a slow line."""


def ready() -> Path:
    """Make the environment, or bring it up to date, and return its Python.

    Raises:
        RuntimeError: a command failed; the message holds what it said.
    """
    PLACE.mkdir(exist_ok=True)
    python = PLACE / "bin" / "python"
    # A name of our own: uv locks the `.lock` of an environment, and would wait for us.
    with (PLACE / ".making").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp, wanted = PLACE / ".synced", hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()
        if not stamp.is_file() or stamp.read_text() != wanted:
            sync(PLACE, LOCK)
            stamp.write_text(wanted)
        wheels = PLACE / "wheel"
        for old in wheels.glob("*.whl"):
            old.unlink()
        _run([sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(wheels)])
        (wheel,) = wheels.glob("*.whl")
        install = ["pip", "install", "--python", str(python), "--offline", "--no-deps", "--reinstall", str(wheel)]
        _run([*UV, *install])
    return python


def sync(place: Path, lock: Path) -> None:
    """Make an environment at a place, and give it what a lock names and nothing else.

    Raises:
        RuntimeError: a command failed; the message holds what it said.
    """
    python = place / "bin" / "python"
    _run([*UV, "venv", "--allow-existing", "--python", sys.executable, str(place)])
    _run([*UV, "pip", "sync", "--python", str(python), "--require-hashes", str(lock)])


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=SLOWEST_S
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise RuntimeError(f"cannot make an environment: {' '.join(command)} ended with {done.returncode}\n{said}")


if __name__ == "__main__":
    print(f"{ready().relative_to(ROOT)} has what {LOCK.relative_to(ROOT)} names, and our wheel")
