"""What an explanation says about each kind.

From the screen of a ModelSpec a reader must be able to tell what is served, from which commit, on which data, and
why it was let through.  Pure: facts in, lines out.
"""

from __future__ import annotations

from collections.abc import Sequence

from controller.api.kinds import ModelOverride, ModelRepository, ModelRevision, ModelSpec, parse
from controller.api.meta import ANNOTATION_SOURCE_FILE, LABEL_REPOSITORY
from controller.api.modelrevision import Evidence
from controller.api.modelstatus import ServedRevision
from controller.cli import explain_canary, explain_override
from controller.cli import explain_text as text
from controller.cli.explain_next import next_command
from controller.cli.explain_text import Facts
from controller.cli.output import age, aligned


def lines(facts: Facts) -> list[str]:
    """Explain an object of any of our kinds."""
    parsed = parse(facts.manifest)
    if isinstance(parsed, ModelSpec):
        body = _model(facts, parsed)
    elif isinstance(parsed, ModelRevision):
        body = _revision(facts, parsed)
    elif isinstance(parsed, ModelRepository):
        body = _repository(facts, parsed)
    elif isinstance(parsed, ModelOverride):
        body = explain_override.order(facts, parsed)
    else:
        meta = facts.manifest["metadata"]
        body = [f"{facts.manifest['kind']} {meta['name']}: not valid", *(f"  {error}" for error in parsed)]
    return [*body, *text.log_lines(facts), *text.events(facts), "", f"Next: {next_command(facts)}"]


def _model(facts: Facts, model: ModelSpec) -> list[str]:
    status = model.status
    out = text.head(facts, status.conditions)
    out += text.section("Asked", _asked(model))
    if status.champion is not None:
        out += text.section("Served", _served(facts, model, status.champion))
    elif status.conditions:
        out += ["", "Served", "  nothing yet"]
    out += explain_override.of_model(facts, status)
    challenger = status.challenger
    if challenger is not None:
        steps = len(model.spec.serving.canary.step_weights)
        step = f", step {challenger.step + 1} of {steps}" if challenger.stage == "Canary" else ""
        weight = f"{challenger.weight}% of the requests{step}" if challenger.stage == "Canary" else ""
        pairs = [("revision", challenger.revision), ("stage", challenger.stage), ("weight", weight)]
        out += text.section("On its way", [*pairs, ("since", challenger.since or challenger.started_at)])
    out += explain_canary.lines(status.analysis)
    before, judged = status.previous, status.judgement
    refused = before.revision if before is not None and before.verdict == "Rejected" else None
    shown_above = judged is not None and judged.revision == refused
    elsewhere = ("GatesPassed",) if status.judgement is not None else ()
    out += text.to_know(status.conditions, but=(*elsewhere, "Overridden"))
    if judged is not None:
        title = f"Gates over {judged.revision}: {judged.outcome}{', admitted' if judged.admitted else ''}"
        out += text.verdicts(title, judged.verdicts)
    if before is not None and not shown_above:
        out += text.section("Ended last", [(before.revision, f"{before.verdict}: {before.reason}")])
    if status.ledger is not None and status.ledger.ignored:
        out += ["", f"{status.ledger.ignored} ledger entries do not count; mainspring history says which and why."]
    return out


def _asked(model: ModelSpec) -> list[tuple[str, str]]:
    source, status = model.spec.source, model.status.source
    meta = model.metadata
    owner = meta.labels.get(LABEL_REPOSITORY, "")
    file = meta.annotations.get(ANNOTATION_SOURCE_FILE, "")
    return [
        ("source", f"{source.url}, {source.ref}"),
        ("commit", f"{status.commit} {status.subject}" if status else ""),
        ("author", status.author if status else ""),
        ("revision", status.wanted if status else ""),
        ("managed by", f"modelrepository/{owner}, {file}" if owner else ""),
        ("suspended", "yes: nothing is decided" if model.spec.suspend else ""),
    ]


def _served(facts: Facts, model: ModelSpec, champion: ServedRevision) -> list[tuple[str, str]]:
    revision = facts.revisions.get(champion.revision)
    since = f", since {champion.since} ({age(champion.since, facts.now)})" if champion.since else ""
    version = f", version {champion.version}" if champion.version else ""
    passed = champion.gates.replace("/", " of ")
    let = f"{passed} gates passed" if champion.gates else ""
    evidence = revision.status.evidence if revision is not None else None
    return [
        ("revision", f"{champion.revision}{version}, {champion.weight}% of the requests{since}"),
        ("commit", champion.commit),
        *(("data", f"{d.name} {d.digest}") for d in champion.data),
        ("trained", f"because of {champion.trigger}" if champion.trigger else ""),
        ("let through", f"{let}: {_measured(model, evidence)}" if let and evidence else let),
        ("artifact", champion.digest),
        ("evidence", champion.evidence),
        ("url", model.status.url),
    ]


