"""Promises of the runner about Jobs: order, files between steps, failures, deadlines, exactly one execution."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal

import pytest

from controller.api.meta import key_of
from tests.support.processes import is_alive
from tests.unit.local.runner_world import World, manifest, processes_in, step, until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def world(tmp_path):
    made = World(tmp_path)
    yield made
    await made.runner.stop_all()
    made.store.close()
    assert processes_in(tmp_path) == []


def told_by(pod):
    states = pod["status"]["initContainerStatuses"] + pod["status"]["containerStatuses"]
    return {s["name"]: s["state"] for s in states}


async def test_three_containers_run_in_order_and_pass_files_through_a_volume(world):
    read = "import os, pathlib; text = pathlib.Path('/shared/note').read_text()"
    say = f"{read}; open(os.environ['MAINSPRING_TERMINATION_LOG'], 'w').write(text + ' and told')"
    await world.job(
        "train",
        step("fetch", "open('/shared/note', 'w').write('fetched')"),
        step("train", f"{read}; open('/shared/note', 'w').write(text + ' and trained')"),
        step("evaluate", say),
    )
    async with world.running():
        ended = await world.job_ended("train")
    assert ended["type"] == "Complete"
    status = await world.status("Job", "train")
    assert status["succeeded"] == 1
    assert status["completionTime"] >= status["startTime"]
    pod = await world.get("Pod", "train-0")
    assert pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] == "train"
    assert pod["metadata"]["ownerReferences"][0]["name"] == "train"
    assert pod["status"]["phase"] == "Succeeded"
    states = told_by(pod)
    assert [states[name]["terminated"]["exitCode"] for name in ("fetch", "train", "evaluate")] == [0, 0, 0]
    assert states["evaluate"]["terminated"]["message"] == "fetched and trained and told"


async def test_the_first_failure_ends_the_job_and_says_which_container_and_why(world):
    fail = "import os, sys; open(os.environ['MAINSPRING_TERMINATION_LOG'], 'w').write('no rows left'); sys.exit(3)"
    await world.job("train", step("fetch", fail), step("train", "open('/shared/ran', 'w')"))
    async with world.running():
        ended = await world.job_ended("train")
    assert (ended["type"], ended["reason"]) == ("Failed", "BackoffLimitExceeded")
    assert ended["message"] == "container fetch exited with code 3: no rows left"
    states = told_by(await world.get("Pod", "train-0"))
    assert states["fetch"]["terminated"]["exitCode"] == 3
    assert states["train"] == {"waiting": {"reason": "PodInitializing"}}
    assert not (world.root / "pods/default/train-0/volumes/shared/ran").exists()


async def test_a_job_over_its_deadline_is_stopped_with_all_it_started(world):
    code = "import subprocess, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    code += "subprocess.Popen(['sleep', '600'], start_new_session=True); subprocess.run(['sleep', '600'])"
    await world.job("slow", step("train", code), activeDeadlineSeconds=1, pod={"terminationGracePeriodSeconds": 0})
    async with world.running():
        ended = await world.job_ended("slow")
    assert ended["reason"] == "DeadlineExceeded"
    assert ended["message"] == "container train was stopped: the deadline of 1 s passed"
    assert [p for p in processes_in(world.path) if b"sleep" in p[1]] == []


COUNT = "open('/shared/runs', 'a').write('x'); import os, time"
WAIT = f"""{COUNT}
while not os.path.exists('/shared/go'): time.sleep(0.01)
"""


def volume(world, job):
    return world.root / "pods" / "default" / f"{job}-0" / "volumes" / "shared"


async def test_a_job_survives_sigkill_of_the_controller_and_the_next_one_adopts_its_end(world):
    await world.job("train", step("fetch", COUNT), step("train", WAIT), step("evaluate", COUNT))
    first = world.controller_process()
    try:
        await until((volume(world, "train") / "runs").exists, "the first container ran")
        await until(lambda: (volume(world, "train") / "runs").read_text() == "xx", "the second container runs")
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    assert is_alive(world.pid_of("train-0", "train"))
    (volume(world, "train") / "go").touch()
    await until((volume(world, "train").parent.parent / "done.json").exists, "it ends without a controller")
    async with world.running():
        ended = await world.job_ended("train")
    assert ended["type"] == "Complete"
    assert (volume(world, "train") / "runs").read_text() == "xxx"


async def test_a_job_is_started_once_however_many_controllers_are_killed_while_they_start_it(world):
    for round_ in range(3):
        await world.job(f"train-{round_}", step("train", COUNT))
        killed = world.controller_process()
        await until(lambda r=round_: volume(world, f"train-{r}").exists(), "the pod's directory is there")
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
    async with world.running():
        for round_ in range(3):
            assert (await world.job_ended(f"train-{round_}"))["type"] == "Complete"
            assert (volume(world, f"train-{round_}") / "runs").read_text() == "x"


async def test_two_runners_at_once_run_every_job_once(world):
    names = [f"job-{i}" for i in range(6)]
    for name in names:
        await world.job(name, step("train", COUNT))
    async with world.running(world.runner, world.new_runner(), world.new_runner()):
        for name in names:
            assert (await world.job_ended(name))["type"] == "Complete"
            assert (volume(world, name) / "runs").read_text() == "x"


async def test_a_runner_does_nothing_while_another_one_acts(world):
    await world.job("train", step("train", COUNT))
    with (world.root / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(world.runner.sync(), timeout=0.3)
        assert not volume(world, "train").exists()
    await world.runner.sync()
    assert volume(world, "train").exists()


async def test_a_killed_shim_is_a_lost_node_and_takes_its_container_with_it(world):
    await world.job("train", step("train", f"import subprocess\nsubprocess.Popen(['sleep', '600'])\n{WAIT}"))
    async with world.running():
        await until((volume(world, "train") / "runs").exists, "the container runs")
        pid = world.pid_of("train-0", "train")
        os.kill(world.shim_of("train-0"), signal.SIGKILL)
        ended = await world.job_ended("train")
        await until(lambda: not is_alive(pid), "the container is gone")
    assert (ended["type"], ended["reason"]) == ("Failed", "NodeLost")
    assert "the process that ran container train disappeared" in ended["message"]
    pod = await world.get("Pod", "train-0")
    assert (pod["status"]["phase"], pod["status"]["reason"]) == ("Failed", "Lost")
    assert [p for p in processes_in(world.path) if b"sleep" in p[1]] == []


async def test_a_deleted_job_is_stopped_and_its_directory_removed(world):
    await world.job("train", step("train", WAIT))
    async with world.running():
        await until((volume(world, "train") / "runs").exists, "the container runs")
        pid = world.pid_of("train-0", "train")
        await world.store.delete(await key(world, "Job", "train"))
        await until(lambda: not volume(world, "train").parent.parent.exists(), "the directory is gone")
    assert not is_alive(pid)
    assert await world.get("Pod", "train-0") is None


async def test_a_namesake_of_a_deleted_job_runs_anew(world):
    await world.job("train", step("train", "open('/shared/runs', 'a').write('old')"))
    async with world.running():
        await world.job_ended("train")
        await world.store.delete(await key(world, "Job", "train"))
        await world.job("train", step("train", "open('/shared/runs', 'a').write('new')"))
        assert (await world.job_ended("train"))["type"] == "Complete"
    assert (volume(world, "train") / "runs").read_text() == "new"


async def test_stopping_everything_ends_a_running_job_as_a_node_that_was_shut_down(world):
    await world.job("train", step("train", WAIT))
    async with world.running():
        await until((volume(world, "train") / "runs").exists, "the container runs")
    await world.runner.stop_all()
    ended = await world.job_ended("train")
    assert (ended["type"], ended["reason"]) == ("Failed", "NodeShutdown")
    assert ended["message"] == "local mode was stopped while container train ran"
    assert processes_in(world.path) == []


async def test_a_job_waits_for_its_config_map_and_reads_only_its_own_key(world):
    mounts = [{"name": "tasks", "mountPath": "/mainspring/task.json", "subPath": "fetch.json", "readOnly": True}]
    show = "import os, sys; open(os.environ['MAINSPRING_TERMINATION_LOG'], 'w').write(open(sys.argv[1]).read())"
    fetch = step("fetch", show, args=["/mainspring/task.json"], volumeMounts=mounts)
    await world.job("train", fetch, volumes=[{"name": "tasks", "configMap": {"name": "train"}}])
    async with world.running():

        async def waits():
            return (await world.status("Pod", "train-0")).get("phase") == "Pending"

        await until(waits, "the pod waits")
        assert (await world.status("Pod", "train-0"))["message"] == "ConfigMap train does not exist"
        data = {"fetch.json": "the task", "evaluate.json": "another's"}
        await world.store.apply({**manifest("ConfigMap", "train", {}), "data": data})
        assert (await world.job_ended("train"))["type"] == "Complete"
    states = told_by(await world.get("Pod", "train-0"))
    assert states["fetch"]["terminated"]["message"] == "the task"


async def test_what_local_mode_does_not_have_is_refused_in_the_jobs_status(world):
    await world.job("train", step("train", ""), volumes=[{"name": "shared", "hostPath": {"path": "/"}}])
    async with world.running():
        ended = await world.job_ended("train")
    assert (ended["type"], ended["reason"]) == ("Failed", "Unsupported")
    wanted = "Pod default/train-0: volumes[shared]: hostPath; local mode has emptyDir and configMap"
    assert ended["message"] == wanted


async def test_a_container_gets_its_own_environment_and_nothing_of_the_controllers(world, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "secret")
    code = "import json, os; open('/shared/env', 'w').write(json.dumps(dict(os.environ)))"
    await world.job("train", step("train", code, env=[{"name": "SEED", "value": "42"}]))
    async with world.running():
        await world.job_ended("train")
    env = json.loads((volume(world, "train") / "env").read_text())
    assert env["SEED"] == "42"
    assert env.keys() - {"LC_CTYPE"} == {
        *("PATH", "HOME", "TMPDIR", "MPLCONFIGDIR", "LANG", "PYTHONUNBUFFERED"),
        *("MAINSPRING_TERMINATION_LOG", "SEED"),
    }
    assert env["HOME"].startswith(str(world.root))


async def key(world, kind, name):
    return key_of(await world.get(kind, name))
