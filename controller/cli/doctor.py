"""`mainspring doctor`: is everything there that Mainspring needs, and what to do where it is not.

Only looks: at the API server and its clock, the CRDs, rights, the operator's Lease, the Git repositories of the
ModelSpecs and MLflow.  What cannot be looked at from here is said to be unknown, never to be right.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from controller.cli.errors import WRONG
from controller.cli.output import Form, say, say_json, table
from controller.cli.session import DEFAULT_STATE, NO_REGISTRY, Namespace, Session, State, run

if TYPE_CHECKING:
    from controller.api.modelspec import Ref
    from controller.cli.cluster import Cluster
    from controller.clients.kube_access import Right

SKEW_S: Final = 5.0
"""Most seconds between this clock and the API server's: a Lease of 15 s must not look expired."""
LEASE: Final = "mainspring"
REPOSITORIES: Final = 20
"""Most Git repositories that are looked at."""
GIT_S: Final = 20.0
SIGNS: Final = {True: "✓", False: "✗", None: "–"}

OWN: Final = ("modelspecs", "modelrevisions", "modelrepositories", "modeloverrides")
_WRITES: Final = ("get", "list", "watch", "create", "patch", "delete")
USER_RIGHTS: Final = (
    *((verb, "mainspring.dev", kind) for kind in OWN for verb in ("get", "list", "watch")),
    *(
        (verb, "mainspring.dev", kind)
        for kind in ("modelspecs", "modelrepositories")
        for verb in ("create", "patch")
    ),
    ("list", "", "pods"),
    ("get", "", "pods/log"),
    ("list", "", "events"),
)
"""What the verbs of the command line need: (verb, group, resource)."""
OPERATOR_RIGHTS: Final = (
    *((verb, "mainspring.dev", "modelspecs") for verb in _WRITES),
    *((verb, "mainspring.dev", "modelrevisions") for verb in ("get", "list", "watch", "create")),
    *((verb, "mainspring.dev", "modelrepositories") for verb in ("get", "list", "watch")),
    *((verb, "mainspring.dev", "modeloverrides") for verb in ("get", "list", "watch")),
    *(("patch", "mainspring.dev", f"{kind}/status") for kind in OWN),
    *((verb, "batch", "jobs") for verb in _WRITES if verb != "delete"),
    *((verb, "apps", "deployments") for verb in _WRITES),
    *((verb, "gateway.networking.k8s.io", "httproutes") for verb in _WRITES),
    *((verb, "", "services") for verb in _WRITES),
    *((verb, "", "configmaps") for verb in ("get", "create", "patch")),
    *((verb, "", "pods") for verb in ("list", "watch")),
    ("create", "", "events"),
    ("get", "", "secrets"),
    *((verb, "policy", "poddisruptionbudgets") for verb in _WRITES if verb != "delete"),
    *((verb, "autoscaling", "horizontalpodautoscalers") for verb in _WRITES),
    *((verb, "coordination.k8s.io", "leases") for verb in ("get", "list", "watch", "create", "patch")),
)
"""What the operator needs in every namespace that it serves: what the chart grants."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `right` is None where it could not be."""

    right: bool | None
    what: str
    found: str
    todo: str = ""


def doctor_command(
    operator: Annotated[
        bool, typer.Option("--operator", help="Check the operator's rights instead of a user's, with its login.")
    ] = False,
    output: Annotated[Form, typer.Option("--output", "-o", help="Form of the answer.")] = Form.TEXT,
    namespace: Namespace = "default",
    state: State = DEFAULT_STATE,
) -> None:
    """Check what Mainspring needs, and say what to do."""

    async def work(session: Session) -> list[Finding]:
        from controller.cli.cluster import Cluster

        found: list[Finding] = []
        if isinstance(session, Cluster):
            found += await cluster_findings(session, namespace, operator=operator)
        if all(f.right is not False or f.what != "API server" for f in found):
            found += await git_findings(session, namespace)
            found.append(await mlflow_finding(session))
        return found

    found = run(state, work)
    if output is Form.JSON:
        say_json([{"ok": f.right, "check": f.what, "found": f.found, "do": f.todo} for f in found])
    else:
        table(("", "CHECK", "FOUND"), [[SIGNS[f.right], f.what, f.found] for f in found])
        todo: dict[str, list[str]] = {}
        for f in found:
            if f.todo:
                todo.setdefault(f.todo, []).append(f.what)
        say(*(line for text, what in todo.items() for line in ("", f"{', '.join(what)}:", f"  {text}")))
        wrong = sum(f.right is False for f in found)
        say("", f"{wrong} of {len(found)} checks failed" if wrong else "nothing is wrong")
    if any(f.right is False for f in found):
        raise typer.Exit(WRONG)


