"""The registry in memory, for stories: the same promises as `controller.clients.registry.Registry`.

`tests/contract/test_registry_contract.py` holds both to them. `down` makes every call fail as a server that is
away does; `fail` makes the next call of a method fail before it has done anything.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from controller.clients import registry_names as names
from controller.clients.errors import ClientError, Conflict, Denied, NotFound, Unavailable


@dataclass
class FakeRun:
    experiment: str
    tags: dict[str, str]
    status: str = "RUNNING"
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)


@dataclass
class FakeModel:
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    """version → tags, and `run` and `source`."""
    aliases: dict[str, str] = field(default_factory=dict)


class FakeRegistry:
    def __init__(self) -> None:
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, FakeRun] = {}
        self.models: dict[str, FakeModel] = {}
        self.down = False
        self.fail: dict[str, ClientError] = {}
        self.calls: list[str] = []

    def _enter(self, what: str) -> None:
        self.calls.append(what)
        if self.down:
            raise Unavailable(
                "MLflow at fake does not answer (no connection): check that the server runs and can be reached "
                "from here; it is tried again",
                reason="RegistryUnavailable",
            )
        if error := self.fail.pop(what, None):
            raise error

    def _run(self, run_id: str) -> FakeRun:
        if run_id not in self.runs:
            raise NotFound(f"runs/get at fake: Run with id={run_id} not found")
        return self.runs[run_id]

    async def aclose(self) -> None:
        pass

    async def ping(self) -> None:
        self._enter("ping")

    async def ensure_experiment(self, name: str) -> str:
        self._enter("ensure_experiment")
        return self.experiments.setdefault(name, str(len(self.experiments) + 1))

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
        self._enter("ensure_run")
        own = names.of_revision(names.literal(environment), names.literal(revision), attempt)
        run_id = self._ensure(experiment, own, tags or {})
        for key, value in (params or {}).items():
            self.runs[run_id].params.setdefault(names.key(key), str(value)[: names.PARAM_MAX])
        return run_id

    def _find(self, experiment: str, own: Mapping[str, str]) -> str | None:
        found = [i for i, r in self.runs.items() if r.experiment == experiment and own.items() <= r.tags.items()]
        return min(found, default=None)

    def _ensure(self, experiment: str, own: Mapping[str, str], more: Mapping[str, str]) -> str:
        found = self._find(experiment, own)
        if found is None:
            self.experiments.setdefault(experiment, str(len(self.experiments) + 1))
            found = f"{len(self.runs) + 1:032x}"
            self.runs[found] = FakeRun(experiment, {t["key"]: t["value"] for t in names.tag_list({**more, **own})})
        return found

    async def finish_run(self, run_id: str, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        self._enter("finish_run")
        self._run(run_id).status = status

    async def log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        self._enter("log_metrics")
        run = self._run(run_id)
        run.metrics.update({names.key(k): v for k, v in metrics.items() if math.isfinite(v)})

    async def upload(self, run_id: str, artifact_path: str, files: Mapping[str, bytes] | Path) -> None:
        self._enter("upload")
        run = self._run(run_id)
        if isinstance(files, Path):
            files = {p.relative_to(files).as_posix(): p.read_bytes() for p in names.regular_files(files)}
        for name, content in files.items():
            run.artifacts[names.below("root", artifact_path, name).removeprefix("root/")] = content

    async def read_artifact(self, run_id: str, path: str, limit: int = 1_048_576) -> bytes:
        self._enter("read_artifact")
        run = self._run(run_id)
        names.safe(path)
        if path not in run.artifacts:
            raise NotFound(f"reading {path} at fake: No such artifact: '{path}'")
        if len(run.artifacts[path]) > limit:
            raise Denied(f"{path} of run {run_id} is larger than {limit:,} bytes", reason="ArtifactTooLarge")
        return run.artifacts[path]

    async def download_model(self, run_id: str, dest: Path) -> int:
        self._enter("download_model")
        prefix = f"{names.MODEL_PATH}/"
        found = {k.removeprefix(prefix): v for k, v in self._run(run_id).artifacts.items() if k.startswith(prefix)}
        if not found:
            raise NotFound(f"run {run_id} at fake has no model", reason="ModelMissing")
        for name in names.no_twins(sorted(found)):
            target = dest.joinpath(*names.safe(name).split("/"))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(found[name])
        return len(found)

    async def ensure_version(
        self,
        name: str,
        run_id: str,
        *,
        environment: str,
        revision: str,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        self._enter("ensure_version")
        self._run(run_id)
        model = self.models.setdefault(name, FakeModel())
        own = names.of_revision(environment, revision)
        found = [int(v) for v, t in model.versions.items() if own.items() <= t.items()]
        if found:
            return str(min(found))
        version = str(len(model.versions) + 1)
        model.versions[version] = {**(tags or {}), **own, "run": run_id}
        return version

    async def set_alias(self, name: str, alias: str, version: str) -> None:
        self._enter("set_alias")
        model = self.models.get(name, FakeModel())
        if version not in model.versions:
            raise NotFound(
                f"registered-models/alias at fake: Model Version (name={name}, version={version}) not found"
            )
        model.aliases[alias] = version

    async def get_aliases(self, name: str) -> dict[str, str]:
        self._enter("get_aliases")
        return dict(self.models[name].aliases) if name in self.models else {}

    async def write_statement(self, run_id: str, envelope: bytes) -> None:
        self._enter("write_statement")
        self._run(run_id).artifacts[names.STATEMENT_PATH] = envelope

    async def ledger_run(self, name: str, environment: str) -> str:
        self._enter("ledger_run")
        return self._ensure(names.LEDGER_EXPERIMENT, {names.TAG_LEDGER: f"{name}/{environment}"}, {})

    async def append_ledger(self, name: str, environment: str, seq: int, envelope: bytes) -> None:
        self._enter("append_ledger")
        run = self.runs[self._ensure(names.LEDGER_EXPERIMENT, {names.TAG_LEDGER: f"{name}/{environment}"}, {})]
        digest, tag = hashlib.sha256(envelope).hexdigest(), f"{names.TAG_LEDGER}.{seq:06d}"
        if run.tags.get(tag, digest) != digest:
            raise Conflict(
                f"ledger entry {seq} of {name} in {environment} is another one already: read the ledger again",
                reason="LedgerTaken",
            )
        run.artifacts[names.entry_path(seq)] = envelope
        run.tags[tag] = digest

    async def read_ledger(self, name: str, environment: str) -> tuple[bytes, ...]:
        self._enter("read_ledger")
        found = self._find(names.LEDGER_EXPERIMENT, {names.TAG_LEDGER: f"{name}/{environment}"})
        if found is None:
            return ()
        run = self.runs[found]
        slots = names.slots({"data": {"tags": [{"key": k, "value": v} for k, v in run.tags.items()]}})
        return tuple(
            run.artifacts.get(names.entry_path(s), b"") if s in slots else b""
            for s in range(1, max(slots, default=0) + 1)
        )
