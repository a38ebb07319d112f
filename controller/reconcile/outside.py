"""Puts the world of a cluster together from the settings: Git, registry, ledger, live numbers, what pods are like.

Nothing is sent here, and no file but the keys is read.  Local mode has its own in `local/session.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from controller.clients.errors import Denied
from controller.plan.pods import PodSettings
from controller.reconcile.cache import CachedKube
from controller.reconcile.settings import OperatorSettings
from controller.reconcile.world import World


def open_world(settings: OperatorSettings, kube: CachedKube, guard: Callable[[], None]) -> World:
    """Put the world of a cluster together; `guard` raises to keep a write from leaving.

    Raises:
        Denied: the key or a trusted key cannot be read.
    """
    from controller.clients.credentials import WebLogin
    from controller.clients.git_types import GitPolicy
    from controller.clients.prometheus import Prometheus
    from controller.clients.registry import Registry
    from controller.clients.signing import Signer, Verifier
    from controller.clients.telemetry import Telemetry
    from controller.reconcile.access import Access
    from controller.reconcile.ledger import LedgerBook
    from controller.reconcile.pushes import PushedMirrors
    from controller.reconcile.secrets import SecretBook
    from controller.reconcile.world import Settings

    signer = Signer.load_or_create(settings.signing_key)
    trusted = [signer.public, *_further_keys(settings)]
    telemetry, prometheus = Telemetry(), Prometheus(settings.prometheus)
    opened: list[Registry] = []

    def open_registry(login: Callable[[], WebLogin]) -> tuple[Registry, LedgerBook]:
        opened.append(Registry(settings.tracking_uri, login=login, guard=guard))
        return opened[-1], LedgerBook(opened[-1], signer, Verifier(trusted), _now)

    registry, ledger = open_registry(WebLogin)
    protocols = frozenset(settings.git_protocols)
    git = PushedMirrors(settings.mirrors, GitPolicy(protocols=protocols, allowed_hosts=settings.allowed_hosts))

    async def close() -> None:
        for one in opened:
            await one.aclose()
        await telemetry.close()
        await prometheus.close()
        await asyncio.to_thread(git.close)

    return World(
        kube=kube,
        git=git,
        registry=registry,
        ledger=ledger,
        telemetry=telemetry,
        prometheus=prometheus,
        settings=Settings(
            runtime=settings.server_image,
            tracking_uri=settings.tracking_uri,
            resync_s=settings.resync,
            pods=_pods(settings, trusted),
        ),
        now=_now,
        url_of=lambda namespace, name: f"http://{name}.{namespace}.svc:8080",
        access=Access(SecretBook(kube), git, open_registry),
        close=close,
    )


def _pods(settings: OperatorSettings, trusted: Sequence[bytes]) -> PodSettings:
    from controller.clients.signing import public_text

    return PodSettings(
        hardened=True,
        jobs_image=settings.jobs_image,
        server_image=settings.server_image,
        fetch_env=_fetch_env(settings),
        trusted_keys=public_text(trusted),
    )


def _further_keys(settings: OperatorSettings) -> list[bytes]:
    from controller.clients.signing import read_public_pem

    keys = []
    for file in settings.trusted_keys:
        try:
            keys.append(read_public_pem(file.read_text()))
        except OSError as error:
            raise Denied(f"the trusted key {file} cannot be read: {error.strerror}") from None
    return keys


def _fetch_env(settings: OperatorSettings) -> dict[str, str]:
    told = {"MAINSPRING_GIT_PROTOCOLS": ",".join(settings.git_protocols)}
    if settings.allowed_hosts:
        told["MAINSPRING_ALLOWED_HOSTS"] = ",".join(settings.allowed_hosts)
    return told


def _now() -> datetime:
    return datetime.now(UTC)
