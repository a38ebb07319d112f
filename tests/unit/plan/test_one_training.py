"""One training per model at a time, also when a person asks for an old revision to be tried again."""

from __future__ import annotations

import asyncio

from controller.api.meta import Key
from tests.support.simulation import Simulation
from tests.unit.stories.test_stories import first_commit


def test_a_retry_waits_until_the_training_of_another_revision_has_ended() -> None:
    s = Simulation()

    async def go() -> list[str]:
        await first_commit(s)
        s.fail_training = lambda job: True
        s.git.commit("Use temperature", {"quality": b"40"})
        await s.run(160)
        failed = (await s.model())["status"]["source"]["wanted"]
        s.fail_training, s.train_s = (lambda job: False), 200
        s.git.commit("Use humidity", {"quality": b"45"})
        await s.run(30)
        s.git.revert("Revert: Use humidity")
        await s.store.annotate(
            Key("ModelSpec", "default", "bikes"), {"mainspring.dev/requested-at": s.clock.now().isoformat()}
        )
        await s.run(60)
        revision = await s.store.get(Key("ModelRevision", "default", failed))
        assert revision is not None
        ready = next(c for c in revision["status"]["conditions"] if c["type"] == "Ready")
        running = [j["metadata"]["name"] for j in await s.store.list("Job") if not j["status"].get("conditions")]
        return [ready["reason"], *running]

    reason, *running = asyncio.run(go())
    assert reason == "WaitingForTraining"
    assert len(running) == 1
