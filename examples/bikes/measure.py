"""Train the example and its variants on the older four fifths and measure them on the newest fifth.

    python measure.py [--write-readme]

Prints the table of README.md from a real run: nothing in it is written by hand.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import skops.io

HERE = Path(__file__).resolve().parent
VARIANTS = ("base", "worse", "better")


def measure(variant, training, holdout):
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        for name in ("train.py", "features.py"):
            shutil.copy(HERE / name, work)
        if variant != "base":
            subprocess.run(["git", "apply", str(HERE / "variants" / f"{variant}.patch")], cwd=work, check=True)
        training.to_csv(work / "train.csv", index=False)
        environment = {**os.environ, "MAINSPRING_DATA_TRAIN": str(work / "train.csv"), "MAINSPRING_OUTPUT": str(work)}
        began = time.monotonic()
        subprocess.run([sys.executable, "train.py"], cwd=work, env=environment, check=True, stdout=sys.stderr)
        seconds = time.monotonic() - began
        file = work / "model.skops"
        model = skops.io.load(file, trusted=skops.io.get_untrusted_types(file=file))
        errors = model.predict(holdout.drop(columns="bikers")) - holdout.bikers
        spread = np.sum((holdout.bikers - holdout.bikers.mean()) ** 2)
        rmse, r2 = np.sqrt(np.mean(errors**2)), 1 - np.sum(errors**2) / spread
        return f"| {variant} | {rmse:.1f} | {r2:.3f} | {seconds:.1f} | {file.stat().st_size / 1e6:.1f} |"


def main():
    data = pd.read_csv(HERE / "data" / "bikes.csv").sort_values("time", kind="stable")
    cut = len(data) - round(len(data) * 0.2)
    lines = [measure(v, data[:cut], data[cut:]) for v in VARIANTS]
    head = ["| Variant | RMSE, bikes | R² | Seconds, start to end | Model, MB |", "|---|---|---|---|---|"]
    table = "\n".join([*head, *lines])
    print(table)
    if "--write-readme" in sys.argv:
        readme = HERE / "README.md"
        before, _, rest = readme.read_text().partition("<!-- measured -->\n")
        _, _, after = rest.partition("<!-- /measured -->")
        readme.write_text(f"{before}<!-- measured -->\n{table}\n<!-- /measured -->{after}")


if __name__ == "__main__":
    main()
