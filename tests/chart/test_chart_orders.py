"""Orders of people on a real API server: who may give them, under whose name, and that they never change."""

from __future__ import annotations

import secrets

import httpx
import pytest

from controller.api.meta import API_VERSION
from controller.api.validation import object_problems
from tests.cluster.namespaces import bind, made
from tests.support.helm import Release
from tests.support.operator_process import wait_until

SPEC = {
    "modelRef": {"name": "bikes"},
    "action": "Rollback",
    "to": "bikes-0123456789",
    "digest": f"sha256:{'a' * 64}",
    "actor": "approver",
    "reason": "recall in DE fell",
    "expiresAt": "2026-03-02T12:00:00Z",
}


def body(**changes):
    """Build an order; `name` names the object, the rest replaces fields of its spec, None leaves them out."""
    name = changes.pop("name", f"o-{secrets.token_hex(4)}")
    spec = {k: v for k, v in {**SPEC, **changes}.items() if v is not None}
    return {"apiVersion": API_VERSION, "kind": "ModelOverride", "metadata": {"name": name}, "spec": spec}


class Place:
    """A namespace with the chart in it, and people who ask the API server under their own names."""

    def __init__(self, plane, name):
        self.plane, self.name = plane, name
        self.path = f"/apis/{API_VERSION}/namespaces/{name}/modeloverrides"

    def ask(self, person, method, path, body=None):
        headers = {"Authorization": f"Bearer {self.plane.token}", "Impersonate-User": person}
        with httpx.Client(base_url=self.plane.url, verify=self.plane._trust(), trust_env=False) as client:
            return client.request(method, path, json=body, headers=headers)

    def order(self, person, **changes):
        """Create an order."""
        return self.ask(person, "POST", f"{self.path}?fieldValidation=Strict", body(**changes))


@pytest.fixture(scope="module")
def place(bare_plane):
    name = f"orders-{secrets.token_hex(4)}"
    made(bare_plane, name)
    Release(bare_plane, name).helm(
        "install", "--set", "trackingURI=http://mlflow.example.internal", "--set", "replicas=0"
    )
    for person, role in (("author", "edit"), ("approver", f"{name}-mainspring-approve")):
        bind(bare_plane, name, person, role)
    found = Place(bare_plane, name)
    # The policy is compiled a moment after it was written.
    wait_until(
        lambda: "spec.actor must be" in found.order("approver", actor="somebody else").text, "the policy holds"
    )
    return found


def test_who_may_approve_may_order_under_the_own_name(place):
    assert not list(object_problems(body()))
    answer = place.order("approver")
    assert answer.status_code == 201, answer.text


def test_an_order_in_the_name_of_another_is_refused(place):
    answer = place.order("approver", actor="jane")
    assert answer.status_code == 403
    assert "spec.actor must be approver, who writes it" in answer.json()["message"]


def test_who_only_edits_models_may_not_order(place):
    answer = place.order("author", actor="author")
    assert answer.status_code == 403
    assert 'cannot create resource "modeloverrides"' in answer.json()["message"]


def test_an_order_never_changes_and_may_be_ended(place):
    assert place.order("approver", name="fixed").status_code == 201
    patch = {"spec": {"expiresAt": "2026-03-09T12:00:00Z"}}
    as_admin, merge = place.plane.request, "application/merge-patch+json"
    with pytest.raises(httpx.HTTPStatusError, match="a ModelOverride never changes"):
        as_admin("PATCH", f"{place.path}/fixed", patch, kind=merge)
    assert place.ask("approver", "PATCH", f"{place.path}/fixed", patch).status_code == 403
    assert place.ask("author", "DELETE", f"{place.path}/fixed").status_code == 403
    assert place.ask("approver", "DELETE", f"{place.path}/fixed").status_code == 200


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"digest": None}, "spec.digest", id="exact bytes are named"),
        pytest.param({"to": None}, "spec.to", id="a revision is named"),
        pytest.param({"reason": "  "}, "must say why", id="a reason is given"),
        pytest.param({"action": "Restart"}, "spec.action", id="only three actions there are"),
        pytest.param({"expiresAt": "2026-13-02T12:00:00Z"}, "spec.expiresAt", id="a month that is none"),
        pytest.param({"expiresAt": "2026-03-02T12:00:00+01:00"}, "spec.expiresAt", id="a time of another zone"),
        pytest.param({"expiresAt": "4h"}, "spec.expiresAt", id="a span is no time"),
        pytest.param({"name": "Upper"}, "metadata.name", id="a name with capitals"),
        pytest.param({"untill": "x"}, "untill", id="a field that is not there"),
    ],
)
def test_an_order_that_says_too_little_is_refused_by_the_server_and_by_validate(place, changes, says):
    assert list(object_problems(body(**changes)))
    answer = place.order("approver", **changes)
    assert answer.status_code in (400, 422), answer.text
    assert says in answer.json()["message"]
