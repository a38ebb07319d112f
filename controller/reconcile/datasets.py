"""Pins the datasets of a ModelSpec at a commit: each to the digest of its content, wherever it is kept.

A file of the repository by its blob, what DVC keeps by the md5 of its pointer, an address by the digest that the
spec states.  Reads the commit only; no data is downloaded here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from controller.api import dvc
from controller.api.data import Dataset
from controller.api.modelrevision import PinnedData
from controller.clients import dvc as dvc_client
from controller.clients.errors import Denied
from controller.clients.git_types import MODE_EXECUTABLE, MODE_FILE, TreeEntry
from controller.reconcile.world import World

_POINTERS: OrderedDict[tuple[str, str, str, str], dvc.Pointer] = OrderedDict()
"""(URL, commit, path, its blob) → pointer; what a commit holds never changes. Bounded by `_POINTERS_MOST`."""
_POINTERS_MOST = 10_000


class MissingFile(Exception):
    """A dataset that is not in the commit."""

    def __init__(self, what: str, path: str) -> None:
        super().__init__(what)
        self.what = what
        """Words for a person."""
        self.path = path
        """The path that is not there."""


async def pin(
    world: World, url: str, commit: str, wanted: Sequence[Dataset], by_path: Mapping[str, TreeEntry]
) -> tuple[PinnedData, ...]:
    """Pin all datasets.

    Raises:
        MissingFile: a path is neither in the commit nor an out of DVC.
        Denied: PathNotAllowed, DataSpecInvalid, DVCConfigNotAllowed. ClientError: what Git says.
    """
    pinned: list[PinnedData] = []
    for dataset in wanted:
        if dataset.path is None:
            pinned.append(PinnedData(name=dataset.name, uri=dataset.uri, digest=dataset.digest or ""))
            continue
        pointer = await _pointer(world, url, commit, dataset.path, by_path)
        if pointer is not None:
            pinned.append(
                PinnedData(name=dataset.name, path=pointer.path, pointer=pointer.file, digest=pointer.digest)
            )
            continue
        entry = by_path.get(dataset.path)
        if entry is None:
            raise MissingFile(f"dataset {dataset.name}: {dataset.path}", dataset.path)
        if dataset.secret_ref is not None:
            message = f"dataset {dataset.name}: {dataset.path} is a file of the commit itself"
            raise Denied(f"{message}, with no login of its own: leave its secretRef out", reason="DataSpecInvalid")
        if entry.mode not in (MODE_FILE, MODE_EXECUTABLE):
            message = f"dataset {dataset.name}: {dataset.path} at commit {commit[:10]} is a link or a submodule"
            raise Denied(f"{message}, not a file", reason="PathNotAllowed")
        pinned.append(PinnedData(name=dataset.name, path=dataset.path, digest=f"gitblob:{entry.blob}"))
    _check_places(pinned)
    return tuple(pinned)


def files_of(data: Sequence[PinnedData]) -> frozenset[str]:
    """Name the files of a commit that are data and therefore no code: datasets, and DVC's pointers to them."""
    return frozenset(path for d in data for path in (d.path, d.pointer) if path is not None)


async def _pointer(
    world: World, url: str, commit: str, path: str, by_path: Mapping[str, TreeEntry]
) -> dvc.Pointer | None:
    key = (url, commit, path, by_path[path].blob if path in by_path else "")
    if key in _POINTERS:
        return _POINTERS[key]

    async def read(paths: Sequence[str]) -> Mapping[str, bytes]:
        return await world.git.read_many(url, commit, paths, limit=dvc.MAX_BYTES)

    found = await dvc_client.locate(path, by_path, read)
    if found is None:
        return None
    # Judged already here, so that a hostile configuration stops a commit before any Job is started.
    await dvc_client.remote(found, by_path, read)
    _POINTERS[key] = found
    while len(_POINTERS) > _POINTERS_MOST:
        _POINTERS.popitem(last=False)
    return found


def _check_places(pinned: Sequence[PinnedData]) -> None:
    """Refuse two datasets that would be one file for the training."""
    names: dict[str, str] = {}
    for data in pinned:
        if data.path is None:
            continue
        if data.path in names:
            message = f"the datasets {names[data.path]} and {data.name} are the same file: {data.path}"
            raise Denied(message, reason="DataSpecInvalid")
        names[data.path] = data.name
