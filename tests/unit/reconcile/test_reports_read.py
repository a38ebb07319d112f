"""A report is hostile text until its digest, its form and whom it speaks of are what they must be."""

from __future__ import annotations

import pytest

from controller.api import hashes
from controller.api.reports import Report, Termination
from controller.plan.verdict import Refused
from controller.reconcile.jobs import job_seen, parse_termination, read_report
from tests.support.simulation import FakeGit, report_of

GIT = FakeGit()
COMMIT = GIT.commit("first", {"quality": b"50", "train.py": b"", "data.csv": b""})
GOOD = report_of(
    "bikes-a",
    {"source": {"commit": COMMIT}},
    {"run": "r1", "runtime": "sim", "checksHash": "v1:c"},
    GIT,
)


def said(data: bytes, run: str = "r1") -> Termination:
    return Termination(outcome="Done", run=run, sha256=hashes.sha256(data))


def test_a_good_report_is_taken() -> None:
    assert isinstance(read_report(GOOD, said(GOOD), "bikes-a"), Report)


HOSTILE = {
    "another content than the Job said": (GOOD + b" ", said(GOOD), "the report has digest"),
    "not JSON": (b"\x00\xff", said(b"\x00\xff"), "the report cannot be read"),
    "JSON of another form": (b"{}", said(b"{}"), "the report cannot be read: revision"),
    "of another run": (GOOD, said(GOOD, run="r2"), "the report speaks of bikes-a"),
    "NaN where a number belongs": (
        GOOD.replace(b'"value":50.0', b'"value":NaN'),
        said(GOOD.replace(b'"value":50.0', b'"value":NaN')),
        "the report cannot be read",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_report_is_refused(name: str) -> None:
    data, termination, message = HOSTILE[name]
    found = read_report(data, termination, "bikes-a")
    assert isinstance(found, Refused)
    assert found.reason == "ReportInvalid"
    assert found.message.startswith(message)


def test_a_report_of_another_revision_is_refused() -> None:
    assert isinstance(read_report(GOOD, said(GOOD), "bikes-b"), Refused)


def test_the_training_programs_last_words_are_no_report() -> None:
    status = {"name": "train", "state": {"terminated": {"exitCode": 1, "message": '{"outcome": "Done"}'}}}
    job = {"metadata": {"name": "bikes-a-train-1"}, "status": {}}
    seen = job_seen(job, {"status": {"initContainerStatuses": [status]}})
    assert seen.steps[0].termination is None


def test_a_termination_message_that_is_none_is_ignored() -> None:
    assert parse_termination("Killed") is None
