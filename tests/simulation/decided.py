"""What must hold at every write to the registry: who is admitted, promoted, rolled back, and what an entry says.

The other half of the promises is in `promises.py`, where the table of all of them is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from controller.api.conditions import parse_timestamp
from controller.api.meta import Key, Manifest
from controller.api.statements import LEDGER_TYPE, LedgerEntry, parse_entry
from controller.clients.signing import Verifier
from tests.simulation import truth
from tests.simulation.outside import TOKENS
from tests.simulation.truth import must, stake

if TYPE_CHECKING:
    from tests.simulation.arena import Arena
    from tests.simulation.seat import Seat

QUIET_CALLS = ("ensure_experiment", "ensure_run", "finish_run", "ensure_version")
"""Registry writes that go on while a model is suspended: what ran is closed and kept."""


class Decided:
    """Holds what is decided; raises BrokenPromise."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.held = 0
        """How many writes were held against the promises."""

    # -- what the writer knew ----------------------------------------------------------------------------------

    def model(self, seat: Seat) -> Manifest:
        key = seat.key
        assert key is not None
        if key.kind == "ModelSpec":
            return seat.seen.one(*parts(key))
        revision = seat.seen.one(*parts(key))
        return seat.seen.one("ModelSpec", key.namespace, revision["spec"]["model"]) if revision else {}

    def chain(self, seat: Seat, model: Manifest) -> list[LedgerEntry] | None:
        """Read the ledger as the seat last read it; None when it never could."""
        name, environment = model["metadata"]["name"], truth.environment(model)
        blobs = seat.known.get((name, environment))
        return None if blobs is None else truth.chain(blobs, name, environment)

    def in_canary(self, current: Manifest, revision: str) -> bool:
        return current.get("revision") == revision and current.get("stage") == "Canary"

    def passed(self, seat: Seat, model: Manifest, current: Manifest, what: str) -> None:
        """Hold that a step is over: its time has passed, and its answers were good."""
        interval = truth.seconds(model["spec"]["serving"]["canary"]["interval"])
        since = current.get("since")
        must(since, "S5", f"{what} and its step has not begun")
        stood = (self.arena.clock.now() - parse_timestamp(str(since))).total_seconds()
        must(stood >= interval, "S5", f"{what} after {stood:.0f} of {interval:.0f} s")
        answers = truth.live(model, seat.seen.counters, current)
        stake(True, "S5", "a step of a canary is over")
        must(answers in ("Good", "None"), "S5", f"{what} and its answers are {answers}")

    # -- writes to the registry --------------------------------------------------------------------------------

    async def registry_call(self, seat: Seat, call: str, args: tuple[Any, ...], rest: Any) -> None:
        """Hold one call of the registry; `before …` comes ahead of a write."""
        if not call.startswith("before ") or seat.key is None:
            return
        self.held += 1
        verb = call.removeprefix("before ")
        self.arena.writes[f"{verb} for {seat.key}"] += 1
        must(not any(t in repr((args, rest)) for t in TOKENS), "S8", f"a secret is written by {verb}")
        model = self.model(seat)
        if verb not in QUIET_CALLS:
            must(model, "S4", f"{verb} for a ModelSpec that is gone")
            must(not model["spec"].get("suspend"), "S4", f"{verb} while suspended")
        if verb == "append_ledger":
            payload = Verifier([self.arena.signer.public]).open(args[3], LEDGER_TYPE).payload
            self._entry(seat, parse_entry(payload), args[2], model)
        elif verb == "ensure_version":
            digest = rest["tags"]["mainspring.digest"]
            must(self.arena.bytes_of(args[1]) == digest, "S10", f"a version of {args[1]}, which holds other bytes")
            stake(len(self.arena.homes) > 1, "S10", "a version beside another environment's")
        elif verb == "set_alias":
            self._alias(seat, args, model)

    def _alias(self, seat: Seat, args: tuple[Any, ...], model: Manifest) -> None:
        name, alias, version = args
        tags = self.arena.registry.models[name].versions.get(version, {})
        entries = self.chain(seat, model)
        serving = (
            truth.champion(entries) if entries is not None else status_of(model, "champion").get("revision", "")
        )
        must(alias == f"{truth.environment(model)}-champion", "S2", f"{alias} is another environment's")
        must(tags.get("mainspring.revision") == serving, "S2", f"{alias} names version {version}, not {serving}")
        if entries:
            held = self.arena.bytes_of(tags.get("run", ""))
            must(held == truth.champion_digest(entries), "S10", f"{alias} names version {version}: other bytes")
        stake(self.arena.registry.models[name].aliases.get(alias), "S2", "an alias names another version")

    def _entry(self, seat: Seat, entry: LedgerEntry, slot: int, model: Manifest) -> None:
        entries = self.chain(seat, model)
        must(entries is not None, "S2", "an entry is written by one who never read the ledger")
        assert entries is not None
        place = (entry.name, entry.environment, entry.seq)
        expected = (model["metadata"]["name"], truth.environment(model), slot)
        must(place == expected, "S2", f"an entry of {place} in the ledger of {expected}")
        serving, digest = truth.champion(entries), entry.digest
        must(
            self.arena.bytes_of(entry.run) == digest,
            "S10",
            f"{entry.kind} of {entry.run}, which holds other bytes",
        )
        self._made_of(seat, entry, model)
        tree = self.arena.git.tree(entry.commit)
        made_of = tuple(tree[p] for p in ("quality", "train.py", "data.csv"))
        must(self.arena.origin[digest] == made_of, "S10", f"{entry.kind}: {entry.commit} is not what was trained")
        admitted = any((e.kind, e.revision, e.digest) == ("Admitted", entry.revision, digest) for e in entries)
        if entry.kind in ("Admitted", "Rejected"):
            self._judged(entry, entries)
            against = self.arena.models.get(truth.champion_digest(entries)) if serving else None
            said = truth.judged(model, self.arena.models[digest], against)
            must(
                said == {"Admitted": "Passed", "Rejected": "Failed"}[entry.kind],
                "S1",
                f"{entry.kind}: {self.arena.models[digest]} vs {against}",
            )
            must(entry.champion == serving, "S2", f"{entry.kind} says that {entry.champion} is champion")
        elif entry.kind == "Promoted":
            stake(len(self.arena.made.get(entry.revision, ())) > 1, "S13", "promoted, and trained more than once")
            must(admitted, "S13", f"{entry.revision} was promoted with bytes that nobody admitted")
            self._promoted(seat, entry, entries, model)
        else:
            must(entry.champion == serving, "S2", f"a rollback makes {entry.champion} champion of {serving}")
            stands = truth.stands_back(entries, model, entry.revision)
            must(not stands, "L4", f"{entry.revision} is rolled back in the ledger already")
            stake(True, "L4", "a rollback is written down")
            self._rolled_back(seat, entry, model)

    def _made_of(self, seat: Seat, entry: LedgerEntry, model: Manifest) -> None:
        """Hold that an entry names the commit that its revision was made from."""
        found = seat.seen.one("ModelRevision", model["metadata"]["namespace"], entry.revision)
        pinned = found["spec"]["source"]["commit"] if found else entry.commit
        must(entry.commit == pinned, "S10", f"{entry.kind} names {entry.commit[:7]}, {pinned[:7]} was trained")
        stake(entry.commit != self.arena.git.line[-1], "S10", "an entry, and the branch has moved on")
        stake(entry.run in self.arena.uploaded_again, "S10", "an entry of a run that two pods wrote")

    def _judged(self, entry: LedgerEntry, entries: list[LedgerEntry]) -> None:
        """Hold that one judgement is written once."""
        same = ("kind", "revision", "digest", "gate_hash", "champion_digest", "report")
        again = any(all(getattr(e, f) == getattr(entry, f) for f in same) for e in entries)
        must(not again, "L4", f"{entry.kind} of {entry.revision} is in the ledger already")
        stake(entry.kind == "Rejected", "L4", "a refusal is written down")
        stake(entry.kind == "Rejected", "S1", "a challenger is refused")
        stake(bool(entry.champion), "S1", "a challenger is compared with a champion")

    def _promoted(self, seat: Seat, entry: LedgerEntry, entries: list[LedgerEntry], model: Manifest) -> None:
        must(
            entry.champion == entry.revision, "S2", f"{entry.revision} was promoted, {entry.champion} is champion"
        )
        found = seat.seen.kind("Deployment", model["metadata"]["namespace"])
        servers = [d for d in found if is_of(d["metadata"]["name"], entry.revision)]
        up = sum((d.get("status") or {}).get("readyReplicas", 0) for d in servers)
        must(up > 0, "S6", f"{entry.revision} was promoted without a ready server")
        must(
            not truth.stands_back(entries, model, entry.revision),
            "S5",
            f"{entry.revision} promoted after its rollback",
        )
        again = any((e.kind, e.champion, e.digest) == ("Promoted", entry.revision, entry.digest) for e in entries)
        if not truth.champion(entries) or again:
            return
        stake(True, "S5", "a canary is promoted")
        current, last = status_of(model, "challenger"), truth.steps(model)[-1]
        must(self.in_canary(current, entry.revision), "S5", f"{entry.revision} was promoted without a canary")
        must(current["weight"] == last, "S5", f"{entry.revision} was promoted at {current['weight']}%")
        self.passed(seat, model, current, f"{entry.revision} was promoted")

    def _rolled_back(self, seat: Seat, entry: LedgerEntry, model: Manifest) -> None:
        """Hold that a rollback has a cause: bad answers, or too long."""
        current, previous = status_of(model, "challenger"), status_of(model, "previous")
        if previous.get("revision") == entry.revision and previous.get("verdict") == "RolledBack":
            return
        limit = model["spec"]["serving"]["canary"]["progressDeadlineSeconds"]
        started = current.get("startedAt") if current.get("revision") == entry.revision else None
        late = started and (self.arena.clock.now() - truth.when(started)).total_seconds() > limit
        bad = truth.live(model, seat.seen.counters, current) == "Breach"
        must(late or bad, "S5", f"{entry.revision} was rolled back for nothing: {entry.reason}")


def parts(key: Key) -> tuple[str, str, str]:
    return key.kind, key.namespace, key.name


def status_of(model: Manifest, part: str) -> Manifest:
    return (model.get("status") or {}).get(part) or {}


def is_of(servers: str, revision: str) -> bool:
    """Tell whether a Deployment is of a revision."""
    return bool(revision) and servers.rpartition("-")[0] == revision
