"""Files of a model: which belong to it, their digests, and the one digest that stands for all of them.

The digest of the manifest decides what is loaded, so nothing here follows a link, skips a name or trusts a size
that it did not read.  Empty directories are not part of a manifest: they hold nothing that could be loaded.
Never loads a model, never writes into the directory it reads.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal

from controller.api import hashes
from controller.clients.errors import Denied, NotFound

FILES_MAX: Final = 10_000
"""Most files that one artifact may have."""
BYTES_MAX: Final = 16 * 2**30
"""Most bytes of all files of one artifact, holes of sparse files included."""
PATH_MAX: Final = 255
"""Longest path inside an artifact, in bytes."""
CODE: Final = "code"
"""Directory beside a model file with the Python modules that it needs."""
CODE_PATHS: Final = "paths.json"
"""In CODE: JSON list of the directories below it that modules are imported from, besides CODE itself."""
Format = Literal["mlflow", "skops", "joblib", "onnx", "xgboost", "lightgbm"]

SINGLE_FILES: Final[dict[str, Format]] = {
    "model.skops": "skops",
    "model.joblib": "joblib",
    "model.onnx": "onnx",
    "model.ubj": "xgboost",
    "model.json": "xgboost",
    "model.txt": "lightgbm",
}
"""Names of a model that is one file → how it is written."""

_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class FileDigest:
    """One file: its path below the root with `/`, its size in bytes, its sha256 as 64 hex digits."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Located:
    """A model found in a directory: where its files are, which they are (sorted), how they are written."""

    root: Path
    files: tuple[str, ...]
    format: Format


def build_manifest(root: Path, files: Iterable[str] | None = None) -> tuple[FileDigest, ...]:
    """Hash every file below a directory, or just those named; sorted by the bytes of their paths.

    Raises:
        Denied: ArtifactRefused: a link, a special file, an unsafe name, too many files.
        NotFound: ModelMissing: the directory or a named file is not there.
    """
    return snapshot(root, None, files)


def manifest_digest(files: Iterable[FileDigest]) -> str:
    """Hash a manifest: `sha256:<64 hex>` over the canonical JSON of [[path, size, sha256], …]."""
    rows = sorted(files, key=lambda f: f.path.encode())
    return hashes.sha256(hashes.canonical([[f.path, f.size, f.sha256] for f in rows]))


def verify(root: Path, digest: str) -> tuple[FileDigest, ...]:
    """Check that a directory holds exactly the files that a digest stands for: none less, none more.

    Raises:
        Denied: ManifestMismatch, or ArtifactRefused as for `build_manifest`.
    """
    return matched(build_manifest(root), digest)


def matched(files: tuple[FileDigest, ...], digest: str) -> tuple[FileDigest, ...]:
    """Return the manifest if it has the digest.

    Raises:
        Denied: ManifestMismatch, naming the number of files and both digests.
    """
    found = manifest_digest(files)
    if found != digest:
        raise Denied(
            f"the model's {len(files)} files have digest {found}, not {digest}: "
            "they were changed after they were evaluated, and nothing was loaded",
            reason="ManifestMismatch",
        )
    return files


def snapshot(root: Path, into: Path | None, files: Iterable[str] | None = None) -> tuple[FileDigest, ...]:
    """Copy the files of an artifact and hash the very bytes that were copied; `into` None: hash only.

    Whoever loads from the copy loads what was hashed, whatever happens to the original in between.

    Raises:
        Denied: ArtifactRefused. NotFound: ModelMissing.
    """
    names = list_files(root) if files is None else _checked(root, files)
    out = []
    for name in names:
        target = None if into is None else into / name
        if target is not None:
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        out.append(_hash_file(root, name, target))
    return tuple(out)


def assemble(located: Located, code: Path | None, into: Path | None) -> tuple[FileDigest, ...]:
    """Copy and hash a model that a training left, as `snapshot`; `into` None: hash only.

    A joblib file is a pickle, which names classes and does not hold them.  So where the training left no modules
    of its own in `code/` beside it, the repository's go there.

    Args:
        located: the model.
        code: the Python files of the commit as `fetch` put them aside, where no training could change them; None
            or without a file: none.
        into: an empty directory.

    Raises:
        Denied: ArtifactRefused. NotFound: ModelMissing.
    """
    files = snapshot(located.root, into, located.files)
    if located.format != "joblib" or code is None or not code.is_dir():
        return files
    if any(f.path.startswith(f"{CODE}/") for f in files):
        return files
    more = snapshot(code, None if into is None else into / CODE)
    moved = (FileDigest(f"{CODE}/{f.path}", f.size, f.sha256) for f in more)
    return tuple(sorted((*files, *moved), key=lambda f: f.path.encode()))


