"""The example is what it says: a valid spec, data that fits, programs that know nothing of us, clean patches."""

from __future__ import annotations

import ast
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import yaml

from controller.api.modelspec import ModelSpecSpec

BIKES = Path(__file__).parents[3] / "examples" / "bikes"


@pytest.fixture(scope="module")
def spec():
    return ModelSpecSpec.model_validate(yaml.safe_load((BIKES / "model.yaml").read_text())["spec"])


def test_the_data_has_the_columns_that_the_spec_names(spec):
    data = pd.read_csv(BIKES / spec.data[0].path)
    named = next(c for c in spec.checks if c.schema_).schema_.columns
    assert set(data.columns) == {*named, spec.columns.target}
    assert data[spec.columns.time].is_unique
    assert data[spec.columns.time].is_monotonic_increasing
    assert len(data) >= next(c for c in spec.checks if c.min_rows).min_rows


def test_the_selected_files_are_there_and_import_nothing_of_ours(spec):
    for name in spec.source.paths:
        text = (BIKES / name).read_text()
        assert len(text.splitlines()) < 60
        imported = {
            (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Import | ast.ImportFrom)
        }
        assert not any(module.startswith(("controller", "mainspring")) for module in imported)


@pytest.mark.parametrize("variant", ["worse", "better"])
def test_a_variant_applies_and_changes_a_file_that_makes_a_revision(spec, variant, tmp_path):
    for name in spec.source.paths:
        shutil.copy(BIKES / name, tmp_path)
    patch = BIKES / "variants" / f"{variant}.patch"
    subprocess.run(["git", "apply", str(patch)], cwd=tmp_path, check=True)
    changed = [n for n in spec.source.paths if (tmp_path / n).read_text() != (BIKES / n).read_text()]
    assert changed == ["features.py"]
    compile((tmp_path / "features.py").read_text(), "features.py", "exec")


def test_the_licence_and_the_authors_of_the_data_are_named():
    text = (BIKES / "DATA.md").read_text()
    for needed in ("CC BY 4.0", "Fanaee-T", "Gama", "10.24432/C5W894", "Changed"):
        assert needed in text
