"""Names in MLflow: tags, filters, artifact paths; what may stand in them, and what is cut or refused.

Pure but for reading the files that are uploaded.  Nothing that a server says, or that a user's program left,
becomes a path on this machine or on the server without passing here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

from controller.clients.errors import Denied

TAG_ENVIRONMENT: Final = "mainspring.environment"
TAG_REVISION: Final = "mainspring.revision"
TAG_ATTEMPT: Final = "mainspring.attempt"
TAG_LEDGER: Final = "mainspring.ledger"
"""On the ledger's run: `<name>/<environment>`; `mainspring.ledger.<seq>` is the sha256 of an entry."""
TAG_DUPLICATE: Final = "mainspring.duplicate-of"
LEDGER_EXPERIMENT: Final = "mainspring-ledger"
MODEL_PATH: Final = "model"
STATEMENT_PATH: Final = "mainspring/lineage.json"
FILES_MAX: Final = 10_000
"""Most files of one model."""
TAG_MAX: Final = 5000
"""Characters of a tag that every MLflow server keeps."""
PARAM_MAX: Final = 6000
"""Characters of a parameter that MLflow takes."""
_CHUNK: Final = 1_048_576
_LITERAL: Final = re.compile(r"[^'\"`\\\x00-\x1f]{1,250}")
_SLOT: Final = re.compile(re.escape(TAG_LEDGER) + r"\.([0-9]{6})")
_PART: Final = re.compile(r"(?:[^/\\\x00-\x1f\x7f%#]|%(?![0-9A-Fa-f]{2}))*")
"""No `%41`, which MLflow decodes once more, so that a file would come back under another name; `#` it refuses."""


def key(name: str) -> str:
    """Write a metric's or parameter's name with the characters that MLflow allows, at most 250."""
    return re.sub(r"[^0-9A-Za-z_\-. :/]", "_", name)[:250] or "_"


def literal(value: str) -> str:
    """Return a value that may stand in a filter between quotes.

    Raises:
        Denied: RegistryNameInvalid.
    """
    if not _LITERAL.fullmatch(value):
        raise Denied(f"{value[:80]!r} cannot be a name in MLflow", reason="RegistryNameInvalid")
    return value


def of_revision(environment: str, revision: str, attempt: int | None = None) -> dict[str, str]:
    """Return the tags by which a version is found, or the run of an attempt: two environments share none."""
    own = {TAG_ENVIRONMENT: environment, TAG_REVISION: revision}
    return own if attempt is None else {**own, TAG_ATTEMPT: str(attempt)}


def version_filter(name: str, own: Mapping[str, str]) -> str:
    """Write the filter for versions of a model with these tags.

    Raises:
        Denied: RegistryNameInvalid.
    """
    tags = (f"tags.`{k}`='{literal(v)}'" for k, v in own.items())
    return " and ".join([f"name='{literal(name)}'", *tags])


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Write tags as MLflow takes them, cut where it would cut them itself without a word."""
    return [{"key": k, "value": v if len(v) <= TAG_MAX else v[: TAG_MAX - 1] + "…"} for k, v in tags.items()]


def tags_of(run: Mapping[str, Any]) -> dict[str, str]:
    """Read the tags of a run."""
    return {str(t.get("key")): str(t.get("value")) for t in run.get("data", {}).get("tags", [])}


def slots(run: Mapping[str, Any]) -> dict[int, str]:
    """Read which ledger entries a run says it holds: number → sha256."""
    found = ((_SLOT.fullmatch(k), v) for k, v in tags_of(run).items())
    return {int(m[1]): v for m, v in found if m is not None and int(m[1]) > 0}


def entry_path(seq: int) -> str:
    """Name the file of a ledger entry: `ledger/000001.json`."""
    return f"ledger/{seq:06d}.json"


def refused(path: str) -> Denied:
    """Return the error about a path that is not used."""
    return Denied(
        f"the artifact path {path[:120]!r} is refused: plain names only, no `..`, no links, no two that differ "
        "in case only",
        reason="ArtifactPathRefused",
    )


def safe(path: str) -> str:
    """Return a relative path of plain names.

    Raises:
        Denied: ArtifactPathRefused: absolute, empty parts, `.`, `..`, control characters, backslash, too long.
    """
    parts = path.split("/")
    if len(path) > 1000 or any(p in ("", ".", "..") or len(p) > 255 or not _PART.fullmatch(p) for p in parts):
        raise refused(path)
    return path


def below(root: str, *paths: str) -> str:
    """Join an artifact path below the root of a run; empty parts of `paths` are left out."""
    return "/".join([safe(root), *(safe(p) for p in paths if p)])


def no_twins(names: list[str]) -> list[str]:
    """Return the names if none differs from another in case only: on some disks those are one file.

    Raises:
        Denied: ArtifactPathRefused.
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other is not name:
            raise refused(name)
    return names


def regular_files(folder: Path) -> list[Path]:
    """List all files of a directory, which must hold nothing but files and directories.

    Raises:
        Denied: ArtifactPathRefused: a link or a special file.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise refused(path.relative_to(folder).as_posix())
        if path.is_file():
            found.append(path)
    return found


async def chunks_of(path: Path) -> AsyncIterator[bytes]:
    """Read a file in chunks of 1 MiB."""
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            yield chunk


async def once(content: bytes) -> AsyncIterator[bytes]:
    """Give bytes as a stream."""
    yield content
