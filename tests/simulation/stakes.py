"""What was at stake in a look: situations in which a controller that is wrong would break a promise.

Counted from what the look has read, after its end.  A promise that is held ten thousand times and never at stake
holds nothing; the walks print both numbers.  It never judges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller.api.meta import LABEL_MODEL, LABEL_REPOSITORY, LABEL_REVISION, Key, Manifest
from tests.simulation import truth
from tests.simulation.truth import stake

if TYPE_CHECKING:
    from tests.simulation.seat import Seat


def of_look(seat: Seat) -> None:
    """Note what was at stake in the look that has ended."""
    key = seat.key
    if key is None or key not in seat.seen.objects:
        return
    found = seat.seen.objects[key]
    if found is None:
        stake(True, "S4", "a look at what is gone")
        return
    if key.kind == "ModelRepository":
        _repository(seat, found)
    elif key.kind == "ModelRevision":
        _revision(seat, key, found)
    else:
        _model(seat, found)
    _secrets(seat)


def _model(seat: Seat, model: Manifest) -> None:
    status, arena = model.get("status") or {}, seat.arena
    served, current = status.get("champion") or {}, status.get("challenger") or {}
    moved = bool(arena.git.line) and arena.git.line[-1] != (status.get("source") or {}).get("commit")
    suspended = model["spec"].get("suspend")
    stake(suspended and (current or moved), "S4", "suspended, and there is something to do")
    stake("bad" in model["spec"] and (current or moved), "S4", "an invalid spec, and there is something to do")
    if suspended or "bad" in model["spec"]:
        return
    entries = arena.promises.chain(seat, model)
    blobs = seat.known.get((model["metadata"]["name"], truth.environment(model)))
    stake(entries is None and served, "S2", "the ledger is away, and somebody serves")
    stake(entries is not None and len(blobs or ()) > len(entries), "S2", "an entry that does not count")
    stake(len(arena.seats) > 1, "S2", "one of two controllers decides")
    if current.get("stage") == "Canary":
        answers = truth.live(model, seat.seen.counters, current)
        stake(True, "S5", f"a canary whose answers are: {answers}")
        stake(entries is None, "S5", "a canary, and the ledger is away")
    wanted = (status.get("source") or {}).get("wanted", "")
    stake(entries and truth.stands_back(entries, model, wanted), "S5", "what was rolled back is still asked for")
    previous = status.get("previous") or {}
    only_told = previous.get("verdict") == "RolledBack" and previous.get("revision") == wanted
    stake(
        only_told and entries is not None and not truth.stands_back(entries, model, wanted),
        "S5",
        "of a rollback only the status knows",
    )
    foreign = arena.promises.foreign
    stake(any(str(k) in foreign for k, m in seat.seen.objects.items() if m), "S9", "people have made its like")


def _revision(seat: Seat, key: Key, revision: Manifest) -> None:
    model = seat.seen.one("ModelSpec", key.namespace, revision["spec"]["model"])
    if not model:
        stake(True, "S4", "a revision whose ModelSpec is gone")
        return
    status = revision.get("status") or {}
    wanted = ((model.get("status") or {}).get("source") or {}).get("wanted") == key.name
    measured = "artifact" in status
    stake(wanted and not measured and model["spec"].get("suspend"), "S4", "a training waits while suspended")
    stake(not wanted and not measured, "S4", "a revision that nobody asks for any more")
    jobs = [j for j in seat.seen.kind("Job", key.namespace) if j["metadata"]["labels"].get(LABEL_MODEL)]
    others = [j for j in jobs if j["metadata"]["labels"].get(LABEL_REVISION) != key.name and not truth.ended(j)]
    stake(wanted and not measured and others, "S3", "another revision trains")
    failed = sum(a["outcome"] == "Failed" for a in status.get("attempts", ()))
    limit = model["spec"]["training"].get("backoffLimit", 1)
    stake(failed > limit, "S3", "as many attempts failed as may")
    stake(0 < failed <= limit and not measured, "L4", "an attempt failed, and another is due")
    entries = seat.arena.promises.chain(seat, model) or []
    stake(not measured and any(e.revision == key.name for e in entries), "S3", "the ledger knows what is not here")


def _repository(seat: Seat, repository: Manifest) -> None:
    mine = [
        m
        for m in seat.seen.kind("ModelSpec", repository["metadata"]["namespace"])
        if m["metadata"].get("labels", {}).get(LABEL_REPOSITORY) == repository["metadata"]["name"]
    ]
    if not mine:
        return
    stake(not seat.seen.heads, "S12", "Git is away, and there is something to prune")
    if seat.seen.heads:
        tree = seat.arena.git.tree(seat.seen.heads[-1].commit)
        files = {p: text for p, text in tree.items() if p.startswith("models/")}
        unread = any(b"mainspring.dev" in text and b"name:" not in text for text in files.values())
        stake(unread, "S12", "a file cannot be read, and there is something to prune")
        gone = [m for m in mine if f"models/{m['metadata']['name']}.yaml" not in files]
        stake(gone, "S12", "a file is gone")
    foreign = seat.arena.promises.foreign
    stake(any(k.startswith("ModelSpec/") for k in foreign), "S9", "a ModelSpec of a person's beside Git's")


def _secrets(seat: Seat) -> None:
    """Note that something outside has told a secret."""
    for found in seat.seen.objects.values():
        status = (found or {}).get("status") or {}
        if found is None or not status:
            continue
        if found["kind"] == "Deployment" and status.get("conditions"):
            stake(True, "S8", "servers tell a secret")
        elif found["kind"] == "Pod" and any(
            (s.get("state", {}).get("terminated") or {}).get("exitCode")
            for s in status.get("initContainerStatuses", ())
        ):
            stake(True, "S8", "a training tells a secret")
    stake(seat.arena.git.down, "S8", "Git's error tells where it is")
