"""Names of Jobs: the same in every process, never longer than Kubernetes takes, read back as they were made."""

from __future__ import annotations

import re

import pytest

from controller.api.base import MODEL_NAME_MAX
from controller.plan.naming import job_name, revision_name, training_of

SHORT = "bikes-0123456789"
LONG = revision_name("m" * MODEL_NAME_MAX, "v1:0123456789abcdef")
NUMBERS = (1, 9, 10, 99, 100, 1_000, 123_456)


@pytest.mark.parametrize("evaluate_only", [False, True], ids=["trainings", "evaluations"])
@pytest.mark.parametrize("revision", [SHORT, LONG], ids=["a short name", "the longest name"])
def test_every_attempt_has_a_name_of_its_own_that_kubernetes_takes(revision, evaluate_only):
    names = [job_name(revision, number, evaluate_only=evaluate_only) for number in NUMBERS]
    assert len(set(names)) == len(NUMBERS)
    for number, name in zip(NUMBERS, names, strict=True):
        assert len(name) <= 63
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
        assert name.rpartition("-")[2] == str(number)
        assert ("-evaluate-" in name) is evaluate_only


def test_names_that_fit_are_written_out():
    assert job_name(SHORT, 12) == "bikes-0123456789-train-12"
    assert job_name(LONG, 99, evaluate_only=True) == f"{LONG}-evaluate-99"


def test_two_long_names_that_differ_at_their_end_never_share_a_job():
    one, other = (revision_name("m" * (MODEL_NAME_MAX - 1) + last, "v1:0123456789abcdef") for last in "ab")
    assert job_name(one, 1_000, evaluate_only=True) != job_name(other, 1_000, evaluate_only=True)


@pytest.mark.parametrize("revision", [SHORT, LONG], ids=["a short name", "the longest name"])
def test_a_training_is_found_by_its_name(revision):
    for number in NUMBERS:
        assert training_of(revision, job_name(revision, number)) == number
        assert training_of(revision, job_name(revision, number, evaluate_only=True)) is None


@pytest.mark.parametrize(
    "job",
    [
        pytest.param("bikes-9876543210-train-1", id="another revision's"),
        pytest.param("bikes-0123456789-train-01", id="a number that nobody writes so"),
        pytest.param("bikes-0123456789-train-", id="no number"),
        pytest.param("", id="nothing"),
    ],
)
def test_what_is_no_training_of_a_revision_is_none(job):
    assert training_of(SHORT, job) is None
