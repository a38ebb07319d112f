"""Runs `git`, and nothing else, with a fixed environment: the one place where the operator starts a process.

Every argument list is fixed but for parts that `git_rules` accepted, and those stand after `--` or are hex.
The environment is built from nothing (no HOME, no user or system configuration, no hooks, filters, helpers,
prompts or proxies), each process leads a session of its own, and time-out, cancellation and too much output kill
the whole group.  Never a shell, never a credential in an argument.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from controller.clients.errors import Denied, Unavailable

STDERR_LIMIT = 64 * 1024
_CHUNK = 64 * 1024

_FIXED_CONFIG: tuple[tuple[str, str], ...] = (
    ("core.hooksPath", os.devnull),
    ("core.attributesFile", os.devnull),
    ("core.fsmonitor", "false"),
    ("core.symlinks", "false"),
    ("core.askPass", ""),
    ("core.alternateRefsCommand", ""),
    ("credential.helper", ""),
    ("protocol.version", "2"),
    ("protocol.allow", "never"),
    ("transfer.fsckObjects", "true"),
    ("fetch.fsckObjects", "true"),
    # Blemishes of old, honest repositories; none of them can act on a reader of blobs.
    ("fetch.fsck.zeroPaddedFilemode", "warn"),
    ("fetch.fsck.badTimezone", "warn"),
    ("fetch.fsck.missingSpaceBeforeDate", "warn"),
    ("fetch.fsck.missingNameBeforeEmail", "warn"),
    ("fetch.fsck.badDate", "warn"),
    ("fetch.fsck.badDateOverflow", "warn"),
    # Submodules are never followed here, so what .gitmodules says cannot act; export refuses them.
    ("fetch.fsck.gitmodulesName", "warn"),
    ("fetch.fsck.gitmodulesUrl", "warn"),
    ("fetch.fsck.gitmodulesPath", "warn"),
    ("fetch.fsck.gitmodulesUpdate", "warn"),
    ("fetch.fsck.gitmodulesSymlink", "warn"),
    ("fetch.unpackLimit", "1"),
    ("transfer.unpackLimit", "1"),
    ("transfer.bundleURI", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("submodule.recurse", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    # Redirects are refused: the address that was checked is the one that is talked to.
    ("http.followRedirects", "false"),
    ("http.proxy", ""),
    ("http.sslVerify", "true"),
    ("http.lowSpeedLimit", "100"),
    ("log.showSignature", "false"),
)


@dataclass(frozen=True, slots=True)
class Completed:
    """What a process left: exit code (negative: signal), whole output, last part of its errors."""

    code: int
    stdout: bytes
    stderr: str
    truncated: bool = False


def environment(home: Path, *, git_dir: Path | None = None, protocol: str = "") -> dict[str, str]:
    """Build the whole environment of a git process.

    `home` is a directory of ours that stays empty but for `gitconfig`, an empty file; `protocol` is the only
    transport allowed (none when empty).
    """
    env = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LC_ALL": "C",
        "LANGUAGE": "C",
        "TZ": "UTC",
        "HOME": str(home / "home"),
        "XDG_CONFIG_HOME": str(home / "home"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_CONFIG_GLOBAL": str(home / "gitconfig"),
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "SSH_ASKPASS": "",
        "SSH_ASKPASS_REQUIRE": "never",
        "GIT_ALLOW_PROTOCOL": protocol or "none",
        "GIT_PROTOCOL_FROM_USER": "0",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_ADVICE": "0",
        "GIT_CEILING_DIRECTORIES": "/",
    }
    if git_dir is not None:
        env["GIT_DIR"] = str(git_dir)
    return env


def prepare_home(home: Path) -> None:
    """Make the empty HOME and the empty global configuration that `environment` points at."""
    (home / "home").mkdir(parents=True, exist_ok=True, mode=0o700)
    if not (home / "gitconfig").exists():
        (home / "gitconfig").touch(mode=0o600)


def command(args: Sequence[str], config: Sequence[tuple[str, str]] = ()) -> list[str]:
    """Write the argument list: git, the fixed configuration, `config` after it, then `args`."""
    git = shutil.which("git")
    if git is None:
        raise Unavailable("the program 'git' is not installed where the controller runs", reason="GitMissing")
    pairs = [item for key, value in (*_FIXED_CONFIG, *config) for item in ("-c", f"{key}={value}")]
    return [git, "--no-pager", *pairs, *args]


async def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    timeout_s: float,
    max_output: int,
    stdin: bytes = b"",
    truncate: bool = False,
    max_file_bytes: int | None = None,
    keep_fds: Sequence[int] = (),
    what: str = "git",
) -> Completed:
    """Run one git command to its end.

    Raises Unavailable(GitTimeout) after `timeout_s` seconds, Denied(RepoTooLarge) beyond `max_output` bytes
    (with `truncate` the rest is cut instead). `keep_fds` stay open in the child: a lock taken by us is held until
    an orphan has ended too. `max_file_bytes` bounds each file that it writes.
    """
    process = await _start(argv, env, cwd, piped=bool(stdin), keep_fds=keep_fds)
    if max_file_bytes is not None:
        with contextlib.suppress(ProcessLookupError):  # it has ended already, so it writes nothing more
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
    try:
        async with asyncio.timeout(timeout_s):
            feeding = asyncio.ensure_future(_feed(process.stdin, stdin))
            errors = asyncio.ensure_future(_drain(process.stderr))
            try:
                stdout, cut = await _collect(process.stdout, max_output)
                if cut:
                    _kill(process.pid)
                stderr = await errors
                code = await process.wait()
            finally:
                feeding.cancel()
                errors.cancel()
    except TimeoutError:
        raise Unavailable(
            f"{what}: no result within {round(timeout_s, 1):g} s; git was stopped", reason="GitTimeout"
        ) from None
    finally:
        _kill(process.pid)
        if process.returncode is None:
            await asyncio.shield(process.wait())
        # Python closes the pipes of a killed process only when their last holder is gone; we do not wait for it.
        process._transport.close()  # type: ignore[attr-defined]
    if cut and not truncate:
        raise Denied(f"{what}: git answered with more than {max_output} bytes", reason="RepoTooLarge")
    return Completed(0 if cut else code, stdout, stderr, cut)


async def _start(
    argv: Sequence[str], env: Mapping[str, str], cwd: Path, *, piped: bool, keep_fds: Sequence[int]
) -> asyncio.subprocess.Process:
    """Start git as the leader of a session of its own."""
    try:
        return await asyncio.create_subprocess_exec(
            *argv,
            env=dict(env),
            cwd=cwd,
            stdin=asyncio.subprocess.PIPE if piped else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            pass_fds=tuple(keep_fds),
        )
    except OSError as error:
        # Another process may throw a damaged mirror away while we turn to it.
        reason = "GitMissing" if cwd.is_dir() else "GitCorrupt"
        raise Unavailable(f"git could not be started: {error.strerror}", reason=reason) from None


def _kill(pid: int) -> None:
    """Kill the whole group, the leader's children too; the group may be gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # ended already: nothing to stop
        os.killpg(pid, signal.SIGKILL)


async def _feed(stream: asyncio.StreamWriter | None, data: bytes) -> None:
    if stream is None:
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it stopped reading: its exit code tells why
        stream.write(data)
        await stream.drain()
        stream.close()


async def _collect(stream: asyncio.StreamReader | None, limit: int) -> tuple[bytes, bool]:
    """Read up to `limit` bytes; the flag says that there was more."""
    assert stream is not None
    parts, size = [], 0
    while chunk := await stream.read(_CHUNK):
        parts.append(chunk)
        size += len(chunk)
        if size > limit:
            return b"".join(parts)[:limit], True
    return b"".join(parts), False


async def _drain(stream: asyncio.StreamReader | None) -> str:
    """Read all errors, keep the last part."""
    assert stream is not None
    kept = b""
    while chunk := await stream.read(_CHUNK):
        kept = (kept + chunk)[-STDERR_LIMIT:]
    return kept.decode("utf-8", "backslashreplace")
