"""Decides one canary step: stay, go on, or give all traffic back.

Pure: counters and times in, one of three answers out.  A breach needs no patience; a pass needs its interval.
What must be remembered between two looks is in the answer, so that a look that is repeated counts nothing twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from controller.api.base import human_seconds, seconds
from controller.api.conditions import parse_timestamp, timestamp
from controller.api.modelstatus import ChallengerStatus, CheckResult, Measurement
from controller.api.rollout import Canary
from controller.plan import analysis, builtin
from controller.plan.analysis import Window
from controller.plan.figures import cells_of, folded, kept, predictions, since, summed, went_back
from controller.plan.observed import Counters, Queried
from controller.plan.verdict import Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """What the servers of both models say just now."""

    traffic: Counters | Unknown
    """What the challenger's servers have counted since they started."""
    beside: Counters | Unknown
    """What the champion's have."""
    ready: int
    """How many of the challenger's servers are ready."""
    share: int = 0
    """Percent of the requests that really go to the challenger; 0: as the step says."""
    exact: bool = True
    """Requests are split one by one; False: whole servers split connections."""
    queried: Mapping[str, Queried] = field(default_factory=dict)
    """Check → what Prometheus says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What comes next, why, and after how many seconds to look again when the answer is Hold."""

    do: Literal["Hold", "Next", "RollBack"]
    reason: str
    message: str
    next_s: float = 1.0
    challenger: ChallengerStatus
    """The same with what this look has counted."""
    results: tuple[CheckResult, ...] = ()
    """One per check; empty where the figures are unknown."""
    requests: tuple[float, float | None] = (0.0, None)
    """Requests of the challenger and of the champion in this step; None: not known."""


def begin(canary: Canary, live: Live, now: datetime) -> dict[str, Any]:
    """Say what a challenger's status must remember of the moment in which a step begins."""
    known = None if isinstance(live.traffic, Unknown) else live.traffic
    beside = None if isinstance(live.beside, Unknown) else live.beside
    cells = cells_of(predictions(summed({**(beside or {}), **(known or {})})))
    mine, its = _remembered(canary)
    return {
        # Without what was counted before, nothing can be said about the step: it begins again at the next look.
        "since": timestamp(now) if known is not None else "",
        "counters": kept(folded(known or {}, cells), mine),
        "beside": None if beside is None else kept(folded(beside, cells), its),
        "cells": cells,
        "measurement": _measurement(canary, live, now),
        "failures": {},
        "failed": (),
    }


def begins_again(challenger: ChallengerStatus, live: Live) -> bool:
    """Tell whether a step must begin again, since only now the champion's figures can be read."""
    return challenger.beside is None and not isinstance(live.beside, Unknown | type(None))


def judge_step(canary: Canary, challenger: ChallengerStatus, live: Live, now: datetime) -> Step:
    """Judge the step that the challenger is in.

    Args:
        canary: the rule.
        challenger: which step, since when, what was counted then, and what failed since.
        live: what is counted now.
        now: the present moment.
    """
    where = f"canary {challenger.weight}% of {challenger.revision}"
    late = (now - parse_timestamp(challenger.started_at)).total_seconds() > canary.progress_deadline_seconds
    deadline = f"the rollout has taken longer than {human_seconds(canary.progress_deadline_seconds)}"
    if isinstance(live.traffic, Unknown) or live.ready == 0:
        unknown = isinstance(live.traffic, Unknown)
        problem = live.traffic.message if unknown else "no server of the challenger is ready"  # type: ignore[union-attr]
        if late:
            message = f"{where}: {problem}; {deadline}"
            return Step(do="RollBack", reason="ProgressDeadlineExceeded", message=message, challenger=challenger)
        message = f"{where}: {problem}"
        return Step(do="Hold", reason="TelemetryUnknown", message=message, challenger=challenger)
    counted = folded(live.traffic, challenger.cells)
    delta = since(counted, challenger.counters)
    anew = went_back(counted, challenger.counters)
    step = Window(challenger=summed(delta), champion=_beside(challenger, live), restarted=anew)
    left = seconds(canary.interval) - (now - parse_timestamp(challenger.since)).total_seconds()
    weight = live.share or challenger.weight
    begun = challenger.measurement
    part, first = _part(challenger, live, step), begun is None or begun.since == challenger.since
    ends = _ends(canary, challenger, part, now)
    results = tuple(
        analysis.measure(a, part, step, first=first, over=ends or left <= 0, asked=live.queried.get(a.name))
        for a in canary.analysis
    )
    results += builtin.check(canary.built_in, step, weight=weight, exact=live.exact, over=left <= 0)
    challenger, results = _counted(canary, challenger, live, results, now, ends=ends)
    told: dict[str, Any] = {
        "challenger": challenger,
        "results": results,
        "requests": (step.requests, None if step.champion is None else step.beside),
    }
    limits = {a.name: a.failure_limit for a in canary.analysis}
    broken = [r for r in results if not r.dry_run and r.failures >= limits.get(r.name, 1)]
    if broken:
        message = f"{where}: {'; '.join(_failed(r) for r in broken)}"
        return Step(do="RollBack", reason="AnalysisFailed", message=message, **told)
    seen = f"{step.requests:.0f} requests so far"
    if left > 0:
        message = f"{where}: {human_seconds(left)} to go, {seen}{_failures(results, limits)}"
        return Step(do="Hold", reason="Progressing", message=message, next_s=min(left, 1.0), **told)
    unseen = "volume" in canary.built_in.disabled or canary.built_in.dry_run
    starved = "" if unseen else builtin.starved(step, weight)
    if step.requests == 0 and not starved:
        message = f"{where}: no request came in {canary.interval}, nothing to judge"
        return Step(do="Next", reason="NoTraffic", message=message, **told)
    doubts = [r for r in results if r.outcome == "Inconclusive" and not (r.built_in or r.dry_run)]
    if starved or doubts:
        return _inconclusive(canary, where, starved, doubts, deadline if late else "", told)
    passed = "; ".join(r.message for r in results if not r.built_in and not r.dry_run)
    message = f"{where}: {passed or seen}{_failures(results, limits)}"
    return Step(do="Next", reason="AnalysisPassed", message=message, **told)


