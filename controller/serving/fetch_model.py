"""The `fetch-model` init container: bring a revision's files and its lineage from its MLflow run, and check both.

The only container of a server's pod with credentials; it loads nothing.  A model counts when a trusted key has
signed that its digest was admitted or judged, and its files have that digest.  What was fetched before and still
holds is kept, so a server that restarts does not need MLflow.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Final, Protocol

from controller.clients import artifacts, credentials
from controller.clients.errors import Denied, NotFound
from controller.clients.signing import ENVELOPE_MAX_BYTES
from controller.serving import lineage, step

SAMPLE: Final = "mainspring/sample.json"
"""Artifact of a run: a request body of one row, for the first prediction of a server."""
SAMPLE_MAX_BYTES: Final = 1 << 20

log = logging.getLogger("mainspring.serving")


class Source(Protocol):
    """Where runs keep their files; `controller.clients.registry.Registry` is one."""

    async def download_model(self, run_id: str, dest: Path) -> int:
        """Store every file below `model` of a run in a directory and return how many."""

    async def read_artifact(self, run_id: str, path: str, limit: int = ...) -> bytes:
        """Read one file of a run."""


def main(argv: list[str] | None = None) -> int:
    """Run the step; returns the exit code.

    MLFLOW_TRACKING_URI says where; who is in the files below MAINSPRING_CREDENTIALS, else in
    MLFLOW_TRACKING_USERNAME, _PASSWORD, _TOKEN; MAINSPRING_TRUSTED_KEYS says whom to believe.
    """
    parser = argparse.ArgumentParser(prog="controller.serving.fetch_model")
    parser.add_argument("--run", required=True, help="MLflow run")
    parser.add_argument("--digest", required=True, help="sha256:<64 hex> of the manifest")
    parser.add_argument("--out", type=Path, required=True, help="directory for model/ and sample.json")
    given = parser.parse_args(argv)
    return step.run("fetch-model", lambda: asyncio.run(_from_registry(given.run, given.digest, given.out)))


async def fetch_model(source: Source, run: str, digest: str, out: Path, keys: tuple[bytes, ...]) -> None:
    """Write `model/`, `lineage.json` and, where the run has one, `sample.json`.

    `model/` appears only once a trusted key vouches for the digest and the files have it.

    Args:
        source: where runs keep their files.
        run: MLflow run.
        digest: sha256:<64 hex> of the manifest.
        out: directory for all of it.
        keys: trusted public keys, 32 raw bytes each.

    Raises:
        Denied: LineageNotTrusted, ArtifactTampered. NotFound: ModelMissing. As the source raises.
    """
    target, arriving = out / "model", out / ".arriving"
    if _there(out, digest, keys):
        return
    shutil.rmtree(target, ignore_errors=True)
    envelope = await _statement(source, run)
    signed_by = lineage.check(envelope, digest, keys)
    shutil.rmtree(arriving, ignore_errors=True)
    arriving.mkdir(parents=True)
    try:
        count = await source.download_model(run, arriving)
        _verify(arriving, digest, run)
        artifacts.locate(arriving)
        sample = await _sample(source, run)
        if sample is not None:
            (out / "sample.json").write_bytes(sample)
        (out / "lineage.json").write_bytes(envelope)
        arriving.rename(target)
    finally:
        shutil.rmtree(arriving, ignore_errors=True)
    log.info("%d files of run %s have digest %s, signed by key %s", count, run, digest, signed_by[:12])


def _there(out: Path, digest: str, keys: tuple[bytes, ...]) -> bool:
    """Tell whether an earlier run of this step left everything, and all of it still holds."""
    try:
        artifacts.verify(out / "model", digest)
        lineage.check((out / "lineage.json").read_bytes(), digest, keys)
    except (Denied, NotFound, FileNotFoundError):
        return False
    return True


def _verify(arriving: Path, digest: str, run: str) -> None:
    try:
        artifacts.verify(arriving, digest)
    except Denied as error:
        raise Denied(
            f"the model of run {run} in the registry is not the one that was admitted: {error.message}. Restore "
            "the run's files from a backup, or push a change so that a new revision is trained",
            reason="ArtifactTampered",
        ) from None


async def _statement(source: Source, run: str) -> bytes:
    try:
        return await source.read_artifact(run, lineage.PATH, ENVELOPE_MAX_BYTES)
    except (NotFound, Denied) as error:
        raise Denied(
            f"run {run} has no signed lineage statement ({error.message}), so nobody vouches for its model: "
            "restore it from a backup, or push a change so that a new revision is trained",
            reason="LineageNotTrusted",
        ) from None


async def _sample(source: Source, run: str) -> bytes | None:
    try:
        return await source.read_artifact(run, SAMPLE, SAMPLE_MAX_BYTES)
    except (NotFound, Denied) as error:
        log.info("no sample request: %s", error.message)
        return None


async def _from_registry(run: str, digest: str, out: Path) -> None:
    from controller.clients.registry import Registry

    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        raise Denied(
            "MLFLOW_TRACKING_URI is not set: there is no registry to fetch from", reason="RegistryMissing"
        )
    keys = lineage.read_keys(os.environ.get(lineage.KEYS_ENV, ""))
    registry = Registry(uri, login=credentials.registry_here(os.environ))
    try:
        await fetch_model(registry, run, digest, out, keys)
    finally:
        await registry.aclose()


if __name__ == "__main__":
    sys.exit(main())
