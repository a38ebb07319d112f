"""What every pod on a cluster has, whatever it runs and whatever a ModelSpec says: rule by rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from controller.api.kinds import ModelRevision, ModelSpec, parse
from controller.api.meta import Manifest
from controller.api.modelrevision import PinnedData
from controller.plan import manifests, pinning, servers
from controller.plan.observed import SourceSeen
from controller.plan.pods import PLAIN, USER, PodSettings
from tests.support.stories import spec

JOBS, SERVER = "images.example.com/mainspring-jobs:1", "images.example.com/mainspring-server:1"
SETTINGS = PodSettings(hardened=True, jobs_image=JOBS, server_image=SERVER, pull_secrets=("ours",))
OWNER: Manifest = {**spec(), "metadata": {"name": "bikes", "namespace": "ml", "uid": "u"}}
SEEN = SourceSeen(
    commit="c" * 40,
    label="main",
    author="Jo",
    subject="Predict bikes",
    files=f"v1:{'0' * 64}",
    data=(PinnedData(name="train", path="data.csv", digest=f"gitblob:{'a' * 40}"),),
)


def model(training: dict[str, Any] | None = None, serving: dict[str, Any] | None = None) -> ModelSpec:
    train = {"command": ["python", "train.py"], **(training or {})}
    parsed = parse({**spec(training=train, serving=serving or {}), "metadata": OWNER["metadata"]})
    assert isinstance(parsed, ModelSpec)
    return parsed


def job(wanted: ModelSpec, settings: PodSettings = SETTINGS) -> Manifest:
    name, pinned = pinning.pin(wanted, SEEN, first=True)
    revision = parse(manifests.revision_object(wanted, OWNER, name, pinning.as_manifest(pinned)))
    assert isinstance(revision, ModelRevision)
    return manifests.training_job(
        revision,
        OWNER,
        attempt=1,
        deadline_s=60,
        tracking_uri="http://mlflow",
        champion=f"sha256:{'1' * 64}",
        checks="c",
        wanted=wanted.spec.training,
        settings=settings,
    )


def deployment(wanted: ModelSpec, settings: PodSettings = SETTINGS, runtime: str = "") -> Manifest:
    return servers.deployment(
        wanted,
        OWNER,
        name="bikes-1-2",
        revision="bikes-1",
        run="r",
        digest="sha256:d",
        version="1",
        commit="c",
        tracking_uri="http://mlflow",
        replicas=2,
        runtime=runtime,
        settings=settings,
    )


def pod_of(item: Manifest) -> Manifest:
    pod: Manifest = item["spec"]["template"]["spec"]
    return pod


def containers(pod: Manifest) -> Iterator[Manifest]:
    yield from pod.get("initContainers", ())
    yield from pod["containers"]


def each(rule: Callable[[Manifest], bool]) -> Callable[[Manifest], bool]:
    return lambda pod: all(rule(c) for c in containers(pod))


def no_writable_root(c: Manifest) -> bool:
    """Everything that a container may write to is a volume of its own pod."""
    return c["securityContext"]["readOnlyRootFilesystem"] is True and any(
        m["mountPath"] == "/tmp" for m in c["volumeMounts"]
    )


RULES: list[Any] = [
    pytest.param(lambda p: p["securityContext"]["runAsNonRoot"] is True, id="nobody is root"),
    pytest.param(lambda p: p["securityContext"]["runAsUser"] == USER == 65532, id="the user is a fixed one"),
    pytest.param(lambda p: p["securityContext"]["fsGroup"] == USER, id="volumes belong to it"),
    pytest.param(
        lambda p: p["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"},
        id="system calls are those of the runtime's default",
    ),
    pytest.param(lambda p: p["automountServiceAccountToken"] is False, id="there is no token of Kubernetes"),
    pytest.param(lambda p: p["enableServiceLinks"] is False, id="other Services are not told of"),
    pytest.param(
        lambda p: not {"hostNetwork", "hostPID", "hostIPC", "hostUsers", "serviceAccountName"} & set(p),
        id="nothing of the host, no other account",
    ),
    pytest.param(
        lambda p: all(set(v) - {"name"} <= {"emptyDir", "configMap", "secret"} for v in p["volumes"]),
        id="volumes are of three kinds",
    ),
    pytest.param(
        lambda p: all(v["emptyDir"]["sizeLimit"] == "20Gi" for v in p["volumes"] if "emptyDir" in v),
        id="every volume has a limit",
    ),
    pytest.param(
        each(lambda c: c["securityContext"]["allowPrivilegeEscalation"] is False), id="no privilege is gained"
    ),
    pytest.param(
        each(lambda c: c["securityContext"]["capabilities"] == {"drop": ["ALL"]}), id="no capability is kept"
    ),
    pytest.param(each(no_writable_root), id="the image's files cannot be written"),
    pytest.param(each(lambda c: "memory" in c["resources"]["limits"]), id="memory has a limit"),
    pytest.param(
        each(lambda c: {"cpu", "memory"} <= {*c["resources"]["requests"], *c["resources"]["limits"]}),
        id="cpu and memory are asked for",
    ),
    pytest.param(
        each(lambda c: not any("valueFrom" in e for e in c["env"]) and "envFrom" not in c),
        id="no secret is in an environment",
    ),
    pytest.param(each(lambda c: c["imagePullPolicy"] == "IfNotPresent"), id="images are pulled once"),
    pytest.param(
        lambda p: len([v for v in p["volumes"] if v["name"].startswith("tmp-")]) == len(list(containers(p))),
        id="each container has a /tmp of its own",
    ),
]
PODS = [
    pytest.param(lambda: pod_of(job(model())), id="training"),
    pytest.param(lambda: pod_of(deployment(model())), id="servers"),
    pytest.param(
        lambda: pod_of(job(model({"image": "a/b:1", "resources": {"requests": {"memory": "9Gi"}}}))),
        id="training with an image and resources of its own",
    ),
    pytest.param(
        lambda: pod_of(deployment(model(serving={"resources": {"limits": {"memory": "64Mi"}}}))),
        id="servers with a limit of their own",
    ),
]


@pytest.mark.parametrize("build", PODS)
@pytest.mark.parametrize("rule", RULES)
def test_a_rule_that_every_pod_obeys(build: Callable[[], Manifest], rule: Callable[[Manifest], bool]) -> None:
    assert rule(build())


RESOURCES = [
    pytest.param(
        {}, {"cpu": "500m", "memory": "1Gi"}, {"memory": "4Gi"}, id="nothing is said: the operator's settings"
    ),
    pytest.param(
        {"requests": {"memory": "9Gi"}},
        {"cpu": "500m", "memory": "9Gi"},
        {"memory": "9Gi"},
        id="more is asked for than the default limit: the limit grows with it",
    ),
    pytest.param(
        {"limits": {"memory": "512Mi"}},
        {"cpu": "500m"},
        {"memory": "512Mi"},
        id="only a limit is given: the server itself asks for as much",
    ),
    pytest.param(
        {"requests": {"nvidia.com/gpu": "1"}, "limits": {"nvidia.com/gpu": "1"}},
        {"cpu": "500m", "memory": "1Gi", "nvidia.com/gpu": "1"},
        {"memory": "4Gi", "nvidia.com/gpu": "1"},
        id="a device is added to the rest",
    ),
]


@pytest.mark.parametrize(("said", "requests", "limits"), RESOURCES)
def test_what_a_training_asks_for(said: dict[str, Any], requests: dict[str, str], limits: dict[str, str]) -> None:
    pod = pod_of(job(model({"resources": said} if said else {})))
    train = next(c for c in containers(pod) if c["name"] == "train")
    assert train["resources"] == {"requests": requests, "limits": limits}


def test_each_step_runs_its_own_image_and_a_pinned_one_before_the_operators() -> None:
    images = {c["name"]: c["image"] for c in containers(pod_of(job(model())))}
    assert images == {
        "fetch": JOBS,
        "train": JOBS,
        "predict-champion": SERVER,
        "predict": SERVER,
        "evaluate": JOBS,
    }
    mine = {c["name"]: c["image"] for c in containers(pod_of(job(model({"image": "a/b:1"}))))}
    assert mine == {**images, "train": "a/b:1"}
    pinned = [c["image"] for c in containers(pod_of(deployment(model(), runtime="mainspring-server")))]
    assert pinned == ["mainspring-server"] * 2, "also one that has the name of the default"


def test_a_job_counts_its_attempts_itself_and_tells_disruptions_apart() -> None:
    made = job(model())["spec"]
    assert (made["backoffLimit"], made["podReplacementPolicy"], made["activeDeadlineSeconds"]) == (0, "Failed", 60)
    (rule,) = made["podFailurePolicy"]["rules"]
    assert rule == {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert "ttlSecondsAfterFinished" not in made, "it may go only once its result was taken in"


def test_servers_are_replaced_only_by_servers_that_are_ready_and_end_without_losing_a_request() -> None:
    made = deployment(model())["spec"]
    assert made["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    pod = made["template"]["spec"]
    server = pod["containers"][0]
    wait = server["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert 0 < wait < pod["terminationGracePeriodSeconds"]
    assert server["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert server["livenessProbe"]["httpGet"]["path"] == "/health/live"


def test_the_pull_secrets_of_the_operator_and_of_the_model_are_both_there() -> None:
    pod = pod_of(job(model({"template": {"imagePullSecrets": [{"name": "mine"}]}})))
    assert pod["imagePullSecrets"] == [{"name": "mine"}, {"name": "ours"}]


def test_local_mode_has_none_of_it() -> None:
    pod = pod_of(job(model(), PLAIN))
    assert "securityContext" not in pod
    assert all("resources" not in c for c in containers(pod))
