"""Every action in words: a sign, its name, on what, and why.

The second reader of a plan; `reconcile/apply.py` is the first.  Both end their `match` with `assert_never`, so
that the type checker names the reader that forgot an action.  Decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from controller.plan import actions as a
from controller.plan.actions import Action


@dataclass(frozen=True, slots=True)
class Step:
    """One action in words: its sign (`+` new, `~` changed, `-` gone), its name, on what, and why."""

    sign: str
    action: str
    what: str
    reason: str
    message: str

    def __str__(self) -> str:
        """Write it as one line."""
        return f"{self.sign} {self.action} {self.what} because {self.reason}: {self.message}"


def step_of(action: Action, present: set[str]) -> Step:
    """Put an action into words.

    Args:
        action: of a plan.
        present: names of the servers, Services and routes that exist.
    """
    sign, what = _words(action, present)
    return Step(sign, type(action).__name__, what, action.why.reason, action.why.message)


def _words(action: Action, present: set[str]) -> tuple[str, str]:
    match action:
        case a.CreateRevision():
            return "+", action.manifest["metadata"]["name"]
        case a.StartTraining():
            return "+", f"{action.manifest['metadata']['name']} (attempt {action.attempt})"
        case a.CloseRun():
            return "~", f"run of {action.revision}, attempt {action.attempt}, ends as {action.status}"
        case a.RegisterVersion():
            return "+", f"{action.registry_name}, from run {action.run}"
        case a.RecordVerdict():
            return "+", f"{action.entry.kind} {action.entry.revision} (entry {action.entry.seq})"
        case a.ApplyManifest():
            name = action.manifest["metadata"]["name"]
            return "~" if name in present else "+", f"{action.manifest['kind']} {name}"
        case a.SetWeights():
            shares = ", ".join(f"{n} {w}%" for n, w in action.weights.items())
            return "~" if action.manifest["metadata"]["name"] in present else "+", shares
        case a.DeleteManifest():
            return "-", f"{action.key.kind} {action.key.name}"
        case a.ExpireJob():
            return "~", f"{action.key.name} is deleted after {action.after_s} s"
        case a.SetAlias():
            return "~", f"{action.alias} → version {action.version} of {action.registry_name}"
        case a.ApplyModelSpec():
            return "+" if action.why.reason == "New" else "~", f"ModelSpec {action.manifest['metadata']['name']}"
        case _:
            assert_never(action)
