"""The control plane that other tests stand on is a real one: it validates, its controllers act, it can go away."""

from __future__ import annotations

import httpx
import pytest

from tests.cluster.build import KUBERNETES
from tests.cluster.processes import wait_until


def test_it_is_the_kubernetes_that_was_pinned(control_plane):
    assert control_plane.request("GET", "/version")["gitVersion"] == f"v{KUBERNETES}"


def test_it_knows_our_kinds_and_routes_and_lists_them_at_once(control_plane):
    groups = control_plane.request("GET", "/apis")["groups"]
    assert {"mainspring.dev", "gateway.networking.k8s.io"} <= {group["name"] for group in groups}
    ours = control_plane.request("GET", "/apis/mainspring.dev/v1alpha1/modelspecs")
    assert ours["kind"] == "ModelSpecList"
    assert control_plane.request("GET", "/apis/gateway.networking.k8s.io/v1/httproutes")["kind"] == "HTTPRouteList"


def test_its_controllers_make_pods_for_a_job(control_plane, namespace):
    container = {"name": "main", "image": "registry.example/none"}
    control_plane.request(
        "POST",
        f"/apis/batch/v1/namespaces/{namespace}/jobs",
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "work"},
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
        },
    )
    pods = f"/api/v1/namespaces/{namespace}/pods"
    wait_until(lambda: control_plane.request("GET", pods)["items"], "waiting for the Job's pod", 60)


def test_it_tells_what_it_refuses(control_plane, namespace):
    wrong = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "Not A Name"}}
    with pytest.raises(httpx.HTTPStatusError, match="a lowercase RFC 1123 subdomain must consist of"):
        control_plane.request("POST", f"/api/v1/namespaces/{namespace}/configmaps", wrong)


def test_it_writes_down_every_request(control_plane, namespace):
    control_plane.request("GET", f"/api/v1/namespaces/{namespace}/secrets")

    def seen():
        return [
            event
            for event in control_plane.audited()
            if event["verb"] == "list" and event["objectRef"].get("namespace") == namespace
            if event["objectRef"]["resource"] == "secrets" and event["user"]["username"] == "admin"
        ]

    wait_until(seen, "waiting for the audit log", 30)


def test_it_goes_away_and_comes_back_with_what_it_knew(control_plane, namespace):
    control_plane.stop_api()
    with pytest.raises(httpx.TransportError):
        control_plane.request("GET", "/version")
    control_plane.start_api()
    assert control_plane.request("GET", f"/api/v1/namespaces/{namespace}")["status"]["phase"] == "Active"
