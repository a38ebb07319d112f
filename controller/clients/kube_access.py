"""What people need of a cluster beside objects: logs of pods, their rights, the server itself, a model's Service.

Reads, asks and forwards one request; changes nothing.  Everything raises the four errors of `errors`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx

from controller.api.meta import Manifest
from controller.clients.errors import NotFound
from controller.clients.kube_errors import Act, failure
from controller.clients.kube_kinds import Resource, resource_of
from controller.clients.kube_rest import REFUSAL_MAX_BYTES, KubeRest

LOG_MAX_BYTES: Final = 1_048_576
"""Most of a log that is read."""
_REVIEW: Final = Resource("SelfSubjectAccessReview", "authorization.k8s.io/v1", "selfsubjectaccessreviews")
_SELF: Final = Resource("SelfSubjectReview", "authentication.k8s.io/v1", "selfsubjectreviews")
_CRD: Final = Resource("CustomResourceDefinition", "apiextensions.k8s.io/v1", "customresourcedefinitions")
_SERVER: Final = Resource("Version", "v1", "version")


@dataclass(frozen=True, slots=True)
class Right:
    """One thing that RBAC may grant: a verb on a resource, `pods/log` with its subresource."""

    verb: str
    group: str
    resource: str

    def __str__(self) -> str:
        """Write it as `kubectl auth can-i` takes it: `create jobs.batch`."""
        plural, slash, sub = self.resource.partition("/")
        return f"{self.verb} {plural}{'.' + self.group if self.group else ''}{slash}{sub}"


@dataclass(frozen=True, slots=True)
class Server:
    """Which API server answers, and by how much its clock is ahead of ours."""

    version: str
    ahead_s: float | None
    """Seconds, precise to one; None when it does not say the time."""


async def may(rest: KubeRest, right: Right, namespace: str | None) -> bool:
    """Ask whether this user has a right in a namespace, or (None) in all of them."""
    plural, _, sub = right.resource.partition("/")
    asked = {"verb": right.verb, "group": right.group, "resource": plural, "subresource": sub}
    attributes = {name: value for name, value in asked.items() if value}
    if namespace is not None:
        attributes["namespace"] = namespace
    body = {
        "apiVersion": _REVIEW.api_version,
        "kind": _REVIEW.kind,
        "spec": {"resourceAttributes": attributes},
    }
    answer = await rest.call("POST", _REVIEW.path(), Act("create", _REVIEW), body=body)
    return bool((answer.get("status") or {}).get("allowed"))


async def whoami(rest: KubeRest) -> str:
    """Ask by which name the server knows this user."""
    body = {"apiVersion": _SELF.api_version, "kind": _SELF.kind}
    answer = await rest.call("POST", _SELF.path(), Act("create", _SELF), body=body)
    return str(((answer.get("status") or {}).get("userInfo") or {}).get("username") or "")


async def definition(rest: KubeRest, plural: str, group: str) -> Manifest | None:
    """Read a CustomResourceDefinition; None when it is not installed."""
    act = Act("get", _CRD, name=f"{plural}.{group}")
    try:
        return await rest.call("GET", _CRD.path(None, f"{plural}.{group}"), act)
    except NotFound:
        return None


async def server(rest: KubeRest) -> Server:
    """Ask the server for its version and the time."""
    before = datetime.now(UTC)
    headers, answer = await rest.exchange("GET", "/version", Act("get", _SERVER))
    between = before + (datetime.now(UTC) - before) / 2
    try:
        # The header has whole seconds, cut: half a second more is nearer to the truth.
        ahead: float | None = (parsedate_to_datetime(headers["date"]) - between).total_seconds() + 0.5
    except (KeyError, ValueError, TypeError):
        ahead = None
    return Server(str(answer.get("gitVersion") or "unknown"), ahead)


async def log_tail(rest: KubeRest, namespace: str, pod: str, container: str, lines: int) -> list[str]:
    """Read the last lines of a container's log.

    Raises:
        NotFound: the pod is gone.
        Denied: the container has not started, or the right `get pods/log` is missing.
        Unavailable: no answer, also of the node that has the log.
    """
    resource = resource_of("Pod")
    params = {"container": container, "tailLines": str(lines), "limitBytes": str(LOG_MAX_BYTES)}
    act = Act("get", resource, namespace, pod, "log")
    answer = await rest.raw("GET", resource.path(namespace, pod, "log"), act, params=params)
    if not answer.is_success:
        raise failure(act, answer.status_code, answer.headers, answer.content[:REFUSAL_MAX_BYTES])
    return answer.content.decode("utf-8", "replace").splitlines()


async def through_service(
    rest: KubeRest, namespace: str, service: str, port: str, path: str, body: bytes, media: str
) -> httpx.Response:
    """Send a request to a Service through the API server, for who stands outside the cluster's network.

    Raises:
        NotFound, Denied, Unavailable: the API server refuses; what the server behind it says is returned.
    """
    resource = resource_of("Service")
    where = resource.path(namespace, f"{service}:{port}", f"proxy/{path.lstrip('/')}").replace("%3A", ":")
    act = Act("create", resource, namespace, service, "proxy")
    answer = await rest.raw("POST", where, act, content=body, media=media)
    if not answer.is_success and b'"kind":"Status"' in answer.content[:200]:
        raise failure(act, answer.status_code, answer.headers, answer.content[:REFUSAL_MAX_BYTES])
    return answer
