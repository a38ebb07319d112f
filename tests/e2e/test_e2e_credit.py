"""The second example, played as its README tells it: data by DVC, refused for one group of people, then better."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.support.git_repos import Scratch
from tests.support.local_mode import Local, condition

CREDIT = Path(__file__).parents[2] / "examples" / "credit"
LEFT_OUT = ("make_data.py", "measure.py", "variants", "data/.gitignore")

SLOWEST_S = 300.0
"""Longest wait for one commit: three models are trained, judged and served, perhaps on a busy machine."""


def files(folder: Path, url: str) -> dict[str, bytes]:
    """Read the example as it would be committed; faster to look and to step, otherwise as it is."""
    found = {}
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = str(file.relative_to(folder))
        if not name.startswith(LEFT_OUT) and "__pycache__" not in name:
            found[name] = file.read_bytes()
    text = found.pop("model.yaml").decode().replace("https://git.example.com/team/credit.git", url)
    text = text.replace("interval: 1m\n  data", "interval: 1s\n  data").replace("interval: 1m", "interval: 1s")
    return {**found, "deploy/model.yaml": text.encode()}


def variant(name: str, where: Path) -> Path:
    """Copy the example with one of its patches applied."""
    folder = where / name
    shutil.copytree(CREDIT, folder)
    patch = folder / "variants" / f"{name}.patch"
    subprocess.run(["git", "apply", str(patch)], cwd=folder, check=True)
    return folder


def test_credit_is_pulled_by_dvc_refused_when_unfair_and_promoted_when_better(
    local: Local, repository: Scratch, tmp_path: Path
):
    commit = repository.commit(files(CREDIT, repository.url))
    local.start("--repo", str(repository.path), "--path", "deploy", "--interval", "1s")

    first = local.until_condition("Succeeded", name="credit", commit=commit, timeout_s=SLOWEST_S)

    served = first["status"]["champion"]
    (revision,) = local.all("ModelRevision")
    md5 = (CREDIT / "data/credit.csv.dvc").read_text().partition("md5: ")[2].split()[0]
    pinned = {"name": "train", "path": "data/credit.csv", "pointer": "data/credit.csv.dvc"}
    assert revision["spec"]["data"] == [{**pinned, "digest": f"md5:{md5}"}]
    assert revision["status"]["evidence"]["holdoutRows"] == 322

    commit = repository.commit(files(variant("unfair", tmp_path), repository.url))
    second = local.until_condition("GateFailed", name="credit", commit=commit, timeout_s=SLOWEST_S)

    assert "gate equal-opportunity: " in condition(second, "Ready")["message"]
    assert second["status"]["champion"]["digest"] == served["digest"]

    commit = repository.commit(files(variant("better", tmp_path), repository.url))
    third = local.until_condition("Succeeded", name="credit", commit=commit, timeout_s=SLOWEST_S)

    assert third["status"]["champion"]["digest"] != served["digest"]
