"""The last step of a training Job: from hold-out labels and predictions to the numbers that decide.

Computes every metric, compares with the champion on the same rows, checks that the files which predicted are
the files that are kept, and writes all of it to the MLflow run.  Never imports or runs the user's code and never
loads a model: whatever it reads from the earlier steps is data.  The report's digest goes out in the termination
message, so that nothing in the run can be changed unseen.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from controller.api import hashes, reports
from controller.api.base import dump
from controller.api.metrics import METRICS, QUANTILE_GRID
from controller.api.modelrevision import Artifact, Evidence, MetricEvidence, ProbeEvidence
from controller.api.reports import EvaluateTask, Facts, PredictFacts, Report, Termination
from controller.clients import artifacts, credentials
from controller.jobs import evaluate_inputs as inputs
from controller.jobs import evaluate_parts as parts
from controller.jobs.entry import WrongInput, read_task, run_step
from controller.jobs.evaluate_trainer import left_by_training, trainer_says
from controller.stats import bootstrap, metrics, profile
from controller.stats.metrics import Rows

ARTIFACT_PATH: Final = "mainspring"
"""Where report.json, manifest.json and trainer.json are in the run."""
COLUMNS_MAX: Final = 300
"""Most columns that are profiled."""
SAMPLE_MAX_BYTES: Final = 65_536
NOTES_MAX: Final = 20
"""Most notes kept."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Where the step finds what the earlier ones left; the defaults are those inside the pod."""

    labels: Path = Path(reports.LABELS)
    features: Path = Path(reports.FEATURES)
    output: Path = Path(reports.OUTPUT)
    predictions: Path = Path(reports.PREDICTIONS)
    predictions_champion: Path = Path(reports.PREDICTIONS_CHAMPION)
    code: Path = Path(reports.CODE)


class Runs(Protocol):
    """What the step needs of `clients.registry.Registry`; every method may raise the client errors."""

    async def upload(self, run_id: str, artifact_path: str, files: Mapping[str, bytes] | Path) -> None:
        """Store files below an artifact path of a run; again is harmless."""

    async def log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Write numbers into a run; again is harmless."""

    async def aclose(self) -> None:
        """Close the connections."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Both models on the same rows: the evidence per metric, and what to say about the comparison."""

    metrics: tuple[MetricEvidence, ...]
    challenger: Rows
    champion: Rows | None = None
    notes: tuple[str, ...] = ()


async def evaluate(task: EvaluateTask, paths: Paths, runs: Runs) -> Termination:
    """Do the step: read, measure, compare, hash, write to the run.

    Returns:
        The termination message: Done, the run, the sha256 of report.json.

    Raises:
        WrongInput: ModelMissing, PredictionsInvalid, ArtifactChanged, DataInvalid, TaskMismatch, ReportTooLarge.
        ClientError: the registry did not take it (Unavailable: worth trying again), or the model was refused.
        OSError, ValueError: our own files are not as they must be; worth trying again.
    """
    facts = inputs.read_facts(paths.labels)
    located = artifacts.locate(paths.output)
    labels = inputs.read_labels(paths.labels, task.columns, facts)
    inputs.check_order(paths.features, labels)
    found = inputs.read_predictions(paths.predictions, facts.holdout_rows)
    said = trainer_says(paths.output)
    kind = inputs.task_of(labels[task.columns.target], task.task, facts.task)
    judged = judge(task, kind, labels, found, paths.predictions_champion)
    with tempfile.TemporaryDirectory() as scratch:
        # What is uploaded is this copy, hashed while it was made: nothing can change in between.
        kept = Path(scratch)
        manifest = artifacts.assemble(located, paths.code, kept)
        artifact = _artifact(task, manifest, located.format, found.facts)
        report = Report(
            revision=task.revision,
            run=task.run,
            artifact=artifact,
            manifest=tuple((f.path, f.size, f.sha256) for f in manifest),
            evidence=_evidence(task, facts, kind, artifact, judged, found.facts).model_copy(
                update=_parts(task, paths, facts, labels, judged) | left_by_training(task, paths.output, said)
            ),
            packages=found.facts.packages,
            data_sha256=facts.data_sha256,
            profile=_profiles(paths, task, labels, found.values),
            notes=(*judged.notes, *said.notes)[:NOTES_MAX],
        )
        data = report_bytes(report)
        await runs.upload(task.run, "model", kept)
    await runs.log_metrics(task.run, {**said.metrics, **_numbers(report)})
    beside = {
        "manifest.json": hashes.canonical([[f.path, f.size, f.sha256] for f in manifest]),
        "trainer.json": hashes.canonical({"metrics": said.metrics, "params": said.params}),
    }
    sample = paths.predictions / "sample.json"
    if sample.is_file() and sample.stat().st_size <= SAMPLE_MAX_BYTES:
        # What a server proves itself with before it is ready: the first row of the hold-out.
        beside["sample.json"] = sample.read_bytes()
    await runs.upload(task.run, ARTIFACT_PATH, beside)
    # The report comes last: where it is, everything that it speaks of is there too.
    await runs.upload(task.run, ARTIFACT_PATH, {"report.json": data})
    for note in report.notes:
        sys.stdout.write(f"note: {note}\n")
    return Termination(outcome="Done", run=task.run, sha256=hashes.sha256(data))


