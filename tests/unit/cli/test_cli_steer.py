"""`mainspring reconcile`, `suspend` and `resume`: what is written, and who may undo it."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime

import pytest

from controller.api.meta import ANNOTATION_REQUESTED_AT, Key
from controller.cli.reconcile import requested_now
from controller.local.store import Store
from tests.support.cli_session import failed, mainspring, model, put, stored, tell


@pytest.fixture
def state(tmp_path):
    put(tmp_path, model())
    return tmp_path


def test_reconcile_asks_with_an_annotation(state):
    answer = mainspring(state, "reconcile", "mspec/bikes")
    asked = stored(state, "ModelSpec", "bikes")["metadata"]["annotations"][ANNOTATION_REQUESTED_AT]
    assert answer.out == f"modelspec/bikes: asked for a look at {asked}\n"
    assert stored(state, "ModelSpec", "bikes")["metadata"]["generation"] == 1


def test_the_moment_asked_is_later_than_a_decision_of_this_second():
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert requested_now() > now


def test_a_revision_is_tried_again_through_its_model(tmp_path):
    s = tell(tmp_path, failed)
    revision = (asyncio.run(s.model()))["status"]["source"]["wanted"]
    answer = mainspring(tmp_path, "reconcile", f"mrev/{revision}")
    assert answer.err == f"{revision} belongs to modelspec/bikes; that is asked\n"
    assert answer.out.startswith("modelspec/bikes: asked for a look at ")


def test_asking_really_tries_a_failed_training_again(tmp_path):
    s = tell(tmp_path, failed)
    started = len(s.jobs_started)
    s.clock.moment = datetime.now(UTC)
    mainspring(tmp_path, "reconcile", "bikes")
    s.fail_training = lambda job: False
    asyncio.run(s.run(60))
    assert len(s.jobs_started) > started


def test_waiting_ends_with_how_the_object_stands(state):
    def controller() -> None:
        async def answer() -> None:
            store = Store.open(state / "objects.db")
            key = Key("ModelSpec", "default", "bikes")
            async for event in store.watch(["ModelSpec"]):
                meta = event.object["metadata"]
                asked = meta.get("annotations", {}).get(ANNOTATION_REQUESTED_AT)
                if asked:
                    ready = {
                        "type": "Ready",
                        "status": "False",
                        "reason": "GateFailed",
                        "message": "rmse 120 > 100",
                    }
                    conditions = [ready, {**ready, "type": "Stalled", "status": "True"}]
                    status = {"requestedAt": asked, "conditions": conditions}
                    await store.patch_status(key, status, uid=meta["uid"])
                    break
            store.close()

        asyncio.run(answer())

    thread = threading.Thread(target=controller)
    thread.start()
    answer = mainspring(state, "reconcile", "bikes", "--wait", "--timeout", "20")
    thread.join(20)
    assert answer.lines[-1] == "GateFailed: rmse 120 > 100"
    assert answer.code == 1


def test_waiting_without_a_controller_ends_and_says_so(state):
    answer = mainspring(state, "reconcile", "bikes", "--wait", "--timeout", "0.2")
    assert (answer.code, answer.err) == (1, "error: no look within 0.2s; is mainspring up running?\n")


def test_suspend_and_resume_set_the_field_and_say_it_once(state):
    assert mainspring(state, "suspend", "bikes").out == "modelspec/bikes suspended; what serves goes on serving\n"
    assert stored(state, "ModelSpec", "bikes")["spec"]["suspend"] is True
    assert mainspring(state, "suspend", "bikes").out == "modelspec/bikes was suspended already\n"
    assert mainspring(state, "resume", "bikes").out == "modelspec/bikes resumed\n"
    assert stored(state, "ModelSpec", "bikes")["spec"]["suspend"] is False
    assert mainspring(state, "resume", "bikes").out == "modelspec/bikes was not suspended already\n"


def test_a_repository_that_manages_the_object_is_named(tmp_path):
    managed = model()
    managed["metadata"]["labels"] = {"mainspring.dev/repository": "team"}
    managed["metadata"]["annotations"] = {"mainspring.dev/source-file": "models/bikes.yaml"}
    put(tmp_path, managed)
    assert mainspring(tmp_path, "suspend", "bikes").err == (
        "note: ModelRepository team applies models/bikes.yaml; if that file sets spec.suspend, "
        "the next sync puts it back. Change it there to keep it\n"
    )


def test_a_revision_cannot_be_suspended(state):
    answer = mainspring(state, "suspend", "mrev/bikes-0123456789")
    assert answer.code == 2
    assert answer.err == "error: this works on ModelSpec and ModelRepository, not on a ModelRevision\n"
