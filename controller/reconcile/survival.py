"""Reads what outlives the object store: what the ledger and the runs know of revisions whose objects are gone.

Nothing of it is believed for where it lies: an entry counts by its signature, a report by the digest that the
entry names, a revision's spec by the hash of its inputs, which is its name.
"""

from __future__ import annotations

from collections.abc import Collection

from pydantic import ValidationError

from controller.api.hashes import sha256
from controller.api.kinds import ModelRevision, ModelSpec
from controller.api.modelrevision import ModelRevisionSpec
from controller.api.reports import REPORT_MAX_BYTES, Report
from controller.api.statements import LedgerEntry
from controller.clients.errors import ClientError, Denied, NotFound
from controller.plan.ledger import Ledger
from controller.plan.naming import revision_name
from controller.plan.pinning import inputs_of
from controller.plan.revision import environment_of, is_measured, registry_name
from controller.plan.verdict import Refused, Unknown
from controller.reconcile.world import World

REVISION_FILE = "mainspring/revision.json"
"""Where a run keeps the spec of the revision that it trained."""
SPEC_MAX_BYTES = 262_144

Kept = Report | Unknown | Refused | None


async def known(world: World, model: ModelSpec | None, revision: ModelRevision) -> tuple[LedgerEntry | None, Kept]:
    """Say what is known of a revision that has neither Job nor evidence here.

    Returns:
        The newest ledger entry that names its report, and that report; (None, None) when it was never judged, and
        (None, Unknown) while nobody can tell: then nothing may be trained yet.
    """
    if model is None or is_measured(revision.status):
        return None, None
    environment = environment_of(model)
    ledger = await world.ledger.read(registry_name(model), environment)
    if isinstance(ledger, Unknown):
        return None, ledger
    name = revision.metadata.name
    entry = next((e for e in reversed(ledger.entries) if e.revision == name and e.report), None)
    if entry is None:
        return None, None
    return entry, await _report(world, entry)


async def _report(world: World, entry: LedgerEntry) -> Report | Unknown | Refused:
    try:
        data = await world.registry.read_artifact(entry.run, "mainspring/report.json", REPORT_MAX_BYTES)
    except (NotFound, Denied) as error:
        if error.reason == "RegistryDenied" or error.reason.startswith("Secret"):
            # Who may not read it learns nothing of it, and must not train again for that.
            return Unknown(error.reason, error.message)
        return Refused(error.reason, error.message)
    except ClientError as error:
        return Unknown(error.reason, error.message)
    if sha256(data) != entry.report:
        message = (
            f"the report in run {entry.run} has digest {sha256(data)[:19]}, the ledger says {entry.report[:19]}"
        )
        return Refused("ReportInvalid", message)
    try:
        report = Report.model_validate_json(data)
    except ValidationError:
        return Refused("ReportInvalid", f"the report in run {entry.run} cannot be read")
    if report.artifact.digest != entry.digest:
        message = f"the report in run {entry.run} speaks of another artifact than the ledger"
        return Refused("ReportInvalid", message)
    return report


async def lost_champion(
    world: World, model: ModelSpec, ledger: Ledger | Unknown, present: Collection[str]
) -> ModelRevisionSpec | None:
    """Read the champion's revision from its run, where its object is gone; None when it is not, or cannot be."""
    if isinstance(ledger, Unknown) or ledger.champion is None or not ledger.champion.champion:
        return None
    name = ledger.champion.champion
    entry = ledger.newest(name)
    if name in present or entry is None:
        return None
    try:
        data = await world.registry.read_artifact(entry.run, REVISION_FILE, SPEC_MAX_BYTES)
        spec = ModelRevisionSpec.model_validate_json(data)
    except (ClientError, ValidationError):
        # Serving does not depend on it: the ledger's entry has all that servers need.
        return None
    inputs = inputs_of(spec)
    genuine = spec.inputs == inputs and revision_name(model.metadata.name, inputs) == name
    return spec if genuine else None
