"""DVC's files read as data: a `.dvc` pointer, a `dvc.lock`, a `.dvc/config`.  Pure: bytes in, plain values out.

Only what names the content (md5, size, path) and where it lies (url, endpoint and region of one remote) is read.
DVC itself is not used: its configuration may name commands, credentials and directories to write to, and a
repository is written by others.  Three files and one layout of a remote are all that a dataset needs.
Whatever asks for more is refused with the key named; nothing is opened, run, expanded or followed here.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn
from urllib.parse import urlsplit

import yaml

from controller.api.git_rules import path_problem, shown

SUFFIX: Final = ".dvc"
LOCK: Final = "dvc.lock"
CONFIG: Final = ".dvc/config"
MAX_BYTES: Final = 1_048_576
"""Largest file of DVC that is read, 1 MiB."""
MAX_DEPTH: Final = 32

_MD5: Final = re.compile(r"[0-9a-f]{32}")
_OUT_KEYS: Final = frozenset(
    {"md5", "hash", "size", "path", "remote", "nfiles", "isexec", "cache", "persist", "push", "desc", "type"}
    | {"labels", "meta"}
)
_POINTER_KEYS: Final = frozenset({"outs", "deps", "md5", "frozen", "meta", "desc", "wdir"})
_CORE_IGNORED: Final = frozenset({"analytics", "autostage"})
_CACHE_IGNORED: Final = frozenset({"type", "shared"})
_REMOTE_READ: Final = frozenset({"url", "endpointurl", "region"})
_REMOTE_IGNORED: Final = frozenset({"jobs", "verify"})
"""Settings that change nothing for us: we fetch one file at a time and always verify."""
_SECTION: Final = re.compile(r"""\[\s*'?\s*(core|cache|remote\s+"(?P<name>[^"'\]]+)"|[^\]\[]*?)\s*'?\s*\]""")
_SECRETS: Final = ("password", "secret", "token", "key", "credential", "connection_string", "sas")


class DVCProblem(Exception):
    """What is wrong with a file of DVC."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        """DataSpecInvalid, PathNotAllowed or DVCConfigNotAllowed."""
        self.message = message
        """One sentence: which file, what, what to do."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """One file that DVC keeps elsewhere."""

    file: str
    """The pointer in the repository: `data/train.csv.dvc`, or a dvc.lock."""
    path: str
    """Where the file belongs, relative to the top of the repository."""
    md5: str
    """32 hex digits."""
    size: int | None = None
    """Bytes; old files do not say."""
    legacy: bool = False
    """Written before DVC 3: the md5 of a text is that of its lines ended by LF alone."""
    remote: str = ""
    """Remote that the pointer names itself; empty for the default one."""

    @property
    def digest(self) -> str:
        """Return the digest that is pinned."""
        return f"md5:{self.md5}"

    def objects(self) -> tuple[str, ...]:
        """Return where the object may lie below a remote: in DVC 3's layout and the older one."""
        old = f"{self.md5[:2]}/{self.md5[2:]}"
        new = f"files/md5/{old}"
        return (old, new) if self.legacy else (new, old)


@dataclass(frozen=True, slots=True)
class Lock:
    """What a dvc.lock says: the outs of its stages, and what each stage has read."""

    outs: Mapping[str, Pointer]
    """By path."""
    deps: tuple[tuple[str, str, str], ...]
    """(stage, path, md5) of every input that has an md5."""
    made_by: Mapping[str, str]
    """Stage of every out, by path."""


@dataclass(frozen=True, slots=True)
class Remote:
    """Where objects lie."""

    name: str
    """Its name in `.dvc/config`."""
    kind: Literal["Inside", "Directory", "Http", "S3"]
    """Inside: a directory of the repository itself, at the same commit."""
    url: str
    """Inside: path from the top of the repository. Directory: absolute path. Else the address, without `/` at the
    end."""
    endpoint: str = ""
    """S3: address of the service; empty for AWS."""
    region: str = ""
    """S3: the region."""


def parse_pointer(data: bytes, file: str) -> Pointer:
    """Read a `.dvc` file that points to one file.

    Raises:
        DVCProblem: DataSpecInvalid, or PathNotAllowed for an out that is not beside the pointer or below it.
    """
    value = _mapping(_yaml(data, file), file, "the file")
    if "cmd" in value:
        _invalid(file, "has a cmd; a pointer has none, stages belong into dvc.yaml")
    if unknown := sorted(value.keys() - _POINTER_KEYS):
        _invalid(file, f"has the unknown key {shown(unknown[0], 40)}")
    if value.get("wdir", ".") != ".":
        _refuse("PathNotAllowed", f"{shown(file)} has wdir {shown(str(value['wdir']), 60)}; only '.' is read")
    for dep in _items(value, "deps", file):
        if "repo" in dep:
            _invalid(file, "imports from another repository, whose remote is not known here; use dvc add")
    outs = list(_items(value, "outs", file))
    if len(outs) != 1:
        _invalid(file, f"has {len(outs)} outs; exactly one is wanted")
    return _out(outs[0], file)


