"""Deterministic names and labels: the same thing has the same name after a crash and with two controllers."""

from __future__ import annotations

import re
from typing import Final

from controller.api.hashes import digest, short
from controller.api.meta import FIELD_MANAGER, LABEL_MANAGED_BY, LABEL_MODEL, LABEL_REVISION

LONGEST: Final = 63
"""Of the name of a Job, which its pods carry as a label."""
_TRAINING = re.compile(r".*-train-([1-9][0-9]{0,8})")


def revision_name(model: str, inputs: str) -> str:
    """Name a revision after its inputs: `<model>-<10 hex>`.

    >>> revision_name("bikes", "v1:0123456789abcdef")
    'bikes-0123456789'
    """
    return f"{model}-{short(inputs)}"


def job_name(revision: str, attempt: int, *, evaluate_only: bool = False) -> str:
    """Name the Job of one attempt; attempts of both kinds are counted together.

    Where a long name and many attempts leave too little room, a hash stands for the end of the revision's name.

    >>> job_name("bikes-0123456789", 2)
    'bikes-0123456789-train-2'
    """
    tail = f"-{'evaluate' if evaluate_only else 'train'}-{attempt}"
    if len(revision) + len(tail) <= LONGEST:
        return f"{revision}{tail}"
    tail = f"-{short(digest(revision), 6)}{tail}"
    return f"{revision[: LONGEST - len(tail)].rstrip('-')}{tail}"


def training_of(revision: str, job: str) -> int | None:
    """Read which attempt of a revision a Job trains, from its name; None: it is another's, or trains nothing."""
    found = _TRAINING.fullmatch(job)
    return int(found[1]) if found and job == job_name(revision, int(found[1])) else None


def serve_hash(runtime: str) -> str:
    """Hash what the servers of a revision are made of, besides the model: the pinned runtime."""
    return digest({"runtime": runtime})


def deployment_name(revision: str, runtime: str) -> str:
    """Name the Deployment and the Service of a served revision: `<revision>-<6 hex of the serve hash>`."""
    return f"{revision}-{short(serve_hash(runtime), 6)}"


def labels(model: str, revision: str) -> dict[str, str]:
    """Label everything that belongs to a revision."""
    return {LABEL_MANAGED_BY: FIELD_MANAGER, LABEL_MODEL: model, LABEL_REVISION: revision}
