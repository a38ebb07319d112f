"""What one decision about a model has gathered so far: actions, conditions and the status to be.

Not pure by itself, since it grows; `plan_model` makes one, fills it and turns it into a frozen Plan.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from controller.api.conditions import (
    AVAILABLE,
    DEGRADED,
    ENVIRONMENT_NOT_ISOLATED,
    READY,
    RECONCILING,
    SERVED_AS_DECLARED,
    STALLED,
    Wanted,
    timestamp,
)
from controller.api.kinds import ModelOverride, ModelRevision, ModelSpec
from controller.api.modelstatus import GateVerdict, ModelSpecStatus
from controller.api.predictionlog import PredictionLogStatus
from controller.api.statements import LedgerEntry
from controller.plan import naming, predlog
from controller.plan.actions import Action, Plan
from controller.plan.ledger import Ledger
from controller.plan.observed import DeploymentSeen, ModelSeen
from controller.plan.revision import environment_of, registry_name
from controller.plan.verdict import Unknown

ModelPlan = Plan[ModelSpecStatus]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What is needed to serve a revision: from the ledger, or from the status while the ledger is away."""

    revision: str
    run: str
    digest: str
    version: str
    commit: str
    runtime: str
    since: str = ""

    @property
    def deployment(self) -> str:
        """Name of its Deployment and Service."""
        return naming.deployment_name(self.revision, self.runtime)


@dataclass(slots=True, kw_only=True)
class Round:
    """One decision in the making."""

    seen: ModelSeen
    model: ModelSpec
    now: datetime
    status: ModelSpecStatus
    champion: Served | None
    actions: list[Action] = field(default_factory=list)
    conditions: list[Wanted] = field(default_factory=list)
    verdicts: tuple[GateVerdict, ...] = ()
    next_s: float | None = None
    rolling: str = ""
    """Revision whose servers are wanted beside the champion's."""
    coming: Served | None = None
    """The same where it comes by order of a person: its object may be gone."""
    order: ModelOverride | None = None
    """The order of a person that rules; None: Git rules."""

    @property
    def environment(self) -> str:
        """Name of the environment."""
        return environment_of(self.model)

    @property
    def stamp(self) -> str:
        """The present moment, as statuses hold it."""
        return timestamp(self.now)

    @property
    def ledger(self) -> Ledger | None:
        """The ledger; None while it cannot be read."""
        return None if isinstance(self.seen.ledger, Unknown) else self.seen.ledger

    def look_in(self, seconds: float) -> None:
        """Ask for the next look; the soonest of those that are asked for counts."""
        self.next_s = seconds if self.next_s is None else min(self.next_s, seconds)

    def set(self, **changes: Any) -> None:
        """Change fields of the status to be."""
        self.status = self.status.model_copy(update=changes)

    def deployment_of(self, revision: str) -> DeploymentSeen | None:
        """Find the servers of a revision."""
        served = self.served(revision)
        return self.seen.deployments.get(served.deployment) if served else None

    def served(self, revision: str) -> Served | None:
        """Gather what is needed to serve a trained revision; None while it is not trained and registered."""
        for known in (self.champion, self.coming):
            if known is not None and known.revision == revision:
                return known
        found = self.seen.revisions.get(revision)
        return served_from(found) if found is not None else None

    def entry(self, kind: str, served: Served, **fields: Any) -> LedgerEntry:
        """Build the next ledger entry about a revision; `champion` is who serves after it."""
        ledger, model = self.ledger, self.model
        assert ledger is not None
        found = self.seen.revisions.get(served.revision)
        head = found.spec if found is not None else None
        return LedgerEntry.model_validate(
            {
                "name": registry_name(model),
                "environment": self.environment,
                "seq": ledger.next_seq,
                "prev": ledger.head,
                "kind": kind,
                "revision": served.revision,
                "inputs": head.inputs if head else "",
                "digest": served.digest,
                "run": served.run,
                "version": served.version,
                "commit": served.commit,
                "runtime": served.runtime,
                "author": head.trigger.author if head else "",
                "at": self.stamp,
                **fields,
            }
        )

    def finish(self, ready: str, reason: str, message: str, *, stage: str, stalled: bool = False) -> ModelPlan:
        """Close the round with the summary conditions."""
        status: Any = ready
        summary: list[Wanted] = [(READY, status, reason, message)]
        if ready != "True":
            summary.append((STALLED if stalled else RECONCILING, "True", reason, message))
        self.set(stage=stage, url=self.seen.url or self.status.url)
        logged = self._logged()
        return Plan(
            actions=tuple(self.actions),
            conditions=(
                *summary,
                *self.conditions,
                self._available(),
                *self._degraded(),
                *logged,
                *self._where(),
            ),
            status=self.status,
            verdicts=self.verdicts,
            next_s=self.next_s,
        )

    def _available(self) -> Wanted:
        champion = self.champion
        if champion is None:
            return (AVAILABLE, "False", "NoChampion", "nothing serves yet")
        servers = self.seen.deployments.get(champion.deployment)
        if servers is None or servers.ready == 0:
            other = self._still_serving()
            if other:
                return (
                    AVAILABLE,
                    "True",
                    "Replacing",
                    f"{other} still answers until {champion.revision} is ready",
                )
            detail = servers.message if servers and servers.message else "its servers are starting"
            return (AVAILABLE, "False", "ServersNotReady", f"{champion.revision}: {detail}")
        weight = (self.seen.route or {}).get(champion.deployment, 0)
        message = f"{champion.revision} serves {weight}% with {servers.ready} of {servers.replicas} servers"
        return (AVAILABLE, "True", "Serving", message)

    def _logged(self) -> tuple[Wanted, ...]:
        """Say where predictions are logged, and how that goes."""
        log = predlog.wanted(self.model, self.seen.pods)
        asked = self.model.spec.serving.prediction_log
        told = predlog.condition(log, self.seen.log_secret, self.seen.logs, asked.sample if asked else 1.0)
        self.set(prediction_log=PredictionLogStatus(uri=log.uri) if isinstance(log, predlog.Logged) else None)
        if told is None:
            return ()
        # Stores come and go without a word to us.
        self.look_in(60.0)
        return (told,)

    def _degraded(self) -> tuple[Wanted, ...]:
        """Report what of the ledger does not count; it is never repaired and never believed."""
        problems = self.ledger.problems if self.ledger else ()
        if not problems:
            return ()
        more = f" And {len(problems) - 3} more." if len(problems) > 3 else ""
        text = " ".join(problems[:3]) + more
        hint = "Find out who else writes to the registry; what serves is decided by the entries that count"
        return ((DEGRADED, "True", "LedgerDamaged", f"{text} {hint}"),)

    def _declared(self) -> tuple[Wanted, ...]:
        """Say whether the running servers of the champion have loaded what the ledger names."""
        champion = self.champion
        if champion is None:
            return ()
        if strangers := self.seen.strangers:
            more = f" and {len(strangers) - 1} more" if len(strangers) > 1 else ""
            message = f"pod {strangers[0]}{more} gets requests of {self.model.metadata.name}, though no Deployment"
            text = f"{message} of it made them; delete them, and find out who put them there"
            return ((SERVED_AS_DECLARED, "False", "ForeignServer", text),)
        loaded = self.seen.loaded.get(champion.revision, {})
        if isinstance(loaded, Unknown):
            return ((SERVED_AS_DECLARED, "Unknown", loaded.reason, loaded.message),)
        if not loaded:
            return ((SERVED_AS_DECLARED, "Unknown", "ServersNotReady", "no server of the champion is ready"),)
        other = sorted(pod for pod, digest in loaded.items() if digest != champion.digest)
        if other:
            told = loaded[other[0]]
            said = f"have loaded {told[:19]}" if told else "do not say what they have loaded"
            text = f"{len(other)} of {len(loaded)} servers ({other[0]}) {said}"
            message = f"{text}, not {champion.digest[:19]}; delete them, and find out who put them there"
            return ((SERVED_AS_DECLARED, "False", "DigestMismatch", message),)
        message = f"{len(loaded)} of {len(loaded)} servers report {champion.digest[:19]}"
        return ((SERVED_AS_DECLARED, "True", "DigestsMatch", message),)

    def _still_serving(self) -> str:
        for name, weight in (self.seen.route or {}).items():
            servers = self.seen.deployments.get(name)
            if weight > 0 and servers is not None and servers.ready > 0:
                return servers.revision
        return ""

    def _where(self) -> tuple[Wanted, ...]:
        """Say what the place adds: on a cluster what the servers report, in local mode what does not exist."""
        if not self.seen.local:
            return self._declared()
        image = self.model.spec.training.image
        ignored = f"image {image} and isolation do" if image else "images and isolation do"
        message = f"local mode: {ignored} not exist; programs run in this machine's Python as this user"
        return ((ENVIRONMENT_NOT_ISOLATED, "True", "LocalMode", message),)


