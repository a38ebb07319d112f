"""What must hold where whole servers split the requests: how many a challenger has, and that the champion's stay.

The other way, a route, is held in `promises.py`.  Worked out from the number of servers alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller.api.meta import LABEL_MODEL, LABEL_REVISION, Key, Manifest
from controller.api.statements import LedgerEntry
from tests.simulation import truth
from tests.simulation.decided import Decided, is_of, status_of
from tests.simulation.truth import must, stake

if TYPE_CHECKING:
    from tests.simulation.seat import Seat


class Shared(Decided):
    """Holds how many servers there are; raises BrokenPromise."""

    def servers(self, seat: Seat, model: Manifest) -> dict[str, Manifest]:
        """Find the model's own Deployments as the seat read them, by name."""
        name, namespace = model["metadata"]["name"], model["metadata"]["namespace"]
        found = seat.seen.kind("Deployment", namespace)
        mine = (d for d in found if d["metadata"]["labels"].get(LABEL_MODEL) == name)
        uid = model["metadata"]["uid"]
        return {
            d["metadata"]["name"]: d
            for d in mine
            if any(o["uid"] == uid for o in d["metadata"].get("ownerReferences", ()))
        }

    def spread(self, seat: Seat, model: Manifest) -> dict[str, int]:
        """Say how the requests are split, as far as the seat has read: percent by name."""
        if self.arena.cast.by_servers:
            return truth.shares_of_servers(self.servers(seat, model).values())
        namespace = model["metadata"]["namespace"]
        return truth.shares(seat.seen.one("HTTPRoute", namespace, model["metadata"]["name"]))

    def spread_now(self, seat: Seat, model: Manifest) -> dict[str, int]:
        """Say how the requests are split after what the look itself has changed."""
        namespace, changed = model["metadata"]["namespace"], seat.seen.changed
        if self.arena.cast.by_servers:
            present = self.servers(seat, model).items()
            return truth.shares_of_servers(d for n, d in present if Key("Deployment", namespace, n) not in changed)
        route = changed.get(Key("HTTPRoute", namespace, model["metadata"]["name"]))
        return truth.shares(route) if route else self.spread(seat, model)

    def serving(self, seat: Seat, model: Manifest) -> str:
        """Name the champion by the ledger, or by the status where that was never read."""
        entries = self.chain(seat, model)
        return truth.champion(entries) if entries is not None else status_of(model, "champion").get("revision", "")

    def delete_servers(self, seat: Seat, key: Key, model: Manifest) -> None:
        """Hold that servers go only when others answer: the champion's never, a former one's once it has gone."""
        serving, present = self.serving(seat, model), self.servers(seat, model)
        must(serving or self.chain(seat, model) is not None, "S6", f"{key.name} was deleted, and who is champion?")
        must(not is_of(key.name, serving), "S6", f"the champion's servers {key.name} were deleted")
        gone = present.get(key.name, {})
        if not truth.ready(gone):
            return
        stake(True, "S6", "servers that answer are deleted")
        left = sum(truth.ready(d) for n, d in present.items() if is_of(n, serving))
        needed = truth.least(model) if self._was_champion(seat, gone, model) else 1
        must(left >= needed, "S6", f"{key.name} was deleted, and {left} of {needed} others answer")

    def _was_champion(self, seat: Seat, servers: Manifest, model: Manifest) -> bool:
        """Tell whether these were a champion's, and not a challenger's."""
        revision, previous = servers["metadata"]["labels"].get(LABEL_REVISION), status_of(model, "previous")
        if previous.get("revision") == revision:
            return bool(previous.get("verdict") == "Replaced")
        last = next((e for e in reversed(self.chain(seat, model) or []) if e.revision == revision), None)
        return last is not None and last.kind == "Promoted"

    def count_servers(self, seat: Seat, key: Key, count: int, model: Manifest) -> None:
        """Hold how many servers a Deployment is given."""
        serving, present, least = self.serving(seat, model), self.servers(seat, model), truth.least(model)
        if not serving or is_of(key.name, serving):
            must(count == least, "S6", f"{key.name} is given {count} of {least} servers")
            stake(least > 1, "S6", "more than one server is asked for")
            return
        before = present.get(key.name, {})
        if before and self._was_champion(seat, before, model) and count < before["spec"]["replicas"]:
            ready = sum(truth.ready(d) for n, d in present.items() if is_of(n, serving))
            stake(True, "S6", "a former champion's servers go one by one")
            must(count + ready >= least, "S6", f"{key.name} keeps {count}, {ready} of {least} others answer")
            return
        self._challengers(seat, key, count, before, model)

    def _challengers(self, seat: Seat, key: Key, count: int, before: Manifest, model: Manifest) -> None:
        """Hold that a challenger has as many servers as its step gives, or as a champion that comes back needs."""
        revision, current = key.name.rpartition("-")[0], status_of(model, "challenger")
        entries: list[LedgerEntry] = self.chain(seat, model) or []
        stake(True, "S5", "a challenger gets servers")
        must(not truth.stands_back(entries, model, revision), "S5", f"{revision} gets servers after its rollback")
        least, steps = truth.least(model), truth.steps(model)
        if any(e.champion == revision for e in entries) or (before and count <= before["spec"]["replicas"]):
            return
        at = current.get("weight", 0) if self.in_canary(current, revision) else 0
        if at and at not in steps:
            return
        step = steps.index(at) if at else 0
        if _is_share(count, least, steps[step]):
            return
        following = steps[step + 1] if at and step + 1 < len(steps) else 0
        fits = following and _is_share(count, least, following)
        must(fits, "S5", f"{revision} gets {count} servers beside {least}, its step is {steps[step]}%")
        self.passed(seat, model, current, f"{revision} goes on to {count} servers")


def _is_share(count: int, champions: int, percent: int) -> bool:
    """Tell whether so many servers beside the champion's come nearest to a share; there is always one at least."""
    return count == 1 or abs(count - champions * percent / (100 - percent)) <= 0.5
