"""Decides how the servers of a model log their predictions, and says on the ModelSpec how that goes.

Never keeps a model from being served: what is wrong with the log is a condition of its own.  Servers that log
already go on with it while their Secret has a problem; new ones begin without.  Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from controller.api.base import seconds
from controller.api.conditions import PREDICTIONS_LOGGED, Wanted
from controller.api.hashes import digest as digest_of
from controller.api.kinds import ModelSpec
from controller.api.meta import Manifest
from controller.api.pods import amount_of
from controller.api.predictionlog import PredictionLog
from controller.plan.pods import PodSettings
from controller.plan.verdict import Refused, Unknown

SPOOL: Final = "/mainspring/log"
SPOOL_BYTES: Final = 512 * 2**20
"""Most bytes that wait for the store on one node, unless a volume may hold less."""
WHOLE: Final = 0.8
"""Share of a volume that the spool may fill: what fills the whole of it is evicted."""
FINE: Final = frozenset({"Shipping", "Starting"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """How the servers of a model log."""

    uri: str
    secret: str
    """Secret that the shipper mounts; empty: none."""
    chosen: Mapping[str, Any]
    """What people chose, for the hash of the servers."""
    told: Mapping[str, Any]
    """What a server is told, besides where the spool is."""
    ship: tuple[str, ...]
    """Arguments of the shipper, besides the spool."""
    spool: str
    """Directory of the spool; in local mode on this machine, else in the pod."""

    def environment(self, *, child: bool) -> list[Manifest]:
        """Return the variables of the server; `child`: it starts the shipper itself."""
        told = {"spool": self.spool, **self.told}
        found = [("MAINSPRING_PREDICTION_LOG", _fixed(json.dumps(told, sort_keys=True)))]
        if child:
            found.append(("MAINSPRING_LOG_SHIP", _fixed(json.dumps(list(self.ship)))))
        pod = {"name": "MAINSPRING_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
        return [{"name": name, "value": value} for name, value in found] + [pod]

    def digest(self) -> str:
        """Hash what people chose; never our own defaults: an upgrade moves nothing."""
        return digest_of({"recipe": 1, **self.chosen})


def _fixed(text: str) -> str:
    """Keep Kubernetes from replacing `$(NAME)` in a value."""
    return text.replace("$", "$$")


def wanted(model: ModelSpec, settings: PodSettings) -> Logged | Refused | None:
    """Say how predictions are to be logged; None: they are not; Refused: they cannot be, and why."""
    asked = model.spec.serving.prediction_log
    if asked is None or not asked.on:
        return None
    name, namespace = model.metadata.name, model.metadata.namespace
    storage, local = asked.storage, not settings.hardened
    if storage is None:
        if not settings.log_store:
            text = "serving.predictionLog.storage.uri is not set: say where predictions are to be kept"
            return Refused("StorageMissing", text)
        uri, secret = f"{settings.log_store}/{namespace}/{name}", ""
    else:
        uri, secret = storage.uri, storage.secret_ref.name if storage.secret_ref else ""
    if uri.startswith("file:") and not local:
        text = f"{uri} is a directory, and pods have none that outlives them; write s3://, gs:// or az://"
        return Refused("StorageNotHere", text)
    if secret and local:
        text = (
            f"local mode has no Secrets: leave out storage.secretRef ({secret}); the files of your user are used"
        )
        return Refused("SecretsNotHere", text)
    columns = model.spec.columns.sensitive
    retention = ["--retention-s", f"{seconds(asked.retention):g}"] if asked.retention else []
    return Logged(
        uri=uri,
        secret=secret,
        chosen=_chosen(asked, uri, secret, columns),
        told={
            "mode": asked.mode,
            "sample": asked.sample,
            "sensitive": list(columns),
            "policy": asked.sensitive,
            "salt": f"{namespace}/{name}",
            "spool_bytes": min(SPOOL_BYTES, int(amount_of(settings.volume_limit) * int(WHOLE * 100) / 100)),
            "segment_age_s": settings.log_age_s,
        },
        ship=("--uri", uri, "--model", name, *retention),
        spool=f"{settings.log_spool}/{namespace}/{name}" if local else SPOOL,
    )


def _chosen(asked: PredictionLog, uri: str, secret: str, sensitive: tuple[str, ...]) -> dict[str, Any]:
    hidden = {"sensitive": [asked.sensitive, *sensitive]} if sensitive else {}
    kept = {"retention": asked.retention} if asked.retention else {}
    return {"mode": asked.mode, "sample": asked.sample, "uri": uri, "secret": secret, **hidden, **kept}


def condition(
    logged: Logged | Refused | None,
    problem: Refused | Unknown | None,
    counted: Mapping[str, Mapping[str, float] | Unknown],
    share: float,
) -> Wanted | None:
    """Say whether predictions are logged, and if not, why; None where nobody asked for it.

    Args:
        logged: what `wanted` says.
        problem: what is wrong with the Secret of the store.
        counted: revision → figures of its servers, `<pod>|log=<reason>|<message>` and `<pod>|lost` among them.
        share: of the requests that are logged.
    """
    if logged is None:
        return None
    wrong = logged if isinstance(logged, Refused) else problem
    if isinstance(wrong, Refused):
        text = f"{wrong.message.rstrip('.')}. Servers go on answering; new ones log nothing until then"
        return (PREDICTIONS_LOGGED, "False", wrong.reason, text)
    assert not isinstance(logged, Refused)
    silent = next((found for found in counted.values() if isinstance(found, Unknown)), None)
    figures = {k: v for found in counted.values() if not isinstance(found, Unknown) for k, v in found.items()}
    lost = sum(count for key, count in figures.items() if key.partition("|")[2] == "lost")
    told = [key.split("|", 2) for key in sorted(figures) if key.partition("|")[2].startswith("log=")]
    loss = f" {lost:,.0f} predictions were lost since the servers started" if lost else ""
    for pod, reason, message in ((t[0], t[1].removeprefix("log="), t[2] if len(t) > 2 else "") for t in told):
        if reason not in FINE:
            kept = "what is not shipped waits on the node, up to a limit"
            return (PREDICTIONS_LOGGED, "False", reason, f"server {pod}: {message}; {kept}.{loss}")
    if not told:
        reason, message = (silent.reason, silent.message) if silent else ("ServersNotReady", "no server logs yet")
        return (PREDICTIONS_LOGGED, "Unknown", reason, message)
    part = "" if share >= 1 else f" of {share:.3%} of the requests".replace(".000%", "%")
    after = f"at most {logged.told['segment_age_s']:g}s after they were made"
    text = f"predictions{part} are kept in {logged.uri}, {after}"
    return (PREDICTIONS_LOGGED, "True", "SomeLost" if lost else "Logging", f"{text}.{loss}" if lost else text)
