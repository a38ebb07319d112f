"""Opens what local mode keeps on disk: the object store, the Git mirrors, the key, the address of MLflow.

Two directories: the state (`.mainspring`, may be deleted) and the data (MLflow's store and the signing key, which
outlive it).  Whoever opens a world here reads and writes like the controller, but starts nothing.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Final

from controller.api.kinds import parse
from controller.api.meta import Manifest
from controller.local.store import Store
from controller.plan.pods import PodSettings
from controller.reconcile.world import Settings, World


@dataclass(frozen=True, slots=True)
class Places:
    """Where local mode keeps things."""

    state: Path
    """Objects, mirrors, processes and logs of this project."""
    data: Path
    """MLflow's database and artifacts, and the signing key: what must survive the state."""

    @property
    def objects(self) -> Path:
        """The object store."""
        return self.state / "objects.db"

    @property
    def mirrors(self) -> Path:
        """Bare mirrors of the repositories that are followed."""
        return self.state / "mirrors"

    @property
    def run(self) -> Path:
        """Processes, their directories and logs."""
        return self.state

    @property
    def key(self) -> Path:
        """The signing key."""
        return self.data / "signing-key.pem"

    @property
    def mlflow(self) -> Path:
        """MLflow's own directory."""
        return self.data / "mlflow"

    @property
    def predictions(self) -> Path:
        """The log of predictions of models that name no other place."""
        return self.state / "predictions"

    @property
    def roots(self) -> Path:
        """File that names the directories below which local repositories may lie, one a line."""
        return self.state / "git-roots"


def places(state: Path, data: Path | None = None) -> Places:
    """Return where things are kept.

    The data directory is, in this order: the one given, the one that this state was last used with,
    MAINSPRING_DATA, or a directory of the user named after the state's own path.
    """
    state = state.absolute()
    noted = state / "data-directory"
    if data is None and noted.exists() and (text := noted.read_text().strip()):
        data = Path(text)
    if data is None:
        name = hashlib.sha256(str(state).encode()).hexdigest()[:10]
        base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
        given = os.environ.get("MAINSPRING_DATA")
        data = Path(given) if given else Path(base) / "mainspring" / f"{state.parent.name}-{name}"
    return Places(state, data.absolute())


def prepare(where: Places) -> None:
    """Make both directories, for this user only, and note that they belong together."""
    for directory in (where.state, where.data):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    note(where.state / "data-directory", f"{where.data}\n")


def note(file: Path, text: str) -> None:
    """Write a small file all at once: who is killed in it leaves the old text, never half of the new one."""
    fresh = file.with_name(f".{file.name}.new")
    fresh.write_text(text)
    fresh.replace(file)


def runtime_digest() -> str:
    """Name the environment in which models are loaded and served here: interpreter and all packages.

    Stands in for an image digest, so digests of local mode never equal a cluster's.
    """
    packages = sorted({f"{d.name.lower()}=={d.version}" for d in metadata.distributions() if d.name})
    text = "\n".join([platform.python_implementation(), platform.python_version(), *packages])
    return f"python-{platform.python_version()}-sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def problems_of(manifest: Manifest) -> list[str]:
    """Say what is wrong with an object of one of our kinds, as a CRD's schema would."""
    parsed = parse(manifest)
    return [str(e) for e in parsed] if isinstance(parsed, tuple) else []


def open_store(where: Places) -> Store:
    """Open the object store, with our kinds checked as on an API server."""
    return Store.open(where.objects, validate=problems_of)


def git_roots(where: Places) -> tuple[Path, ...]:
    """Return the directories below which `file:` repositories may lie."""
    if not where.roots.exists():
        return ()
    return tuple(Path(line) for line in where.roots.read_text().splitlines() if line)


def allow_roots(where: Places, roots: Sequence[Path]) -> None:
    """Add directories to those below which `file:` repositories may lie."""
    known = [str(r) for r in git_roots(where)]
    wanted = [*known, *(str(r.resolve()) for r in roots if str(r.resolve()) not in known)]
    note(where.roots, "".join(f"{r}\n" for r in wanted))


def trusted_keys(where: Places) -> tuple[bytes, ...]:
    """Return the public keys, 32 raw bytes each, whose word is taken here: our own, made when missing."""
    from controller.clients.signing import Signer

    return (Signer.load_or_create(where.key).public,)


def open_world(where: Places, store: Store, *, tracking_uri: str, router_url: str) -> World:
    """Put the world of local mode together: real Git, real MLflow, the local store."""
    from controller.clients.git import GitPolicy, Mirrors
    from controller.clients.prometheus import Prometheus
    from controller.clients.registry import Registry
    from controller.clients.signing import Signer, Verifier
    from controller.clients.telemetry import Telemetry
    from controller.reconcile.ledger import LedgerBook

    signer = Signer.load_or_create(where.key)
    registry, telemetry = Registry(tracking_uri), Telemetry()
    connections = AsyncExitStack()
    connections.push_async_callback(registry.aclose)
    connections.push_async_callback(telemetry.close)
    prometheus = Prometheus(
        tuple(s.strip() for s in os.environ.get("MAINSPRING_PROMETHEUS", "").split(",") if s.strip())
    )
    connections.push_async_callback(prometheus.close)
    return World(
        kube=store,
        git=Mirrors(where.mirrors, GitPolicy(file_roots=git_roots(where))),
        registry=registry,
        ledger=LedgerBook(registry, signer, Verifier([signer.public]), _now),
        telemetry=telemetry,
        prometheus=prometheus,
        settings=Settings(
            runtime=runtime_digest(), tracking_uri=tracking_uri, local=True, pods=log_settings(where)
        ),
        now=_now,
        url_of=lambda namespace, name: f"{router_url}/{namespace}/{name}" if router_url else "",
        close=connections.aclose,
    )


LOG_AGE_S: Final = 10.0
"""How old predictions get here before they are shipped: who tries it out waits for them."""


def log_settings(where: Places) -> PodSettings:
    """Say where predictions are kept here; the spool lies beside, so that it outlives every server."""
    return PodSettings(
        log_store=where.predictions.as_uri(), log_spool=str(where.state / "prediction-spool"), log_age_s=LOG_AGE_S
    )


def _now() -> datetime:
    return datetime.now(UTC)
