"""What lies outside the controllers, with its faults: Git that is pushed by force, a registry that fails half-way.

Never decides anything; the walker says what breaks and when.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from controller.api.meta import Manifest
from controller.clients import registry_names as names
from controller.clients.errors import NotFound, Unavailable
from controller.clients.git_types import GitRef, Head, TreeEntry
from tests.support.fake_registry import FakeRegistry
from tests.support.simulation import START, Traffic

TOKENS: Final = ("ghp_Planted0Token1Planted2", "planted-pass-word-77", "plantedBearer88abcXYZ")
"""Secrets that outside messages hold; no output of the controller may (S8)."""


class Git:
    """One repository; the branch is a line through all commits that were ever made, and may be moved anywhere."""

    def __init__(self) -> None:
        self.commits: dict[str, tuple[Head, dict[str, bytes]]] = {}
        self.line: list[str] = []
        self.down = False
        self.branch = "main"

    def push(
        self, subject: str, changes: Mapping[str, bytes | None], *, tree: dict[str, bytes] | None = None
    ) -> str:
        """Commit changes of files (None deletes) on the branch."""
        files = dict(self.tree()) if tree is None else dict(tree)
        for path, content in changes.items():
            if content is None:
                files.pop(path, None)
            else:
                files[path] = content
        name = hashlib.sha1(f"{len(self.commits)}{subject}".encode()).hexdigest()
        self.commits[name] = (Head(name, "refs/heads/main", "Jo Doe <jo@example.com>", START, subject, ""), files)
        self.line.append(name)
        return name

    def reset(self, back: int) -> None:
        """Move the branch back by force; what it leaves is in no branch any more."""
        if len(self.line) > back:
            del self.line[-back:]

    def tree(self, commit: str = "") -> dict[str, bytes]:
        """Read the files of a commit, by default the branch's head."""
        return self.commits[commit or self.line[-1]][1] if self.line else {}

    async def resolve(self, url: str, ref: GitRef, *, max_age_s: float, timeout_s: float | None = None) -> Head:
        if self.down:
            message = f"https://jo:{TOKENS[1]}@git.example.com/team/bikes.git did not answer"
            raise Unavailable(message.replace(f"jo:{TOKENS[1]}@", ""), reason="GitTimeout")
        if ref.commit is not None:
            if ref.commit not in self.line:
                raise NotFound(f"commit {ref.commit} is not in any ref", reason="CommitNotFound")
            return self.commits[ref.commit][0]
        if ref.branch != self.branch or not self.line:
            raise NotFound(f"branch {ref.branch} is not there; the nearest is {self.branch}", reason="RefNotFound")
        return self.commits[self.line[-1]][0]

    async def refresh(self, url: str, ref: GitRef, *, timeout_s: float | None = None) -> Head:
        return await self.resolve(url, ref, max_age_s=0, timeout_s=timeout_s)

    async def files(self, url: str, commit: str) -> tuple[TreeEntry, ...]:
        return tuple(
            TreeEntry("100644", path, hashlib.sha1(content).hexdigest(), len(content))
            for path, content in sorted(self.commits[commit][1].items())
        )

    async def read_many(
        self, url: str, commit: str, paths: Sequence[str], *, limit: int | None = None
    ) -> Mapping[str, bytes]:
        tree = self.commits[commit][1]
        return {p: tree[p] for p in paths}


class Trouble:
    """Calls of a server that are going to fail."""

    def __init__(self) -> None:
        self._coming: list[tuple[int, str]] = []

    def comes(self, calls: int, *, after: bool) -> None:
        """Let a call fail that is still so many calls away, before or after it was done."""
        self._coming.append((calls, "after" if after else "before"))

    def ends(self) -> None:
        """Let no further call fail."""
        self._coming.clear()

    def next(self) -> str:
        """Count one call; when it fails: "before", "after", or "" for not at all."""
        self._coming = [(calls - 1, when) for calls, when in self._coming]
        hit = next((c for c in self._coming if c[0] <= 0), None)
        if hit is None:
            return ""
        self._coming.remove(hit)
        return hit[1]


class Registry(FakeRegistry):
    """The registry, which may also fail after it has done what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.trouble = Trouble()

    def lose_report(self, run: str) -> None:
        """Lose the report of a run for good."""
        self.runs[run].artifacts.pop("mainspring/report.json", None)

    def lose(self, name: str, environment: str, seq: int) -> None:
        """Damage an entry of a ledger for good."""
        for run in self.runs.values():
            if run.tags.get(names.TAG_LEDGER) == f"{name}/{environment}":
                run.artifacts[names.entry_path(seq)] = b"damaged"


def broken(what: str) -> Unavailable:
    """Build the error of a server that fails."""
    return Unavailable(f"{what} at mlflow: 500 Internal Server Error", reason="RegistryUnavailable")


class Servers(Traffic):
    """What servers have counted, and which model they say they have loaded; their pods may be restarted."""

    async def counters(self, pods: Sequence[Manifest]) -> Mapping[str, float]:
        found = dict(await super().counters(pods))
        for pod in pods:
            given = pod["spec"]["containers"][0].get("command", [])
            if "--digest" in given:
                found[f"{pod['metadata']['name']}|digest={given[given.index('--digest') + 1]}"] = 1.0
        return found

    def restart(self, pod: str) -> None:
        """Begin to count anew."""
        for key in [k for k in self.counted if k.partition("|")[0] == pod]:
            self.counted[key] = 0.0


Told = Callable[[str, tuple[Any, ...], Any], Awaitable[None]]


class Doubtful:
    """A registry as one controller sees it: pauses at each call, fails where the walker says, tells of writes."""

    READS: Final = ("ping", "read_artifact", "get_aliases", "read_ledger", "aclose")

    def __init__(self, inner: Registry, gate: Callable[[], Awaitable[None]], told: Told) -> None:
        self._inner = inner
        self._gate = gate
        self._told = told

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            await self._gate()
            fault = self._inner.trouble.next()
            if fault == "before":
                raise broken(name)
            if name not in self.READS and not self._inner.down:
                await self._told(f"before {name}", args, kwargs)
            result = await found(*args, **kwargs)
            if fault == "after" and name in self.READS:
                raise broken(name)  # The answer was lost: nobody knows what was in it.
            await self._told(name, args, (kwargs, result))
            if fault == "after":
                raise broken(name)
            if name not in self.READS:
                await self._gate()
            return result

        return call
