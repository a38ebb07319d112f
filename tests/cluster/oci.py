"""Container images as files: writes ones of a single layer, and hands a layout's images on blob by blob.

An archive is what `docker save` writes; a layout is a directory as the Open Container Initiative describes it, in
which images share their layers.  Nothing here runs an image or asks a container tool.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

NAME = "org.opencontainers.image.ref.name"
# By this one containerd calls an image that it imports.
_CONTAINERD = "io.containerd.image.name"


@dataclass(frozen=True)
class Image:
    """An image of a layout: its name with a tag, its entry in the index, its blobs and layers (as SHA-256)."""

    name: str
    layout: Path
    entry: Mapping[str, Any]
    blobs: tuple[str, ...]
    layers: tuple[str, ...]

    @property
    def size(self) -> int:
        """How many bytes its layers take; in our layouts they are not compressed."""
        return sum(self._blob(digest).stat().st_size for digest in self.layers)

    def _blob(self, digest: str) -> Path:
        return self.layout / "blobs" / "sha256" / digest

    def write(self, stream: IO[bytes], wanted: Callable[[str], bool]) -> None:
        """Write it as a tar file that containerd imports, with those blobs for which `wanted` is true."""
        described = {**self.entry, "annotations": {_CONTAINERD: self.name}}
        with tarfile.open(fileobj=stream, mode="w|") as tar:
            _add(tar, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
            for digest in filter(wanted, self.blobs):
                _add(tar, f"blobs/sha256/{digest}", self._blob(digest))
            _add(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": [described]}).encode())


def images(layout: Path) -> dict[str, Image]:
    """The images of a layout by name; none where there is no layout."""
    index = layout / "index.json"
    described = json.loads(index.read_text())["manifests"] if index.exists() else []
    return {each["annotations"][NAME]: _image(layout, each) for each in described}


def keep(layout: Path, names: set[str]) -> None:
    """Take all other images out of a layout, and the blobs that nothing names any more."""
    kept = [image for name, image in images(layout).items() if name in names]
    index = {"schemaVersion": 2, "manifests": [image.entry for image in kept]}
    (layout / "index.json").write_text(json.dumps(index))
    blobs = {digest for image in kept for digest in image.blobs}
    for blob in (layout / "blobs" / "sha256").iterdir():
        if blob.name not in blobs:
            blob.unlink()


def _image(layout: Path, entry: Mapping[str, Any]) -> Image:
    manifest = json.loads((layout / "blobs" / "sha256" / _hex(entry)).read_text())
    layers = tuple(_hex(layer) for layer in manifest["layers"])
    return Image(
        entry["annotations"][NAME], layout, entry, (_hex(entry), _hex(manifest["config"]), *layers), layers
    )


def _hex(part: Mapping[str, Any]) -> str:
    return str(part["digest"]).removeprefix("sha256:")


def write_image(archive: Path, name: str, layer: Path, config: Mapping[str, Any]) -> None:
    """Write `archive` with the image `name` (with a tag), whose files are those of the tar file `layer`.

    `config` is the image's `config` object: `Env`, `Entrypoint`, `User` and the like.
    """
    digest = _digest(layer)
    described = {
        "architecture": "amd64",
        "os": "linux",
        "config": dict(config),
        # Builders count the layers by it.
        "history": [{"created_by": "mainspring tests"}],
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    content = json.dumps(described, sort_keys=True).encode()
    manifest = [
        {"Config": f"{hashlib.sha256(content).hexdigest()}.json", "RepoTags": [name], "Layers": [f"{digest}.tar"]}
    ]
    with tarfile.open(archive, "w") as tar:
        _add(tar, f"{digest}.tar", layer)
        _add(tar, str(manifest[0]["Config"]), content)
        _add(tar, "manifest.json", json.dumps(manifest).encode())


def write_layer(layer: Path, programs: Mapping[str, Path]) -> None:
    """Write the tar file `layer` that holds programs (mode 0755), each at its path in the image."""
    with tarfile.open(layer, "w") as tar:
        for name, source in sorted(programs.items()):
            _add(tar, name.lstrip("/"), source, mode=0o755)


def _add(tar: tarfile.TarFile, name: str, source: Path | bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode = mode
    if isinstance(source, bytes):
        entry.size = len(source)
        tar.addfile(entry, io.BytesIO(source))
        return
    entry.size = source.stat().st_size
    with source.open("rb") as content:
        tar.addfile(entry, content)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
