"""A model that trains in a moment: two hundred rows of a line with noise, and a program that fits them."""

from __future__ import annotations

import random
from typing import Any

from controller.api.meta import API_VERSION, Manifest

TRAIN = b"""import json, os
import joblib, pandas as pd
from sklearn.linear_model import Ridge

data = pd.read_csv(os.environ["MAINSPRING_DATA_TRAIN"])
params = json.load(open(os.environ["MAINSPRING_PARAMS"]))
model = Ridge(alpha=params.get("alpha", 1.0)).fit(data[params.get("use", ["x1", "x2"])], data["y"])
joblib.dump(model, os.path.join(os.environ["MAINSPRING_OUTPUT"], "model.joblib"))
print(f"fitted {len(data)} rows")
"""
FAILS = b"import sys\nsys.exit('the warehouse has no such table')\n"
HANGS = b"import time\nprint('waiting for a lock', flush=True)\ntime.sleep(3600)\n"
SLOW = TRAIN + b"import time\ntime.sleep(4)\n"


def rows(count: int = 200, *, seed: int = 1) -> list[tuple[str, str, str, str]]:
    """Return rows (id, x1, x2, y) as text; each y is different enough to be searched for."""
    picker = random.Random(seed)
    found = []
    for number in range(count):
        x1, x2 = picker.uniform(0, 10), picker.uniform(0, 10)
        y = 3 * x1 - 2 * x2 + picker.gauss(0, 0.5)
        found.append((f"row-{number:04d}", f"{x1:.6f}", f"{x2:.6f}", f"{y:.6f}"))
    return found


def csv(table: list[tuple[str, str, str, str]]) -> bytes:
    """Write rows as CSV."""
    return "\n".join(["id,x1,x2,y", *(",".join(row) for row in table), ""]).encode()


def model(url: str, name: str = "line", **changes: Any) -> Manifest:
    """Build the ModelSpec of the line; keyword arguments replace fields of its spec."""
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelSpec",
        "metadata": {"name": name},
        "spec": {
            "source": {"url": url, "ref": {"branch": "main"}, "paths": ["train.py"], "interval": "1s"},
            "data": [{"name": "train", "path": "rows.csv"}],
            "columns": {"target": "y", "id": "id"},
            "training": {"command": ["python", "train.py"], "params": {"alpha": 1.0, "use": ["x1", "x2"]}},
            "gates": [{"name": "error", "metric": "rmse", "max": 2}],
            "serving": {"canary": {"stepWeights": [50], "interval": "2s"}},
            **changes,
        },
    }
