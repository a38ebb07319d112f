"""What `fetch` needs of the outside: Git, an address, the registry.  A port, and the real thing behind it.

The only file of `fetch` that talks to a network.  Every answer is bounded and judged by digest by whoever asked;
hosts are judged before they are connected to, redirects included.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import unquote, urlsplit

from controller.api import git_rules
from controller.api.base import in_bytes
from controller.clients import git_net, objects
from controller.clients.errors import Denied, NotFound, Unavailable
from controller.clients.git_types import GitPolicy, GitRef, TreeEntry
from controller.clients.redact import redact

if TYPE_CHECKING:
    import httpx

    from controller.clients.git import Mirrors

DATASET_MAX: Final = in_bytes("2Gi")
"""Largest dataset file, in bytes."""
REDIRECTS_MAX: Final = 5
TIMEOUT_S: Final = 60.0
"""Longest silence of a server."""
_CHUNK: Final = 1 << 20
_PORTS: Final = {"https": 443, "http": 80}


class World(Protocol):
    """The outside, as `fetch` sees it. Every method raises the errors of `controller.clients.errors` only."""

    async def files(self, url: str, commit: str) -> tuple[TreeEntry, ...]:
        """List all files of a commit."""
        ...

    async def read_many(self, url: str, commit: str, paths: Sequence[str], limit: int) -> dict[str, bytes]:
        """Return some small files of a commit."""
        ...

    async def export(self, url: str, commit: str, entries: Iterable[TreeEntry], dest: Path) -> None:
        """Write exactly these files of a commit below an empty directory."""
        ...

    async def download(self, uri: str, dest: Path) -> str:
        """Write what is at an address to a file and return its digest, `sha256:<64 hex>`."""
        ...

    async def object(self, url: str, endpoint: str, region: str, dest: Path) -> str:
        """Write an object of an S3 service (`s3://bucket/key`) to a file and return its digest, as `download`."""
        ...

    async def model(self, run: str, dest: Path) -> None:
        """Write the files of a model in the registry below a directory."""
        ...


class Models(Protocol):
    """The registry, as `fetch` needs it; `controller.clients.registry.Registry` is one."""

    async def download_model(self, run_id: str, dest: Path) -> object:
        """Write every file of the model of a run below a directory."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


