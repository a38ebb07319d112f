"""Learn whether a loan will be paid back.

Plain scikit-learn; Mainspring says by environment variables where things are, and takes what is left in
MAINSPRING_OUTPUT. Without them the script runs as well: `python train.py` trains on all the data into `out/`.
"""

import json
import os
from pathlib import Path

import pandas as pd
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from features import features

TARGET = "risk"


def classifier(params):
    """Build the part that learns."""
    return LogisticRegression(C=params.get("C", 1.0), max_iter=1000)


def main():
    data = pd.read_csv(os.environ.get("MAINSPRING_DATA_TRAIN", "data/credit.csv"))
    given = os.environ.get("MAINSPRING_PARAMS")
    params = json.loads(Path(given).read_text()) if given else {}
    output = Path(os.environ.get("MAINSPRING_OUTPUT", "out"))
    output.mkdir(parents=True, exist_ok=True)

    model = make_pipeline(features(), classifier(params))
    model.fit(data.drop(columns=TARGET), data[TARGET])
    skops.io.dump(model, output / "model.skops")

    accuracy = model.score(data.drop(columns=TARGET), data[TARGET])
    (output / "metrics.json").write_text(json.dumps({"training_rows": len(data), "training_accuracy": accuracy}))
    print(f"learned from {len(data)} loans, right on {accuracy:.1%} of them")


if __name__ == "__main__":
    main()
