"""What is signed: the lineage of a model and the entries of the ledger, as bytes written in one way only.

Lineage is an in-toto Statement v1 whose predicate is SLSA provenance v1: the artifact is its subject; commit, data
and image are what it was made from.  A ledger entry is one decision about one revision.  Nothing here signs,
stores or reads a clock, and no secret ever belongs into either of the two: both are readable by everybody who may
read the registry.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from controller import __version__
from controller.api.base import Lenient, dump
from controller.api.conditions import bounded
from controller.api.hashes import canonical, sha256
from controller.api.kinds import ModelRevision, ModelSpec
from controller.api.modelrevision import Evidence, ModelRevisionSpec, PinnedData, PinnedSource
from controller.api.modelstatus import GateVerdict

LINEAGE_TYPE: Final = "application/vnd.in-toto+json"
"""Payload type of a signed lineage statement."""
LEDGER_TYPE: Final = "application/vnd.mainspring.ledger+json"
"""Payload type of a signed ledger entry."""
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "https://mainspring.dev/training/v1"
BUILDER: Final = "https://mainspring.dev/controller"
RECORD: Final = "mainspring_record"
"""Name of our part of the predicate; SLSA asks extensions to be called `<vendor>_<field>`."""

EntryKind = Literal["Admitted", "Rejected", "Promoted", "RolledBack"]
Hash = Annotated[str, Field(max_length=96, pattern=r"^([a-z0-9]+:[0-9a-f]{40,64})?$")]
"""A digest with its algorithm in front; empty for none."""
Word = Annotated[str, Field(max_length=256)]
Sentence = Annotated[str, Field(max_length=1024)]


class OverrideRecord(Lenient):
    """The order of a person that a decision obeyed; who ordered it is the entry's author."""

    name: Word
    """Name of the ModelOverride."""
    uid: Word
    """Its identity."""
    action: Word
    """Rollback, Promote or Abort."""
    expires_at: Annotated[str, Field(max_length=32)] = ""
    """When it ends, RFC 3339."""


class LedgerEntry(Lenient):
    """One decision about one revision; signed, and chained to the decision before it."""

    v: Literal[1] = 1
    """Version of the format."""
    name: Word
    """Name of the registered model."""
    environment: Word
    """Environment that the decision holds for."""
    seq: Annotated[int, Field(ge=1, le=999_999)]
    """Number in the chain, from 1."""
    prev: Hash = ""
    """sha256 of the payload of the entry before; empty for the first."""
    kind: EntryKind
    """Admitted or Rejected: the gates have judged. Promoted or RolledBack: the champion changed."""
    revision: Word
    """The revision that was decided about."""
    inputs: Word = ""
    """Its inputs hash."""
    digest: Word = ""
    """Digest of its artifact."""
    champion: Word = ""
    """The revision that is champion after this entry; empty for none."""
    champion_digest: Word = ""
    """Digest of the champion's artifact: the one it was compared with, or the one that serves now."""
    gate_hash: Word = ""
    """Hash of the gates that judged."""
    gates: Annotated[tuple[GateVerdict, ...], Field(max_length=128)] = ()
    """One verdict per gate."""
    evidence: Annotated[dict[str, float], Field(max_length=256)] = Field(default_factory=dict)
    """The numbers that decided, by name."""
    run: Word = ""
    """MLflow run that holds the artifact, the report and the revision."""
    report: Word = ""
    """sha256 of the full report that was judged."""
    runtime: Word = ""
    """Environment that the revision was measured in and is served in; part of its servers' name."""
    version: Word = ""
    """Version in the registry."""
    commit: Word = ""
    """Commit of the code."""
    author: Sentence = ""
    """Author of the commit, or who asked for the decision."""
    reason: Sentence = ""
    """Why, one sentence."""
    override: OverrideRecord | None = None
    """The order of a person that this entry obeys; absent where nobody ordered it."""
    at: Annotated[str, Field(max_length=32)]
    """When, RFC 3339. Orders nothing."""


def ledger_payload(entry: LedgerEntry) -> bytes:
    """Write an entry as the bytes that are signed; the same entry always gives the same bytes."""
    return canonical(dump(entry))


def parse_entry(payload: bytes) -> LedgerEntry:
    """Read an entry whose signature was verified.

    Raises:
        ValueError: not an entry of this version; one line that names the field.
    """
    try:
        return LedgerEntry.model_validate_json(payload)
    except ValidationError as e:
        first = e.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "entry"
        raise ValueError(bounded(f"not a ledger entry: {where}: {first['msg']}", 200)) from None


def chain_digest(payload: bytes) -> str:
    """Return what the next entry states as its `prev`: `sha256:<64 hex>`."""
    return sha256(payload)


