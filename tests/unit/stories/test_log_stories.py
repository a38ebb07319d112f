"""The prediction log from the ModelSpec's side: who mounts the store's login, what people read, what rolls."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controller.api.meta import Manifest
from controller.plan.pods import GRACE_S
from tests.support.cluster_simulation import ClusterSimulation
from tests.support.stories import FIRST
from tests.unit.stories.cluster_begin import begin, spec
from tests.unit.stories.test_secret_stories import SecretSimulation

pytestmark = pytest.mark.anyio

KEYS = {"accesskey": "AKIDLOGS", "secretkey": "n0tAKeyOfAnybody"}
STORE: dict[str, Any] = {"uri": "s3://logs/bikes", "secretRef": {"name": "logs"}}
LOG: dict[str, Any] = {"storage": STORE, "retention": "48h"}


async def logged(s: ClusterSimulation) -> tuple[str, str, str]:
    """Read the condition PredictionsLogged; three empty texts without."""
    (model,) = await s.store.list("ModelSpec")
    found = [c for c in model["status"]["conditions"] if c["type"] == "PredictionsLogged"]
    return (found[0]["status"], found[0]["reason"], found[0]["message"]) if found else ("", "", "")


async def server_pod(s: ClusterSimulation) -> Manifest:
    (deployment,) = await s.deployments()
    found: Manifest = deployment["spec"]["template"]["spec"]
    return found


async def say(s: ClusterSimulation, reason: str, message: str = "", lost: float = 0.0) -> None:
    """Let every server say how its log is shipped."""
    s.traffic.counted = {k: v for k, v in s.traffic.counted.items() if "|log=" not in k and "|lost" not in k}
    for pod in await s.store.list("Pod"):
        name = pod["metadata"]["name"]
        s.traffic.counted |= {f"{name}|log={reason}|{message}": 1.0, f"{name}|lost": lost}


async def apply(s: ClusterSimulation, **serving: Any) -> None:
    await s.store.apply(spec(**serving))
    await s.run(120)


async def serving(**more: Any) -> SecretSimulation:
    """Begin with a model that serves, and with the Secret of a store."""
    s = SecretSimulation()
    s.put("logs", **KEYS)
    s.git.commit("Predict bikes", FIRST)
    await apply(s, **more)
    return s


async def test_nothing_is_said_where_nobody_asked_for_a_log() -> None:
    s = ClusterSimulation()
    await begin(s)
    pod = await server_pod(s)
    assert await logged(s) == ("", "", "")
    assert [c["name"] for c in pod["initContainers"]] == ["fetch-model"]
    assert "log" not in {v["name"] for v in pod["volumes"]}


async def test_a_sidecar_ships_the_log_and_alone_has_the_login_of_the_store() -> None:
    s = await serving(predictionLog=LOG)
    pod = await server_pod(s)
    fetch, ship = pod["initContainers"]
    (server,) = pod["containers"]
    assert (ship["name"], ship["restartPolicy"], "restartPolicy" in fetch) == ("ship-log", "Always", False)
    assert ship["command"][-8:] == [
        "--spool", "/mainspring/log", "--uri", "s3://logs/bikes", "--model", "bikes", "--retention-s", "172800",
    ]  # fmt: skip
    mounted = {c["name"]: {m["name"] for m in c["volumeMounts"]} for c in (fetch, ship, server)}
    assert "log-credentials" in mounted["ship-log"]
    assert "log-credentials" not in mounted["server"] | mounted["fetch-model"]
    assert "log" in mounted["server"] & mounted["ship-log"]
    assert "registry-credentials" not in mounted["ship-log"]
    volumes = {v["name"]: v for v in pod["volumes"]}
    assert volumes["log-credentials"]["secret"] == {"secretName": "logs", "defaultMode": 0o440, "optional": True}
    assert pod["terminationGracePeriodSeconds"] > GRACE_S
    assert ship["securityContext"] == server["securityContext"]
    assert ship["image"] == server["image"], "who writes the spool and who reads it are of one version"
    told = {e["name"]: e.get("value") for e in server["env"]}
    config = json.loads(told["MAINSPRING_PREDICTION_LOG"])
    assert {k: config[k] for k in ("spool", "mode", "sample", "sensitive", "policy")} == {
        "spool": "/mainspring/log", "mode": "All", "sample": 1.0, "sensitive": [], "policy": "Drop",
    }  # fmt: skip
    assert KEYS["secretkey"] not in json.dumps(pod)


async def test_turning_the_log_on_and_off_is_a_rolling_change_and_trains_nothing() -> None:
    s = await serving()
    trained = len(await s.jobs())
    await apply(s, predictionLog=LOG)
    assert [c["name"] for c in (await server_pod(s))["initContainers"]] == ["fetch-model", "ship-log"]
    assert "resources, nodes or log" in "".join(e["message"] for e in await s.store.list("Event"))
    before = await server_pod(s)
    await apply(s, predictionLog={**LOG, "sample": 0.5})
    assert await server_pod(s) != before
    await apply(s, predictionLog={**LOG, "mode": "Off"})
    assert [c["name"] for c in (await server_pod(s))["initContainers"]] == ["fetch-model"]
    assert await logged(s) == ("", "", "")
    assert len(await s.jobs()) == trained
    assert (await s.condition())["status"] == "True"


async def test_a_sensitive_column_reaches_the_servers_and_moves_no_revision() -> None:
    s = await serving(predictionLog=LOG)
    (before,) = await s.store.list("ModelRevision")
    changed = spec(predictionLog={**LOG, "sensitive": "Hash"})
    changed["spec"]["columns"]["sensitive"] = ["email", "$(HOME)"]
    await s.store.apply(changed)
    await s.run(120)
    (after,) = await s.store.list("ModelRevision")
    assert after["metadata"]["name"] == before["metadata"]["name"]
    assert "sensitive" not in after["spec"]["columns"]
    (told,) = (e["value"] for e in (await server_pod(s))["containers"][0]["env"] if "PREDICTION_LOG" in e["name"])
    config = json.loads(told.replace("$$", "$"))
    assert (config["sensitive"], config["policy"]) == (["email", "$(HOME)"], "Hash")
    assert "$$(HOME)" in told, "Kubernetes would put a variable in its place"


async def test_the_status_says_where_predictions_go_and_how_that_goes() -> None:
    s = await serving(predictionLog={**LOG, "sample": 0.25})
    assert (await logged(s))[:2] == ("Unknown", "ServersNotReady")
    await say(s, "Shipping")
    await s.run(120)
    assert await logged(s) == (
        "True",
        "Logging",
        "predictions of 25% of the requests are kept in s3://logs/bikes, at most 60s after they were made",
    )
    (model,) = await s.store.list("ModelSpec")
    assert model["status"]["predictionLog"] == {"uri": "s3://logs/bikes"}


async def test_q24_a_store_that_is_away_is_told_and_the_model_stays_ready() -> None:
    s = await serving(predictionLog=LOG)
    await say(s, "StoreUnavailable", "s3://logs/bikes does not answer when it takes a file: timed out")
    await s.run(120)
    status, reason, message = await logged(s)
    assert (status, reason) == ("False", "StoreUnavailable")
    assert "s3://logs/bikes does not answer" in message
    assert "waits on the node" in message
    assert (await s.condition())["status"] == "True"
    await say(s, "StoreUnavailable", "s3://logs/bikes does not answer", lost=40)
    await s.run(120)
    assert "120 predictions were lost since the servers started" in (await logged(s))[2]
    await say(s, "Shipping", lost=40)
    await s.run(120)
    assert (await logged(s))[:2] == ("True", "SomeLost")


@pytest.mark.parametrize(
    ("label", "keys", "reason", "said"),
    [
        pytest.param(
            None, None, "SecretNotFound", "Secret logs (serving.predictionLog.storage.secretRef", id="absent"
        ),
        pytest.param("other", KEYS, "SecretNotUsable", "kubectl label secret logs -n default", id="of another"),
        pytest.param("bikes", {"token": "a"}, "SecretKeyMissing", "needs accesskey and secretkey", id="no keys"),
    ],
)
async def test_with_a_secret_that_cannot_be_used_the_model_serves_without_a_log_until_it_can(
    label: str | None, keys: dict[str, str] | None, reason: str, said: str
) -> None:
    s = SecretSimulation()
    if keys is not None:
        s.put("logs", label, **keys)
    s.git.commit("Predict bikes", FIRST)
    await apply(s, predictionLog=LOG)
    assert (await s.condition())["status"] == "True"
    status, told, message = await logged(s)
    assert (status, told) == ("False", reason)
    assert said in message
    assert "Servers go on answering" in message
    assert "log-credentials" not in {v["name"] for v in (await server_pod(s))["volumes"]}
    s.put("logs", **KEYS)
    await s.run(120)
    assert "log-credentials" in {v["name"] for v in (await server_pod(s))["volumes"]}
    await say(s, "Shipping")
    await s.run(120)
    assert (await logged(s))[0] == "True"


async def test_servers_that_log_are_left_alone_when_their_secret_is_taken_away() -> None:
    s = await serving(predictionLog=LOG)
    before = await server_pod(s)
    del s.secrets["logs"]
    await s.run(120)
    assert await server_pod(s) == before
    assert (await logged(s))[:2] == ("False", "SecretNotFound")
    assert (await s.condition())["status"] == "True"


@pytest.mark.parametrize(
    ("log", "reason", "said"),
    [
        pytest.param({"mode": "All"}, "StorageMissing", "storage.uri is not set", id="no store"),
        pytest.param(
            {"storage": {"uri": "file:///var/log/bikes"}},
            "StorageNotHere",
            "write s3://, gs:// or az://",
            id="folder",
        ),
    ],
)
async def test_a_log_that_has_no_place_on_a_cluster_is_told_and_the_model_serves(
    log: dict[str, Any], reason: str, said: str
) -> None:
    s = ClusterSimulation()
    await begin(s, predictionLog=log)
    status, told, message = await logged(s)
    assert (status, told) == ("False", reason)
    assert said in message
    assert (await s.condition())["status"] == "True"
