"""What the router knows: models, their backends with weights, and the endpoints that are ready.

The runner writes it as one JSON file, the router reads it again whenever the file was replaced.  The choice of a
backend is deterministic, smooth weighted round-robin (the algorithm of nginx), so that shares are exact over every
sum of weights.  No network here, and no decision about weights: those come from the HTTPRoute.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

LOOK_EVERY_S: Final = 0.05
"""How often, at most, the router looks whether the file was replaced."""

log = logging.getLogger("mainspring.router")


@dataclass(frozen=True, slots=True)
class Backend:
    """One Service of a route."""

    name: str
    weight: int
    """Share of the requests, relative to the other weights; 0 gets none while another backend can answer."""
    endpoints: tuple[str, ...]
    """`host:port` of each server that is ready."""


Table = Mapping[str, Sequence[Backend]]
"""`<namespace>/<model>` → its backends."""


def dump(table: Table) -> str:
    """Write a table as the text of the file, with its generation."""
    routes = {model: [asdict(backend) for backend in backends] for model, backends in sorted(table.items())}
    text = json.dumps(routes, sort_keys=True)
    return json.dumps({"generation": hashlib.sha256(text.encode()).hexdigest()[:16], "routes": routes}, indent=1)


def load(text: str) -> tuple[str, dict[str, tuple[Backend, ...]]]:
    """Read what `dump` wrote: generation and table.

    Raises:
        ValueError: it is not such a text.
    """
    try:
        found: dict[str, Any] = json.loads(text)
        table = {
            str(model): tuple(Backend(b["name"], int(b["weight"]), tuple(b["endpoints"])) for b in backends)
            for model, backends in found["routes"].items()
        }
        return str(found["generation"]), table
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a table of routes: {type(error).__name__} {error}") from error


class Balancer:
    """Chooses, for each request to one model, whom to ask, and whom if that one does not answer."""

    def __init__(self, backends: Sequence[Backend], before: Balancer | None = None) -> None:
        self.backends = tuple(backends)
        self._weighted = [b for b in backends if b.weight > 0 and b.endpoints]
        self._idle = [b for b in backends if b.weight <= 0 and b.endpoints]
        self._shape = [(b.name, b.weight) for b in self._weighted]
        # The position goes on over a change of endpoints, so that shares stay exact; new weights start anew.
        keeps = before is not None and before._shape == self._shape
        self._credit: dict[str, int] = {b.name: 0 for b in self._weighted}
        if before is not None and keeps:
            self._credit = before._credit
        self._turns: dict[str, int] = {} if before is None else before._turns

    def in_turn(self) -> list[tuple[Backend, str]]:
        """List whom to ask, in order: the chosen backend's endpoints, the other backends', then weight 0."""
        order = self._idle
        if self._weighted:
            chosen = self._choose()
            rest = sorted((b for b in self._weighted if b is not chosen), key=lambda b: -b.weight)
            order = [chosen, *rest, *self._idle]
        return [
            (backend, endpoint) for backend in order for endpoint in self._rotated(backend, backend is order[0])
        ]

    def _choose(self) -> Backend:
        for backend in self._weighted:
            self._credit[backend.name] += backend.weight
        chosen = max(self._weighted, key=lambda b: self._credit[b.name])
        self._credit[chosen.name] -= sum(b.weight for b in self._weighted)
        return chosen

    def _rotated(self, backend: Backend, advance: bool) -> Sequence[str]:
        turn = self._turns.get(backend.name, 0)
        if advance:
            self._turns[backend.name] = turn + 1
        start = turn % len(backend.endpoints)
        return backend.endpoints[start:] + backend.endpoints[:start]


class Routes:
    """The table in force; follows the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._looked = float("-inf")
        self._balancers: dict[str, Balancer] = {}
        self.generation = ""

    def find(self, model: str) -> Balancer | None:
        """Return the balancer of `<namespace>/<model>`, None if there is no such route."""
        self.refresh()
        return self._balancers.get(model)

    def refresh(self, *, at_once: bool = False) -> None:
        """Read the file if it was replaced; a missing or broken one leaves the table as it is."""
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY_S and not at_once:
            return
        self._looked = now
        try:
            found = self._path.stat()
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
            if stamp == self._stamp:
                return
            self.generation, table = load(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            log.warning("the routes cannot be read, the old ones stay in force: %s", error)
            return
        self._stamp = stamp
        self._balancers = {model: Balancer(b, self._balancers.get(model)) for model, b in table.items()}
