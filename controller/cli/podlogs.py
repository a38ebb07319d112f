"""Finds and reads what containers of local mode have written: `<state>/pods/<namespace>/<pod>/<container>.log`.

Read only, and only the end of a file: a log may have ten megabytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

STEPS: Final = ("fetch", "train", "predict-champion", "predict", "evaluate")
"""Containers of a training Job, in the order in which they run."""
TAIL_BYTES: Final = 256 * 1024


def newest_attempt(pods: Path, revision: str) -> tuple[int, Path] | None:
    """Find the directory of the newest training pod of a revision, with the attempt's number."""
    pattern = re.compile(re.escape(revision) + r"-train-(\d+)-\d+")
    found = [(int(m[1]), p) for p in _directories(pods) if (m := pattern.fullmatch(p.name))]
    return max(found, default=None)


def steps_of(pod: Path) -> list[str]:
    """Name the steps that have written something, in the order in which they run."""
    there = [p.stem for p in pod.glob("*.log")]
    return [s for s in STEPS if s in there] + sorted(set(there) - set(STEPS))


def server_logs(pods: Path, revisions: Sequence[str]) -> list[Path]:
    """Find the logs of the servers of revisions, whose pods are named `<revision>-<6 hex>-<n>`."""
    return [
        log
        for revision in revisions
        for pod in _directories(pods)
        if re.fullmatch(re.escape(revision) + r"-[0-9a-f]{6}-.+", pod.name)
        for log in sorted(pod.glob("*.log"))
    ]


def tail(file: Path, lines: int) -> list[str]:
    """Read the last lines of a file; empty when it is not there."""
    if lines <= 0 or not file.is_file():
        return []
    with file.open("rb") as log:
        size = log.seek(0, 2)
        log.seek(max(0, size - TAIL_BYTES))
        text = log.read().decode("utf-8", "replace")
    return text.splitlines()[-lines:]


def _directories(pods: Path) -> list[Path]:
    return sorted(p for p in pods.iterdir() if p.is_dir()) if pods.is_dir() else []
