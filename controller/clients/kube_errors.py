"""What an API server's refusals mean: its status codes and reasons as our four errors.

Each message is one line and names what was tried, on what, and what to do; the server's own words pass through the
redactor.  Nothing here retries: whoever called decides.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from controller.clients.errors import ClientError, Conflict, Denied, NotFound, Unavailable
from controller.clients.kube_kinds import Resource
from controller.clients.redact import redact

WORDS_MAX: Final = 1_000
"""Most characters of a server's own words in a message."""
KIND_MISSING: Final = "KindNotInstalled"
"""Reason of NotFound when the server does not know the kind at all."""
EXPIRED: Final = "Expired"
"""Reason of Conflict when a list or watch was older than what the server keeps."""
RETRY_AFTER_MAX_S: Final = 300.0

_BUSY: Final = frozenset({408, 429, 500, 502, 503, 504})
_RBAC = re.compile(r"cannot ([a-z]+) resource \"([^\"]+)\"")
_PREFIX = re.compile(r"^[\w.]+ \"[^\"]{0,253}\" is invalid: ")
"""What the server says before the field, and we have said already."""
_USER = re.compile(r"User \"([^\"]{1,200})\"")


@dataclass(frozen=True, slots=True)
class Act:
    """What is tried: for messages, and for the RBAC right that it needs."""

    verb: str
    """RBAC verb: get, list, watch, create, patch, delete."""
    resource: Resource
    namespace: str | None = None
    name: str | None = None
    sub: str = ""
    """Subresource, such as `status`."""

    def __str__(self) -> str:
        """Write the object as people type it, `Job/default/train`, or the kind and where."""
        if self.name is not None:
            return f"{self.resource.kind}/{self.namespace}/{self.name}"
        return f"{self.resource.kind} in {_where(self.namespace)}"


def failure(act: Act, code: int, headers: Mapping[str, str], body: bytes) -> ClientError:
    """Translate an answer that is no success."""
    status = _status(body)
    reason, said = str(status.get("reason") or ""), _words(status, body)
    if code == 404:
        return _missing(act, status)
    if code == 401:
        return Denied(
            f"the API server does not accept the credentials ({said or 'Unauthorized'}): log in again, or check "
            "the user of the kubeconfig's context",
            reason="Unauthorized",
        )
    if code == 403:
        return _forbidden(act, status, said)
    if code == 409:
        return Conflict(f"{act}: {said}; read it again", reason=reason or None)
    if code == 410:
        return Conflict(f"{act}: what was read is no longer kept by the API server; read it again", reason=EXPIRED)
    if code == 422 and "metadata.uid: Invalid value" in said:
        return Conflict(f"{act}: another object has its name now ({said}); read it again")
    if code in (400, 413, 422):
        said = _PREFIX.sub("", said)
        return Denied(f"{act} is invalid: {said}", reason="Invalid")
    if code == 500 and "field not declared in schema" in said:
        # The answer to an apply of a field that the schema lacks; no waiting brings it.
        return Denied(
            f"{act}: {said}; the installed schema of {act.resource.spoken} is older than this program: install "
            "the CRDs of this version",
            reason="Invalid",
        )
    if code in _BUSY:
        return _busy(act, code, headers, said)
    if 400 <= code < 500:
        return Denied(f"{act}: the API server refuses to {act.verb} it ({code}): {said}", reason=reason or None)
    return Unavailable(f"{act}: the API server answers {code}, which says nothing: {said}")


def _missing(act: Act, status: Mapping[str, Any]) -> NotFound:
    resource, details = act.resource, status.get("details")
    found = details if isinstance(details, dict) else {}
    named = bool(found.get("name"))
    if named and found.get("kind") == "namespaces":
        return NotFound(f"{act}: namespace {act.namespace} does not exist; create it first")
    if named:
        return NotFound(f"{act} does not exist; it may have been deleted meanwhile")
    how = "it with helm upgrade --install mainspring" if resource.group == "mainspring.dev" else "its CRDs"
    return NotFound(
        f"the API server does not know {resource.kind} ({resource.api_version}); install {how}",
        reason=KIND_MISSING,
    )


def _forbidden(act: Act, status: Mapping[str, Any], said: str) -> Denied:
    """Name the right that is missing; other refusals with 403 (quota, admission) speak for themselves."""
    right = _RBAC.search(said)
    if right is None and "cannot" not in said:
        details = status.get("details")
        causes = details.get("causes") or () if isinstance(details, dict) else ()
        terminating = any(isinstance(c, dict) and c.get("reason") == "NamespaceTerminating" for c in causes)
        reason = (
            "NamespaceTerminating" if terminating else "QuotaExceeded" if "exceeded quota" in said else "Forbidden"
        )
        return Denied(f"{act}: the API server refuses to {act.verb} it: {said}", reason=reason)
    user = _USER.search(said)
    verb = right[1] if right else act.verb
    plural = right[2] if right else act.resource.plural + (f"/{act.sub}" if act.sub else "")
    who = user[1] if user else "this user"
    return Denied(
        f"{who} may not {verb} {act}: a Role or ClusterRole must grant it verb {verb} on resource {plural} of "
        f'API group "{act.resource.group}" in {_where(act.namespace)}',
        reason="Forbidden",
    )


def _busy(act: Act, code: int, headers: Mapping[str, str], said: str) -> Unavailable:
    what = "is too busy" if code == 429 else f"answers {code}"
    error = Unavailable(f"{act}: the API server {what}: {said}; it will be tried again")
    try:
        error.retry_after_s = min(max(float(headers.get("retry-after", "")), 0.0), RETRY_AFTER_MAX_S)
    except ValueError:
        error.retry_after_s = None
    return error


def _status(body: bytes) -> dict[str, Any]:
    """Read a `Status` object; empty when the answer is none (a proxy's page, say)."""
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) and value.get("kind") == "Status" else {}


def _words(status: Mapping[str, Any], body: bytes) -> str:
    text = str(status.get("message") or "") or body[:4096].decode("utf-8", "replace")
    return redact(" ".join(text.split()), limit=WORDS_MAX) or "no message"


def _where(namespace: str | None) -> str:
    return f"namespace {namespace}" if namespace is not None else "all namespaces"
