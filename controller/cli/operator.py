"""`mainspring operator`: the process that reconciles on a cluster, in the foreground.

Its settings are variables `MAINSPRING_*` (docs/settings.md); only where the cluster is may be said as an option.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def operator_command(
    kubeconfig: Annotated[
        Path | None, typer.Option("--kubeconfig", help="Kubeconfig file; in a pod its service account is used.")
    ] = None,
    context: Annotated[str | None, typer.Option("--context", help="Context of the kubeconfig.")] = None,
) -> None:
    """Run the operator of a cluster; its settings are MAINSPRING_*."""
    from controller.reconcile.process import main

    raise typer.Exit(main(kubeconfig, context))
