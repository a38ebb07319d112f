"""Decides one canary step: stay, go on, or give all traffic back.

Pure: counters and times in, one of three answers out.  A breach needs no patience; a pass needs its interval.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from controller.api.base import human_seconds, seconds
from controller.api.conditions import parse_timestamp
from controller.api.gates import Analysis, Canary
from controller.api.modelstatus import ChallengerStatus
from controller.plan.observed import Counters
from controller.plan.verdict import Unknown


@dataclass(frozen=True, slots=True)
class Step:
    """What comes next, why, and after how many seconds to look again when the answer is Hold."""

    do: Literal["Hold", "Next", "RollBack"]
    reason: str
    message: str
    next_s: float = 1.0


def judge_step(
    canary: Canary, challenger: ChallengerStatus, traffic: Counters | Unknown, ready: int, now: datetime
) -> Step:
    """Judge the step that the challenger is in.

    Args:
        canary: the rule.
        challenger: which step, since when, and what its servers had counted then.
        traffic: what its servers have counted now.
        ready: how many of its servers are ready.
        now: the present moment.
    """
    where = f"canary {challenger.weight}% of {challenger.revision}"
    total = (now - parse_timestamp(challenger.started_at)).total_seconds()
    late = total > canary.progress_deadline_seconds
    deadline = f"the rollout has taken longer than {human_seconds(canary.progress_deadline_seconds)}"
    if isinstance(traffic, Unknown) or ready == 0:
        problem = traffic.message if isinstance(traffic, Unknown) else "no server of the challenger is ready"
        if late:
            return Step("RollBack", "ProgressDeadlineExceeded", f"{where}: {problem}; {deadline}")
        return Step("Hold", "TelemetryUnknown", f"{where}: {problem}")
    delta = since(traffic, challenger.counters)
    results = [_measure(a, delta) for a in canary.analysis]
    if breaches := [text for outcome, text in results if outcome == "Breach"]:
        return Step("RollBack", "AnalysisFailed", f"{where}: {'; '.join(breaches)}")
    left = seconds(canary.interval) - (now - parse_timestamp(challenger.since)).total_seconds()
    requests = _total(delta, "requests")
    seen = f"{requests:.0f} requests so far"
    if left > 0:
        return Step("Hold", "Progressing", f"{where}: {human_seconds(left)} to go, {seen}", next_s=min(left, 1.0))
    if requests == 0:
        return Step("Next", "NoTraffic", f"{where}: no request came in {canary.interval}, nothing to judge")
    if few := [text for outcome, text in results if outcome == "TooFew"]:
        if late:
            return Step("RollBack", "TooFewRequests", f"{where}: {few[0]}; {deadline}")
        return Step("Hold", "TooFewRequests", f"{where}: {few[0]}")
    passed = "; ".join(text for _, text in results)
    return Step("Next", "AnalysisPassed", f"{where}: {passed or seen}")


def position(weights: Sequence[int], challenger: ChallengerStatus) -> int:
    """Find the step that a canary stands at, also when a person has changed the weights on the way.

    The step of the same weight; where there is none any more, the next larger one, else the last.
    """
    if challenger.step < len(weights) and weights[challenger.step] == challenger.weight:
        return challenger.step
    larger = (i for i, weight in enumerate(weights) if weight >= challenger.weight)
    return next(larger, len(weights) - 1)


def since(now: Counters, before: Counters) -> dict[str, float]:
    """Subtract counters pod by pod; a counter that went back was started anew and counts from 0."""
    return {k: v - before.get(k, 0.0) if v >= before.get(k, 0.0) else v for k, v in now.items()}


def percentile(delta: Counters, share: float) -> float | None:
    """Read a percentile in seconds from bucket counters, linear inside a bucket; None without a request."""
    buckets: dict[float, float] = {}
    for key, value in delta.items():
        name = key.partition("|")[2]
        if name.startswith("le="):
            bound = float(name[3:])
            buckets[bound] = buckets.get(bound, 0.0) + value
    total = max(buckets.values(), default=0.0)
    if total <= 0:
        return None
    rank, low, below = share * total, 0.0, 0.0
    for bound in sorted(buckets):
        if buckets[bound] >= rank:
            inside = buckets[bound] - below
            return (
                low if bound == float("inf") else low + (bound - low) * ((rank - below) / inside if inside else 1)
            )
        low, below = bound, buckets[bound]
    return low


def _measure(rule: Analysis, delta: Counters) -> tuple[Literal["Pass", "Breach", "TooFew"], str]:
    requests = _total(delta, "requests")
    if requests < rule.min_requests:
        return "TooFew", f"{rule.name} waits for {rule.min_requests} requests ({requests:.0f} so far)"
    if rule.metric == "request-error-rate":
        assert rule.max is not None
        rate = _total(delta, "errors") / requests
        if rate > rule.max:
            return "Breach", f"{rule.name}: error rate {rate:.1%} > {rule.max:.1%} of {requests:.0f} requests"
        return "Pass", f"error rate {rate:.1%} <= {rule.max:.1%} of {requests:.0f} requests"
    assert rule.max_duration is not None
    p95 = percentile(delta, 0.95)
    if p95 is None:
        return "TooFew", f"{rule.name}: no duration was counted"
    if p95 > seconds(rule.max_duration):
        return "Breach", f"{rule.name}: p95 {p95 * 1000:.0f} ms > {rule.max_duration} of {requests:.0f} requests"
    return "Pass", f"p95 {p95 * 1000:.0f} ms <= {rule.max_duration}"


def _total(delta: Counters, name: str) -> float:
    return sum(_values(delta, name))


def _values(delta: Counters, name: str) -> Iterable[float]:
    return (v for k, v in delta.items() if k.partition("|")[2] == name)
