"""Builds what each step of a training Job is told.  No secret, and to each step only what it needs."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from controller.api import git_rules
from controller.api.base import dump
from controller.api.gates import task_of_gates
from controller.api.kinds import ModelRevision, ModelSpec
from controller.api.metrics import Task
from controller.api.modelrevision import ModelRevisionStatus
from controller.api.reports import ArtifactRef, EvaluateTask, FetchTask, KnownOutput, PredictTask
from controller.plan.observed import RevisionSeen
from controller.plan.pinning import checks_hash, measures
from controller.plan.pods import PodSecrets

DEFAULT_PROBE_REQUESTS = 200
"""How many single requests are timed when no gate says otherwise."""


def for_job(seen: RevisionSeen, model: ModelSpec, *, evaluate_only: bool) -> dict[str, dict[str, Any]]:
    """Build the tasks of a Job, by step; the run of `evaluate` is filled in once it exists.

    Args:
        seen: the revision, and the champion to compare with.
        model: the ModelSpec, for what is in no hash of the inputs: checks and gates.
        evaluate_only: the trained model is fetched and measured again; nothing is trained.
    """
    trained = seen.revision.status
    own: ArtifactRef | None = None
    if evaluate_only and trained.artifact is not None:
        own = ArtifactRef(run=trained.run, digest=trained.artifact.digest)
    spec, champion = seen.revision.spec, seen.champion
    ref: ArtifactRef | None = None
    if champion is not None and champion.status.artifact is not None:
        ref = ArtifactRef(run=champion.status.run, digest=champion.status.artifact.digest)
    measured = champion.status.evidence if champion is not None else None
    task = gate_task(model)
    fetch = FetchTask(
        source=spec.source,
        data=spec.data,
        columns=spec.columns,
        holdout=spec.holdout,
        checks=model.spec.checks,
        params=spec.training.params,
        command=spec.training.command,
        champion=ref,
        champion_data=champion.spec.data if ref and champion else (),
        champion_source=champion.spec.source if ref and champion else None,
        champion_columns=champion.spec.columns if ref and champion else None,
        champion_holdout=champion.spec.holdout if ref and champion else None,
        champion_rows=measured.training_rows + measured.holdout_rows if measured else None,
        artifact=own,
        pinned_at=seen.revision.metadata.creation_timestamp,
    )
    requests = max((g.probe.requests for g in model.spec.gates if g.probe), default=DEFAULT_PROBE_REQUESTS)
    scores = task != "Regression"
    evaluate = EvaluateTask(
        tracking_uri=seen.tracking_uri,
        run="",
        revision=seen.revision.metadata.name,
        columns=spec.columns,
        holdout=spec.holdout,
        task=task,
        champion=ref.digest if ref else "",
        champion_name=champion.metadata.name if ref and champion else "",
        runtime=seen.runtime,
        checks_hash=checks_hash(model.spec),
        measures=measures(model.spec),
        known=_known(trained) if own else None,
    )
    built: dict[str, dict[str, Any]] = {
        "fetch": dump(fetch),
        "predict": dump(PredictTask(digest=own.digest if own else None, probe_requests=requests, scores=scores)),
        "evaluate": dump(evaluate),
    }
    if ref is not None:
        built["predict-champion"] = dump(PredictTask(digest=ref.digest, scores=scores))
    return built


def _known(trained: ModelRevisionStatus) -> KnownOutput | None:
    """Hand on what was read of the training's output: an evaluate-only Job has the model alone."""
    evidence = trained.evidence
    if evidence is None:
        return None
    return KnownOutput(scans=evidence.scans, trainer=evidence.trainer, trainer_note=evidence.trainer_note)


def secrets(revision: ModelRevision, model: ModelSpec) -> PodSecrets:
    """Say which Secrets a Job mounts: those that the ModelSpec names now; another name moves no revision.

    A revision may come from a server that the ModelSpec has left since: that one never gets the new one's login.
    """
    spec = model.spec
    git = spec.source.secret_ref
    same = git_rules.server_of(spec.source.url) == git_rules.server_of(revision.spec.source.url)
    pinned = {d.name: d for d in revision.spec.data}
    data = {
        d.name: d.secret_ref.name
        for d in spec.data
        if d.secret_ref is not None
        and d.name in pinned
        and urlsplit(d.uri or "")[:2] == urlsplit(pinned[d.name].uri or "")[:2]
    }
    return PodSecrets(registry=spec.registry_secret, git=git.name if git and same else "", data=data)


def gate_task(model: ModelSpec) -> Task | None:
    """Say which part of the metric table the gates use; None when they name no metric."""
    return next(iter(task_of_gates(model.spec.gates)), None)
