"""`mainspring up` killed at the worst moments: the next one takes over, and the end is the same.

The tests build on each other, in order: three revisions of one model, each with a kill in another phase.
"""

from __future__ import annotations

import json
import signal

import pytest

from controller.api.meta import LABEL_REVISION
from tests.support.git_repos import Scratch
from tests.support.linear_model import SLOW, TRAIN, csv, model, rows
from tests.support.local_mode import Local, condition

REPOSITORY: tuple[str, ...] = ("--path", "deploy", "--interval", "1s")
LONG = {"canary": {"stepWeights": [50], "interval": "6s"}}


def commit(repository: Scratch, code: bytes, subject: str) -> str:
    manifest = json.dumps(model(repository.url, serving=LONG)).encode()
    return repository.commit(
        {"train.py": code, "rows.csv": csv(rows()), "deploy/line.yaml": manifest}, message=subject
    )


def up(local: Local, repository: Scratch) -> None:
    local.start("--repo", str(repository.path), *REPOSITORY)


def champion(local: Local) -> str:
    """Name the commit of the champion."""
    found = (local.model().get("status") or {}).get("champion") or {}
    return str(found.get("commit", ""))


def kill_and_restart(local: Local, repository: Scratch) -> None:
    assert local.signal(signal.SIGKILL) == -signal.SIGKILL
    assert local.processes(), "its jobs and servers go on"
    up(local, repository)


def served(local: Local, commit: str) -> str:
    """Wait until the commit serves all requests; returns its revision."""
    status = local.until_condition("Succeeded", commit=commit)["status"]
    assert status["champion"]["commit"] == commit
    answer = local.run("predict", "line", "--row", '{"x1": 2.0, "x2": 1.0}', "-o", "json")
    assert json.loads(answer.out)["revision"] == status["champion"]["revision"], answer
    return str(status["champion"]["revision"])


def deployed(local: Local) -> list[str]:
    """Name the revisions that have servers."""
    return [d["metadata"]["labels"][LABEL_REVISION] for d in local.all("Deployment")]


def decisions(local: Local, revision: str) -> list[str]:
    """Name what the ledger says about a revision, oldest first."""
    found = json.loads(local.run("history", "line", "-o", "json").out)
    entries = found if isinstance(found, list) else next(v for v in found.values() if isinstance(v, list))
    return sorted(e["kind"] for e in entries if e["revision"] == revision)


def container(local: Local, commit: str) -> bool:
    """Tell whether the training program of a commit runs."""
    wanted = (local.model().get("status") or {}).get("source") or {}
    if wanted.get("commit") != commit:
        return False
    pods = [p for p in local.all("Pod") if p["metadata"]["name"].startswith(f"{wanted['wanted']}-train-")]
    steps = [s for p in pods for s in (p.get("status") or {}).get("initContainerStatuses", ())]
    return any(s["name"] == "train" and "running" in s["state"] for s in steps)


def test_killed_in_a_training(shared: Local, shared_repository: Scratch):
    wanted = commit(shared_repository, SLOW, "Fit a line, slowly")
    up(shared, shared_repository)
    shared.until("the training to run", lambda: container(shared, wanted))

    kill_and_restart(shared, shared_repository)

    revision = served(shared, wanted)
    assert shared.jobs(revision) == [f"{revision}-train-1"]
    assert decisions(shared, revision) == ["Admitted", "Promoted"]


def test_killed_in_a_canary(shared: Local, shared_repository: Scratch):
    wanted = commit(shared_repository, TRAIN.replace(b"1.0", b"1.5"), "A little stiffer")
    shared.until("the canary", lambda: "canary 50%" in condition(shared.model(), "Ready").get("message", ""))

    kill_and_restart(shared, shared_repository)

    revision = served(shared, wanted)
    assert shared.jobs(revision) == [f"{revision}-train-1"]
    assert decisions(shared, revision) == ["Admitted", "Promoted"]


def test_killed_right_after_the_promotion(shared: Local, shared_repository: Scratch):
    wanted = commit(shared_repository, TRAIN.replace(b"1.0", b"2.0"), "Stiffer still")
    shared.until("the promotion", lambda: champion(shared) == wanted)

    kill_and_restart(shared, shared_repository)

    revision = served(shared, wanted)
    assert shared.jobs(revision) == [f"{revision}-train-1"]
    assert decisions(shared, revision) == ["Admitted", "Promoted"]
    shared.until("who was replaced to go", lambda: deployed(shared) == [revision])


def test_a_second_up_on_the_same_state_is_refused(shared: Local, shared_repository: Scratch):
    second = shared.run("up", "--repo", str(shared_repository.path))

    assert second.code == 1
    assert "another `mainspring up`" in second.err
    assert "stop it or use another --state" in second.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_ends_with_everything_that_it_started(shared: Local, shared_repository: Scratch, number: int):
    if shared.up is None or shared.up.poll() is not None:
        up(shared, shared_repository)
    wanted = commit(shared_repository, SLOW + b"#%d\n" % number, "Something that is being trained")
    shared.until("the training to run", lambda: container(shared, wanted))

    assert shared.signal(number) == 0

    assert shared.processes() == {}