def _inconclusive(
    canary: Canary, where: str, starved: str, doubts: list[CheckResult], late: str, told: dict[str, Any]
) -> Step:
    """Act on what could not be judged when the step's time is over."""
    few = starved or all(r.reason == "TooFewRequests" for r in doubts)
    reason = "TooFewRequests" if few else "AnalysisInconclusive"
    message = f"{where}: {starved or doubts[0].message}"
    more = f", and {len(doubts) - 1} more" if len(doubts) > 1 else ""
    if canary.on_inconclusive == "Promote":
        return Step(do="Next", reason=reason, message=f"{message}{more}; onInconclusive: Promote", **told)
    if canary.on_inconclusive == "Rollback":
        return Step(do="RollBack", reason=reason, message=f"{message}{more}; onInconclusive: Rollback", **told)
    if late:
        return Step(do="RollBack", reason=reason, message=f"{message}; {late}", **told)
    return Step(do="Hold", reason=reason, message=message, **told)


def position(weights: Sequence[int], challenger: ChallengerStatus) -> int:
    """Find the step that a canary stands at, also when a person has changed the weights on the way.

    The step of the same weight; where there is none any more, the next larger one, else the last.
    """
    if challenger.step < len(weights) and weights[challenger.step] == challenger.weight:
        return challenger.step
    larger = (i for i, weight in enumerate(weights) if weight >= challenger.weight)
    return next(larger, len(weights) - 1)


def _counted(
    canary: Canary,
    challenger: ChallengerStatus,
    live: Live,
    results: tuple[CheckResult, ...],
    now: datetime,
    *,
    ends: bool,
) -> tuple[ChallengerStatus, tuple[CheckResult, ...]]:
    """Count what fails, each check once per measurement, and begin the next measurement when its time has come."""
    fresh = [r.name for r in results if r.outcome == "Failed" and r.name not in challenger.failed]
    failures = {**challenger.failures, **{n: challenger.failures.get(n, 0) + 1 for n in fresh}}
    changes: dict[str, Any] = {"failures": failures, "failed": (*challenger.failed, *fresh)}
    if ends:
        changes |= {"measurement": _measurement(canary, live, now), "failed": ()}
    counted = tuple(r.model_copy(update={"failures": failures.get(r.name, 0)}) for r in results)
    return challenger.model_copy(update=changes), counted


def _ends(canary: Canary, challenger: ChallengerStatus, part: Window, now: datetime) -> bool:
    """Tell whether a measurement within a step ends: its time is over, and every check of requests had enough."""
    if canary.measure_every is None:
        return False
    begun = challenger.measurement
    needed = max((a.min_requests for a in canary.analysis if (a.metric or "").startswith("request-")), default=0)
    passed = None if begun is None else (now - parse_timestamp(begun.since)).total_seconds()
    return passed is None or (passed >= seconds(canary.measure_every) and part.requests >= needed)


def _measurement(canary: Canary, live: Live, now: datetime) -> Measurement | None:
    if canary.measure_every is None or isinstance(live.traffic, Unknown):
        return None
    beside = None if isinstance(live.beside, Unknown) else kept(live.beside, _of_requests)
    return Measurement(since=timestamp(now), counters=kept(live.traffic, _of_requests), beside=beside)


def _part(challenger: ChallengerStatus, live: Live, step: Window) -> Window:
    """Take what was counted in the measurement that is going on; the whole step where there is but one."""
    begun = challenger.measurement
    if begun is None or isinstance(live.traffic, Unknown):
        return step
    known = begun.beside is not None and not isinstance(live.beside, Unknown)
    beside = summed(since(live.beside, begun.beside)) if known else None  # type: ignore[arg-type]
    return Window(challenger=summed(since(live.traffic, begun.counters)), champion=beside)


def _beside(challenger: ChallengerStatus, live: Live) -> dict[str, float] | None:
    if challenger.beside is None or isinstance(live.beside, Unknown):
        return None
    return summed(since(folded(live.beside, challenger.cells), challenger.beside))


def _remembered(canary: Canary) -> tuple[Any, Any]:
    """Say which counters a step must remember of the challenger and of the champion."""
    timed = [a for a in canary.analysis if (a.metric or "").startswith("request-duration")]
    prefixes = ("requests", "errors", "rows", "missing", "unseen", "compared", "disagreed", "p=", "conf_le=")
    mine = (*prefixes, "le=") if timed else prefixes
    its = (*prefixes, "le=") if any(a.champion for a in timed) else prefixes
    return (lambda name: name.startswith(mine)), (lambda name: name.startswith(its))


def _of_requests(name: str) -> bool:
    return name.startswith(("requests", "errors", "le="))


def _failed(found: CheckResult) -> str:
    more = f" ({found.failures} failed measurements)" if found.failures > 1 else ""
    return f"{found.name}: {found.message}{more}"


def _failures(results: Sequence[CheckResult], limits: dict[str, int]) -> str:
    """Say which checks have failed without having reached their limit."""
    some = [r for r in results if r.failures and not r.dry_run]
    return "".join(f"; {r.name} failed in {r.failures} of {limits.get(r.name, 1)} measurements" for r in some)
