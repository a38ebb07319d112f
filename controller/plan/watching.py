"""Between a round and the judging of a canary's step: what is seen just now goes in, what was shown is kept.

Pure.  Which step comes next is decided in `canary.py`, what follows from that in `rollout.py`.
"""

from __future__ import annotations

from controller.api.modelstatus import AnalysisStatus, StepNumbers
from controller.plan import traffic
from controller.plan.canary import Live, Step
from controller.plan.observed import Counters
from controller.plan.round import Round
from controller.plan.verdict import Unknown


def live(r: Round, weight: int, ready: int = 0) -> Live:
    """Gather what the servers of both models say just now.

    Args:
        r: the round.
        weight: percent of the requests that the challenger's step asks for.
        ready: how many servers of the challenger are ready.
    """
    champion = r.champion.revision if r.champion else ""
    nobody: Counters | Unknown = {} if r.seen.counted else Unknown("NotAsked", "no server was asked")
    return Live(
        traffic=r.seen.traffic,
        beside=r.seen.counted.get(champion, nobody),
        ready=ready,
        share=traffic.share_of(r, weight),
        exact=not r.seen.by_servers,
        queried=r.seen.queried,
    )


def note(r: Round, step: Step, at: int) -> None:
    """Keep what a look has shown about the step at this index; what was unknown changes nothing."""
    if not step.results:
        return
    challenger, before = step.challenger, r.status.analysis
    known = before.steps if before is not None and before.revision == challenger.revision else ()
    requests, beside = step.requests
    current = StepNumbers(
        weight=challenger.weight,
        requests=round(requests),
        champion_requests=None if beside is None else round(beside),
        numbers={c.name: round(c.value, 6) for c in step.results if c.value is not None},
    )
    decide = [c for c in step.results if not c.dry_run]
    told = AnalysisStatus(
        revision=challenger.revision,
        weight=challenger.weight,
        since=challenger.since,
        passed=f"{sum(c.outcome == 'Passed' for c in decide)}/{len(decide)}",
        checks=step.results,
        steps=(*known[:at], current),
    )
    r.set(analysis=told)
