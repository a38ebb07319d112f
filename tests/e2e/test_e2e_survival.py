"""What was decided survives the loss of its state: Git, MLflow and the key are enough.

The state directory goes away whole.  What comes back serves the same bytes, trains nothing, and still refuses what
was refused, for the reason it was refused for.
"""

from __future__ import annotations

import json
import shutil
import signal

from tests.support.git_repos import Scratch
from tests.support.linear_model import TRAIN, csv, model, rows
from tests.support.local_mode import Local, condition

WORSE = TRAIN.replace(b"fit(", b"fit(0 * ")


def test_without_its_state_the_same_bytes_serve_nothing_is_trained_and_what_was_refused_stays_refused(
    local: Local, repository: Scratch
):
    assert WORSE != TRAIN
    files = {"rows.csv": csv(rows()), "deploy/line.yaml": json.dumps(model(repository.url)).encode()}
    arguments = ("--repo", str(repository.path), "--path", "deploy", "--interval", "1s")
    good = repository.commit({"train.py": TRAIN} | files)
    local.start(*arguments)
    champion = local.until_condition("Succeeded", commit=good)["status"]["champion"]
    bad = repository.commit({"train.py": WORSE} | files)
    refused = condition(local.until_condition("GateFailed", commit=bad), "Ready")["message"]
    assert local.signal(signal.SIGTERM) == 0
    shutil.rmtree(local.state)

    local.start(*arguments)
    again = local.until_condition("GateFailed", commit=bad)
    assert condition(again, "Ready")["message"] == refused
    served = again["status"]["champion"]
    assert (served["digest"], served["version"]) == (champion["digest"], champion["version"])
    ask = ("predict", "line", "--row", '{"x1": 2.0, "x2": 1.0}', "-o", "json")
    answer = local.until(
        "a server to load it again", lambda: next((a for a in [local.run(*ask)] if not a.code), None)
    )
    assert json.loads(answer.out)["revision"] == champion["revision"]
    assert local.jobs() == [], "nothing is trained"
    history = local.run("history", "modelspec/line")
    assert champion["revision"] in history.out, history.err
