"""The `fetch-model` init container: bring a revision's files from its MLflow run, and check them by digest.

The only container of a server's pod with credentials; it loads nothing.  What was fetched before and still has the
digest is kept, so a server that restarts does not need MLflow.
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

from controller.clients import artifacts
from controller.clients.errors import Denied, NotFound
from controller.serving import step

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
    """Run the step; returns the exit code. MLFLOW_TRACKING_URI, _USERNAME, _PASSWORD, _TOKEN say where and who."""
    parser = argparse.ArgumentParser(prog="controller.serving.fetch_model")
    parser.add_argument("--run", required=True, help="MLflow run")
    parser.add_argument("--digest", required=True, help="sha256:<64 hex> of the manifest")
    parser.add_argument("--out", type=Path, required=True, help="directory for model/ and sample.json")
    given = parser.parse_args(argv)
    return step.run("fetch-model", lambda: asyncio.run(_from_registry(given.run, given.digest, given.out)))


async def fetch_model(source: Source, run: str, digest: str, out: Path) -> None:
    """Write `model/` and, where the run has one, `sample.json`; `model/` appears only once it has the digest.

    Raises:
        Denied: ManifestMismatch. NotFound: ModelMissing. As the source raises.
    """
    target, arriving = out / "model", out / ".arriving"
    if _there(target, digest):
        return
    shutil.rmtree(arriving, ignore_errors=True)
    arriving.mkdir(parents=True)
    try:
        count = await source.download_model(run, arriving)
        artifacts.verify(arriving, digest)
        artifacts.locate(arriving)
        sample = await _sample(source, run)
        if sample is not None:
            (out / "sample.json").write_bytes(sample)
        shutil.rmtree(target, ignore_errors=True)
        arriving.rename(target)
    finally:
        shutil.rmtree(arriving, ignore_errors=True)
    log.info("%d files of run %s have digest %s", count, run, digest)


def _there(target: Path, digest: str) -> bool:
    try:
        artifacts.verify(target, digest)
    except (Denied, NotFound):
        return False
    return True


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
    registry = Registry(
        uri,
        username=os.environ.get("MLFLOW_TRACKING_USERNAME", ""),
        password=os.environ.get("MLFLOW_TRACKING_PASSWORD", ""),
        token=os.environ.get("MLFLOW_TRACKING_TOKEN", ""),
    )
    try:
        await fetch_model(registry, run, digest, out)
    finally:
        await registry.aclose()


if __name__ == "__main__":
    sys.exit(main())
