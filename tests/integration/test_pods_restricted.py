"""A namespace under Pod Security "restricted" takes every pod that any valid ModelSpec makes, as it is.

The ModelSpecs are drawn from the schema; each makes the pods of a training, of a measurement alone and of servers.
The API server judges the pods, and the objects that make them, in dry runs: none of them ever runs.
"""

from __future__ import annotations

import secrets
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings

from controller.api.gates import Serving
from controller.api.kinds import ModelRevision, ModelSpec, parse
from controller.api.meta import Manifest
from controller.api.modelrevision import PinnedData
from controller.api.pods import LocalRef
from controller.api.predictionlog import LogStorage, PredictionLog
from controller.clients.kube_kinds import resource_of
from controller.plan import manifests, naming, pinning, predlog, servers, tasks
from controller.plan.observed import SourceSeen
from controller.plan.pods import PodSettings
from tests.cluster.namespaces import made, unmade
from tests.support.plain_server import http
from tests.support.random_specs import PRIORITY, is_valid, model_specs

SPECS = 300
PODS = PodSettings(
    hardened=True,
    jobs_image="images.example.com/mainspring-jobs:1",
    server_image="images.example.com/mainspring-server:1",
    pull_secrets=("ours",),
    fetch_env={"MAINSPRING_GIT_PROTOCOLS": "https,ssh"},
    trusted_keys="-----BEGIN PUBLIC KEY-----\n",
)
SEEN = SourceSeen(
    commit="c" * 40,
    label=f"main@sha1:{'c' * 40}",
    author="Jo <jo@example.com>",
    subject="Predict bikes",
    files=f"v1:{'0' * 64}",
    data=(PinnedData(name="train", path="data/train.csv", digest=f"gitblob:{'a' * 40}"),),
)
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}


@dataclass
class Server:
    """An API server that judges without doing."""

    client: Any
    namespace: str
    judged: Counter[str] = field(default_factory=Counter)

    def judge(self, manifest: Manifest) -> Manifest:
        """Have an object created in a dry run; its answer is the object as it would be stored."""
        path = resource_of(manifest["kind"]).path(self.namespace)
        answer = self.client.post(path, json=manifest, params={"dryRun": "All", "fieldValidation": "Strict"})
        assert answer.is_success, f"{manifest['kind']}: {answer.json()['message']}\n{manifest}"
        warned = answer.headers.get_list("warning")
        assert not [w for w in warned if "PodSecurity" in w], warned
        self.judged[manifest["kind"]] += 1
        return dict(answer.json())


@pytest.fixture
def server(control_plane: Any) -> Any:
    name = f"restricted-{secrets.token_hex(4)}"
    made(control_plane, name, RESTRICTED)
    with http(control_plane) as client:
        low = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": PRIORITY}}
        client.post("/apis/scheduling.k8s.io/v1/priorityclasses", json={**low, "value": -1})
        yield Server(client, name)
    unmade(control_plane, name)


