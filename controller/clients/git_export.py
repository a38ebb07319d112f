"""Writes files of a commit into a directory, and nowhere else.

Every directory on the way is opened without following links and every file is created anew, so that neither a
name from the repository nor a link that somebody planted can lead outside.  Links and submodules are refused
before the first byte is written; so are paths that leave the directory or enter `.git`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from controller.api import git_rules
from controller.clients.errors import Denied
from controller.clients.git_types import MODE_EXECUTABLE, MODE_FILE, MODE_SUBMODULE, MODE_SYMLINK, TreeEntry

_KINDS = {MODE_SYMLINK: "a symbolic link", MODE_SUBMODULE: "a submodule"}
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def check_entries(entries: Iterable[TreeEntry]) -> None:
    """Refuse (PathNotAllowed) whatever is not a regular file with a harmless path."""
    for entry in entries:
        problem = git_rules.path_problem(entry.path, printable=False)
        if problem is None and entry.mode not in (MODE_FILE, MODE_EXECUTABLE, "100664"):
            kind = _KINDS.get(entry.mode, f"of mode {git_rules.shown(entry.mode, 10)}")
            problem = f"{git_rules.shown(entry.path)} is {kind}, and only regular files are taken from a commit"
        if problem:
            raise Denied(f"{problem}; remove it or leave it out of source.paths", reason="PathNotAllowed")


def write_entries(entries: Iterable[TreeEntry], dest: Path, copy: Callable[[TreeEntry, BinaryIO], None]) -> None:
    """Write checked entries under `dest`, made if absent; `copy` writes one file's bytes."""
    try:
        dest.mkdir(parents=True, exist_ok=True)
        root = os.open(dest, _DIRECTORY)
    except OSError as error:
        raise Denied(
            f"the directory {dest.name} cannot be written: {error.strerror}", reason="PathNotAllowed"
        ) from None
    try:
        for entry in entries:
            try:
                _write(root, entry, copy)
            except OSError as error:
                raise Denied(
                    f"{git_rules.shown(entry.path)} cannot be written: {error.strerror}; the directory "
                    "must be empty and hold no links, and no two paths may differ in case only where the disk "
                    "merges them",
                    reason="PathNotAllowed",
                ) from None
    finally:
        os.close(root)


def _write(root: int, entry: TreeEntry, copy: Callable[[TreeEntry, BinaryIO], None]) -> None:
    *parents, name = os.fsencode(entry.path).split(b"/")
    mode = 0o755 if entry.mode == MODE_EXECUTABLE else 0o644
    with _descend(root, parents) as directory:
        descriptor = os.open(name, _NEW_FILE, mode, dir_fd=directory)
        with os.fdopen(descriptor, "wb") as file:
            copy(entry, file)


@contextmanager
def _descend(root: int, parents: list[bytes]) -> Iterator[int]:
    """Open a directory below `root`, making what is missing, never through a link."""
    current = os.dup(root)
    try:
        for part in parents:
            with contextlib.suppress(FileExistsError):  # an earlier file made it; the open below judges it
                os.mkdir(part, 0o755, dir_fd=current)
            below = os.open(part, _DIRECTORY, dir_fd=current)
            os.close(current)
            current = below
        yield current
    finally:
        os.close(current)
