"""Which container of a pod mounts which Secret: the one that needs it, as files, and no other."""

from __future__ import annotations

import json

import pytest

from controller.api.kinds import ModelRevision, ModelSpec
from controller.plan import servers, tasks
from controller.plan.manifests import training_job
from controller.plan.pods import PodSecrets, PodSettings

SETTINGS = PodSettings(hardened=True)
OWNER = {"apiVersion": "mainspring.dev/v1alpha1", "kind": "ModelSpec", "metadata": {"name": "churn", "uid": "1"}}
URL, DATA = "https://git.example.com/churn.git", "https://data.example.com/train.csv"


def model(url=URL, data=DATA, **more):
    spec = {
        "source": {"url": url, "ref": {"branch": "main"}, "secretRef": {"name": "churn-git"}},
        "data": [
            {"name": "train", "uri": data, "digest": f"sha256:{'0' * 64}", "secretRef": {"name": "churn-data"}},
            {"name": "extra", "path": "extra.csv.dvc", "secretRef": {"name": "churn-s3"}},
            {"name": "plain", "path": "plain.csv"},
        ],
        "columns": {"target": "y"},
        "training": {"command": ["python", "train.py"]},
        **more,
    }
    return ModelSpec.model_validate({"metadata": {"name": "churn", "namespace": "ml"}, "spec": spec})


def revision(url=URL, data=DATA):
    pinned = [
        {"name": "train", "uri": data, "digest": f"sha256:{'0' * 64}"},
        {"name": "extra", "path": "extra.csv", "pointer": "extra.csv.dvc", "digest": f"md5:{'0' * 32}"},
        {"name": "plain", "path": "plain.csv", "digest": f"gitblob:{'0' * 40}"},
    ]
    spec = {
        "model": "churn",
        "inputs": "v1:0",
        "source": {"url": url, "commit": "0" * 40, "files": "v1:0"},
        "data": pinned,
        "columns": {"target": "y"},
        "holdout": {},
        "training": {"command": ["python", "train.py"], "seed": 1},
        "trigger": {"type": "Commit"},
    }
    return ModelRevision.model_validate({"metadata": {"name": "churn-1", "namespace": "ml"}, "spec": spec})


def job(secrets):
    return training_job(
        revision(),
        OWNER,
        attempt=1,
        deadline_s=60,
        tracking_uri="http://mlflow",
        champion=f"sha256:{'1' * 64}",
        checks="",
        settings=SETTINGS,
        secrets=secrets,
    )["spec"]["template"]["spec"]


def mounted(pod):
    """Container → path → Secret."""
    sources = {v["name"]: v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v}
    containers = (*pod.get("initContainers", ()), *pod["containers"])
    found = {
        c["name"]: {m["mountPath"]: sources[m["name"]] for m in c["volumeMounts"] if m["name"] in sources}
        for c in containers
    }
    assert all(m["readOnly"] for c in containers for m in c["volumeMounts"] if m["name"] in sources), (
        "nobody writes credentials"
    )
    return {name: paths for name, paths in found.items() if paths}


def test_only_fetch_sees_the_logins_for_code_and_data_and_only_two_steps_the_registrys():
    secrets = tasks.secrets(revision(), model(registry={"secretRef": {"name": "mlflow"}}))
    assert mounted(job(secrets)) == {
        "fetch": {
            "/mainspring/credentials/git": "churn-git",
            "/mainspring/credentials/data/train": "churn-data",
            "/mainspring/credentials/data/extra": "churn-s3",
            "/mainspring/credentials/registry": "mlflow",
        },
        "evaluate": {"/mainspring/credentials/registry": "mlflow"},
    }


def test_without_a_name_the_well_known_secret_is_mounted_where_there_is_one():
    pod = job(PodSecrets())
    volume = next(v for v in pod["volumes"] if v["name"] == "registry-credentials")
    assert volume["secret"] == {"secretName": "mainspring-registry", "optional": True, "defaultMode": 0o440}
    assert set(mounted(pod)) == {"fetch", "evaluate"}


def test_a_named_secret_must_be_there():
    volumes = {v["name"]: v for v in job(tasks.secrets(revision(), model()))["volumes"]}
    assert all("optional" not in volumes[n]["secret"] for n in ("git-credentials", "data-credentials-0"))


@pytest.mark.parametrize(
    ("then", "left"),
    [
        pytest.param({"url": "https://old.example.com/churn.git"}, "git", id="the repository has moved"),
        pytest.param({"url": "ssh://git@git.example.com/churn.git"}, "git", id="it was reached by ssh"),
        pytest.param({"data": "https://old.example.com/train.csv"}, "data/train", id="the data have moved"),
        pytest.param({"data": "http://data.example.com/train.csv"}, "data/train", id="the data came in clear"),
    ],
)
def test_a_server_that_the_spec_has_left_gets_nothing_of_the_new_ones_login(then, left):
    found = mounted(job(tasks.secrets(revision(**then), model())))["fetch"]
    assert f"/mainspring/credentials/{left}" not in found
    assert len(found) == 3


def test_another_path_on_the_same_server_keeps_its_login():
    then = revision(url="https://git.example.com/old-name.git", data="https://data.example.com/v1.csv")
    assert len(mounted(job(tasks.secrets(then, model())))["fetch"]) == 4


def test_a_server_whose_usual_port_is_written_out_is_the_same_server():
    then = revision(url="https://git.example.com:443/churn.git")
    assert len(mounted(job(tasks.secrets(then, model())))["fetch"]) == 4


def test_the_model_server_itself_mounts_no_secret():
    built = servers.deployment(
        model(registry={"secretRef": {"name": "mlflow"}}),
        OWNER,
        name="churn-1",
        revision="churn-1",
        run="r",
        digest="sha256:0",
        version="1",
        commit="0",
        tracking_uri="http://mlflow",
        replicas=1,
        settings=SETTINGS,
    )
    pod = built["spec"]["template"]["spec"]
    assert mounted(pod) == {"fetch-model": {"/mainspring/credentials/registry": "mlflow"}}


def test_which_secret_is_named_is_in_no_variable_argument_or_hash():
    pod = job(tasks.secrets(revision(), model()))
    containers = json.dumps([{k: c.get(k) for k in ("env", "command")} for c in pod["initContainers"]])
    assert "churn-git" not in containers
    assert "churn-data" not in containers
