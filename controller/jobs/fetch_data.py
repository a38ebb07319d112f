"""The data half of `fetch`: every dataset by its digest, the split, the checks, and what the champion has seen.

The whole files, hold-out included, lie only in a scratch directory that no later step mounts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from controller.api import hashes
from controller.api.data import Columns, Holdout
from controller.api.git_rules import shown
from controller.api.modelrevision import CheckEvidence, PinnedData, PinnedSource
from controller.api.reports import Facts, FetchTask
from controller.clients.errors import Denied, NotFound
from controller.jobs import checks, checks_builtin, checks_gx, checks_pandera, fetch_dvc, split, tables
from controller.jobs.entry import WrongInput
from controller.jobs.fetch_target import target_facts
from controller.jobs.fetch_world import DATASET_MAX, World

HOLDOUT: str = "holdout"
"""Name of the dataset that is the hold-out."""
SUITE_MAX_BYTES: int = 262_144
"""Largest file of checks that is read."""


@dataclass(frozen=True, slots=True)
class Got:
    """One dataset: the file as it came, its digest, and what was read from it."""

    pinned: PinnedData
    path: Path
    sha256: str
    table: tables.Table


@dataclass(frozen=True, slots=True)
class Prepared:
    """The data of a training, split and judged."""

    datasets: tuple[Got, ...]
    """In the order of the task; the first is learned from."""
    holdout: Got
    """Where the hold-out rows are: the first dataset, or the one named holdout."""
    training_rows: tuple[int, ...]
    """Positions in the first dataset that the training sees."""
    holdout_rows: tuple[int, ...]
    """Positions in `holdout` that are held out, in the order of features and labels."""
    checks: tuple[CheckEvidence, ...]
    """How every check came out."""


class Datasets:
    """Brings datasets into a scratch directory and reads them; the same content is brought and read once."""

    def __init__(self, world: World, scratch: Path, keep: Iterable[str]) -> None:
        self.world, self._scratch, self._keep = world, scratch, frozenset(keep)
        self._read: dict[tuple[str, str], Got] = {}

    async def get(self, pinned: PinnedData, source: PinnedSource) -> Got:
        """Bring one dataset.

        Raises:
            WrongInput: DataChanged: other content than pinned; or what `read_table` and `fetch_dvc.pull` say.
            ClientError: what Git or the server says.
        """
        place = pinned.path or pinned.uri or ""
        key = (pinned.digest, tables.format_of(place))
        if key not in self._read:
            folder = self._scratch / str(len(self._read))
            if pinned.pointer:
                path = await fetch_dvc.pull(self.world, pinned, source, folder)
                sha = await asyncio.to_thread(_sha256, path)
            elif pinned.path:
                path, sha = await self._from_git(pinned, source, folder)
            else:
                path, sha = await self._from_uri(pinned, folder)
            name = shown(pinned.path, 120)[1:-1] if pinned.path else f"dataset {pinned.name}"
            table = await asyncio.to_thread(tables.read_table, path, name, place=place, keep=self._keep)
            self._read[key] = Got(pinned, path, sha, table)
        found = self._read[key]
        return Got(pinned, found.path, found.sha256, found.table)

    async def _from_git(self, pinned: PinnedData, source: PinnedSource, folder: Path) -> tuple[Path, str]:
        path = pinned.path or ""
        entry = next((e for e in await self.world.files(source.url, source.commit) if e.path == path), None)
        if entry is None:
            raise NotFound(f"commit {source.commit[:10]} has no file {shown(path)}", reason="DataNotFound")
        if pinned.digest != f"gitblob:{entry.blob}":
            raise WrongInput(
                "DataChanged",
                f"{shown(path)} at commit {source.commit[:10]} is {hashes.short(entry.blob)}, "
                f"but {hashes.short(pinned.digest)} was pinned",
            )
        if entry.size > DATASET_MAX:
            raise Denied(
                f"{shown(path)} has {entry.size:,} bytes; at most {DATASET_MAX:,} are read", reason="FileTooLarge"
            )
        await self.world.export(source.url, source.commit, [entry], folder)
        return folder / path, await asyncio.to_thread(_sha256, folder / path)

    async def _from_uri(self, pinned: PinnedData, folder: Path) -> tuple[Path, str]:
        folder.mkdir(parents=True)
        path = folder / f"data.{tables.format_of(pinned.uri or '')}"
        found = await self.world.download(pinned.uri or "", path, dataset=pinned.name)
        if found != pinned.digest:
            raise WrongInput(
                "DataChanged",
                f"dataset {pinned.name} has digest sha256:{hashes.short(found)}…, "
                f"but sha256:{hashes.short(pinned.digest)}… was pinned; "
                "if the change is wanted, write the new digest",
            )
        return path, found


async def prepare(task: FetchTask, datasets: Datasets, now: datetime) -> Prepared:
    """Bring all datasets, split and judge them. A failed check is in the result, not raised.

    Raises:
        WrongInput: RuleInvalid: a file of checks cannot be used; or what `Datasets.get` says.
    """
    files = await _files(task, datasets.world)
    got = tuple([await datasets.get(d, task.source) for d in task.data])
    return await asyncio.to_thread(_judged, task, got, now, files)


@dataclass(frozen=True, slots=True)
class Files:
    """The files that checks name, read; by path."""

    schemas: Mapping[str, checks_pandera.Suite]
    suites: Mapping[str, checks_gx.Suite]


async def _files(task: FetchTask, world: World) -> Files:
    """Read the files that checks name, as they are in the commit of the code."""
    schemas = {c.pandera.path for c in task.checks if c.pandera}
    suites = {c.great_expectations.path for c in task.checks if c.great_expectations}
    texts = await world.read_many(task.source.url, task.source.commit, sorted(schemas | suites), SUITE_MAX_BYTES)
    return Files(
        {path: await asyncio.to_thread(checks_pandera.parse, texts[path], path) for path in sorted(schemas)},
        {path: checks_gx.parse(texts[path], path) for path in sorted(suites)},
    )


def _judged(task: FetchTask, got: tuple[Got, ...], now: datetime, files: Files) -> Prepared:
    first, frame = got[0], got[0].table.frame
    separate = next((g for g in got[1:] if g.pinned.name == HOLDOUT), None)
    evidence = list(checks_builtin.judge_table(frame, task.columns))
    evidence += checks_builtin.judge_copies(frame, task.columns.target)
    training: tuple[int, ...] = ()
    held: tuple[int, ...] = ()
    if separate is not None:
        evidence += checks_builtin.judge_table(separate.table.frame, task.columns, HOLDOUT)
        evidence += checks_builtin.judge_columns(frame, separate.table.frame, task.columns.target)
        training, held = tuple(range(first.table.rows)), tuple(range(separate.table.rows))
    else:
        try:
            training, held = sides(split.choose(first.table, task.columns, task.holdout))
        except WrongInput as error:
            evidence.append(checks.failed(checks_builtin.SPLIT, error.message))
    source = separate or first
    if training or held:
        evidence += checks_builtin.judge_split(frame, task.columns.target, training, len(held))
        whole = [g for g in got if g is not source]
        evidence += [
            checks_builtin.judge_unseen(g.pinned.name, seen_rows(source.table, held, [(g.table, None)]), len(held))
            for g in whole
        ]
    evidence += checks.judge(
        frame,
        task.checks,
        target=task.columns.target,
        champion_rows=task.champion_rows,
        now=now,
        suites=files.schemas,
        expected=checks_gx.judge(frame, files.suites),
    )
    return Prepared(got, source, training, held, tuple(evidence))


def sides(mask: Sequence[bool]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Turn a mask into the positions of the training rows and of the held-out ones."""
    return (
        tuple(i for i, held in enumerate(mask) if not held),
        tuple(i for i, held in enumerate(mask) if held),
    )


