"""Reading the ledger: which of the stored entries count, and who is champion because of them.

The registry is not trusted: it may lose, move, replace or invent entries.  Only entries that our key has signed,
that belong to this model and environment and that follow the entry before them count; everything else is ignored
and reported, never repaired.  Nothing is ordered by a clock.  Signatures were checked by `clients/signing.py`
before anything comes here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from controller.api.statements import LedgerEntry, chain_digest, parse_entry


@dataclass(frozen=True, slots=True)
class Verified:
    """The payload of an entry whose signature holds."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an entry does not count: forged, damaged, or gone; one sentence."""

    message: str


VerifiedOrProblem = Verified | Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What the valid entries say."""

    entries: tuple[LedgerEntry, ...] = ()
    """The valid ones, in order."""
    champion: LedgerEntry | None = None
    """The entry that made the champion; its field `champion` names it, empty for none; see `newest`."""
    admitted: Mapping[str, LedgerEntry] = field(default_factory=dict)
    """Revision → its last Admitted entry."""
    rejected: Mapping[str, LedgerEntry] = field(default_factory=dict)
    """Revision → its last Rejected entry."""
    promoted: frozenset[str] = frozenset()
    """Every revision that ever was champion."""
    problems: tuple[str, ...] = ()
    """What was ignored, or is missing, one sentence each."""
    ignored: int = 0
    """Number of stored entries that do not count."""
    next_seq: int = 1
    """Number for the next entry: free, whatever else is stored."""
    head: str = ""
    """`prev` of the next entry."""

    def newest(self, revision: str) -> LedgerEntry | None:
        """Find the newest entry that says where the revision's artifact is: Promoted, else Admitted."""
        own = [e for e in reversed(self.entries) if e.revision == revision]
        return next((e for e in own if e.kind == "Promoted"), None) or self.admitted.get(revision)


def read_chain(entries: Sequence[VerifiedOrProblem], *, name: str, environment: str, known: int = 0) -> Ledger:
    """Decide which entries count.

    An entry counts if it is stored under its own number, names this model and environment, and its `prev` is
    the digest of the last entry that counts. After entries that are lost or damaged the next signed one counts
    too, with a report: otherwise whoever can damage one entry could take back every later decision.

    Args:
        entries: as stored, the one with number 1 first; a `Problem` holds the place of what cannot be read.
        name: name of the registered model.
        environment: environment of the model.
        known: entries that counted when the ledger was last read; fewer now is reported.
    """
    problems: list[str] = []
    signed: dict[int, tuple[LedgerEntry, str]] = {}
    for slot, entry in enumerate(entries, start=1):
        found = _own(entry, name, environment)
        if isinstance(found, str):
            problems.append(f"Ledger entry {slot} is ignored: {found}.")
        elif found[0].seq in signed:
            problems.append(f"Ledger entry {slot} is ignored: it is number {found[0].seq}, which came before.")
        elif found[0].seq != slot:
            problems.append(f"Ledger entry {slot} is ignored: it says that it is number {found[0].seq}.")
        else:
            signed[slot] = found
    valid, head = _follow(signed, problems)
    if len(valid) < known:
        problems.append(
            f"The ledger has {len(valid)} valid entries, and had {known}: entries were removed or changed."
        )
    return Ledger(
        entries=tuple(valid),
        champion=_champion(valid),
        admitted={e.revision: e for e in valid if e.kind == "Admitted"},
        rejected={e.revision: e for e in valid if e.kind == "Rejected"},
        promoted=frozenset(e.champion for e in valid if e.champion),
        problems=tuple(problems),
        ignored=len(entries) - len(valid),
        next_seq=len(entries) + 1,
        head=head,
    )


def _own(entry: VerifiedOrProblem, name: str, environment: str) -> tuple[LedgerEntry, str] | str:
    """Return the entry and its digest, or why it is not one of this chain."""
    if isinstance(entry, Problem):
        return entry.message
    try:
        parsed = parse_entry(entry.payload)
    except ValueError as e:
        return str(e)
    if (parsed.name, parsed.environment) != (name, environment):
        return f"it belongs to {parsed.name} in {parsed.environment}, not to {name} in {environment}"
    return parsed, chain_digest(entry.payload)


def _follow(signed: Mapping[int, tuple[LedgerEntry, str]], problems: list[str]) -> tuple[list[LedgerEntry], str]:
    """Walk the chain from its first entry; returns what counts and the digest of the last that does."""
    valid: list[LedgerEntry] = []
    head = ""
    for seq, (entry, digest) in sorted(signed.items()):
        last = valid[-1].seq if valid else 0
        between = range(last + 1, seq)
        if entry.prev != head:
            # Between two entries that count may lie only what is lost: an entry that follows one of ours which
            # does not count is a fork.
            if not between or any(s in signed for s in between) or not entry.prev:
                problems.append(f"Ledger entry {seq} is ignored: it does not follow entry {last}.")
                continue
            what = f"entry {last + 1} is" if len(between) == 1 else f"entries {last + 1} to {seq - 1} are"
            problems.append(f"Ledger {what} missing: entry {seq} follows one that cannot be read.")
        valid.append(entry)
        head = digest
    return valid, head


def _champion(valid: Sequence[LedgerEntry]) -> LedgerEntry | None:
    """Find the entry that made the champion.

    Where entries are missing after it, the newest entry's own word on who is champion decides: the missing
    one may have been the change.
    """
    made = next((e for e in reversed(valid) if e.kind in ("Promoted", "RolledBack")), None)
    if not valid:
        return None
    last = valid[-1]
    after = last.seq - (made.seq if made else 0)
    counted = sum(1 for e in valid if made is None or e.seq > made.seq)
    lost = after != counted
    if lost and last.champion and (made is None or last.champion != made.champion):
        return last
    return made
