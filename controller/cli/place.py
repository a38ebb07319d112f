"""Where a verb works: on the local state directory, or on a cluster; and the options that say so.

What is named wins: `--kubeconfig` or `--context` means a cluster, `--state` the local state.  Else `kubectl
mainspring` works on the cluster; `mainspring` on the state directory if there is one, and on the cluster of
KUBECONFIG, of the pod or of the user's kubeconfig if not.  Reads no kubeconfig and imports nothing heavy.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from controller.cli.errors import USAGE, Failure

TOKEN: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_CHOSEN: ContextVar[Place | None] = ContextVar("place", default=None)
Kubeconfig = Annotated[
    Path | None,
    typer.Option("--kubeconfig", help="Work on the cluster of this kubeconfig, not on a state directory."),
]
Context = Annotated[
    str | None, typer.Option("--context", help="Work on the cluster of this context of the kubeconfig.")
]
ONLY_LOCAL: Final = frozenset({"up"})
"""Verbs that keep a state directory of their own."""


@dataclass(frozen=True, slots=True)
class Place:
    """Local state or cluster."""

    kind: Literal["local", "cluster"]
    state: Path
    kubeconfig: Path | None = None
    context: str | None = None
    why: str = ""
    """What decided, in words; empty where there was no choice."""

    def __str__(self) -> str:
        """Say which it is, for errors."""
        if self.kind == "local":
            return f"the local state {self.state}"
        named = f"context {self.context} of " if self.context else ""
        return f"the cluster of {named}{self.kubeconfig or 'KUBECONFIG, the pod or the user'}"


def as_plugin(program: str | None = None) -> bool:
    """Tell whether this is `kubectl mainspring`."""
    return Path(program or sys.argv[0]).name.startswith("kubectl-")


def choose(
    state: Path,
    *,
    given: str,
    kubeconfig: Path | None,
    context: str | None,
    plugin: bool,
    env: Mapping[str, str] = os.environ,
) -> Place:
    """Decide where to work.

    Args:
        state: the state directory.
        given: who said so: `--state`, `MAINSPRING_STATE`, or empty for the default.
        kubeconfig: of the option.
        context: of the option.
        plugin: whether this is `kubectl mainspring`.
        env: the environment.

    Raises:
        Failure: both were named. Exit code 2.
    """
    named = kubeconfig is not None or context is not None
    if named and given == "--state":
        raise Failure("give --state for the local state, or --kubeconfig and --context, not both", code=USAGE)
    if named:
        return Place("cluster", state, kubeconfig, context, "it was named")
    if given:
        return Place("local", state, why=f"{given} names it")
    if plugin:
        return Place("cluster", state, why="kubectl asks")
    if (state / "objects.db").exists():
        return Place("local", state, why="it is there; --context chooses a cluster")
    if has_cluster(env):
        return Place("cluster", state, why=f"there is no local state {state}")
    return Place("local", state)


def has_cluster(env: Mapping[str, str]) -> bool:
    """Tell whether credentials of a cluster lie where they are looked for."""
    if env.get("KUBECONFIG") or (env.get("KUBERNETES_SERVICE_HOST") and TOKEN.is_file()):
        return True
    home = env.get("HOME")
    return bool(home) and (Path(str(home)) / ".kube" / "config").is_file()


def offered(verb: str, function: Callable[..., None]) -> Callable[..., None]:
    """Give a verb that works on objects the options of a cluster, and decide before it runs."""
    inner = inspect.signature(function, eval_str=True)
    if verb in ONLY_LOCAL or "state" not in inner.parameters:
        return function

    def placed(ctx: typer.Context, **values: Any) -> None:
        sources = {"COMMANDLINE": "--state", "ENVIRONMENT": "MAINSPRING_STATE"}
        chosen = choose(
            values["state"],
            given=sources.get(_source(ctx, "state"), ""),
            kubeconfig=values.pop("kubeconfig"),
            context=values.pop("context"),
            plugin=as_plugin(),
        )
        if chosen.kind == "cluster" and "namespace" in values and _source(ctx, "namespace") == "DEFAULT":
            values["namespace"] = _namespace(chosen)
        token = _CHOSEN.set(chosen)
        try:
            function(**values)
        finally:
            _CHOSEN.reset(token)

    more = [
        inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
        inspect.Parameter("kubeconfig", inspect.Parameter.KEYWORD_ONLY, annotation=Kubeconfig, default=None),
        inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=Context, default=None),
    ]
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in inner.parameters.values()]
    placed.__signature__ = inner.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
    placed.__annotations__ = {p.name: p.annotation for p in (*own, *more)}
    placed.__doc__ = function.__doc__
    return placed


def current(state: Path) -> Place:
    """Return what was decided for the running verb; the local state outside of the command line."""
    return _CHOSEN.get() or Place("local", state)


def _source(ctx: Any, name: str) -> str:
    source = ctx.get_parameter_source(name)
    return source.name if source is not None else "DEFAULT"


def _namespace(place: Place) -> str:
    """Read the namespace that the context or the pod names."""
    from controller.clients.kube_login import default_namespace

    return default_namespace(place.kubeconfig, place.context)
