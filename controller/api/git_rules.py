"""What may be written where a Git URL, ref, commit or path is wanted: pure syntax, one sentence per refusal.

`validate`, the models of the API and the Git client share these rules, so that a file accepted by one is
accepted by all.  Every function returns `None` or a sentence for a person; nothing here touches a disk, a
network or a clock, and no sentence ever repeats a password: whoever shows one passes it through the redactor.
The rules for refs are those of `git check-ref-format`, made stricter (no leading `-`, printable text only).
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Collection, Iterable
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

MAX_REF = 250
MAX_URL = 2048
MAX_PATH = 4096
DEFAULT_PROTOCOLS = frozenset({"https", "ssh"})
DEFAULT_PORTS = {"https": 443, "http": 80, "ssh": 22, "git": 9418}

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REF_BAD = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]")
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.-]*::")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SCP = re.compile(r"(?:(?P<user>[^@/:\s]+)@)?(?P<host>\[[^\]/]+\]|[^/:@\s]+):(?P<path>[^\s]+)")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_REMOTE_PATH = re.compile(r"[A-Za-z0-9._~/+@%,=:-]+")
_NUMERIC_HOST = re.compile(r"(?:0[xX][0-9a-fA-F]*|[0-9]+)")


class GitUrl(NamedTuple):
    """A URL taken apart. `port` is None when not written; `host` is empty for `file`."""

    scheme: str
    user: str | None
    host: str
    port: int | None
    path: str


def shown(value: str, limit: int = 200) -> str:
    """Quote a value for a sentence: escaped, at most `limit` characters, always one line."""
    text = "".join(ch if ch.isprintable() else _escape(ch) for ch in value[: limit + 1])
    return f"'{text[:limit]}…'" if len(value) > limit or len(text) > limit else f"'{text}'"


def _escape(ch: str) -> str:
    """Write one unprintable character as people write it in source code."""
    return ch.encode("unicode_escape", "backslashreplace").decode("ascii")


def ref_problem(name: str) -> str | None:
    """Say why a full ref (`refs/heads/main`) is refused; at least two slashes, at most 250 bytes."""
    if not name.startswith("refs/") or name.count("/") < 2:
        return f"{shown(name)} is not a full ref; write it as refs/heads/<branch> or refs/tags/<tag>"
    return _ref_part_problem(name)


def branch_problem(name: str) -> str | None:
    """Say why a branch name is refused (written without `refs/heads/`)."""
    if name == "HEAD":
        return "'HEAD' is not a branch; name the branch that it points to, for example main"
    return _short_name_problem(name, "branch")


def tag_problem(name: str) -> str | None:
    """Say why a tag name is refused (written without `refs/tags/`)."""
    return _short_name_problem(name, "tag")


def _short_name_problem(name: str, kind: str) -> str | None:
    if name.startswith("refs/"):
        return f"{shown(name)} is a full ref; write only the {kind} name, or use ref.name for full refs"
    return _ref_part_problem(name)


def _ref_part_problem(name: str) -> str | None:
    """Apply `git check-ref-format` and our stricter rules to a name or a full ref."""
    if not name:
        return "the ref is empty; name a branch, a tag or a commit"
    if len(name.encode("utf-8", "surrogatepass")) > MAX_REF:
        return f"the ref {shown(name, 40)} is longer than {MAX_REF} bytes"
    if name.startswith("-"):
        return f"the ref {shown(name)} begins with '-' and could be read as an option"
    if _REF_BAD.search(name) or not name.isprintable():
        return f"the ref {shown(name)} contains a space, a control character or one of ~ ^ : ? * [ \\"
    if ".." in name or "@{" in name or name == "@":
        return f"the ref {shown(name)} contains '..', '@{{' or is '@', which Git reads as an expression"
    parts = name.split("/")
    if any(not part or part.startswith((".", "-")) or part.endswith((".lock", ".")) for part in parts):
        return (
            f"the ref {shown(name)} has a part that is empty, begins with '.' or '-', or ends with '.' or '.lock'"
        )
    return None


def commit_problem(value: str) -> str | None:
    """Say why a commit is refused: only full object names, 40 or 64 lower-case hex digits, are exact."""
    if _COMMIT.fullmatch(value):
        return None
    if _COMMIT.fullmatch(value.lower()):
        return f"the commit {shown(value)} has upper-case digits; write it in lower case"
    if re.fullmatch(r"[0-9a-fA-F]{4,39}", value):
        return f"the commit {shown(value)} is abbreviated to {len(value)} digits; write all 40 (git rev-parse)"
    return (
        f"{shown(value, 80)} is not a commit: it must have 40 or 64 lower-case hex digits, this has {len(value)}"
    )


def parse_url(url: str) -> GitUrl | None:
    """Take a URL apart (`https://…`, `ssh://…`, `git@host:path`, `file:///…`, `/abs`), or None if it is none."""
    if _HELPER.match(url) or url.startswith("-"):
        return None
    if url.startswith("/"):
        return GitUrl("file", None, "", None, url)
    if not _SCHEME.match(url):
        scp = _SCP.fullmatch(url)
        return GitUrl("ssh", scp["user"], scp["host"].strip("[]"), None, scp["path"]) if scp else None
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
    except ValueError:
        return None
    if parts.scheme == "file":
        return GitUrl("file", None, parts.netloc, None, url[len("file://") + len(parts.netloc) :])
    return GitUrl(parts.scheme, parts.username, host, port, parts.path)


def server_of(url: str) -> tuple[str, str, int | None] | None:
    """Name the server of a repository: scheme, host and port, the usual one where none is written.

    A login is for one server: two URLs are of the same one if these are equal. None where the URL is none.

    >>> server_of("https://git.example.com/a.git") == server_of("https://git.example.com:443/b.git")
    True
    """
    parts = parse_url(url)
    return (parts.scheme, parts.host, parts.port or DEFAULT_PORTS.get(parts.scheme)) if parts is not None else None


def protocol_problem(url: str, protocols: Collection[str] = DEFAULT_PROTOCOLS) -> str | None:
    """Say why the way of transport is refused: helpers, options in disguise, or a scheme not in `protocols`."""
    allowed = ", ".join(sorted(protocols))
    if _HELPER.match(url):
        helper = url.split("::", 1)[0]
        return f"the URL uses the transport helper {shown(helper, 40)}; allowed protocols: {allowed}"
    if url.startswith("-") or re.match(r"(?:[A-Za-z][\w+.-]*://)?(?:[^@/]*@)?-", url):
        return f"the URL begins with '-' where a host belongs and could be read as an option; allowed: {allowed}"
    scheme = _SCHEME.match(url)
    if scheme:
        name = scheme[1].lower()
        return None if name in protocols else f"the protocol {shown(name, 40)} is not allowed; allowed: {allowed}"
    if url.startswith("/") or not _SCP.fullmatch(url):
        if "file" in protocols and url.startswith("/"):
            return None
        return f"the URL is a local path or has no protocol; allowed protocols: {allowed}"
    return None if "ssh" in protocols else f"the protocol 'ssh' is not allowed; allowed: {allowed}"


def url_problem(url: str, protocols: Collection[str] = DEFAULT_PROTOCOLS) -> str | None:
    """Say why a repository URL is refused, protocol first, then credentials, then form."""
    if not url:
        return "the repository URL is empty"
    if len(url) > MAX_URL:
        return f"the repository URL is longer than {MAX_URL} characters"
    if not url.isprintable() or any(ch.isspace() or ch == "\\" for ch in url.strip(" ")) or url != url.strip():
        return "the repository URL contains a space, a backslash or a control character"
    return protocol_problem(url, protocols) or _form_problem(url)


def _form_problem(url: str) -> str | None:
    """Check user, host, port and path of a URL whose protocol is fine."""
    parts = parse_url(url)
    if parts is None:
        return "the repository URL cannot be read; write https://host/path or ssh://git@host/path"
    if parts.scheme == "file":
        if parts.host not in ("", "localhost"):
            return "a file URL has no host: write file:///path with three slashes"
        return _local_path_problem(parts.path)
    if parts.user is not None and parts.scheme != "ssh":
        return "the URL contains credentials; take them out and put them into a Secret (secretRef)"
    if ":" in url.split("@", 1)[0].split("://", 1)[-1] and "@" in url:
        return "the URL contains a password; take it out and put it into a Secret (secretRef)"
    if parts.user is not None and not _USER.fullmatch(parts.user):
        return f"the user {shown(parts.user, 40)} in the URL is not a plain name"
    if ":" not in parts.host and not _HOST.fullmatch(parts.host):
        return f"the host {shown(parts.host, 80)} is not a host name"
    if "?" in url or "#" in url:
        return "the repository URL has a query or fragment; tokens belong into a Secret (secretRef)"
    return _remote_path_problem(parts.path)


def _remote_path_problem(path: str) -> str | None:
    if path.strip("/") == "":
        return "the repository URL names no repository after the host"
    decoded = unquote(path, errors="replace")
    if not _REMOTE_PATH.fullmatch(path) or not decoded.isprintable():
        return (
            f"the path {shown(path, 120)} of the repository URL has characters other than letters, digits "
            "and . _ ~ / + @ % , = : -"
        )
    if path.startswith("-") or ".." in decoded.split("/"):
        return f"the path {shown(path, 120)} of the repository URL begins with '-' or contains '..'"
    return None


def _local_path_problem(path: str) -> str | None:
    if not path.startswith("/"):
        return "a local repository is named by an absolute path"
    if ".." in path.split("/") or ".." in unquote(path).split("/"):
        return f"the local path {shown(path)} contains '..'"
    return None


def host_problem(host: str, allowed_hosts: Collection[str] = ()) -> str | None:
    """Say why a host is refused by name or literal address; names are resolved and judged again by the client.

    `allowed_hosts` holds names, addresses or `*.example.com`; empty means any public host.
    """
    if host_listed(host, allowed_hosts):
        return None
    if allowed_hosts:
        return f"the host {shown(host, 80)} is not in allowedHosts ({', '.join(sorted(allowed_hosts))})"
    try:
        return address_problem(host)
    except ValueError:
        labels = host.rstrip(".").split(".")
        if _NUMERIC_HOST.fullmatch(labels[-1]):
            return f"the host {shown(host, 80)} is an address in disguise; write a name or a plain IPv4 address"
        if labels[-1].lower() == "localhost":
            return f"the host {shown(host, 80)} is this machine; a platform admin can list it in allowedHosts"
        return None


def host_listed(host: str, allowed_hosts: Collection[str]) -> bool:
    """Tell whether a host is named in `allowed_hosts`, exactly or by `*.suffix`."""
    name = host.rstrip(".").lower()
    return any(
        name == entry or (entry.startswith("*.") and name.endswith(entry[1:]))
        for entry in (item.strip("[]").lower() for item in allowed_hosts)
    )


def address_problem(address: str) -> str | None:
    """Say why an IP address is refused unless listed: only global unicast is public.

    Addresses that carry an IPv4 one (mapped, 6to4, NAT64) are judged by it. Raises ValueError if it is no address.
    """
    ip = ipaddress.ip_address(address.split("%", 1)[0])
    inner: ipaddress.IPv4Address | None = None
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    judged = inner or ip
    if judged.is_global and not judged.is_multicast:
        return None
    return (
        f"the address {shown(address, 60)} is loopback, link-local, private or reserved; "
        "a platform admin can list the host in allowedHosts"
    )


def path_problem(path: str, *, printable: bool = True) -> str | None:
    """Say why a path inside a repository is refused: relative, normal, no `.git` part in any spelling.

    `printable=False` (files of a tree, which people did not type into a spec) admits control characters but NUL.
    """
    if not path:
        return "the path is empty"
    if len(path.encode("utf-8", "surrogateescape")) > MAX_PATH:
        return f"the path {shown(path, 60)} is longer than {MAX_PATH} bytes"
    if "\0" in path or (printable and not path.isprintable()):
        return f"the path {shown(path)} contains a control or invisible character"
    if path.startswith("/"):
        return f"the path {shown(path)} is absolute; write it relative to the top of the repository"
    for part in path.split("/"):
        if part in ("", ".", ".."):
            return f"the path {shown(path)} is not normal: no '..', '.', '//' or '/' at the end"
        if _is_dot_git(part):
            return f"the path {shown(path)} leads into Git's own directory"
        if len(part.encode("utf-8", "surrogateescape")) > 255:
            return f"the path {shown(path, 60)} has a part longer than 255 bytes"
    return None


def _is_dot_git(part: str) -> bool:
    """Recognise `.git` as some file system would: any case, trailing dots or spaces, invisible characters."""
    visible = "".join(ch for ch in part if unicodedata.category(ch) != "Cf")
    plain = visible.split(":", 1)[0].rstrip(" .").casefold()
    return plain in (".git", "git~1")


def path_twins(paths: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Return pairs of paths that differ by bytes only in case or Unicode form: one disk would merge them."""
    first: dict[str, str] = {}
    pairs = []
    for path in sorted(set(paths)):
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
        if key in first:
            pairs.append((first[key], path))
        else:
            first[key] = path
    return tuple(pairs)
