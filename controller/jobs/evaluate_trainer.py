"""What the training program says about itself: metrics.json, and the MLflow tracking file it may have left.

All of it is hostile and decides nothing: it goes into the run under `trainer.`, where nobody can take it for our
own numbers.  What cannot be used is left out with a note, never a reason to fail.
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from controller.api.modelrevision import ScanEvidence
from controller.api.reports import EvaluateTask
from controller.jobs.evaluate_scans import read_scan

METRICS_MAX_BYTES: Final = 1_048_576
"""Largest metrics.json that is read."""
DATABASE_MAX_BYTES: Final = 256 * 2**20
"""Largest tracking file that is read."""
METRICS_MAX: Final = 200
"""Most metrics taken over."""
PARAMS_MAX: Final = 200
"""Most parameters taken over."""
PARAM_MAX: Final = 500
"""Characters kept of a parameter's value."""
STEPS_MAX: Final = 2_000_000
"""Virtual machine steps that SQLite may take: a view without end must not hold the step."""
PREFIX: Final = "trainer."

_NAME: Final = re.compile(r"[A-Za-z0-9_\-. /]{1,200}")


@dataclass(slots=True)
class Said:
    """What the trainer says, names already with `trainer.`; `notes` tell what was left out and why."""

    metrics: dict[str, float] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def trainer_says(output: Path) -> Said:
    """Read metrics.json and mlflow/mlflow.db below the training's output; raises nothing for what they hold."""
    said = Said()
    database = output / "mlflow" / "mlflow.db"
    if _usable(database, DATABASE_MAX_BYTES, said):
        _from_database(database, said)
    path = output / "metrics.json"
    if _usable(path, METRICS_MAX_BYTES, said):
        _from_json(path, said)
    return said


def left_by_training(task: EvaluateTask, output: Path, said: Said) -> dict[str, Any]:
    """Say what the training left besides its model: its own numbers, and the reports that are asked for.

    An evaluate-only Job has the model alone: there it is what was read when the model was trained.
    """
    known = task.known
    if known is None:
        trainer: dict[str, float] = {n.removeprefix(PREFIX): v for n, v in said.metrics.items()}
        note = "; ".join(n for n in said.notes if n.startswith("metrics.json"))[:300]
        scans = tuple(read_scan(output, path) for path in task.measures.scans)
        return {"trainer": trainer, "trainer_note": note, "scans": scans}
    lost = "it was not kept when the model was trained; train again to have it judged"
    before = {s.path: s for s in known.scans}
    return {
        "trainer": known.trainer or {},
        "trainer_note": known.trainer_note if known.trainer is not None else lost,
        "scans": tuple(before.get(p, ScanEvidence(path=p, note=lost)) for p in task.measures.scans),
    }


def _usable(path: Path, limit: int, said: Said) -> bool:
    """Tell whether a plain file of bearable size is there; anything else in its place is noted."""
    try:
        if path.parent.is_symlink() or path.is_symlink() or not path.is_file():
            if path.exists() or path.is_symlink():
                said.notes.append(f"{path.name} was not read: it is no plain file")
            return False
        size = path.stat().st_size
    except OSError as error:
        said.notes.append(f"{path.name} was not read: {error.strerror}")
        return False
    if size > limit:
        said.notes.append(f"{path.name} was not read: it has {size:,} bytes, more than {limit:,}")
        return False
    return True


def _from_json(path: Path, said: Said) -> None:
    try:
        found = json.loads(path.read_bytes().decode("utf-8"), object_pairs_hook=_distinct)
    except (ValueError, RecursionError, OSError) as error:
        why = str(error) if isinstance(error, _TwiceError) else "it is not JSON in UTF-8"
        said.notes.append(f"metrics.json was not read: {why}")
        return
    if not isinstance(found, dict):
        said.notes.append("metrics.json was not read: it is not an object of names and numbers")
        return
    _take_metrics("metrics.json", found.items(), said)


class _TwiceError(ValueError):
    """A name comes twice in one object."""


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        raise _TwiceError("a name comes twice in it")
    return out


def _take_metrics(source: str, pairs: Any, said: Said) -> None:
    dropped = 0
    for name, value in pairs:
        number = _finite(value)
        full = not (isinstance(name, str) and PREFIX + name in said.metrics) and len(said.metrics) >= METRICS_MAX
        if number is None or full or not isinstance(name, str) or not _NAME.fullmatch(name):
            dropped += 1
        else:
            said.metrics[PREFIX + name] = number
    if dropped:
        said.notes.append(
            f"{source}: {dropped} entries were left out: not a finite number, an unusual name, "
            f"or beyond {METRICS_MAX}"
        )


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _from_database(path: Path, said: Said) -> None:
    """Take the last run of a tracking file: its newest value of every metric, and its parameters.

    Read as the hostile file that it is: read-only, no trusted schema, a limited number of steps and rows.
    """
    try:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    except sqlite3.Error:
        said.notes.append("mlflow.db was not read: it cannot be opened")
        return
    try:
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1_000_000)
        database.execute("PRAGMA trusted_schema = OFF")
        database.execute("PRAGMA cell_size_check = ON")
        database.set_progress_handler(lambda: 1, STEPS_MAX)
        run = database.execute("SELECT run_uuid FROM runs ORDER BY start_time DESC, run_uuid LIMIT 1").fetchone()
        if run is None:
            return
        metrics = database.execute(
            "SELECT key, CASE WHEN is_nan THEN NULL ELSE value END FROM latest_metrics "
            "WHERE run_uuid = ? ORDER BY key LIMIT ?",
            (run[0], METRICS_MAX + 1),
        ).fetchall()
        params = database.execute(
            "SELECT key, value FROM params WHERE run_uuid = ? ORDER BY key LIMIT ?", (run[0], PARAMS_MAX)
        ).fetchall()
    except (sqlite3.Error, UnicodeError, OverflowError) as error:
        said.notes.append(f"mlflow.db was not read: {type(error).__name__}")
        return
    finally:
        database.close()
    _take_metrics("mlflow.db", metrics, said)
    for name, value in params:
        if isinstance(name, str) and isinstance(value, str) and _NAME.fullmatch(name):
            said.params[PREFIX + name] = value[:PARAM_MAX]
