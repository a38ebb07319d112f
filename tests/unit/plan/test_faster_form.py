"""What `serving.accelerate` does to the servers: Off is told to them and replaces them; Auto changes nothing."""

from __future__ import annotations

import pytest

from controller.api.kinds import ModelSpec
from controller.plan import servers
from tests.support.stories import spec as spec_of


def parsed(accelerate):
    manifest = spec_of()
    if accelerate is not None:
        manifest["spec"].setdefault("serving", {})["accelerate"] = accelerate
    return ModelSpec.model_validate(manifest)


@pytest.mark.parametrize("hardened", [True, False])
def test_off_is_another_serve_digest_and_auto_is_the_one_there_always_was(hardened):
    default, auto, off = (servers.serve_digest(parsed(a), hardened=hardened) for a in (None, "Auto", "Off"))
    assert default == auto != off


@pytest.mark.parametrize(("accelerate", "told"), [(None, []), ("Auto", []), ("Off", ["Off"])])
def test_servers_are_told_only_of_off(accelerate, told):
    model = parsed(accelerate)
    built = servers.deployment(
        model,
        {"apiVersion": "mainspring.dev/v1alpha1", "kind": "ModelSpec", "metadata": {"name": "bikes", "uid": "1"}},
        name="bikes-1",
        revision="bikes-1",
        run="r",
        digest="sha256:" + "0" * 64,
        version="1",
        commit="c",
        tracking_uri="http://mlflow",
        replicas=1,
    )
    (server,) = built["spec"]["template"]["spec"]["containers"]
    assert [e["value"] for e in server["env"] if e["name"] == "MAINSPRING_ACCELERATE"] == told
