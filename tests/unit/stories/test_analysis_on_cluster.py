"""What a canary's analysis does on a cluster: whom servers compare with, and requests that whole servers split."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.cluster_simulation import ClusterSimulation
from tests.support.stories import FIRST
from tests.unit.stories.cluster_begin import SERVING, begin

pytestmark = pytest.mark.anyio

OLD, NEW = "bikes-dd1196040a", "bikes-f68bd5cd56"
SAME = {"name": "same", "metric": "disagreement", "max": 0.05, "tolerance": 0.0}


async def told(s: ClusterSimulation) -> dict[str, dict[str, str]]:
    """Read what the servers of each revision were told about comparing."""
    found = {}
    for deployment in await s.store.list("Deployment"):
        env = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
        found[deployment["metadata"]["name"]] = {
            e["name"].removeprefix("MAINSPRING_COMPARE_"): e["value"] for e in env if "COMPARE" in e["name"]
        }
    return found


async def test_only_a_challenger_compares_and_its_pods_outlive_the_promotion() -> None:
    s = ClusterSimulation()
    canary: dict[str, Any] = {**SERVING["canary"], "analysis": [SAME], "onInconclusive": "Promote"}
    await begin(s, canary=canary)
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(50)
    (champion,) = (name for name in await told(s) if name.startswith(OLD))
    (challenger,) = (name for name in await told(s) if name.startswith(NEW))
    want = {"URL": f"http://{champion}.default.svc:8080", "SHARE": "0.1", "TOLERANCE": "0.0"}
    assert await told(s) == {champion: {}, challenger: want}
    await s.run(200)
    assert (await s.status())["champion"]["revision"] == NEW
    assert await told(s) == {challenger: want}, "another environment would replace its pods"


async def test_requests_that_are_split_by_connection_are_not_held_to_their_share() -> None:
    s = ClusterSimulation()
    await begin(s)
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(160)
    found = {c["name"]: c for c in (await s.status())["analysis"]["checks"]}
    assert (found["volume"]["outcome"], found["volume"]["reason"]) == ("Inconclusive", "TooFewRequests")
    assert "whole servers split connections, not requests" in found["volume"]["message"]
    assert (await s.status())["champion"]["revision"] == NEW


async def test_a_smoke_test_is_one_variable_of_the_server_and_of_no_other_container() -> None:
    s = ClusterSimulation()
    s.git.commit("Ask", {**FIRST, "smoke.csv": b"temp\n20\n"})
    await begin(s, smokeTest={"path": "smoke.csv", "expect": {"min": 0}})
    (deployment,) = await s.store.list("Deployment")
    pod = deployment["spec"]["template"]["spec"]
    told = {
        c["name"]: [json.loads(e["value"]) for e in c.get("env", ()) if e["name"] == "MAINSPRING_SMOKE_TEST"]
        for c in (*pod["initContainers"], *pod["containers"])
    }
    want = {"body": "temp\n20\n", "type": "text/csv", "expect": {"min": 0.0, "status": 200}}
    assert told == {"fetch-model": [], "server": [want]}
