"""Puts the commit's Python files aside, for a model that is a pickle and names classes of the repository.

They come from Git and go where the training cannot reach them: the copy in its work directory it could change.
Never decides whether a model needs them; `artifacts.assemble` does.
"""

from __future__ import annotations

import json
import posixpath
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from controller.api.reports import FetchTask
from controller.clients import artifacts
from controller.clients.git_types import MODE_EXECUTABLE, MODE_FILE, TreeEntry
from controller.jobs.fetch_code import script_of
from controller.jobs.fetch_world import World

FILES_MAX: Final = 2_000
"""Most Python files that are kept with a model: its report lists them all."""
BYTES_MAX: Final = 20 * 2**20
"""Most bytes of them together."""


async def put_aside(task: FetchTask, world: World, chosen: Sequence[TreeEntry], dest: Path) -> None:
    """Write the Python files of the training, and where a program started like it would look for modules.

    Args:
        task: source and command.
        world: Git.
        chosen: the files of the training.
        dest: an empty directory; stays empty when there are none, or too many to be kept with a model.

    Raises:
        ClientError: what Git says.
    """
    dest.mkdir(parents=True, exist_ok=True)
    files = python_files(chosen)
    size = sum(entry.size for entry in files)
    if len(files) > FILES_MAX or size > BYTES_MAX:
        sys.stdout.write(
            f"note: the {len(files):,} Python files of {size:,} bytes are not kept for the model, which can "
            f"import none of them: at most {FILES_MAX:,} files and {BYTES_MAX:,} bytes are; narrow source.paths\n"
        )
        return
    if not files:
        return
    await world.export(task.source.url, task.source.commit, files, dest)
    script, _ = script_of(task.command)
    below = posixpath.dirname(script or "")
    if below and not below.startswith(".."):
        # `python src/train.py` imports from src, and pickles the names so.
        (dest / artifacts.CODE_PATHS).write_text(json.dumps([below]))


def python_files(chosen: Sequence[TreeEntry]) -> tuple[TreeEntry, ...]:
    """Choose the modules: plain `*.py` whose path can belong to an artifact, one of those that differ in case."""
    seen: dict[str, TreeEntry] = {}
    for entry in chosen:
        plain = entry.mode in (MODE_FILE, MODE_EXECUTABLE) and entry.path.endswith(".py")
        if plain and not artifacts.name_problem(f"{artifacts.CODE}/{entry.path}"):
            seen.setdefault(entry.path.casefold(), entry)
    return tuple(seen.values())
