"""The roles that the chart brings: who reads, who writes, who approves, by Kubernetes' own judgement."""

from __future__ import annotations

import secrets

import pytest

from tests.cluster.namespaces import bind, made
from tests.support.helm import Release
from tests.support.operator_process import wait_until

KINDS = ("modelspecs", "modelrevisions", "modelrepositories", "modeloverrides")
READ = {("get", kind) for kind in KINDS}
WRITE = {(verb, kind) for kind in ("modelspecs", "modelrepositories") for verb in ("create", "patch", "delete")}
NEVER = {(verb, "modelrevisions") for verb in ("create", "patch", "delete")}
NEVER |= {("patch", f"{kind}/status") for kind in KINDS} | {("patch", "modeloverrides")}
APPROVE = {("approve", "modelspecs"), ("create", "modeloverrides"), ("delete", "modeloverrides")}


@pytest.fixture(scope="module")
def place(bare_plane):
    name = f"roles-{secrets.token_hex(4)}"
    made(bare_plane, name)
    Release(bare_plane, name).helm("install", "--set", "trackingURI=http://mlflow.example.internal")
    for person, role in (
        ("reader", "view"),
        ("author", "edit"),
        ("head", "admin"),
        ("approver", f"{name}-mainspring-approve"),
    ):
        bind(bare_plane, name, person, role)
    # Kubernetes' own roles take ours in a moment later.
    wait_until(lambda: may(bare_plane, name, "head", "delete", "modelspecs"), "the roles are aggregated")
    return name


def may(plane, namespace, person, verb, resource):
    """Ask the API server whether somebody has a right."""
    plural, _, sub = resource.partition("/")
    asked = {
        "namespace": namespace,
        "verb": verb,
        "group": "mainspring.dev",
        "resource": plural,
        "subresource": sub,
    }
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": person, "resourceAttributes": asked},
    }
    return plane.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body)["status"]["allowed"]


@pytest.mark.parametrize(
    ("person", "wanted"),
    [
        ("reader", READ),
        ("author", READ | WRITE),
        ("head", READ | WRITE),
        ("approver", READ | APPROVE),
        ("stranger", set()),
    ],
)
def test_a_person_may_do_exactly_what_the_role_says(bare_plane, place, person, wanted):
    everything = READ | WRITE | NEVER | APPROVE
    assert {right for right in everything if may(bare_plane, place, person, *right)} == wanted
    assert not any(may(bare_plane, "default", person, *right) for right in everything), "in another namespace"
