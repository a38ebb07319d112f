"""The one reader of YAML: bytes in, plain values with the position of every key out, or problems.

Reads exactly what the API server would read, and refuses what people and readers of YAML do not agree on: anchors,
aliases, tags, merge keys, duplicate keys, and unquoted scalars with two meanings (`strictyaml_scalars`).  Bounded
before it works: size, depth, number of documents.  Never builds an object of a class, never opens a file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from yaml._yaml import CParser

from controller.api.strictyaml_scalars import Trap, cut, plain

MAX_BYTES: Final = 262_144
"""Largest file that is read, 256 KiB."""
MAX_DEPTH: Final = 64
MAX_DOCUMENTS: Final = 100
MAX_PROBLEMS: Final = 100
"""A file with more problems than this is not read to its end."""

Path = tuple[str | int, ...]
"""Keys and list indices from the root of a document."""
Position = tuple[int, int]
"""Line and column, from 1, in characters."""

_UNWANTED: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\uffff"
    "\U000e0000-\U000e007f]|\r(?!\n)"
)

_WORDS: Final = {
    "mapping values are not allowed in this context": (
        "a ':' where no key can be; quote the value if it contains ': ', or check the indentation"
    ),
    "did not find expected key": "the indentation does not fit the lines above, or a key is missing",
    "did not find expected '-' indicator": "the indentation does not fit the list above",
    "could not find expected ':'": "a key without ':'",
    "did not find expected ',' or ']'": "the list that began with '[' is not closed",
    "did not find expected ',' or '}'": "the block that began with '{' is not closed",
    "found unexpected end of stream": "a quote is not closed",
    "did not find expected node content": "a value is missing here",
    "exceeded maximum nesting depth": f"too deep: more than {MAX_DEPTH} levels",
    "found unknown escape character": "an unknown escape in double quotes; write it in single quotes",
}


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong with the text of a file."""

    line: int
    column: int
    message: str


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file.

    `positions` has the position of the key for entries of mappings, of the entry for lists, and of the whole for
    `()`. `texts` has the source of unquoted scalars that were not read as text. `refused` has the paths of values
    that a problem speaks of already.
    """

    value: Any
    positions: dict[Path, Position]
    texts: dict[Path, str]
    refused: frozenset[Path]
    line: int

    def position(self, path: Path) -> Position:
        """Find the position of a path, or of the nearest thing around it that is there."""
        while path not in self.positions and path:
            path = path[:-1]
        return self.positions.get(path, (self.line, 1))


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a file holds. With problems, `documents` is only what could be read in spite of them."""

    documents: tuple[Document, ...] = ()
    problems: tuple[Problem, ...] = ()


def read(data: bytes) -> Parsed:
    """Read a file; empty documents are left out. Work is bounded by 256 KiB, 64 levels and 100 documents."""
    if len(data) > MAX_BYTES:
        return Parsed(problems=(Problem(1, 1, f"larger than 256 KiB: {len(data):,} bytes; split the file"),))
    text = _decoded(data)
    if isinstance(text, Problem):
        return Parsed(problems=(text,))
    if unwanted := _unwanted(text):
        return Parsed(problems=tuple(unwanted))
    reader = _Reader(text)
    reader.run()
    return Parsed(tuple(reader.documents), tuple(sorted(reader.problems)))


def _decoded(data: bytes) -> str | Problem:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or data[:64].count(0) * 3 >= len(data[:64]) > 1:
        return Problem(1, 1, "not UTF-8 but UTF-16; save the file as UTF-8")
    try:
        return data.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        before = data[data.rfind(b"\n", 0, error.start) + 1 : error.start]
        column = len(before.decode(errors="replace")) + 1
        return Problem(line, column, f"not UTF-8: byte 0x{data[error.start]:02x}; save the file as UTF-8")


def _unwanted(text: str) -> list[Problem]:
    found = []
    for match in _UNWANTED.finditer(text):
        start = match.start()
        line, column = text.count("\n", 0, start) + 1, start - text.rfind("\n", 0, start)
        found.append(Problem(line, column, f"the invisible character {escaped(match[0])}; delete it"))
        if len(found) >= 10:
            break
    return found


def escaped(text: str) -> str:
    r"""Write invisible characters as they are written in source code: `\x1b`, `\u202e`.

    >>> escaped("a\u202eb")
    'a\\u202eb'
    """
    return _UNWANTED.sub(lambda m: m[0].encode("unicode_escape").decode("ascii"), text)


class _StopReading(Exception):
    """The rest of the file is not read: a limit was passed; the problem is recorded already."""


