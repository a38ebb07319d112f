"""What a pod template becomes on this machine: paths, environment, commands, and what is refused."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from controller.api.kinds import ModelRevision, parse
from controller.api.meta import API_VERSION
from controller.clients.errors import Denied
from controller.local.pods import MissingConfigMap, Place, plan_pod, rewriter
from controller.plan.manifests import training_job

PLACE = Place(
    "default", "train-0", PurePosixPath("/pods/train-0"), "/venv/bin/python", "/usr/bin:/bin", {"A": "b"}
)


def planned(container=None, volumes=(), config=None, place=PLACE, **spec):
    main = {"name": "train", "image": "any", "command": ["python", "train.py"], **(container or {})}
    template = {"spec": {"containers": [main], "volumes": list(volumes), **spec}}
    found = (config or {}).get
    return plan_pod(template, place, owner="uid", template_hash="", restart=False, deadline=None, config_map=found)


def mounted(path, name="work", **fields):
    return {"volumeMounts": [{"name": name, "mountPath": path, **fields}]}


WORK = [{"name": "work", "emptyDir": {}}]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        pytest.param("/mainspring/work", "/real/work", id="the path itself"),
        pytest.param("/mainspring/work/a/b.csv", "/real/work/a/b.csv", id="a path below"),
        pytest.param("--out=/mainspring/work/a", "--out=/real/work/a", id="the value of a flag"),
        pytest.param("sqlite:////mainspring/work/m.db", "sqlite:////real/work/m.db", id="a database URI"),
        pytest.param("file:///mainspring/work/m", "file:///real/work/m", id="a file URI"),
        pytest.param("cat /mainspring/work/a >/mainspring/work/b", "cat /real/work/a >/real/work/b", id="script"),
        pytest.param("/mainspring/work:/mainspring/work/data", "/real/work:/real/data", id="a path list"),
        pytest.param("/mainspring/workshop", "/mainspring/workshop", id="not a longer name"),
        pytest.param("/data/mainspring/work", "/data/mainspring/work", id="not inside another path"),
        pytest.param("https://host/mainspring/work", "https://host/mainspring/work", id="not inside a URL"),
    ],
)
def test_mount_paths_become_directories_of_the_pod(text, wanted):
    assert rewriter({"/mainspring/work": "/real/work", "/mainspring/work/data": "/real/data"})(text) == wanted


def test_command_arguments_environment_and_working_directory_are_rewritten():
    env = [{"name": "OUT", "value": "/w/out"}, {"name": "DB", "value": "sqlite:///$(OUT)/db"}]
    main = {"args": ["--x", "$(OUT)/x"], "env": env, "workingDir": "/w", **mounted("/w")}
    made = planned(main, WORK).containers[0]
    assert made.argv == ["/venv/bin/python", "train.py", "--x", "/pods/train-0/volumes/work/out/x"]
    assert made.env["OUT"] == "/pods/train-0/volumes/work/out"
    assert made.env["DB"] == "sqlite:////pods/train-0/volumes/work/out/db"
    assert made.cwd == "/pods/train-0/volumes/work"


def test_a_sub_path_is_a_part_of_its_volume():
    config = {"tasks": {"fetch.json": "{}"}}
    volumes = [{"name": "tasks", "configMap": {"name": "tasks"}}]
    main = {"args": ["/mainspring/task.json"], **mounted("/mainspring/task.json", "tasks", subPath="fetch.json")}
    plan = planned(main, volumes, config)
    assert plan.containers[0].argv[-1] == "/pods/train-0/volumes/tasks/fetch.json"
    assert plan.volumes == {"volumes/tasks": {"fetch.json": "{}"}}


def test_a_server_is_told_its_port_and_an_init_container_is_not():
    place = Place("default", "s-0", PurePosixPath("/p"), "/venv/bin/python", "/bin", port=20_123)
    fetch = {"name": "fetch", "command": ["fetch"]}
    plan = planned({}, initContainers=[fetch], place=place)
    assert "PORT" not in plan.containers[0].env
    assert plan.containers[1].env["PORT"] == "20123"


def test_what_the_controller_adds_never_hides_what_the_spec_says():
    made = planned({"env": [{"name": "A", "value": "spec"}, {"name": "HOME", "value": "/home"}]}).containers[0]
    assert (made.env["A"], made.env["HOME"]) == ("spec", "/home")


@pytest.mark.parametrize(
    ("container", "volumes", "spec", "said"),
    [
        pytest.param({"command": []}, (), {}, "containers[train].command: is required", id="no command"),
        pytest.param(mounted("/x", "gone"), (), {}, "there is no volume gone", id="a mount without volume"),
        pytest.param(mounted("/w", subPath="../x"), WORK, {}, "../x leaves its volume", id="a sub path upwards"),
        pytest.param({}, [{"name": "s", "secret": {}}], {}, "volumes[s]: secret; local mode has", id="a Secret"),
        pytest.param({"envFrom": [{}]}, (), {}, "containers[train].envFrom", id="envFrom"),
        pytest.param(
            {"env": [{"name": "K", "valueFrom": {"secretKeyRef": {}}}]}, (), {}, "env[K]: local mode", id="a key"
        ),
        pytest.param(
            {},
            (),
            {"initContainers": [{"name": "log", "command": ["x"], "restartPolicy": "Always"}]},
            "initContainers[log]: local mode has no sidecars",
            id="a sidecar",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_the_field(container, volumes, spec, said):
    with pytest.raises(Denied) as refusal:
        planned(container, volumes, **spec)
    assert refusal.value.reason == "Unsupported"
    assert said in refusal.value.message


def test_a_config_map_that_is_missing_may_come_later():
    with pytest.raises(MissingConfigMap, match="ConfigMap tasks does not exist"):
        planned({}, [{"name": "tasks", "configMap": {"name": "tasks"}}])


def test_a_config_map_cannot_write_outside_its_volume():
    volume = {"name": "c", "configMap": {"name": "c", "items": [{"key": "k", "path": "../../x"}]}}
    with pytest.raises(Denied, match="leaves its volume"):
        planned({}, [volume], {"c": {"k": "v"}})


def revision():
    spec = {
        "model": "bikes",
        "inputs": "v1:" + "0" * 64,
        "source": {"url": "https://git.example.com/team/bikes.git", "commit": "a" * 40, "files": "v1:1"},
        "data": [
            {"name": "hourly", "path": "data/hour.csv", "digest": "gitblob:1"},
            {"name": "extra", "uri": "https://data.example.com/extra.csv", "digest": "sha256:1"},
        ],
        "columns": {"target": "cnt"},
        "holdout": {"fraction": 0.2},
        "training": {"command": ["python", "train.py"], "seed": 42},
        "trigger": {"type": "Commit"},
    }
    meta = {"name": "bikes-0123456789", "namespace": "default", "uid": "u"}
    manifest = {"apiVersion": API_VERSION, "kind": "ModelRevision", "metadata": meta, "spec": spec}
    parsed = parse(manifest)
    assert isinstance(parsed, ModelRevision), parsed
    return parsed, manifest


def test_no_path_of_the_pod_is_left_in_a_training_job_that_the_controller_makes():
    parsed, owner = revision()
    job = training_job(
        parsed,
        owner,
        attempt=1,
        deadline_s=60,
        tracking_uri="http://127.0.0.1:5000",
        champion=f"sha256:{'1' * 64}",
        checks="sha256:1",
    )
    tasks = {f"{step}.json": "{}" for step in ("fetch", "predict-champion", "predict", "evaluate")}
    plan = plan_pod(
        job["spec"]["template"],
        PLACE,
        owner="uid",
        template_hash="",
        restart=False,
        deadline=60,
        config_map={job["metadata"]["name"]: tasks}.get,
    )
    made = {c.name: c for c in plan.containers}
    assert list(made) == ["fetch", "train", "predict-champion", "predict", "evaluate"]
    left = [t for c in plan.containers for t in [*c.argv, *c.env.values(), c.cwd] if "/mainspring" in t]
    assert left == []
    train = made["train"]
    assert train.cwd == "/pods/train-0/volumes/work"
    assert train.env["MAINSPRING_DATA_HOURLY"] == "/pods/train-0/volumes/work/data/hour.csv"
    assert train.env["MLFLOW_TRACKING_URI"].startswith("sqlite:////pods/train-0/volumes/output/")
    assert made["predict"].argv[:3] == ["/venv/bin/python", "-m", "controller.serving.predict"]
