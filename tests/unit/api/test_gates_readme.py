"""The gates that the README shows are right, and each kind of gate is among them."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from controller.api.gates import Gate

README = Path(__file__).parents[3] / "README.md"
KINDS = ("min", "champion", "baseline", "slices", "fairness", "probe", "report", "cel", "from_", "dry_run")


def test_the_gates_of_the_readme_are_right_and_show_every_kind() -> None:
    block = re.search(r"\*\*A gate\*\*.*?```yaml\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    gates = [Gate.model_validate(g) for g in yaml.safe_load(block[1])["gates"]]
    assert [k for k in KINDS if not any(getattr(g, k) is not None for g in gates)] == []
