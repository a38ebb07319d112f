"""A model that needs classes of the repository: they are served from the commit's own files, under the digest."""

from __future__ import annotations

import json

from tests.support.git_repos import Scratch
from tests.support.linear_model import csv, model, rows
from tests.support.local_mode import Local

SCALE = b"""class Halves:
    \"\"\"Halves every number; a module of its own imports another one only when it is asked.\"\"\"

    def fit(self, rows, target=None):
        return self

    def transform(self, rows):
        from shared.arithmetic import half

        return half(rows[["x1", "x2"]])
"""
TRAIN = b"""import os
import joblib, pandas as pd
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

import scale

data = pd.read_csv(os.environ["MAINSPRING_DATA_TRAIN"])
model = make_pipeline(scale.Halves(), Ridge()).fit(data[["x1", "x2"]], data["y"])
joblib.dump(model, os.path.join(os.environ["MAINSPRING_OUTPUT"], "model.joblib"))
# A training may spoil its own copy; what is served comes from Git.
open("src/scale.py", "w").write("raise SystemExit('spoilt')")
open("src/shared/arithmetic.py", "w").write("raise SystemExit('spoilt')")
"""


def test_a_transformer_of_the_repository_is_judged_and_served_from_the_files_of_the_commit(
    local: Local, repository: Scratch
):
    spec = model(
        repository.url,
        source={"url": repository.url, "ref": {"branch": "main"}, "paths": ["src"], "interval": "1s"},
        training={"command": ["python", "src/train.py"]},
    )
    repository.commit(
        {
            "src/train.py": TRAIN,
            "src/scale.py": SCALE,
            "src/shared/__init__.py": b"",
            "src/shared/arithmetic.py": b"def half(rows):\n    return rows / 2\n",
            "rows.csv": csv(rows()),
            "deploy/line.yaml": json.dumps(spec).encode(),
        }
    )
    local.start("--repo", str(repository.path), "--path", "deploy")
    served = local.until_condition("Succeeded")

    answer = local.run("predict", "line", "--row", '{"x1": 2.0, "x2": 1.0}')
    assert answer.code == 0, answer
    copies = list(local.state.glob(f"pods/default/{served['status']['champion']['revision']}-*/volumes/artifact"))
    assert copies
    kept = {str(p.relative_to(copies[0] / "model")) for p in (copies[0] / "model").rglob("*") if p.is_file()}
    assert kept == {
        "model.joblib",
        "code/paths.json",
        "code/src/train.py",
        "code/src/scale.py",
        "code/src/shared/__init__.py",
        "code/src/shared/arithmetic.py",
    }
    assert (copies[0] / "model" / "code" / "src" / "scale.py").read_bytes() == SCALE
