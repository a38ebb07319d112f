"""Pulls a dataset that DVC keeps: from the remote of the pinned commit, verified by md5 and size.

One file is asked for by its address, in DVC 3's layout and then in the older one; nothing is listed, no cache of
DVC is read or written, and nothing but the file itself lands on the disk, in a directory of our own.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from controller.api import dvc, hashes
from controller.api.dvc import Pointer, Remote
from controller.api.git_rules import shown
from controller.api.modelrevision import PinnedData, PinnedSource
from controller.clients import dvc as dvc_client
from controller.clients.errors import Denied, NotFound, Unavailable
from controller.clients.git_types import TreeEntry
from controller.jobs.entry import WrongInput
from controller.jobs.fetch_world import World

_CHUNK: Final = 1 << 20
"""DVC 2 turned line ends chunk by chunk of this size; a pair that a border cuts stayed as it was."""
_FOREIGN: Final = frozenset({"HostNotAllowed", "ProtocolNotAllowed", "InvalidURL"})


async def pull(world: World, pinned: PinnedData, source: PinnedSource, folder: Path) -> Path:
    """Bring the content of a dataset into a new directory and return the file.

    Raises:
        WrongInput: DataChanged: the commit points to other content than pinned. DataMissing: the remote does not
            have it. DataCorrupt: another md5 or size.
        Denied: DataSpecInvalid, PathNotAllowed, DVCConfigNotAllowed. Unavailable: the remote does not answer, or
            wants other credentials.
    """
    entries = {e.path: e for e in await world.files(source.url, source.commit)}

    async def read(paths: Sequence[str]) -> Mapping[str, bytes]:
        return await world.read_many(source.url, source.commit, paths, dvc.MAX_BYTES)

    wanted = pinned.pointer if pinned.pointer and pinned.pointer.endswith(dvc.SUFFIX) else pinned.path
    pointer = await dvc_client.locate(wanted or "", entries, read)
    if pointer is None:
        what = f"{shown(pinned.pointer or '')} that points to {shown(pinned.path or '')}"
        raise NotFound(f"commit {source.commit[:10]} has no {what}", reason="DataNotFound")
    if pointer.digest != pinned.digest or pointer.path != pinned.path:
        raise WrongInput(
            "DataChanged",
            f"{shown(pointer.file)} at commit {source.commit[:10]} points to {shown(pointer.path)} with md5 "
            f"{pointer.md5[:10]}…, but {hashes.short(pinned.digest)}… was pinned",
        )
    remote = await dvc_client.remote(pointer, entries, read)
    folder.mkdir(parents=True)
    dest = folder / "object"
    for key in pointer.objects():
        try:
            await _get(world, remote, key, dest, source, entries, pinned.name)
        except NotFound:
            continue
        await asyncio.to_thread(_verify, pointer, remote, dest)
        return dest
    raise WrongInput(
        "DataMissing",
        f"the remote {shown(remote.name, 40)} has no object {pointer.md5} for {shown(pointer.path)}: dvc push it",
    )


async def _get(
    world: World,
    remote: Remote,
    key: str,
    dest: Path,
    source: PinnedSource,
    entries: Mapping[str, TreeEntry],
    dataset: str,
) -> None:
    """Bring one object; raises NotFound when it is not there."""
    place = f"{remote.url.rstrip('/')}/{key}"
    try:
        if remote.kind == "Inside":
            await _inside(world, place, dest, source, entries)
        elif remote.kind == "Directory":
            await world.download(f"file://{place}", dest)
        elif remote.kind == "Http":
            await world.download(place, dest, dataset=dataset)
        else:
            await world.object(place, remote.endpoint, remote.region, dest, dataset=dataset)
    except Denied as error:
        if error.reason in _FOREIGN:
            message = f"the remote {shown(remote.name, 40)} of the repository is not allowed here: {error.message}"
            raise Denied(message, reason="DVCConfigNotAllowed") from None
        if error.reason == "DataNotReadable":
            message = f"the remote {shown(remote.name, 40)} does not give out {shown(key)}: {error.message}"
            # A person can open the remote or renew a credential without a new commit, so waiting may help.
            raise Unavailable(message, reason="DataNotReadable") from None
        raise


async def _inside(
    world: World, place: str, dest: Path, source: PinnedSource, entries: Mapping[str, TreeEntry]
) -> None:
    """Take an object out of the commit itself, where the remote is a directory of the repository."""
    entry = entries.get(place)
    if entry is None:
        raise NotFound(f"the commit has no {shown(place)}", reason="DataNotFound")
    await world.export(source.url, source.commit, [entry], dest.parent / "inside")
    (dest.parent / "inside" / place).rename(dest)


def _verify(pointer: Pointer, remote: Remote, file: Path) -> None:
    size = file.stat().st_size
    what = f"{shown(pointer.path)} from the remote {shown(remote.name, 40)}"
    if pointer.size is not None and size != pointer.size:
        raise WrongInput(
            "DataCorrupt", f"{what} has {size:,} bytes, but {shown(pointer.file)} says {pointer.size:,}"
        )
    found = md5_of(file)
    if found == pointer.md5 or (pointer.legacy and md5_of(file, text=True) == pointer.md5):
        return
    raise WrongInput(
        "DataCorrupt", f"{what} has md5 {found[:10]}…, but {shown(pointer.file)} says {pointer.md5[:10]}…"
    )


def md5_of(file: Path, *, text: bool = False) -> str:
    """Hash a file as DVC does: 32 hex digits; `text`: as DVC 2 did for texts, every CR LF counted as LF."""
    digest = hashlib.md5(usedforsecurity=False)
    with file.open("rb") as source:
        while chunk := source.read(_CHUNK):
            digest.update(chunk.replace(b"\r\n", b"\n") if text else chunk)
    return digest.hexdigest()
