"""The environment of a team that has Great Expectations beside Mainspring: a lock's packages over the tests' own.

`ready` makes it below the user's cache, once for every lock; what the tests' environment has is seen through it,
so that only the extra is installed.  Nothing is resolved: what the lock does not name is not there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
import sysconfig
from pathlib import Path

from tests.support.operator_env import sync

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements" / "great-expectations.txt"


def ready() -> Path:
    """Make the environment, or find it made, and return its Python.

    Raises:
        RuntimeError: a command failed; the message holds what it said.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mainspring"
    base = sysconfig.get_path("purelib")
    key = hashlib.sha256(LOCK.read_bytes() + f"{sys.version}{base}".encode()).hexdigest()[:12]
    place = cache / f"great-expectations-{key}"
    place.mkdir(parents=True, exist_ok=True)
    python, done = place / "bin" / "python", place / ".made"
    with (cache / f"great-expectations-{key}.making").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.is_file():
            sync(place, LOCK)
            (site,) = place.glob("lib/python*/site-packages")
            (site / "beside.pth").write_text(f"{base}\n{ROOT}\n")
            done.touch()
    return python