def lineage_statement(revision: ModelRevision, *, entry: LedgerEntry, model: ModelSpec) -> dict[str, Any]:
    """Build the lineage of one trained model: which commit, data, settings and environment stand behind it.

    Args:
        revision: the inputs, the artifact, the attempts and the evidence. Its status must have an artifact.
        entry: the decision that is recorded beside it: verdicts, environment, run.
        model: the ModelSpec that asked for it.

    Returns:
        JSON, without absent values. `canonical` of it is what gets signed.
    """
    artifact = revision.status.artifact
    assert artifact is not None, f"{revision.metadata.name} has no artifact to make a statement about"
    name = revision.metadata.name
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": f"{name}/model", "uri": artifact.uri, "digest": _digests(artifact.digest)}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": _external(revision.spec),
                "internalParameters": {
                    "revision": name,
                    "model": f"{model.metadata.namespace}/{model.metadata.name}",
                    "inputs": revision.spec.inputs,
                    "files": revision.spec.source.files,
                },
                "resolvedDependencies": _dependencies(revision),
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"mainspring": __version__}},
                "metadata": _metadata(revision, entry),
            },
            RECORD: _record(revision, entry),
        },
    }


def _external(spec: ModelRevisionSpec) -> dict[str, Any]:
    """What the author chose: all of it is in the inputs hash, but for the commit."""
    training = dump(spec.training)
    return _present(
        {
            "source": {"url": spec.source.url, "commit": spec.source.commit, "paths": list(spec.source.paths)},
            "image": training.get("image"),
            "command": training["command"],
            "params": training.get("params", {}),
            "seed": training["seed"],
            "env": training.get("env", []),
            "columns": dump(spec.columns),
            "holdout": dump(spec.holdout),
        }
    )


def _metadata(revision: ModelRevision, entry: LedgerEntry) -> dict[str, Any]:
    done = next((a for a in reversed(revision.status.attempts) if a.outcome == "Succeeded"), None)
    return _present(
        {
            "invocationId": entry.run or revision.status.run,
            "startedOn": done.started_at if done else "",
            "finishedOn": done.finished_at if done else "",
        }
    )


def _record(revision: ModelRevision, entry: LedgerEntry) -> dict[str, Any]:
    evidence = revision.status.evidence
    return _present(
        {
            "outcome": entry.kind,
            "reason": entry.reason,
            "name": entry.name,
            "environment": entry.environment,
            "version": entry.version or revision.status.version,
            "trigger": dump(revision.spec.trigger),
            "gateHash": entry.gate_hash,
            "verdicts": [dump(v) for v in entry.gates],
            "evidence": _facts(evidence),
            "runtime": evidence.runtime if evidence else "",
        }
    )


def _facts(evidence: Evidence | None) -> dict[str, Any]:
    """Keep the values and who they were compared with; the quantiles stay in the report, named by its digest."""
    if evidence is None:
        return {}
    metrics = {
        m.name: _present({"value": m.value, "champion": m.champion, "note": m.note}) for m in evidence.metrics
    }
    return _present(
        {
            "report": evidence.report,
            "holdout": {"digest": evidence.holdout, "rows": evidence.holdout_rows},
            "trainingRows": evidence.training_rows,
            "champion": evidence.champion,
            "metrics": metrics,
            "checks": [dump(c) for c in evidence.checks],
            "form": dump(evidence.form) if evidence.form is not None else {},
        }
    )


def _dependencies(revision: ModelRevision) -> list[dict[str, Any]]:
    spec = revision.spec
    found: list[dict[str, Any]] = [
        {
            "name": "source",
            "uri": f"git+{spec.source.url}@{spec.source.commit}",
            "digest": {"gitCommit": spec.source.commit},
        }
    ]
    found += [
        {"name": f"data/{d.name}", "uri": _where(d, spec.source), "digest": _digests(d.digest)} for d in spec.data
    ]
    if spec.training.image:
        image = {"name": "image", "uri": f"oci://{spec.training.image}"}
        pinned = spec.training.image.partition("@")[2]
        found.append({**image, "digest": _digests(pinned)} if pinned else image)
    for step, ran in sorted(revision.status.images.items()):
        name, _, hexdigits = ran.rpartition("@sha256:")
        uri = name.removeprefix("docker-pullable://") or ran
        digest = {"digest": {"sha256": hexdigits}} if name else {}
        found.append({"name": f"image/{step}", "uri": f"oci://{uri}", **digest})
    return found


def _where(data: PinnedData, source: PinnedSource) -> str:
    return data.uri or f"git+{source.url}@{source.commit}#{data.path or data.name}"


def _digests(value: str) -> dict[str, str]:
    """Write `gitblob:<hex>` or `sha256:<hex>` as in-toto's DigestSet, whose keys are its own."""
    algorithm, _, hexdigits = value.rpartition(":")
    return {{"gitblob": "gitBlob"}.get(algorithm, algorithm or "sha256"): hexdigits}


def _present(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is absent or empty, so that a later optional field moves no byte of an older statement."""
    return {k: v for k, v in values.items() if v not in (None, "", {}, [], ())}
