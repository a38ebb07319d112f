"""`mainspring up`: local mode in the foreground; says what happens, and ends once settled when asked to."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence, Set
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.api.conditions import READY, SOURCE_READY, STALLED
from controller.api.meta import (
    ANNOTATION_SOURCE_COMMIT,
    API_VERSION,
    LABEL_REPOSITORY,
    Key,
    Manifest,
    key_of,
)
from controller.api.validation import check_text
from controller.clients.errors import ClientError
from controller.local.session import Places, allow_roots, places, prepare
from controller.local.session import git_roots as git_roots_of

if TYPE_CHECKING:
    from controller.local.up import LocalMode

POLL_S = 0.2
KINDS = ("ModelRepository", "ModelSpec", "ModelRevision")
SETTLED, NOT_SETTLED, TIMED_OUT = 0, 1, 4


def up(
    *,
    state: Path,
    data: Path | None,
    repo: str | None,
    branch: str,
    path: str,
    interval: str,
    files: list[Path],
    git_roots: list[Path],
    port: int,
    until_settled: bool,
    timeout_s: float,
) -> int:
    """Run local mode; returns the exit code (0 all Ready, 1 something Stalled, 4 time was up)."""
    _logging()
    where = places(state, data)
    prepare(where)
    roots = list(git_roots)
    url = _local_url(repo, roots)
    allow_roots(where, roots)
    manifests = _read(files)
    if manifests is None or not _may_read(manifests, git_roots_of(where)):
        return NOT_SETTLED
    if url is not None:
        manifests.append(_repository(url, branch, path, interval))
    return asyncio.run(_run(where, manifests, port=port, until_settled=until_settled, timeout_s=timeout_s))


def _logging() -> None:
    logging.basicConfig(
        level=logging.WARNING,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
    )


def _local_url(repo: str | None, roots: list[Path]) -> str | None:
    """Turn a path into a `file:` URL, and allow the repository that was named."""
    if repo is None:
        return None
    if repo.startswith("file://"):
        roots.append(Path(repo.removeprefix("file://")))
        return repo
    if "://" not in repo and Path(repo).exists():
        roots.append(Path(repo))
        return f"file://{Path(repo).resolve()}"
    return repo


def _read(files: list[Path]) -> list[Manifest] | None:
    found: list[Manifest] = []
    wrong = 0
    for file in files:
        checked = check_text(file.read_bytes(), str(file))
        for problem in checked.problems:
            print(f"error: {problem}", file=sys.stderr)
        wrong += len(checked.problems)
        found += [d.manifest for d in checked.documents]
    return None if wrong else found


def _may_read(manifests: list[Manifest], roots: Sequence[Path]) -> bool:
    """Tell whether all local repositories that files name are allowed; says how to allow one that is not."""
    urls = {
        f"{m['kind']} {m['metadata']['name']}": m["spec"].get("source", m["spec"]).get("url", "")
        for m in manifests
    }
    outside = {
        name: Path(url.removeprefix("file://"))
        for name, url in urls.items()
        if url.startswith("file://")
        and not any(Path(url.removeprefix("file://")).resolve().is_relative_to(root) for root in roots)
    }
    for name, path in outside.items():
        print(
            f"error: {name} follows file://{path}, which no --git-root allows; add --git-root {path}",
            file=sys.stderr,
        )
    return not outside


def _repository(url: str, branch: str, path: str, interval: str) -> Manifest:
    name = url.rstrip("/").rpartition("/")[2].removesuffix(".git").lower()
    clean = "".join(c if c.isalnum() else "-" for c in name).strip("-") or "repository"
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelRepository",
        "metadata": {"name": clean[:63], "namespace": "default"},
        "spec": {"url": url, "ref": {"branch": branch}, "path": path, "interval": interval},
    }


async def _run(
    where: Places, manifests: list[Manifest], *, port: int, until_settled: bool, timeout_s: float
) -> int:
    from controller.local.up import LocalMode

    say = _sayer()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    mode = await LocalMode.start(where, router_port=port, progress=say)
    try:
        for manifest in manifests:
            manifest["metadata"].setdefault("namespace", "default")
            await mode.store.apply(manifest)
        say("local mode is running; Ctrl-C stops everything")
        watching = asyncio.create_task(_watch(mode, say, stop, until_settled, timeout_s))
        try:
            await mode.run(stop)
        finally:
            stop.set()
        code = await watching
        say("stopping jobs, servers, router and MLflow")
        await mode.stop_all()
        return code
    finally:
        mode.close()


async def _watch(
    mode: LocalMode, say: Callable[[str], None], stop: asyncio.Event, settle: bool, timeout_s: float
) -> int:
    """Print what changes on objects; end when everything is settled, if asked to."""
    said: dict[str, tuple[Any, ...]] = {}
    until = time.monotonic() + timeout_s
    while not stop.is_set():
        try:
            objects = [m for kind in KINDS for m in await mode.store.list(kind)]
        except ClientError as error:
            say(f"the object store does not answer: {error.message}")
            objects = []
        for manifest in objects:
            _say_change(manifest, said, say)
        if settle:
            verdict = settled(objects, mode.controller.queue.worked)
            if verdict is not None or time.monotonic() > until:
                stop.set()
                return TIMED_OUT if verdict is None else verdict
        await asyncio.sleep(POLL_S)
    return SETTLED


def _say_change(manifest: Manifest, said: dict[str, tuple[Any, ...]], say: Callable[[str], None]) -> None:
    ready = _condition(manifest, READY)
    name = str(key_of(manifest))
    if ready is None:
        return
    now = (ready["status"], ready["reason"], ready.get("message", ""))
    before = said.get(name)
    if before == now:
        return
    said[name] = now
    # Counting messages change every second: the reader hears of a new state, not of each tick.
    if (
        before is None
        or before[:2] != now[:2]
        or ready["reason"] not in ("Progressing", "Training", "RetryBackoff")
    ):
        say(f"{manifest['kind']} {manifest['metadata']['name']}: {ready['reason']}: {ready.get('message', '')}")


def settled(objects: list[Manifest], looked: Set[Key]) -> int | None:
    """Say whether all that people wrote is Ready (0), something is Stalled (1), or neither yet (None).

    Args:
        objects: as they are now.
        looked: what was looked at since the start; what an earlier run said of the others is old.
    """
    written = [m for m in objects if m["kind"] != "ModelRevision"]
    synced = {m["metadata"]["name"]: m for m in written if m["kind"] == "ModelRepository"}
    current = [m for m in written if key_of(m) in looked and _is_observed(m) and _is_at_its_commit(m, synced)]
    stalled = [m for m in current if _condition(m, STALLED)]
    ready = [m for m in current if (_condition(m, READY) or {}).get("status") == "True"]
    if len(stalled) + len(ready) < len(written):
        return None
    if stalled:
        return NOT_SETTLED
    return SETTLED if any(m["kind"] == "ModelSpec" for m in written) else None


def _is_observed(manifest: Manifest) -> bool:
    return bool((manifest.get("status") or {}).get("observedGeneration") == manifest["metadata"].get("generation"))


def _is_at_its_commit(manifest: Manifest, repositories: Mapping[str, Manifest]) -> bool:
    """Tell whether a ModelSpec was looked at with the commit that its repository stamped, if it follows that."""
    meta, source = manifest["metadata"], (manifest.get("spec") or {}).get("source") or {}
    stamped = (meta.get("annotations") or {}).get(ANNOTATION_SOURCE_COMMIT, "")
    owner = repositories.get((meta.get("labels") or {}).get(LABEL_REPOSITORY, ""))
    if not stamped or owner is None or any(owner["spec"].get(k) != source.get(k) for k in ("url", "ref")):
        return True
    status = manifest.get("status") or {}
    # A commit that lacks a file is told in the condition only.
    told = (_condition(manifest, SOURCE_READY) or {}).get("message", "")
    return (status.get("source") or {}).get("commit") == stamped or stamped in told


def _condition(manifest: Manifest, type_: str) -> Manifest | None:
    conditions = (manifest.get("status") or {}).get("conditions", ())
    return next((c for c in conditions if c["type"] == type_), None)


def _sayer() -> Callable[[str], None]:
    if not sys.stdout.isatty():
        return lambda text: print(f"{datetime.now():%H:%M:%S} {text}", flush=True)
    from rich.console import Console

    console = Console(highlight=False)

    def say(text: str) -> None:
        style = "red" if "Failed" in text or "Stalled" in text else ""
        console.print(f"[dim]{datetime.now():%H:%M:%S}[/dim] ", end="")
        console.print(text, style=style, markup=False)

    return say
