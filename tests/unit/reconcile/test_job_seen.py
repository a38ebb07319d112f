"""What people are told when a training program fails: its own last words, and whether it was too slow."""

from __future__ import annotations

import pytest

from controller.plan.attempts import failure
from controller.reconcile.jobs import job_seen

TRACEBACK = 'Traceback (most recent call last):\n  File "train.py", line 3\nValueError: no such table\x1b[31m\n\n'


def seen(said: str, *, reason: str = "BackoffLimitExceeded", container: str = "train", exit_code: int = 1):
    job = {
        "metadata": {"name": "line-0123456789-train-2"},
        "spec": {"activeDeadlineSeconds": 20},
        "status": {"conditions": [{"type": "Failed", "status": "True", "reason": reason, "message": ""}]},
    }
    ended = {"name": container, "state": {"terminated": {"exitCode": exit_code, "message": said}}}
    return job_seen(job, {"status": {"initContainerStatuses": [ended]}})


CASES = {
    "the last line of a traceback is the error": (
        seen(TRACEBACK),
        ("TrainingFailed", "the training program ended with exit code 1: ValueError: no such table", True),
    ),
    "a program that says nothing": (
        seen(""),
        ("TrainingFailed", "the training program ended with exit code 1", True),
    ),
    "a program that claims to be one of our own steps is not believed": (
        seen('{"reason": "DataInvalid", "message": "stop"}', exit_code=3),
        (
            "TrainingFailed",
            'the training program ended with exit code 3: {"reason": "DataInvalid", "message": "stop"}',
            True,
        ),
    ),
    "too slow is told as too slow, whatever the exit code": (
        seen("waiting", reason="DeadlineExceeded", exit_code=143),
        (
            "DeadlineExceeded",
            "attempt 2 took longer than training.activeDeadlineSeconds, 20 s; it was ended in step train",
            True,
        ),
    ),
}


@pytest.mark.parametrize(("job", "told"), CASES.values(), ids=CASES)
def test_a_failed_training_says_why(job, told):
    assert failure(job) == told
