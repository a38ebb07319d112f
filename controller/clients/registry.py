"""The registry: runs, artifacts, versions, aliases and the ledger of an MLflow server.

MLflow deduplicates nothing, so everything is looked for by its tag before it is made, and if two were made the
lowest id wins and the other is marked.  Nothing is ordered by MLflow's clock.  Nothing read here is believed: a
model counts by its digest, a ledger entry by its signature.  `registry_rest.py` speaks the wire.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from controller.clients import registry_names as names
from controller.clients.credentials import WebLogin
from controller.clients.errors import Conflict, Denied, NotFound, Unavailable
from controller.clients.registry_rest import Rest

ARTIFACT_LIMIT: Final = 1_048_576
"""Largest file that `read_artifact` returns unless told otherwise; also the largest ledger entry."""
MODEL_MAX_BYTES: Final = 16 * 1024**3
GAP_MAX: Final = 1000
"""How far beyond the number of entries a number may lie: an invented one must not make us list a million."""
_BATCH: Final = 100
_RUN: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")


class Registry:
    """One MLflow server as the controller and the steps of a Job use it. Belongs to one event loop."""

    def __init__(
        self,
        tracking_uri: str,
        *,
        timeout_s: float = 15.0,
        login: Callable[[], WebLogin] = WebLogin,
        guard: Callable[[], None] = lambda: None,
    ) -> None:
        """Name the server; nothing is sent yet.

        Args:
            tracking_uri: http(s) address; credentials in it are used and never shown.
            timeout_s: longest wait for one answer. A server that is down is noticed within 3 s.
            login: asked before each request; may raise one of the four errors.
            guard: called before each request that may change something; raises to keep it from being sent.

        Raises:
            Denied: RegistryUriInvalid.
        """
        self._rest = Rest(tracking_uri, timeout_s=timeout_s, login=login, guard=guard)
        self._roots: dict[str, str] = {}
        self._experiments: dict[str, str] = {}
        self._entries: dict[str, bytes] = {}

    async def aclose(self) -> None:
        """Close the connections."""
        await self._rest.aclose()

    async def ping(self) -> None:
        """Ask for one experiment. **Repeat:** reads only."""
        await self._rest.call("POST", "experiments/search", {"max_results": 1}, again=True)

    async def ensure_experiment(self, name: str, *, create: bool = True) -> str:
        """Return the id of an experiment, made when missing.

        **Repeat:** found by name, which MLflow keeps unique.

        Raises:
            NotFound: it is missing and `create` is false.
            Denied: ExperimentDeleted: it lies in MLflow's bin.
        """
        asked = {"experiment_name": name}
        try:
            found = await self._rest.call("GET", "experiments/get-by-name", asked)
        except NotFound:
            if not create:
                raise
            with contextlib.suppress(Conflict):  # made in between
                await self._rest.call("POST", "experiments/create", {"name": name})
            found = await self._rest.call("GET", "experiments/get-by-name", asked)
        experiment = found["experiment"]
        number = str(experiment["experiment_id"])
        if experiment.get("lifecycle_stage") == "deleted":
            raise Denied(
                f"the MLflow experiment {name} was deleted: restore it with "
                f"`mlflow experiments restore --experiment-id {number}`",
                reason="ExperimentDeleted",
            )
        self._experiments[name] = number
        return number

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
        """Return the id of the run of one attempt, made when missing, with its parameters.

        **Repeat:** found by environment, revision and attempt; parameters that are there already are the same.
        """
        own = names.of_revision(environment, revision, attempt)
        run = await self._ensure(experiment, own, {**(tags or {})}, f"{revision}-{attempt}")
        have = {p["key"] for p in run["data"].get("params", [])}
        wanted = [(names.key(k), str(v)[: names.PARAM_MAX]) for k, v in (params or {}).items()]
        new = [{"key": k, "value": v} for k, v in dict(wanted).items() if k not in have]
        run_id = str(run["info"]["run_id"])
        await self._log(run_id, "params", new)
        return run_id

    async def _log(self, run_id: str, kind: str, items: Sequence[Mapping[str, object]]) -> None:
        for start in range(0, len(items), _BATCH):
            body = {"run_id": run_id, kind: items[start : start + _BATCH]}
            await self._rest.call("POST", "runs/log-batch", body, again=True)

    async def finish_run(self, run_id: str, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """Close a run. **Repeat:** a run that has this status is left alone."""
        if (await self._get_run(run_id))["info"].get("status") == status:
            return
        body = {"run_id": run_id, "status": status, "end_time": int(time.time() * 1000)}
        await self._rest.call("POST", "runs/update", body, again=True)

    async def log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Write metrics at step 0, dated by the start of the run; values that are not finite are left out.

        **Repeat:** MLflow keeps one of several equal points.
        """
        began = int((await self._get_run(run_id))["info"].get("start_time", 0))
        finite = {names.key(k): v for k, v in metrics.items() if math.isfinite(v)}
        points = [{"key": k, "value": v, "timestamp": began, "step": 0} for k, v in finite.items()]
        await self._log(run_id, "metrics", points)

    async def upload(self, run_id: str, artifact_path: str, files: Mapping[str, bytes] | Path) -> None:
        """Store files below an artifact path: given by content, or all of a directory.

        **Repeat:** a file is replaced by itself.

        Raises:
            Denied: ArtifactPathRefused: a name with `..` or such, or a link in the directory.
        """
        root = await self._root(run_id)
        if isinstance(files, Path):
            for path in sorted(await asyncio.to_thread(names.regular_files, files)):
                where = names.below(root, artifact_path, path.relative_to(files).as_posix())
                await self._rest.put_file(where, names.chunks_of(path), path.stat().st_size)
            return
        for name, content in files.items():
            await self._rest.put_file(names.below(root, artifact_path, name), names.once(content), len(content))

    async def read_artifact(self, run_id: str, path: str, limit: int = ARTIFACT_LIMIT) -> bytes:
        """Read one file of a run, of at most `limit` bytes. **Repeat:** reads only.

        Raises:
            NotFound: no such run or file.
            Denied: ArtifactTooLarge.
        """
        found = bytearray()
        async with self._rest.get_file(names.below(await self._root(run_id), path)) as chunks:
            async for chunk in chunks:
                found += chunk
                if len(found) > limit:
                    text = f"{path} of run {run_id} is larger than {limit:,} bytes"
                    raise Denied(text, reason="ArtifactTooLarge")
        return bytes(found)

    async def download_model(self, run_id: str, dest: Path) -> int:
        """Store every file below `model` in a directory and return how many there were.

        **Repeat:** files are written anew. What comes is not to be trusted until its digest was compared.

        Raises:
            NotFound: the run has no model.
            Denied: ArtifactPathRefused, ArtifactTooLarge.
        """
        root = await self._root(run_id)
        files = await self._list(run_id)
        if not files:
            raise NotFound(f"run {run_id} at {self._rest.host} has no model", reason="ModelMissing")
        left = MODEL_MAX_BYTES
        for name in files:
            target = dest.joinpath(*name.split("/"))
            target.parent.mkdir(parents=True, exist_ok=True)
            async with self._rest.get_file(names.below(root, names.MODEL_PATH, name)) as chunks:
                with target.open("wb") as file:
                    async for chunk in chunks:
                        left -= len(chunk)
                        if left < 0:
                            raise Denied(
                                f"the model of run {run_id} is larger than {MODEL_MAX_BYTES:,} bytes",
                                reason="ArtifactTooLarge",
                            )
                        await asyncio.to_thread(file.write, chunk)
        return len(files)

    async def ensure_version(
        self,
        name: str,
        run_id: str,
        *,
        environment: str,
        revision: str,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Return the version of a revision, registered from the run's model when missing.

        **Repeat:** found by the tags of environment and revision; of several the lowest number counts.
        """
        with contextlib.suppress(Conflict):  # it exists, as it mostly does
            await self._rest.call("POST", "registered-models/create", {"name": name})
        own = names.of_revision(environment, revision)
        asked = {"filter": names.version_filter(name, own), "max_results": 200}
        found = await self._rest.call("GET", "model-versions/search", asked)
        versions = [int(v["version"]) for v in found.get("model_versions", []) if v.get("name") == name]
        if versions:
            return str(min(versions))
        source = f"{(await self._get_run(run_id))['info']['artifact_uri']}/{names.MODEL_PATH}"
        every = names.tag_list({**(tags or {}), **own})
        body = {"name": name, "source": source, "run_id": run_id, "tags": every}
        made = await self._rest.call("POST", "model-versions/create", body)
        return str(made["model_version"]["version"])

    async def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias at a version. **Repeat:** an alias names one version.

        Raises:
            NotFound: no such model or version.
        """
        body = {"name": name, "alias": alias, "version": version}
        await self._rest.call("POST", "registered-models/alias", body, again=True)

    async def get_aliases(self, name: str) -> dict[str, str]:
        """Return alias → version; empty when nothing was registered yet. **Repeat:** reads only."""
        try:
            found = await self._rest.call("GET", "registered-models/get", {"name": name})
        except NotFound:
            return {}
        listed = found["registered_model"].get("aliases", [])
        return {str(a["alias"]): str(a["version"]) for a in listed}

    async def write_statement(self, run_id: str, envelope: bytes) -> None:
        """Store the signed lineage in its run. **Repeat:** replaced by itself."""
        await self.upload(run_id, "", {names.STATEMENT_PATH: envelope})

    async def ledger_run(self, name: str, environment: str) -> str:
        """Return the id of the run that holds a ledger, made when missing. **Repeat:** found by its tag."""
        own = {names.TAG_LEDGER: f"{name}/{environment}"}
        run = await self._ensure(names.LEDGER_EXPERIMENT, own, {}, f"{name}/{environment}")
        return str(run["info"]["run_id"])

    async def append_ledger(self, name: str, environment: str, seq: int, envelope: bytes) -> None:
        """Store a signed entry under its number: first the file, then the tag that makes it count.

        **Repeat:** the same bytes are found by their tag. A file without a tag is what a crash left: it is
        replaced.

        Raises:
            Conflict: LedgerTaken: another entry has this number.
        """
        own = {names.TAG_LEDGER: f"{name}/{environment}"}
        run = await self._ensure(names.LEDGER_EXPERIMENT, own, {}, f"{name}/{environment}")
        digest = hashlib.sha256(envelope).hexdigest()
        taken = names.slots(run).get(seq)
        if taken == digest:
            return
        if taken is not None:
            raise Conflict(
                f"ledger entry {seq} of {name} in {environment} is another one already: read the ledger again",
                reason="LedgerTaken",
            )
        run_id, path = str(run["info"]["run_id"]), names.entry_path(seq)
        await self.upload(run_id, "", {path: envelope})
        if await self.read_artifact(run_id, path) != envelope:
            text = f"ledger entry {seq} came back different from {self._rest.host}"
            raise Unavailable(text, reason="LedgerTorn")
        tag = {"run_id": run_id, "key": f"{names.TAG_LEDGER}.{seq:06d}", "value": digest}
        await self._rest.call("POST", "runs/set-tag", tag, again=True)

    async def read_ledger(self, name: str, environment: str) -> tuple[bytes, ...]:
        """Return the stored entries, number 1 first; `b""` where one is missing. Nothing is verified.

        **Repeat:** reads only; entries that did not change since are not fetched again.
        """
        runs = await self._find(names.LEDGER_EXPERIMENT, {names.TAG_LEDGER: f"{name}/{environment}"})
        if not runs:
            return ()
        slots, run_id = names.slots(runs[0]), str(runs[0]["info"]["run_id"])
        if (uri := str(runs[0]["info"].get("artifact_uri", ""))).startswith("mlflow-artifacts:"):
            self._roots[run_id] = urlsplit(uri).path.strip("/")  # known already: no request to ask for it
        last = max((s for s in slots if s <= len(slots) + GAP_MAX), default=0)
        return tuple([await self._entry(run_id, s, slots.get(s, "")) for s in range(1, last + 1)])

    async def _entry(self, run_id: str, seq: int, digest: str) -> bytes:
        """Fetch an entry, from memory if its bytes are those that the tag names."""
        if not digest:
            return b""
        if digest not in self._entries:
            try:
                found = await self.read_artifact(run_id, names.entry_path(seq))
            except (NotFound, Denied):  # gone or too large: it is missing, which the reader of the chain reports
                return b""
            if hashlib.sha256(found).hexdigest() != digest:
                return found
            self._entries[digest] = found
        return self._entries[digest]

    async def _ensure(
        self, experiment: str, own: Mapping[str, str], more: Mapping[str, str], title: str
    ) -> dict[str, Any]:
        """Find a run by its tags, or make it; of several the first of `_find` counts, the others are marked."""
        found = await self._find(experiment, own)
        if not found:
            body = {
                "experiment_id": await self.ensure_experiment(experiment),
                "start_time": int(time.time() * 1000),
                "run_name": title,
                "tags": names.tag_list({**more, **own}),
            }
            made = await self._rest.call("POST", "runs/create", body)
            found = await self._find(experiment, own) or [made["run"]]
        first: dict[str, Any] = found[0]
        for other in found[1:]:
            if names.TAG_DUPLICATE not in names.tags_of(other):
                tag = {
                    "run_id": other["info"]["run_id"],
                    "key": names.TAG_DUPLICATE,
                    "value": first["info"]["run_id"],
                }
                await self._rest.call("POST", "runs/set-tag", tag, again=True)
        return first

    async def _find(self, experiment: str, own: Mapping[str, str]) -> list[dict[str, Any]]:
        """Find runs by tags: those that hold most ledger entries first, then by id."""
        if experiment not in self._experiments:
            try:
                await self.ensure_experiment(experiment, create=False)
            except NotFound:
                return []
        body = {
            "experiment_ids": [self._experiments[experiment]],
            "filter": " and ".join(f"tags.`{k}` = '{names.literal(v)}'" for k, v in own.items()),
            "max_results": _BATCH,
        }
        found = (await self._rest.call("POST", "runs/search", body, again=True)).get("runs", [])
        return sorted(found, key=lambda run: (-len(names.slots(run)), str(run["info"]["run_id"])))

    async def _get_run(self, run_id: str) -> dict[str, Any]:
        if not _RUN.fullmatch(run_id):
            raise Denied(f"{run_id[:80]!r} is not the id of an MLflow run", reason="RunInvalid")
        run: dict[str, Any] = (await self._rest.call("GET", "runs/get", {"run_id": run_id}))["run"]
        return run

    async def _root(self, run_id: str) -> str:
        """Return where the server keeps the run's files, as a path of its artifact API."""
        if run_id not in self._roots:
            uri = str((await self._get_run(run_id))["info"].get("artifact_uri", ""))
            parts = urlsplit(uri)
            if parts.scheme != "mlflow-artifacts":
                raise Denied(
                    f"run {run_id} keeps its files at {parts.scheme or 'no'}:, not behind the server: "
                    "run the MLflow server with --serve-artifacts and use a new experiment",
                    reason="ArtifactsNotProxied",
                )
            self._roots[run_id] = parts.path.strip("/")
        return self._roots[run_id]

    async def _list(self, run_id: str) -> list[str]:
        """List every file below `model`, each relative to it."""
        files: list[str] = []
        folders = [names.MODEL_PATH]
        while folders:
            folder = folders.pop()
            found = await self._rest.call("GET", "artifacts/list", {"run_id": run_id, "path": folder})
            for entry in found.get("files", []):
                path = names.safe(str(entry.get("path", "")))
                if not path.startswith(f"{folder}/"):
                    raise names.refused(path)
                (folders if entry.get("is_dir") else files).append(path)
            if len(files) + len(folders) > names.FILES_MAX:
                raise Denied(
                    f"the model of run {run_id} has more than {names.FILES_MAX:,} files", reason="ArtifactTooLarge"
                )
        return names.no_twins(sorted(n.removeprefix(f"{names.MODEL_PATH}/") for n in files))
