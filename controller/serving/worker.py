"""The process that runs a model for the predict step: loads it, answers frames, knows nothing else.

Started by `controller.serving.child` with a directory of verified files.  What the model prints goes to stderr:
stdout carries answers only.  Whatever the model does here, the parent measures, checks and writes.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from pathlib import Path
from typing import Any, Final, get_args

from controller.clients.artifacts import Format
from controller.clients.errors import Denied
from controller.serving import faster, frames, invocations, loader
from controller.serving.predictor import ColumnsMissing, Predictor


def main(argv: list[str] | None = None) -> int:
    """Answer frames until the parent closes the pipe; returns 0."""
    parser = argparse.ArgumentParser(prog="controller.serving.worker")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--format", choices=get_args(Format), required=True)
    given = parser.parse_args(argv)
    answers = os.dup(1)
    os.dup2(2, 1)
    predictor: Predictor | None = None
    while True:
        try:
            kind, body = frames.read(0)
        except frames.FrameError:
            return 0
        try:
            if kind == frames.LOAD:
                predictor = loader.load(given.model, given.format)
                answer: dict[str, Any] = {
                    "columns": predictor.columns,
                    "packages": predictor.packages,
                    "kinds": predictor.kinds,
                }
            else:
                assert predictor is not None, "the parent loads first"
                answer = _ASKED[kind](predictor, body)
            frames.write(answers, frames.ANSWER, json.dumps(answer).encode())
        except Exception as error:  # noqa: BLE001 - the model may raise anything, and the parent is told
            frames.write(answers, frames.ERROR, json.dumps(_told(error)).encode())


def _batch(predictor: Predictor, body: bytes) -> dict[str, Any]:
    """Predict a parquet table; `scores` in its metadata asks for class probabilities too."""
    import pandas as pd

    want_scores, table = body[:1] == b"1", body[1:]
    frame = pd.read_parquet(io.BytesIO(table))
    answer: dict[str, Any] = {"predictions": predictor.predict(frame)}
    found = predictor.scores(frame) if want_scores else None
    if found is not None:
        answer["classes"], answer["scores"] = found
    return answer


def _single(predictor: Predictor, body: bytes) -> dict[str, Any]:
    """Answer a request body just as the server does."""
    frame = invocations.parse_json(body, predictor.columns, predictor.kinds)
    return {"predictions": predictor.predict(frame)}


def _faster(predictor: Predictor, body: bytes) -> dict[str, Any]:
    """Predict a parquet table by the faster form of the model, or say why there is none."""
    import numpy as np
    import pandas as pd

    try:
        form = predictor.faster()
        frame = pd.read_parquet(io.BytesIO(body))
        names = list(predictor.columns or frame.columns)
        labels, scores, rows = form.each(frame[names].to_numpy(dtype=np.float64))
    except faster.NoFasterForm as error:
        return {"why": str(error)}
    except Exception as error:  # noqa: BLE001 - the model itself has predicted these rows; it does without
        return {"why": f"it does not predict: {type(error).__name__}: {' '.join(str(error).split())[:160]}"}
    return {
        "form": form.name,
        "predictions": labels,
        "scores": None if scores is None else scores.tolist(),
        "rows": rows,
    }


_ASKED: Final = {frames.BATCH: _batch, frames.SINGLE: _single, frames.FASTER: _faster}
"""What answers which frame."""


def _told(error: Exception) -> dict[str, str]:
    if isinstance(error, ColumnsMissing):
        return {"reason": "PredictionsInvalid", "message": error.message}
    if isinstance(error, Denied):
        return {"reason": error.reason, "message": error.message}
    text = error.message if isinstance(error, invocations.BadRequest) else f"{type(error).__name__}: {error}"
    return {
        "reason": "PredictionsInvalid",
        "message": f"the model fails to predict: {' '.join(text.split())[:300]}",
    }


if __name__ == "__main__":
    sys.exit(main())
