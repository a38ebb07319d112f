"""The two models of the measurement, 20 columns of numbers: a scaled logistic regression, and 200 boosted trees.

`python -m benchmarks.serving.models DIRECTORY` writes each as our artifact, with a lineage that names its faster
form as the evaluator would, and for the other servers; and the request bodies of each protocol.
"""

from __future__ import annotations

import base64
import json
import sys
import warnings
from pathlib import Path
from typing import Any

COLUMNS = [f"f{n:02d}" for n in range(20)]
ROWS = (1, 100)


def fitted() -> dict[str, Any]:
    """Fit both on the same 20,000 rows."""
    from sklearn.datasets import make_classification
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = make_classification(20_000, 20, n_informative=12, random_state=0)
    boosted = GradientBoostingClassifier(n_estimators=200, max_depth=3, random_state=0)
    models = {
        "linear": make_pipeline(StandardScaler(), LogisticRegression()),
        "trees": make_pipeline(StandardScaler(), boosted),
    }
    for model in models.values():
        model.fit(_frame(x), y)
    return models


def _frame(x: Any) -> Any:
    import pandas as pd

    return pd.DataFrame(x, columns=COLUMNS)


def write(directory: Path) -> None:
    """Write models and bodies."""
    import joblib
    import mlflow.sklearn
    import numpy as np
    from mlflow.models import infer_signature

    from controller.serving import faster

    rows = np.random.default_rng(1).normal(size=(max(ROWS), len(COLUMNS))).round(4)
    for name, model in fitted().items():
        here = directory / name
        (here / "model").mkdir(parents=True)
        joblib.dump(model, here / "model" / "model.joblib")
        (here / "sample.json").write_bytes(_split(rows[:1]))
        form = {"predicate": {"mainspring_record": {"evidence": {"form": {"name": faster.form_of(model).name}}}}}
        payload = base64.b64encode(json.dumps(form).encode()).decode()
        (here / "lineage.json").write_text(json.dumps({"payload": payload}))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mlflow.sklearn.save_model(
                model,
                here / "mlflow",
                signature=infer_signature(_frame(rows[:5]), model.predict(_frame(rows[:5]))),
                serialization_format="cloudpickle",
                pip_requirements=[],
            )
        joblib.dump(model, here / "plain.joblib")
        peer = here / "mlserver"
        peer.mkdir()
        settings = {"name": "m", "implementation": "mlserver_sklearn.SKLearnModel"}
        (peer / "model-settings.json").write_text(
            json.dumps({**settings, "parameters": {"uri": str(here / "plain.joblib")}})
        )
    for count in ROWS:
        flat = [float(v) for row in rows[:count] for v in row]
        tensor = {"name": "x", "datatype": "FP64", "shape": [count, len(COLUMNS)], "data": flat}
        (directory / f"split-{count}.json").write_bytes(_split(rows[:count]))
        (directory / f"v2-{count}.json").write_text(json.dumps({"inputs": [tensor]}))
        (directory / f"bento-{count}.json").write_text(json.dumps({"x": rows[:count].tolist()}))


def _split(rows: Any) -> bytes:
    return json.dumps({"dataframe_split": {"columns": COLUMNS, "data": rows.tolist()}}).encode()


if __name__ == "__main__":
    write(Path(sys.argv[1]))