def parse_lock(data: bytes, file: str) -> Lock:
    """Read a dvc.lock. Outs that are directories, or have no md5, are passed over: no dataset can be one.

    Raises:
        DVCProblem: DataSpecInvalid: no dvc.lock of schema 2, or two stages make the same path.
    """
    value = _mapping(_yaml(data, file), file, "the file")
    if value.get("schema") != "2.0":
        _invalid(file, f"has schema {shown(str(value.get('schema', 'none')), 20)}; only '2.0' is read")
    outs: dict[str, Pointer] = {}
    made_by: dict[str, str] = {}
    deps: list[tuple[str, str, str]] = []
    for name, stage in _mapping(value.get("stages", {}), file, "stages").items():
        body = _mapping(stage, file, f"stage {shown(name, 60)}")
        for dep in _items(body, "deps", file):
            path, md5 = dep.get("path"), dep.get("md5")
            if isinstance(path, str) and isinstance(md5, str):
                deps.append((name, _beside(file, path), md5))
        for out in _items(body, "outs", file):
            if (
                str(out.get("md5", "")).endswith(".dir")
                or "md5" not in out
                or path_problem(str(out.get("path", "")))
            ):
                continue
            pointer = _out(out, file)
            if pointer.path in outs:
                _invalid(file, f"has {shown(pointer.path)} as an out of two stages")
            outs[pointer.path], made_by[pointer.path] = pointer, name
    return Lock(outs, tuple(deps), made_by)


def parse_config(data: bytes, file: str, wanted: str = "") -> Remote:
    """Read one remote of a `.dvc/config`: the one wanted by name, else the default; others are not looked at.

    Raises:
        DVCProblem: DVCConfigNotAllowed, with the key.
    """
    sections = _ini(data, file)
    core = sections.pop("core", {})
    for name, ignored in (("core", _CORE_IGNORED | {"remote"}), ("cache", _CACHE_IGNORED)):
        given = core if name == "core" else sections.pop(name, {})
        if bad := sorted(given.keys() - ignored):
            _not_allowed(file, f"sets {name}.{_plain(bad[0])}, which is not allowed; take it out")
    if foreign := sorted(name for name in sections if not name.startswith("remote ")):
        _not_allowed(file, f"has the section {shown(foreign[0], 40)}, which is not allowed; take it out")
    name = wanted or core.get("remote", "")
    if not name:
        _not_allowed(file, "names no default remote: dvc remote default NAME")
    chosen = sections.get(f"remote {name}")
    if chosen is None:
        known = ", ".join(shown(s.removeprefix("remote "), 40) for s in sorted(sections)[:5]) or "none"
        _not_allowed(file, f"has no remote {shown(name, 40)}; there is {known}")
    for key in sorted(chosen.keys() - _REMOTE_READ - _REMOTE_IGNORED):
        secret = any(word in key for word in _SECRETS)
        why = "credentials do not belong into Git" if secret else "only url, endpointurl and region are read"
        _not_allowed(file, f"sets {_plain(key)} of remote {shown(name, 40)}, which is not allowed: {why}")
    return _remote(name, chosen, file)


def _remote(name: str, chosen: Mapping[str, str], file: str) -> Remote:
    url, endpoint, region = (chosen.get(key, "") for key in ("url", "endpointurl", "region"))
    what = f"remote {shown(name, 40)}"
    for key, value in (("url", url), ("endpointurl", endpoint), ("region", region)):
        if re.search(r"""[\s\\,'"#$%<>{}?;@]""", value) or not value.isprintable():
            _not_allowed(file, f"has characters in {key} of {what} that no plain address has")
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if (endpoint or region) and scheme != "s3":
        _not_allowed(file, f"sets {'endpointurl' if endpoint else 'region'} of {what}, which is no s3:// remote")
    if scheme in ("http", "https") and urlsplit(url).hostname:
        return Remote(name, "Http", url.rstrip("/"))
    if scheme == "s3":
        if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w./+=-]*)?", url) or ".." in url:
            _not_allowed(file, f"has no s3://bucket/prefix in url of {what}")
        if endpoint and not re.fullmatch(r"https?://[\w.:\[\]-]+/?", endpoint):
            _not_allowed(file, f"has no http(s)://host in endpointurl of {what}")
        if region and not re.fullmatch(r"[a-z0-9-]{1,40}", region):
            _not_allowed(file, f"has a region of {what} that is none")
        return Remote(name, "S3", url.rstrip("/"), endpoint.rstrip("/"), region)
    if scheme == "file" and url.startswith("file:///"):
        url, scheme = url.removeprefix("file://"), ""
    if scheme or not url or ":" in url:
        kind = f"the scheme {shown(scheme, 20)}" if scheme else "no url that can be read"
        _not_allowed(file, f"has {kind} in url of {what}; allowed: https, http, s3, or a directory")
    if url.startswith("/"):
        if ".." in url.split("/"):
            _not_allowed(file, f"has '..' in url of {what}")
        return Remote(name, "Directory", url.rstrip("/") or "/")
    # As DVC does: a relative address counts from the directory of the configuration.
    inside = posixpath.normpath(posixpath.join(posixpath.dirname(file), url))
    if path_problem(inside):
        _not_allowed(
            file, f"leads out of the repository by url of {what}; name the directory by its absolute path"
        )
    return Remote(name, "Inside", inside)


