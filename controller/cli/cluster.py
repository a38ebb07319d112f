"""A cluster as the verbs see it: objects through the API server, logs of pods, models behind their Services.

Reads and writes with the rights of the person who asks, under a field manager of the command line's own, so that
the operator's fields stay the operator's.  Decides nothing.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
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
    from controller.reconcile.world import World

MANAGER: Final = "mainspring-cli"
"""Field manager of what people apply, apart from what the operator applies."""
INSIDE: Final = (".svc", ".svc.cluster.local")
"""Ends of names that only the cluster's own network knows."""
HTTP_PORT: Final = "80"


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster of one verb."""

    store: KubeClient
    who: str = "the operator"

    @property
    def logs(self) -> Logs:
        """Logs of pods."""
        from controller.cli.podlogs import ClusterLogs

        return ClusterLogs(self.store)

    def world(self) -> World:
        """Put together what a decision is read from, as far as it can be read from here.

        MLflow is the server of MLFLOW_TRACKING_URI; without it, or without the operator's public key, the ledger
        is unknown, and the verbs say so.
        """
        return world_of(self.store)

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
    try:
        yield Cluster(client)
    finally:
        await client.aclose()


def world_of(kube: KubeClient) -> World:
    """Build the world that `plan` and `history` read, from this machine.

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
    from controller.reconcile.ledger import LedgerBook
    from controller.reconcile.world import Settings, World

    def now() -> datetime:
        return datetime.now(UTC)

    keys = trusted_keys()
    # A ledger that nobody can verify here is not empty, it is unknown.
    uri = (os.environ.get("MLFLOW_TRACKING_URI") or NO_REGISTRY) if keys else NO_REGISTRY
    registry = Registry(uri)
    # Nothing is ever signed with it: the verbs that use this world write nothing.
    signer = Signer.load_or_create(Path(mkdtemp(prefix="mainspring-")) / "unused.pem")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mainspring" / "mirrors"
    return World(
        kube=kube,
        git=Mirrors(cache, GitPolicy()),
        registry=registry,
        ledger=LedgerBook(registry, signer, Verifier(keys), now),
        telemetry=Telemetry(),
        settings=Settings(runtime=os.environ.get("MAINSPRING_RUNTIME_IMAGE", ""), tracking_uri=uri),
        now=now,
        url_of=lambda namespace, name: f"http://{name}.{namespace}.svc",
    )


def trusted_keys() -> list[bytes]:
    """Read the operator's public keys, PEM, from the file that MAINSPRING_TRUSTED_KEYS names; none when unset.

    Raises:
        Failure: it is no file, or holds something else.
    """
    from controller.clients.errors import Denied
    from controller.clients.signing import read_public_pem

    name = os.environ.get("MAINSPRING_TRUSTED_KEYS")
    if not name:
        return []
    end = "-----END PUBLIC KEY-----"
    try:
        parts = Path(name).read_text().split(end)
        return [read_public_pem(f"{part}{end}\n") for part in parts if part.strip()]
    except (OSError, ValueError, Denied) as error:
        raise Failure(f"MAINSPRING_TRUSTED_KEYS={name}: no file of public keys in PEM: {error}") from None
