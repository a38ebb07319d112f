"""`mainspring validate`: are these files right?  Works without a cluster, a network or any heavy library.

Reads YAML below the given paths, checks it with the same function as the sync of repositories, and prints what is
wrong as `file:line:column: error: …`, the way compilers do, so that editors and CI can jump to it.  Never follows
a link out of a given directory, never reads more than a file may have.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from controller.api.strictyaml import MAX_BYTES
from controller.api.validation import Checked, Problem, check_text

OK, WRONG, USAGE = 0, 1, 2
"""Exit codes: all right; errors in files, or nothing to check; a path that is not there."""
SUFFIXES = (".yaml", ".yml")


class Output(StrEnum):
    """Form of the answer."""

    TEXT = "text"
    JSON = "json"


@dataclass
class _Findings:
    files: int = 0
    objects: int = 0
    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    seen: dict[tuple[str, str, str], Problem] = field(default_factory=dict)


def validate(paths: list[Path], output: Output | str = Output.TEXT) -> int:
    """Check files and directories and print the answer; `-` is standard input.

    Returns:
        0 all right, 1 errors in files or no object at all, 2 a path is not there.
    """
    missing = [p for p in paths if str(p) != "-" and not os.path.lexists(p)]
    for path in missing:
        print(f"error: {_line(str(path))} is not there; name a file or a directory with YAML", file=sys.stderr)
    if missing:
        return USAGE
    findings = _Findings()
    for path in paths:
        for file in _files(path, findings):
            _check(file, findings)
    (_print_json if Output(output) is Output.JSON else _print_text)(findings)
    return WRONG if findings.errors or not findings.objects else OK


def validate_command(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Files and directories; `-` is standard input. Default: here.")
    ] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="Form of the answer.")] = Output.TEXT,
) -> None:
    """Check YAML files of Mainspring without a cluster."""
    raise typer.Exit(validate(paths or [Path()], output))


def _files(path: Path, findings: _Findings) -> Iterator[Path]:
    """List the YAML files of a path in a fixed order; hidden directories are left out."""
    if str(path) == "-" or not path.is_dir():
        yield path
        return
    top = path.resolve()
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(names):
            file = Path(folder, name)
            if not name.endswith(SUFFIXES):
                continue
            if file.is_symlink() and not file.resolve().is_relative_to(top):
                findings.files += 1
                message = "a link out of the directory is not followed; copy the file here"
                findings.errors.append(Problem(_line(str(file)), 1, 1, "", message))
                continue
            yield file


def _check(path: Path, findings: _Findings) -> None:
    name = "<stdin>" if str(path) == "-" else _line(str(path))
    findings.files += 1
    try:
        text = sys.stdin.buffer.read(MAX_BYTES + 1) if str(path) == "-" else _content(path)
    except OSError as error:
        findings.errors.append(Problem(name, 1, 1, "", f"cannot be read: {error.strerror or error}"))
        return
    checked = check_text(text, name)
    if checked.skipped is not None:
        findings.skipped.append((name, checked.skipped))
    findings.errors += checked.problems
    findings.warnings += checked.warnings
    findings.objects += len(checked.documents)
    findings.errors += _doubles(checked, name, findings)


def _content(path: Path) -> bytes:
    """Read a regular file up to one byte more than is allowed: a pipe or device would never end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("not a regular file")
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _doubles(checked: Checked, name: str, findings: _Findings) -> Iterator[Problem]:
    """Find objects that another file of this run holds too: a sync would refuse both."""
    for document in checked.documents:
        metadata = document.manifest["metadata"]
        key = (document.manifest["kind"], metadata.get("namespace", ""), metadata["name"])
        line, column = document.positions[("metadata", "name")]
        here = Problem(name, line, column, "metadata.name", "")
        first = findings.seen.setdefault(key, here)
        if first is not here:
            message = f'{key[0]} "{key[2]}" is also in {first.file}:{first.line}; keep one of them'
            yield Problem(name, line, column, "metadata.name", message)


def _line(text: str) -> str:
    """Write a file name on one line, whatever it contains."""
    return "".join(ch if ch.isprintable() else ch.encode("unicode_escape").decode() for ch in text)


def _summary(findings: _Findings) -> str:
    counts = [
        _count(findings.files, "file"),
        _count(findings.objects, "object"),
        _count(len(findings.errors), "error"),
    ]
    if findings.warnings:
        counts.append(_count(len(findings.warnings), "warning"))
    return ", ".join(counts)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _print_text(findings: _Findings) -> None:
    lines = [(p, "error") for p in findings.errors] + [(p, "warning") for p in findings.warnings]
    for problem, word in sorted(lines, key=lambda entry: (entry[0].file, entry[0].line, entry[0].column)):
        where = f"{problem.path}: " if problem.path else ""
        _print_line(f"{problem.file}:{problem.line}:{problem.column}: ", word, f"{where}{problem.message}")
    for name, reason in findings.skipped:
        _print_line(f"{name}: ", "skipped", reason)
    if not findings.objects and not findings.errors:
        _print_line("", "error", "no object of Mainspring in these files")
    print(_summary(findings))


def _print_line(before: str, word: str, after: str) -> None:
    """Print one line, the word in colour where a person looks at it."""
    if not sys.stdout.isatty():
        print(f"{before}{word}: {after}")
        return
    from rich.console import Console
    from rich.text import Text

    colour = {"error": "bold red", "warning": "yellow"}.get(word, "dim")
    Console(soft_wrap=True, highlight=False).print(Text(before) + Text(f"{word}: ", style=colour) + Text(after))


def _print_json(findings: _Findings) -> None:
    answer = {
        "files": findings.files,
        "objects": findings.objects,
        "errors": [asdict(p) for p in findings.errors],
        "warnings": [asdict(p) for p in findings.warnings],
        "skipped": [{"file": name, "reason": reason} for name, reason in findings.skipped],
    }
    print(json.dumps(answer, indent=2, ensure_ascii=False))
