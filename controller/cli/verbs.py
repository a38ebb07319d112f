"""The command lines of the verbs whose work is elsewhere: their options, and nothing else.

`up.py` does the work of `up`; it is imported when the verb runs, so that its help stays quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from controller.cli.session import DEFAULT_STATE, State

Data = Annotated[
    Path | None,
    typer.Option(
        "--data", envvar="MAINSPRING_DATA", help="Directory that keeps MLflow's store and the signing key."
    ),
]


def up_command(
    repo: Annotated[
        str | None, typer.Option("--repo", help="Git repository to sync ModelSpecs from: a path or a URL.")
    ] = None,
    branch: Annotated[str, typer.Option("--branch", help="Branch of --repo.")] = "main",
    path: Annotated[str, typer.Option("--path", help="Directory of the YAML files in --repo.")] = ".",
    interval: Annotated[str, typer.Option("--interval", help="How often --repo is looked at.")] = "5s",
    files: Annotated[
        list[Path] | None, typer.Option("--file", "-f", help="YAML file to apply at the start. Repeatable.")
    ] = None,
    git_root: Annotated[
        list[Path] | None,
        typer.Option("--git-root", help="Directory below which file: repositories may lie. Repeatable."),
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port for requests; 0: any.")] = 0,
    until_settled: Annotated[
        bool, typer.Option("--until-settled", help="End once everything is Ready (0) or Stalled (1).")
    ] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="With --until-settled: seconds.")] = 600.0,
    data: Data = None,
    state: State = DEFAULT_STATE,
) -> None:
    """Run local mode in the foreground: controller, jobs, servers, MLflow."""
    from controller.cli.up import up

    code = up(
        state=state,
        data=data,
        repo=repo,
        branch=branch,
        path=path,
        interval=interval,
        files=files or [],
        git_roots=git_root or [],
        port=port,
        until_settled=until_settled,
        timeout_s=timeout,
    )
    raise typer.Exit(code)
