"""What `serving.workers` and `accelerate` do to the servers: a choice replaces them, a default changes nothing."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from controller.api.kinds import ModelSpec
from controller.plan import servers
from tests.support.stories import spec as spec_of


def parsed(**chosen):
    """A ModelSpec whose serving has these fields; None leaves one out."""
    manifest = spec_of()
    manifest["spec"].setdefault("serving", {}).update({k: v for k, v in chosen.items() if v is not None})
    return ModelSpec.model_validate(manifest)


def told(model, name):
    """What the servers of a ModelSpec are told by this variable."""
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
    return [e["value"] for e in server["env"] if e["name"] == name]


@pytest.mark.parametrize("hardened", [True, False])
@pytest.mark.parametrize(
    ("field", "default", "others"),
    [
        pytest.param("workers", 1, (2, 3), id="workers"),
        pytest.param("accelerate", "Auto", ("Off",), id="accelerate"),
    ],
)
def test_another_choice_is_another_serve_digest_and_the_default_is_the_one_there_always_was(
    field, default, others, hardened
):
    def digest(value):
        return servers.serve_digest(parsed(**{field: value}), hardened=hardened)

    assert digest(None) == digest(default)
    assert len({digest(default), *map(digest, others)}) == 1 + len(others)


@pytest.mark.parametrize(
    ("field", "value", "variable", "said"),
    [
        ("workers", None, "MAINSPRING_WORKERS", []),
        ("workers", 1, "MAINSPRING_WORKERS", []),
        ("workers", 4, "MAINSPRING_WORKERS", ["4"]),
        ("accelerate", None, "MAINSPRING_ACCELERATE", []),
        ("accelerate", "Auto", "MAINSPRING_ACCELERATE", []),
        ("accelerate", "Off", "MAINSPRING_ACCELERATE", ["Off"]),
    ],
)
def test_servers_are_told_only_of_what_is_not_the_default(field, value, variable, said):
    assert told(parsed(**{field: value}), variable) == said


@pytest.mark.parametrize(
    ("field", "value"), [("workers", 0), ("workers", 65), ("workers", "two"), ("accelerate", "On")]
)
def test_another_value_is_refused(field, value):
    with pytest.raises(ValidationError):
        parsed(**{field: value})