def _out(out: Mapping[str, Any], file: str) -> Pointer:
    """Read one out."""
    if unknown := sorted(out.keys() - _OUT_KEYS):
        _invalid(file, f"has an out with the unknown key {shown(unknown[0], 40)}")
    path, md5, size = (out.get(key, "") for key in ("path", "md5", "size"))
    if not isinstance(path, str) or not path:
        _invalid(file, "has an out without a path")
    if problem := path_problem(path):
        _refuse("PathNotAllowed", f"{shown(file)}: {problem}")
    if isinstance(md5, str) and md5.endswith(".dir"):
        _invalid(file, f"points to the directory {shown(path)}; a dataset is one table: point to one file of it")
    if out.get("hash", "md5") != "md5" or not isinstance(md5, str) or not _MD5.fullmatch(md5):
        _invalid(file, f"has no md5 of 32 lower-case hex digits for {shown(path)}")
    if not isinstance(size, str) or (size and not re.fullmatch(r"[0-9]{1,15}", size)):
        _invalid(file, f"has a size for {shown(path)} that is no number of bytes")
    remote = out.get("remote", "")
    return Pointer(
        file=file,
        path=_beside(file, path),
        md5=md5,
        size=int(size) if size else None,
        legacy="hash" not in out,
        remote=remote if isinstance(remote, str) else "",
    )


def _beside(file: str, path: str) -> str:
    """Write a path that counts from the directory of a file from the top of the repository."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(file), path))


def _yaml(data: bytes, file: str) -> Any:
    """Read one YAML document as plain text values: no tags, no aliases, no key twice."""
    if len(data) > MAX_BYTES:
        _invalid(file, f"has {len(data):,} bytes; at most {MAX_BYTES:,} are read")
    try:
        documents = [*yaml.compose_all(data.decode("utf-8"), Loader=yaml.CBaseLoader)]
    except UnicodeDecodeError:
        _invalid(file, "is not UTF-8")
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        _invalid(file, f"is no YAML{where}; a merge may have left its marks: run dvc checkout or dvc repro")
    if len(documents) != 1:
        _invalid(file, f"has {len(documents)} YAML documents; exactly one is wanted")
    return _value(documents[0], file, set(), 0)


def _value(node: yaml.Node, file: str, seen: set[int], depth: int) -> Any:
    if id(node) in seen:
        _invalid(file, "uses a YAML alias; DVC writes none")
    seen.add(id(node))
    if depth > MAX_DEPTH:
        _invalid(file, f"is more than {MAX_DEPTH} levels deep")
    if isinstance(node, yaml.ScalarNode):
        return node.value
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, file, seen, depth + 1) for item in node.value]
    out: dict[str, Any] = {}
    for key, item in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else ""
        if name in out or not isinstance(name, str):
            _invalid(file, f"has the key {shown(str(name), 40)} twice")
        out[name] = _value(item, file, seen, depth + 1)
    return out


def _mapping(value: Any, file: str, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _invalid(file, f"is none of DVC: {what} holds no keys")
    return value


def _items(value: Mapping[str, Any], key: str, file: str) -> Iterator[dict[str, Any]]:
    found = value.get(key) or []
    if not isinstance(found, list):
        _invalid(file, f"has {key} that are no list")
    for item in found:
        yield _mapping(item, file, f"an entry of {key}")


def _ini(data: bytes, file: str) -> dict[str, dict[str, str]]:
    """Read the part of ConfigObj's format that DVC writes; keys in lower case, as DVC compares them."""
    if len(data) > MAX_BYTES:
        _not_allowed(file, f"has {len(data):,} bytes; at most {MAX_BYTES:,} are read")
    sections: dict[str, dict[str, str]] = {}
    here: dict[str, str] | None = None
    for number, raw in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if found := _SECTION.fullmatch(line):
            name = f"remote {found['name']}" if found["name"] else found[1].strip().lower()
            if name in sections:
                _not_allowed(file, f"has the section {shown(name, 40)} twice")
            here = sections[name] = {}
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or here is None or not key:
            _not_allowed(file, f"cannot be read in line {number}")
        if key.lower() in here:
            _not_allowed(file, f"sets {_plain(key)} twice, in line {number}")
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
        here[key.lower()] = value[1:-1] if quoted else value
    return sections


def _plain(key: str) -> str:
    return shown(key, 40)[1:-1]


def _refuse(reason: str, message: str) -> NoReturn:
    raise DVCProblem(reason, message)


def _invalid(file: str, what: str) -> NoReturn:
    _refuse("DataSpecInvalid", f"{shown(file)} {what}")


def _not_allowed(file: str, what: str) -> NoReturn:
    _refuse("DVCConfigNotAllowed", f"{shown(file)} {what}")
