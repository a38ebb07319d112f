"""The five minutes that the README promises on a cluster, run as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cluster.build import built
from tests.cluster.node import Node
from tests.support.helm import binary
from tests.support.operator_process import ROOT


def commands() -> str:
    text = (ROOT / "README.md").read_text()
    found = re.search(r"<!-- cluster -->\n```\n(.*?)```\n<!-- /cluster -->", text, re.DOTALL)
    assert found, "the README shows the five minutes between its two marks"
    return found[1]


@pytest.mark.usefixtures("images")
def test_the_five_minutes_of_the_readme_end_with_a_served_model(node: Node, tmp_path: Path):
    tree, tools = tmp_path / "mainspring", tmp_path / "bin"
    for name in ("examples", "helm"):
        shutil.copytree(ROOT / name, tree / name)
    tools.mkdir()
    (tools / "helm").symlink_to(binary())
    (tools / "kubectl").write_text(f'#!/bin/sh\nexec {built() / "kube"} kubectl "$@"\n')
    (tools / "kubectl").chmod(0o755)
    script = f"set -e\ntrap 'kill $(jobs -p)' EXIT\n{commands()}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tree,
        env={
            "PATH": f"{tools}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "KUBECONFIG": str(node.plane.kubeconfig),
            "GIT_CONFIG_NOSYSTEM": "1",
        },
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    (model,) = [line for line in done.stdout.splitlines() if line.startswith("modelspec.mainspring.dev/bikes ")]
    assert model.split()[1] == "True", "column Ready"
