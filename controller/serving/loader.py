"""Loads a model that was verified, in one of the formats of `artifacts.Format`.

Loading a pickle runs what is in it, so the manifest's digest is checked first, on a private copy, and the copy is
what is loaded.  Which reader a file gets is decided here and in `mlmodel.py`, never by code of the artifact.
"""

from __future__ import annotations

import atexit
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from controller.clients import artifacts
from controller.clients.artifacts import SINGLE_FILES, FileDigest, Format
from controller.serving import mlmodel
from controller.serving.formats import lightgbm_file, onnx_file, pickles, xgboost_file
from controller.serving.mlmodel import Flavor
from controller.serving.predictor import Predictor

CODE_PATHS_MAX_BYTES: Final = 65_536

_READERS: Final[dict[str, Callable[[Path, str], tuple[Any, str]]]] = {
    "onnx": onnx_file.read,
    "xgboost": xgboost_file.read,
    "lightgbm": lightgbm_file.read,
}


def verify_and_load(root: Path, digest: str) -> tuple[Predictor, tuple[FileDigest, ...]]:
    """Copy, verify the copy, load the copy.

    Args:
        root: a directory that `artifacts.locate` understands; all files of the artifact are part of the digest.
        digest: `sha256:<64 hex>` of the manifest.

    Raises:
        Denied: ManifestMismatch before anything is loaded; ModelNotLoadable, EnvironmentMismatch.
    """
    located = artifacts.locate(root)
    private = Path(tempfile.mkdtemp(prefix="mainspring-model-"))
    copy = private / "model"
    try:
        files = artifacts.matched(artifacts.snapshot(located.root, copy), digest)
        _lock(copy)
        return load(copy, located.format), files
    finally:
        if (copy / artifacts.CODE).is_dir():
            # Its modules may import one another as late as in a prediction.
            atexit.register(shutil.rmtree, private, ignore_errors=True)
        else:
            shutil.rmtree(private, ignore_errors=True)


def load(root: Path, kind: Format) -> Predictor:
    """Load a model whose files were verified by the caller. Modules in `code/` can be imported from then on.

    Raises:
        Denied: ModelNotLoadable, naming the error and a way out; EnvironmentMismatch, naming both versions.
    """
    flavor = mlmodel.read(root) if kind == "mlflow" else _plain(root, kind)
    if (code := root / artifacts.CODE).is_dir():
        # At the end, so that it replaces no module of ours or of a library.
        sys.path.extend(_module_paths(code))
    path, packages = root / flavor.file, dict(flavor.packages)
    library, read = flavor.framework, _READERS.get(flavor.reader)
    if read is not None:
        model, version = read(path, packages.get(library, ""))
    else:
        if library == "lightgbm":
            lightgbm_file.check_release(path, packages.get(library, ""))
        library = "scikit-learn"
        model, version = pickles.read(path, flavor.reader, packages.get(library, ""))
    if version:
        packages[library] = version
    return Predictor(
        model,
        kind=kind,
        packages=packages,
        named=flavor.columns,
        kinds=flavor.kinds,
        example=mlmodel.example(root) if kind == "mlflow" else None,
    )


def _module_paths(code: Path) -> list[str]:
    """List where modules are imported from: `code/`, and the directories of it that CODE_PATHS names."""
    try:
        named = json.loads((code / artifacts.CODE_PATHS).read_bytes()[:CODE_PATHS_MAX_BYTES])
    except (OSError, ValueError, RecursionError):
        named = []
    inside = [
        code / name
        for name in (named if isinstance(named, list) else ())
        if isinstance(name, str) and not artifacts.name_problem(name) and (code / name).is_dir()
    ]
    return [str(code), *map(str, inside)]


def _plain(root: Path, kind: Format) -> Flavor:
    """Find the one file of a model without MLmodel; `artifacts.locate` has seen that there is just one."""
    file = next(name for name, written in SINGLE_FILES.items() if written == kind and (root / name).is_file())
    return Flavor(file, kind, kind if kind in _READERS else "scikit-learn", {})


def _lock(copy: Path) -> None:
    for entry in copy.rglob("*"):
        if entry.is_file():
            entry.chmod(0o400)
