"""Train the example and its variants and measure them on the rows that the gates see.

    python measure.py [--write-readme]

Prints the table of README.md from a real run: nothing in it is written by hand. Needs Mainspring installed, for its
split of rows only: which 30 % are held out is decided by the hash of the id.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import skops.io
from sklearn.metrics import f1_score, roc_auc_score

from controller.jobs.split import hashed

HERE = Path(__file__).resolve().parent
VARIANTS = ("base", "worse", "unfair", "better")
FRACTION, SEED = 0.3, 42


def stored():
    """Find the data by its pointer, as Mainspring does."""
    md5 = (HERE / "data" / "credit.csv.dvc").read_text().partition("md5: ")[2].split()[0]
    return HERE / "remote" / "files" / "md5" / md5[:2] / md5[2:]


def measure(variant, training, holdout):
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        for name in ("train.py", "features.py"):
            shutil.copy(HERE / name, work)
        if variant != "base":
            subprocess.run(["git", "apply", str(HERE / "variants" / f"{variant}.patch")], cwd=work, check=True)
        training.to_csv(work / "train.csv", index=False)
        environment = {**os.environ, "MAINSPRING_DATA_TRAIN": str(work / "train.csv"), "MAINSPRING_OUTPUT": str(work)}
        subprocess.run([sys.executable, "train.py"], cwd=work, env=environment, check=True, stdout=sys.stderr)
        file = work / "model.skops"
        model = skops.io.load(file, trusted=skops.io.get_untrusted_types(file=file))
        size = file.stat().st_size
    features = holdout.drop(columns="risk")
    called, score = model.predict(features), model.predict_proba(features)[:, list(model.classes_).index("good")]
    good = holdout.risk == "good"
    granted = [float((called[good & (holdout.sex == sex)] == "good").mean()) for sex in ("female", "male")]
    auc, f1 = roc_auc_score(good, score), f1_score(good, called == "good")
    women, men = granted
    return f"| {variant} | {auc:.3f} | {f1:.3f} | {women:.1%} | {men:.1%} | {abs(men - women):.3f} | {size / 1e3:.0f} |"


def main():
    data = pd.read_csv(stored())
    held = pd.Series(hashed([i.encode() for i in data.id], SEED, FRACTION))
    lines = [measure(v, data[~held], data[held]) for v in VARIANTS]
    title = "| Variant | ROC AUC | F1 | Good payers granted, women | men | Difference | Model, kB |"
    table = "\n".join([title, "|---|---|---|---|---|---|---|", *lines])
    print(f"{held.sum()} of {len(data)} rows held out, {(held & (data.sex == 'female')).sum()} of them women")
    print(table)
    if "--write-readme" in sys.argv:
        readme = HERE / "README.md"
        before, _, rest = readme.read_text().partition("<!-- measured -->\n")
        _, _, after = rest.partition("<!-- /measured -->")
        readme.write_text(f"{before}<!-- measured -->\n{table}\n<!-- /measured -->{after}")


if __name__ == "__main__":
    main()
