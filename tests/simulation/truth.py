"""What is true, worked out anew and by other means than the controller's: who is champion, whether gates hold.

Small on purpose: it knows the gates and steps that the walk uses, and nothing else.  Here it is also counted how
often each promise was held, and how often something would have broken it that a controller can do wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controller.api.meta import ANNOTATION_REQUESTED_AT, Manifest
from controller.api.statements import LEDGER_TYPE, LedgerEntry, chain_digest, parse_entry
from controller.clients.errors import ClientError
from controller.clients.signing import Signer, Verifier
from tests.support.simulation import START

_VERIFIER = Verifier([Signer(Ed25519PrivateKey.from_private_bytes(b"s" * 32)).public])

SPREAD = 1 - 3 / 7
"""How far the 5 % and 95 % ends of the improvement lie from it, in the walk's measurements."""


INVARIANTS = (*(f"S{n}" for n in (*range(1, 11), 12, 13, 14)), *(f"L{n}" for n in range(1, 6)))
"""All promises; S11 is about the log of predictions, which servers write."""


class BrokenPromise(AssertionError):
    """An invariant does not hold: which, and what was seen."""

    def __init__(self, invariant: str, what: str) -> None:
        super().__init__(f"{invariant}: {what}")
        self.invariant = invariant


@dataclass
class Counted:
    """How often each invariant was held, and in which situations something was at stake for it."""

    held: Counter[str] = field(default_factory=Counter)
    stakes: Counter[tuple[str, str]] = field(default_factory=Counter)

    def at_stake(self, invariant: str) -> int:
        """Count the situations of an invariant."""
        return sum(n for (about, _), n in self.stakes.items() if about == invariant)

    def add(self, other: Counted) -> None:
        """Add what another walk counted."""
        self.held.update(other.held)
        self.stakes.update(other.stakes)


COUNTED = Counted()
"""Of the walk that is being played; `play` begins it anew."""


def must(holds: object, invariant: str, what: str) -> None:
    """Hold an invariant."""
    COUNTED.held[invariant] += 1
    if not holds:
        raise BrokenPromise(invariant, what)


def stake(when: object, invariant: str, situation: str) -> None:
    """Note a situation in which a controller that is wrong would break an invariant."""
    if when:
        COUNTED.stakes[(invariant, situation)] += 1


@lru_cache(maxsize=4096)
def _entry(blob: bytes) -> tuple[LedgerEntry, str] | None:
    try:
        payload = _VERIFIER.open(blob, LEDGER_TYPE).payload
        return parse_entry(payload), chain_digest(payload)
    except (ClientError, ValueError):
        return None


def chain(blobs: Sequence[bytes], name: str, environment: str) -> list[LedgerEntry]:
    """Read the entries that count: signed, of this model, under their own number, after the one before.

    After entries that nobody can read any more the next one counts, whatever it follows.
    """
    found: list[LedgerEntry] = []
    head, ours = "", 0
    for slot, blob in enumerate(blobs, start=1):
        opened = _entry(bytes(blob))
        if opened is None or (opened[0].name, opened[0].environment, opened[0].seq) != (name, environment, slot):
            continue
        entry, digest = opened
        gap = slot - ours > 1 and ours == (found[-1].seq if found else 0) and entry.prev
        ours = slot
        if entry.prev == head or gap:
            found.append(entry)
            head = digest
    return found


def champion(entries: Sequence[LedgerEntry]) -> str:
    """Name the champion: the newest entry says it, unless none that is left does."""
    made = next((e.champion for e in reversed(entries) if e.kind in ("Promoted", "RolledBack")), "")
    return (entries[-1].champion if entries else "") or made


def champion_digest(entries: Sequence[LedgerEntry]) -> str:
    """Name the bytes of the champion."""
    name = champion(entries)
    own = [e for e in reversed(entries) if e.revision == name]
    return next((e.digest for kind in ("Promoted", "Admitted") for e in own if e.kind == kind), "")


def environment(model: Manifest) -> str:
    """Name the environment of a model."""
    return str(model["spec"].get("environment") or model["metadata"]["namespace"])


