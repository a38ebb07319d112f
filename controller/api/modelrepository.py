"""ModelRepository: syncs our kinds from a path of a Git repository into its own namespace.

Not a general GitOps engine: it applies ModelSpecs and nothing else, and never outside its namespace.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from controller.api import git_rules
from controller.api.base import Duration, Lenient, Strict, within
from controller.api.conditions import Condition, ConditionStatus
from controller.api.modelspec import URL_PROTOCOLS, Ref
from controller.api.pods import LocalRef


class ModelRepositorySpec(Strict):
    """What is synced."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=2048)]
    """Git repository: `https://…` or `ssh://…`; in local mode also `file:///…`. No password inside."""
    ref: Ref
    """Which commit to follow."""
    path: Annotated[str, StringConstraints(max_length=1024)] = "."
    """Directory of the YAML files, with everything below it. Default: the whole repository."""
    interval: Duration = "1m"
    """How often the repository is looked at, at least 1s. Default 1m."""
    timeout: Duration = "60s"
    """Longest time one look at the repository may take. Default 60s."""
    secret_ref: LocalRef | None = None
    """Secret of the namespace with the login for the repository; docs/secrets.md says which keys it needs. It must
    carry the label `mainspring.dev/usable-by`. Local mode has no Secrets."""
    prune: bool = True
    """True: objects whose file is gone are deleted, except annotated `mainspring.dev/prune: disabled`."""
    prune_limit_percent: Annotated[int, Field(ge=0, le=100)] = 50
    """Guard: if more than this share of the objects, or all of several, would be deleted at once, nothing is
    and the object is Stalled(PruneGuard). 100 switches the guard off. Default 50."""
    suspend: bool = False
    """True: nothing is applied or deleted. Default false."""

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        if problem := git_rules.url_problem(value, URL_PROTOCOLS):
            raise ValueError(problem)
        return value

    @field_validator("path")
    @classmethod
    def _path(cls, value: str) -> str:
        if value != "." and (problem := git_rules.path_problem(value.rstrip("/"))):
            raise ValueError(problem)
        return value

    @field_validator("interval", "timeout")
    @classmethod
    def _span(cls, value: str) -> str:
        return within(value, 1, 86_400)


class SyncedObject(Lenient):
    """One object that the repository holds."""

    kind: str
    """Its kind."""
    name: str
    """Its name."""
    file: str
    """File it comes from."""
    ready: ConditionStatus = "Unknown"
    """Its own condition Ready, as of its present generation: True, False or Unknown."""


class FileProblem(Lenient):
    """One file that was not applied."""

    file: str
    """Path in the repository."""
    severity: Literal["Error", "Skipped"]
    """Error: its objects stay as they were. Skipped: it holds nothing of ours."""
    message: str
    """Where and what, one sentence."""


class ModelRepositoryStatus(Lenient):
    """What was synced."""

    observed_generation: int = -1
    """Generation that the status speaks of; -1 before the first look."""
    conditions: tuple[Condition, ...] = ()
    """Ready (all is applied), Healthy (all that is applied is Ready), SourceReady, Reconciling or Stalled."""
    revision: str = ""
    """The commit that is applied: `main@sha1:<40 hex>`."""
    author: str = ""
    """Author of the commit."""
    subject: str = ""
    """First line of the commit's message."""
    objects: tuple[SyncedObject, ...] = ()
    """What the repository holds."""
    problems: tuple[FileProblem, ...] = ()
    """Files that were not applied, and why."""
    requested_at: str = ""
    """Last value of the annotation that asks for a look at once."""