@dataclass
class _Reader:
    """Builds values from the events of the C parser; recursion is bounded by MAX_DEPTH."""

    text: str
    documents: list[Document] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    positions: dict[Path, Position] = field(default_factory=dict)
    texts: dict[Path, str] = field(default_factory=dict)
    refused: set[Path] = field(default_factory=set)

    def run(self) -> None:
        """Read every document until the end, a syntax error or a limit."""
        self.parser = CParser(self.text)
        try:
            self._stream()
        except _StopReading:
            return
        except yaml.MarkedYAMLError as error:
            self.problems.append(self._syntax(error))
        except yaml.YAMLError as error:
            self.problems.append(Problem(1, 1, cut(" ".join(str(error).split()), 200)))

    def _stream(self) -> None:
        count = 0
        while (event := self.parser.get_event()) is not None:
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            count += 1
            if count > MAX_DOCUMENTS:
                self._stop(event, f"more than {MAX_DOCUMENTS} documents; split the file")
            if event.version or event.tags:
                self._problem(event, "%YAML and %TAG lines are not allowed; delete them")
            self._document()

    def _document(self) -> None:
        self.positions, self.texts, self.refused = {}, {}, set()
        event = self.parser.get_event()
        assert event is not None, "a document without a node cannot come from the parser"
        line, column = _at(event)
        self.positions[()] = (line, column)
        value = self._node(event, (), 0)
        if value is not None:
            self.documents.append(Document(value, self.positions, self.texts, frozenset(self.refused), line))

    def _node(self, event: Any, path: Path, depth: int) -> Any:
        if isinstance(event, yaml.AliasEvent):
            self._problem(event, f"aliases are not allowed (*{cut(str(event.anchor))}); write the value out")
            self.refused.add(path)
            return None
        if event.anchor is not None:
            self._problem(
                event, f"anchors are not allowed (&{cut(str(event.anchor))}); write the value out where it is used"
            )
        if event.tag is not None:
            self._problem(event, f"tags are not allowed ({cut(event.tag)}); write the plain value")
            self.refused.add(path)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path)
        if depth >= MAX_DEPTH:
            self._stop(event, f"too deep: more than {MAX_DEPTH} levels")
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path, depth)
        return self._mapping(path, depth)

    def _scalar(self, event: Any, path: Path) -> Any:
        if not event.implicit[0]:
            if event.style == '"' and (match := _UNWANTED.search(event.value)):
                self._problem(event, f"the text contains the invisible character {escaped(match[0])}; delete it")
            return event.value
        value = plain(event.value)
        if isinstance(value, Trap):
            self._problem(event, value.message)
            self.refused.add(path)
            return event.value
        if not isinstance(value, str):
            self.texts[path] = event.value
        return value

    def _sequence(self, path: Path, depth: int) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := self.parser.get_event(), yaml.SequenceEndEvent):
            below = (*path, len(items))
            self.positions[below] = _at(event)
            items.append(self._node(event, below, depth + 1))
        return items

    def _mapping(self, path: Path, depth: int) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        while not isinstance(event := self.parser.get_event(), yaml.MappingEndEvent):
            key = self._key(event, path, depth)
            below = (*path, key)
            if key in fields:
                first = self.positions[below][0]
                self._problem(event, f'the key "{cut(escaped(key))}" comes twice; it is also in line {first}')
                below = (*below, "again")
            self.positions[below] = _at(event)
            value = self._node(self.parser.get_event(), below, depth + 1)
            fields.setdefault(key, value)
        return fields

    def _key(self, event: Any, path: Path, depth: int) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            if not isinstance(event, yaml.AliasEvent):
                self._problem(event, "a key must be text, not a list or a block")
            self._node(event, (*path, "?"), depth + 1)
            return "?"
        if event.value == "<<" and event.implicit[0]:
            self._problem(event, "merge keys (<<) are not allowed; write the fields out")
            self.refused.add((*path, "<<"))
            return "<<"
        key = self._node(event, (*path, event.value), depth)
        if not isinstance(key, str):
            word = "a number" if isinstance(key, int | float) and not isinstance(key, bool) else "no text"
            shown = cut(event.value) or "null"
            self._problem(event, f'the key {shown} is {word}; quote it: "{shown}"')
            self.texts.pop((*path, event.value), None)
            return str(event.value)
        return key

    def _problem(self, event: Any, message: str) -> None:
        self.problems.append(Problem(*_at(event), message))
        if len(self.problems) >= MAX_PROBLEMS:
            raise _StopReading

    def _stop(self, event: Any, message: str) -> None:
        self.problems.append(Problem(*_at(event), message))
        raise _StopReading

    def _syntax(self, error: yaml.MarkedYAMLError) -> Problem:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line, mark.column) if mark else (0, 0)
        lines = self.text.splitlines()
        here = lines[line][column : column + 1] if line < len(lines) else ""
        problem = error.problem or "cannot be read"
        if here == "\t" or "tab" in problem.split():
            return Problem(line + 1, column + 1, "a tab character; indent with spaces")
        if "cannot start any token" in problem:
            return Problem(line + 1, column + 1, f'"{escaped(here)}" cannot begin a value; quote the value')
        return Problem(line + 1, column + 1, _WORDS.get(problem, f"not YAML: {cut(problem, 120)}"))


def _at(event: Any) -> Position:
    return event.start_mark.line + 1, event.start_mark.column + 1