def judge(
    task: EvaluateTask, kind: inputs.Task, labels: Any, found: inputs.Predictions, champion_directory: Path
) -> Judged:
    """Compute every metric of the task, and the improvement over the champion on the same rows.

    A champion without usable predictions leaves every comparison absent with a note; it never fails the step.

    Raises:
        WrongInput: the challenger's predictions are not usable.
    """
    target = labels[task.columns.target].reset_index(drop=True)
    champion: inputs.Predictions | None = None
    trouble = ""
    if task.champion:
        try:
            champion = inputs.read_predictions(champion_directory, len(labels))
            if champion.facts.digest != task.champion:
                raise WrongInput("PredictionsInvalid", "they come from another artifact than the champion's")
        except WrongInput as error:
            champion, trouble = None, error.message
    scored = [*found.scores, *(champion.scores if champion else ())]

    def rows_of(predictions: inputs.Predictions) -> Rows:
        if kind == "Regression":
            return inputs.numbers(target, predictions)
        return inputs.classes(target, predictions, inputs.encoding(target, task.columns.positive, scored))

    challenger_rows = rows_of(found)
    champion_rows: Rows | None = None
    if champion is not None:
        try:
            champion_rows = rows_of(champion)
        except WrongInput as error:
            trouble = error.message
    note = (
        f"no comparison: the champion {task.champion_name} has no usable predictions: {trouble}" if trouble else ""
    )
    evidence = _measured(task, kind, labels, challenger_rows, champion_rows, note)
    return Judged(evidence, challenger_rows, champion_rows, (note,) if note else ())


def _measured(
    task: EvaluateTask, kind: inputs.Task, labels: Any, challenger: Rows, champion: Rows | None, note: str
) -> tuple[MetricEvidence, ...]:
    names = [m.name for m in METRICS.values() if m.task == kind]
    gains: dict[str, bootstrap.Improvement] = {}
    if champion is not None:
        gains = bootstrap.compare(
            {n: METRICS[n].direction == "Higher" for n in names},
            challenger,
            champion,
            inputs.units(labels, task.columns, task.holdout, challenger),
            grid=QUANTILE_GRID,
            seed=task.seed,
            resamples=task.resamples,
        )
    out = []
    for name in names:
        value, why = metrics.value(name, challenger)
        other, other_why = metrics.value(name, champion) if champion is not None else (None, "")
        gain = gains.get(name)
        whys = [
            why,
            f"champion: {other_why}" if other_why else "",
            gain.note if gain and not (why or other_why) else "",
        ]
        out.append(
            MetricEvidence(
                name=name,
                value=value,
                champion=other,
                absolute=gain.absolute if gain else None,
                relative=gain.relative if gain else None,
                note="; ".join(w for w in [*whys, note] if w)[:300],
            )
        )
    return tuple(out)


def _artifact(
    task: EvaluateTask, manifest: tuple[artifacts.FileDigest, ...], written: str, predicted: PredictFacts
) -> Artifact:
    """Describe the model's files, if they are the ones that predicted.

    Raises:
        WrongInput: ArtifactChanged.
    """
    digest = artifacts.manifest_digest(manifest)
    if digest != predicted.digest:
        raise WrongInput(
            "ArtifactChanged",
            f"the model's {len(manifest)} files have digest {hashes.short(digest)}, but those that predicted had "
            f"{hashes.short(predicted.digest)}: they were changed in between",
        )
    size = sum(f.size for f in manifest)
    return Artifact(digest=digest, uri=f"mlflow:/{task.run}/model", format=written, size_bytes=size)


def _evidence(
    task: EvaluateTask,
    facts: Facts,
    kind: inputs.Task,
    artifact: Artifact,
    judged: Judged,
    predicted: PredictFacts,
) -> Evidence:
    times = (predicted.p50_ms, predicted.p95_ms, predicted.p99_ms)
    probe = None
    if predicted.requests > 0 and all(t is not None and t >= 0 for t in times):
        probe = ProbeEvidence(requests=predicted.requests, p50_ms=times[0], p95_ms=times[1], p99_ms=times[2])
    return Evidence(
        artifact=artifact.digest,
        holdout=facts.holdout_digest,
        champion=task.champion,
        runtime=task.runtime,
        checks_hash=task.checks_hash,
        task=kind,
        holdout_rows=facts.holdout_rows,
        training_rows=facts.training_rows,
        champion_seen_fraction=facts.champion_seen_rows / facts.holdout_rows if task.champion else 0.0,
        metrics=judged.metrics,
        checks=facts.checks,
        probe=probe,
        form=predicted.form,
        report="",
    )


