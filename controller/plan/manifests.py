"""The objects that a decision wants for a training: the Job with its steps, the tasks, the revision.

Pure builders.  Who sees what is decided here, by the volumes that a container mounts: the trainer never sees a
hold-out row, the model never a label, the evaluator never runs code of the user.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from controller.api import reports
from controller.api.kinds import ModelRevision, ModelSpec
from controller.api.meta import (
    API_VERSIONS,
    GROUP,
    LABEL_MODEL,
    LABEL_REVISION,
    Manifest,
    owner_reference,
)
from controller.api.modelspec import Training
from controller.plan import naming, pods
from controller.plan.pods import JOBS_IMAGE, NO_SECRETS, PLAIN, SERVER_IMAGE, PodSecrets, PodSettings

STEPS: Final = ("fetch", "train", "predict-champion", "predict", "evaluate")
LABEL_QUEUE: Final = "kueue.x-k8s.io/queue-name"

ANNOTATION_CHECKS: Final = f"{GROUP}/checks"
"""On Jobs: hash of the data checks that they apply."""
ANNOTATION_AGAINST: Final = f"{GROUP}/against"
"""On Jobs: digest of the champion that they compare with; empty without one."""
ANNOTATION_MEASURES: Final = f"{GROUP}/measures"
"""On Jobs: hash of what they measure besides the metrics on all rows."""
ONE_THREAD: Final = [{"name": "OMP_NUM_THREADS", "value": "1"}]
"""A row is predicted by one thread: several spin for each other's sake and multiply the latency under load."""

_MOUNTS: Final[dict[str, dict[str, tuple[str, bool]]]] = {
    "fetch": {
        "work": (reports.WORK, False),
        "data": (reports.EXTRA_DATA, False),
        "inputs": (reports.INPUTS, False),
        "code": (reports.CODE, False),
        "features": (reports.FEATURES, False),
        "labels": (reports.LABELS, False),
        "champion": (reports.CHAMPION, False),
    },
    "train": {
        "work": (reports.WORK, False),
        "data": (reports.EXTRA_DATA, True),
        "inputs": (reports.INPUTS, True),
        "output": (reports.OUTPUT, False),
    },
    "predict-champion": {
        "features": (reports.FEATURES, True),
        "champion": (reports.CHAMPION, True),
        "predictions-champion": (reports.PREDICTIONS_CHAMPION, False),
    },
    "predict": {
        "features": (reports.FEATURES, True),
        "output": (reports.OUTPUT, True),
        "code": (reports.CODE, True),
        "predictions": (reports.PREDICTIONS, False),
    },
    "evaluate": {
        "labels": (reports.LABELS, True),
        "features": (reports.FEATURES, True),
        "output": (reports.OUTPUT, True),
        "code": (reports.CODE, True),
        "predictions": (reports.PREDICTIONS, True),
        "predictions-champion": (reports.PREDICTIONS_CHAMPION, True),
    },
}
"""Volume → (mount path, read only) of each container."""


def training_job(
    revision: ModelRevision,
    owner: Manifest,
    *,
    attempt: int,
    deadline_s: int,
    tracking_uri: str,
    champion: str,
    checks: str,
    measures: str = "",
    evaluate_only: bool = False,
    wanted: Training | None = None,
    settings: PodSettings = PLAIN,
    runtime: str = "",
    secrets: PodSecrets = NO_SECRETS,
) -> Manifest:
    """Build the Job of one attempt. Its tasks are in a ConfigMap of the same name, one key per container.

    Args:
        revision: what is trained.
        owner: its object.
        attempt: 1 for the first.
        deadline_s: longest time of the whole Job.
        tracking_uri: MLflow.
        champion: digest of the one to compare with, empty without one; kept on the Job.
        checks: hash of the data checks, kept on the Job.
        measures: hash of what the gates ask for besides, kept on the Job.
        evaluate_only: `fetch` brings the trained model instead of a training.
        wanted: resources, queue and nodes, as the ModelSpec asks now.
        settings: the operator's, for pods.
        runtime: image of the predict steps on a cluster.
        secrets: what its steps log in with on a cluster.
    """
    spec, name = revision.spec, naming.job_name(revision.metadata.name, attempt, evaluate_only=evaluate_only)
    left_out = {"train"} if evaluate_only else set()
    left_out |= set() if champion else {"predict-champion"}
    steps = [s for s in STEPS if s not in left_out]
    containers = [_step(s, revision, tracking_uri, evaluate_only) for s in steps]
    volumes = sorted({v for s in steps for v in _MOUNTS[s]})
    labels = naming.labels(spec.model, revision.metadata.name)
    pod = _plain_job(name, containers, volumes)
    limits: Manifest = {}
    if settings.hardened:
        limits = {"podFailurePolicy": pods.FAILURE_POLICY, "podReplacementPolicy": "Failed"}
        pod = _cluster_job(pod, wanted, settings, runtime, secrets)
    queue = {LABEL_QUEUE: wanted.queue_name} if wanted and wanted.queue_name and settings.hardened else {}
    metadata = meta(name, revision.metadata.namespace, {**labels, **queue}, owner)
    asked = {ANNOTATION_CHECKS: checks, ANNOTATION_AGAINST: champion, ANNOTATION_MEASURES: measures}
    return {
        "apiVersion": API_VERSIONS["Job"],
        "kind": "Job",
        "metadata": {**metadata, "annotations": asked},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": deadline_s,
            **limits,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _plain_job(name: str, containers: list[Manifest], volumes: list[str]) -> Manifest:
    empty: list[Manifest] = [{"name": v, "emptyDir": {}} for v in volumes]
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "initContainers": containers[:-1],
        "containers": containers[-1:],
        "volumes": [*empty, {"name": "tasks", "configMap": {"name": name}}],
    }


