"""The step `fetch`: code, data, split, checks, and the champion's model, each by its digest.

    python -m controller.jobs.fetch --task FILE --work DIR --data DIR --inputs DIR --features DIR --labels DIR
        [--champion DIR] [--output DIR] [--code DIR] [--mirror DIR] [--allow-file-root DIR]… [--allow-host NAME]…
        [--git-protocol NAME]… [--credentials DIR]

The one step that sees all of the data.  What the training mounts (work, data, inputs) gets no row of the
hold-out; what the models mount (features) gets no target.  facts.json is written also when a check failed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from controller.api import hashes
from controller.api.base import dump
from controller.api.reports import Facts, FetchTask, Termination
from controller.clients import artifacts, credentials
from controller.clients.errors import Denied, NotFound
from controller.clients.git_types import GitPolicy
from controller.jobs import checks_builtin, entry, fetch_data, fetch_login, split, tables
from controller.jobs.entry import TryAgain, WrongInput
from controller.jobs.fetch_aside import put_aside
from controller.jobs.fetch_code import check_copies, place_code
from controller.jobs.fetch_data import Datasets, Got, Prepared
from controller.jobs.fetch_world import Models, RealWorld, World

SAMPLE_ROWS: Final = 10_000
"""Most training rows in the sample for the profile."""
ROW: Final = "__row__"
"""Column of labels.parquet: position of the row in its dataset, from 0."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything goes: the mounted directories."""

    work: Path
    data: Path
    inputs: Path
    features: Path
    labels: Path
    champion: Path | None = None
    output: Path | None = None
    code: Path | None = None


async def fetch(task: FetchTask, places: Places, world: World, scratch: Path, now: datetime) -> Facts:
    """Do the whole step.

    Args:
        task: what is wanted.
        places: the directories; work and data must be empty.
        world: Git, addresses, the registry.
        scratch: an empty directory that no later step sees.
        now: the moment, for `maxAge` where the task does not say when the data was pinned.

    Raises:
        WrongInput: source, data or command are wrong; after a failed check facts.json is there.
        ClientError: what the world says.
    """
    for directory in (places.work, places.data):
        if directory.is_dir() and any(directory.iterdir()):
            raise TryAgain("DirectoryNotEmpty", f"the directory {directory.name} must be empty and is not")
    code = await place_code(task, world, places.work) if task.artifact is None else ()
    rule, holdout = fetch_data.champion_rule(task)
    keep = {*split.needed_columns(task.columns, task.holdout), *split.needed_columns(rule, holdout)}
    datasets = Datasets(world, scratch, keep)
    prepared = await fetch_data.prepare(task, datasets, pinned_at(task, now))
    hidden = {prepared.holdout.pinned.name: prepared.holdout.path}
    await asyncio.to_thread(check_copies, hidden, code)
    refusal = checks_builtin.refusal(prepared.checks)
    seen = await _seen(task, datasets, prepared) if refusal is None else 0
    facts = fetch_data.facts_of(task, prepared, seen)
    write_json(places.labels / "facts.json", dump(facts))
    if refusal is not None:
        raise refusal
    await asyncio.to_thread(_write, task, places, prepared)
    if task.champion is not None:
        await _model(world, task.champion.run, task.champion.digest, places.champion, "champion")
    if task.artifact is not None:
        await _model(world, task.artifact.run, task.artifact.digest, places.output, "output")
    elif places.code is not None:
        await put_aside(task, world, code, places.code)
    return facts


def pinned_at(task: FetchTask, now: datetime) -> datetime:
    """Return the moment that `maxAge` counts from.

    Raises:
        WrongInput: TaskInvalid: not RFC 3339.
    """
    if not task.pinned_at:
        return now
    try:
        moment = datetime.fromisoformat(task.pinned_at)
    except ValueError:
        raise WrongInput("TaskInvalid", f"pinnedAt {task.pinned_at[:40]!r} is no time") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


async def _seen(task: FetchTask, datasets: Datasets, prepared: Prepared) -> int:
    """Count the hold-out rows that the champion has seen; all of them, where its data can no longer be read."""
    try:
        return await fetch_data.champion_seen(task, datasets, prepared)
    except (WrongInput, Denied, NotFound) as error:
        sys.stderr.write(
            f"fetch: the champion's data cannot be read again, so all hold-out rows count as seen by it: {error}\n"
        )
        return len(prepared.holdout_rows)


def _write(task: FetchTask, places: Places, prepared: Prepared) -> None:
    """Write everything that later steps read, each into the directory of who may see it."""
    target, held = task.columns.target, list(prepared.holdout_rows)
    if task.artifact is None:
        for got in prepared.datasets:
            if got.pinned.name != fetch_data.HOLDOUT:
                _write_training(got, prepared, training_path(places, got))
        write_json(places.inputs / "params.json", task.params)
    first, rows = prepared.datasets[0].table, prepared.holdout.table.frame.iloc[held].reset_index(drop=True)
    tables.write_frame(rows.drop(columns=[target]), places.features / "features.parquet")
    named = [target, task.columns.id, task.columns.time, task.holdout.column]
    labels = rows[[c for c in dict.fromkeys(named) if c in rows.columns]].copy()
    labels[ROW] = held
    tables.write_frame(labels, places.labels / "labels.parquet")
    tables.write_frame(first.frame.iloc[sample(prepared)], places.labels / "training.parquet")


