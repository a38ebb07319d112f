"""The model server: verify, load, prove one prediction, serve, and end without losing a request.

One process and one model; the digest decides what is loaded.  With the controller, MLflow and Git all away it goes
on answering.  On SIGTERM it says that it is not ready, answers for a while longer, finishes what it has and ends
with 0; a model that cannot be served ends it with 3 before it listens.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import uvicorn

from controller.clients.errors import NotFound
from controller.serving import app, compare, faster, invocations, loader, predlog_server, smoke, step, workers
from controller.serving.call import BODY_S, Identity, State
from controller.serving.compare import Comparer
from controller.serving.engine import Engine
from controller.serving.invocations import BadRequest
from controller.serving.metrics import Metrics
from controller.serving.pool import QUEUE_MAX, TIMEOUT_S, Pool
from controller.serving.predictor import Predictor
from controller.serving.protocol import Protocol
from controller.serving.shared import Shared

DRAIN_S: Final = 3.0
"""How long a server that was told to end goes on accepting: routes and endpoints need a moment to notice."""
FINISH_S: Final = 20
"""How long it waits for requests in flight after that."""
SAMPLE_MAX_BYTES: Final = 1 << 20

log = logging.getLogger("mainspring.serving")


class Server(uvicorn.Server):
    """uvicorn, but SIGTERM makes it unready first and lets it accept for a while."""

    def __init__(self, config: uvicorn.Config, state: State, drain_s: float) -> None:
        super().__init__(config)
        self._state, self._drain_s = state, drain_s

    def handle_exit(self, sig: int, frame: Any) -> None:  # noqa: ARG002 - uvicorn's signature
        """Begin to end; a second signal ends at once. Overrides uvicorn's, which would die of the signal."""
        if self._state.draining:
            self.should_exit = self.force_exit = True
            return
        self._state.draining = True
        asyncio.get_running_loop().call_later(self._drain_s, self._end)

    def _end(self) -> None:
        self.should_exit = True


