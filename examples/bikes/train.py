"""Learn how many bikes are rented in an hour.

Plain scikit-learn; Mainspring says by environment variables where things are, and takes what is left in
MAINSPRING_OUTPUT. Without them the script runs as well: `python train.py` trains on all the data into `out/`.
"""

import json
import os
import time
from pathlib import Path

import pandas as pd
import skops.io
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.pipeline import make_pipeline

from features import features

TARGET = "bikers"


def main():
    data = pd.read_csv(os.environ.get("MAINSPRING_DATA_TRAIN", "data/bikes.csv"))
    given = os.environ.get("MAINSPRING_PARAMS")
    params = json.loads(Path(given).read_text()) if given else {}
    seed = int(os.environ.get("MAINSPRING_SEED", "42"))
    output = Path(os.environ.get("MAINSPRING_OUTPUT", "out"))
    output.mkdir(parents=True, exist_ok=True)

    began = time.monotonic()
    model = make_pipeline(
        features(),
        GradientBoostingRegressor(
            n_estimators=params.get("n_estimators", 150),
            max_depth=params.get("max_depth", 5),
            min_samples_leaf=params.get("min_samples_leaf", 20),
            random_state=seed,
        ),
    )
    model.fit(data.drop(columns=TARGET), data[TARGET])
    skops.io.dump(model, output / "model.skops")

    r2 = model.score(data.drop(columns=TARGET), data[TARGET])
    seconds = time.monotonic() - began
    metrics = {"training_rows": len(data), "training_r2": r2, "seconds": seconds}
    (output / "metrics.json").write_text(json.dumps(metrics))
    print(f"learned from {len(data)} hours in {seconds:.1f} s, R² on them {r2:.3f}")


if __name__ == "__main__":
    main()
