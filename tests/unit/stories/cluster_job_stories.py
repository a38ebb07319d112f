"""Stories about the pods of trainings on a cluster: how each end of one is told, and what it costs.

Told by test_cluster_stories.py like all others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from controller.api.meta import Key, Manifest
from tests.support.cluster_simulation import ClusterSimulation
from tests.support.stories import FIRST
from tests.unit.stories.cluster_begin import begin, spec


def first_attempt(fate: str) -> Callable[[str], str]:
    """Let the first attempt end in one way, and all others well."""
    return lambda job: fate if job.endswith("-1") else "Done"


async def train(s: ClusterSimulation, seconds: float = 120, **training: object) -> None:
    """Commit the first model, and let time pass."""
    s.git.commit("Predict bikes", FIRST)
    await s.store.apply(spec(training=training))
    await s.run(seconds)


async def attempts(s: ClusterSimulation) -> list[tuple[str, str]]:
    """Read how the attempts at the only revision ended."""
    (revision,) = await s.store.list("ModelRevision")
    return [(a["outcome"], a.get("reason", "")) for a in revision["status"].get("attempts", ())]


async def serves(s: ClusterSimulation) -> bool:
    """Tell whether the model is Ready."""
    return bool((await s.condition())["status"] == "True")


async def a_training_out_of_memory_is_tried_again(s: ClusterSimulation) -> None:
    s.fate = first_attempt("OOMKilled")
    await train(s)
    assert await attempts(s) == [("Failed", "OutOfMemory"), ("Succeeded", "")]
    assert await serves(s)


async def a_training_takes_too_long_every_time(s: ClusterSimulation) -> None:
    s.fate = lambda _: "TooLong"
    await train(s, 200, activeDeadlineSeconds=60)
    assert await attempts(s) == [("Failed", "DeadlineExceeded")] * 2
    assert "took longer than training.activeDeadlineSeconds, 60 s" in (await s.condition())["message"]


async def an_image_that_is_not_there(s: ClusterSimulation) -> None:
    s.fate = lambda _: "ImagePullBackOff"
    await train(s, 20, activeDeadlineSeconds=60, backoffLimit=0, image="images.example.com/tain:1")
    waiting = await s.condition()
    assert waiting["reason"] == "PodNotStarted"
    assert "ImagePullBackOff: Back-off pulling image" in waiting["message"]
    await s.run(60)
    assert await attempts(s) == [("Failed", "PodNotStarted")]
    message = (await s.condition())["message"]
    assert "never started within training.activeDeadlineSeconds, 60 s: train: ImagePullBackOff" in message


async def no_node_has_room(s: ClusterSimulation) -> None:
    s.fate = first_attempt("Unschedulable")
    await train(s, 150, activeDeadlineSeconds=60)
    assert await attempts(s) == [("Failed", "PodNotStarted"), ("Succeeded", "")]


async def an_evicted_pod_costs_no_attempt(s: ClusterSimulation) -> None:
    s.fate = first_attempt("Evicted")
    await train(s, backoffLimit=0)
    assert await attempts(s) == [("Lost", "Lost"), ("Succeeded", "")]
    assert await serves(s)


async def a_drained_node_costs_no_attempt(s: ClusterSimulation) -> None:
    s.fate = first_attempt("Drained")
    await train(s, backoffLimit=0)
    assert await attempts(s) == [("Lost", "Lost"), ("Succeeded", "")]
    assert await serves(s)


async def a_program_that_fills_its_volume_is_not_tried_for_ever(s: ClusterSimulation) -> None:
    s.fate = lambda _: "VolumeFull"
    await train(s, 200)
    assert await attempts(s) == [("Failed", "DiskLimitExceeded")] * 2
    assert 'Usage of EmptyDir volume "output" exceeds the limit "20Gi".' in (await s.condition())["message"]


async def somebody_deletes_the_pod(s: ClusterSimulation) -> None:
    s.fate = first_attempt("Deleted")
    await train(s)
    assert await attempts(s) == [("Failed", "PodGone"), ("Succeeded", "")]


async def a_program_that_fails_is_tried_again_and_told(s: ClusterSimulation) -> None:
    s.fate = lambda _: "Error"
    await train(s, 200)
    assert await attempts(s) == [("Failed", "TrainingFailed")] * 2
    assert "exit code 1: ValueError: no such column: temp" in (await s.condition())["message"]


async def exit_code_3_of_a_program_means_nothing_special(s: ClusterSimulation) -> None:
    s.fate = first_attempt("Code3")
    await train(s)
    assert await attempts(s) == [("Failed", "TrainingFailed"), ("Succeeded", "")]


async def wrong_input_is_not_tried_again(s: ClusterSimulation) -> None:
    s.refuse_data = lambda _: True
    await train(s)
    assert await attempts(s) == [("Failed", "DataInvalid")]
    assert (await s.condition("Stalled"))["status"] == "True"


async def a_queue_holds_the_training_back(s: ClusterSimulation) -> None:
    s.queue_holds = True
    await train(s, 30, queueName="team-a", activeDeadlineSeconds=60)
    waiting = await s.condition()
    assert (waiting["reason"], "it waits in queue team-a" in waiting["message"]) == ("Queued", True)
    await s.run(60)
    s.queue_holds = False
    await s.run(60)
    assert await attempts(s) == [("Succeeded", "")], "waiting in a queue counts against no deadline"
    assert await serves(s)


async def a_job_goes_only_after_its_result_was_taken_in(s: ClusterSimulation) -> None:
    s.registry.down = True
    s.git.commit("Predict bikes", FIRST)
    await s.store.apply(spec())
    await s.run(10)
    s.registry.down = False
    await s.run(20)
    job = await only_job(s)
    assert "ttlSecondsAfterFinished" not in job["spec"], "its result is still to come"
    await s.run(20)
    s.registry.down = True
    await s.run(30)
    s.registry.down = False
    await s.run(60)
    job = await only_job(s)
    assert job["spec"]["ttlSecondsAfterFinished"] == 86_400
    assert await serves(s)


async def only_job(s: ClusterSimulation) -> Manifest:
    """Read the only Job that there is."""
    (job,) = await s.store.list("Job")
    return job


async def a_job_that_has_expired_costs_no_training(s: ClusterSimulation) -> None:
    await begin(s)
    (job,) = [m["metadata"]["name"] for m in await s.store.list("Job")]
    s.clock.advance(86_400)
    await s.run(30)
    assert await s.store.get(Key("Job", "default", job)) is None
    assert s.jobs_started == [job]
    assert await serves(s)


async def evidence_is_renewed_and_the_image_of_the_training_is_still_known(s: ClusterSimulation) -> None:
    await begin(s)
    manifest = spec()
    manifest["spec"]["checks"] = [{"name": "volume", "minRows": 10}]
    s.git.commit("More trees", {"quality": b"120"})
    await s.run(60)
    await s.store.apply(manifest)
    await s.run(80)
    measured = s.jobs_started[-1].removesuffix("-evaluate-2")
    images = (await s.end_state())["images"][measured]
    assert sorted(images) == ["evaluate", "fetch", "predict", "predict-champion", "train"]
    assert all("@sha256:" in image for image in images.values())


async def a_login_that_is_refused_costs_no_attempt(s: ClusterSimulation) -> None:
    s.fate = lambda job: "Done" if job.endswith("-4") else "LoginRefused"
    await train(s, 210, backoffLimit=0)
    assert await attempts(s) == [("Refused", "LoginRefused")] * 3 + [("Succeeded", "")]
    assert await serves(s)


async def the_jobs_of_failed_attempts_are_deleted_but_the_newest_ones_log_is_kept(s: ClusterSimulation) -> None:
    s.fail_training = lambda _: True
    await train(s, 150, backoffLimit=2)
    assert await attempts(s) == [("Failed", "TrainingFailed")] * 3
    jobs = {job["metadata"]["name"]: job["spec"] for job in await s.store.list("Job")}
    kept = {name.rpartition("-")[2]: spec.get("ttlSecondsAfterFinished") for name, spec in jobs.items()}
    assert kept == {"1": 86_400, "2": 86_400, "3": None}
    s.clock.advance(86_400)
    await s.run(30)
    assert (await only_job(s))["metadata"]["name"].endswith("-train-3")
    assert (await s.condition())["reason"] == "TrainingFailed"


async def a_commit_that_failed_and_is_asked_for_again_is_not_trained_again(s: ClusterSimulation) -> None:
    await begin(s)
    s.fail_training = lambda _: True
    s.git.commit("Use temperature", {"quality": b"40"})
    await s.run(150)
    started = list(s.jobs_started)
    s.git.revert("Revert: Use temperature")
    await s.run(30)
    s.clock.advance(86_400)
    await s.run(30)
    left = [job["metadata"]["name"] for job in await s.store.list("Job")]
    assert left == [], "nobody asks for it: its Jobs are gone"
    s.git.revert("Revert: Revert: Use temperature")
    await s.run(60)
    assert s.jobs_started == started
    told = await s.condition()
    assert told["reason"] == "TrainingFailed"
    assert "exit code 1: ValueError: no such column: temp (2 of 2 attempts failed)" in told["message"]


JOB_STORIES: tuple[Callable[[ClusterSimulation], Awaitable[None]], ...] = (
    a_training_out_of_memory_is_tried_again,
    a_training_takes_too_long_every_time,
    an_image_that_is_not_there,
    no_node_has_room,
    an_evicted_pod_costs_no_attempt,
    a_drained_node_costs_no_attempt,
    a_program_that_fills_its_volume_is_not_tried_for_ever,
    somebody_deletes_the_pod,
    a_program_that_fails_is_tried_again_and_told,
    exit_code_3_of_a_program_means_nothing_special,
    wrong_input_is_not_tried_again,
    a_queue_holds_the_training_back,
    a_job_goes_only_after_its_result_was_taken_in,
    a_job_that_has_expired_costs_no_training,
    evidence_is_renewed_and_the_image_of_the_training_is_still_known,
    a_login_that_is_refused_costs_no_attempt,
    the_jobs_of_failed_attempts_are_deleted_but_the_newest_ones_log_is_kept,
    a_commit_that_failed_and_is_asked_for_again_is_not_trained_again,
)