async def cluster_findings(cluster: Cluster, namespace: str, *, operator: bool) -> list[Finding]:
    """Look at the API server, its clock, the CRDs, rights and the Lease; only the first if it does not answer."""
    from controller.clients.errors import ClientError
    from controller.clients.kube_access import Right, server

    rest = cluster.store.rest
    try:
        there = await server(rest)
        url = (await rest.access()).url
    except ClientError as error:
        todo = "check the address, the network and the login: kubectl version must answer too"
        return [Finding(False, "API server", error.message, todo)]
    found = [Finding(True, "API server", f"Kubernetes {there.version} at {url}"), clock_finding(there.ahead_s)]
    found += await crd_findings(cluster)
    table = OPERATOR_RIGHTS if operator else USER_RIGHTS
    who = "the operator" if operator else "you"
    found.append(await rights_finding(cluster, [Right(*row) for row in table], namespace, who))
    found.append(await lease_finding(cluster, datetime.now(UTC) + timedelta(seconds=there.ahead_s or 0.0)))
    return found


def clock_finding(ahead_s: float | None) -> Finding:
    """Judge how far the two clocks are apart."""
    if ahead_s is None:
        return Finding(None, "clock", "the API server does not say the time")
    text = f"the API server is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine"
    if abs(ahead_s) <= SKEW_S:
        return Finding(True, "clock", f"within {SKEW_S:.0f} s of the API server")
    return Finding(False, "clock", text, "set both clocks by NTP; Leases and times of conditions are compared")


async def crd_findings(cluster: Cluster) -> list[Finding]:
    """Compare every CRD with the kinds of this version."""
    from controller.api.crd import crd
    from controller.api.kinds import KINDS
    from controller.api.meta import GROUP, VERSION
    from controller.clients.errors import ClientError
    from controller.clients.kube_access import definition

    found = []
    install = "helm upgrade --install mainspring, or kubectl apply --server-side -f crds/"
    for kind in KINDS.values():
        name = f"CRD {kind.plural}"
        try:
            installed = await definition(cluster.store.rest, kind.plural, GROUP)
        except ClientError as error:
            found.append(Finding(None, name, error.message))
            continue
        if installed is None:
            found.append(Finding(False, name, "not installed", install))
            continue
        versions = {v["name"]: v for v in installed["spec"]["versions"]}
        (wanted,) = crd(kind.name)["spec"]["versions"]
        if VERSION not in versions:
            found.append(Finding(False, name, f"serves {', '.join(versions)}, not {VERSION}", install))
        elif versions[VERSION]["schema"] != wanted["schema"]:
            text = "another version of Mainspring installed it: its fields differ from this one's"
            found.append(Finding(False, name, text, install))
        else:
            found.append(Finding(True, name, f"{VERSION}, as this version has it"))
    return found


async def rights_finding(cluster: Cluster, rights: Sequence[Right], namespace: str, who: str) -> Finding:
    """Ask the API server for every right; names those that are missing."""
    from controller.clients.errors import ClientError
    from controller.clients.kube_access import may

    what = f"rights of {who}"
    try:
        allowed = await asyncio.gather(*(may(cluster.store.rest, right, namespace) for right in rights))
    except ClientError as error:
        return Finding(None, what, error.message)
    missing = [str(right) for right, granted in zip(rights, allowed, strict=True) if not granted]
    if not missing:
        return Finding(True, what, f"all {len(rights)} in namespace {namespace}")
    first = missing[0].split(" ")
    todo = f"grant them by a Role; kubectl auth can-i {first[0]} {first[1]} -n {namespace} shows one"
    return Finding(False, what, f"missing in namespace {namespace}: {', '.join(missing)}", todo)


