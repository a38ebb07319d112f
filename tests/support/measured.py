"""What the evaluator would have measured, in simulated worlds: one form of the report for all of them.

Never says how good a model is: that is told by the world, which knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.api import hashes


def report(
    revision: str,
    evaluate: Mapping[str, Any],
    *,
    digest: str,
    rmse: float,
    against: float | None,
    data: bytes,
    slices: bool = False,
) -> bytes:
    """Write the report of an evaluation.

    Args:
        revision: of whom it speaks.
        evaluate: the task that the step was given.
        digest: of the artifact.
        rmse: the model's error.
        against: the champion's error on the same rows; None without one. The improvement's distribution spreads by
            1.0 to both sides.
        data: the hold-out rows, whatever they are.
        slices: measure the slices that the task asks for.
    """
    metric: dict[str, Any] = {"name": "rmse", "value": rmse}
    if against is not None:
        spread = [against - rmse - 1.0 + 2.0 * i / 14 for i in range(15)]
        metric |= {"champion": against, "absolute": spread, "relative": [s / against for s in spread]}
    measures = evaluate.get("measures", {})
    evidence = {
        "artifact": digest,
        "holdout": hashes.sha256(data),
        "champion": evaluate.get("champion", ""),
        "runtime": evaluate["runtime"],
        "checksHash": evaluate["checksHash"],
        "task": "Regression",
        "holdoutRows": 1729,
        "trainingRows": 6916,
        "metrics": [metric],
        "probe": {"requests": 200, "p50Ms": 2.0, "p95Ms": 4.0, "p99Ms": 6.0},
        "trainer": {"rmse": rmse / 2},
        "baselines": [{"dummy": "Mean", "values": {"rmse": 150.0}}],
        "slices": [
            {**asked, "table": [{"value": "weekend", "rows": 500, "metric": rmse + 10}]}
            for asked in (measures.get("slices", []) if slices else ())
        ],
        "measures": measures.get("hash", ""),
        "report": "",
    }
    run = evaluate["run"]
    artifact = {"digest": digest, "uri": f"mlflow:/{run}/model", "format": "skops", "sizeBytes": 1000}
    manifest = [["model.skops", 1000, digest]]
    return hashes.canonical(
        {"revision": revision, "run": run, "artifact": artifact, "manifest": manifest, "evidence": evidence}
    )
