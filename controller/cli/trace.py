"""`mainspring trace`: the chain from a running server back to code and data, and forth, from any link of it.

commit → data → revision → run → version → artifact → servers → requests.  Each link is compared with the next by
digest, and what does not fit is said.  Reads the store and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from controller.cli.errors import USAGE, WRONG, Failure
from controller.cli.output import Form, aligned, say, say_json
from controller.cli.session import DEFAULT_STATE, Namespace, Session, State, run
from controller.cli.target import find, parse_kind

if TYPE_CHECKING:
    from controller.api.kinds import ModelRevision
    from controller.api.meta import Manifest
    from controller.reconcile.kube import Kube

OTHERS: Final = ("deployment", "job", "pod", "run", "commit")
"""Links of the chain that are none of our kinds."""


@dataclass(slots=True)
class Chain:
    """The links of one revision, in order, and what does not fit together."""

    revision: str
    links: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def trace_command(
    target: Annotated[
        str,
        typer.Argument(
            metavar="KIND/NAME",
            help="modelspec, modelrevision, deployment, job, pod, run or commit, and its name.",
        ),
    ],
    output: Annotated[Form, typer.Option("--output", "-o", help="Form of the answer.")] = Form.TEXT,
    namespace: Namespace = "default",
    state: State = DEFAULT_STATE,
) -> None:
    """Follow one model from commit and data to its servers, and back."""

    async def work(session: Session) -> list[Chain]:
        revisions = await meant(session.store, target, namespace)
        return [await chain_of(session.store, r) for r in revisions]

    found = run(state, work)
    if output is Form.JSON:
        say_json([_as_json(c) for c in found])
    else:
        for number, chain in enumerate(found):
            say(*([""] if number else []), *lines(chain))
    if any(c.problems for c in found):
        raise typer.Exit(WRONG)


def lines(chain: Chain) -> list[str]:
    """Write one chain."""
    out = [f"Trace of modelrevision/{chain.revision}", *aligned((), chain.links, indent="  ")]
    fits = ["  every digest fits the next link"] if not chain.problems else []
    return [*out, *fits, *(f"  DOES NOT FIT: {p}" for p in chain.problems)]


async def meant(store: Kube, text: str, namespace: str) -> list[ModelRevision]:
    """Find the revisions that a link belongs to: of a ModelSpec, what serves and what is on its way.

    Raises:
        Failure: there is none.
    """
    from controller.api.kinds import ModelSpec, parse
    from controller.api.meta import LABEL_REVISION, Key
    from controller.cli.revisions import all_revisions, by_name_or_commit

    kind, slash, name = text.partition("/")
    word = kind.lower()
    if not slash or (word not in OTHERS and parse_kind(kind) == "ModelRepository"):
        raise Failure(f"write KIND/NAME: modelspec, modelrevision, {', '.join(OTHERS)}", code=USAGE)
    there = {r.metadata.name: r for r in await all_revisions(store, namespace)}
    if word == "commit":
        return [await by_name_or_commit(store, name, namespace)]
    if word == "run":
        hits = [r for r in there.values() if r.status.run == name]
        if not hits:
            raise Failure(f"no revision in namespace {namespace} is of run {name}")
        return hits
    if word in OTHERS:
        manifest = await store.get(Key(word.capitalize(), namespace, name))
        label = ((manifest or {}).get("metadata", {}).get("labels") or {}).get(LABEL_REVISION, "")
        if label not in there:
            raise Failure(f"{word}/{name} in namespace {namespace} is not there or of no known revision")
        return [there[label]]
    manifest = await find(store, text, namespace)
    if manifest["kind"] == "ModelRevision":
        return [await by_name_or_commit(store, manifest["metadata"]["name"], namespace)]
    model = parse(manifest)
    if not isinstance(model, ModelSpec):
        raise Failure(f"{text} is not valid; mainspring explain {text} says why")
    status = model.status
    names = [s.revision for s in (status.champion, status.challenger) if s is not None]
    found = [there[n] for n in dict.fromkeys(names) if n in there]
    if not found:
        raise Failure(f"{text}: nothing serves yet and nothing is on its way")
    return found


async def chain_of(store: Kube, revision: ModelRevision) -> Chain:
    """Put the links together."""
    from controller.api.meta import LABEL_REVISION, Key

    spec, status, meta = revision.spec, revision.status, revision.metadata
    chain = Chain(meta.name)
    add = chain.links.append
    add(("commit", f"{spec.source.commit} of {spec.source.url}"))
    add(("author", spec.trigger.author))
    add(("files", spec.source.files))
    for data in spec.data:
        add((f"data {data.name}", f"{data.digest} {data.path or data.uri or ''}"))
    add(("revision", f"{meta.name}, inputs {spec.inputs}"))
    _check_name(chain, revision)
    own = {LABEL_REVISION: meta.name}
    for job in sorted(
        await store.list("Job", namespace=meta.namespace, labels=own), key=lambda j: str(j["metadata"]["name"])
    ):
        add(("job", f"{job['metadata']['name']}, {_ended(job)}"))
    if status.run:
        add(("run", f"mlflow:/{status.run}"))
    if status.version:
        add(("version", f"{status.version} of {spec.model}"))
    if status.artifact is not None:
        artifact = status.artifact
        add(("artifact", f"{artifact.digest}, {artifact.format}, {artifact.size_bytes:,} bytes"))
        if status.evidence is not None and status.evidence.artifact != artifact.digest:
            chain.problems.append(f"the evidence is of artifact {status.evidence.artifact}")
    if status.evidence is not None:
        evidence = status.evidence
        add(("evidence", f"{evidence.report}, hold-out {evidence.holdout}, {evidence.holdout_rows:,} rows"))
    route = await store.get(Key("HTTPRoute", meta.namespace, spec.model))
    for deployment in await store.list("Deployment", namespace=meta.namespace, labels=own):
        _server(chain, revision, deployment, route)
    if not any(name == "server" for name, _ in chain.links):
        add(("server", "none runs"))
    chain.links = [(n, v) for n, v in chain.links if v]
    return chain


def _check_name(chain: Chain, revision: ModelRevision) -> None:
    """Compare a revision with the hash of its own inputs."""
    from controller.plan import naming, pinning

    if revision.spec.inputs != pinning.inputs_of(revision.spec):
        chain.problems.append(
            f"its inputs have hash {pinning.inputs_of(revision.spec)}, not {revision.spec.inputs}"
        )
    elif naming.revision_name(revision.spec.model, revision.spec.inputs) != revision.metadata.name:
        chain.problems.append(f"the name {revision.metadata.name} is not that of its inputs")


def _server(chain: Chain, revision: ModelRevision, deployment: Manifest, route: Manifest | None) -> None:
    from controller.api.meta import ANNOTATION_DIGEST

    name, status = deployment["metadata"]["name"], deployment.get("status") or {}
    template = deployment["spec"]["template"]["metadata"]
    stated = (deployment["metadata"].get("annotations") or {}) | (template.get("annotations") or {})
    backends = route["spec"]["rules"][0]["backendRefs"] if route else []
    weight = next((b.get("weight", 0) for b in backends if b["name"] == name), 0)
    ready = f"{status.get('readyReplicas', 0)} of {deployment['spec'].get('replicas', 1)} servers ready"
    chain.links.append(("server", f"{name}, {ready}, {weight}% of the requests"))
    digest, artifact = stated.get(ANNOTATION_DIGEST, ""), revision.status.artifact
    if artifact is not None and digest != artifact.digest:
        chain.problems.append(f"{name} must load {digest or 'anything'}, and the artifact is {artifact.digest}")


def _ended(job: Manifest) -> str:
    conditions = (job.get("status") or {}).get("conditions", ())
    ended = next((c["type"] for c in conditions if c["status"] == "True"), "Running")
    return str(ended)


def _as_json(chain: Chain) -> dict[str, Any]:
    return {
        "revision": chain.revision,
        "links": [{"link": name, "value": value} for name, value in chain.links],
        "problems": chain.problems,
    }