def objects(model: ModelSpec, owner: Manifest) -> list[Manifest]:
    """Build every object that a ModelSpec can make on a cluster."""
    name, pinned = pinning.pin(model, SEEN, first=True)
    built = manifests.revision_object(model, owner, name, pinning.as_manifest(pinned))
    revision = parse(built)
    assert isinstance(revision, ModelRevision)
    common: dict[str, Any] = {
        "attempt": 1,
        "deadline_s": model.spec.training.active_deadline_seconds,
        "tracking_uri": "http://mlflow:5000",
        "checks": f"v1:{'1' * 64}",
        "wanted": model.spec.training,
        "settings": PODS,
        "secrets": tasks.secrets(revision, model),
    }
    first = manifests.training_job(revision, owner, champion="", **common)
    second = manifests.training_job(revision, owner, champion=f"sha256:{'c' * 64}", **{**common, "attempt": 10})
    again = manifests.training_job(revision, owner, champion=f"sha256:{'c' * 64}", evaluate_only=True, **common)
    deployment = naming.deployment_name(name, PODS.server_image)
    log = predlog.wanted(model, PODS)
    kept = PredictionLog(storage=LogStorage(uri="s3://logs/x", secret_ref=LocalRef(name="logs")))
    logging = model.model_copy(
        update={"spec": model.spec.model_copy(update={"serving": Serving(prediction_log=kept)})}
    )
    served, logged = (
        servers.deployment(
            model,
            owner,
            name=deployment,
            revision=name,
            run="r" * 32,
            digest=f"sha256:{'b' * 64}",
            version="1",
            commit=SEEN.commit,
            tracking_uri="http://mlflow:5000",
            replicas=model.spec.serving.min_replicas,
            runtime="images.example.com/mainspring-server:0",
            settings=PODS,
            log=found if isinstance(found, predlog.Logged) else None,
        )
        for found in (log, predlog.wanted(logging, PODS))
    )
    least = model.spec.serving.min_replicas
    beside = [
        servers.service(model, owner, name=deployment, revision=name),
        servers.stable_service(model, owner, servers.all_servers(model.metadata.name)),
        servers.budget(model, owner),
        servers.autoscaler(model, owner, deployment, least, model.spec.serving.max_replicas or least),
    ]
    if model.spec.serving.route is not None:
        beside.append(servers.route(model, owner, {deployment: 100}))
    return [first, second, again, served, logged, *beside]


def changed(said: Any, kept: Any, where: str = "") -> list[str]:
    """Name the fields that the server stores otherwise than they were sent; what it adds are defaults."""
    if isinstance(said, dict) and isinstance(kept, dict):
        return [c for k, v in said.items() for c in changed(v, kept.get(k), f"{where}.{k}")]
    if where.endswith(".tolerations"):
        kept = (kept or [])[: len(said or [])]  # The server adds those for nodes that are lost.
    if isinstance(said, list) and isinstance(kept, list) and len(said) == len(kept):
        return [c for i, (a, b) in enumerate(zip(said, kept, strict=True)) for c in changed(a, b, f"{where}[{i}]")]
    # Amounts are stored in their shortest form, and what is empty is left out.
    same = said == kept or ".resources." in where or (not said and not kept)
    return [] if same else [f"{where}: {said!r} is stored as {kept!r}"]


def test_every_pod_of_random_model_specs_is_taken_as_it_is(server: Server, capsys: Any) -> None:
    specs = Counter[str]()

    @settings(
        max_examples=SPECS,
        database=None,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(model_specs())
    def judge(manifest: Manifest) -> None:
        assume(is_valid(manifest))
        specs["valid"] += 1
        manifest["metadata"] |= {"namespace": server.namespace, "uid": "5d3f1b52-0d7b-4a53-9b1f-000000000001"}
        model = parse(manifest)
        assert isinstance(model, ModelSpec)
        for item in objects(model, manifest):
            stored = server.judge(item)
            assert changed(item["spec"], stored["spec"]) == []
            if template := item["spec"].get("template"):
                meta = {"name": f"{item['metadata']['name']}"[:63], "namespace": server.namespace}
                meta["labels"] = template["metadata"]["labels"]
                pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]}
                assert changed(pod["spec"], server.judge(pod)["spec"]) == []

    judge()
    with capsys.disabled():
        print(f"\n{specs['valid']} ModelSpecs: {dict(server.judged)} taken, 0 refused, 0 fields changed")
    assert specs["valid"] >= SPECS
    assert server.judged["Pod"] >= 4 * SPECS


def test_the_namespace_does_refuse_a_pod_that_is_not_hardened(server: Server) -> None:
    plain = {"containers": [{"name": "a", "image": "b"}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": plain}
    with pytest.raises(AssertionError, match='violates PodSecurity "restricted'):
        server.judge(pod)
