"""Everything outside that a reconcile may touch, in one frozen bag: ports, settings and the clock.

The protocols say what is needed and no more.  They are satisfied by `clients/` and `local/`, and in stories by the
simulated world of `tests/support`, which the contract suites keep honest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from controller.api.meta import Manifest
from controller.clients.git_types import GitRef, Head, TreeEntry
from controller.plan.pods import PLAIN, PodSettings
from controller.reconcile.kube import Kube
from controller.reconcile.ledger import LedgerBook
from controller.reconcile.ports import RegistryPort

if TYPE_CHECKING:
    from controller.reconcile.access import Access


class GitPort(Protocol):
    """Reads repositories by commit."""

    async def resolve(self, url: str, ref: GitRef, *, max_age_s: float, timeout_s: float | None = None) -> Head:
        """Return the commit that a ref means, as of a poll at most `max_age_s` ago."""
        ...

    async def refresh(self, url: str, ref: GitRef, *, timeout_s: float | None = None) -> Head:
        """Resolve by a poll that begins after this call."""
        ...

    async def files(self, url: str, commit: str) -> tuple[TreeEntry, ...]:
        """List all files of a commit, sorted by path."""
        ...

    async def read_many(
        self, url: str, commit: str, paths: Sequence[str], *, limit: int | None = None
    ) -> Mapping[str, bytes]:
        """Read several regular files of a commit."""
        ...


class TelemetryPort(Protocol):
    """Reads the live numbers of servers."""

    async def counters(self, pods: Sequence[Manifest]) -> Mapping[str, float]:
        """Read what each pod has counted since it started, `<pod>|requests` and so on.

        Raises:
            Unavailable: a pod that is ready did not answer; its numbers are unknown, never zero.
        """
        ...


class PrometheusPort(Protocol):
    """Reads numbers of Prometheus."""

    async def value(self, query: str, server: str | None = None) -> float:
        """Ask for the number that a query has now; NaN where it has none.

        Raises:
            ClientError: there is no answer, or this server may not be asked.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The operator's settings."""

    runtime: str
    """Environment of predict and serve: image digest, or interpreter and packages in local mode."""
    tracking_uri: str
    """MLflow server."""
    local: bool = False
    """Local mode."""
    resync_s: float = 30.0
    """Longest time between two looks at an object even if nothing is heard, seconds."""
    pods: PodSettings = PLAIN
    """What pods are like."""


async def _nothing_open() -> None:
    """Close nothing: a world that was put together from stand-ins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The outside."""

    kube: Kube
    git: GitPort
    registry: RegistryPort
    ledger: LedgerBook
    telemetry: TelemetryPort
    settings: Settings
    now: Callable[[], datetime]
    """The present moment, UTC."""
    url_of: Callable[[str, str], str]
    """Endpoint of a model by namespace and name; empty when unknown."""
    access: Access | None = None
    """Git and registries with the logins of the namespaces' Secrets; None in local mode, which has no Secrets."""
    prometheus: PrometheusPort | None = None
    """Prometheus servers that checks of canaries may ask; None: none."""
    close: Callable[[], Awaitable[None]] = _nothing_open
    """Closes the connections; in the event loop that used them."""
