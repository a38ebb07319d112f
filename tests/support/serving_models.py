"""What the tests of serving share: names of the formats, digests, layouts."""

from __future__ import annotations

from pathlib import Path

import joblib

from controller.clients import artifacts

FORMATS = ("joblib", "skops", "mlflow-cloudpickle", "mlflow-pickle", "mlflow-skops")


def digest_of(directory: Path) -> str:
    """Digest of the model that a directory holds."""
    found = artifacts.locate(directory)
    return artifacts.manifest_digest(artifacts.build_manifest(found.root, found.files))


def as_artifact(model, directory: Path) -> Path:
    """Save a model as fetch_model would lay it out."""
    (directory / "model").mkdir(parents=True)
    joblib.dump(model, directory / "model" / "model.joblib")
    return directory
