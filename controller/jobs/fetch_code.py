"""The code half of `fetch`: exactly the pinned files into the work directory, and the program is among them.

The digest over mode, path and content must come out as pinned; nothing else of the commit is written, no dataset
and no copy of one.
"""

from __future__ import annotations

import difflib
import hashlib
import posixpath
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from controller.api.git_rules import shown
from controller.api.hashes import files_digest
from controller.api.modelrevision import PinnedSource
from controller.api.reports import FetchTask
from controller.clients.git_types import MODE_EXECUTABLE, TreeEntry
from controller.jobs.entry import WrongInput
from controller.jobs.fetch_world import World
from controller.plan.selection import OUR_YAML_MAX_BYTES, is_our_yaml, may_be_our_yaml, select

_INTERPRETER: Final = re.compile(r"(?:python|pypy)[0-9.]*|bash|sh|dash|zsh|Rscript|julia|node|perl|ruby")
_TAKES_VALUE: Final = frozenset({"-X", "-W", "--check-hash-based-pycs"})
"""Options of an interpreter whose value is the next word."""
_NO_SCRIPT: Final = frozenset({"-c", "-m", "-e", "-"})
"""Words after which no script is named."""


async def place_code(task: FetchTask, world: World, dest: Path) -> tuple[TreeEntry, ...]:
    """Write the pinned files below `dest` and return them.

    Raises:
        WrongInput: SourceChanged: another digest than pinned. EntrypointMissing: the command names a script that
            is not among the files.
        ClientError: what Git says.
    """
    source = task.source
    entries = await world.files(source.url, source.commit)
    chosen = await selected(task, entries, world)
    digest = files_digest((e.mode, e.path, e.blob) for e in chosen)
    if digest != source.files:
        raise WrongInput(
            "SourceChanged",
            f"commit {source.commit[:10]} gives {len(chosen):,} files with digest {digest[:13]}…, "
            f"but {source.files[:13]}… was pinned: the rule of selection has changed, commit again",
        )
    check_entrypoint(task.command, chosen)
    await world.export(source.url, source.commit, chosen, dest)
    return chosen


async def selected(task: FetchTask, entries: Sequence[TreeEntry], world: World) -> tuple[TreeEntry, ...]:
    """Choose the code files of a commit: `source.paths`, without the datasets and without our own YAML."""
    source: PinnedSource = task.source
    by_line = {(e.mode, e.path, e.blob): e for e in entries}
    datasets = frozenset(p for d in task.data for p in (d.path, d.pointer) if p)
    lines = select(by_line, source.paths, exclude=datasets)
    maybe = [p for m, p, b in lines if may_be_our_yaml(p, by_line[m, p, b].size, m)]
    texts = await world.read_many(source.url, source.commit, maybe, OUR_YAML_MAX_BYTES)
    ours = frozenset(path for path, text in texts.items() if is_our_yaml(text))
    return tuple(by_line[line] for line in lines if line[1] not in ours)


def check_copies(hidden: Mapping[str, Path], chosen: Sequence[TreeEntry]) -> None:
    """Refuse a second copy of the data among the code: the training would see the hold-out in it.

    Args:
        hidden: datasets with hold-out rows, by name: the whole file as it came, wherever it came from.
        chosen: the code files.

    Raises:
        WrongInput: DataInvalid: a file is a copy of a dataset that is split.
    """
    for name, file in hidden.items():
        size = file.stat().st_size
        same = [e for e in chosen if e.size == size]
        blobs = {
            blob_of(file, algorithm) for algorithm in {"sha1" if len(e.blob) == 40 else "sha256" for e in same}
        }
        for entry in same:
            if entry.blob in blobs:
                raise WrongInput(
                    "DataInvalid",
                    f"{shown(entry.path)} has the same content as dataset {name}, hold-out rows included; "
                    "remove it or leave it out of source.paths",
                )


def blob_of(file: Path, algorithm: str) -> str:
    """Name a file's content as Git does, in hex, by sha1 or sha256."""
    digest = hashlib.new(algorithm, b"blob %d\0" % file.stat().st_size, usedforsecurity=False)
    with file.open("rb") as source:
        while chunk := source.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def check_entrypoint(command: Sequence[str], files: Sequence[TreeEntry]) -> None:
    """Refuse a command whose script is not among the files, or is started directly without being executable.

    Only a relative path can be judged: `python train.py`, `./train.sh`. What is in the image is not seen here.

    Raises:
        WrongInput: EntrypointMissing, with the nearest files.
    """
    script, direct = script_of(command)
    if script is None:
        return
    found = {e.path: e for e in files}.get(script)
    if found is None:
        near = difflib.get_close_matches(script, [e.path for e in files][:5000], n=3, cutoff=0.4)
        words = f"nearest: {', '.join(shown(p, 60) for p in near)}" if near else f"there are {len(files):,} others"
        raise WrongInput(
            "EntrypointMissing",
            f"the command starts {shown(script, 80)}, which is not among the files of the training; {words}. "
            "Check training.command and source.paths",
        )
    if direct and found.mode != MODE_EXECUTABLE:
        raise WrongInput(
            "EntrypointMissing",
            f"the command starts {shown(script, 80)}, which is not executable: git update-index --chmod=+x",
        )


def script_of(command: Sequence[str]) -> tuple[str | None, bool]:
    """Return the script that a command names, relative to the work directory, and whether it is started itself.

    >>> script_of(["python", "-u", "./train.py", "--fast"]), script_of(["python", "-m", "pkg"])
    (('train.py', False), (None, False))
    """
    if not command:
        return None, False
    program, words = command[0], list(command[1:])
    if "/" in program and not program.startswith(("/", "$", "~")):
        return posixpath.normpath(program), True
    if not _INTERPRETER.fullmatch(posixpath.basename(program)):
        return None, False
    while words:
        word = words.pop(0)
        if word in _NO_SCRIPT:
            return None, False
        if word in _TAKES_VALUE:
            words = words[1:]
        elif not word.startswith("-"):
            outside = word.startswith(("/", "$", "~"))
            return (None if outside else posixpath.normpath(word)), False
    return None, False