def requested(model: Manifest) -> datetime | None:
    """Read when a person last asked to try again."""
    text = model["metadata"].get("annotations", {}).get(ANNOTATION_REQUESTED_AT)
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None


def when(text: str) -> datetime:
    """Read a time of a status or an entry."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else START - timedelta(days=9999)


def stands_back(entries: Sequence[LedgerEntry], model: Manifest, revision: str) -> bool:
    """Tell whether a revision was rolled back, and nobody asked to try it again since."""
    last = next((e for e in reversed(entries) if e.revision == revision), None)
    if last is None or last.kind != "RolledBack":
        return False
    asked = requested(model)
    return asked is None or asked <= when(last.at)


def judged(model: Manifest, value: float, against: float | None) -> str:
    """Judge the walk's gates, a largest rmse and no worse than the champion: Passed, Failed or Inconclusive.

    Without a gate against the champion the default one counts: at 95 % confidence no more than 2 % worse.
    """
    gates = model["spec"].get("gates", [])
    said = [value <= gate["max"] for gate in gates if "max" in gate]
    margins = [gate["champion"]["margin"] for gate in gates if "champion" in gate]
    if against is None:
        return "Passed" if all(said) else "Failed"
    said += [against - value >= margin for margin in margins]
    surely, perhaps = ((against - value + side * SPREAD) / against >= -0.02 for side in (-1, 1))
    if not all(said) or not (margins or perhaps):
        return "Failed"
    return "Passed" if margins or surely else "Inconclusive"


def seconds(text: str) -> float:
    """Read a duration of the walk's specs: seconds or minutes."""
    return float(text[:-1]) * {"s": 1, "m": 60}[text[-1]]


def steps(model: Manifest) -> list[int]:
    """Read the canary's steps."""
    return list(model["spec"]["serving"]["canary"]["stepWeights"])


def live(model: Manifest, counters: Mapping[str, float] | None, challenger: Mapping[str, Any]) -> str:
    """Judge a challenger's live answers: Unknown, None came, Breach, TooFew or Good."""
    if counters is None:
        return "Unknown"
    before: Mapping[str, float] = challenger.get("counters") or {}
    total = {"requests": 0.0, "errors": 0.0}
    for key, value in counters.items():
        name, old = key.partition("|")[2], before.get(key, 0.0)
        if name in total and key.startswith(f"{challenger.get('revision')}-"):
            total[name] += value - old if value >= old else value
    rule = model["spec"]["serving"]["canary"]["analysis"][0]
    if total["requests"] == 0:
        return "None"
    if total["requests"] < rule["minRequests"]:
        return "TooFew"
    return "Breach" if total["errors"] / total["requests"] > rule["max"] else "Good"


def shares(route: Manifest) -> dict[str, int]:
    """Read a route: percent by Service name."""
    return {b["name"]: b["weight"] for b in route["spec"]["rules"][0]["backendRefs"]} if route else {}


def least(model: Manifest) -> int:
    """Read how many servers the champion is to have."""
    return int(model["spec"]["serving"].get("minReplicas", 1))


def ready(servers: Manifest) -> int:
    """Count the ready servers of a Deployment; 0 where there is none."""
    return int((servers.get("status") or {}).get("readyReplicas", 0)) if servers else 0


def shares_of_servers(deployments: Iterable[Manifest]) -> dict[str, int]:
    """Say how ready servers split the requests among themselves: percent by Deployment, cut to whole ones."""
    up = {d["metadata"]["name"]: ready(d) for d in deployments if ready(d)}
    return {name: 100 * count // sum(up.values()) for name, count in up.items()}


def condition(manifest: Manifest, type_: str) -> Manifest:
    """Read a condition; empty when it is not there."""
    found = (manifest.get("status") or {}).get("conditions") or ()
    return next((c for c in found if c["type"] == type_), {})


def ended(job: Manifest) -> Manifest:
    """Read how a Job ended; empty while it runs."""
    found = (job.get("status") or {}).get("conditions") or ()
    return next((c for c in found if c["type"] in ("Complete", "Failed")), {})
