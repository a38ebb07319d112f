"""The second example is what it says: a valid spec, data as its pointer says, clean patches, a named source."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import yaml

from controller.api import dvc
from controller.api.modelspec import ModelSpecSpec
from controller.jobs.checks_pandera import judge, parse
from controller.jobs.fetch_dvc import md5_of

CREDIT = Path(__file__).parents[3] / "examples" / "credit"


@pytest.fixture(scope="module")
def spec():
    return ModelSpecSpec.model_validate(yaml.safe_load((CREDIT / "model.yaml").read_text())["spec"])


@pytest.fixture(scope="module")
def stored(spec):
    path = spec.data[0].path
    pointer = dvc.parse_pointer((CREDIT / path).read_bytes(), path)
    remote = dvc.parse_config((CREDIT / ".dvc/config").read_bytes(), ".dvc/config")
    assert (remote.kind, pointer.path) == ("Inside", "data/credit.csv")
    file = CREDIT / remote.url / pointer.objects()[0]
    assert (md5_of(file), file.stat().st_size) == (pointer.md5, pointer.size)
    return file


def test_the_data_has_the_columns_that_the_spec_names_and_fits_its_schema(spec, stored):
    data = pd.read_csv(stored)
    named = next(c for c in spec.checks if c.schema_).schema_.columns
    assert set(data.columns) == {*named, spec.columns.target}
    assert data[spec.columns.id].is_unique
    assert set(data[spec.columns.target]) == {"good", "bad"}
    path = next(c.pandera.path for c in spec.checks if c.pandera)
    assert list(judge(data, parse((CREDIT / path).read_bytes(), path))) == []


def test_the_model_looks_at_neither_sex_nor_age_and_imports_nothing_of_ours(spec):
    for name in ("train.py", "features.py"):
        assert name in spec.source.paths
        text = (CREDIT / name).read_text()
        modules = {
            (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Import | ast.ImportFrom)
        }
        assert not any(m.startswith(("controller", "mainspring")) for m in modules)
        assert not re.search(r'"(sex|age)"', text)


@pytest.mark.parametrize(
    ("variant", "file"), [("worse", "features.py"), ("unfair", "features.py"), ("better", "train.py")]
)
def test_a_variant_applies_and_changes_one_file_that_makes_a_revision(variant, file, tmp_path):
    for name in ("train.py", "features.py"):
        shutil.copy(CREDIT / name, tmp_path)
    subprocess.run(["git", "apply", str(CREDIT / "variants" / f"{variant}.patch")], cwd=tmp_path, check=True)
    changed = [n for n in ("train.py", "features.py") if (tmp_path / n).read_text() != (CREDIT / n).read_text()]
    assert changed == [file]
    compile((tmp_path / file).read_text(), file, "exec")


def test_the_measured_table_tells_the_story_of_the_gates(spec):
    table = (CREDIT / "README.md").read_text().partition("<!-- measured -->\n")[2].partition("<!--")[0]
    rows = {
        cells[0]: cells for line in table.splitlines()[2:] if (cells := [c.strip() for c in line.split("|")][1:-1])
    }
    floor = next(g.min for g in spec.gates if g.metric == "roc_auc" and g.min)
    most = next(g.max for g in spec.gates if g.fairness)
    auc = {name: float(cells[1]) for name, cells in rows.items()}
    difference = {name: float(cells[5]) for name, cells in rows.items()}
    assert auc["worse"] < floor < auc["base"] < auc["unfair"] < auc["better"]
    assert max(difference["base"], difference["better"]) < most < difference["unfair"]


def test_the_licence_and_the_authors_of_the_data_are_named():
    text = (CREDIT / "DATA.md").read_text()
    for needed in ("CC BY 4.0", "Hofmann", "10.24432/C5NC77", "Database Contents License", "Grömping", "Changed"):
        assert needed in text
