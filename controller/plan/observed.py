"""The world as it was read, once, frozen: what every decision is made from.

None means "not there"; `Unknown` "could not be read just now"; `Refused` "a person must act".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from controller.api.kinds import FieldError, ModelOverride, ModelRepository, ModelRevision, ModelSpec
from controller.api.meta import Manifest
from controller.api.modelrevision import ModelRevisionSpec, PinnedData
from controller.api.reports import Report, Termination
from controller.api.statements import LedgerEntry
from controller.api.validation import Checked
from controller.plan.ledger import Ledger
from controller.plan.pods import PLAIN, PodSettings
from controller.plan.verdict import Refused, Unknown

ORDER_FIRST: Final = "OrderFirst"
"""Why Git was not asked: the order of a person is taken up first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSeen:
    """The commit that Git asks for, and what the spec selects of it."""

    commit: str
    label: str
    """`main@sha1:<commit>`."""
    author: str
    subject: str
    files: str
    """Digest of the selected files."""
    data: tuple[PinnedData, ...]
    """Every dataset of the spec, pinned at this commit."""
    smoke: str = ""
    """The request of the smoke test at this commit; empty: none is wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentSeen:
    """The servers of one revision."""

    name: str
    revision: str
    replicas: int
    ready: int
    message: str = ""
    """Why servers are not ready, when something is known."""
    serve: str = ""
    """Hash of what people chose about the servers, as it was applied."""
    image: str = ""
    """Image of the server container."""
    smoke: str = ""
    """The request that the servers had to answer first, as they were told; empty: none."""
    compare: str = ""
    """With whose answers the servers compare theirs, as they were told; empty: with nobody's."""
    uid: str = ""
    version: str = ""
    """resourceVersion of the Deployment."""


