"""What `serving.workers` does to the servers: several are told to them and replace them; one changes nothing."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from controller.api.kinds import ModelSpec
from controller.plan import servers
from tests.support.stories import spec as spec_of


def parsed(workers):
    manifest = spec_of()
    if workers is not None:
        manifest["spec"].setdefault("serving", {})["workers"] = workers
    return ModelSpec.model_validate(manifest)


@pytest.mark.parametrize("hardened", [True, False])
def test_several_are_another_serve_digest_and_one_is_the_one_there_always_was(hardened):
    default, one, two, three = (servers.serve_digest(parsed(w), hardened=hardened) for w in (None, 1, 2, 3))
    assert default == one
    assert len({one, two, three}) == 3


@pytest.mark.parametrize(("workers", "told"), [(None, []), (1, []), (4, ["4"])])
def test_servers_are_told_only_of_several(workers, told):
    built = servers.deployment(
        parsed(workers),
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
    assert [e["value"] for e in server["env"] if e["name"] == "MAINSPRING_WORKERS"] == told


@pytest.mark.parametrize("workers", [0, 65, "two"])
def test_another_number_is_refused(workers):
    with pytest.raises(ValidationError):
        parsed(workers)
