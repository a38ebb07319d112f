"""Refused, cut off, answered late or half: no answer of the API server makes the operator do a thing twice or die.

F8 (409), F9 (429, 5xx, 401, 403), F10 (carried out, and the answer lost).
"""

from __future__ import annotations

import itertools

from tests.cluster.fault_rules import Answer, Delay, Drop, Truncate
from tests.faults.crashes import history
from tests.faults.ending import settled
from tests.support.operator_process import condition

FAULTS = (
    Answer(409, "Conflict"),
    Answer(429, "TooManyRequests", {"retry-after": "1"}),
    Answer(429, "TooManyRequests"),
    Answer(500, "InternalError"),
    Answer(503, "ServiceUnavailable"),
    Answer(504, "Timeout"),
    Answer(401, "Unauthorized"),
    Drop(),
    Drop(after=True),
    Truncate(20),
    Delay(1.0),
)
"""Every kind of write meets every one of them, in turn."""
SLOW_S = 240.0


def test_every_kind_of_write_meets_every_fault_and_the_story_ends_the_same(scene):
    turns: dict[tuple[str, str, str], dict[int, int]] = {}

    def turn(number):
        """Match the writes whose turn it is to meet this fault: every second one of each kind."""

        def match(call):
            if not call.is_write:
                return False
            kind = (call.verb, call.resource, call.sub)
            seen = turns.setdefault(kind, {})
            if call.number not in seen:
                seen[call.number] = len(seen)
            count = seen[call.number]
            return count % 2 == 0 and (count // 2) % len(FAULTS) == number

        return match

    scene.operator()
    for number, fault in enumerate(FAULTS):
        scene.proxy.on(turn(number), fault, times=None)
    scene.begin()
    for number in range(4):
        scene.play(number, within_s=SLOW_S)

    assert settled(scene, within_s=120) == []
    assert history(scene) == []
    met = {(p.call.resource, p.fault) for p in scene.proxy.writes() if p.fault}
    assert {fault for _, fault in met} == {"Answer", "Drop", "Truncate", "Delay"}
    assert {"jobs", "modelrevisions", "modelspecs", "deployments", "services"} <= {resource for resource, _ in met}
    assert scene.starts == 1


def test_a_right_that_was_taken_away_is_named_on_the_object_and_its_return_needs_no_restart(scene):
    said = 'jobs.batch "x" is forbidden: User "mainspring" cannot patch resource "jobs" in API group "batch"'
    refused = Answer(403, "Forbidden", message=said)
    scene.operator()
    rule = scene.proxy.on(lambda call: call.verb == "patch" and call.resource == "jobs", refused, times=None)
    scene.begin()
    commit = scene.commit(0)

    def told():
        found = [condition(m, "Ready") for m in scene.all("modelrevisions")]
        return next((c["message"] for c in found if "may not patch" in c.get("message", "")), "")

    words = scene.wait(told, "the revision says what is refused")
    scene.proxy.rules.remove(rule)
    scene.wait(lambda: scene.has(commit, "Succeeded"), "it is served without a restart")

    assert "verb patch on resource jobs" in words
    assert scene.starts == 1


def test_what_a_watch_or_list_is_answered_with_does_not_end_the_operator(scene):
    scene.operator()
    scene.begin()
    scene.play(0)
    answers = (
        Answer(500, "InternalError"),
        Answer(403, "Forbidden"),
        Answer(401, "Unauthorized"),
        Answer(404, "NotFound"),
        Answer(410, "Expired"),
        Answer(429, "TooManyRequests", {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}),
        Answer(200, text="<html>log in</html>", headers={"content-type": "text/html"}),
    )
    for answer, resource in zip(answers, itertools.cycle(("modelspecs", "jobs", "pods")), strict=False):
        rule = scene.proxy.on(
            lambda call, wanted=resource: call.resource == wanted and call.verb in ("list", "watch"),
            answer,
            times=2,
        )
        scene.proxy.cut(lambda call, wanted=resource: call.resource == wanted)
        scene.wait(lambda rule=rule: rule.acted, f"{resource} is answered with {answer.code}", 60)
    scene.proxy.rules.clear()
    scene.play(1)

    assert scene.starts == 1
    assert scene.operators["operator"].ask("/healthz").text == "alive\n"
