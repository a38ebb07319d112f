"""`mainspring up`, unchanged, that dies by SIGKILL at a write of one's choosing.

Every write is named, counted and noted in a journal before it is made: transactions of the object store that
change something, requests that change MLflow, processes that are started or told to stop, files that are opened
for writing, renamed, linked or removed below the state and data directories.  "before" kills when nothing has
happened yet, "after" when it just has: a transaction committed, a request answered, a process started, a file
opened and still empty.  A write is (stage, name, occurrence): the stage is told by a file, the occurrence counted
over all runs of a journal.  Run as `python crashing_operator.py JOURNAL STAGE POINTS up …`.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

ACTOR = contextvars.ContextVar("actor", default="start")
"""Who writes: start (of `up`), controller or runner."""
DOING = contextvars.ContextVar("doing", default="start: create the object store")
"""Which method of the object store runs."""
STORE_WRITES = ("apply", "create", "patch_status", "annotate", "patch_spec", "delete")
GIT_WRITES = frozenset({"fetch", "repack", "gc", "update-ref", "init"})
_MODEL = re.compile(r"\b(line)-[0-9a-f]{10}\b")
_RANDOM = re.compile(r"\.(draft|signing-key\.pem|new)[-.][A-Za-z0-9_]+")
_PID = re.compile(r"\.\d+\.tmp$")
_TRASH = re.compile(r"trash/[^/]+/")


def plain(text: str) -> str:
    """Take out of a path or name what differs from run to run."""
    return re.sub("[0-9a-f]{16,}", "#", _MODEL.sub(r"\1", text))


class Crasher:
    """Counts writes, notes them, and kills this process at those that were asked for."""

    def __init__(self, journal: Path, stage: Path, points: list[list[Any]], homes: tuple[str, ...]) -> None:
        self._stage = stage
        self._homes = homes
        self._counts: Counter[tuple[int, str]] = Counter()
        self._points = {(int(s), str(n), int(o), str(m)) for s, n, o, m in points}
        self._inside = threading.local()
        if journal.exists():
            for line in journal.read_text().splitlines():
                noted = json.loads(line)
                if noted.get("killed"):
                    self._points.discard((noted["stage"], noted["name"], noted["occurrence"], noted["killed"]))
                else:
                    self._counts[noted["stage"], noted["name"]] += 1
        self._journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def note(self, name: str) -> tuple[int, str, int]:
        """Count a write that is about to happen; dies here if that was asked for."""
        stage = int(self._stage.read_text() or 0)
        self._counts[stage, name] += 1
        point = (stage, name, self._counts[stage, name])
        self._write(point)
        self.at(point, "before")
        return point

    def at(self, point: tuple[int, str, int], moment: str) -> None:
        """Die if this is a point that was asked for."""
        if (*point, moment) in self._points:
            self._write(point, killed=moment)
            os.kill(os.getpid(), signal.SIGKILL)

    def wants(self, point: tuple[int, str, int], moment: str) -> bool:
        """Tell whether to die at this point."""
        return (*point, moment) in self._points

    def _write(self, point: tuple[int, str, int], **more: str) -> None:
        stage, name, occurrence = point
        line = json.dumps({"stage": stage, "name": name, "occurrence": occurrence, **more}) + "\n"
        os.write(self._journal, line.encode())
        os.fsync(self._journal)

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Do not count what is done in here by this thread."""
        before = getattr(self._inside, "on", False)
        self._inside.on = True
        try:
            yield
        finally:
            self._inside.on = before

    def hear(self, event: str, args: tuple[Any, ...]) -> None:
        """Take one of the interpreter's audit events, which come before the deed."""
        if event not in DEEDS or getattr(self._inside, "on", False):
            return
        with self.quiet():
            found = DEEDS[event](args)
            if found is None or not (name := self._named(found[0], found[1])):
                return
            point = self.note(name)
            if self.wants(point, "after"):
                with contextlib.suppress(OSError):  # the deed itself would fail the same way
                    found[2]()
                self.at(point, "after")

    def _named(self, verb: str, path: str) -> str:
        if verb == "signal":
            return f"{ACTOR.get()}: signal {path}"
        home = next((h for h in self._homes if path.startswith(f"{h}/")), None)
        if home is None or "/objects.db" in path:
            return ""
        where = _TRASH.sub("trash/*/", _PID.sub(".tmp", _RANDOM.sub(r".\1", path.removeprefix(f"{home}/"))))
        return f"{ACTOR.get()}: file {verb} {plain(where)}"


Deed = tuple[str, str, Callable[[], object]]


def _opened(args: tuple[Any, ...]) -> Deed | None:
    path, _, flags = args
    if not isinstance(path, str | Path) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return None
    if os.path.exists(path) and not flags & (os.O_TRUNC | os.O_APPEND):  # noqa: PTH110
        return None  # a lock that is there already: opening it changes nothing
    return "open", os.fspath(path), lambda: os.open(path, flags, 0o600)


def _pair(verb: str, do: Callable[[Any, Any], object]) -> Callable[[tuple[Any, ...]], Deed | None]:
    return lambda args: (verb, os.fspath(args[1]), lambda: do(args[0], args[1]))


