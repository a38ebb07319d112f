"""Who is talked to, and with what: hosts judged before a connection, credentials as short-lived files.

A name is resolved once, every address is judged, and git is pinned to a judged one, so that a second, different
answer of the name server changes nothing.  Credentials live in files (mode 0600) in a private directory for the
length of one operation; they are never in an argument, an environment variable or a URL.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from controller.api import git_rules
from controller.clients.errors import Denied, Unavailable
from controller.clients.git_types import Credential, GitPolicy
from controller.clients.redact import redact

# Threads of their own: a name server that hangs must not hold up those who read mirrors.
_RESOLVING = ThreadPoolExecutor(8, thread_name_prefix="git-resolve")
_PORTS = {"https": 443, "http": 80, "ssh": 22}
Resolver = Callable[[str, int], list[str]]


@dataclass(frozen=True, slots=True)
class Remote:
    """What one network operation needs: the URL for git, its protocol, and extra configuration and environment."""

    url: str
    protocol: str
    config: tuple[tuple[str, str], ...] = ()
    env: tuple[tuple[str, str], ...] = ()


def check_url(url: str, policy: GitPolicy) -> git_rules.GitUrl:
    """Judge a URL by protocol, form and literal host; raises Denied, never touches the network."""
    protocols = policy.allowed_protocols()
    problem = git_rules.url_problem(url, protocols)
    if problem:
        reason = "ProtocolNotAllowed" if git_rules.protocol_problem(url, protocols) else "InvalidURL"
        raise Denied(f"{problem} (in {redact(url, limit=200)})", reason=reason)
    parts = git_rules.parse_url(url)
    assert parts is not None
    if parts.scheme == "file":
        return parts._replace(path=str(_local_repository(parts.path, policy)))
    problem = git_rules.host_problem(parts.host, policy.allowed_hosts)
    if problem:
        raise Denied(problem, reason="HostNotAllowed")
    return parts


def _local_repository(path: str, policy: GitPolicy) -> Path:
    """Return the real path of a local repository, which must lie under a named root whatever links say."""
    real = Path(path).resolve()
    if not any(real.is_relative_to(root.resolve()) for root in policy.file_roots):
        raise Denied(
            f"the local repository {git_rules.shown(path)} is outside the roots allowed for file repositories",
            reason="ProtocolNotAllowed",
        )
    return real


def resolve_host(host: str, port: int) -> list[str]:
    """Ask the system for all addresses of a host."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(item[4][0]) for item in found))


async def judged_addresses(
    parts: git_rules.GitUrl, policy: GitPolicy, resolver: Resolver, timeout_s: float
) -> list[str]:
    """Resolve a host and refuse it if any address is not public, unless the host is listed by name."""
    port = parts.port or _PORTS[parts.scheme]
    try:
        async with asyncio.timeout(timeout_s):
            addresses = await asyncio.get_running_loop().run_in_executor(_RESOLVING, resolver, parts.host, port)
    except TimeoutError:
        raise Unavailable(
            f"resolving {parts.host}: no answer within {timeout_s:g} s", reason="GitTimeout"
        ) from None
    except OSError as error:
        raise Unavailable(
            f"the host {git_rules.shown(parts.host, 80)} cannot be resolved: {error.strerror}; it is tried again",
            reason="GitUnavailable",
        ) from None
    if not git_rules.host_listed(parts.host, policy.allowed_hosts):
        for address in addresses:
            problem = git_rules.address_problem(address)
            if problem:
                raise Denied(
                    f"the host {git_rules.shown(parts.host, 80)} resolves to a refused address: {problem}",
                    reason="HostNotAllowed",
                )
    return addresses


