"""The registry port: what the controller needs from MLflow, and nothing more.

`clients/registry.py` implements it on a real MLflow server, `tests/support/fake_registry.py` in memory; one
contract suite (`tests/contract/test_registry_contract.py`) holds both to it.  Every method may be called again
after a crash in the middle of it.  All raise only the four errors of `controller.clients.errors`; `Unavailable`
means that nothing is known about whether it happened.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]


class RegistryPort(Protocol):
    """Runs, artifacts, versions, aliases and the ledger."""

    async def ping(self) -> None:
        """Return when the registry answers; raises Unavailable within about five seconds when not."""
        ...

    async def ensure_experiment(self, name: str) -> str:
        """Return the experiment's id. **Repeat:** found by name."""
        ...

    async def ensure_run(
        self,
        experiment: str,
        *,
        environment: str,
        revision: str,
        attempt: int,
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, object] | None = None,
    ) -> str:
        """Return the id of the run of this attempt, made when missing.

        **Repeat:** found by environment, revision and attempt.
        """
        ...

    async def finish_run(self, run_id: str, status: RunStatus) -> None:
        """Close a run. **Repeat:** the same status again changes nothing but the end time."""
        ...

    async def log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Write metrics of step 0; values that are not finite are left out.

        **Repeat:** the same value is kept once.
        """
        ...

    async def upload(self, run_id: str, artifact_path: str, files: Mapping[str, bytes] | Path) -> None:
        """Store files below an artifact path. **Repeat:** a file is replaced by itself."""
        ...

    async def read_artifact(self, run_id: str, path: str, limit: int = ...) -> bytes:
        """Read a file of at most `limit` bytes; NotFound when it is not there, Denied when it is larger."""
        ...

    async def download_model(self, run_id: str, dest: Path) -> int:
        """Store all files below `model` in `dest`; returns how many. Their digest is still to be checked."""
        ...

    async def ensure_version(
        self,
        name: str,
        run_id: str,
        *,
        environment: str,
        revision: str,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Return the version of the revision, registered when missing.

        **Repeat:** found by the tags of environment and revision.
        """
        ...

    async def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias at a version. **Repeat:** an alias names one version."""
        ...

    async def get_aliases(self, name: str) -> dict[str, str]:
        """Return alias → version; empty when nothing was registered yet."""
        ...

    async def append_ledger(self, name: str, environment: str, seq: int, envelope: bytes) -> None:
        """Store a signed entry under its number.

        **Repeat:** the same bytes are already there, or are completed after a crash.

        Raises:
            Conflict: reason LedgerTaken: another entry has this number.
        """
        ...

    async def read_ledger(self, name: str, environment: str) -> tuple[bytes, ...]:
        """Return the stored entries, number 1 first; `b""` where one is missing. None of them is verified."""
        ...

    async def write_statement(self, run_id: str, envelope: bytes) -> None:
        """Store the signed lineage as `mainspring/lineage.json` of the run. **Repeat:** replaced by itself."""
        ...