def seen_rows(
    table: tables.Table, held: Sequence[int], others: Iterable[tuple[tables.Table, Sequence[int] | None]]
) -> int:
    """Count the held-out rows whose content is among the rows of other tables (None: all their rows).

    Where the columns differ, the common ones are compared.
    """
    remaining = list(held)
    for other, positions in others:
        common = [str(c) for c in table.frame.columns if c in other.frame.columns]
        if not common:
            continue
        same = len(common) == len(table.frame.columns) == len(other.frame.columns)
        mine = table.content if same else tables.content_of(table, common)
        theirs = other.content if same else tables.content_of(other, common)
        known = set(theirs if positions is None else (theirs[p] for p in positions))
        remaining = [p for p in remaining if mine[p] not in known]
    return len(held) - len(remaining)


async def champion_seen(task: FetchTask, datasets: Datasets, prepared: Prepared) -> int:
    """Count the hold-out rows that the champion was trained on: its data, split by its own rule.

    Raises:
        WrongInput or ClientError: the champion's data can no longer be read.
    """
    source = task.champion_source or task.source
    got = [await datasets.get(d, source) for d in task.champion_data]
    if not got:
        return 0

    def count() -> int:
        learned: list[tuple[tables.Table, Sequence[int] | None]] = [
            (g.table, None) for g in got[1:] if g.pinned.name != HOLDOUT
        ]
        separate = any(g.pinned.name == HOLDOUT for g in got)
        rows = None if separate else sides(split.choose(got[0].table, *champion_rule(task)))[0]
        return seen_rows(prepared.holdout.table, prepared.holdout_rows, [(got[0].table, rows), *learned])

    return await asyncio.to_thread(count)


def champion_rule(task: FetchTask) -> tuple[Columns, Holdout]:
    """Return the rule that split the champion's data."""
    return task.champion_columns or task.columns, task.champion_holdout or task.holdout


def facts_of(task: FetchTask, prepared: Prepared, seen: int) -> Facts:
    """Write down what was found."""
    first = prepared.datasets[0].table
    held = b"".join(prepared.holdout.table.content[p] for p in prepared.holdout_rows)
    target = task.columns.target
    return Facts(
        task=checks_builtin.task_of(first.frame[target]) if target in first.frame.columns else None,
        rows=first.rows,
        training_rows=len(prepared.training_rows),
        holdout_rows=len(prepared.holdout_rows),
        holdout_digest=hashes.sha256(held),
        champion_seen_rows=seen,
        checks=prepared.checks,
        target=target_facts(first.frame, target, prepared.training_rows),
        data_sha256={g.pinned.name: g.sha256 for g in prepared.datasets},
    )


def _sha256(path: Path) -> str:
    import hashlib

    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
