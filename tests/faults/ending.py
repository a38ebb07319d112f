"""What a story on a cluster came to, in words that do not differ from run to run: objects, MLflow, trainings.

It is read in one go; `settled` waits until it is what a run without faults came to.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from controller.api.meta import LABEL_REVISION, Manifest
from tests.faults.scene import Scene, Stuck
from tests.support.crash_end import Reader
from tests.support.operator_process import condition

END_S = 60.0
"""What the design promises: all converged within so many seconds after the fault has gone."""
EXPECTED: dict[str, Any] = {
    "champion": "first",
    "ready": "Succeeded",
    "challenger": "",
    "stable Service": "first",
    "servers": ["first: 1 wanted, 1 ready"],
    "jobs": {"better Complete": 1, "first Complete": 1, "worse Complete": 1},
    "trainings": {"better": 1, "first": 1, "worse": 1},
    "revisions": {
        "better": ["3", "attempt 1 Succeeded"],
        "first": ["1", "attempt 1 Succeeded"],
        "worse": ["2", "attempt 1 Succeeded"],
    },
    "ledger": [
        "1 Admitted first, champion ",
        "2 Promoted first, champion first",
        "3 Rejected worse, champion first",
        "4 Admitted better, champion first",
        "5 Promoted better, champion better",
        "6 Promoted first, champion first",
    ],
    "versions": {"1": "first", "2": "worse", "3": "better"},
    "champion alias": "1",
    "runs": ["better attempt 1 FINISHED", "first attempt 1 FINISHED", "worse attempt 1 FINISHED"],
}
"""What the whole story comes to."""


def ending(scene: Scene) -> dict[str, Any]:
    """Read what it came to."""

    def role(revision: str) -> str:
        return scene.roles.get(revision, revision)

    model = scene.model()
    status = model.get("status") or {}
    deployments = scene.all("deployments")
    registry = Reader(scene.tracking_uri, scene.registry)
    revisions = {role(m["metadata"]["name"]): m.get("status") or {} for m in scene.all("modelrevisions")}
    jobs = (f"{role(j['metadata']['labels'][LABEL_REVISION])} {_outcome(j)}" for j in scene.all("jobs"))
    return {
        "champion": role((status.get("champion") or {}).get("revision", "")),
        "ready": condition(model, "Ready").get("reason"),
        "challenger": (status.get("challenger") or {}).get("stage", ""),
        "stable Service": _selected(scene, deployments, role),
        "servers": sorted(_server(d, role) for d in deployments),
        "jobs": dict(sorted(Counter(jobs).items())),
        "trainings": {
            role(name): count for name, count in sorted(scene.player.trained.items(), key=lambda p: role(p[0]))
        },
        "revisions": {
            name: [s.get("version"), *(f"attempt {a['number']} {a['outcome']}" for a in s.get("attempts", ()))]
            for name, s in sorted(revisions.items())
        },
        "ledger": [
            f"{e['seq']} {e['kind']} {role(e['revision'])}, champion {role(e.get('champion', ''))}"
            for e in registry.ledger()
        ],
        "versions": {version: role(revision) for version, revision in sorted(registry.versions().items())},
        "champion alias": registry.aliases().get(f"{scene.namespace}-champion"),
        "runs": sorted(f"{role(revision)} attempt {attempt} {how}" for revision, attempt, how in registry.runs()),
    }


def settled(scene: Scene, expected: dict[str, Any] | None = None, *, within_s: float = END_S) -> list[str]:
    """Wait until the end is as expected and say what is not; the whole story's by default."""
    expected = EXPECTED if expected is None else expected
    wrong = ["it was not read"]

    def as_expected() -> bool:
        wrong[:] = differences(ending(scene), expected)
        return not wrong

    try:
        scene.wait(as_expected, "the end is as expected", within_s)
    except Stuck as stuck:
        return [*wrong, str(stuck)[:3000]]
    return []


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Say what is not as it must be."""
    return [
        f"{what}: {found.get(what)!r}, not {wanted!r}"
        for what, wanted in expected.items()
        if found.get(what) != wanted
    ]


def _outcome(job: Manifest) -> str:
    conditions = (job.get("status") or {}).get("conditions", ())
    return next(
        (c["type"] for c in conditions if c["type"] in ("Complete", "Failed") and c["status"] == "True"), "Running"
    )


def _server(deployment: Manifest, role: Any) -> str:
    ready = (deployment.get("status") or {}).get("readyReplicas", 0)
    revision = role(deployment["metadata"]["labels"][LABEL_REVISION])
    return f"{revision}: {deployment['spec']['replicas']} wanted, {ready} ready"


def _selected(scene: Scene, deployments: list[Manifest], role: Any) -> str:
    """Say whose servers the Service of the model sends requests to."""
    service = next((s for s in scene.all("services") if s["metadata"]["name"] == "bikes"), None)
    if service is None:
        return ""
    wanted = service["spec"]["selector"].items()
    chosen = [
        role(d["metadata"]["labels"][LABEL_REVISION])
        for d in deployments
        if wanted <= d["spec"]["template"]["metadata"]["labels"].items() and d["spec"]["replicas"]
    ]
    return " ".join(sorted(chosen))
