"""The answer of `mainspring plan` about one object, as lines and as JSON.

Pure: it is told what was decided and only writes it.  The lines are the actions' own causes, the words that status
and events will show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from controller.api.base import dump
from controller.api.conditions import STALLED, Wanted
from controller.api.kinds import parse
from controller.api.meta import Key, Manifest
from controller.api.modelstatus import GateVerdict
from controller.cli.output import aligned
from controller.cli.plan_moves import SHOWN, Move, differences
from controller.cli.plan_steps import Step
from controller.plan.actions import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What would be done about one object."""

    key: Key
    ready: Wanted
    stalled: bool
    steps: Sequence[Step] = ()
    reuse: str = ""
    then: tuple[str, ...] = ()
    moves: tuple[Move, ...] = ()
    verdicts: tuple[GateVerdict, ...] = ()
    notes: tuple[str, ...] = ()
    file_changes: tuple[str, ...] = ()
    is_new: bool = False
    is_unknown: bool = False
    """Git could not be read, so that nothing can be said."""

    @classmethod
    def of(cls, key: Key, plan: Plan[Any], **more: Any) -> Self:
        """Build it from a plan: its summary condition, whether it stalled, its verdicts."""
        ready = next((c for c in plan.conditions if c[0] == "Ready"), ("Ready", "Unknown", "Unknown", ""))
        stalled = any(c[0] == STALLED and c[1] == "True" for c in plan.conditions)
        return cls(key=key, ready=ready, stalled=stalled, verdicts=plan.verdicts, **more)

    @property
    def changes(self) -> bool:
        """Tell whether anything would be done."""
        return bool(self.steps or self.file_changes or self.is_new)

    def lines(self) -> list[str]:
        """Write it for people."""
        head = f"{self.key.kind} {self.key.name}"
        if self.key.namespace != "default":
            head += f" in namespace {self.key.namespace}"
        out = [head]
        if self.is_new:
            out.append("  + the object itself, from the file")
        out += [f"  ~ spec: {change}" for change in self.file_changes[:SHOWN]]
        if len(self.file_changes) > SHOWN:
            out.append(f"  ~ spec: {len(self.file_changes) - SHOWN} more fields")
        out += [f"  {s}" for s in self.steps]
        out += [f"  = reuse {self.reuse}"] if self.reuse else []
        out += [] if self.steps or self._word != "waiting" else [self._state(self.ready[3])]
        out += [f"    then {line}" for line in self.then]
        out += [f"  {move}" for move in self.moves]
        if self.verdicts:
            rows = [
                (v.gate, f"{v.outcome} (dry run)" if v.dry_run else v.outcome, v.message) for v in self.verdicts
            ]
            out += aligned(("GATE", "OUTCOME", "MESSAGE"), rows, indent="    ")
        if not self.steps and self._word != "waiting":
            # The numbers of a refusal stand in the table of gates; they need not be read twice.
            out.append(self._state("by the gates above" if self.verdicts and self.stalled else self.ready[3]))
        elif self.steps and self.stalled:
            out.append(
                f"  then blocked: {self.ready[2]}: {'by the gates above' if self.verdicts else self.ready[3]}"
            )
        return out + [f"  note: {n}" for n in self.notes]

    @property
    def _word(self) -> str:
        """Say in a word how it stands when there is nothing to do now."""
        if self.stalled:
            return "blocked"
        if self.is_unknown:
            return "cannot tell"
        done = self.ready[1] == "True" or self.ready[2] == "Suspended"
        return "nothing to do" if done else "waiting"

    def _state(self, why: str) -> str:
        return f"  {self._word}: {self.ready[2]}: {why}"

    def as_json(self) -> dict[str, Any]:
        """Write it for programs."""
        return {
            "kind": self.key.kind,
            "namespace": self.key.namespace,
            "name": self.key.name,
            "changes": self.changes,
            "stalled": self.stalled,
            "unknown": self.is_unknown,
            "reason": self.ready[2],
            "message": self.ready[3],
            "isNew": self.is_new,
            "spec": list(self.file_changes),
            "actions": [
                {"sign": s.sign, "action": s.action, "what": s.what, "reason": s.reason, "message": s.message}
                for s in self.steps
            ],
            "reuse": self.reuse,
            "then": list(self.then),
            "hashes": [
                {"hash": m.hash, "before": m.before, "after": m.after, "fields": list(m.fields), "means": m.means}
                for m in self.moves
            ],
            "verdicts": [dump(v) for v in self.verdicts],
            "notes": list(self.notes),
        }


def file_changes(stored: Manifest | None, given: Manifest) -> tuple[str, ...]:
    """Name the fields of the spec that a file would change; defaults written out are no change."""
    if stored is None:
        return ()
    before, after = (parse({**m, "metadata": stored["metadata"], "status": {}}) for m in (stored, given))
    if isinstance(before, tuple) or isinstance(after, tuple):
        return tuple(differences(stored.get("spec"), given.get("spec")))
    return tuple(differences(dump(before.spec), dump(after.spec)))
