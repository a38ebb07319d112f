"""Which files of a commit are code: the one rule for the controller, which hashes them, and for `fetch`, which
writes them.

Pure: paths and texts in, a choice out.  It must never see a file's content except to tell our own YAML apart,
and never decide whether a link or submodule is acceptable: it keeps their lines, the export refuses them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import yaml

from controller.api.git_rules import path_problem
from controller.api.meta import GROUP

Line = tuple[str, str, str]
"""(mode, path, blob), for example `100644`, `train.py`, `3b18e5…`."""

OUR_YAML_MAX_BYTES: Final = 1_048_576
"""Larger YAML files are never looked into and count as code."""
_DEFAULT_LEFT_OUT: Final = ("docs/", ".github/", ".dvc/")


def select(entries: Iterable[Line], paths: tuple[str, ...], *, exclude: frozenset[str]) -> tuple[Line, ...]:
    """Choose the files that the training is given, sorted by path.

    Args:
        entries: every file of the commit.
        paths: `source.paths`. `train/` is a directory; `train` is a file or a directory of that name. Empty: the
            whole tree without `*.md`, `docs/`, `.github/` and `.dvc/`.
        exclude: exact paths that never count: the datasets and DVC's pointers to them (their digests are in the
            data), and our own YAML.
    """
    chosen = {
        line
        for line in entries
        if line[1] not in exclude and (any(_covers(p, line[1]) for p in paths) if paths else _by_default(line[1]))
    }
    return tuple(sorted(chosen, key=lambda line: line[1]))


def unmatched(entries: Iterable[Line], paths: tuple[str, ...]) -> tuple[str, ...]:
    """Return the paths of `source.paths` that name nothing in the commit, in their order."""
    names = [path for _, path, _ in entries]
    return tuple(p for p in paths if not any(_covers(p, name) for name in names))


def may_be_our_yaml(path: str, size: int, mode: str = "100644") -> bool:
    """Tell whether a file must be read and shown to `is_our_yaml`: by name, size in bytes and Git's mode."""
    return (
        path.lower().endswith((".yaml", ".yml"))
        and size <= OUR_YAML_MAX_BYTES
        and mode in ("100644", "100755")
        and path_problem(path) is None
    )


def is_our_yaml(text: str | bytes) -> bool:
    """Tell whether every document of a YAML file has our API group, so that it configures and is no code.

    Bytes are read as UTF-8; what is none is replaced, so that one byte in a comment does not make it code.
    Documents that say nothing (comments only) are passed over; one at least must be ours. Broken YAML is not ours.
    """
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    try:
        # Nodes, not values: an alias is one node however often it is named, and libyaml bounds the depth.
        documents = [d for d in yaml.compose_all(text, Loader=yaml.CSafeLoader) if not _says_nothing(d)]
    except (yaml.YAMLError, ValueError):
        return False
    return bool(documents) and all(_is_ours(d) for d in documents)


def _says_nothing(document: yaml.Node) -> bool:
    return isinstance(document, yaml.ScalarNode) and document.value == ""


def _is_ours(document: yaml.Node) -> bool:
    return isinstance(document, yaml.MappingNode) and any(
        key.value == "apiVersion" and isinstance(value.value, str) and value.value.startswith(f"{GROUP}/")
        for key, value in document.value
    )


def _covers(wanted: str, path: str) -> bool:
    if wanted.endswith("/"):
        return path.startswith(wanted)
    return path == wanted or path.startswith(f"{wanted}/")


def _by_default(path: str) -> bool:
    return not path.lower().endswith(".md") and not path.startswith(_DEFAULT_LEFT_OUT)
