"""ModelSpec: the desired state of one model in one environment, written by people, in Git.

Every field says in its docstring what it is, its unit, range and default, and carries the mark of the hash it
belongs to, which is what a change of it does (`HashMark`).  A field is here only once it works.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from controller.api import git_rules
from controller.api.base import Duration, HashMark, Name, Strict, unique_names, within
from controller.api.data import Check, Dataset, Holdout, ModelColumns, RelativePath
from controller.api.gates import Gate, Serving, task_of_gates
from controller.api.pods import LocalRef, PodTemplate, Resources

EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
Argument = Annotated[str, StringConstraints(max_length=4096)]

URL_PROTOCOLS = frozenset({"https", "ssh", "http", "file"})
"""What a URL may be in the language; which of them are allowed where is the operator's setting."""

IMAGE_PATTERN = (
    r"^[a-z0-9]+([._-]+[a-z0-9]+)*(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$"
)
"""An image reference: host, port, path, tag and digest as the registries' own specification has them."""

FORBIDDEN_ENV = frozenset(
    {
        "PATH",
        "PYTHONPATH",
        "PYTHONHOME",
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "HOME",
        "TMPDIR",
        "KUBERNETES_SERVICE_HOST",
    }
)
"""Names that a training environment may not set: they would change what runs, or who it talks to."""


