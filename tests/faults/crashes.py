"""A whole life of a model whose operator is killed at chosen writes to the API server, and what is wrong after it.

A point is a stage, a write (`patch jobs`), its number in that stage, and a moment: "before" it leaves the proxy,
or "after" the API server has carried it out and before the operator hears of it.  Numbers count over restarts.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.control_plane import ControlPlane
from tests.cluster.fault_rules import Call, Do, Rule
from tests.faults.ending import settled
from tests.faults.scene import STAGES, Scene, Stuck

Point = tuple[int, str, int, str]
"""Stage, write, its number in the stage, "before" or "after"."""
CRASH_STAGE_S = 180.0
REST_S = 4.0
"""More than three polls of the repository."""


@dataclass
class Result:
    """What a run came to."""

    points: list[Point]
    reached: list[Point] = field(default_factory=list)
    writes: list[tuple[int, str, int]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0


def name_of(call: Call) -> str:
    """Name a write without what differs from run to run; empty for what does not count."""
    if not (call.is_write or (call.verb == "create" and call.resource == "leases")):
        return ""
    return f"{call.verb} {call.resource}{'/' if call.sub else ''}{call.sub}"


def tell(plane: ControlPlane, namespace: str, directory: Path, tracking_uri: str, points: list[Point]) -> Result:
    """Play the story with a kill at each of these points, to its end."""
    result, begun = Result(points), time.monotonic()
    with Scene(plane, namespace, directory, tracking_uri) as scene:
        scene.operator()
        marks = [0]
        try:
            for number in range(len(STAGES)):
                rules = [(p, scene.proxy.rules.add(_rule(scene, p))) for p in points if p[0] == number]
                if number == 0:
                    scene.begin()
                scene.play(number, within_s=CRASH_STAGE_S)
                # What belongs to a stage is written before the next one begins.
                scene.wait(scene.quiet, f"{STAGES[number]} settles")
                result.reached += [point for point, rule in rules if rule.acted]
                scene.proxy.rules.clear()
                marks.append(len(scene.proxy.passed))
            result.wrong = settled(scene)
            # L1: nothing is written when nothing changes.
            scene.wait(lambda: scene.quiet(REST_S), f"nothing is written for {REST_S:.0f} s at rest")
        except Stuck as stuck:
            result.wrong = [str(stuck)[:4000]]
        result.wrong += history(scene)
        result.writes = written(scene, marks)
    result.seconds = round(time.monotonic() - begun, 1)
    return result


def _rule(scene: Scene, point: Point) -> Rule:
    _, name, number, moment = point
    kill = Do(lambda _: scene.kill(), after=moment == "after")
    return Rule(lambda call: name_of(call) == name, kill, first=number)


def written(scene: Scene, marks: list[int]) -> list[tuple[int, str, int]]:
    """List the writes by stage; `marks`: how many requests had passed at the end of each."""
    counts: Counter[tuple[int, str]] = Counter()
    found = []
    for index, passed in enumerate(list(scene.proxy.passed)):
        if name := name_of(passed.call):
            stage = min(sum(index >= mark for mark in marks[1:]), len(STAGES) - 1)
            counts[stage, name] += 1
            found.append((stage, name, counts[stage, name]))
    return found


def history(scene: Scene) -> list[str]:
    """Say what was wrong at any time, from all that passed all proxies."""
    made: Counter[tuple[str, str]] = Counter()
    wrong: list[str] = []
    for proxy in scene.proxies.values():
        for passed in proxy.writes():
            call = passed.call
            if call.namespace != scene.namespace:
                wrong.append(f"S9: {call} in namespace {call.namespace!r}")
            if passed.code == 201 and call.resource in ("jobs", "modelrevisions"):
                made[call.resource, call.name or _named(call)] += 1
    wrong += [f"S3: {resource}/{name} was made {n} times" for (resource, name), n in made.items() if n > 1]
    return wrong + _backwards(scene)


def _named(call: Call) -> str:
    found: dict[str, Any] = json.loads(call.body)
    return str(found["metadata"]["name"])


def _backwards(scene: Scene) -> list[str]:
    """Find statuses whose observedGeneration went back (S7)."""
    seen: dict[tuple[str, str], int] = {}
    wrong = []
    passed = sorted((p for proxy in scene.proxies.values() for p in proxy.writes()), key=lambda p: p.at)
    for one in passed:
        call = one.call
        if call.sub != "status" or one.code != 200 or call.verb != "patch":
            continue
        status = json.loads(call.body).get("status") or {}
        now, key = int(status.get("observedGeneration") or 0), (call.resource, call.name)
        if now < seen.get(key, 0):
            wrong.append(f"S7: observedGeneration of {call} went back from {seen[key]} to {now}")
        seen[key] = now
    return wrong
