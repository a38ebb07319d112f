"""What must hold at every single write (S1 to S14), held against what the writer had read and what is true.

| Id | How it is checked here |
|---|---|
| S1 | servers and routes only for bytes that a valid ledger entry admitted, and whose gates truly hold |
| S2 | one chain; only what was admitted is promoted; status and alias name the chain's champion |
| S3 | one training of a model at a time; no attempt twice, none too many, none of what is measured |
| S4 | nothing but statuses, events and ends of runs for a model that is suspended, invalid or gone |
| S5 | a challenger's share only grows step by step, in time, on good answers; none after a rollback |
| S6 | no server is deleted that serves; requests only go to servers that are ready |
| S7 | Ready only when what Git asks for serves all requests; observedGeneration never goes back |
| S8 | planted tokens (passwords in addresses, bearer tokens) are in no status, event, tag, entry or artifact |
| S9 | writes stay in the model's namespace and below its owner; what is not ours is not deleted |
| S10 | run, version, digest, commit and alias of every entry and server name the same bytes |
| S12 | a ModelSpec is deleted only when the commit just read truly has it no more |
| S13 | approvals do not exist yet; their like is held: what was admitted or promoted is one digest, no other |
| S14 | events are the only notifications yet: two of one transition have one name |

S11 is about the log of predictions, which servers write and no controller: it is held where they are tested.
Where whole servers split the requests (`shared.py`), a share is a number of servers.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from controller.api.hashes import sha256
from controller.api.meta import (
    ANNOTATION_DIGEST,
    LABEL_MODEL,
    LABEL_REPOSITORY,
    LABEL_REVISION,
    Key,
    Manifest,
    key_of,
)
from controller.api.statements import LedgerEntry
from tests.simulation import truth
from tests.simulation.decided import is_of, status_of
from tests.simulation.outside import TOKENS
from tests.simulation.shared import Shared
from tests.simulation.truth import must, stake

if TYPE_CHECKING:
    from tests.simulation.arena import Arena
    from tests.simulation.seat import Seat

SPACING_S = 5.0
ADMIT = ("Admitted", "Promoted")


class Promises(Shared):
    """Holds the invariants; raises BrokenPromise."""

    def __init__(self, arena: Arena) -> None:
        super().__init__(arena)
        self.foreign: set[str] = set()
        """Objects that people made and that are nobody's."""
        self.generations: dict[str, int] = {}
        self.told: dict[tuple[str, ...], str] = {}

    # -- writes to the object store ----------------------------------------------------------------------------

    async def write(self, seat: Seat, verb: str, what: Any, status: Manifest | None) -> None:
        """Hold one write of a controller, before it is made."""
        self.held += 1
        key = what if isinstance(what, Key) else key_of(what)
        text = json.dumps(status if status is not None else str(what) if isinstance(what, Key) else what)
        must(not any(t in text for t in TOKENS), "S8", f"a secret is written into {key}")
        if verb == "patch_status":
            assert status is not None
            self._status(seat, key, status)
        elif key.kind == "Event":
            self._event(what)
        elif seat.key is not None and seat.key.kind == "ModelRepository":
            self._synced(seat, verb, key)
        else:
            await self._object(seat, verb, key, what)

    async def _object(self, seat: Seat, verb: str, key: Key, what: Any) -> None:
        assert seat.key is not None
        model = self.model(seat)
        must(key.namespace == seat.key.namespace, "S9", f"{key} is in another namespace")
        must(model, "S4", f"{verb} of {key}, whose ModelSpec is gone")
        must(not model["spec"].get("suspend"), "S4", f"{verb} of {key} while suspended")
        must("bad" not in model["spec"], "S4", f"{verb} of {key} for an invalid spec")
        if verb == "delete":
            self._delete(seat, key, model)
            return
        wanted = seat.seen.objects.get(seat.key) or {}
        owners = [o["uid"] for o in what["metadata"].get("ownerReferences", ())]
        # What has no owner at all is found when its model is deleted (L3).
        must(set(owners) <= {wanted["metadata"]["uid"]}, "S9", f"{key} is given to another owner")
        match key.kind:
            case "Job":
                self._job(seat, key, what, model)
            case "Deployment":
                self._servers(seat, key, what, model)
            case "HTTPRoute":
                self._route(seat, what, model)
            case _:
                pass  # Nothing beyond its owner is promised of the others.

    def _delete(self, seat: Seat, key: Key, model: Manifest) -> None:
        must(str(key) not in self.foreign, "S9", f"{key} was deleted and is not ours")
        stake(self.foreign, "S9", "something is deleted, and people have made its like")
        if key.kind != "Deployment":
            return
        stake(True, "S6", "servers are deleted")
        if self.arena.cast.by_servers:
            self.delete_servers(seat, key, model)
            return
        name = model["metadata"]["name"]
        route = truth.shares(seat.seen.one("HTTPRoute", key.namespace, name))
        share = route.get(key.name, 0)
        must(share == 0, "S6", f"{key.name} was deleted while it got {share}%")
        entries = self.chain(seat, model)
        serving = (
            truth.champion(entries) if entries is not None else status_of(model, "champion").get("revision", "")
        )
        must(entries is not None or serving, "S6", f"{key.name} was deleted while nobody knew who is champion")
        others = any(is_of(n, serving) and n != key.name for n in route)
        must(
            others or not is_of(key.name, serving),
            "S6",
            f"the champion's servers {key.name} were deleted, the route is {route}",
        )

    def _job(self, seat: Seat, key: Key, job: Manifest, model: Manifest) -> None:
        revision = job["metadata"]["labels"][LABEL_REVISION]
        name, namespace = model["metadata"]["name"], key.namespace
        jobs = [j for j in seat.seen.kind("Job", namespace) if j["metadata"]["labels"].get(LABEL_MODEL) == name]
        must(all(j["metadata"]["name"] != key.name for j in jobs), "S3", f"{key} was started twice")
        running = [j["metadata"]["name"] for j in jobs if not truth.ended(j)]
        must(not running, "S3", f"{key} was started while {running} ran")
        stake(jobs, "S3", "a Job is started after others")
        asked = (model.get("status") or {}).get("source", {}).get("wanted")
        must(asked == revision, "S4", f"{key} was started, and {asked} is asked for")
        own = [j for j in jobs if j["metadata"]["labels"].get(LABEL_REVISION) == revision]
        number = int(key.name.rpartition("-")[2])
        must(all(number > int(j["metadata"]["name"].rpartition("-")[2]) for j in own), "S3", f"{key} goes back")
        found = seat.seen.one("ModelRevision", namespace, revision)
        measured = "artifact" in (found.get("status") or {}) and "evidence" in (found.get("status") or {})
        must(
            measured == ("-evaluate-" in key.name),
            "S3",
            f"{key}, and its model is {(measured and 'there') or 'not'}",
        )
        if measured:
            self._measured_again(seat, job, own, model)
        if not own and not measured:
            self._not_known(seat, key, model, revision)
        if own and not measured:
            self._again(
                seat, key, model, found, max(own, key=lambda j: int(j["metadata"]["name"].rpartition("-")[2]))
            )

    def _measured_again(self, seat: Seat, job: Manifest, own: list[Manifest], model: Manifest) -> None:
        """Hold that one and the same measurement is not asked for without end."""
        asked, at = job["metadata"]["annotations"], truth.requested(model)
        done = 0
        for last in sorted(own, key=lambda j: -int(j["metadata"]["name"].rpartition("-")[2])):
            how = truth.ended(last)
            other = "-evaluate-" not in last["metadata"]["name"] or last["metadata"]["annotations"] != asked
            if other or how.get("reason") == "Evicted":
                break
            if at is not None and at > truth.when(last["status"].get("completionTime", "")):
                break
            done += 1
        limit = model["spec"]["training"].get("backoffLimit", 1)
        stake(done, "L4", "the same is measured once more")
        must(done <= limit, "L4", f"{job['metadata']['name']} measures what {done} measured before")

    def _not_known(self, seat: Seat, key: Key, model: Manifest, revision: str) -> None:
        """Hold that nothing is trained of which the ledger and the run still know how it came out."""
        for entry in reversed(self.chain(seat, model) or []):
            if entry.revision == revision and entry.report:
                kept = self.arena.registry.runs[entry.run].artifacts.get("mainspring/report.json", b"")
                must(sha256(kept) != entry.report, "S3", f"{key} was started, and run {entry.run} has its model")
                return

    def _again(self, seat: Seat, key: Key, model: Manifest, revision: Manifest, last: Manifest) -> None:
        """Hold a further attempt: not too many, not too soon, unless a person asked."""
        how, number = truth.ended(last), int(last["metadata"]["name"].rpartition("-")[2])
        if how.get("type") != "Failed" or how.get("reason") == "Evicted":
            return
        before = [a for a in (revision.get("status") or {}).get("attempts", []) if a["number"] != number]
        failed = 1 + sum(a["outcome"] == "Failed" for a in before)
        finished = truth.when(last["status"]["completionTime"])
        asked = truth.requested(model)
        if asked is not None and asked > finished:
            return
        limit = model["spec"]["training"].get("backoffLimit", 1)
        must(failed <= limit, "S3", f"{key} was started after {failed} failures of {limit + 1} attempts")
        waited = (self.arena.clock.now() - finished).total_seconds()
        must(waited >= SPACING_S * 2 ** (failed - 1), "L4", f"{key} was started {waited} s after a failure")

    def _servers(self, seat: Seat, key: Key, built: Manifest, model: Manifest) -> None:
        digest = built["metadata"]["annotations"][ANNOTATION_DIGEST]
        revision = built["metadata"]["labels"][LABEL_REVISION]
        entries, cached = self.chain(seat, model), status_of(model, "champion")
        given = {d for d in self.arena.made.get(revision, ()) if d != digest}
        stake(given, "S13", "servers of what was trained more than once")
        if entries is None:
            # While the ledger is away the status is believed, which names a challenger only once it is admitted.
            current = status_of(model, "challenger")
            coming = current.get("revision") == revision and current.get("stage") in ("Starting", "Canary")
            known = cached.get("digest") == digest or coming
        else:
            # Of what was promoted the admission may be lost.
            known = any(e.kind in ADMIT and (e.revision, e.digest) == (revision, digest) for e in entries)
            other = any(e.kind in ADMIT and e.revision == revision for e in entries)
            must(known or not other, "S13", f"servers of {revision} with other bytes than were admitted")
        must(known, "S1", f"servers of {revision} with bytes that nobody admitted")
        stake(not is_of(key.name, cached.get("revision", "")), "S1", "servers of one who is not champion")
        command = built["spec"]["template"]["spec"]["initContainers"][0]["command"]
        told = dict(pairwise(command))
        must(told["--digest"] == digest, "S10", f"{key} is to load other bytes than it says")
        if self.arena.cast.by_servers:
            self.count_servers(seat, key, built["spec"]["replicas"], model)
            return
        least = truth.least(model)
        stake(least > 1, "S6", "more than one server is asked for")
        must(built["spec"]["replicas"] >= least, "S6", f"{key} has {built['spec']['replicas']} of {least} servers")

    def _route(self, seat: Seat, route: Manifest, model: Manifest) -> None:
        namespace, shares = route["metadata"]["namespace"], truth.shares(route)
        must(sum(shares.values()) == 100 and len(shares) <= 2, "S5", f"a route of {shares}")
        for name, share in shares.items():
            found = seat.seen.one("Deployment", namespace, name)
            ready = (found.get("status") or {}).get("readyReplicas", 0) if found else 0
            must(ready > 0, "S6", f"{name} gets {share}% and has no ready server")
        entries = self.chain(seat, model)
        serving = (
            truth.champion(entries) if entries is not None else status_of(model, "champion").get("revision", "")
        )
        others = [n for n in shares if not is_of(n, serving)]
        must(
            len(others) < len(shares), "S1", f"the champion {serving or 'of nobody'} is not in the route {shares}"
        )
        stake(others, "S5", "a challenger gets a share")
        down = [d["metadata"]["name"] for d in seat.seen.kind("Deployment", namespace) if not truth.ready(d)]
        stake(down, "S6", "a route, and servers that are not ready")
        for name in others:
            self._challenger(seat, name, shares[name], model, entries)

    def _challenger(
        self, seat: Seat, name: str, share: int, model: Manifest, entries: list[LedgerEntry] | None
    ) -> None:
        """Hold the share of a challenger: admitted, not rolled back, and no further than its step allows."""
        revision, namespace = name.rpartition("-")[0], model["metadata"]["namespace"]
        current, previous = status_of(model, "challenger"), status_of(model, "previous")
        if entries is not None:
            digest = seat.seen.one("Deployment", namespace, name)["metadata"]["annotations"].get(ANNOTATION_DIGEST)
            known = any((e.kind, e.revision) == ("Admitted", revision) for e in entries)
            must(known, "S1", f"{revision} gets {share}% and was never admitted ({digest})")
            must(
                not truth.stands_back(entries, model, revision),
                "S5",
                f"{revision} gets {share}% after its rollback",
            )
        asked = model["metadata"].get("annotations", {}).get("mainspring.dev/requested-at", "")
        told = previous.get("revision") == revision and previous.get("verdict") == "RolledBack"
        fresh = asked != (model["status"].get("requestedAt") or "")
        must(not told or fresh, "S5", f"{revision} gets {share}% after its rollback")
        steps = truth.steps(model)
        must(share in steps, "S5", f"{revision} gets {share}%, the steps are {steps}")
        before = truth.shares(seat.seen.one("HTTPRoute", namespace, model["metadata"]["name"])).get(name, 0)
        at = current.get("weight", 0) if self.in_canary(current, revision) else 0
        if share <= max(before, at) or (at and at not in steps):
            return
        step = steps.index(share)
        must(step == (steps.index(at) + 1 if at else 0), "S5", f"{revision} jumps from {at}% to {share}%")
        if at:
            self.passed(seat, model, current, f"{revision} goes on to {share}%")

    # -- what is told ------------------------------------------------------------------------------------------

    def _status(self, seat: Seat, key: Key, status: Manifest) -> None:
        before = seat.seen.objects.get(key)
        must(before, "S9", f"a status for {key}, which was not read")
        assert before
        generation, observed = before["metadata"]["generation"], status["observedGeneration"]
        must(observed == generation, "S7", f"{key} observes {observed} of generation {generation}")
        if len(self.arena.seats) == 1 and not self.arena.cast.stale:
            last = self.generations.get(before["metadata"]["uid"], 0)
            must(observed >= last, "S7", f"{key}: observedGeneration goes back from {last} to {observed}")
            self.generations[before["metadata"]["uid"]] = observed
        stake(observed > 1, "S7", "a spec that was edited")
        true = {c["type"] for c in status["conditions"] if c["status"] == "True"}
        ready: Manifest = next((c for c in status["conditions"] if c["type"] == "Ready"), {})
        must(len(true & {"Ready", "Reconciling", "Stalled"}) <= 1, "S7", f"{key} is {sorted(true)} at once")
        must(ready.get("reason") != "InternalError", "S7", f"{key}: {ready.get('message')}")
        for said in status["conditions"]:
            must(
                len(said["message"]) <= 1024 and "\n" not in said["message"],
                "S7",
                f"{key}: {said['message'][:80]}",
            )
        if key.kind == "ModelRevision" and "Stalled" in true and ready.get("reason") == "TrainingFailed":
            model = seat.seen.one("ModelSpec", key.namespace, before["spec"]["model"])
            limit = model["spec"]["training"].get("backoffLimit", 1) if model else 0
            failed = sum(a["outcome"] == "Failed" for a in status["attempts"])
            must(failed > limit, "S3", f"{key} is given up after {failed} failures of {limit + 1} attempts")
        if key.kind == "ModelSpec" and "bad" not in before["spec"]:
            self._model_status(seat, before, status, "Ready" in true)

    def _model_status(self, seat: Seat, model: Manifest, status: Manifest, ready: bool) -> None:
        served, challenger = status.get("champion") or {}, status.get("challenger") or {}
        entries, name = self.chain(seat, model), model["metadata"]["name"]
        if entries is not None:
            # What this very round appended is not in it yet.
            must(served.get("revision", "") == truth.champion(entries), "S2", f"{name}: status names {served}")
        else:
            # Who serves is not forgotten because nobody can be asked.
            before = status_of(model, "champion")
            kept = (served.get("revision"), served.get("digest")) == (before.get("revision"), before.get("digest"))
            must(kept, "S2", f"{name}: status names {served}, the one before {before}, and the ledger is away")
        same = challenger.get("revision") == served.get("revision")
        must(not served or not same, "S2", f"{name}: {served.get('revision')} is champion and challenger")
        self._given_back(seat, model, status)
        if not ready:
            return
        namespace = model["metadata"]["namespace"]
        was = truth.condition(model, "Ready").get("status")
        stake(was != "True", "S7", "it becomes Ready")
        route = self.spread(seat, model)
        full = [n for n, share in route.items() if share == 100 and is_of(n, served["revision"])]
        must(full, "S7", f"{name} is Ready, and its route is {route}")
        servers = seat.seen.one("Deployment", namespace, full[0])
        up = (servers.get("status") or {}).get("readyReplicas", 0) if servers else 0
        must(up > 0, "S7", f"{name} is Ready without a ready server")
        must(not model["spec"].get("suspend"), "S7", f"{name} is Ready while suspended")
        must(seat.seen.heads, "S7", f"{name} is Ready, and Git was not asked")
        tree = self.arena.git.tree(seat.seen.heads[-1].commit)
        wanted = tuple(tree.get(p, b"") for p in ("quality", "train.py", "data.csv"))
        must(
            self.arena.origin[served["digest"]] == wanted,
            "S7",
            f"{name} is Ready, and Git asks for something else",
        )

    def _given_back(self, seat: Seat, model: Manifest, status: Manifest) -> None:
        """Hold that what is said to be rolled back gets no request any more, where the champion can take them."""
        said = truth.condition({"status": status}, "Ready")
        back, serving = status.get("previous") or {}, (status.get("champion") or {}).get("revision", "")
        present = self.servers(seat, model)
        up = any(truth.ready(d) for n, d in present.items() if is_of(n, serving))
        if said.get("reason") != "RolledBack" or not up:
            return
        stake(True, "S5", "it is said that a challenger was rolled back")
        left = {n: s for n, s in self.spread_now(seat, model).items() if is_of(n, back.get("revision", ""))}
        must(not left, "S5", f"{back.get('revision')} was rolled back and still gets {left}")

    def _event(self, event: Manifest) -> None:
        about, name = event["involvedObject"], event["metadata"]["name"]
        key = (about["uid"], event["reason"], event["message"], event["firstTimestamp"])
        stake(key in self.told, "S14", "a transition is told once more")
        must(self.told.setdefault(key, name) == name, "S14", f"one transition is told twice: {event['message']}")

    def _synced(self, seat: Seat, verb: str, key: Key) -> None:
        """Hold what a ModelRepository does to ModelSpecs."""
        assert seat.key is not None
        must(key.namespace == seat.key.namespace, "S9", f"{key} is in another namespace")
        owner = seat.seen.objects.get(seat.key) or {}
        must(not owner["spec"].get("suspend"), "S4", f"{verb} of {key} while the repository is suspended")
        must(str(key) not in self.foreign, "S9", f"{verb} of {key}, which is not the repository's")
        if verb != "delete":
            return
        own = (seat.seen.objects.get(key) or {}).get("metadata", {}).get("labels", {}).get(LABEL_REPOSITORY)
        must(own == seat.key.name, "S9", f"{key} was deleted and belongs to {own or 'no repository'}")
        stake(True, "S12", "a ModelSpec is deleted")
        must(seat.seen.heads, "S12", f"{key} was deleted, and Git was not asked")
        tree = self.arena.git.tree(seat.seen.heads[-1].commit)
        files = {p: text for p, text in tree.items() if p.startswith("models/")}
        must(f"models/{key.name}.yaml" not in files, "S12", f"{key} was deleted, and Git has it")
        unread = [p for p, text in files.items() if b"mainspring.dev" in text and b"name:" not in text]
        must(not unread, "S12", f"{key} was deleted, and {unread} could not be read")
