"""What only our own steps are told: a container that runs the user's code never learns where the mirrors are."""

from __future__ import annotations

import pytest

from tests.unit.local.runner_world import World, processes_in, step

pytestmark = pytest.mark.anyio

TELL = "import json, os; json.dump(dict(os.environ), open('/shared/' + {name!r} + '.json', 'w'))"


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


async def test_only_the_step_of_that_name_gets_what_is_meant_for_it(world, monkeypatch):
    monkeypatch.setenv("MAINSPRING_MIRRORS", "from the controller's own environment")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "a token of the controller")
    runner = world.new_runner(env={"DO_NOT_TRACK": "true"}, step_env={"fetch": {"MAINSPRING_MIRRORS": "mirrors"}})
    names = ("fetch", "train", "predict", "evaluate")
    await world.job("train", *(step(name, TELL.format(name=name)) for name in names))
    async with world.running(runner):
        assert (await world.job_ended("train"))["type"] == "Complete"
    shared = world.root / "pods" / "default" / "train-0" / "volumes" / "shared"
    said = {name: (shared / f"{name}.json").read_text() for name in names}
    assert {name: "MAINSPRING_MIRRORS" in text for name, text in said.items()} == {
        "fetch": True,
        "train": False,
        "predict": False,
        "evaluate": False,
    }
    assert all("DO_NOT_TRACK" in text and "MLFLOW_TRACKING_TOKEN" not in text for text in said.values())
    assert "controller's own" not in said["fetch"]
