"""The set of mirrors, and the questions about commits that plain git answers: is it here, is it reachable.

The lower half of `git.Mirrors`, without GitPython.  A pinned commit counts only if a branch or tag of the server
contains it, since servers also give out what exists only in a fork; a commit that went away is never replaced by
another one.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from controller.api import git_rules
from controller.clients import git_net
from controller.clients.errors import ClientError, Denied, Unavailable
from controller.clients.git_errors import failure
from controller.clients.git_mirror import Mirror
from controller.clients.git_names import nearest
from controller.clients.git_types import Credential, GitPolicy, GitRef, check_commit

T = TypeVar("T")
KNOWN_MOST = 32
"""How many answers about commits are kept: listings of large trees are the largest."""


class MirrorSet:
    """All mirrors of one controller: one per (URL, credential), each polled on its own; for one event loop."""

    def __init__(
        self,
        root: Path,
        policy: GitPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
        resolver: git_net.Resolver = git_net.resolve_host,
    ) -> None:
        self._root, self._policy = root, policy or GitPolicy()
        self._clock, self._resolver = clock, resolver
        self._mirrors: dict[tuple[str, str], Mirror] = {}
        self._known: OrderedDict[tuple[str, Path, str], asyncio.Future[Any]] = OrderedDict()
        self._pinned: set[tuple[Path, str]] = set()

    @property
    def polls(self) -> int:
        """How often a server was asked for its refs."""
        return sum(mirror.polls for mirror in self._mirrors.values())

    @property
    def fetches(self) -> int:
        """How often objects were fetched."""
        return sum(mirror.fetches for mirror in self._mirrors.values())

    def close(self) -> None:
        """Forget all mirrors; the directories stay. No process outlives the call that started it."""
        self._mirrors.clear()
        self._known.clear()

    async def retire(self, url: str, credential: Credential) -> None:
        """Throw away the mirror that a credential read, once it is not used any more; who reads it reads anew."""
        mirror = self._mirrors.pop((url, credential.digest()), None)
        if mirror is not None:
            await mirror.retire(self._policy.timeout_s)
            self._pinned = {(path, commit) for path, commit in self._pinned if path != mirror.path}

    async def _once(self, what: str, mirror: Mirror, commit: str, read: Callable[[], Awaitable[T]]) -> T:
        """Read something of a commit once for all who ask, also at the same time; a commit never changes.

        The newest `KNOWN_MOST` answers are kept; an error is not an answer.
        """
        key = (what, mirror.path, commit)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = asyncio.ensure_future(read())
            found.add_done_callback(lambda done: self._forget_failed(key, done))
            while len(self._known) > KNOWN_MOST:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        answer: T = await asyncio.shield(found)
        return answer

    def _forget_failed(self, key: tuple[str, Path, str], done: asyncio.Future[Any]) -> None:
        if (done.cancelled() or done.exception() is not None) and self._known.get(key) is done:
            del self._known[key]

    def _mirror(self, url: str, credential: Credential | None) -> Mirror:
        """Find or make the mirror of a URL that the policy admits; raises Denied."""
        git_net.check_url(url, self._policy)
        key = (url, credential.digest() if credential else "")
        if key not in self._mirrors:
            self._mirrors[key] = Mirror(self._root, url, credential, self._policy, self._clock, self._resolver)
        return self._mirrors[key]

    async def _find_pinned(self, mirror: Mirror, commit: str, timeout_s: float) -> None:
        """Have a pinned commit in the mirror, reachable from a branch or tag of the server (G03)."""
        if (mirror.path, commit) in self._pinned and await self._kind(mirror, commit) == "commit":
            return
        refs = await mirror.remote_refs(timeout_s)
        named = [name for name in refs if name.startswith(("refs/heads/", "refs/tags/"))]
        direct = [name for name in named if refs[name] == commit]
        if len(named) > self._policy.max_refs and not direct:
            raise Denied(
                f"{mirror.shown_url} has {len(named)} branches and tags, too many to search for a commit "
                f"(limit {self._policy.max_refs}); name the branch instead",
                reason="RepoTooLarge",
            )
        await mirror.want(direct or named, max_age_s=0.0, timeout_s=timeout_s, strict=True)
        kind = await self._kind(mirror, commit)
        if kind not in ("commit", ""):
            raise Denied(f"{commit} is a {kind} of {mirror.shown_url}, not a commit", reason="CommitNotFound")
        if kind == "commit" and await self._contained(mirror, commit, direct or named):
            self._pinned.add((mirror.path, commit))
            return
        others = [name for name in refs if refs[name] == commit and name not in named]
        if kind == "commit" or others:
            hint = (
                f"only {git_rules.shown(others[0], 80)} has it" if others else "a force-push may have removed it"
            )
            raise Denied(
                f"commit {commit} is reachable from no branch or tag of {mirror.shown_url} "
                f"({hint}); push it to a branch",
                reason="CommitNotReachable",
            )
        raise Denied(
            f"no branch or tag of {mirror.shown_url} contains commit {commit}; push it", reason="CommitNotFound"
        )

    async def ensure(
        self,
        url: str,
        commit: str,
        ref: GitRef,
        *,
        credential: Credential | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Have exactly this commit, which `ref` once meant, in the mirror; asks the server only if it is absent.

        For the Job that fetches: first the ref, then the commit by its id (G26). Raises Unavailable(CommitGone)
        rather than give another commit (G04).
        """
        check_commit(commit)
        mirror = self._mirror(url, credential)
        limit = timeout_s if timeout_s is not None else self._policy.timeout_s
        if await self._kind(mirror, commit) == "commit":
            return
        if ref.full:
            await mirror.want([ref.full], max_age_s=0.0, timeout_s=limit, strict=True)
        if await self._kind(mirror, commit) != "commit":
            try:
                await mirror.fetch_commit(commit, limit)
            except ClientError as error:
                if error.reason in ("GitTimeout", "GitUnavailable", "AuthenticationFailed", "DiskFull"):
                    raise
        if await self._kind(mirror, commit) != "commit":
            raise gone(mirror, commit)

    async def contains(self, url: str, commit: str, *, credential: Credential | None = None) -> bool:
        """Tell whether the mirror holds this commit; asks no server."""
        check_commit(commit)
        return await self._kind(self._mirror(url, credential), commit) == "commit"

    async def reachable(self, url: str, commit: str, ref: GitRef, *, credential: Credential | None = None) -> bool:
        """Tell whether the commit is in the history of a ref as last polled."""
        check_commit(commit)
        mirror = self._mirror(url, credential)
        return await self._kind(mirror, commit) == "commit" and await self._contained(mirror, commit, [ref.full])

    async def is_ancestor(self, url: str, old: str, new: str, *, credential: Credential | None = None) -> bool:
        """Tell whether `old` is in the history of `new`, both in the mirror (else CommitGone)."""
        check_commit(old)
        check_commit(new)
        return await self._is_ancestor(self._mirror(url, credential), old, new)

    async def nearest_refs(
        self, url: str, name: str, *, credential: Credential | None = None, timeout_s: float | None = None
    ) -> list[str]:
        """Return up to three branches and tags of the server whose names look most like `name`, escaped."""
        mirror = self._mirror(url, credential)
        return nearest(name, await mirror.remote_refs(timeout_s or self._policy.timeout_s))

    async def _kind(self, mirror: Mirror, name: str) -> str:
        """Return the type of an object in the mirror, or an empty string."""
        if not mirror.path.is_dir():
            return ""
        result = await mirror.git(
            ["cat-file", "--batch-check"], self._policy.timeout_s, stdin=f"{name}\n".encode()
        )
        words = result.stdout.decode("ascii", "replace").split()
        return words[1] if len(words) == 3 else ""

    async def _contained(self, mirror: Mirror, commit: str, fulls: Iterable[str]) -> bool:
        for full in fulls:
            state = mirror.refs.get(full)
            if state is not None and state.commit and await self._is_ancestor(mirror, commit, state.commit):
                return True
        return False

    async def _is_ancestor(self, mirror: Mirror, old: str, new: str) -> bool:
        result = await mirror.git(["merge-base", "--is-ancestor", old, new], self._policy.timeout_s)
        if result.code in (0, 1):
            return result.code == 0
        for commit in (old, new):
            if await self._kind(mirror, commit) != "commit":
                raise gone(mirror, commit)
        raise failure(f"comparing {old} with {new} of {mirror.shown_url}", result)

    async def _has_lost(self, mirror: Mirror) -> bool:
        """Tell whether a commit that the last poll brought is no longer there."""
        commits = {state.commit for state in mirror.refs.values() if state.commit}
        return any([await self._kind(mirror, commit) != "commit" for commit in commits])

    async def _reading(self, mirror: Mirror, work: Callable[[], Awaitable[T]]) -> T:
        """Run a read; if the mirror is damaged, fetch it anew once and run again."""
        generation = mirror.generation
        try:
            return await work()
        except Unavailable as error:
            renewed = mirror.generation != generation
            lost = error.reason == "CommitGone" and (renewed or await self._has_lost(mirror))
            if error.reason != "GitCorrupt" and not lost:
                raise
        await mirror.heal(generation, self._policy.timeout_s)
        return await work()


def gone(mirror: Mirror, commit: str) -> Unavailable:
    """Say that a commit went away."""
    return Unavailable(
        f"commit {commit} is not in our copy of {mirror.shown_url}, and the server did not give it; "
        "was it force-pushed away?",
        reason="CommitGone",
    )
