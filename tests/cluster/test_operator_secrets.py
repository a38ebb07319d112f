"""The operator and credentials on a real API server: of repositories, its own, and all namespaces at once."""

from __future__ import annotations

import base64
import json
import secrets

import httpx
import pytest

from controller.api.meta import API_VERSION, Key
from controller.clients.errors import ClientError
from tests.support.git_repos import GitServer, Scratch
from tests.support.operator_process import OperatorProcess, ready, wait_until, with_client
from tests.support.plain_server import fresh_namespace, http

OLD, NEW = "0ldPassw0rd77", "n3wPassw0rd77"


@pytest.fixture
def plane(control_plane):
    return control_plane


@pytest.fixture
def place(plane):
    return fresh_namespace(plane)


@pytest.fixture
def start(tmp_path, plane, place):
    """Start an operator; it ends with the test."""
    started = []

    def one(name, kubeconfig=None, **settings):
        given = {
            "NAMESPACES": place,
            "LEASE_NAMESPACE": place,
            "ALLOWED_HOSTS": "127.0.0.1",
            "GIT_PROTOCOLS": "http",
        }
        started.append(OperatorProcess(tmp_path, kubeconfig or plane.kubeconfig, name, **{**given, **settings}))
        return started[-1]

    yield one
    for process in started:
        process.__exit__()


@pytest.fixture
def git(tmp_path):
    Scratch.create(tmp_path / "git" / "models.git").commit({"readme.txt": b"nothing of ours"})
    with GitServer(tmp_path / "git", user="robot", password=OLD) as server:
        yield server


def repository(place, url, name="models", **more):
    spec = {"url": url, "ref": {"branch": "main"}, "interval": "1s", "timeout": "10s", **more}
    meta = {"name": name, "namespace": place}
    return {"apiVersion": API_VERSION, "kind": "ModelRepository", "metadata": meta, "spec": spec}


def put_secret(plane, place, name, labels=None, **data):
    """Write a Secret as a person does."""
    values = {k: base64.b64encode(v.encode()).decode() for k, v in data.items()}
    meta = {"name": name, "namespace": place, "labels": labels or {}}
    manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": values}
    return plane.apply(manifest, f"/api/v1/namespaces/{place}/secrets")


def create(plane, manifest):
    return with_client(plane.kubeconfig, lambda kube: kube.create(manifest))


def said(plane, place, name="models"):
    return ready(plane.kubeconfig, Key("ModelRepository", place, name))


def until_it_says(plane, place, reason, words="", name="models"):
    """Wait for Ready with this reason and return its message."""

    def found():
        condition = said(plane, place, name)
        return condition if condition.get("reason") == reason and words in condition["message"] else None

    return wait_until(found, f"{reason} {words}: {said(plane, place, name)}", within_s=60)["message"]


def test_a_private_repository_from_the_missing_secret_to_the_renewed_one(plane, place, start, git):
    operator = start("one")
    create(plane, repository(place, git.url("models.git"), secretRef={"name": "robot"}))
    assert f"is not in namespace {place}" in until_it_says(plane, place, "SecretNotFound")
    put_secret(plane, place, "robot", username="robot", password="wr0ngPassw0rd")
    message = until_it_says(plane, place, "SecretNotUsable")
    assert git.seen == [], "a Secret that admits nobody is not used"
    assert f"kubectl label secret robot -n {place} mainspring.dev/usable-by=models" in message
    label = {"mainspring.dev/usable-by": "models"}
    put_secret(plane, place, "robot", label, username="robot", password="wr0ngPassw0rd")
    assert "check the Secret named by secretRef" in until_it_says(plane, place, "AuthenticationFailed")
    put_secret(plane, place, "robot", label, username="robot", password=OLD)
    wait_until(lambda: said(plane, place).get("status") == "True", "the repository is Ready", within_s=60)
    git.expected = "Basic " + base64.b64encode(f"robot:{NEW}".encode()).decode()
    until_it_says(plane, place, "AuthenticationFailed")
    put_secret(plane, place, "robot", label, username="robot", password=NEW)
    wait_until(lambda: said(plane, place).get("status") == "True", "the new password is used", within_s=60)
    shown = operator.said() + operator.ask("/metrics").text
    for plural in ("events", "configmaps"):
        shown += json.dumps(plane.request("GET", f"/api/v1/namespaces/{place}/{plural}"))
    shown += json.dumps(plane.request("GET", f"/apis/{API_VERSION}/namespaces/{place}/modelrepositories"))
    for password in (OLD, NEW, "wr0ngPassw0rd"):
        assert password not in shown
        assert base64.b64encode(f"robot:{password}".encode()).decode() not in shown
    asked = [e for e in plane.audited() if (e.get("objectRef") or {}).get("resource") == "secrets"]
    mine = {
        e["verb"] for e in asked if e["objectRef"].get("namespace") == place and "mainspring" in e["userAgent"]
    }
    assert mine == {"get"}, "Secrets are neither listed nor watched"


