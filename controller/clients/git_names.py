"""Names of refs: the server's, which are hostile text, and our own for them.

A name that breaks `git_rules` is as good as absent: never fetched, never suggested, never shown.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable

from controller.api import git_rules
from controller.clients.errors import NotFound
from controller.clients.redact import redact

_ADVERTISED = re.compile(r"([0-9a-f]{40}|[0-9a-f]{64})\t([^\t]+)")


def parse_advertised(output: bytes) -> dict[str, str]:
    """Read what `ls-remote` printed into {full ref: object id}; lines that break the rules are left out."""
    found = {}
    for line in output.decode("utf-8", "surrogateescape").split("\n"):
        match = _ADVERTISED.fullmatch(line)
        if match and git_rules.ref_problem(match[2]) is None:
            found[match[2]] = match[1]
    return found


def local_ref(full: str) -> str:
    """Name the mirror's own ref for a ref of the server; no two collide, none is a prefix of another."""
    return f"refs/mainspring/refs/{hashlib.sha1(full.encode(), usedforsecurity=False).hexdigest()}"


def nearest(full: str, known: Iterable[str]) -> list[str]:
    """Return the at most three known branches and tags that look most like `full`, escaped."""
    shorts = {name.split("/", 2)[2] for name in known if name.startswith(("refs/heads/", "refs/tags/"))}
    wanted = full.split("/", 2)[-1] if full.startswith("refs/") else full
    found = difflib.get_close_matches(wanted, sorted(shorts)[:2000], n=3, cutoff=0.0)
    return [redact(name, limit=80) for name in found]


def missing_ref(shown_url: str, full: str, known: Iterable[str]) -> NotFound:
    """Say which ref is not there, and the three nearest names."""
    kind, _, short = full.removeprefix("refs/").partition("/")
    word = {"heads": "branch", "tags": "tag"}.get(kind, "ref")
    names = nearest(full, known)
    hint = f"nearest: {', '.join(names)}" if names else "the repository has no branches or tags"
    label = full if word == "ref" else short
    return NotFound(f"{shown_url} has no {word} {git_rules.shown(label)}; {hint}", reason="RefNotFound")
