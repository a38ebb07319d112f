"""One bare mirror of one repository with one credential: made, polled, healed and locked.

A poll asks the server for the wanted refs only and fetches those that moved, into `refs/mainspring/<sha1 of the
ref>`: names from the server never become files here.  Commits that a ref has left stay readable, since nothing is
pruned.  Writers hold an flock that their git processes inherit, so two controllers and even the orphans of a
killed one take turns; whoever holds it clears what a crash left.  Nothing is ever checked out.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from controller.api import git_rules
from controller.clients import git_net, git_process
from controller.clients.errors import ClientError, Denied, Unavailable
from controller.clients.git_errors import failure
from controller.clients.git_names import local_ref, missing_ref, parse_advertised
from controller.clients.git_types import Credential, GitPolicy
from controller.clients.redact import redact

_CONFIG = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n"
_LIST_LIMIT = 8 * 1024**2
_MANY_FILES = 100


@dataclass(frozen=True, slots=True)
class RefState:
    """What the last poll found for one ref: the commit, or the reason why there is none."""

    attempt: int
    ended: float
    tip: str = ""
    commit: str = ""
    moved_from: str = ""
    error: ClientError | None = None


class Mirror:
    """The mirror of one (URL, credential). `polls` and `fetches` count network operations."""

    def __init__(
        self,
        root: Path,
        url: str,
        credential: Credential | None,
        policy: GitPolicy,
        clock: Callable[[], float],
        resolver: git_net.Resolver,
    ) -> None:
        self.url, self.policy = url, policy
        self.shown_url = redact(url, limit=200)
        self._credential, self._clock, self._resolver = credential, clock, resolver
        digest = credential.digest() if credential else ""
        key = hashlib.sha256(f"{url}\0{digest}".encode()).hexdigest()[:32]
        self.root, self.home = root, root / "home"
        self.path, self._lock_path = root / f"{key}.git", root / f"{key}.lock"
        self._turn = asyncio.Lock()
        self._wanted: dict[str, float] = {}
        self.refs: dict[str, RefState] = {}
        self._failed: tuple[int, ClientError] | None = None
        self._attempt = self.generation = self.polls = self.fetches = 0

    # -- polling ---------------------------------------------------------------------------------------------

    async def state(self, full: str, *, max_age_s: float, timeout_s: float, strict: bool = False) -> RefState:
        """Return the state of a full ref, polled at most `max_age_s` ago.

        Callers that come while a poll runs share its outcome, failure included; `strict` ones only if it began
        after they came.
        """
        await self.want([full], max_age_s=max_age_s, timeout_s=timeout_s, strict=strict)
        return self.refs[full]

    async def want(
        self, fulls: Iterable[str], *, max_age_s: float, timeout_s: float, strict: bool = False
    ) -> None:
        """Have all these refs polled at most `max_age_s` ago, in one poll with whatever others want."""
        names, came = list(fulls), self._clock()
        self._wanted.update(dict.fromkeys(names, came))

        # Counted, not timed: two polls may fall into one tick of a clock. One that runs now may be joined.
        joined = self._attempt + (0 if self._turn.locked() and not strict else 1)

        def fresh() -> bool:
            known = [self.refs.get(name) for name in names]
            return all(
                s is not None and (s.attempt >= joined or (not strict and s.ended > came - max_age_s))
                for s in known
            )

        if fresh():
            return
        try:
            async with asyncio.timeout(timeout_s + 5.0):
                await self._turn.acquire()
        except TimeoutError:
            raise self._timeout("waiting for another poll", timeout_s) from None
        try:
            if fresh():
                return
            if self._failed is not None and self._failed[0] >= joined:
                raise self._failed[1]
            await self._poll_shared(timeout_s)
        finally:
            self._turn.release()

    async def _poll_shared(self, timeout_s: float) -> None:
        """Poll once, and keep a failure for those who waited for this very poll."""
        self._attempt += 1
        try:
            async with self._writing(timeout_s) as lock:
                await self._healing(lambda: self._poll(lock, timeout_s))
            self._failed = None
        except ClientError as error:
            self._failed = (self._attempt, error)
            raise

    async def _healing(self, work: Callable[[], object]) -> None:
        """Run, and on damage drop the mirror and run once more."""
        try:
            await work()  # type: ignore[misc]
        except Unavailable as error:
            if error.reason != "GitCorrupt":
                raise
            await self.drop()
            await asyncio.to_thread(self._make)
            await work()  # type: ignore[misc]

    async def _poll(self, lock: int, timeout_s: float) -> None:
        self.polls += 1
        end = time.monotonic() + timeout_s

        def left() -> float:
            return max(end - time.monotonic(), 0.1)

        wanted = sorted(self._wanted)
        async with self._remote(timeout_s) as remote:
            tips = await self._advertised(remote, wanted, left())
            missing = [name for name in wanted if name not in tips]
            known = await self._list_remote(remote, [], left(), refs_only=True) if missing else {}
            changed = [name for name in wanted if name in tips and not self._has(name, tips[name])]
            if changed:
                await self._fetch(remote, [f"+{name}:{local_ref(name)}" for name in changed], lock, left())
        commits = await self._peel([name for name in wanted if name in tips])
        self._record(wanted, tips, commits, known)

    def _remote(self, timeout_s: float) -> AbstractAsyncContextManager[git_net.Remote]:
        """Judge URL and host again, pin the host, lay out the credential."""
        parts = git_net.check_url(self.url, self.policy)
        return git_net.remote(
            parts,
            self.url,
            policy=self.policy,
            credential=self._credential,
            resolver=self._resolver,
            timeout_s=timeout_s,
        )

    async def _advertised(self, remote: git_net.Remote, wanted: Sequence[str], timeout_s: float) -> dict[str, str]:
        """Ask for exactly the wanted refs; whatever else the server says is not listened to."""
        found = await self._list_remote(remote, wanted, timeout_s) if wanted else {}
        for name, tip in found.items():
            if name in self._wanted and len(tip) == 64:
                raise Denied(
                    f"{self.shown_url} is a SHA-256 repository; only SHA-1 repositories are supported",
                    reason="ObjectFormatNotSupported",
                )
        return {name: found[name] for name in wanted if name in found}

    async def _list_remote(
        self, remote: git_net.Remote, patterns: Sequence[str], timeout_s: float, *, refs_only: bool = False
    ) -> dict[str, str]:
        """Run `ls-remote`; names that break the rules are left out, too long lists are cut."""
        args = ["ls-remote", "--quiet", *(["--refs"] if refs_only else []), "--", remote.url, *patterns]
        result = await self.git(args, timeout_s, remote=remote, max_output=_LIST_LIMIT, truncate=True)
        if result.code:
            raise failure(f"asking {self.shown_url} for its refs", result)
        return parse_advertised(result.stdout)

    def _has(self, name: str, tip: str) -> bool:
        state = self.refs.get(name)
        return state is not None and state.tip == tip and not state.error

    async def _fetch(self, remote: git_net.Remote, refspecs: Sequence[str], lock: int, timeout_s: float) -> None:
        """Fetch full history of the given refspecs into the mirror; bounded in time and bytes."""
        self.fetches += 1
        args = ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head"]
        args += ["--no-auto-maintenance", "--no-show-forced-updates", "--force", "--stdin", "--", remote.url]
        result = await self.git(
            args,
            timeout_s,
            remote=remote,
            stdin="".join(f"{item}\n" for item in refspecs).encode(),
            max_file_bytes=self.policy.max_repo_bytes,
            keep_fds=(lock,),
        )
        # A pack cut at the limit of one file leaves itself behind; git then speaks only of damage.
        packs = list((self.path / "objects" / "pack").glob("*pack*"))
        if sum(pack.stat().st_size for pack in packs) >= self.policy.max_repo_bytes:
            await self.drop()
            raise Denied(
                f"{self.shown_url} has more than the limit of {self.policy.max_repo_bytes} bytes; "
                "use a smaller repository, or keep data out of it with DVC",
                reason="RepoTooLarge",
            )
        if result.code:
            raise failure(f"fetching {self.shown_url}", result)
        if len(packs) > _MANY_FILES:
            result = await self.git(["repack", "-a", "-d", "-k", "-q"], timeout_s, keep_fds=(lock,))
            if result.code:
                raise failure(f"packing the mirror of {self.shown_url}", result)

    async def _peel(self, names: Sequence[str]) -> dict[str, str]:
        """Map each fetched ref to its commit, through tags; refs to other objects are left out."""
        lines = "".join(f"{local_ref(name)}^{{commit}}\n{local_ref(name)}\n" for name in names)
        if not lines:
            return {}
        result = await self.git(["cat-file", "--batch-check"], self.policy.timeout_s, stdin=lines.encode())
        if result.code:
            raise failure(f"reading the mirror of {self.shown_url}", result)
        answers = [line.split(" ") for line in result.stdout.decode("utf-8", "replace").splitlines()]
        commits = {}
        for name, peeled, itself in zip(names, answers[::2], answers[1::2], strict=True):
            if itself[-1] == "missing":
                raise Unavailable(f"the mirror of {self.shown_url} lost {name}", reason="GitCorrupt")
            if len(peeled) == 3 and peeled[1] == "commit":
                commits[name] = peeled[0]
        return commits

    def _record(
        self,
        wanted: Sequence[str],
        tips: dict[str, str],
        commits: dict[str, str],
        known: dict[str, str],
    ) -> None:
        attempt, ended = self._attempt, self._clock()
        for name in wanted:
            if name not in tips:
                self.refs[name] = RefState(attempt, ended, error=missing_ref(self.shown_url, name, known))
            elif name not in commits:
                message = f"{git_rules.shown(name)} of {self.shown_url} does not point at a commit"
                refused = Denied(message, reason="CommitNotFound")
                self.refs[name] = RefState(attempt, ended, tips[name], error=refused)
            else:
                before = self.refs.get(name)
                moved = before.commit if before and before.commit != commits[name] else ""
                self.refs[name] = RefState(attempt, ended, tips[name], commits[name], moved)

    async def remote_refs(self, timeout_s: float) -> dict[str, str]:
        """Ask the server for all its refs (cut at 8 MiB); nothing is fetched."""
        async with self._remote(timeout_s) as remote:
            await asyncio.to_thread(git_process.prepare_home, self.home)
            return await self._list_remote(remote, [], timeout_s, refs_only=True)

    async def fetch_commit(self, commit: str, timeout_s: float) -> None:
        """Ask the server for one commit by its id. Not every server answers that (Unavailable, CommitGone)."""
        async with (
            self._turn,
            self._writing(timeout_s) as lock,
            self._remote(timeout_s) as remote,
        ):
            await self._fetch(remote, [f"+{commit}:refs/mainspring/commits/{commit}"], lock, timeout_s)

    # -- the directory ---------------------------------------------------------------------------------------

    async def git(
        self,
        args: Sequence[str],
        timeout_s: float,
        *,
        remote: git_net.Remote | None = None,
        stdin: bytes = b"",
        max_output: int = 64 * 1024**2,
        truncate: bool = False,
        max_file_bytes: int | None = None,
        keep_fds: Sequence[int] = (),
    ) -> git_process.Completed:
        """Run git on this mirror; with `remote`, its protocol and credentials are there, otherwise none."""
        inside = self.path.is_dir()
        env = git_process.environment(
            self.home, git_dir=self.path if inside else None, protocol=remote.protocol if remote else ""
        )
        return await git_process.run(
            git_process.command(args, remote.config if remote else ()),
            env={**env, **dict(remote.env if remote else ())},
            cwd=self.path if inside else self.home,
            timeout_s=timeout_s,
            max_output=max_output,
            stdin=stdin,
            truncate=truncate,
            max_file_bytes=max_file_bytes,
            keep_fds=keep_fds,
            what=f"git {args[0]} for {self.shown_url}",
        )

    @asynccontextmanager
    async def _writing(self, timeout_s: float) -> AsyncIterator[int]:
        """Hold the lock between processes, with the mirror made and tidied; yields the lock's descriptor."""
        try:
            await asyncio.to_thread(git_process.prepare_home, self.home)
            lock = os.open(self._lock_path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise self._unusable(error) from None
        try:
            async with asyncio.timeout(timeout_s):
                while not _try_lock(lock):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            os.close(lock)
            raise self._timeout("another process holds the mirror", timeout_s) from None
        except BaseException:
            os.close(lock)
            raise
        try:
            try:
                await asyncio.to_thread(self._make)
            except OSError as error:
                raise self._unusable(error) from None
            yield lock
        finally:
            os.close(lock)

    def _make(self) -> None:
        """Make the mirror if there is none, and clear what a crash left. Only under the lock."""
        for stale in (*self.root.glob(f"{self.path.stem}.new-*"), *self.root.glob(f"{self.path.stem}.old-*")):
            shutil.rmtree(stale, ignore_errors=True)
        if not self.path.is_dir():
            fresh = self.root / f"{self.path.stem}.new-{os.getpid()}"
            for part in ("objects/pack", "objects/info", "refs/mainspring"):
                (fresh / part).mkdir(parents=True)
            (fresh / "HEAD").write_text("ref: refs/heads/none\n", encoding="ascii")
            (fresh / "config").write_text(_CONFIG, encoding="ascii")
            fresh.rename(self.path)
            self.refs.clear()
            self.generation += 1
        self._tidy()

    def _tidy(self) -> None:
        """Remove locks and half-written packs that no process can still own, and put our configuration back."""
        for stale in (*self.path.glob("*.lock"), *(self.path / "refs").rglob("*.lock")):
            stale.unlink(missing_ok=True)
        for stale in (*(self.path / "objects").glob("*/tmp_*"), *(self.path / "objects").glob("*/.tmp-*")):
            stale.unlink(missing_ok=True)
        config = self.path / "config"
        if not config.is_file() or config.read_text(encoding="utf-8", errors="replace") != _CONFIG:
            config.unlink(missing_ok=True)
            config.write_text(_CONFIG, encoding="ascii")

    async def drop(self) -> None:
        """Throw the mirror away; it is made anew by the next poll."""
        aside = self.root / f"{self.path.stem}.old-{os.getpid()}-{self.generation}"
        self.generation += 1
        self.refs.clear()
        with contextlib.suppress(FileNotFoundError):  # nothing to drop: what was wanted
            self.path.rename(aside)
        await asyncio.to_thread(shutil.rmtree, aside, ignore_errors=True)

    async def retire(self, timeout_s: float) -> None:
        """Throw the mirror away for good. Its lock stays: another process may hold it."""
        async with self._turn, self._writing(timeout_s):
            await self.drop()

    async def heal(self, generation: int, timeout_s: float) -> None:
        """Drop a damaged mirror and fetch what is wanted again, once for all who saw that generation."""
        async with self._turn:
            if self.generation != generation:
                return
            async with self._writing(timeout_s) as lock:
                await self.drop()
                await asyncio.to_thread(self._make)
                self._attempt += 1
                await self._poll(lock, timeout_s)

    def _unusable(self, error: OSError) -> Unavailable:
        return Unavailable(
            f"the mirror of {self.shown_url} cannot be made: {error.strerror}; look at the cache directory",
            reason="MirrorUnusable",
        )

    def _timeout(self, what: str, timeout_s: float) -> Unavailable:
        return Unavailable(f"{self.shown_url}: {what} took longer than {timeout_s:g} s", reason="GitTimeout")


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