class RealWorld:
    """Git mirrors of this step, an HTTP client, and a registry that is opened once it is needed."""

    def __init__(
        self,
        mirrors: Mirrors,
        policy: GitPolicy,
        models: Callable[[], Models],
        resolver: git_net.Resolver = git_net.resolve_host,
    ) -> None:
        self._mirrors, self._policy, self._models, self._resolver = mirrors, policy, models, resolver
        self._here: set[tuple[str, str]] = set()

    async def files(self, url: str, commit: str) -> tuple[TreeEntry, ...]:
        """List all files of a commit, which is fetched first if it is not here."""
        if (url, commit) not in self._here:
            await self._mirrors.resolve(url, GitRef(commit=commit), max_age_s=float("inf"))
            self._here.add((url, commit))
        return await self._mirrors.files(url, commit)

    async def read_many(self, url: str, commit: str, paths: Sequence[str], limit: int) -> dict[str, bytes]:
        """Return some small files of a commit."""
        return await self._mirrors.read_many(url, commit, paths, limit=limit) if paths else {}

    async def export(self, url: str, commit: str, entries: Iterable[TreeEntry], dest: Path) -> None:
        """Write exactly these files of a commit below an empty directory."""
        await self._mirrors.export(url, commit, entries, dest)

    async def download(self, uri: str, dest: Path) -> str:
        """Copy a file or download an address, at most 2 GiB.

        Raises:
            NotFound: DataNotFound. Denied: HostNotAllowed, ProtocolNotAllowed, FileTooLarge, DataNotReadable.
            Unavailable: DataUnavailable.
        """
        if uri.startswith("file://"):
            return await asyncio.to_thread(self._copy, uri, dest)
        import httpx

        async with httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False) as client:
            for _ in range(REDIRECTS_MAX + 1):
                await self._judge(uri)
                try:
                    async with client.stream("GET", uri) as answer:
                        if answer.next_request is None:
                            return await _save(answer, uri, dest)
                        uri = str(answer.next_request.url)
                except httpx.InvalidURL:
                    raise Denied(f"{_shown(uri)} is no address", reason="InvalidURL") from None
                except httpx.HTTPError as error:
                    why = str(error) or type(error).__name__
                    raise Unavailable(
                        f"{_shown(uri)} does not answer: {redact(why, limit=120)}", reason="DataUnavailable"
                    ) from None
        raise Denied(f"{_shown(uri)} redirects more than {REDIRECTS_MAX} times", reason="DataNotReadable")

    async def object(self, url: str, endpoint: str, region: str, dest: Path) -> str:
        """Download an object of an S3 service; raises as `download` and `objects.signed_url` do."""
        signed = await asyncio.to_thread(objects.signed_url, url, endpoint=endpoint, region=region)
        return await self.download(signed, dest)

    async def model(self, run: str, dest: Path) -> None:
        """Download the artifact path `model` of a run. Raises what the registry client raises."""
        async with aclosing(self._models()) as models:
            await models.download_model(run, dest)

    async def _judge(self, uri: str) -> None:
        """Refuse a host that is not public and not listed, by name and by what the name resolves to."""
        parts = urlsplit(uri)
        host = parts.hostname or ""
        if parts.scheme not in _PORTS or not host:
            raise Denied(f"{_shown(uri)} is no https or http address", reason="ProtocolNotAllowed")
        if parts.username is not None:
            raise Denied(f"{_shown(uri)} has a password inside; datasets take none", reason="InvalidURL")
        if problem := git_rules.host_problem(host, self._policy.allowed_hosts):
            raise Denied(problem, reason="HostNotAllowed")
        judged = git_rules.GitUrl(parts.scheme, None, host, parts.port, parts.path)
        await git_net.judged_addresses(judged, self._policy, self._resolver, 15.0)

    def _copy(self, uri: str, dest: Path) -> str:
        """Copy a local file that lies under one of the named roots, whatever links say."""
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost"):
            raise Denied(f"{_shown(uri)}: a file address has no host: file:///path", reason="InvalidURL")
        real = Path(unquote(parts.path)).resolve()
        if not any(real.is_relative_to(root.resolve()) for root in self._policy.file_roots):
            raise Denied(
                f"{_shown(uri)} is outside the directories allowed for local files", reason="ProtocolNotAllowed"
            )
        try:
            size = real.stat().st_size
            if not real.is_file():
                raise Denied(f"{_shown(uri)} is not a regular file", reason="DataNotReadable")
            _check_size(uri, size)
            digest = hashlib.sha256()
            with real.open("rb") as source, dest.open("wb") as target:
                while chunk := source.read(_CHUNK):
                    digest.update(chunk)
                    target.write(chunk)
        except FileNotFoundError:
            raise NotFound(f"there is no file {_shown(uri)}", reason="DataNotFound") from None
        except PermissionError:
            raise Denied(f"{_shown(uri)} may not be read by this process", reason="DataNotReadable") from None
        return f"sha256:{digest.hexdigest()}"


async def _save(answer: httpx.Response, uri: str, dest: Path) -> str:
    """Write the body of an answer, bounded while it comes."""
    code = answer.status_code
    if code in (404, 410):
        raise NotFound(f"there is nothing at {_shown(uri)} (HTTP {code})", reason="DataNotFound")
    if code in (408, 425, 429) or code >= 500:
        raise Unavailable(f"{_shown(uri)} answers HTTP {code}", reason="DataUnavailable")
    if code != 200:
        raise Denied(
            f"{_shown(uri)} answers HTTP {code}; it must be readable without login", reason="DataNotReadable"
        )
    stated = answer.headers.get("content-length", "")
    _check_size(uri, int(stated) if stated.isdigit() else 0)
    digest, size = hashlib.sha256(), 0
    with dest.open("wb") as file:
        async for chunk in answer.aiter_bytes(_CHUNK):
            size += len(chunk)
            _check_size(uri, size)
            digest.update(chunk)
            file.write(chunk)
    return f"sha256:{digest.hexdigest()}"


def _check_size(uri: str, size: int) -> None:
    if size > DATASET_MAX:
        raise Denied(
            f"{_shown(uri)} has {size:,} bytes or more; at most {DATASET_MAX:,} are fetched", reason="FileTooLarge"
        )


def _shown(uri: str) -> str:
    """Write an address for people: without its query, which may sign it."""
    return redact(uri.partition("?")[0], limit=160)
