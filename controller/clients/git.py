"""The Git client: resolves refs and reads commits, trees and blobs out of bare mirrors, by commit id.

GitPython is imported here and nowhere else, late, and only parses objects (commits, trees, blobs); their bytes
come from `git_cat`, and everything that talks to a network or lists a whole tree is a fixed git command run by
`git_process`.  Nothing is ever checked out, no code, hook, filter or configuration of a repository ever acts, and
every text from a repository is escaped and bounded before it is shown.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from controller.api import git_rules
from controller.clients import git_export
from controller.clients.errors import Denied, NotFound, Unavailable
from controller.clients.git_cat import CatFile, ObjectMissing
from controller.clients.git_errors import failure
from controller.clients.git_mirror import Mirror, RefState
from controller.clients.git_set import MirrorSet, gone
from controller.clients.git_types import (
    MODE_SUBMODULE,
    MODE_SYMLINK,
    Credential,
    GitPolicy,
    GitRef,
    Head,
    TreeEntry,
    check_commit,
    is_lfs_pointer,
)
from controller.clients.redact import redact

if TYPE_CHECKING:
    import git

__all__ = ["Credential", "GitPolicy", "GitRef", "Head", "Mirrors", "TreeEntry", "is_lfs_pointer"]

T = TypeVar("T")
_CHUNK = 1024**2


class Mirrors(MirrorSet):
    """The Git port: resolve refs, list and read and write out what a commit holds; use from one event loop."""

    # -- resolving -------------------------------------------------------------------------------------------

    async def resolve(
        self,
        url: str,
        ref: GitRef,
        *,
        credential: Credential | None = None,
        max_age_s: float,
        timeout_s: float | None = None,
    ) -> Head:
        """Return the commit that `ref` means, as of a poll at most `max_age_s` ago.

        Raises NotFound(RefNotFound, RepositoryNotFound), Denied(ProtocolNotAllowed, InvalidURL, HostNotAllowed,
        HostKeyMismatch, CommitNotFound, CommitNotReachable, RepoTooLarge, ObjectFormatNotSupported) or
        Unavailable(GitTimeout, GitUnavailable, AuthenticationFailed, TLSFailed, GitCorrupt, DiskFull, GitFailed).
        """
        return await self._resolve(url, ref, credential, max_age_s, timeout_s, strict=False)

    async def refresh(
        self, url: str, ref: GitRef, *, credential: Credential | None = None, timeout_s: float | None = None
    ) -> Head:
        """Resolve by a poll that begins after this call (somebody asked, a webhook came)."""
        return await self._resolve(url, ref, credential, 0.0, timeout_s, strict=True)

    async def _resolve(
        self,
        url: str,
        ref: GitRef,
        credential: Credential | None,
        max_age_s: float,
        timeout_s: float | None,
        *,
        strict: bool,
    ) -> Head:
        mirror = self._mirror(url, credential)
        limit = timeout_s if timeout_s is not None else self._policy.timeout_s
        if ref.commit is not None:
            await self._find_pinned(mirror, ref.commit, limit)
            return await self._head(mirror, ref.commit, "", "")
        state: RefState = await mirror.state(ref.full, max_age_s=max_age_s, timeout_s=limit, strict=strict)
        if state.error is not None:
            raise state.error
        moved = state.moved_from if ref.full.startswith("refs/tags/") else ""
        return await self._head(mirror, state.commit, ref.full, moved)

    # -- reading ---------------------------------------------------------------------------------------------

    async def files(self, url: str, commit: str, *, credential: Credential | None = None) -> tuple[TreeEntry, ...]:
        """List all files of a commit, sorted by the bytes of their paths; links and submodules have their modes.

        `ls-tree` lists a million files in one process, where GitPython would ask for the size of each. Raises
        Denied(RepoTooLarge) above `max_files`, Unavailable(CommitGone) if the mirror has no such commit.
        """
        check_commit(commit)
        mirror = self._mirror(url, credential)
        return await self._once(
            "files", mirror, commit, lambda: self._reading(mirror, lambda: self._list(mirror, commit))
        )

    async def _list(self, mirror: Mirror, commit: str) -> tuple[TreeEntry, ...]:
        if await self._kind(mirror, commit) != "commit":
            raise gone(mirror, commit)
        result = await mirror.git(
            ["ls-tree", "-r", "-z", "-l", "--full-tree", commit],
            self._policy.timeout_s,
            max_output=self._policy.max_files * 400,
        )
        if result.code:
            raise failure(f"listing commit {commit} of {mirror.shown_url}", result)
        lines = result.stdout.split(b"\0")[:-1]
        if len(lines) > self._policy.max_files:
            raise Denied(
                f"commit {commit} of {mirror.shown_url} has {len(lines)} files, "
                f"more than {self._policy.max_files}",
                reason="RepoTooLarge",
            )
        entries = []
        for line in lines:
            words, _, path = line.partition(b"\t")
            mode, _, blob, size = words.decode("ascii").split()
            entries.append((path, TreeEntry(mode, os.fsdecode(path), blob, 0 if size == "-" else int(size))))
        return tuple(entry for _, entry in sorted(entries, key=lambda item: item[0]))

    async def read(
        self, url: str, commit: str, path: str, *, credential: Credential | None = None, limit: int | None = None
    ) -> bytes:
        """Return one regular file of a commit.

        Raises Denied(PathNotAllowed: not a normal path, a link, a submodule, a directory; FileTooLarge: above
        `limit` bytes, the policy's by default), NotFound(PathNotFound), Unavailable(CommitGone, GitCorrupt).
        """
        return (await self.read_many(url, commit, [path], credential=credential, limit=limit))[path]

    async def read_many(
        self,
        url: str,
        commit: str,
        paths: Sequence[str],
        *,
        credential: Credential | None = None,
        limit: int | None = None,
    ) -> dict[str, bytes]:
        """Return several regular files with one process; the first refusal is raised."""
        check_commit(commit)
        for path in paths:
            problem = git_rules.path_problem(path)
            if problem:
                raise Denied(problem, reason="PathNotAllowed")
        mirror = self._mirror(url, credential)
        most = self._policy.max_blob_bytes if limit is None else limit

        def work(repo: git.Repo) -> dict[str, bytes]:
            tree = _tree(repo, commit, mirror)
            return {path: _blob_bytes(_find(tree, path, commit), path, most) for path in paths}

        return await self._objects(mirror, work)

    async def export(
        self,
        url: str,
        commit: str,
        entries: Iterable[TreeEntry],
        dest: Path,
        *,
        credential: Credential | None = None,
        max_bytes: int | None = None,
    ) -> None:
        """Write exactly these files of a commit below `dest`, with their executable bit and nothing else.

        Raises Denied(PathNotAllowed: link, submodule, `..`, `.git`, or something in the way; FileTooLarge: more
        than `max_bytes` in all, the policy's repository limit by default) before or at the first such file.
        """
        check_commit(commit)
        mirror, wanted = self._mirror(url, credential), sorted(entries, key=lambda item: os.fsencode(item.path))
        git_export.check_entries(wanted)
        most = self._policy.max_repo_bytes if max_bytes is None else max_bytes
        known = {
            (item.mode, item.path, item.blob) for item in await self.files(url, commit, credential=credential)
        }
        total = sum(item.size for item in wanted)
        if total > most:
            raise Denied(f"the files have {total} bytes, more than the limit of {most}", reason="FileTooLarge")
        for item in wanted:
            if (item.mode, item.path, item.blob) not in known:
                raise NotFound(
                    f"commit {commit} has no file {git_rules.shown(item.path)} like that", reason="PathNotFound"
                )

        def work(repo: git.Repo) -> None:
            from git import Blob

            def copy(entry: TreeEntry, file: BinaryIO) -> None:
                _copy_blob(Blob(repo, bytes.fromhex(entry.blob), int(entry.mode, 8), entry.path), file)

            git_export.write_entries(wanted, dest, copy)

        await self._objects(mirror, work)

    async def log(
        self,
        url: str,
        old: str,
        new: str,
        *,
        paths: Sequence[str] = (),
        credential: Credential | None = None,
        limit: int = 20,
    ) -> tuple[Head, ...]:
        """Return up to `limit` commits of `new` that `old` has not, newest first in Git's order, not by trust."""
        check_commit(old)
        check_commit(new)
        for path in paths:
            problem = git_rules.path_problem(path.rstrip("/"))
            if problem:
                raise Denied(problem, reason="PathNotAllowed")
        mirror = self._mirror(url, credential)
        args = ["rev-list", "--topo-order", f"--max-count={limit:d}", new, f"^{old}", "--", *paths]
        result = await mirror.git(args, self._policy.timeout_s)
        if result.code:
            raise failure(f"comparing {old} with {new} of {mirror.shown_url}", result)
        commits = result.stdout.decode("ascii").split()
        return await self._objects(mirror, lambda repo: tuple(_describe(repo, item, mirror) for item in commits))

    # -- inside ----------------------------------------------------------------------------------------------

    async def _head(self, mirror: Mirror, commit: str, ref: str, moved_from: str) -> Head:
        head = await self._once(
            "head", mirror, commit, lambda: self._objects(mirror, lambda repo: _describe(repo, commit, mirror))
        )
        return Head(head.commit, ref, head.author, head.committed_at, head.subject, moved_from)

    async def _objects(self, mirror: Mirror, work: Callable[[git.Repo], T]) -> T:
        """Run `work` in a thread with the mirror opened by GitPython on a reader of ours, closed afterwards."""

        def opened() -> T:
            with _repository(mirror, self._policy.timeout_s) as repo:
                return work(repo)

        return await self._reading(mirror, lambda: asyncio.to_thread(opened))


@contextmanager
def _repository(mirror: Mirror, timeout_s: float) -> Iterator[git.Repo]:
    """Open a mirror with GitPython, its object database replaced by a hardened reader."""
    try:
        import git
    except ImportError:
        raise Unavailable(
            "GitPython finds no program 'git' where the controller runs", reason="GitMissing"
        ) from None
    if not mirror.path.is_dir():
        raise Unavailable(
            f"there is no copy of {mirror.shown_url} here yet; resolve it first", reason="CommitGone"
        )
    with CatFile(mirror.path, mirror.home, timeout_s=timeout_s, shown=mirror.shown_url) as reader:
        try:
            repo = git.Repo(mirror.path, expand_vars=False)
            repo.odb = reader  # type: ignore[assignment]  # it has the two methods that objects use
            yield repo
            repo.close()
        except (ObjectMissing, git.exc.InvalidGitRepositoryError, git.exc.NoSuchPathError) as error:
            message = f"the mirror of {mirror.shown_url} lacks an object: {redact(str(error), limit=100)}"
            raise Unavailable(message, reason="GitCorrupt") from None


def _commit(repo: git.Repo, commit: str, mirror: Mirror) -> git.Commit:
    """Read a commit through GitPython; raises Unavailable(CommitGone)."""
    from git import Commit

    try:
        kind = repo.odb.info(bytes.fromhex(commit)).type
    except ObjectMissing:
        raise gone(mirror, commit) from None
    if kind != b"commit":
        raise Denied(f"{commit} of {mirror.shown_url} is not a commit", reason="CommitNotFound")
    return Commit(repo, bytes.fromhex(commit))


def _tree(repo: git.Repo, commit: str, mirror: Mirror) -> git.Tree:
    """Return the top directory of a commit."""
    from git import Tree

    _commit(repo, commit, mirror)
    reader = repo.odb
    assert isinstance(reader, CatFile)
    return Tree(repo, reader.tree_of(commit), Tree.tree_id << 12, "")


def _describe(repo: git.Repo, commit: str, mirror: Mirror) -> Head:
    """Read who, when and what of a commit; fields that cannot be parsed are shown as such, never raised."""
    found = _commit(repo, commit, mirror)
    try:
        author = f"{found.author.name or ''} <{found.author.email or ''}>"
        summary, seconds = found.summary, int(found.committed_date)
    except (LookupError, ValueError):  # e.g. an encoding that no codec knows
        author, summary, seconds = "(unreadable)", "(unreadable)", 0
    subject = summary.decode("utf-8", "replace") if isinstance(summary, bytes) else summary
    when = datetime.fromtimestamp(min(max(seconds, 0), 253_402_300_799), UTC)
    return Head(commit, "", redact(author, limit=120), when, redact(subject, limit=200))


def _find(tree: git.Tree, path: str, commit: str) -> git.Blob:
    """Walk to a regular file part by part, so that a link on the way is named and not followed."""
    walked: list[str] = []
    here: git.Tree = tree
    parts = path.split("/")
    for part in parts:
        walked.append(part)
        try:
            item = here[part]
        except KeyError as error:
            if isinstance(error, ObjectMissing):
                raise
            names = ", ".join(git_rules.shown(name, 60) for name in _like(part, here)) or "none"
            raise NotFound(
                f"commit {commit} has no {git_rules.shown('/'.join(walked))}; nearest there: {names}",
                reason="PathNotFound",
            ) from None
        mode = f"{item.mode:06o}"
        if mode in (MODE_SYMLINK, MODE_SUBMODULE):
            kind = "a symbolic link" if mode == MODE_SYMLINK else "a submodule"
            raise Denied(
                f"{git_rules.shown('/'.join(walked))} is {kind}; links and submodules are not followed, "
                "name the file itself",
                reason="PathNotAllowed",
            )
        if item.type == "tree":
            here = item
        elif len(walked) == len(parts):
            return item
        else:
            raise NotFound(
                f"{git_rules.shown('/'.join(walked))} is a file, not a directory", reason="PathNotFound"
            )
    raise Denied(f"{git_rules.shown(path)} is a directory; name a file in it", reason="PathNotAllowed")


def _like(name: str, tree: git.Tree) -> list[str]:
    """Return the three names of a directory that look most like `name`."""
    import difflib

    return difflib.get_close_matches(name, [item.name for item in tree][:2000], n=3, cutoff=0.3)


def _blob_bytes(blob: git.Blob, path: str, limit: int) -> bytes:
    """Return a blob's bytes, refused above `limit` before they are read, and checked against its id."""
    stream = blob.data_stream
    if stream.size > limit:
        raise Denied(
            f"{git_rules.shown(path)} has {stream.size} bytes, more than the limit of {limit}",
            reason="FileTooLarge",
        )
    data: bytes = stream.read()
    _check_id(blob, hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest())
    return data


def _copy_blob(blob: git.Blob, file: BinaryIO) -> None:
    """Copy a blob in chunks, checked against its id at the end."""
    stream = blob.data_stream
    digest = hashlib.sha1(b"blob %d\0" % stream.size, usedforsecurity=False)
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
        file.write(chunk)
    _check_id(blob, digest.hexdigest())


def _check_id(blob: git.Blob, digest: str) -> None:
    if digest != blob.hexsha:
        raise Unavailable(
            f"the blob {blob.hexsha} in the mirror has other bytes than its id says", reason="GitCorrupt"
        )
