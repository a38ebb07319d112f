"""The words of the Git client: policy, ref, credential, head, tree entry, and its errors' constructors.

Plain frozen data; the rules for what may stand in them are in `controller.api.git_rules`.  A credential's repr
never shows its value.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from controller.api import git_rules
from controller.clients.errors import Denied

LFS_MAGIC = b"version https://git-lfs.github.com/spec/"
MODE_TREE, MODE_SYMLINK, MODE_SUBMODULE = "040000", "120000", "160000"
MODE_FILE, MODE_EXECUTABLE = "100644", "100755"


@dataclass(frozen=True, slots=True)
class GitPolicy:
    """What the operator's settings allow for every repository (decision 26)."""

    protocols: frozenset[str] = frozenset({"https", "ssh"})
    file_roots: tuple[Path, ...] = ()
    """Directories under which `file:` repositories may lie (local mode); they allow `file` by being named."""
    allowed_hosts: tuple[str, ...] = ()
    """Names, addresses or `*.suffix`; empty admits every public host."""
    max_repo_bytes: int = 2 * 1024**3
    max_files: int = 100_000
    max_refs: int = 1_000
    """Branches and tags searched for a commit that is pinned without a branch."""
    max_blob_bytes: int = 1024**2
    """Default limit of one `read`."""
    timeout_s: float = 60.0

    def allowed_protocols(self) -> frozenset[str]:
        """Return the protocols, `file` among them when a root is named."""
        return self.protocols | {"file"} if self.file_roots else self.protocols


@dataclass(frozen=True, slots=True)
class GitRef:
    """What a spec asks for: exactly one of branch, tag, full ref name, or commit."""

    branch: str | None = None
    tag: str | None = None
    name: str | None = None
    commit: str | None = None

    def __post_init__(self) -> None:
        """Refuse none or several, and bad syntax, with reason InvalidRef (CommitNotFound for commits)."""
        given = [v for v in (self.branch, self.tag, self.name, self.commit) if v is not None]
        if len(given) != 1:
            raise Denied(
                f"a ref names exactly one of branch, tag, name or commit; {len(given)} are given",
                reason="InvalidRef",
            )
        if self.commit is not None:
            check_commit(self.commit)
        problem = (
            (self.branch is not None and git_rules.branch_problem(self.branch))
            or (self.tag is not None and git_rules.tag_problem(self.tag))
            or (self.name is not None and git_rules.ref_problem(self.name))
        )
        if problem:
            raise Denied(problem, reason="InvalidRef")

    @property
    def full(self) -> str:
        """The full ref, or an empty string for a pinned commit."""
        if self.branch is not None:
            return f"refs/heads/{self.branch}"
        return f"refs/tags/{self.tag}" if self.tag is not None else self.name or ""

    def __str__(self) -> str:
        """Say it as people do: `branch 'main'`."""
        kind = next(k for k in ("branch", "tag", "name", "commit") if getattr(self, k) is not None)
        return f"{'ref' if kind == 'name' else kind} {git_rules.shown(str(getattr(self, kind)))}"


@dataclass(frozen=True, slots=True)
class Credential:
    """What a Secret brought: user name and password, or a bearer token, or an SSH key with known hosts; a CA."""

    username: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    """Bearer token, printable ASCII without a space."""
    ssh_key: str = field(default="", repr=False)
    known_hosts: str = field(default="", repr=False)
    ca: str = field(default="", repr=False)

    def digest(self) -> str:
        """Return 64 hex digits that tell credentials apart, for the key of a mirror."""
        parts = (self.username, self.password, self.ssh_key, self.known_hosts, self.ca, self.token)
        return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Head:
    """A resolved ref. Texts are redacted and bounded; the date is the committer's, for show, never for order."""

    commit: str
    ref: str
    author: str
    committed_at: datetime
    subject: str
    moved_from: str = ""
    """For a tag that points elsewhere than at the poll before: the commit that it pointed at."""


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """One file of a commit. `path` decodes with surrogateescape: `os.fsencode(path)` gives Git's exact bytes."""

    mode: str
    path: str
    blob: str
    size: int


def check_commit(commit: str) -> None:
    """Refuse anything but a full commit id (reason CommitNotFound)."""
    problem = git_rules.commit_problem(commit)
    if problem:
        raise Denied(problem, reason="CommitNotFound")


def is_lfs_pointer(data: bytes) -> bool:
    """Tell whether the bytes are a Git LFS pointer instead of the file itself."""
    return len(data) <= 1024 and data.startswith(LFS_MAGIC) and b"oid sha256:" in data
