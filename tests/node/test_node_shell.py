"""What people find in the shell of `make cluster`: every tool at hand, and nothing of theirs touched."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.cluster.__main__ import tools


def test_the_shell_has_kubectl_helm_and_our_plugin_for_this_cluster(node, tmp_path):
    script = "kubectl get nodes --output=name; kubectl mainspring --version; helm version --short; echo ~"
    environment = {**os.environ, "HOME": str(tmp_path), **tools(node.plane.kubeconfig)}
    ran = subprocess.run(
        ["sh", "-c", script], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    said, version, helm, home = ran.stdout.splitlines()
    assert said == "node/node"
    assert version.startswith("mainspring ")
    assert helm.startswith("v3.")
    assert not (Path(home) / ".kube").exists()
