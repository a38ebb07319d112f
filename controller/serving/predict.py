"""The `predict` and `predict-champion` steps: verify the model, predict the hold-out, time single requests.

The model runs in a child process; this process hashes its files, sends features, takes times and writes what comes
back: `predictions.parquet`, `facts.json` and `sample.json` (one request, for the first prediction of a server).
It never loads a model, and it has no labels.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from controller.api.modelrevision import FasterForm
from controller.api.reports import PredictFacts, PredictTask
from controller.clients import artifacts
from controller.clients.artifacts import Located
from controller.clients.errors import Denied, NotFound
from controller.serving import faster, frames, step, values
from controller.serving.child import Child, guard, running

DEADLINE_S: Final = 900.0
"""Time for loading, all predictions and all single requests together."""
TASK_MAX_BYTES: Final = 1 << 20
PROBES_MAX: Final = 10_000
WARM_UP: Final = 5
"""Requests that are sent first and not counted."""


def main(argv: list[str] | None = None) -> int:
    """Run the step; returns the exit code."""
    parser = argparse.ArgumentParser(prog="controller.serving.predict")
    parser.add_argument("--task", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--code", type=Path, help="the repository's Python files, for a model that names them")
    parser.add_argument("--deadline-s", type=float, default=DEADLINE_S)
    given = parser.parse_args(argv)

    def work() -> None:
        guard()
        task = read_task(given.task)
        predict(task, given.model, given.features, given.out, code=given.code, deadline_s=given.deadline_s)

    return step.run("predict", work)


def read_task(path: Path) -> PredictTask:
    """Read the step's task.

    Raises:
        NotFound, Denied: TaskInvalid.
    """
    try:
        with path.open("rb") as file:
            return PredictTask.model_validate_json(file.read(TASK_MAX_BYTES))
    except OSError as error:
        raise NotFound(
            f"the task file {path.name} cannot be read: {error.strerror}", reason="TaskInvalid"
        ) from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(p) for p in first["loc"]) or path.name
        raise Denied(f"the task is not a PredictTask: {where}: {first['msg']}", reason="TaskInvalid") from error


def predict(
    task: PredictTask,
    model: Path,
    features: Path,
    out: Path,
    *,
    code: Path | None = None,
    deadline_s: float = DEADLINE_S,
) -> PredictFacts:
    """Do all of the step.

    Args:
        model: what a training left, or a downloaded artifact.
        features: directory with `features.parquet`.
        out: directory for what is found; written only when all of it was.
        code: Python files that a model which was just trained may name.

    Raises:
        NotFound: ModelMissing, FeaturesMissing.
        Denied: ManifestMismatch, ModelNotLoadable, EnvironmentMismatch, PredictionsInvalid, …
    """
    import pandas as pd

    try:
        frame = pd.read_parquet(features / "features.parquet")
    except FileNotFoundError as error:
        raise NotFound("features.parquet is not there: fetch has not run", reason="FeaturesMissing") from error
    located = artifacts.locate(model)
    with tempfile.TemporaryDirectory(prefix="mainspring-predict-") as private:
        copy = Path(private) / "model"
        digest = _verified(located, copy, task.digest, code)
        with running(copy, located.format, deadline_s) as child:
            loaded, _ = child.ask(frames.LOAD, b"", "ModelNotLoadable")
            sent = frame.to_parquet(index=False)
            table = _predictions(child, sent, len(frame), scores=task.scores)
            times = _times(child, frame, task.probe_requests)
            form = _form(child, sent, table)
    p50, p95, p99 = quantiles(times)
    facts = PredictFacts(
        digest=digest,
        format=located.format,
        packages=_packages(loaded),
        rows=len(frame),
        columns=tuple(table.columns),
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        requests=len(times),
        form=form,
    )
    out.mkdir(parents=True, exist_ok=True)
    table.to_parquet(out / "predictions.parquet", index=False)
    if len(frame):
        (out / "sample.json").write_bytes(request_body(frame.head(1)))
    (out / "facts.json").write_text(facts.model_dump_json(by_alias=True))
    return facts


def request_body(frame: Any) -> bytes:
    """Write rows as the body of a request to /invocations: what a client of the server would send."""
    columns = [str(c) for c in frame.columns]
    data = [[_cell(c) for c in row] for row in frame.astype(object).to_numpy().tolist()]
    return json.dumps({"dataframe_split": {"columns": columns, "data": data}}, allow_nan=False).encode()


def quantiles(times: list[float]) -> tuple[float, float, float] | tuple[None, None, None]:
    """Give the 50th, 95th and 99th percentile: the smallest value that so many percent do not exceed."""
    if not times:
        return None, None, None
    ordered = sorted(times)
    p50, p95, p99 = (ordered[max(math.ceil(q * len(ordered)) - 1, 0)] for q in (0.5, 0.95, 0.99))
    return p50, p95, p99


def _verified(located: Located, copy: Path, digest: str | None, code: Path | None) -> str:
    """Copy the model's files, check them where a digest is known, and name the digest of the copy."""
    copy.mkdir(mode=0o700)
    if digest is None:
        files = artifacts.assemble(located, code, copy)
    else:
        files = artifacts.matched(artifacts.snapshot(located.root, copy), digest)
    for entry in copy.rglob("*"):
        if entry.is_file():
            entry.chmod(0o400)
    return artifacts.manifest_digest(files)


