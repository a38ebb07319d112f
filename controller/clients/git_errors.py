"""Turns what git wrote about a failure into one of the client's errors.

The first rule that matches decides, so rules about the network stand before those about damage: a connection
that broke in mid-pack also damages the pack.  Messages carry git's own most telling line, redacted; nothing here
decides whether to try again but by the class of the error.
"""

from __future__ import annotations

import re

from controller.clients.errors import ClientError, Denied, NotFound, Unavailable
from controller.clients.git_process import Completed
from controller.clients.redact import redact

_Rule = tuple[re.Pattern[str], type[ClientError], str, str]


def _rule(pattern: str, kind: type[ClientError], reason: str, hint: str) -> _Rule:
    return re.compile(pattern, re.IGNORECASE), kind, reason, hint


_RULES: tuple[_Rule, ...] = (
    _rule(r"No space left on device", Unavailable, "DiskFull", "make room where the mirrors lie"),
    _rule(
        r"File too large|died of signal 25", Denied, "RepoTooLarge", "raise the limit or use a smaller repository"
    ),
    _rule(
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key verification failed|No \S+ host key is known",
        Denied,
        "HostKeyMismatch",
        "compare the server's host key and put the right one into known_hosts of the Secret",
    ),
    _rule(
        r"could not read (?:Username|Password)|Authentication failed|Access denied|returned error: 40[13]"
        r"|Permission denied \(|invalid credentials|terminal prompts disabled|Too many authentication failures",
        Unavailable,
        "AuthenticationFailed",
        "check the Secret named by secretRef and its right to read",
    ),
    _rule(
        r"certificate|SSL_|SSL routines|gnutls_handshake|TLS (?:connect|connection|handshake)",
        Unavailable,
        "TLSFailed",
        "check the server's certificate, or put its CA as ca.crt into the Secret",
    ),
    _rule(
        r"update url base from redirection|returned error: 30\d|asked for .* redirect",
        Denied,
        "HostNotAllowed",
        "redirects are not followed: write the final address into source.url",
    ),
    _rule(
        r"transport '[^']*' not allowed|is not allowed by",
        Denied,
        "ProtocolNotAllowed",
        "use one of the allowed protocols",
    ),
    _rule(
        r"mismatched algorithms|unsupported object format|object format",
        Denied,
        "ObjectFormatNotSupported",
        "SHA-256 repositories are not supported, use a SHA-1 repository",
    ),
    _rule(
        r"dubious ownership",
        Denied,
        "RepositoryNotOwned",
        "run as the repository's owner",
    ),
    _rule(r"couldn't find remote ref|no such remote ref", NotFound, "RefNotFound", "it was deleted a moment ago"),
    _rule(
        r"not our ref|unadvertised object|upload-pack: not our ref|Server does not allow request",
        Unavailable,
        "CommitGone",
        "the server no longer gives this commit out",
    ),
    _rule(
        r"Operation too slow|timed? ?out",
        Unavailable,
        "GitTimeout",
        "the server is slow or hangs; it is tried again",
    ),
    _rule(
        r"Could not resolve host|Failed to connect|Connection refused|Connection reset|unable to connect"
        r"|No route to|Network is unreachable|early EOF|unexpected disconnect|RPC failed|the remote end hung up"
        r"|transfer closed|returned error: 5\d\d|returned error: 429|Empty reply|Recv failure|curl \d+",
        Unavailable,
        "GitUnavailable",
        "it is tried again",
    ),
    _rule(
        r"returned error: 404|repository .* not found|Repository not found|does not appear to be a git repo"
        r"|does not exist|No such file or directory|not a git repository|not valid: is this a git repository",
        NotFound,
        "RepositoryNotFound",
        "check source.url, and that the credential may read it",
    ),
    _rule(
        r"corrupt|bad object|missing (?:blob|tree|commit|object)|index-pack|fsck|loose object"
        r"|object file .* is empty|inflate|SHA1 (?:mismatch|COLLISION)|unable to read|bad pack|packfile"
        r"|did not send all necessary objects"
        r"|unresolved deltas|bad line length|protocol error|invalid|cannot lock ref|unable to (?:create|write)",
        Unavailable,
        "GitCorrupt",
        "the repository or our copy of it is damaged",
    ),
)


def failure(what: str, result: Completed) -> ClientError:
    """Return the error for a failed command; `what` is a redacted phrase such as `fetching from https://…`."""
    if result.code < 0 and -result.code == 25:
        return Denied(f"{what}: the pack is larger than the limit", reason="RepoTooLarge")
    line = telling_line(result.stderr)
    for pattern, kind, reason, hint in _RULES:
        if found := pattern.search(result.stderr):
            if line.startswith(_GENERIC):
                line = _line_at(result.stderr, found.start()) or line
            return kind(f"{what} failed: {line}; {hint}", reason=reason)
    return Unavailable(f"{what} failed with exit code {result.code}: {line}", reason="GitFailed")


_GENERIC = "Could not read from remote repository"
"""What git says whenever ssh ended: ssh itself has said why before."""


def _line_at(text: str, position: int) -> str:
    """Return the line of a text that a position is in, redacted."""
    start = text.rfind("\n", 0, position) + 1
    end = text.find("\n", position)
    return redact(text[start : end if end >= 0 else None].strip(), limit=200)


def telling_line(stderr: str) -> str:
    """Pick the line that says most (fatal, error, then the last), redacted, at most 200 characters."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    for mark in ("fatal: ", "error: ", "ERROR: ", "remote: "):
        for line in lines:
            if line.startswith(mark):
                return redact(line.removeprefix(mark), limit=200)
    return redact(lines[-1], limit=200) if lines else "git gave no message"
