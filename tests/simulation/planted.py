"""The planted mutants: faults that a controller of this kind really gets, each as an edit of our source.

A mutant is text: it is made in a copy of the tree, and no process of ours ever runs with a function patched.
Each says what it breaks in one sentence; whether the walks notice is tried by `mutants.py`.  Only what changes
what people can see belongs here: an edit that the rest of the plan makes up for proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Mutant:
    """One planted fault."""

    name: str
    breaks: str
    """What it breaks, one sentence."""
    edits: tuple[tuple[str, str, str], ...]
    """File below `controller/`, text that stands there exactly once, text instead."""
    seed: int = 0
    """The walk that is tried first: one that found it before."""


def planted(name: str, breaks: str, file: str, old: str, new: str, *, seed: int = 0) -> Mutant:
    """Build a mutant of one edit."""
    return Mutant(name, breaks, ((file, old, new),), seed)


_TRAFFIC: Final = "plan/traffic.py"
_ROLLOUT: Final = "plan/rollout.py"
_CANARY: Final = "plan/canary.py"
_MODEL: Final = "plan/model.py"
_REVISION: Final = "plan/revision.py"
_REPOSITORY: Final = "plan/repository.py"

SERVING: Final = (
    planted(
        "deletes-while-serving",
        "Servers are deleted as soon as they are not wanted, though requests still go to them.",
        _TRAFFIC,
        "if name in keep or _still_needed(r, name):",
        "if name in keep:",
    ),
    planted(
        "deletes-the-champion",
        "The champion's own servers count as left over while no request goes to them.",
        _TRAFFIC,
        "keep = {r.champion.deployment} if r.champion else set()",
        "keep: set[str] = set()",
    ),
    planted(
        "routes-to-starting-servers",
        "Requests are sent to the champion before any of its servers is ready.",
        _TRAFFIC,
        "if champion is None or not is_ready(r, champion):\n        return\n    if leaving",
        "if champion is None:\n        return\n    if leaving",
        seed=20,
    ),
    planted(
        "too-few-servers",
        "minReplicas is forgotten: every model gets one server.",
        _TRAFFIC,
        "return serving.min_replicas\n    before",
        "return 1\n    before",
    ),
    planted(
        "alias-stays",
        "The registry's alias is set once and not moved with the champion.",
        _TRAFFIC,
        "aliases.get(name) != champion.version",
        "aliases.get(name) is None",
    ),
    planted(
        "applies-once",
        "What was applied is remembered instead of looked up, so that what a person deleted stays away.",
        _TRAFFIC,
        "if found is None or changed is not None:",
        "asked = ensure_servers.__dict__.setdefault(name, [])\n"
        "    asked.append(1)\n    if (found is None and len(asked) == 1) or changed is not None:",
    ),
    planted(
        "names-by-a-counter",
        "Servers are named by a counter of the process, so that a second controller or a restart makes others.",
        "plan/naming.py",
        'return f"{revision}-{short(serve_hash(runtime), 6)}"',
        'count = deployment_name.__dict__\n    count["n"] = count.get("n", 0) + 1\n'
        "    return f\"{revision}-{count['n']:06d}\"",
    ),
    planted(
        "believes-its-status",
        "Who is champion is taken from the last status though the ledger can be read.",
        "plan/round.py",
        "if isinstance(seen.ledger, Unknown):\n        cached",
        "if isinstance(seen.ledger, Unknown) or status.champion is not None:\n        cached",
    ),
)

CANARY: Final = (
    planted(
        "skips-a-step",
        "A canary goes on by two steps at once.",
        _ROLLOUT,
        "following = at + 1",
        "following = at + 2",
    ),
    planted(
        "promotes-a-step-early",
        "The last step of a canary is left out.",
        _ROLLOUT,
        "if following >= len(rule.step_weights):",
        "if following >= len(rule.step_weights) - 1:",
    ),
    planted(
        "half-the-interval",
        "A step of a canary ends after half of its time.",
        _CANARY,
        "left = seconds(canary.interval) - ",
        "left = seconds(canary.interval) / 2 - ",
    ),
    planted(
        "counts-since-ever",
        "A step is judged by all answers since the servers started, not by those of the step.",
        _CANARY,
        "delta = since(folded(live.traffic, challenger.cells), challenger.counters)",
        "delta = dict(live.traffic)",
    ),
    planted(
        "unknown-is-no-request",
        "Counters that cannot be read are taken for counters that say zero.",
        "reconcile/surroundings.py",
        "        return await world.telemetry.counters(pods)\n    except ClientError as error:\n"
        "        return Unknown(error.reason, error.message)",
        "        return await world.telemetry.counters(pods)\n    except ClientError:\n        return {}",
        seed=3,
    ),
    Mutant(
        "rollback-leaves-weights",
        "A challenger that is rolled back keeps its share of the requests.",
        (
            (_ROLLOUT, "previous=ended)\n    traffic.settle(r, None, 0, why)\n", "previous=ended)\n"),
            (
                _MODEL,
                '        traffic.settle(r, None, 0, Cause("RolledBack", reason))\n        recall',
                "        recall",
            ),
        ),
    ),
    planted(
        "forgets-rollbacks",
        "A rollback that only the status knows of, since the ledger was away, does not count.",
        "plan/recall.py",
        'known = told is not None and told.verdict == "RolledBack" and told.revision == revision',
        "known = False",
    ),
    planted(
        "one-request-for-ever",
        "A person who once asked to try again has asked for all later rollbacks too.",
        "plan/recall.py",
        "return last if asked is None or asked <= parse_timestamp(last.at) else None",
        "return last if asked is None else None",
    ),
)

DECISIONS: Final = (
    planted(
        "missing-verdict-passes",
        "A gate that could not be judged counts as passed.",
        "plan/verdict.py",
        'return "Inconclusive" if "Inconclusive" in outcomes else "Passed"',
        'return "Passed"',
    ),
    planted(
        "compares-with-anyone",
        "A comparison with a former champion is taken for one with the champion.",
        "plan/gates.py",
        "if evidence.champion != champion:",
        "if not evidence.champion:",
    ),
    planted(
        "boundary-of-the-margin",
        "A challenger that is exactly as good as the margin asks is refused.",
        "plan/gates.py",
        "    if rule.confidence is None:\n        if gain >= rule.margin:",
        "    if rule.confidence is None:\n        if gain > rule.margin:",
    ),
    planted(
        "serves-before-admitting",
        "The first model is brought up before the ledger says that it was admitted.",
        _MODEL,
        "if not judgement.admitted:",
        "if not judgement.admitted and r.champion is not None:",
    ),
    planted(
        "admits-the-name",
        "What was admitted is held to the revision's name instead of the digest of its bytes.",
        _MODEL,
        "if entry is not None and (artifact is None or entry.digest != artifact.digest):",
        "if entry is not None and artifact is None:",
        seed=5,
    ),
    planted(
        "traffic-before-the-entry",
        "All requests go to the new champion before the ledger has the entry that makes it one.",
        _ROLLOUT,
        'entry = r.entry("Promoted", target, champion=target.revision, reason=str(why)[:500])',
        'entry = r.entry("Promoted", target, champion=target.revision, reason=str(why)[:500])\n'
        "    r.champion = target\n    traffic.settle(r, None, 0, why)",
    ),
    planted(
        "signature-not-checked",
        "Entries of the ledger count whoever signed them.",
        "reconcile/ledger.py",
        "            return Problem(error.message)",
        "            import base64, json\n            try:\n"
        '                return Verified(base64.b64decode(json.loads(envelope)["payload"]))\n'
        "            except (ValueError, KeyError):\n                return Problem(error.message)",
    ),
    planted(
        "away-is-empty",
        "A ledger that cannot be read is taken for one without entries.",
        "reconcile/ledger.py",
        "return known[1] if known is not None else Unknown(error.reason, error.message)",
        "return known[1] if known is not None else Ledger()",
        seed=3,
    ),
    planted(
        "commit-of-now",
        "An entry names the branch's newest commit instead of the one that the model was made from.",
        "plan/round.py",
        '"commit": served.commit,',
        '"commit": model.status.source.commit if model.status.source else served.commit,',
    ),
    planted(
        "refuses-without-end",
        "A refusal is written into the ledger at every look.",
        _MODEL,
        "if known is None or known.gate_hash != judgement.gate_hash or ",
        "if known is None or known.gate_hash or ",
    ),
)

TRAINING: Final = (
    planted(
        "two-at-a-time",
        "A training is started while another one of the same model runs.",
        _REVISION,
        "if seen.busy:",
        'if seen.busy == "none":',
        seed=8,
    ),
    planted(
        "trains-what-is-known",
        "A model that the ledger knows is trained once more when its object was lost.",
        _REVISION,
        "if seen.kept is not None:",
        'if seen.kept is not None and seen.known is None and before.run == "none":',
    ),
    planted(
        "trains-what-nobody-wants",
        "A revision is trained though another one is asked for by now.",
        _REVISION,
        "if wanted != seen.revision.metadata.name:",
        "if not wanted:",
        seed=2,
    ),
    planted(
        "counts-a-failure-twice",
        "The last failed attempt is counted twice, so that one attempt too few is made.",
        _REVISION,
        'failed = sum(1 for a in status.attempts if a.outcome == "Failed")',
        'failed = 1 + sum(1 for a in status.attempts if a.outcome == "Failed")',
    ),
    planted(
        "eviction-is-failure",
        "An attempt that was lost with its machine counts as a failure of the program.",
        _REVISION,
        'failed = sum(1 for a in status.attempts if a.outcome == "Failed")',
        'failed = sum(1 for a in status.attempts if a.outcome in ("Failed", "Lost"))',
    ),
    planted(
        "retries-without-limit",
        "backoffLimit is ignored.",
        _REVISION,
        "if failed > limit and not requested:",
        "if failed > limit + 100 and not requested:",
    ),
    planted(
        "retries-at-once",
        "A failed training is started again without a pause.",
        _REVISION,
        "pause = 0.0 if requested or again < 1 else min(RETRY_FIRST_S * 2 ** (again - 1), RETRY_MOST_S)",
        "pause = 0.0",
    ),
    planted(
        "old-failure-counts",
        "What an earlier attempt says counts, though the result of a later one was taken in.",
        _REVISION,
        "if seen.job is not None and is_measured(before) and",
        'if seen.job is not None and before.run == "none" and is_measured(before) and',
    ),
)

TELLING: Final = (
    planted(
        "ignores-suspend",
        "A suspended model goes on being rolled out.",
        _MODEL,
        "if seen.model.spec.suspend:",
        'if seen.model.spec.suspend and seen.url == "none":',
    ),
    planted(
        "trains-while-suspended",
        "A training is started for a suspended model.",
        _REVISION,
        "if model.spec.suspend:",
        "if model.spec.suspend and attempt > 100:",
    ),
    planted(
        "ready-too-early",
        "Ready is said before the champion gets the requests.",
        _MODEL,
        "if servers is None or servers.ready == 0 or not routed:",
        "if servers is None or (servers.ready == 0 and not routed):",
    ),
    planted(
        "generation-of-before",
        "observedGeneration is the one of the look before.",
        "reconcile/report.py",
        'status = status.model_copy(update={"conditions": conditions, "observed_generation": generation})',
        'status = status.model_copy(\n        update={"conditions": conditions, '
        '"observed_generation": max(status.observed_generation, 1)}\n    )',
    ),
    planted(
        "secret-of-a-training",
        "The last words of a training program are shown as they are, with the passwords in them.",
        "reconcile/jobs.py",
        'text=redact(_last_line(said) if name == "train" else said)[:TEXT_MOST]',
        'text=(_last_line(said) if name == "train" else said)[:TEXT_MOST]',
    ),
    planted(
        "secret-of-a-server",
        "What a Deployment says about its servers is shown as it is, with the passwords in it.",
        "reconcile/surroundings.py",
        'message=redact(_why_missing(name, status, pods))[:300] if ready < wanted else ""',
        'message=_why_missing(name, status, pods)[:300] if ready < wanted else ""',
        seed=2,
    ),
    planted(
        "events-by-a-counter",
        "Events are named by a counter, so that one transition is told twice after a crash.",
        "reconcile/report.py",
        "{short(digest([reason, text, timestamp(now)]), 16)}",
        '{_event.__dict__.setdefault("n", []).append(1) or len(_event.__dict__["n"]):016d}',
        seed=8,
    ),
    planted(
        "prunes-what-it-cannot-read",
        "A ModelSpec is deleted because its file cannot be read.",
        _REPOSITORY,
        "if any(checked.problems and not checked.names for _, checked in seen.files):\n        return",
        "if not seen.files:\n        return",
        seed=10,
    ),
    planted(
        "prunes-when-git-is-away",
        "A repository that could not be read is taken for an empty one.",
        _REPOSITORY,
        "if seen.problem is not None:",
        "if isinstance(seen.problem, Refused):",
        seed=10,
    ),
    planted(
        "prunes-what-others-own",
        "ModelSpecs that no repository owns are pruned.",
        _REPOSITORY,
        'if o["metadata"].get("labels", {}).get(LABEL_REPOSITORY) == repository.metadata.name\n    ]',
        'if o["metadata"].get("labels", {}).get(LABEL_REPOSITORY) in (None, repository.metadata.name)\n    ]',
        seed=10,
    ),
)

MUTANTS: Final = (*SERVING, *CANARY, *DECISIONS, *TRAINING, *TELLING)
