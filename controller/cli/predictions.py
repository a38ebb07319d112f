"""`mainspring predictions`: what was asked of a model and what it said, from its log: the last, how many, a file.

Reads where the ModelSpec's status says that predictions are kept, with the credentials of who asks (the usual
variables and files of the store's own tools), never with a Secret of the cluster.  pyarrow is imported only here.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from controller.cli.errors import USAGE, Failure
from controller.cli.output import Form, note, say, say_json, table
from controller.cli.session import DEFAULT_STATE, Namespace, Session, State, run
from controller.cli.target import find

if TYPE_CHECKING:
    from controller.serving.predictions import Predictions

SHOWN_COLUMNS: Final = 6
"""Most inputs that a line of `tail` shows."""
TAIL_DAYS: Final = (1, 7, 36_500)
"""How far `tail` looks back for its rows, in days, until it has them."""


class Action(StrEnum):
    """What is wanted of the log."""

    TAIL = "tail"
    COUNT = "count"
    EXPORT = "export"


def predictions_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The ModelSpec.")],
    action: Annotated[Action, typer.Argument(help="tail: the last; count: how many; export: all, as a file.")],
    lines: Annotated[int, typer.Option("--lines", "-l", min=1, max=100_000, help="How many, for tail.")] = 10,
    since: Annotated[
        str | None, typer.Option("--since", help="Not before: 2026-03-02, 2026-03-02T12:00:00Z, or 90m, 24h ago.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", help="Before, written as --since.")] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Of this ModelRevision only.")] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="File that export writes: .parquet, .csv or .jsonl.")
    ] = None,
    output: Annotated[Form, typer.Option("--output", "-o", help="Form of the answer.")] = Form.TEXT,
    namespace: Namespace = "default",
    state: State = DEFAULT_STATE,
) -> None:
    """Read the log of its predictions: the last, how many, a file."""
    if (action is Action.EXPORT) != (to is not None):
        raise Failure("export needs --to FILE, and nothing else takes it", code=USAGE)
    if to is not None and to.suffix not in _WRITERS:
        raise Failure(f"--to {to.name}: the name must end in {', '.join(_WRITERS)}", code=USAGE)
    now = datetime.now(UTC)
    begin, end = moment("--since", since, now), moment("--until", until, now)

    async def work(session: Session) -> tuple[str, str]:
        manifest = await find(session.store, name, namespace, kinds=("ModelSpec",))
        return manifest["metadata"]["name"], address(manifest)

    model, uri = run(state, work)
    if action is Action.TAIL:
        _tail(_last(uri, model, revision, begin, end, lines, now), lines, output)
        return
    found = _read(uri, model, revision, begin, end, columns=[] if action is Action.COUNT else None)
    _warn(found)
    if action is Action.COUNT:
        _count(found, output)
        return
    assert to is not None
    _WRITERS[to.suffix](found.table, to)
    say(f"{found.table.num_rows:,} predictions of {model} are in {to}")


def address(manifest: dict[str, Any]) -> str:
    """Find where the predictions of a ModelSpec are kept.

    Raises:
        Failure: they are not.
    """
    uri = ((manifest.get("status") or {}).get("predictionLog") or {}).get("uri")
    name = manifest["metadata"]["name"]
    if not uri:
        conditions = (manifest.get("status") or {}).get("conditions") or ()
        why = next((c["message"] for c in conditions if c["type"] == "PredictionsLogged"), "")
        hint = why or "set serving.predictionLog; docs/prediction-log.md says how"
        raise Failure(f"predictions of modelspec/{name} are not logged: {hint}")
    return str(uri)


def moment(option: str, text: str | None, now: datetime) -> datetime | None:
    """Read a moment: a day, a time, or how long ago; UTC where no zone is written.

    Raises:
        Failure: it is none of these. Exit code 2.
    """
    if text is None:
        return None
    import re

    from controller.api.base import DURATION_PATTERN, seconds

    if re.fullmatch(DURATION_PATTERN, text):
        return now - timedelta(seconds=seconds(text))
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        what = "a day (2026-03-02), a time (2026-03-02T12:00:00Z) or how long ago (24h)"
        raise Failure(f"{option} {text[:40]}: write {what}", code=USAGE) from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def _read(
    uri: str,
    model: str,
    revision: str | None,
    since: datetime | None,
    until: datetime | None,
    columns: list[str] | None = None,
) -> Predictions:
    try:
        from controller.serving.predictions import read
    except ImportError:
        raise Failure("reading predictions needs pyarrow: pip install 'mainspring[server]'") from None

    return read(uri, model=model, revision=revision, since=since, until=until, columns=columns)


def _last(
    uri: str,
    model: str,
    revision: str | None,
    since: datetime | None,
    until: datetime | None,
    lines: int,
    now: datetime,
) -> Predictions:
    """Read far enough back for so many predictions, and no further."""
    for days in TAIL_DAYS:
        begin = max(since or datetime.min.replace(tzinfo=UTC), (until or now) - timedelta(days=days))
        found = _read(uri, model, revision, begin, until)
        if found.table.num_rows >= lines or (since is not None and begin <= since):
            break
    return found


def _tail(found: Predictions, lines: int, output: Form) -> None:
    _warn(found)
    last = found.table.slice(max(0, found.table.num_rows - lines)).to_pylist()
    if output is Form.JSON:
        say_json(last)
        return
    if not last:
        say("no predictions were logged in that time")
        return
    inputs = [c for c in found.table.column_names if c.startswith("inputs.")]
    shown = inputs[:SHOWN_COLUMNS]
    heads = [
        "TIME",
        "REQUEST",
        "ROW",
        "REVISION",
        "PREDICTION",
        *(c.removeprefix("inputs.").upper() for c in shown),
    ]
    rows = [
        [
            f"{r['time']:%Y-%m-%d %H:%M:%S}",
            r["request_id"],
            str(r["row"]),
            r["revision"],
            _cell(r.get("prediction")),
            *(_cell(r[c]) for c in shown),
        ]
        for r in last
    ]
    table(heads, rows)
    if len(inputs) > len(shown):
        note(f"{len(inputs) - len(shown)} more inputs; -o json shows all")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _count(found: Predictions, output: Form) -> None:
    counts: dict[tuple[str, str], int] = {}
    days = found.table["time"].cast("date32[day]") if found.table.num_rows else None
    if days is not None:
        for day, revision in zip(days.to_pylist(), found.table["revision"].to_pylist(), strict=True):
            counts[str(day), revision] = counts.get((str(day), revision), 0) + 1
    rows = [{"day": day, "revision": revision, "predictions": n} for (day, revision), n in sorted(counts.items())]
    if output is Form.JSON:
        say_json({"predictions": found.table.num_rows, "duplicates": found.duplicates, "by": rows})
        return
    table(
        ["DAY", "REVISION", "PREDICTIONS"],
        [[str(r["day"]), str(r["revision"]), f"{r['predictions']:,}"] for r in rows],
    )
    say(f"{found.table.num_rows:,} predictions in {found.files} files")


def _warn(found: Predictions) -> None:
    for skipped in found.skipped[:5]:
        note(f"left out, it cannot be read: {skipped.path} ({skipped.why})")
    if len(found.skipped) > 5:
        note(f"left out, they cannot be read: {len(found.skipped) - 5} more files")


def _parquet(found: Any, to: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(found, to, compression="zstd")


def _csv(found: Any, to: Path) -> None:
    from pyarrow import csv

    csv.write_csv(found, to)


def _jsonl(found: Any, to: Path) -> None:
    with to.open("w", encoding="utf-8") as file:
        for batch in found.to_batches(max_chunksize=10_000):
            for row in batch.to_pylist():
                file.write(json.dumps(row, ensure_ascii=False, default=_json) + "\n")


def _json(value: Any) -> str:
    """Write a time as RFC 3339 with its microseconds."""
    return str(value.isoformat())


_WRITERS: Final = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl}
