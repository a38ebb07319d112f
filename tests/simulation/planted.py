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
    scene: str
    """What the walks on it begin with: where it can do harm."""
    seed: int = 0
    """The walk that is tried first."""


def planted(name: str, breaks: str, file: str, old: str, new: str, *, scene: str, seed: int = 0) -> Mutant:
    """Build a mutant of one edit."""
    return Mutant(name, breaks, ((file, old, new),), scene, seed)


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
        scene="takes_over",
    ),
    planted(
        "routes-to-starting-servers",
        "Requests are sent to the champion before any of its servers is ready.",
        _TRAFFIC,
        "if champion is None or not is_ready(r, champion):\n        return\n    if leaving",
        "if champion is None:\n        return\n    if leaving",
        scene="meddled",
    ),
    planted(
        "hands-over-at-once",
        "All servers of the former champion go with the first one of the new that is ready.",
        _TRAFFIC,
        "    if has_its_place(r, champion):\n        return False\n    _hand_over",
        "    if is_ready(r, champion):\n        return False\n    _hand_over",
        scene="takes_over",
        seed=1,
    ),
    planted(
        "alias-stays",
        "The registry's alias is set once and not moved with the champion.",
        _TRAFFIC,
        "aliases.get(name) != champion.version",
        "aliases.get(name) is None",
        scene="meddled",
    ),
)

CANARY: Final = (
    planted(
        "skips-a-step",
        "A canary goes on by two steps at once.",
        _ROLLOUT,
        "following = at + 1",
        "following = at + 2",
        scene="takes_over",
    ),
    planted(
        "counts-since-ever",
        "A step is judged by all answers since the servers started, not by those of the step.",
        _CANARY,
        "delta = since(counted, challenger.counters)",
        "delta = dict(live.traffic)",
        scene="late_breach",
    ),
    planted(
        "unknown-is-no-request",
        "Counters that cannot be read are taken for counters that say zero.",
        "reconcile/surroundings.py",
        "        return await world.telemetry.counters(pods)\n    except ClientError as error:\n"
        "        return Unknown(error.reason, error.message)",
        "        return await world.telemetry.counters(pods)\n    except ClientError:\n        return {}",
        scene="unheard_servers",
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
        scene="breach",
    ),
    planted(
        "forgets-rollbacks",
        "A rollback that only the status knows of, since the ledger was away, does not count.",
        "plan/recall.py",
        'known = told is not None and told.verdict == "RolledBack" and told.revision == revision',
        "known = False",
        scene="breach_unheard",
    ),
)

DECISIONS: Final = (
    planted(
        "compares-with-anyone",
        "A comparison with a former champion is taken for one with the champion.",
        "plan/gates.py",
        "if evidence.champion != champion:",
        "if not evidence.champion:",
        scene="overtaken",
    ),
    planted(
        "serves-before-admitting",
        "The first model is brought up before the ledger says that it was admitted.",
        _MODEL,
        "if not judgement.admitted:",
        "if not judgement.admitted and r.champion is not None:",
        scene="served",
    ),
    planted(
        "admits-the-name",
        "What was admitted is held to the revision's name instead of the digest of its bytes.",
        _MODEL,
        "if entry is not None and (artifact is None or entry.digest != artifact.digest):",
        "if entry is not None and artifact is None:",
        scene="trained_anew",
    ),
    planted(
        "signature-not-checked",
        "Entries of the ledger count whoever signed them.",
        "reconcile/ledger.py",
        "            return Problem(error.message)",
        "            import base64, json\n            try:\n"
        '                return Verified(base64.b64decode(json.loads(envelope)["payload"]))\n'
        "            except (ValueError, KeyError):\n                return Problem(error.message)",
        scene="forged",
    ),
    planted(
        "away-is-empty",
        "A ledger that cannot be read is taken for one without entries.",
        "reconcile/ledger.py",
        "return known[1] if known is not None else Unknown(error.reason, error.message)",
        "return known[1] if known is not None else Ledger()",
        scene="ledger_away",
    ),
    planted(
        "commit-of-now",
        "An entry names the branch's newest commit instead of the one that the model was made from.",
        "plan/round.py",
        '"commit": served.commit,',
        '"commit": model.status.source.commit if model.status.source else served.commit,',
        scene="overtaken",
    ),
    planted(
        "environments-share-a-run",
        "Runs and versions are found by the revision alone, so that two namespaces overwrite each other's models.",
        "clients/registry_names.py",
        "own = {TAG_ENVIRONMENT: environment, TAG_REVISION: revision}",
        "own = {TAG_REVISION: revision}",
        scene="namesakes",
    ),
)

