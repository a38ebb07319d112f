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
from controller.jobs.fetch_login import NO_LOGINS, Logins, origin_of

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

    async def download(self, uri: str, dest: Path, *, dataset: str = "") -> str:
        """Write what is at an address to a file and return its digest, `sha256:<64 hex>`.

        `dataset` names the one it belongs to, whose login is used.
        """
        ...

    async def object(self, url: str, endpoint: str, region: str, dest: Path, *, dataset: str = "") -> str:
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
        logins: Logins = NO_LOGINS,
    ) -> None:
        self._mirrors, self._policy, self._models, self._resolver = mirrors, policy, models, resolver
        self._logins = logins
        self._here: set[tuple[str, str]] = set()

    async def files(self, url: str, commit: str) -> tuple[TreeEntry, ...]:
        """List all files of a commit, which is fetched first if it is not here."""
        login = self._logins.for_git(url)
        if (url, commit) not in self._here:
            ref = GitRef(commit=commit)
            await self._mirrors.resolve(url, ref, credential=login, max_age_s=float("inf"))
            self._here.add((url, commit))
        return await self._mirrors.files(url, commit, credential=login)

    async def read_many(self, url: str, commit: str, paths: Sequence[str], limit: int) -> dict[str, bytes]:
        """Return some small files of a commit."""
        if not paths:
            return {}
        login = self._logins.for_git(url)
        return await self._mirrors.read_many(url, commit, paths, credential=login, limit=limit)

    async def export(self, url: str, commit: str, entries: Iterable[TreeEntry], dest: Path) -> None:
        """Write exactly these files of a commit below an empty directory."""
        await self._mirrors.export(url, commit, entries, dest, credential=self._logins.for_git(url))

    async def download(self, uri: str, dest: Path, *, dataset: str = "") -> str:
        """Copy a file or download an address, at most 2 GiB, with the login of its dataset.

        Raises:
            NotFound: DataNotFound. Denied: HostNotAllowed, ProtocolNotAllowed, FileTooLarge, DataNotReadable,
            SecretNotForHost. Unavailable: DataUnavailable; DataNotReadable: the login is refused.
        """
        if uri.startswith("file://"):
            return await asyncio.to_thread(self._copy, uri, dest)
        await self._judge(uri)
        login = self._logins.for_data(dataset, uri)
        header = login.web.header() if login is not None and login.web is not None else ""
        if header and uri.startswith("http://") and not self._listed(uri):
            raise Denied(
                f"the login for {_shown(uri)} would cross the network in clear: write https://…, or have the host "
                "listed among the operator's allowed hosts",
                reason="ProtocolNotAllowed",
            )
        return await self._get(uri, dest, header)

    async def _get(self, uri: str, dest: Path, header: str) -> str:
        """Download an address; `header` logs in there, and nowhere that it redirects to."""
        import httpx

        own = origin_of(uri)
        async with httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False) as client:
            for _ in range(REDIRECTS_MAX + 1):
                await self._judge(uri)
                headers = {"Authorization": header} if header and origin_of(uri) == own else {}
                try:
                    async with client.stream("GET", uri, headers=headers) as answer:
                        if answer.next_request is None:
                            return await _save(answer, uri, dest, logged_in=bool(header))
                        uri = str(answer.next_request.url)
                except httpx.InvalidURL:
                    raise Denied(f"{_shown(uri)} is no address", reason="InvalidURL") from None
                except httpx.HTTPError as error:
                    why = str(error) or type(error).__name__
                    raise Unavailable(
                        f"{_shown(uri)} does not answer: {redact(why, limit=120)}", reason="DataUnavailable"
                    ) from None
        raise Denied(f"{_shown(uri)} redirects more than {REDIRECTS_MAX} times", reason="DataNotReadable")

    def _listed(self, uri: str) -> bool:
        return git_rules.host_listed(urlsplit(uri).hostname or "", self._policy.allowed_hosts)

    async def object(self, url: str, endpoint: str, region: str, dest: Path, *, dataset: str = "") -> str:
        """Download an object of an S3 service; raises as `download` and `objects.signed_url` do."""
        login = self._logins.data.get(dataset)
        keys = login.s3 if login is not None else None
        signed = await asyncio.to_thread(objects.signed_url, url, endpoint=endpoint, region=region, login=keys)
        if login is not None:
            # The address shows who asks, and is worth something until it expires.
            login.secret.check_host(urlsplit(signed).hostname or "")
        await self._judge(signed)
        return await self._get(signed, dest, "")

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


async def _save(answer: httpx.Response, uri: str, dest: Path, *, logged_in: bool) -> str:
    """Write the body of an answer, bounded while it comes."""
    code = answer.status_code
    if code in (404, 410):
        raise NotFound(f"there is nothing at {_shown(uri)} (HTTP {code})", reason="DataNotFound")
    if code in (408, 425, 429) or code >= 500:
        raise Unavailable(f"{_shown(uri)} answers HTTP {code}", reason="DataUnavailable")
    if logged_in and code in (401, 403):
        # A person can correct the Secret without a new commit, so trying again may help.
        raise Unavailable(
            f"{_shown(uri)} refuses the login (HTTP {code}): correct the Secret of the dataset's secretRef",
            reason="DataNotReadable",
        )
    if code != 200:
        raise Denied(
            f"{_shown(uri)} answers HTTP {code}; it must be readable without login, or with that of a secretRef",
            reason="DataNotReadable",
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