async def lease_finding(cluster: Cluster, now: datetime) -> Finding:
    """Look whether an operator holds its Lease."""
    from controller.clients.errors import ClientError

    try:
        leases = [m for m in await cluster.store.list("Lease") if m["metadata"]["name"] == LEASE]
    except ClientError as error:
        return Finding(None, "operator", error.message)
    if not leases:
        todo = "install it: helm upgrade --install mainspring; kubectl get deployments -A shows whether it runs"
        return Finding(False, "operator", f"no Lease {LEASE} in any namespace: no operator has ever run", todo)
    for lease in leases:
        holder, fresh = holding(lease, now)
        if fresh:
            return Finding(
                True, "operator", f"{holder} holds the Lease in namespace {lease['metadata']['namespace']}"
            )
    last = max(leases, key=lambda lease: str((lease.get("spec") or {}).get("renewTime") or ""))
    where = last["metadata"]["namespace"]
    holder = holding(last, now)[0] or "nobody"
    todo = f"kubectl -n {where} get pods, then kubectl -n {where} logs deployment/mainspring"
    return Finding(False, "operator", f"the Lease in namespace {where} has expired; {holder} held it last", todo)


def holding(lease: dict[str, Any], now: datetime) -> tuple[str, bool]:
    """Say who holds a Lease, and whether it is still held."""
    spec = lease.get("spec") or {}
    holder = str(spec.get("holderIdentity") or "")
    try:
        renewed = datetime.fromisoformat(str(spec.get("renewTime")))
    except ValueError:
        return holder, False
    return holder, bool(holder) and now < renewed + timedelta(seconds=int(spec.get("leaseDurationSeconds") or 15))


async def git_findings(session: Session, namespace: str) -> list[Finding]:
    """Ask every repository of the ModelSpecs for its ref, from this machine."""
    from controller.api.kinds import ModelSpec, parse
    from controller.clients.errors import ClientError
    from controller.clients.git_types import GitRef

    try:
        manifests = await session.store.list("ModelSpec", namespace=namespace)
    except ClientError as error:
        return [Finding(None, "Git", error.message)]
    sources: dict[str, Ref] = {}
    for manifest in manifests:
        parsed = parse(manifest)
        if isinstance(parsed, ModelSpec):
            sources.setdefault(parsed.spec.source.url, parsed.spec.source.ref)
    if not sources:
        return [Finding(None, "Git", f"no ModelSpec in namespace {namespace} names a repository")]
    git, found = (await session.world()).git, []
    for url, ref in list(sources.items())[:REPOSITORIES]:
        try:
            head = await git.resolve(
                url, GitRef(**ref.model_dump(exclude_none=True)), max_age_s=0.0, timeout_s=GIT_S
            )
            found.append(Finding(True, f"Git {url}", f"answers, at {head.commit[:7]}"))
        except ClientError as error:
            todo = "git ls-remote must work with the same address; the operator's own Secret is not used here"
            found.append(Finding(False, f"Git {url}", error.message, todo))
    return found


async def mlflow_finding(session: Session) -> Finding:
    """Ask MLflow whether it answers."""
    from controller.clients.errors import ClientError
    from controller.clients.redact import redact
    from controller.clients.registry import Registry

    uri = os.environ.get("MLFLOW_TRACKING_URI") or (await session.world()).settings.tracking_uri
    if not uri or uri == NO_REGISTRY:
        return Finding(None, "MLflow", "unknown: set MLFLOW_TRACKING_URI to its address to have it checked")
    registry = Registry(uri)
    try:
        await registry.ping()
    except ClientError as error:
        todo = "is it running, and is the address reachable from here? Decisions wait, servers go on answering"
        return Finding(False, "MLflow", error.message, todo)
    finally:
        await registry.aclose()
    return Finding(True, "MLflow", f"{redact(uri, limit=200)} answers")
