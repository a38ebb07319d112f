"""Asks Prometheus what the checks of a canary want to know: clients → `Queried`.

Asks only while there is a canary.  What could not be asked is Unknown inside, never a number.
"""

from __future__ import annotations

from collections.abc import Mapping

from controller.api.kinds import ModelRevision, ModelSpec
from controller.api.rollout import PrometheusQuery
from controller.clients.errors import ClientError
from controller.plan.observed import Queried
from controller.plan.queried import written
from controller.plan.verdict import Unknown
from controller.reconcile.world import World


async def queried(world: World, parsed: ModelSpec, revisions: Mapping[str, ModelRevision]) -> dict[str, Queried]:
    """Ask for every check of a canary that is a query; empty outside of a canary."""
    challenger, champion = parsed.status.challenger, parsed.status.champion
    if challenger is None or challenger.stage != "Canary":
        return {}
    found: dict[str, Queried] = {}
    for rule in parsed.spec.serving.canary.analysis:
        if rule.prometheus is None:
            continue
        known = revisions.get(challenger.revision)
        version = known.status.version if known is not None else ""
        value = await _ask(world, parsed, rule.prometheus, challenger.revision, version)
        beside: float | Unknown | None = None
        if rule.champion is not None and champion is not None:
            beside = await _ask(world, parsed, rule.prometheus, champion.revision, champion.version)
        found[rule.name] = Queried(value=value, champion=beside)
    return found


async def _ask(
    world: World, parsed: ModelSpec, asked: PrometheusQuery, revision: str, version: str
) -> float | Unknown:
    meta = parsed.metadata
    names = {"version": version, "revision": revision, "model": meta.name, "namespace": meta.namespace}
    if world.prometheus is None:
        return Unknown(
            "PrometheusNotAllowed", "no Prometheus server may be asked; name it in MAINSPRING_PROMETHEUS"
        )
    try:
        return await world.prometheus.value(written(asked.query, names), asked.server)
    except ClientError as error:
        return Unknown(error.reason, error.message)