TRAINING: Final = (
    planted(
        "two-at-a-time",
        "A training is started while another one of the same model runs.",
        _REVISION,
        "if seen.busy:",
        'if seen.busy == "none":',
        scene="asked_while_another_trains",
    ),
    planted(
        "trains-what-is-known",
        "A model that the ledger knows is trained once more when its object was lost.",
        _REVISION,
        "if seen.kept is not None:",
        'if seen.kept is not None and seen.known is None and before.run == "none":',
        scene="refused",
    ),
    planted(
        "retries-without-limit",
        "backoffLimit is ignored.",
        _REVISION,
        "if failed > limit and not requested",
        "if failed > limit + 100 and not requested",
        scene="fails_for_good",
    ),
    planted(
        "retries-at-once",
        "A failed training is started again without a pause.",
        _REVISION,
        "pause = 0.0 if requested or again < 1 else min(RETRY_FIRST_S * 2 ** (again - 1), RETRY_MOST_S)",
        "pause = 0.0",
        scene="fails_for_good",
    ),
    planted(
        "evaluates-without-end",
        "An evaluation that measured something else than it was asked for is asked for again at once.",
        "plan/attempts.py",
        'if job.outcome != "Succeeded" or not job.evaluate_only:',
        'if job.outcome != "Unheard of" or not job.evaluate_only:',
        scene="lying_evaluator",
    ),
)

TELLING: Final = (
    planted(
        "ignores-suspend",
        "A suspended model goes on being rolled out.",
        _MODEL,
        "if seen.model.spec.suspend:",
        'if seen.model.spec.suspend and seen.url == "none":',
        scene="suspended",
    ),
    planted(
        "progresses-for-ever",
        "A training that failed as often as it may is told as if it went on.",
        _REVISION,
        "return Plan(status=status, conditions=(*_conditions(STALLED, reason, message), *more))",
        "return Plan(status=status, conditions=(*_conditions(RECONCILING, reason, message), *more))",
        scene="fails_for_good",
        seed=1,
    ),
    planted(
        "orphans-the-tasks",
        "The tasks of a Job belong to nobody, so that they stay when their model is deleted.",
        "plan/manifests.py",
        'for k in ("name", "namespace", "labels", "ownerReferences")',
        'for k in ("name", "namespace", "labels")',
        scene="served",
    ),
    planted(
        "ready-too-early",
        "Ready is said before the champion gets the requests.",
        _MODEL,
        "if servers is None or servers.ready == 0 or not routed:",
        "if servers is None or (servers.ready == 0 and not routed):",
        scene="takes_over",
    ),
    planted(
        "secret-of-a-training",
        "The last words of a training program are shown as they are, with the passwords in them.",
        "reconcile/jobs.py",
        'text=redact(_last_line(said) if name == "train" else said)[:TEXT_MOST]',
        'text=(_last_line(said) if name == "train" else said)[:TEXT_MOST]',
        scene="secrets",
    ),
    planted(
        "events-by-a-counter",
        "Events are named by a counter, so that one transition is told twice after a crash.",
        "reconcile/report.py",
        "    name = f\"{meta['name'][:40]}.{short(digest([reason, text, timestamp(now)]), 16)}\"",
        "    _event.__dict__['n'] = count = _event.__dict__.get('n', 0) + 1\n"
        "    name = f\"{meta['name'][:40]}.{count:016d}\"",
        scene="looked_at_twice",
    ),
    planted(
        "prunes-what-it-cannot-read",
        "A ModelSpec is deleted because its file cannot be read.",
        _REPOSITORY,
        "if any(checked.problems and not checked.names for _, checked in seen.files):\n        return",
        "if not seen.files:\n        return",
        scene="files_break",
    ),
    planted(
        "one-bad-file-stops-all",
        "While one file of a repository is bad, none of the others is applied.",
        _REPOSITORY,
        "actions: list[Action] = []\n    by_name",
        "if problems:\n        wanted = {}\n    actions: list[Action] = []\n    by_name",
        scene="files_break",
    ),
    planted(
        "prunes-what-others-own",
        "ModelSpecs that no repository owns are pruned.",
        _REPOSITORY,
        'if o["metadata"].get("labels", {}).get(LABEL_REPOSITORY) == repository.metadata.name\n    ]',
        'if o["metadata"].get("labels", {}).get(LABEL_REPOSITORY) in (None, repository.metadata.name)\n    ]',
        scene="files_break",
    ),
)

MUTANTS: Final = (*SERVING, *CANARY, *DECISIONS, *TRAINING, *TELLING)
