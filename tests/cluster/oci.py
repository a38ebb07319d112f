"""Writes container images without any container tool: one layer, one configuration, as `docker save` would.

The same input gives the same bytes.  Nothing here runs or reads an image.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any


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
    def read(content: IO[bytes]) -> str:
        return hashlib.file_digest(content, "sha256").hexdigest()

    with file.open("rb") as content:
        return read(content)
