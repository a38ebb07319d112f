"""What the fault proxy understands of a request, and what it can be told to do with one: calls, actions, rules.

A rule counts the calls that it matches and acts on some of them, by number and never by time, so that a run can be
repeated.  Nothing here touches a socket; `fault_proxy.py` does.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from tests.cluster.fault_wire import Event

WRITES = frozenset({"create", "patch", "update", "delete"})
_VERBS = {"GET": "get", "POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}


@dataclass(frozen=True)
class Call:
    """One request to the API server, taken apart."""

    number: int
    """From 1, in order of arrival."""
    method: str
    path: str
    query: Mapping[str, str]
    body: bytes = field(repr=False)
    verb: str
    """get, list, watch, create, patch, update, delete; empty for what is no request for an object."""
    resource: str
    """Plural."""
    namespace: str
    name: str
    sub: str

    @property
    def is_write(self) -> bool:
        """Whether it changes something and is no Lease: the election and the canary write all the time."""
        return self.verb in WRITES and self.resource != "leases"

    def __str__(self) -> str:
        """Write it as people say it, `patch jobs/bikes-1`."""
        parts = (self.resource, self.name, self.sub)
        return f"{self.verb} {'/'.join(part for part in parts if part)}"


def call_of(number: int, method: str, target: str, body: bytes) -> Call:
    """Take a request apart."""
    path, _, text = target.partition("?")
    query = dict(parse_qsl(text, keep_blank_values=True))
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:] if parts[0] == "apis" else []
    namespace = ""
    if len(rest) >= 3 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    resource, name, sub = (*rest, "", "", "")[:3]
    verb = _VERBS.get(method, "") if resource else ""
    if verb == "get" and query.get("watch") in ("true", "1"):
        verb = "watch"
    elif verb == "get" and not name:
        verb = "list"
    return Call(number, method, path, query, body, verb, resource, namespace, name, sub)


@dataclass(frozen=True)
class Answer:
    """Answer in the API server's place; it never hears of the request."""

    code: int
    reason: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    """Body; a `Status` of the API server by default."""
    message: str = ""
    """What that `Status` says."""

    def body(self) -> bytes:
        """Build the body."""
        if self.text:
            return self.text.encode()
        said = self.message or f"the fault proxy answers {self.code}"
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": said}
        return json.dumps(status | {"reason": self.reason, "code": self.code}).encode()


@dataclass(frozen=True)
class Drop:
    """Break the connection: before the request is passed on, or when the answer is there and is kept back."""

    after: bool = False


@dataclass(frozen=True)
class Do:
    """Do something, kill the operator say, and break the connection; `after`: when the server has answered."""

    what: Callable[[Call], object]
    after: bool = False


@dataclass(frozen=True)
class Delay:
    """Pass it on later."""

    seconds: float


@dataclass(frozen=True)
class Truncate:
    """Send only the first bytes of the answer's body, and break the connection."""

    keep: int


@dataclass(frozen=True)
class Past:
    """Answer a list as of an older version; the watch that follows it catches up by itself."""

    version: str


@dataclass(frozen=True)
class Alter:
    """Change what a watch brings, for as long as that stream lives.

    `make` returns a function for one stream: it takes an event, or None when nothing came for half a second, and
    returns the events that are sent.
    """

    make: Callable[[], Callable[[Event | None], Iterable[Event]]]


Action = Answer | Drop | Do | Delay | Truncate | Past | Alter
GONE: Event = {
    "type": "ERROR",
    "object": {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "too old resource version",
        "reason": "Expired",
        "code": 410,
    },
}


def repeated(times: int) -> Alter:
    """Send each event several times."""
    return Alter(lambda: lambda event: [] if event is None else [event] * times)


def swapped() -> Alter:
    """Send every second event before the one that came first."""

    def make() -> Callable[[Event | None], Iterable[Event]]:
        kept: list[Event] = []

        def take(event: Event | None) -> Iterable[Event]:
            if event is None or event["type"] in ("BOOKMARK", "ERROR"):
                # A bookmark says that all before it was sent.
                out = [*kept, *([event] if event else [])]
                kept.clear()
                return out
            if not kept:
                kept.append(event)
                return ()
            return (event, kept.pop())

        return take

    return Alter(make)


def ends_with(event: Event, after: int) -> Alter:
    """Send so many events, and then another one that the server did not send."""

    def make() -> Callable[[Event | None], Iterable[Event]]:
        count = 0

        def take(found: Event | None) -> Iterable[Event]:
            nonlocal count
            if found is None:
                return ()
            count += 1
            return (found, event) if count == after else (found,)

        return take

    return Alter(make)


@dataclass
class Rule:
    """Acts on matching calls number `first` to `first + times - 1`; `times` None: on all from there on."""

    match: Callable[[Call], bool]
    action: Action
    first: int = 1
    times: int | None = 1
    seen: int = 0
    """Calls that it matched."""
    acted: int = 0


class Rules:
    """The rules in force; may be changed from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[Rule] = []

    def add(self, rule: Rule) -> Rule:
        """Put a rule in force and return it."""
        with self._lock:
            self._rules.append(rule)
        return rule

    def remove(self, rule: Rule) -> None:
        """End a rule."""
        with self._lock:
            self._rules.remove(rule)

    def clear(self) -> None:
        """End all rules."""
        with self._lock:
            self._rules.clear()

    def take(self, call: Call) -> Action | None:
        """Count a call in every rule and return what the first one that acts does."""
        chosen: Action | None = None
        with self._lock:
            for rule in self._rules:
                if not rule.match(call):
                    continue
                rule.seen += 1
                last = None if rule.times is None else rule.first + rule.times
                if chosen is None and rule.seen >= rule.first and (last is None or rule.seen < last):
                    rule.acted += 1
                    chosen = rule.action
        return chosen