@asynccontextmanager
async def remote(
    parts: git_rules.GitUrl,
    url: str,
    *,
    policy: GitPolicy,
    credential: Credential | None,
    resolver: Resolver,
    timeout_s: float,
) -> AsyncIterator[Remote]:
    """Prepare one operation: judge and pin the host, lay out credentials, and remove them afterwards."""
    if parts.scheme == "file":
        yield Remote("file://" + quote(parts.path), "file", (("protocol.file.allow", "always"),))
        return
    addresses = await judged_addresses(parts, policy, resolver, min(timeout_s, 15.0))
    directory = Path(tempfile.mkdtemp(prefix="mainspring-git-"))
    try:
        config = [
            (f"protocol.{parts.scheme}.allow", "always"),
            ("http.lowSpeedTime", str(max(1, int(timeout_s)))),
        ]
        env: list[tuple[str, str]] = []
        if parts.scheme == "ssh":
            env += _ssh(parts, addresses, credential, directory, timeout_s)
        else:
            config += _http(parts, addresses, credential, directory)
        yield Remote(url, parts.scheme, tuple(config), tuple(env))
    finally:
        with contextlib.suppress(OSError):  # a leftover holds no more than what the pod may read anyway
            shutil.rmtree(directory)


def _private(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    return path


def _http(
    parts: git_rules.GitUrl, addresses: list[str], credential: Credential | None, directory: Path
) -> list[tuple[str, str]]:
    """Pin the address; give the password through git's own store, bound to scheme, host and port."""
    port = parts.port or _PORTS[parts.scheme]
    pinned = ",".join(f"[{item}]" if ":" in item else item for item in addresses)
    config = []
    if ":" not in parts.host:
        config.append(("http.curloptResolve", f"{parts.host}:{port}:{pinned}"))
    if credential is not None and credential.password:
        where = f"[{parts.host}]" if ":" in parts.host else parts.host
        where += f":{parts.port}" if parts.port else ""
        user = quote(credential.username or "git", safe="")
        store = _private(
            directory / "store", f"{parts.scheme}://{user}:{quote(credential.password, safe='')}@{where}\n"
        )
        config.append(("credential.helper", f"store --file={shlex.quote(str(store))}"))
    if credential is not None and credential.token:
        config.append(("include.path", str(_bearer(parts, credential.token, directory))))
    if credential is not None and credential.ca:
        config.append(("http.sslCAInfo", str(_private(directory / "ca.crt", credential.ca))))
    return config


def _bearer(parts: git_rules.GitUrl, token: str, directory: Path) -> Path:
    """Write a configuration that sends a token, to this scheme, host and port only."""
    where = f"[{parts.host}]" if ":" in parts.host else parts.host
    where += f":{parts.port}" if parts.port else ""
    value = token.replace("\\", "\\\\").replace('"', '\\"')
    text = f'[http "{parts.scheme}://{where}/"]\n\textraHeader = "Authorization: Bearer {value}"\n'
    return _private(directory / "bearer", text)


def _ssh(
    parts: git_rules.GitUrl, addresses: list[str], credential: Credential | None, directory: Path, timeout_s: float
) -> list[tuple[str, str]]:
    """Write a whole ssh configuration; only judged names and addresses stand in it, and only paths of ours."""
    known = _private(directory / "known_hosts", (credential.known_hosts if credential else "").rstrip() + "\n")
    lines = [
        "Host *",
        f"  HostName {addresses[0]}",
        f"  HostKeyAlias {parts.host}"
        if parts.port in (None, 22)
        else f"  HostKeyAlias [{parts.host}]:{parts.port}",
        "  CheckHostIP no",
        "  StrictHostKeyChecking yes",
        f"  UserKnownHostsFile {known}",
        f"  GlobalKnownHostsFile {directory / 'none'}",
        "  BatchMode yes",
        "  IdentitiesOnly yes",
        "  IdentityAgent none",
        "  ForwardAgent no",
        "  ClearAllForwardings yes",
        "  ProxyCommand none",
        "  PermitLocalCommand no",
        "  UpdateHostKeys no",
        f"  ConnectTimeout {max(1, int(timeout_s))}",
        "  ServerAliveInterval 10",
        "  ServerAliveCountMax 3",
        "  IdentityFile "
        + (
            str(_private(directory / "key", credential.ssh_key.rstrip() + "\n"))
            if credential and credential.ssh_key
            else "none"
        ),
    ]
    config = _private(directory / "ssh_config", "\n".join(lines) + "\n")
    return [("GIT_SSH_COMMAND", f"ssh -F {shlex.quote(str(config))}"), ("GIT_SSH_VARIANT", "ssh")]