def _cluster_job(
    pod: Manifest, wanted: Training | None, settings: PodSettings, runtime: str, secrets: PodSecrets
) -> Manifest:
    template, main = (wanted.template, wanted.resources) if wanted else (None, None)
    return pods.harden(pod, settings, template=template, main=main, runtime=runtime, secrets=secrets)


def task_map(job: Manifest, tasks: Mapping[str, str]) -> Manifest:
    """Build the immutable ConfigMap that holds the tasks of a Job: its name, labels and owner are the Job's."""
    meta = job["metadata"]
    return {
        "apiVersion": API_VERSIONS["ConfigMap"],
        "kind": "ConfigMap",
        "metadata": {k: meta[k] for k in ("name", "namespace", "labels", "ownerReferences")},
        "immutable": True,
        "data": dict(tasks),
    }


def _step(step: str, revision: ModelRevision, tracking_uri: str, evaluate_only: bool) -> Manifest:
    mounts = [
        {"name": volume, "mountPath": path, **({"readOnly": True} if read_only else {})}
        for volume, (path, read_only) in _MOUNTS[step].items()
    ]
    command = _COMMANDS.get(step, [])
    if step == "fetch" and evaluate_only:
        mounts.append({"name": "output", "mountPath": reports.OUTPUT})
        command = [*command, "--output", reports.OUTPUT]
    if step == "train":
        return _train_step(revision, mounts)
    mounts.append({"name": "tasks", "mountPath": reports.TASK_FILE, "subPath": f"{step}.json", "readOnly": True})
    env = [{"name": "MLFLOW_TRACKING_URI", "value": tracking_uri}] if step in ("fetch", "evaluate") else ONE_THREAD
    return {
        "name": step,
        "image": JOBS_IMAGE if step in ("fetch", "evaluate") else SERVER_IMAGE,
        "command": command,
        "env": env,
        "volumeMounts": mounts,
    }


_COMMANDS: Final[dict[str, list[str]]] = {
    "fetch": ["python", "-m", "controller.jobs.fetch", "--task", reports.TASK_FILE]
    + ["--work", reports.WORK, "--data", reports.EXTRA_DATA, "--inputs", reports.INPUTS]
    + ["--features", reports.FEATURES, "--labels", reports.LABELS, "--champion", reports.CHAMPION]
    + ["--code", reports.CODE],
    "predict-champion": ["python", "-m", "controller.serving.predict", "--task", reports.TASK_FILE]
    + ["--model", reports.CHAMPION, "--features", reports.FEATURES, "--out", reports.PREDICTIONS_CHAMPION],
    "predict": ["python", "-m", "controller.serving.predict", "--task", reports.TASK_FILE]
    + ["--model", reports.OUTPUT, "--features", reports.FEATURES, "--out", reports.PREDICTIONS]
    + ["--code", reports.CODE],
    "evaluate": ["python", "-m", "controller.jobs.evaluate", "--task", reports.TASK_FILE]
    + ["--labels", reports.LABELS, "--output", reports.OUTPUT, "--predictions", reports.PREDICTIONS]
    + ["--predictions-champion", reports.PREDICTIONS_CHAMPION, "--features", reports.FEATURES]
    + ["--code", reports.CODE],
}


def _train_step(revision: ModelRevision, mounts: list[Manifest]) -> Manifest:
    training = revision.spec.training
    env = [{"name": e.name, "value": e.value} for e in training.env]
    for dataset in revision.spec.data:
        if dataset.name == "holdout":
            continue
        place = f"{reports.WORK}/{dataset.path}" if dataset.path else f"{reports.EXTRA_DATA}/{_uri_file(dataset)}"
        env.append({"name": f"MAINSPRING_DATA_{dataset.name.upper().replace('-', '_')}", "value": place})
    env += [
        {"name": "MAINSPRING_PARAMS", "value": f"{reports.INPUTS}/params.json"},
        {"name": "MAINSPRING_SEED", "value": str(training.seed)},
        {"name": "MAINSPRING_OUTPUT", "value": reports.OUTPUT},
        {"name": "MLFLOW_TRACKING_URI", "value": f"sqlite:///{reports.OUTPUT}/mlflow/mlflow.db"},
    ]
    return {
        "name": "train",
        "image": training.image or JOBS_IMAGE,
        "command": list(training.command),
        "workingDir": reports.WORK,
        # Its last line says why it failed; nobody has to look for a log to know.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "env": env,
        "volumeMounts": mounts,
    }


def _uri_file(dataset: Any) -> str:
    suffix = "parquet" if str(dataset.uri).endswith(".parquet") else "csv"
    return f"{dataset.name}.{suffix}"


def revision_object(model: ModelSpec, owner: Manifest, name: str, spec: Mapping[str, Any]) -> Manifest:
    """Build a ModelRevision; the ModelSpec owns it."""
    return {
        "apiVersion": API_VERSIONS["ModelRevision"],
        "kind": "ModelRevision",
        "metadata": meta(
            name, model.metadata.namespace, {LABEL_MODEL: model.metadata.name, LABEL_REVISION: name}, owner
        ),
        "spec": dict(spec),
    }


def meta(name: str, namespace: str, labels: Mapping[str, str], owner: Manifest) -> Manifest:
    """Build the metadata of an object of ours: its owner is its controller."""
    return {
        "name": name,
        "namespace": namespace,
        "labels": dict(labels),
        "ownerReferences": [owner_reference(owner)],
    }