def _parts(task: EvaluateTask, paths: Paths, facts: Facts, labels: Any, judged: Judged) -> dict[str, Any]:
    """Measure what is asked for besides the metrics on all rows."""
    target = labels[task.columns.target].reset_index(drop=True)
    return {
        "baselines": parts.baselines(target, task.columns, judged.challenger, facts.target),
        "slices": parts.by_slice(task, labels, paths.features, judged.challenger, judged.champion),
        "groups": parts.by_group(task, labels, paths.features, judged.challenger),
        "measures": task.measures.hash,
    }


def _profiles(paths: Paths, task: EvaluateTask, labels: Any, predictions: Any) -> dict[str, Any]:
    """Profile training sample and hold-out per column, the target and the predictions; never the ids."""
    import pandas as pd

    def columns(table: Any) -> dict[str, Any]:
        names = [c for c in table.columns if c != task.columns.id][:COLUMNS_MAX]
        return {str(c): profile.profile(table[c]) for c in names}

    training = paths.labels / "training.parquet"
    return {
        "training": columns(pd.read_parquet(training)) if training.is_file() else {},
        "holdout": columns(pd.read_parquet(paths.features / "features.parquet")),
        "target": profile.profile(labels[task.columns.target]),
        "prediction": profile.profile(predictions),
    }


def report_bytes(report: Report) -> bytes:
    """Write the report as canonical JSON of at most 1 MiB; profiles that do not fit are left out and noted.

    Raises:
        WrongInput: ReportTooLarge: the list of the model's files alone is too long.
    """
    data = hashes.canonical(dump(report))
    for left in ("holdout", "training"):
        if len(data) > reports.REPORT_MAX_BYTES:
            note = f"the profile of the {left} columns was left out: the report would have {len(data):,} bytes"
            report = report.model_copy(
                update={"profile": {**report.profile, left: {}}, "notes": (*report.notes, note)}
            )
            data = hashes.canonical(dump(report))
    if len(data) > reports.REPORT_MAX_BYTES:
        raise WrongInput(
            "ReportTooLarge",
            f"the report has {len(data):,} bytes for {len(report.manifest)} files of the model; at most "
            f"{reports.REPORT_MAX_BYTES:,} are read: leave a model of fewer files",
        )
    return data


def _numbers(report: Report) -> dict[str, float]:
    """Give our own numbers as the run shows them: bare names are the challenger's on the hold-out."""
    evidence = report.evidence
    out = {m.name: m.value for m in evidence.metrics if m.value is not None}
    out |= {f"champion.{m.name}": m.champion for m in evidence.metrics if m.champion is not None}
    if evidence.probe:
        out |= {"probe.p50_ms": evidence.probe.p50_ms, "probe.p95_ms": evidence.probe.p95_ms}
        out |= {"probe.p99_ms": evidence.probe.p99_ms}
    return {**out, "holdout_rows": float(evidence.holdout_rows), "model_bytes": float(report.artifact.size_bytes)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the step from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="evaluate", description="Measure a trained model on the hold-out.")
    parser.add_argument("--task", type=Path, default=Path(reports.TASK_FILE))
    for name, value in (
        ("labels", reports.LABELS),
        ("features", reports.FEATURES),
        ("output", reports.OUTPUT),
        ("predictions", reports.PREDICTIONS),
        ("predictions-champion", reports.PREDICTIONS_CHAMPION),
        ("code", reports.CODE),
    ):
        parser.add_argument(f"--{name}", type=Path, default=Path(value))
    given = parser.parse_args(arguments)
    paths = Paths(
        given.labels, given.features, given.output, given.predictions, given.predictions_champion, given.code
    )
    return run_step("evaluate", work(given.task, paths, _registry))


def _registry(tracking_uri: str) -> Runs:
    """Connect to MLflow with the login that is mounted, or that its own clients take from the environment."""
    from controller.clients.registry import Registry

    return Registry(tracking_uri, login=credentials.registry_here(os.environ))


def work(task_file: Path, paths: Paths, connect: Callable[[str], Runs]) -> Callable[[], Awaitable[Termination]]:
    """Give what `run_step` runs: read the task, connect to its MLflow server, evaluate."""

    async def do() -> Termination:
        task = read_task(task_file, EvaluateTask)
        runs = connect(task.tracking_uri)
        try:
            return await evaluate(task, paths, runs)
        finally:
            await runs.aclose()

    return do


if __name__ == "__main__":
    raise SystemExit(main())