def test_all_namespaces_at_once_each_with_its_own_secrets(plane, place, start, git):
    other = fresh_namespace(plane)
    start("wide", NAMESPACES="*")
    label = {"mainspring.dev/usable-by": "Any"}
    put_secret(plane, place, "robot", label, username="robot", password=OLD)
    for namespace in (place, other):
        create(plane, repository(namespace, git.url("models.git"), secretRef={"name": "robot"}))
    wait_until(lambda: said(plane, place).get("status") == "True", "the one with the Secret is Ready", within_s=60)
    assert f"is not in namespace {other}" in until_it_says(plane, other, "SecretNotFound")
    third = fresh_namespace(plane)
    put_secret(plane, third, "robot", label, username="robot", password=OLD)
    create(plane, repository(third, git.url("models.git"), secretRef={"name": "robot"}))
    wait_until(lambda: said(plane, third).get("status") == "True", "a namespace made later works too", within_s=60)


# -- the operator's own token ----------------------------------------------------------------------------------


class Robot:
    """A service account whose tokens end with the Secrets that they are bound to."""

    def __init__(self, plane, place, directory):
        self.plane, self.place = plane, place
        self.name = f"robot-{secrets.token_hex(4)}"
        self.file = directory / f"{self.name}.token"
        meta = {"name": self.name, "namespace": place}
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}
        plane.request("POST", f"/api/v1/namespaces/{place}/serviceaccounts", account)
        group = "rbac.authorization.k8s.io"
        binding = {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": self.name},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": self.name, "namespace": place}],
        }
        plane.request("POST", f"/apis/{group}/v1/clusterrolebindings", binding)
        self.kubeconfig = directory / f"{self.name}.kubeconfig"
        config = json.loads(plane.kubeconfig.read_text())
        config["users"] = [{"name": "admin", "user": {"tokenFile": str(self.file)}}]
        self.kubeconfig.write_text(json.dumps(config))

    def issue(self, bound):
        """Write a new token into the file, as the kubelet does."""
        made = put_secret(self.plane, self.place, bound)
        where = f"/api/v1/namespaces/{self.place}/serviceaccounts/{self.name}/token"
        meta = made["metadata"]
        reference = {"apiVersion": "v1", "kind": "Secret", "name": bound, "uid": meta["uid"]}
        asked = {"spec": {"boundObjectRef": reference, "expirationSeconds": 3600}}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", **asked}
        token = self.plane.request("POST", where, body)["status"]["token"]
        self.file.write_text(token)
        return token

    def revoke(self, bound, token):
        """End a token, and wait until the server knows."""
        self.plane.request("DELETE", f"/api/v1/namespaces/{self.place}/secrets/{bound}")

        def refused():
            with http(self.plane) as client:
                answer = client.get("/api/v1/namespaces", headers={"Authorization": f"Bearer {token}"})
            return answer.status_code == httpx.codes.UNAUTHORIZED

        wait_until(refused, "the server refuses the old token", within_s=60)


def test_a_client_whose_token_ended_reads_its_file_again_and_goes_on(plane, place, tmp_path):
    from controller.clients.kube import KubeClient

    robot = Robot(plane, place, tmp_path)
    token = robot.issue("first")
    key = Key("ConfigMap", place, "kube-root-ca.crt")

    async def story():
        client = KubeClient.connect(robot.kubeconfig)
        try:
            await client.list("ConfigMap", namespace=place)
            robot.issue("second")
            robot.revoke("first", token)
            await client.list("ConfigMap", namespace=place)
            meta = {"name": "written", "namespace": place}
            await client.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})
            # A token that ended with no new one in the file is a refusal, not an endless try.
            robot.revoke("second", robot.file.read_text())
            with pytest.raises(ClientError) as caught:
                await client.get(key)
            assert robot.file.read_text() not in caught.value.message
            assert "401" in caught.value.message or "credentials" in caught.value.message
        finally:
            await client.aclose()

    import asyncio

    asyncio.run(story())


def test_an_operator_whose_token_is_renewed_keeps_leading_and_working(plane, place, start, git, tmp_path):
    robot = Robot(plane, place, tmp_path)
    token = robot.issue("first")
    operator = start("renewed", kubeconfig=robot.kubeconfig)
    wait_until(lambda: operator.ready_as("leader"), operator.said())
    label = {"mainspring.dev/usable-by": "Any"}
    put_secret(plane, place, "robot", label, username="robot", password=OLD)
    create(plane, repository(place, git.url("models.git"), secretRef={"name": "robot"}))
    wait_until(lambda: said(plane, place).get("status") == "True", "it works with the first token", within_s=60)
    robot.issue("second")
    robot.revoke("first", token)
    create(plane, repository(place, git.url("models.git"), name="later", secretRef={"name": "robot"}))
    wait_until(
        lambda: said(plane, place, "later").get("status") == "True", "it works with the second", within_s=60
    )
    assert operator.ready_as("leader")
    assert operator.process.poll() is None
    assert token not in operator.said()
