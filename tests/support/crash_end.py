"""What a life of a model came to, in words that do not differ from run to run: objects, MLflow, processes."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from controller.api.meta import LABEL_REVISION, Manifest
from tests.support.local_mode import Local, condition

Role = Callable[[str], str]


def end_state(local: Local, name: str, roles: Mapping[str, str], answers: str, trained: Path) -> dict[str, Any]:
    """Read the end.

    Args:
        local: where it was played.
        name: of the registered model.
        roles: what each revision is in the story.
        answers: the revision that answered the newest request.
        trained: a file to which the training program adds a line each time it runs.
    """

    def role(revision: str) -> str:
        return roles.get(revision, revision)

    registry = Reader((local.state / "tracking-uri").read_text().strip(), name)
    return {**_served(local, role, answers), **_made(local, role, trained), **_recorded(local, registry, role)}


def _served(local: Local, role: Role, answers: str) -> dict[str, Any]:
    manifest = local.model()
    champion = manifest["status"]["champion"]
    digests = _digests(local)
    backends = local.all("HTTPRoute")[0]["spec"]["rules"][0]["backendRefs"]
    return {
        "champion": role(champion["revision"]),
        "bytes of the champion": champion["digest"] == digests[champion["revision"]],
        "answers": role(answers),
        "ready": condition(manifest, "Ready")["reason"],
        "challenger": (manifest["status"].get("challenger") or {}).get("stage", ""),
        "route": sorted(f"{_of(b['name'], digests, role)} {b['weight']}" for b in backends if b["weight"]),
        "servers": sorted(_server(d, role) for d in local.all("Deployment")),
        "pods": dict(Counter(sorted(_pod(p, role) for p in local.all("Pod")))),
        "processes": dict(Counter(sorted(filter(None, map(_process, local.processes().values()))))),
    }


def _made(local: Local, role: Role, trained: Path) -> dict[str, Any]:
    revisions = {role(m["metadata"]["name"]): m["status"] for m in local.all("ModelRevision")}
    jobs = (f"{role(j['metadata']['labels'][LABEL_REVISION])} {_outcome(j)}" for j in local.all("Job"))
    return {
        "revisions": {
            name: [s.get("version"), *(f"attempt {a['number']} {a['outcome']}" for a in s.get("attempts", ()))]
            for name, s in sorted(revisions.items())
        },
        "jobs": dict(Counter(sorted(jobs))),
        "key and note in their places": _in_place(local),
        "training programs run": len(trained.read_text().splitlines()),
    }


def _recorded(local: Local, registry: Reader, role: Role) -> dict[str, Any]:
    digests, entries = _digests(local), registry.ledger()
    return {
        "ledger": [
            f"{e['seq']} {e['kind']} {role(e['revision'])}, champion {role(e.get('champion', ''))}"
            for e in entries
        ],
        "bytes of the ledger": all(e["digest"] == digests[e["revision"]] for e in entries),
        "ledger runs": len(registry.ledger_runs()),
        "versions": {version: role(revision) for version, revision in registry.versions().items()},
        "aliases": registry.aliases(),
        "runs": sorted(f"{role(revision)} attempt {attempt} {how}" for revision, attempt, how in registry.runs()),
    }


def _in_place(local: Local) -> bool:
    noted = (local.state / "data-directory").read_text().strip()
    return noted == str(local.data) and (local.data / "signing-key.pem").exists()


def _digests(local: Local) -> dict[str, str]:
    found = local.all("ModelRevision")
    return {m["metadata"]["name"]: (m["status"].get("artifact") or {}).get("digest", "") for m in found}


def _outcome(job: Manifest) -> str:
    conditions = job.get("status", {}).get("conditions", ())
    return next((c["type"] for c in conditions if c["status"] == "True"), "Running")


def _of(deployment: str, revisions: Mapping[str, str], role: Role) -> str:
    return next((role(r) for r in revisions if deployment.startswith(r)), deployment)


def _server(deployment: Manifest, role: Role) -> str:
    revision = role(deployment["metadata"]["labels"][LABEL_REVISION])
    ready = deployment.get("status", {}).get("readyReplicas", 0)
    return f"{revision}: {deployment['spec']['replicas']} wanted, {ready} ready"


def _pod(pod: Manifest, role: Role) -> str:
    kind = "server" if "mainspring.dev/deployment" in pod["metadata"]["labels"] else "job"
    phase = pod.get("status", {}).get("phase")
    return f"{kind} of {role(pod['metadata']['labels'][LABEL_REVISION])} {phase}"


def _process(command: str) -> str:
    """Say what a process is; empty for those that come and go."""
    words = {"shim.py": "shim", "controller.local.router": "router", "crashing_operator": "controller"}
    return next((what for word, what in words.items() if word in command), "")


class Reader:
    """What MLflow knows of one model, read over its REST API."""

    def __init__(self, uri: str, name: str) -> None:
        self._api = f"{uri}/api/2.0/mlflow/"
        self._uri = uri
        self._name = name

    def versions(self) -> dict[str, str]:
        found = self._get("model-versions/search", filter=f"name='{self._name}'")["model_versions"]
        return {
            v["version"]: next(t["value"] for t in v["tags"] if t["key"] == "mainspring.revision") for v in found
        }

    def aliases(self) -> dict[str, str]:
        found = self._get("registered-models/get", name=self._name)["registered_model"].get("aliases", ())
        return {a["alias"]: a["version"] for a in found}

    def runs(self) -> list[tuple[str, str, str]]:
        """List revision, attempt and status of each training run."""
        found = []
        for run in self._search(self._name, ""):
            tags = {t["key"]: t["value"] for t in run["data"]["tags"]}
            found.append((tags["mainspring.revision"], tags["mainspring.attempt"], run["info"]["status"]))
        return found

    def ledger(self) -> list[dict[str, Any]]:
        """Read the entries that count, in order."""
        run = self.ledger_runs()[0]
        slots = sorted(t["key"] for t in run["data"]["tags"] if t["key"].startswith("mainspring.ledger."))
        root = run["info"]["artifact_uri"].removeprefix("mlflow-artifacts:/")
        entries = []
        for slot in slots:
            path = f"{root}/ledger/{slot.rpartition('.')[2]}.json"
            answer = httpx.get(
                f"{self._uri}/api/2.0/mlflow-artifacts/artifacts/{path}", trust_env=False, timeout=30
            )
            entries.append(json.loads(base64.b64decode(answer.json()["payload"])))
        return entries

    def ledger_runs(self) -> list[dict[str, Any]]:
        return self._search("mainspring-ledger", f"tags.`mainspring.ledger` LIKE '{self._name}/%'")

    def _search(self, experiment: str, what: str) -> list[dict[str, Any]]:
        number = self._get("experiments/get-by-name", experiment_name=experiment)["experiment"]["experiment_id"]
        body = {"experiment_ids": [number], "filter": what, "max_results": 500}
        found: list[dict[str, Any]] = self._ask("POST", "runs/search", json=body).get("runs", [])
        return found

    def _get(self, path: str, **params: str) -> dict[str, Any]:
        return self._ask("GET", path, params=params)

    def _ask(self, method: str, path: str, **sent: Any) -> dict[str, Any]:
        answer = httpx.request(method, self._api + path, trust_env=False, timeout=30, **sent)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found