def _predictions(child: Child, features: bytes, count: int, *, scores: bool) -> Any:
    import pandas as pd

    answer, _ = child.ask(frames.BATCH, (b"1" if scores else b"0") + features, "PredictionsInvalid")
    columns: dict[str, Any] = {"prediction": values.checked_predictions(answer.get("predictions"), count)}
    if scores and isinstance(answer.get("classes"), list):
        names, rows = values.checked_scores(answer["classes"], answer.get("scores"), count)
        columns |= {f"score:{name}": [row[i] for row in rows] for i, name in enumerate(names)}
    kinds = {bool if isinstance(p, bool) else str if isinstance(p, str) else float for p in columns["prediction"]}
    if len(kinds) > 1:
        raise Denied(
            "the model predicts numbers for some rows and strings or booleans for others",
            reason="PredictionsInvalid",
        )
    return pd.DataFrame(columns)


def _form(child: Child, features: bytes, table: Any) -> FasterForm:
    """Compare a faster form of the model with it on all rows; what that process says of it is only compared."""
    answer, _ = child.ask(frames.FASTER, features, "PredictionsInvalid")
    rows, scores, name = answer.get("rows"), answer.get("scores"), str(answer.get("form", ""))[:64]
    if not name or not isinstance(rows, list):
        return FasterForm(why=str(answer.get("why", "it was not told"))[:300])
    if not all(isinstance(r, int) and 0 <= r < len(table) for r in rows) or len(set(rows)) != len(rows):
        raise Denied("the faster form of the model names rows that there are not", reason="PredictionsInvalid")
    given = values.checked_predictions(answer.get("predictions"), len(rows))
    own = table[[c for c in table.columns if c.startswith("score:")]]
    if scores is not None:
        _, scores = values.checked_scores([str(n) for n in range(_width(scores))], scores, len(rows))
    own_scores = own.to_numpy().tolist() if scores is not None and own.shape[1] == _width(scores) else None
    return faster.compared(name, table["prediction"].tolist(), own_scores, given, scores, rows)


def _width(scores: Any) -> int:
    return len(scores[0]) if isinstance(scores, list) and scores and isinstance(scores[0], list) else 0


def _times(child: Child, frame: Any, requests: int) -> list[float]:
    """Time requests of one row each, as a server would get them; milliseconds, in the order they were sent."""
    wanted = min(requests, PROBES_MAX)
    if wanted <= 0 or not len(frame):
        return []
    bodies = [request_body(frame.iloc[[n]]) for n in range(min(len(frame), wanted))]
    times = []
    for n in range(-WARM_UP, wanted):
        answer, spent = child.ask(frames.SINGLE, bodies[n % len(bodies)], "PredictionsInvalid")
        values.checked_predictions(answer.get("predictions"), 1)
        if n >= 0:
            times.append(spent)
    return times


def _packages(loaded: dict[str, Any]) -> dict[str, str]:
    found = loaded.get("packages")
    items = found.items() if isinstance(found, dict) else ()
    return {str(k)[:64]: str(v)[:64] for k, v in list(items)[:500]}


def _cell(value: Any) -> Any:
    """Write one value as JSON would carry it; what is missing is null."""
    if value is None or type(value).__name__ in ("NAType", "NaTType") or value != value:
        return None
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


if __name__ == "__main__":
    sys.exit(main())