def _removed(args: tuple[Any, ...]) -> Deed | None:
    return (
        ("remove", os.fspath(args[0]), lambda: Path(args[0]).unlink()) if isinstance(args[0], str | Path) else None
    )


def _signalled(args: tuple[Any, ...]) -> Deed | None:
    pid, number = args
    if not number or pid == os.getpid():
        return None
    return "signal", signal.Signals(number).name, lambda: os.kill(pid, number)


DEEDS: dict[str, Callable[[tuple[Any, ...]], Deed | None]] = {
    "open": _opened,
    "os.rename": _pair("rename to", os.rename),
    "os.link": _pair("link", os.link),
    "os.remove": _removed,
    "os.kill": _signalled,
}


def wrap_processes(crasher: Crasher) -> None:
    """Count the processes that are started: shims by pod, MLflow, and the git commands that write."""

    class Counted(subprocess.Popen):
        def __init__(self, args: Any, *more: Any, **named: Any) -> None:
            name = _process(args)
            point = crasher.note(f"{ACTOR.get()}: start {name}") if name else None
            super().__init__(args, *more, **named)
            if point is not None:
                crasher.at(point, "after")

    subprocess.Popen = Counted  # type: ignore[misc]


def _process(args: Any) -> str:
    words = [os.fsdecode(a) for a in ([args] if isinstance(args, str | bytes) else args)]
    if any(w.endswith("shim.py") for w in words):
        return f"shim {plain(Path(words[-1]).name)}"
    if "uvicorn" in words or "mlflow" in words:
        return "mlflow"
    if Path(words[0]).name == "git":
        verbs = [w for w in words if w in GIT_WRITES]
        return f"git {verbs[0]}" if verbs else ""
    return Path(words[0]).name


def wrap_store(crasher: Crasher) -> None:
    """Count the transactions that change something, by method and kind."""
    from controller.local.store import Store
    from controller.local.store_file import Database

    write = Database.write

    @contextlib.contextmanager
    def counted(self: Database) -> Iterator[None]:
        connection, point = self._connection, None
        with write(self):
            before = connection.total_changes
            yield
            if connection.total_changes != before:
                point = crasher.note(DOING.get())
        if point is not None:
            crasher.at(point, "after")

    def named(method: str) -> None:
        inner = getattr(Store, method)

        async def outer(self: Store, what: Any, *args: Any, **more: Any) -> Any:
            kind = what["kind"] if isinstance(what, dict) else what.kind
            token = DOING.set(f"{ACTOR.get()}: {method} {kind}")
            try:
                return await inner(self, what, *args, **more)
            finally:
                DOING.reset(token)

        setattr(Store, method, outer)

    Database.write = counted  # type: ignore[method-assign]
    for method in STORE_WRITES:
        named(method)


def wrap_registry(crasher: Crasher) -> None:
    """Count the requests that change MLflow, by what they change."""
    from controller.clients.registry_rest import Rest

    call, put = Rest.call, Rest.put_file

    async def counted(self: Rest, method: Any, path: str, body: Any, **more: Any) -> Any:
        if method == "GET" or path.endswith("search"):
            return await call(self, method, path, body, **more)
        what = body.get("key", "") or ("mainspring-ledger" if body.get("name") == "mainspring-ledger" else "")
        ledger = "ledger" if any(t["key"] == "mainspring.ledger" for t in body.get("tags", ())) else ""
        point = crasher.note(f"{ACTOR.get()}: mlflow {path} {what}{ledger}".strip())
        try:
            return await call(self, method, path, body, **more)
        finally:
            crasher.at(point, "after")

    async def counted_put(self: Rest, where: str, content: AsyncIterator[bytes], size: int) -> None:
        name = re.sub(r"^.*/artifacts/", "", where)
        point = crasher.note(f"{ACTOR.get()}: mlflow put {name}")
        try:
            await put(self, where, content, size)
        finally:
            crasher.at(point, "after")

    Rest.call = counted  # type: ignore[method-assign]
    Rest.put_file = counted_put  # type: ignore[method-assign]


def wrap_actors() -> None:
    """Tell the writes of the runner from those of the controller."""
    from controller.local.runner import Runner
    from controller.reconcile.controller import Controller

    def named(cls: type, method: str, actor: str) -> None:
        inner = getattr(cls, method)

        async def outer(self: Any, *args: Any) -> Any:
            token = ACTOR.set(actor)
            try:
                return await inner(self, *args)
            finally:
                ACTOR.reset(token)

        setattr(cls, method, outer)

    named(Runner, "run", "runner")
    named(Runner, "sync", "runner")
    named(Controller, "run", "controller")


def main() -> None:
    """Wrap everything, then run the command line as it is."""
    journal, stage, points, *arguments = sys.argv[1:]
    homes = tuple(os.environ[name] for name in ("MAINSPRING_STATE", "MAINSPRING_DATA"))
    from controller.cli.main import main as command_line

    crasher = Crasher(Path(journal), Path(stage), json.loads(points), homes)
    wrap_processes(crasher)
    wrap_store(crasher)
    wrap_registry(crasher)
    wrap_actors()
    sys.addaudithook(crasher.hear)
    sys.argv = ["mainspring", *arguments]
    command_line()


if __name__ == "__main__":
    main()