def _measured(model: ModelSpec, evidence: Evidence) -> str:
    """Say the numbers that the gates ask for in one line, each with the champion's of then."""
    asked = {g.metric for g in model.spec.gates}
    numbers = []
    for metric in evidence.metrics:
        if metric.value is not None and metric.name in asked:
            against = f" (champion then {metric.champion:.4g})" if metric.champion is not None else ""
            numbers.append(f"{metric.name} {metric.value:.4g}{against}")
    return f"{', '.join(numbers) or 'measured'} on {evidence.holdout_rows:,} hold-out rows"


def _revision(facts: Facts, revision: ModelRevision) -> list[str]:
    spec, status = revision.spec, revision.status
    out = text.head(facts, status.conditions)
    out += text.section(
        "Made from",
        [
            ("model", f"modelspec/{spec.model}"),
            ("commit", f"{spec.source.commit} of {spec.source.url}"),
            ("author", spec.trigger.author),
            ("because of", spec.trigger.message),
            *(("data", f"{d.name} {d.digest}") for d in spec.data),
            ("command", " ".join(spec.training.command)),
            ("params", ", ".join(f"{k}={v}" for k, v in spec.training.params.items())),
            ("seed", str(spec.training.seed)),
            ("inputs", spec.inputs),
        ],
    )
    artifact = status.artifact
    if artifact is not None:
        size = f"{artifact.format}, {artifact.size_bytes:,} bytes, {artifact.digest}"
        out += text.section(
            "Made", [("version", status.version), ("run", status.run), ("artifact", size), ("where", artifact.uri)]
        )
    out += _evidence(status.evidence)
    if status.attempts:
        rows = [(str(a.number), a.outcome, a.reason, a.message) for a in status.attempts]
        out += ["", "Attempts", *aligned(("NO", "OUTCOME", "REASON", "MESSAGE"), rows, indent="  ")]
    return out + text.to_know(status.conditions)


def _evidence(evidence: Evidence | None) -> list[str]:
    if evidence is None:
        return []
    rows = []
    for metric in evidence.metrics:
        value = metric.note if metric.value is None else f"{metric.value:.6g}"
        rows.append((metric.name, value, "" if metric.champion is None else f"{metric.champion:.6g}"))
    title = f"Measured on {evidence.holdout_rows:,} hold-out rows, {evidence.training_rows:,} training rows"
    out = ["", title, *aligned(("METRIC", "VALUE", "CHAMPION"), rows, indent="  ")]
    out += _parts(evidence)
    if evidence.checks:
        checks = [(c.name, c.outcome, c.message) for c in evidence.checks]
        out += ["", "Data checks", *aligned(("CHECK", "OUTCOME", "MESSAGE"), checks, indent="  ")]
    return out


def _parts(evidence: Evidence) -> list[str]:
    """Write the tables by slice and by group, and what scanners found."""
    out: list[str] = []
    for table in evidence.slices:
        rows = [
            (s.value or "(missing)", f"{s.rows:,}", text.number(s.metric, s.note), text.number(s.champion))
            for s in table.table
        ]
        out += _table(
            f"{table.metric} by {table.column}", ("SLICE", "ROWS", "VALUE", "CHAMPION"), rows, table.note
        )
    for group in evidence.groups:
        counts = [
            (g.value or "(missing)", f"{g.rows:,}", f"{g.positive:,}", f"{g.selected:,}", f"{g.true_positive:,}")
            for g in group.table
        ]
        heads = ("GROUP", "ROWS", "POSITIVE", "CALLED POSITIVE", "BOTH")
        out += _table(f"Groups by {group.column}", heads, counts, group.note)
    for scan in evidence.scans:
        found = ", ".join(f"{n:,} {word}" for word, n in scan.counts.items()) or "none at all"
        out += ["", f"Findings in {scan.path}: {scan.note or f'{found} ({scan.format}, {scan.sha256})'}"]
    return out


def _table(title: str, heads: tuple[str, ...], rows: Sequence[tuple[str, ...]], note: str) -> list[str]:
    return ["", f"{title}: {note}"] if note else ["", title, *aligned(heads, rows, indent="  ")]


def _repository(facts: Facts, repository: ModelRepository) -> list[str]:
    spec, status = repository.spec, repository.status
    out = text.head(facts, status.conditions)
    out += text.section(
        "Synced",
        [
            ("source", f"{spec.url}, {spec.ref}, path {spec.path}"),
            ("revision", f"{status.revision} {status.subject}".strip()),
            ("author", status.author),
        ],
    )
    if status.objects:
        rows = [(f"{o.kind.lower()}/{o.name}", o.file) for o in status.objects]
        out += ["", "Objects", *aligned(("OBJECT", "FILE"), rows, indent="  ")]
    if status.problems:
        found = [f"  {p.file}:{_separated(p.message)} ({p.severity})" for p in status.problems]
        out += ["", "Files that were not applied", *found]
    return out + text.to_know(status.conditions)


def _separated(message: str) -> str:
    """Join a position to its file as compilers do; a message without one gets a space."""
    return message if message[:1].isdigit() else f" {message}"