def main(argv: list[str] | None = None) -> int:
    """Run the server; returns the exit code: 0 after a signal, 3 for a model that cannot be served."""
    parser = argparse.ArgumentParser(prog="controller.serving.server")
    parser.add_argument("--model", type=Path, required=True, help="directory that fetch_model wrote")
    parser.add_argument("--digest", required=True, help="sha256:<64 hex> of its manifest")
    parser.add_argument("--sample", type=Path, help="a request that must be answered first (default: sample.json)")
    parser.add_argument("--host", default=os.environ.get("MAINSPRING_HOST", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8080")))
    parser.add_argument("--drain-s", type=float, default=float(os.environ.get("MAINSPRING_DRAIN_S", DRAIN_S)))
    parser.add_argument("--queue", type=int, default=QUEUE_MAX)
    parser.add_argument("--timeout-s", type=float, default=TIMEOUT_S)
    parser.add_argument("--body-s", type=float, default=BODY_S, help="longest that a body may take to arrive")
    parser.add_argument("--workers", type=_workers, default=_workers(os.environ.get("MAINSPRING_WORKERS", "1")))
    parser.add_argument("--worker", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--descriptors", default="", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.workers > 1 and not given.descriptors:
        arguments = sys.argv[1:] if argv is None else argv
        return step.run("server", lambda: workers.run(arguments, given.workers, given.host, given.port))
    return step.run("server", lambda: _serve(given))


def _workers(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= workers.WORKERS_MAX:
        raise argparse.ArgumentTypeError(f"workers must be a number from 1 to {workers.WORKERS_MAX}")
    return int(text)


def _serve(given: argparse.Namespace) -> None:
    sock, shared = None, Shared.alone()
    if given.descriptors:
        workers.end_with_parent()
        listening, memory = map(int, given.descriptors.split(","))
        sock, shared = socket.socket(fileno=listening), Shared.opened(memory, given.worker, given.workers)
    predictor, _ = loader.verify_and_load(given.model, given.digest)
    quicken(predictor, given.model.parent / "lineage.json")
    state = new_state(
        predictor,
        given.digest,
        Pool(parallel=predictor.parallel, queue=given.queue, timeout_s=given.timeout_s),
        shared,
    )
    state.body_s = given.body_s
    prove(state, sample_body(given.sample, given.model))
    state.metrics.serves(predictor.form.name if predictor.form is not None else "")
    state.log = predlog_server.of_environment(state.identity, state.engine.kinds, state.metrics)
    log.info("serving %s on %s:%s%s", given.digest, given.host, given.port, state.unready and f", {state.unready}")
    application = app.build(state)
    smoke.pass_test(application)
    config = uvicorn.Config(
        application,
        host=given.host,
        port=given.port,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=FINISH_S,
        http=Protocol,
        ws="none",
        lifespan="off",
    )
    Server(config, state, given.drain_s).run(None if sock is None else [sock])
    state.pool.close()
    if state.log is not None:
        state.log.close()


def quicken(predictor: Predictor, lineage: Path) -> None:
    """Let a faster form answer, where the model's lineage says that it predicted the hold-out as the model does.

    MAINSPRING_ACCELERATE=Off keeps it from that. Where the form cannot be made here, the model itself answers.
    """
    name = faster.proven(lineage) if os.environ.get(faster.ACCELERATE) != "Off" else ""
    if not name:
        return
    try:
        form = predictor.faster()
    except faster.NoFasterForm as error:
        log.warning("%s was proven, but cannot be made here: %s; the model itself answers", name, error)
        return
    if form.name == name:
        predictor.form = form
    else:
        log.warning("%s was proven, %s is what is made here: the model itself answers", name, form.name)


def new_state(predictor: Predictor, digest: str, pool: Pool, shared: Shared | None = None) -> State:
    """Take who is served from the environment: MAINSPRING_MODEL, _REVISION, _VERSION, _COMMIT."""
    names = {k: os.environ.get(f"MAINSPRING_{k.upper()}", "") for k in ("model", "revision", "version", "commit")}
    identity = Identity(digest=digest, **names)
    metrics = Metrics({**names, "digest": digest}, predictor.columns or (), shared)
    pool.tell = metrics.stuck
    target = compare.target_of()
    comparer = Comparer(target, metrics, classes=predictor.classified) if target is not None else None
    return State(
        compare=comparer,
        predictor=predictor,
        identity=identity,
        pool=pool,
        metrics=metrics,
        engine=Engine(predictor, pool, predictor.kinds),
        since=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def sample_body(given: Path | None, model: Path) -> bytes | None:
    """Read the request to prove the model with: the file named, or `sample.json` beside or in the model.

    Raises:
        NotFound: SampleMissing: the file named cannot be read.
    """
    beside = model.parent / "sample.json"
    path = given or (beside if beside.is_file() else model / "sample.json")
    if given is None and not (path.is_file() and (path == beside or not (model / "MLmodel").exists())):
        return None
    try:
        with path.open("rb") as file:
            return file.read(SAMPLE_MAX_BYTES)
    except OSError as error:
        raise NotFound(
            f"the sample {path.name} cannot be read: {error.strerror}", reason="SampleMissing"
        ) from error


def prove(state: State, sample: bytes | None) -> None:
    """Make the first real prediction; only then is the server ready.

    A sample (or the example that MLflow keeps beside a model) also tells the kinds of the columns. Without one, a
    made-up row and a row of empty strings are tried; a model that takes neither stays unready and says why.
    """
    predictor, engine = state.predictor, state.engine
    body = sample or predictor.example
    if body is not None:
        try:
            frame = invocations.parse_json(body, predictor.columns, predictor.kinds)
            engine.kinds = {**invocations.kinds_of(frame), **predictor.kinds}
            engine.prove(frame)
            state.unready = ""
        except Exception as error:  # noqa: BLE001 - a model may raise anything; it is told and stays unready
            text = error.message if isinstance(error, BadRequest) else f"{type(error).__name__}: {error}"
            state.unready = f"the model does not predict its sample: {' '.join(text.split())[:300]}"
            log.error("%s", state.unready)
        return
    columns = predictor.columns or [str(n) for n in range(predictor.features or 1)]
    for row in (predictor.synthetic_row(), [""] * len(columns)):
        try:
            engine.prove(invocations.frame_of(columns, [row], predictor.columns, {}))
            state.unready = ""
            return
        except Exception as error:  # noqa: BLE001 - a model may raise anything; it is told and stays unready
            state.unready = (
                "there is no sample request, and the model predicts neither a row of zeros nor one of empty "
                f"strings ({type(error).__name__}): add sample.json with one row"
            )
    log.error("%s", state.unready)


if __name__ == "__main__":
    sys.exit(main())
