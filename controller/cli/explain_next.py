"""The next command to type, by how an object stands.

One command, never a list to choose from, with a few words on why behind `#`.  Pure: facts in, a line out.
"""

from __future__ import annotations

import json

from controller.api.conditions import STALLED, find
from controller.api.kinds import ModelOverride, ModelRepository, ModelRevision, ModelSpec, parse
from controller.cli.explain_text import Facts
from controller.cli.target import spoken

ROW_MOST = 4
"""Most columns of a row that is typed by hand."""


def next_command(facts: Facts) -> str:
    """Say what to type next, with a few words on why after `#`."""
    parsed = parse(facts.manifest)
    meta = facts.manifest["metadata"]
    name = spoken(facts.manifest["kind"], meta["name"])
    flag = "" if meta["namespace"] == "default" else f" -n {meta['namespace']}"
    if isinstance(parsed, tuple):
        return "mainspring validate FILE   # correct the object's file, then mainspring apply -f FILE"
    if parsed.status.observed_generation < 0:
        return "mainspring up   # nobody has looked at the object yet"
    if isinstance(parsed, ModelOverride):
        return f"mainspring explain modelspec/{parsed.spec.model_ref.name}{flag}   # what serves because of it"
    if not isinstance(parsed, ModelRevision) and parsed.spec.suspend:
        return f"mainspring resume {name}{flag}"
    if isinstance(parsed, ModelSpec):
        return _of_model(facts, parsed, name, flag)
    if isinstance(parsed, ModelRevision):
        return _of_revision(parsed, name, flag)
    return _of_repository(parsed, name, flag)


def _of_model(facts: Facts, model: ModelSpec, name: str, flag: str) -> str:
    stalled = find(model.status.conditions, STALLED)
    if facts.log is not None:
        return f"mainspring logs {name} --step {facts.log.step}{flag}"
    if stalled is not None:
        if stalled.reason in ("GateFailed", "GateInconclusive"):
            return (
                f"mainspring history {model.metadata.name}{flag}   # then push a better commit, or change the gate"
            )
        if stalled.reason == "Overridden":
            return f"mainspring rollback {model.metadata.name} --end{flag}   # or change Git, so that both agree"
        return f"mainspring reconcile {name}{flag}   # tries again, once the cause is mended"
    if model.status.stage == "Training":
        return f"mainspring logs {name}{flag}"
    if model.status.champion is not None and model.status.stage == "Serving":
        return f"mainspring predict {model.metadata.name} {_rows(model)}{flag}"
    return f"mainspring get {name} --watch{flag}"


def _rows(model: ModelSpec) -> str:
    """Show how rows are given: by name where the checks tell the columns, else as a file."""
    schemas = [c.schema_.columns for c in model.spec.checks if c.schema_ is not None]
    columns = [
        c for c in (schemas[0] if schemas else ()) if c not in (model.spec.columns.target, model.spec.columns.id)
    ]
    row = json.dumps(dict.fromkeys(columns, "…"), ensure_ascii=False)
    return f"--row '{row}'" if 0 < len(columns) <= ROW_MOST and "'" not in row else "--data rows.csv"


def _of_revision(revision: ModelRevision, name: str, flag: str) -> str:
    if find(revision.status.conditions, STALLED) is not None:
        return f"mainspring logs {name}{flag}"
    if revision.status.evidence is None:
        return f"mainspring logs {name}{flag}"
    return f"mainspring explain modelspec/{revision.spec.model}{flag}   # whether it may serve"


def _of_repository(repository: ModelRepository, name: str, flag: str) -> str:
    if any(p.severity == "Error" for p in repository.status.problems):
        return "mainspring validate   # in a clone of the repository; then push"
    if find(repository.status.conditions, STALLED) is not None:
        return f"mainspring reconcile {name}{flag}   # tries again, once the cause is mended"
    return f"mainspring get modelspec{flag}"