def training_path(places: Places, got: Got) -> Path:
    """Return where the training finds a dataset: at its own path in the work directory, or below data."""
    if got.pinned.path is not None:
        return places.work / got.pinned.path
    return places.data / f"{got.pinned.name}.{tables.format_of(got.pinned.uri or '')}"


def _write_training(got: Got, prepared: Prepared, dest: Path) -> None:
    if got.pinned.name == prepared.holdout.pinned.name:
        tables.write_rows(got.table, prepared.training_rows, dest)
        return
    dest.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(got.path, dest)


def sample(prepared: Prepared) -> list[int]:
    """Choose at most 10,000 training rows by the digest of their content: the same in every run."""
    content = prepared.datasets[0].table.content
    chosen = sorted(prepared.training_rows, key=lambda p: (content[p], p))[:SAMPLE_ROWS]
    return sorted(chosen)


async def _model(world: World, run: str, digest: str, dest: Path | None, name: str) -> None:
    """Bring a model and verify it.

    Raises:
        WrongInput: TaskInvalid: the directory was not named. ClientError: the registry's, or ManifestMismatch.
    """
    if dest is None:
        raise WrongInput("TaskInvalid", f"the task wants a model, but no --{name} directory was given")
    dest.mkdir(parents=True, exist_ok=True)
    await world.model(run, dest)
    await asyncio.to_thread(artifacts.verify, dest, digest)


def write_json(path: Path, value: Any) -> None:
    """Write JSON in one way, sorted and with a last line end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(hashes.canonical(value) + b"\n")


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line; what is not given comes from the environment."""
    parser = argparse.ArgumentParser(prog="python -m controller.jobs.fetch")
    parser.add_argument("--task", type=Path, required=True)
    for name in ("work", "data", "inputs", "features", "labels"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("champion", "output", "code"):
        parser.add_argument(f"--{name}", type=Path)
    env = os.environ
    mirrors, roots = env.get("MAINSPRING_MIRRORS"), env.get("MAINSPRING_GIT_FILE_ROOTS", "")
    hosts = env.get("MAINSPRING_ALLOWED_HOSTS", "")
    parser.add_argument("--mirror", type=Path, default=Path(mirrors) if mirrors else None)
    parser.add_argument(
        "--allow-file-root", type=Path, action="append", default=[Path(r) for r in roots.split(":") if r]
    )
    parser.add_argument("--allow-host", action="append", default=[h for h in hosts.split(",") if h])
    protocols = env.get("MAINSPRING_GIT_PROTOCOLS", "")
    parser.add_argument("--git-protocol", action="append", default=[p for p in protocols.split(",") if p])
    given = env.get("MAINSPRING_CREDENTIALS", "")
    parser.add_argument("--credentials", type=Path, default=Path(given) if given else None)
    return parser.parse_args(argv)


def registry() -> Models:
    """Open the registry at MLFLOW_TRACKING_URI.

    Raises:
        Denied: RegistryMissing: it is not set.
    """
    from controller.clients.registry import Registry

    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        raise Denied("MLFLOW_TRACKING_URI is not set, so no model can be fetched", reason="RegistryMissing")
    return Registry(uri, login=credentials.registry_here(os.environ))


async def step(given: argparse.Namespace, models: Callable[[], Models] = registry) -> Termination:
    """Read the task and do it; raises as `fetch`."""
    from controller.clients.git import Mirrors

    task = entry.read_task(given.task, FetchTask)
    places = Places(
        given.work,
        given.data,
        given.inputs,
        given.features,
        given.labels,
        given.champion,
        given.output,
        given.code,
    )
    policy = GitPolicy(
        protocols=frozenset(given.git_protocol) or GitPolicy().protocols,
        file_roots=tuple(given.allow_file_root),
        allowed_hosts=tuple(given.allow_host),
    )
    logins = fetch_login.read(task, given.credentials)
    with tempfile.TemporaryDirectory(prefix="mainspring-fetch-") as scratch:
        mirrors = Mirrors(given.mirror or Path(scratch) / "mirrors", policy)
        world = RealWorld(mirrors, policy, models, logins=logins)
        data = Path(scratch) / "data"
        data.mkdir()
        facts = await fetch(task, places, world, data, datetime.now(UTC))
    return Termination(
        outcome="Done", message=f"{facts.training_rows:,} training and {facts.holdout_rows:,} hold-out rows"
    )


def main(argv: Sequence[str] | None = None, models: Callable[[], Models] = registry) -> int:
    """Run the step and return its exit code; `models` opens the registry."""
    given = arguments(sys.argv[1:] if argv is None else argv)
    return entry.run_step("fetch", lambda: step(given, models))


if __name__ == "__main__":
    sys.exit(main())
