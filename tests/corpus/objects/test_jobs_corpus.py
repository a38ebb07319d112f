"""What becomes of Jobs and pods behind the controller's back: J15 to J18, J20 to J23, D18.

Each happens in the simulated world of the standing rule, whose reconcilers and store are the real ones.
"""

from __future__ import annotations

import json

import pytest

from controller.api.conditions import timestamp
from controller.api.meta import LABEL_REVISION, key_of, owner_reference
from tests.corpus import standing
from tests.corpus.standing import SPECS, challenger, file, later, spec

FAILED = {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]}


# -- Jobs and pods ----------------------------


def waiting(reason: str, message: str) -> dict[str, object]:
    return {
        "initContainerStatuses": [{"name": "train", "state": {"waiting": {"reason": reason, "message": message}}}]
    }


WAITING = [
    (
        "J15-an image that cannot be pulled",
        waiting("ImagePullBackOff", 'Back-off pulling image "r.example.com/a@sha256:1"'),
        'train: ImagePullBackOff: Back-off pulling image "r.example.com/a@sha256:1"',
    ),
    (
        "J15-an image that would run as root",
        waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root"),
        "train: CreateContainerConfigError: container has runAsNonRoot and image will run as root",
    ),
    (
        "J15-a command that is not there",
        waiting("RunContainerError", 'exec: "trian": executable file not found in $PATH'),
        'train: RunContainerError: exec: "trian": executable file not found in $PATH',
    ),
    (
        "J15-a registry that says a secret",
        waiting("ErrImagePull", "GET https://bot:hunter2@r.example.com/v2/: 401\x1b[31m"),
        "train: ErrImagePull: GET https://***@r.example.com/v2/: 401\\x1b[31m",
    ),
    (
        "J16-no node has what it asks for",
        {
            "conditions": [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
                }
            ]
        },
        "Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
    ),
]


@pytest.mark.parametrize(("pod", "words"), [pytest.param(*rest, id=name) for name, *rest in WAITING])
def test_a_pod_that_does_not_start_is_told_in_the_words_of_kubernetes_and_waited_for(pod, words):
    answer = standing.job_ends({}, pod, "PodNotStarted", f"attempt 1 does not start: {words}"[:80])
    assert answer is not None
    assert answer.message.endswith(f"attempt 1 does not start: {words}")


def ended(name: str, code: int, reason: str = "", message: str = "") -> dict[str, object]:
    state = {"exitCode": code, "reason": reason, "message": message}
    return {"initContainerStatuses": [{"name": name, "state": {"terminated": state}}]}


ENDED = [
    (
        "J15-an image of another kind of machine",
        ended("train", 255, "Error", "exec /usr/bin/python: exec format error"),
        "TrainingFailed",
        "the training program ended with exit code 255: exec /usr/bin/python: exec format error",
    ),
    (
        "J09-writes beside the places for it",
        ended("train", 1, "Error", "OSError: [Errno 30] Read-only file system: '/model.bin'"),
        "TrainingFailed",
        "the training program ended with exit code 1: OSError: [Errno 30] Read-only file system: '/model.bin'; "
        "a pod can write to its work directory, MAINSPRING_OUTPUT and /tmp, and nowhere else",
    ),
    (
        "D18-more data than the memory of the step",
        ended("fetch", 137, "OOMKilled"),
        "OutOfMemory",
        "step fetch took more memory than it may and was killed; raise the operator's memory for steps",
    ),
    (
        "D18-more data than the memory of the training",
        ended("train", 137, "OOMKilled"),
        "OutOfMemory",
        "the training program took more memory than it may and was killed; raise training.resources.limits.memory",
    ),
]


@pytest.mark.parametrize(("pod", "reason", "words"), [pytest.param(*rest, id=name) for name, *rest in ENDED])
def test_a_pod_that_ended_is_told_by_what_ended_it(pod, reason, words):
    answer = standing.job_ends(FAILED, pod, reason, words[:80])
    assert answer is not None
    assert words in answer.message