def served_from(revision: ModelRevision) -> Served | None:
    """Gather what is needed to serve a revision from its object; None while it is not complete."""
    status = revision.status
    if status.artifact is None or status.evidence is None or not status.version:
        return None
    return Served(
        revision=revision.metadata.name,
        run=status.run,
        digest=status.artifact.digest,
        version=status.version,
        commit=revision.spec.source.commit,
        runtime=status.evidence.runtime,
    )


def find_champion(seen: ModelSeen, status: ModelSpecStatus) -> Served | None:
    """Say who the champion is: by the ledger, or, while that is away, by the last status."""
    if isinstance(seen.ledger, Unknown):
        cached = status.champion
        if cached is None:
            return None
        run = cached.evidence.removeprefix("mlflow:/").partition("/")[0]
        return Served(
            revision=cached.revision,
            run=run,
            digest=cached.digest,
            version=cached.version,
            commit=cached.commit,
            # Not from its object first: that may be gone, and without it its servers would have another name.
            runtime=cached.runtime or _runtime(seen, cached.revision),
            since=cached.since,
        )
    last = seen.ledger.champion
    if last is None or not last.champion:
        return None
    entry = seen.ledger.newest(last.champion)
    if entry is None:
        # Its own entries are lost; a later one names it champion, and its object says where it is.
        found = seen.revisions.get(last.champion)
        return served_from(found) if found is not None else None
    return Served(
        revision=entry.revision,
        run=entry.run,
        digest=entry.digest,
        version=entry.version,
        commit=entry.commit,
        runtime=entry.runtime or _runtime(seen, entry.revision),
        since=entry.at,
    )


def _runtime(seen: ModelSeen, revision: str) -> str:
    found = seen.revisions.get(revision)
    return found.status.evidence.runtime if found is not None and found.status.evidence else ""