class Ref(Strict):
    """Which commit to follow: exactly one of the fields."""

    branch: Annotated[str, StringConstraints(max_length=250)] | None = None
    """Branch name, without `refs/heads/`. Its newest commit is followed."""
    tag: Annotated[str, StringConstraints(max_length=250)] | None = None
    """Tag name, without `refs/tags/`. A moved tag is a new commit, and the message says so."""
    name: Annotated[str, StringConstraints(max_length=250)] | None = None
    """Full name of a ref, for example `refs/heads/main`."""
    commit: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")] | None = None
    """One exact commit: 40 or 64 lower-case hex digits, reachable from a branch or tag."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [n for n in ("branch", "tag", "name", "commit") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of branch, tag, name, commit must be set, not {len(given)}")
        checks = (
            (self.branch, git_rules.branch_problem),
            (self.tag, git_rules.tag_problem),
            (self.name, git_rules.ref_problem),
        )
        for value, problem_of in checks:
            if value is not None and (problem := problem_of(value)):
                raise ValueError(problem)
        return self

    def __str__(self) -> str:
        """Write the ref as people name it."""
        return self.branch or self.tag or self.name or self.commit or ""


class Source(Strict):
    """Where the training code is."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=2048)]
    """Git repository: `https://…` or `ssh://…`; in local mode also `file:///…`. No password inside."""
    ref: Ref
    """Which commit to follow."""
    paths: Annotated[tuple[RelativePath, ...], Field(max_length=64)] = ()
    """Files and directories (`train/`) whose content makes a revision; nothing else is given to the training.
    Default: the whole tree without `*.md`, `docs/`, `.github/`, `.dvc/`. Our own YAML never counts."""
    interval: Duration = "1m"
    """How often the repository is looked at, at least 1s. Default 1m."""
    timeout: Duration = "60s"
    """Longest time one look at the repository may take. Default 60s."""
    secret_ref: LocalRef | None = None
    """Secret of the namespace with the login for the repository; docs/secrets.md says which keys it needs. It must
    carry the label `mainspring.dev/usable-by`. Local mode has no Secrets."""

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        if problem := git_rules.url_problem(value, URL_PROTOCOLS):
            raise ValueError(problem)
        return value

    @field_validator("paths")
    @classmethod
    def _paths(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for path in value:
            if problem := git_rules.path_problem(path.rstrip("/")):
                raise ValueError(problem)
        return value

    @field_validator("interval", "timeout")
    @classmethod
    def _span(cls, value: str) -> str:
        return within(value, 1, 86_400)


class EnvVar(Strict):
    """One environment variable of the training program."""

    name: EnvName
    """Name of the variable."""
    value: Annotated[str, StringConstraints(max_length=4096)] = ""
    """Its value. Not for secrets: it is shown to everybody who can read the object."""

    @field_validator("name")
    @classmethod
    def _allowed(cls, value: str) -> str:
        if value.startswith("MAINSPRING_") or value in FORBIDDEN_ENV:
            raise ValueError(f"{value} is set by Mainspring and cannot be changed")
        return value


class Training(Strict):
    """How a model is made. The program needs nothing of ours; its contract is in the README."""

    image: (
        Annotated[
            str,
            StringConstraints(
                max_length=512,
                pattern=IMAGE_PATTERN,
            ),
        ]
        | None
    ) = None
    """Container image of the program, best with its digest. Default: our runtime image. In local mode programs
    run in this machine's own Python instead, and the condition EnvironmentNotIsolated says so."""
    command: Annotated[tuple[Argument, ...], Field(min_length=1, max_length=64)]
    """Program and arguments, as a list; no shell."""
    params: Annotated[dict[str, Any], Field(max_length=256)] = Field(default_factory=dict)
    """Hyperparameters, given to the program as the JSON file MAINSPRING_PARAMS."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 42
    """Given to the program as MAINSPRING_SEED. Default 42."""
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64)] = ()
    """Further environment variables."""
    backoff_limit: Annotated[int, Field(ge=0, le=10), HashMark.NONE] = 1
    """How often a failed training is tried again, 0 to 10. Default 1."""
    active_deadline_seconds: Annotated[int, Field(ge=1, le=2_592_000), HashMark.NONE] = 7200
    """Longest time in seconds that one attempt may take. Default 7200."""
    resources: Annotated[Resources | None, HashMark.NONE] = None
    """What the program asks for and may take. Default: the operator's setting. Local mode has no limits."""
    queue_name: Annotated[Name | None, HashMark.NONE] = None
    """Local queue of Kueue that admits the training Jobs."""
    template: Annotated[PodTemplate | None, HashMark.NONE] = None
    """Where the pods of the training run."""


class Registry(Strict):
    """Where runs and versions are recorded."""

    name: (
        Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
        | None
    ) = None
    """Name of the registered model in MLflow. Default: the name of the ModelSpec."""
    secret_ref: LocalRef | None = None
    """Secret of the namespace with the login for MLflow. Default: `mainspring-registry`, if there is one. Local
    mode has no Secrets."""


class ModelSpecSpec(Strict):
    """What is wanted."""

    suspend: Annotated[bool, HashMark.NONE] = False
    """True: nothing is decided or changed; what serves goes on serving. Default false."""
    environment: Annotated[Name | None, HashMark.NONE] = None
    """Name of the environment; part of the registry's alias and of the ledger. Default: the namespace."""
    source: Annotated[Source, HashMark.NONE]
    """Where the training code is. The files of `paths` at the commit are hashed, not these fields."""
    data: Annotated[tuple[Dataset, ...], Field(min_length=1, max_length=16), HashMark.INPUTS]
    """Tables. The first is the one that is split and learned from; further ones are given to the training whole.
    One named `holdout` is the hold-out and is never given to the training. By content, a change retrains."""
    columns: Annotated[ModelColumns, HashMark.INPUTS]
    """What the columns mean. A change of anything but `sensitive` retrains."""
    holdout: Annotated[Holdout, HashMark.INPUTS] = Holdout()
    """How hold-out rows are chosen. A change retrains."""
    checks: Annotated[tuple[Check, ...], Field(max_length=64), HashMark.EVIDENCE] = ()
    """Rules that the data must pass before training. A change applies to the next training."""
    training: Annotated[Training, HashMark.INPUTS]
    """How a model is made. A change of image, command, params, seed or env retrains; of limits, not."""
    gates: Annotated[tuple[Gate, ...], Field(max_length=64), HashMark.GATE] = ()
    """Rules that a challenger must pass. A change judges the stored evidence again, or measures what is missing;
    nothing is trained."""
    registry: Annotated[Registry | None, HashMark.NONE] = None
    """Where runs and versions are recorded."""
    serving: Annotated[Serving, HashMark.NONE] = Serving()
    """How the champion is served."""

    @property
    def registry_secret(self) -> str:
        """Name of the Secret with the login for MLflow; empty: the well-known one."""
        named = self.registry.secret_ref if self.registry else None
        return named.name if named else ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        unique_names("data", [d.name for d in self.data])
        unique_names("checks", [c.name for c in self.checks])
        unique_names("gates", [g.name for g in self.gates])
        if self.data[0].name == "holdout":
            raise ValueError("the first dataset is the one to learn from and cannot be named holdout")
        if self.holdout.by == "Time" and not (self.holdout.column or self.columns.time):
            raise ValueError("holdout.by: Time needs columns.time or holdout.column")
        if len(task_of_gates(self.gates)) > 1:
            raise ValueError("gates mix metrics of classification and regression")
        return self
