"""A cluster as the verbs see it: objects through the API server, logs of pods, models behind their Services.

Reads and writes with the rights of the person who asks, under a field manager of the command line's own, so that
the operator's fields stay the operator's.  Decides nothing.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from controller.cli.errors import Failure
from controller.cli.place import Place
from controller.clients.kube import KubeClient

if TYPE_CHECKING:
    import httpx

    from controller.cli.podlogs import Logs
    from controller.cli.predict import Ask
    from controller.clients.registry import Registry
    from controller.reconcile.world import World

MANAGER: Final = "mainspring-cli"
"""Field manager of what people apply, apart from what the operator applies."""
INSIDE: Final = (".svc", ".svc.cluster.local")
"""Ends of names that only the cluster's own network knows."""
HTTP_PORT: Final = "http"
"""Name of the port of a model's Service."""
OPERATOR: Final = {"app.kubernetes.io/name": "mainspring"}
"""Labels of the operator's Deployment."""
TRUSTED: Final = "MAINSPRING_TRUSTED_KEYS"
HOW: Final = {
    TRUSTED: f"set {TRUSTED} to a file with the operator's public key",
    "MLFLOW_TRACKING_URI": "set MLFLOW_TRACKING_URI to MLflow's address",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster of one verb."""

    store: KubeClient
    who: str = "the operator"
    closing: AsyncExitStack = field(default_factory=AsyncExitStack)
    """What is closed at the end of the verb."""

    @property
    def logs(self) -> Logs:
        """Logs of pods."""
        from controller.cli.podlogs import ClusterLogs

        return ClusterLogs(self.store)

    async def world(self) -> World:
        """Put together what a decision is read from, as far as it can be read from here.

        MLflow is the server of MLFLOW_TRACKING_URI, else the operator's; without it, or without the operator's
        public key, the ledger is unknown, and the verbs say so.
        """
        world = world_of(self.store, await operator_settings(self.store))
        self.closing.push_async_callback(world.close)
        return world

    async def whoami(self) -> str:
        """Ask the API server by which name it knows this person."""
        from controller.clients.kube_access import whoami

        return await whoami(self.store.rest)

    def asking(self, namespace: str, name: str, url: str) -> Ask:
        """Ask the address, or, where only the cluster's network knows it, through the API server."""
        from controller.cli.predict import direct

        if not (urlsplit(url).hostname or "").endswith(INSIDE):
            return direct(f"{url}/invocations", f"the server of {name}")

        async def ask(body: bytes, media: str, timeout_s: float) -> httpx.Response:  # noqa: ARG001
            from controller.clients.kube_access import through_service

            return await through_service(self.store.rest, namespace, name, HTTP_PORT, "invocations", body, media)

        return ask


@asynccontextmanager
async def open_cluster(where: Place) -> AsyncIterator[Cluster]:
    """Prepare a client of the cluster, and close it."""
    client = KubeClient.connect(where.kubeconfig, where.context, field_manager=MANAGER)
    cluster = Cluster(client)
    try:
        yield cluster
    finally:
        await cluster.closing.aclose()
        await client.aclose()


async def operator_settings(kube: KubeClient) -> dict[str, str]:
    """Read the operator's settings from its Deployment, as far as this person may; empty when there is none."""
    from controller.clients.errors import ClientError

    try:
        for deployment in await kube.list("Deployment", labels=OPERATOR):
            found: dict[str, str] = {}
            for container in deployment["spec"]["template"]["spec"]["containers"]:
                found |= {e["name"]: e["value"] for e in container.get("env") or () if e.get("value")}
            if any(name.startswith("MAINSPRING_") for name in found):
                return found
    except ClientError as error:
        log.debug("the operator's settings are not read: %s", error.message)
    return {}


def _unread(missing: Sequence[str]) -> Registry:
    """Build a registry whose ledgers cannot be read, and which says why."""
    from controller.cli.session import NO_REGISTRY
    from controller.clients.errors import Unavailable
    from controller.clients.registry import Registry

    class Unread(Registry):
        async def read_ledger(self, name: str, environment: str) -> tuple[bytes, ...]:  # noqa: ARG002
            how = " and ".join(HOW[name] for name in missing)
            raise Unavailable(f"it is not read from this machine: {how}", reason="LedgerNotRead")

    return Unread(NO_REGISTRY)


def world_of(kube: KubeClient, operator: Mapping[str, str]) -> World:
    """Build the world that `plan` and `history` read, from this machine and the operator's settings.

    Raises:
        Failure: MAINSPRING_TRUSTED_KEYS names what is no file of public keys.
    """
    from datetime import UTC, datetime
    from tempfile import mkdtemp

    from controller.cli.session import NO_REGISTRY
    from controller.clients.git import GitPolicy, Mirrors
    from controller.clients.registry import Registry
    from controller.clients.signing import Signer, Verifier
    from controller.clients.telemetry import Telemetry
    from controller.reconcile.access import Access
    from controller.reconcile.ledger import LedgerBook
    from controller.reconcile.secrets import SecretBook
    from controller.reconcile.world import Settings, World

    def now() -> datetime:
        return datetime.now(UTC)

    keys = trusted_keys()
    uri = os.environ.get("MLFLOW_TRACKING_URI") or operator.get("MAINSPRING_TRACKING_URI") or NO_REGISTRY
    # A ledger that nobody can verify here is not empty, it is unknown.
    missing = [name for name, there in ((TRUSTED, keys), ("MLFLOW_TRACKING_URI", uri != NO_REGISTRY)) if not there]
    registry = _unread(missing) if missing else Registry(uri)
    # Nothing is ever signed with it: the verbs that use this world write nothing.
    signer = Signer.load_or_create(Path(mkdtemp(prefix="mainspring-")) / "unused.pem")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mainspring" / "mirrors"
    git, ledger = Mirrors(cache, GitPolicy()), LedgerBook(registry, signer, Verifier(keys), now)
    telemetry, connections = Telemetry(), AsyncExitStack()
    connections.push_async_callback(registry.aclose)
    connections.push_async_callback(telemetry.close)
    return World(
        kube=kube,
        git=git,
        registry=registry,
        ledger=ledger,
        telemetry=telemetry,
        settings=Settings(runtime=operator.get("MAINSPRING_SERVER_IMAGE", ""), tracking_uri=uri),
        now=now,
        url_of=lambda namespace, name: f"http://{name}.{namespace}.svc",
        # With the rights of whoever asks: who may not read a Secret reads that he may not.
        access=Access(SecretBook(kube), git, lambda _: (registry, ledger)),
        close=connections.aclose,
    )


def trusted_keys() -> list[bytes]:
    """Read the operator's public keys, PEM, from the files that MAINSPRING_TRUSTED_KEYS names; none when unset.

    Raises:
        Failure: one is no file, or holds something else.
    """
    from controller.clients.errors import Denied
    from controller.clients.signing import read_public_pem

    names = [n.strip() for n in os.environ.get(TRUSTED, "").split(",")]
    try:
        return [read_public_pem(Path(name).read_text()) for name in names if name]
    except (OSError, ValueError, Denied) as error:
        what = "no files of public keys in PEM, separated by commas"
        raise Failure(f"{TRUSTED}={','.join(names)}: {what}: {error}") from None