Counters = Mapping[str, float]
"""What servers have counted since they started, `<pod>|<name>`: `requests`, `errors`, `le=<seconds>`, `rows`,
`p=<predicted value>`, `conf_le=<highest probability>`, `missing`, `unseen`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queried:
    """What Prometheus says about the models of a canary."""

    value: float | Unknown
    """Of the challenger; NaN: there is no data."""
    champion: float | Unknown | None = None
    """Of the champion; None: it was not asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSeen:
    """Everything `plan_model` decides from."""

    manifest: Manifest
    """The ModelSpec as stored."""
    model: ModelSpec | None
    """The same, typed; None when it is invalid."""
    errors: tuple[FieldError, ...] = ()
    """Why it is invalid."""
    source: SourceSeen | Unknown | Refused
    revisions: Mapping[str, ModelRevision] = field(default_factory=dict)
    """By name."""
    running: frozenset[str] = frozenset()
    """Revisions whose Job has not ended."""
    ledger: Ledger | Unknown
    deployments: Mapping[str, DeploymentSeen] = field(default_factory=dict)
    """By name."""
    services: frozenset[str] = frozenset()
    route: Mapping[str, int] | None = None
    """Percent by Service name; where servers split the requests, as the ready ones do."""
    attached: str = ""
    """Hash of the Gateways and host names that the route was applied with."""
    spare_route: str = ""
    """uid of a route that is still there though whole servers split the requests; empty: none."""
    by_servers: bool = False
    """Whole servers split the requests; False: a route does."""
    stable: Mapping[str, str] | None = None
    """What the Service of the model selects."""
    has_budget: bool = False
    """There is a disruption budget."""
    autoscaler: tuple[str, int, int, int] | None = None
    """Deployment, least and most servers, percent of CPU."""
    loaded: Mapping[str, Mapping[str, str] | Unknown] = field(default_factory=dict)
    """Revision → pod → digest that this ready server says it has loaded; empty: it says none."""
    strangers: tuple[str, ...] = ()
    """Pods that get requests of the model though no Deployment made them."""
    overrides: tuple[ModelOverride, ...] = ()
    """Orders of people about this model, valid ones; in no order."""
    log_secret: Refused | Unknown | None = None
    """What is wrong with the Secret of the prediction log's store; None: nothing, or none is named."""
    logs: Mapping[str, Counters | Unknown] = field(default_factory=dict)
    """Revision → what its servers say of their log: `<pod>|log=<reason>|<message>`, `<pod>|lost`."""
    pods: PodSettings = PLAIN
    """The operator's settings for pods."""
    lost: ModelRevisionSpec | None = None
    """Spec of the champion's revision where its object is gone, as its run kept it."""
    traffic: Counters | Unknown = field(default_factory=dict)
    """Of the challenger's servers."""
    counted: Mapping[str, Counters | Unknown] = field(default_factory=dict)
    """Of the servers of every revision that was asked; one without a ready server is not there."""
    queried: Mapping[str, Queried] = field(default_factory=dict)
    """Check of the canary → what Prometheus says; empty outside of one."""
    aliases: Mapping[str, str] | Unknown = field(default_factory=dict)
    """Alias → version, of the registered model."""
    url: str = ""
    """Where requests go."""
    tracking_uri: str = ""
    """Where servers fetch models from."""
    local: bool = False
    """True in local mode, where images, resources and isolation do not exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSeen:
    """One container of a training Job."""

    name: str
    state: str
    """Waiting, Running or Terminated."""
    exit_code: int | None = None
    started_at: str = ""
    termination: Termination | None = None
    """What our own containers said; None for `train`, whose text nobody believes."""
    text: str = ""
    """Last words, for people."""
    reason: str = ""
    """What Kubernetes itself says about its end or its waiting: OOMKilled, ImagePullBackOff, …"""
    image_id: str = ""
    """The image that really ran, by digest; empty in local mode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSeen:
    """One training Job."""

    name: str
    attempt: int
    evaluate_only: bool = False
    """It measured a trained model again, and trained nothing."""
    checks: str = ""
    """Hash of the data checks that it applied."""
    against: str | None = None
    """Digest of the champion that it was to compare with, empty for none; None: it does not say."""
    measures: str | None = None
    """Hash of what it was to measure besides the metrics on all rows; None: it does not say."""
    outcome: str
    """Running, Succeeded, Failed or Lost."""
    started_at: str = ""
    finished_at: str = ""
    deadline_s: int = 0
    """How long it was allowed to take, when it was ended because it took longer; else 0."""
    message: str = ""
    waits: str = ""
    """Why its pod does not start, in the words of Kubernetes; empty when it does."""
    suspended: bool = False
    """A queue holds it back, or a person."""
    evicted: str = ""
    """What its node said when it ended the pod for having written more than it may; empty when it did not."""
    expires: bool = False
    """It is deleted by itself after a while."""
    unlike: str = ""
    """What its report says that it was not asked for; empty when it did as it was told."""
    recalled: tuple[str, str] | None = None
    """Reason and message of its end, where the Job is gone and only the status knows of it."""
    steps: tuple[StepSeen, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionSeen:
    """Everything `plan_revision` decides from."""

    manifest: Manifest
    revision: ModelRevision
    model: ModelSpec | None
    """The ModelSpec that wants it; None when that is gone or invalid."""
    champion: ModelRevision | None = None
    """The revision that serves now, to compare with."""
    job: JobSeen | None = None
    """The newest Job."""
    report: Report | Unknown | Refused | None = None
    """The full report of the newest Job, once that succeeded."""
    busy: str = ""
    """Another revision of the same model whose Job has not ended; empty for none."""
    known: LedgerEntry | None = None
    """What the ledger says about a revision that has neither Job nor evidence here: it was trained before."""
    kept: Report | Unknown | Refused | None = None
    """The full report that this entry names."""
    runtime: str
    """Environment of predict and serve."""
    tracking_uri: str
    pods: PodSettings = PLAIN
    """The operator's settings for pods."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositorySeen:
    """Everything `plan_repository` decides from."""

    manifest: Manifest
    repository: ModelRepository | None
    errors: tuple[FieldError, ...] = ()
    commit: str = ""
    label: str = ""
    author: str = ""
    subject: str = ""
    problem: Unknown | Refused | None = None
    """Why Git could not be read."""
    files: tuple[tuple[str, Checked], ...] = ()
    """Every YAML file below the path, checked, by its path in the repository."""
    objects: tuple[Manifest, ...] = ()
    """Every ModelSpec of the namespace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverrideSeen:
    """Everything `plan_override` decides from."""

    manifest: Manifest
    override: ModelOverride | None
    """The ModelOverride, typed; None when it is invalid."""
    errors: tuple[FieldError, ...] = ()
    model: ModelSeen | None = None
    """All about the model that it is about; None when there is no such ModelSpec."""