LOST = [
    ("J17-preempted by a pod of more weight", {"conditions": [{"type": "DisruptionTarget", "status": "True"}]}),
    ("J17-its node is gone", {"reason": "NodeLost"}),
    (
        "J17-evicted from a drained node",
        {"reason": "Evicted", "conditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ),
]


@pytest.mark.parametrize("pod", [pytest.param(pod, id=name) for name, pod in LOST])
def test_a_machine_that_goes_is_no_failure_of_the_program(pod):
    seen = []

    async def arrive(world):
        moment = timestamp(world.clock.now())
        failed = {"conditions": [{**FAILED["conditions"][0], "lastTransitionTime": moment}]}
        world.ending = lambda job: (failed, pod) if job["metadata"]["name"].endswith("-1") else None
        world.challenge()
        seen.append(world)

    standing.meddled(arrive, promotes=True)
    started = [j for j in seen[0].jobs_started if j.startswith(challenger())]
    assert started == [f"{challenger()}-train-1", f"{challenger()}-train-2"]


async def delete(world, kind):
    for item in await world.store.list(kind):
        if item["metadata"]["labels"].get(LABEL_REVISION) == challenger():
            await world.store.delete(key_of(item))


@pytest.mark.parametrize("kind", [pytest.param("Job", id="J18 a Job"), pytest.param("Pod", id="J18 a pod")])
def test_what_is_deleted_by_hand_is_made_again_and_costs_the_champion_nothing(kind):
    world = later(15.0, lambda world: delete(world, kind))
    assert world.promoted == challenger()


def test_j18_the_result_of_a_job_that_is_gone_is_taken_from_the_record():
    world = later(30.0, lambda world: delete(world, "Job"))
    assert world.promoted == challenger()
    assert len(set(world.jobs_started)) == 4, "nothing is trained twice"


def test_j20_a_queue_that_holds_the_training_back_is_told_and_no_deadline_runs():
    async def arrive(world):
        queued = spec("bikes")
        queued["spec"]["training"]["queueName"] = "gpus"
        world.git.repos[SPECS].commit("Queue", {"bikes.yaml": json.dumps(queued).encode()})
        world.held = True
        world.challenge()

    answer = standing.meddled(arrive, reason="Queued", words="attempt 1 does not start: the Job is suspended")
    assert answer is not None
    assert answer.kind == "ModelSpec"


def test_j21_the_first_of_two_pods_of_one_job_counts():
    async def second(world):
        for job in await world.store.list("Job"):
            if world.is_challenger(job):
                said = {"outcome": "Done", "run": "run-of-nobody", "sha256": "sha256:" + "6" * 64}
                meta = {
                    "name": f"{job['metadata']['name']}-zz",
                    "namespace": "default",
                    "labels": {
                        **job["metadata"]["labels"],
                        "batch.kubernetes.io/job-name": job["metadata"]["name"],
                    },
                    "ownerReferences": [owner_reference(job)],
                }
                made = await world.store.apply(
                    {
                        "apiVersion": "v1",
                        "kind": "Pod",
                        "metadata": meta,
                        "spec": {"containers": [{"name": "evaluate"}]},
                    }
                )
                state = {"terminated": {"exitCode": 0, "message": json.dumps(said)}}
                status = {"initContainerStatuses": [{"name": "evaluate", "state": state}]}
                await world.store.patch_status(key_of(made), status, uid=made["metadata"]["uid"])

    world = later(30.0, second)
    assert world.promoted == challenger()
    found = json.loads(json.dumps(world.last["ModelRevision/" + challenger()]["status"]))
    assert "run-of-nobody" not in json.dumps(found)


def test_j22_a_training_that_gives_another_model_each_time_is_recorded_as_what_it_gave():
    digests = iter("ef")
    made = []

    def other(data: bytes) -> bytes:
        digest = "sha256:" + next(digests) * 64
        made.append(digest)
        report = json.loads(data)
        report["artifact"]["digest"] = report["evidence"]["artifact"] = digest
        report["manifest"][0][2] = digest
        return json.dumps(report).encode()

    first = standing.report_is(other, "Succeeded", "version 2 of commit", promotes=True)
    again = standing.report_is(other, "Succeeded", "version 2 of commit", promotes=True)
    assert first == again, "the same inputs are the same revision, whatever came out"
    assert made == ["sha256:" + "e" * 64, "sha256:" + "f" * 64]


def test_j23_what_was_trained_for_the_old_spec_never_serves_the_new_one():
    async def change(world):
        training = {"command": ["python", "train.py", "--deep"], "backoffLimit": 1}
        world.git.repos[SPECS].commit("Deeper", {"bikes.yaml": file("bikes", training=training)})

    world = later(15.0, change)
    trained = {j.partition("-train-")[0] for j in world.jobs_started if j.startswith("bikes-")}
    assert challenger() in trained
    assert world.promoted != challenger(), "the old spec's result takes no traffic"
    newest = world.last["ModelSpec/bikes"]["status"]
    assert challenger() not in json.dumps(newest.get("champion"))