def locate(output: Path) -> Located:
    """Find the one model in what a training left, or in a downloaded artifact.

    An artifact directory, `model/` in MLflow format (or with one model file), or one of SINGLE_FILES.  Modules in
    `code/` beside a single file belong to it; other files do not.

    Raises:
        NotFound: ModelMissing, listing what is there instead.
        Denied: AmbiguousModel: more than one model. ArtifactRefused as for `build_manifest`.
    """
    found = [(base, marker) for base in (output, output / "model") for marker in _markers(base)]
    if not found:
        raise NotFound(
            f"no model was left: expected model/MLmodel, {', '.join(SINGLE_FILES)} in MAINSPRING_OUTPUT; "
            f"there is {_listing(output)}",
            reason="ModelMissing",
        )
    if len(found) > 1:
        names = ", ".join(str((base / marker).relative_to(output)) for base, marker in found)
        raise Denied(f"{len(found)} models were left ({names}): leave exactly one", reason="AmbiguousModel")
    root, marker = found[0]
    if marker == "MLmodel":
        return Located(root, list_files(root), "mlflow")
    plain = SINGLE_FILES[marker]
    if root != output:
        return Located(root, list_files(root), plain)
    code = [f"{CODE}/{name}" for name in list_files(root / CODE)] if (root / CODE).is_dir() else []
    return Located(root, _checked(root, [marker, *code]), plain)


def _markers(base: Path) -> tuple[str, ...]:
    """Name what makes a directory a model; MLflow keeps a model.skops of its own beside its MLmodel."""
    there = tuple(m for m in ("MLmodel", *SINGLE_FILES) if os.path.lexists(base / m) and not base.is_symlink())
    return there[:1] if "MLmodel" in there else there


def list_files(root: Path) -> tuple[str, ...]:
    """List the regular files below a directory, sorted by the bytes of their paths.

    Raises:
        Denied: ArtifactRefused. NotFound: ModelMissing.
    """
    names: list[str] = []
    try:
        _walk(root, "", names)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"{root.name}/ is not a directory with a model", reason="ModelMissing") from error
    return _checked(root, names)


def _walk(root: Path, below: str, names: list[str]) -> None:
    with os.scandir(root / below) as entries:
        for entry in entries:
            name = f"{below}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                _walk(root, f"{name}/", names)
            else:
                names.append(name)
            if len(names) > FILES_MAX:
                raise _refused(f"more than {FILES_MAX:,} files")


def _checked(root: Path, names: Iterable[str]) -> tuple[str, ...]:
    """Sort names, and refuse those that mean another file on another system or leave the directory."""
    seen: dict[str, str] = {}
    size = 0
    for name in names:
        if problem := name_problem(name):
            raise _refused(f"{name!r:.100}: {problem}")
        if (twin := seen.get(name.casefold())) is not None:
            raise _refused(f"{twin!r} and {name!r} differ in case only")
        seen[name.casefold()] = name
        try:
            found = (root / name).lstat()
        except FileNotFoundError as error:
            raise NotFound(f"the model has no file {name}", reason="ModelMissing") from error
        if not stat.S_ISREG(found.st_mode):
            raise _refused(f"{name!r} is {'a link' if stat.S_ISLNK(found.st_mode) else 'not a regular file'}")
        size += found.st_size
    if size > BYTES_MAX:
        raise _refused(f"they have {size:,} bytes, more than {BYTES_MAX:,}")
    return tuple(sorted(seen.values(), key=str.encode))


def name_problem(name: str) -> str:
    """Say why a path cannot belong to an artifact; empty when it can."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if size > PATH_MAX:
        return f"its path has {size} bytes, more than {PATH_MAX}"
    if not name.isprintable() or "\\" in name:
        return "its name has a character that does not print, or a backslash"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "it is not a plain path below the model's directory"
    return ""


def _hash_file(root: Path, name: str, target: Path | None) -> FileDigest:
    try:
        descriptor = os.open(root / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise _refused(f"{name!r} cannot be read: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as source:
        if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
            raise _refused(f"{name!r} is not a regular file")
        if target is None:
            size, hexdigest = _pump(source, None)
        else:
            with target.open("xb") as copy:
                size, hexdigest = _pump(source, copy)
    return FileDigest(name, size, hexdigest)


def _pump(source: IO[bytes], copy: IO[bytes] | None) -> tuple[int, str]:
    size, sha = 0, hashlib.sha256()
    while chunk := source.read(_CHUNK):
        sha.update(chunk)
        size += len(chunk)
        if size > BYTES_MAX:
            # It grew since it was looked at.
            raise _refused(f"one has more than {BYTES_MAX:,} bytes")
        if copy is not None:
            copy.write(chunk)
    return size, sha.hexdigest()


def _listing(directory: Path, most: int = 10) -> str:
    try:
        names = sorted(ascii(entry.name)[1:-1][:60] for entry in directory.iterdir())
    except OSError:
        return "no such directory"
    if not names:
        return "nothing"
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _refused(what: str) -> Denied:
    return Denied(f"the model's files are refused: {what}", reason="ArtifactRefused")
