"""Finds the DVC pointer of a dataset in a commit, and the remote that holds its object: Git in, where to pull out.

The same for the controller, which pins the digest, and for `fetch`, which pulls.  Everything is read from the
commit, never from a disk; what the files say is judged by `controller.api.dvc`.  Nothing is downloaded here.
"""

from __future__ import annotations

import posixpath
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Final, NoReturn

from controller.api import dvc
from controller.api.dvc import Pointer, Remote
from controller.api.git_rules import shown
from controller.clients.errors import Denied
from controller.clients.git_types import MODE_EXECUTABLE, MODE_FILE, MODE_SUBMODULE, MODE_SYMLINK, TreeEntry

Read = Callable[[Sequence[str]], Awaitable[Mapping[str, bytes]]]
"""Returns small files of the commit, by path; at most `dvc.MAX_BYTES` each."""
Entries = Mapping[str, TreeEntry]
"""Every file of the commit, by path."""
_FILES: Final = (MODE_FILE, MODE_EXECUTABLE)


async def locate(path: str, entries: Entries, read: Read) -> Pointer | None:
    """Find what points to a dataset; None when DVC has nothing to do with it.

    Args:
        path: as the ModelSpec writes it: a `.dvc` file, or the path of an out in a dvc.lock.
        entries: every file of the commit.
        read: reads files of the commit.

    Raises:
        Denied: DataSpecInvalid, PathNotAllowed. ClientError: what `read` raises.
    """
    try:
        if path.endswith(dvc.SUFFIX) and path in entries:
            return await _by_pointer(path, entries, read)
        return None if path in entries else await _by_lock(path, entries, read)
    except dvc.DVCProblem as problem:
        raise Denied(problem.message, reason=problem.reason) from None


async def remote(pointer: Pointer, entries: Entries, read: Read) -> Remote:
    """Read the remote of a pointer from the nearest `.dvc/config` above it.

    Raises:
        Denied: DVCConfigNotAllowed, PathNotAllowed. ClientError: what `read` raises.
    """
    above = [posixpath.join(directory, dvc.CONFIG) for directory in _above(pointer.file)]
    file = next((path for path in above if path in entries), None)
    if file is None:
        _refuse("DVCConfigNotAllowed", f"there is no {dvc.CONFIG} above {shown(pointer.file)}: commit it")
    try:
        return dvc.parse_config((await _texts([file], entries, read))[file], file, pointer.remote)
    except dvc.DVCProblem as problem:
        raise Denied(problem.message, reason=problem.reason) from None


async def _by_pointer(path: str, entries: Entries, read: Read) -> Pointer:
    pointer = dvc.parse_pointer((await _texts([path], entries, read))[path], path)
    _check_place(pointer, entries)
    locks = [lock for lock in _locks(pointer.path) if lock in entries]
    for lock, text in (await _texts(locks, entries, read)).items():
        parsed = dvc.parse_lock(text, lock)
        if pointer.path in parsed.outs:
            _refuse("DataSpecInvalid", f"{shown(pointer.path)} is an out of {shown(lock)} and of {shown(path)}")
        for stage, dep, md5 in parsed.deps:
            if dep == pointer.path and md5 != pointer.md5:
                _out_of_step(lock, stage, pointer, md5)
    return pointer


async def _by_lock(path: str, entries: Entries, read: Read) -> Pointer | None:
    locks = [lock for lock in _locks(path) if lock in entries]
    if not locks:
        staged = [lock for lock in _locks(path) if posixpath.join(posixpath.dirname(lock), "dvc.yaml") in entries]
        if staged and path + dvc.SUFFIX not in entries:
            what = f"{shown(path)} is not in the commit, and {shown(staged[0])} is missing beside its dvc.yaml"
            _refuse("DataSpecInvalid", f"{what}: run dvc repro and commit it")
        return None
    for lock, text in (await _texts(locks, entries, read)).items():
        parsed = dvc.parse_lock(text, lock)
        pointer = parsed.outs.get(path)
        if pointer is None:
            continue
        _check_place(pointer, entries)
        inputs = {dep: md5 for stage, dep, md5 in parsed.deps if stage == parsed.made_by[path]}
        tracked = [dep + dvc.SUFFIX for dep in inputs if entries.get(dep + dvc.SUFFIX) is not None]
        for file, source in (await _texts(tracked, entries, read)).items():
            dep_pointer = dvc.parse_pointer(source, file)
            if dep_pointer.md5 != inputs.get(dep_pointer.path, dep_pointer.md5):
                _out_of_step(lock, parsed.made_by[path], dep_pointer, inputs[dep_pointer.path])
        return pointer
    return None


def _out_of_step(lock: str, stage: str, pointer: Pointer, md5: str) -> NoReturn:
    _refuse(
        "DataSpecInvalid",
        f"{shown(pointer.file)} has {pointer.md5[:10]}… for {shown(pointer.path)}, but stage {shown(stage, 60)} "
        f"of {shown(lock)} has read {md5[:10]}…: run dvc repro and commit {lock}",
    )


def _check_place(pointer: Pointer, entries: Entries) -> None:
    """Refuse an out that is also a file of the commit, or lies behind a link."""
    walked = ""
    for part in pointer.path.split("/"):
        walked = posixpath.join(walked, part)
        if (entry := entries.get(walked)) is None:
            continue
        if entry.mode in (MODE_SYMLINK, MODE_SUBMODULE):
            what = "a link" if entry.mode == MODE_SYMLINK else "a submodule"
            text = f"{shown(pointer.file)} points to {shown(pointer.path)}, but {shown(walked)} is {what}"
            _refuse("PathNotAllowed", f"{text} in the commit")
        text = f"{shown(walked)} is in the commit itself and also an out of {shown(pointer.file)}"
        _refuse("DataSpecInvalid", f"{text}: git rm --cached it")


async def _texts(paths: Sequence[str], entries: Entries, read: Read) -> Mapping[str, bytes]:
    """Read files of DVC, regular ones only."""
    for path in paths:
        entry = entries[path]
        if entry.mode not in _FILES:
            _refuse("PathNotAllowed", f"{shown(path)} is a link or a submodule, not a file")
        if entry.size > dvc.MAX_BYTES:
            _refuse(
                "DataSpecInvalid", f"{shown(path)} has {entry.size:,} bytes; at most {dvc.MAX_BYTES:,} are read"
            )
    return await read(paths) if paths else {}


def _locks(path: str) -> Iterator[str]:
    """Name the dvc.lock files that may list a path: beside it and in every directory above."""
    return (posixpath.join(directory, dvc.LOCK) for directory in _above(path))


def _above(path: str) -> Iterator[str]:
    """Name the directories of a path, the nearest first; the top is the empty one."""
    while path:
        path = posixpath.dirname(path)
        yield path


def _refuse(reason: str, message: str) -> NoReturn:
    raise Denied(message, reason=reason)
