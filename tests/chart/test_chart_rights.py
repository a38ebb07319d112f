"""The rights that the chart grants the operator: none is missing, none is unused, and nothing else is open to it.

The operator process works with the token of the chart's own ServiceAccount, through everything that makes it touch
the API; the server's audit log says what it asked for.
"""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import yaml

from controller.api.meta import API_VERSION, Key
from controller.cli.doctor import OPERATOR_RIGHTS
from tests.cluster.namespaces import made
from tests.faults.player import Player
from tests.support.git_repos import GitServer, Scratch
from tests.support.helm import Release
from tests.support.mlflow_shared import tracking_uri
from tests.support.operator_process import OperatorProcess, ready, wait_until, with_client

URI = "trackingURI=http://mlflow.example.internal"
CODE = {"train.py": b"fit()", "data.csv": b"1,2"}
UNUSED: dict[tuple[str, str, str], str] = {}
"""Rights that are granted and that the story does not use, with the reason."""


def spec(name, url, **serving):
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelSpec",
        "metadata": {"name": name},
        "spec": {
            "source": {"url": url, "ref": {"branch": "main"}, "paths": ["train.py", "quality"], "interval": "1s"},
            "data": [{"name": "train", "path": "data.csv"}],
            "columns": {"target": "bikers"},
            "training": {"command": ["python", "train.py"]},
            "gates": [{"name": "good-enough", "metric": "rmse", "max": 100}],
            "serving": {"canary": {"stepWeights": [50], "interval": "1s"}, **serving},
        },
    }


class Story:
    """What the operator is made to do, by commits."""

    def __init__(self, plane, place, home, git, player):
        self.plane, self.place, self.player = plane, place, player
        self.repository, self.url = Scratch.create(home / "models.git"), git.url("models.git")

    def commit(self, quality, **models):
        """Commit the code, and these ModelSpecs below `deploy`."""
        files = {**CODE, "quality": quality}
        files |= {
            f"deploy/{name}.yaml": yaml.safe_dump(spec(name, self.url, **serving)).encode()
            for name, serving in models.items()
        }
        self.player.knows(self.repository.commit(files), files)

    def follow(self):
        body = {
            "apiVersion": API_VERSION,
            "kind": "ModelRepository",
            "metadata": {"name": "team"},
            "spec": {
                "url": self.url,
                "ref": {"branch": "main"},
                "path": "deploy",
                "interval": "1s",
                "prune": True,
            },
        }
        self.plane.apply(body, f"/apis/{API_VERSION}/namespaces/{self.place}/modelrepositories")

    def get(self, kind, name):
        return with_client(self.plane.kubeconfig, lambda kube: kube.get(Key(kind, self.place, name)))

    def champion(self, name):
        """The champion, Ready or not."""
        return (self.get("ModelSpec", name)["status"].get("champion") or {}).get("revision")

    def order(self, name, to):
        """Do what `mainspring rollback` does, as an administrator."""
        digest = self.get("ModelRevision", to)["status"]["artifact"]["digest"]
        until = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        spec = {"modelRef": {"name": name}, "action": "Rollback", "to": to, "digest": digest}
        spec |= {"actor": "admin", "reason": "a story of rights", "expiresAt": until}
        body = {"apiVersion": API_VERSION, "kind": "ModelOverride", "metadata": {"name": "back"}, "spec": spec}
        self.plane.apply(body, f"/apis/{API_VERSION}/namespaces/{self.place}/modeloverrides")

    def names(self, kind):
        found = with_client(self.plane.kubeconfig, lambda kube: kube.list(kind, namespace=self.place))
        return [m["metadata"]["name"] for m in found]

    def served(self, name):
        """The champion, once the model is Ready."""
        said = ready(self.plane.kubeconfig, Key("ModelSpec", self.place, name))
        if said.get("status") != "True":
            return None
        return self.get("ModelSpec", name)["status"]["champion"]["revision"]


def token_kubeconfig(release, tmp_path):
    """A kubeconfig with a token of the chart's ServiceAccount, asked for as the kubelet asks."""
    plane = release.plane
    path = f"/api/v1/namespaces/{release.namespace}/serviceaccounts/mainspring/token"
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    token = plane.request("POST", path, body)["status"]["token"]
    config = json.loads(plane.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    config["contexts"][0]["context"]["namespace"] = release.namespace
    file = tmp_path / "operator.kubeconfig"
    file.write_text(json.dumps(config))
    return file, token


def environment(release):
    """The settings that the chart gives the operator's container, but for paths and ports of a pod."""
    pod = release.get("apps/v1/deployments/mainspring")["spec"]["template"]["spec"]
    given = {
        e["name"].removeprefix("MAINSPRING_"): e["value"] for e in pod["containers"][0]["env"] if "value" in e
    }
    ours = {"SIGNING_KEY", "MIRRORS", "METRICS_HOST", "METRICS_PORT", "HEALTH_PORT", "TRUSTED_KEYS"}
    return {name: value for name, value in given.items() if name not in ours}


@pytest.fixture
def release(bare_plane):
    name = f"rights-{secrets.token_hex(4)}"
    made(bare_plane, name)
    return Release(bare_plane, name)


@pytest.fixture(scope="module")
def installed(bare_plane, tmp_path_factory):
    """A release, and a token of its ServiceAccount."""
    name = f"rights-{secrets.token_hex(4)}"
    made(bare_plane, name)
    release = Release(bare_plane, name)
    release.helm("install", "--set", URI)
    return release, token_kubeconfig(release, tmp_path_factory.mktemp("installed"))[1]


def granted(plane, namespace):
    """What the roles of the release grant: (verb, group, resource)."""
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles"
    roles = [r for r in plane.request("GET", path)["items"] if r["metadata"]["name"].startswith("mainspring")]
    return {
        (verb, group, resource)
        for role in roles
        for rule in role["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def asked(plane, namespace):
    """What the operator asked the API server for: (verb, group, resource) → worst status code."""
    user = f"system:serviceaccount:{namespace}:mainspring"
    found: dict[tuple[str, str, str], set[int]] = {}
    for event in plane.audited():
        if event["user"]["username"] != user or "objectRef" not in event:
            continue
        at, code = event["objectRef"], event.get("responseStatus", {}).get("code", 0)
        resource = "/".join(filter(None, (at["resource"], at.get("subresource"))))
        verbs = [event["verb"]] + (["create"] if event["verb"] == "patch" and code == 201 else [])
        for verb in verbs:
            found.setdefault((verb, at.get("apiGroup", ""), resource), set()).add(code)
    return found


def test_a_whole_story_uses_every_right_and_lacks_none(bare_plane, release, tmp_path):
    values = tmp_path / "values.yaml"
    hosts = {"allowedHosts": ["127.0.0.1"], "protocols": ["http"]}
    # No operator of the Deployment's own: no node would run it, and the player takes every pod for a model's.
    values.write_text(yaml.safe_dump({"trackingURI": tracking_uri(), "git": hosts, "replicas": 0}))
    release.helm("install", "--values", values)
    place = release.namespace
    kubeconfig, _ = token_kubeconfig(release, tmp_path)
    with (
        GitServer(tmp_path / "git") as git,
        Player(bare_plane, place, tracking_uri()) as player,
        OperatorProcess(tmp_path, kubeconfig, "operator", **environment(release)) as operator,
    ):
        story = Story(bare_plane, place, tmp_path / "git", git, player)
        routed = {"route": {"gatewayRefs": [{"name": "public"}]}}
        story.commit(b"60", scaled={"maxReplicas": 3}, routed=routed)
        story.follow()
        first = wait_until(lambda: story.served("scaled"), "the first model is served", within_s=90)
        wait_until(lambda: story.served("routed"), "the model behind a route is served", within_s=90)
        assert story.names("HTTPRoute") == ["routed"]
        assert story.names("HorizontalPodAutoscaler") == ["scaled"]
        story.commit(b"50", scaled={}, routed=routed)
        wait_until(lambda: story.served("scaled") not in (None, first), "a better one takes over", within_s=90)
        wait_until(lambda: not [n for n in story.names("Deployment") if n.startswith(first)], "old servers go")
        story.order("scaled", first)
        wait_until(lambda: story.champion("scaled") == first, "a person's order rolls back", within_s=90)
        story.commit(b"50", routed={})
        wait_until(lambda: story.names("ModelSpec") == ["routed"], "the deleted file's ModelSpec goes")
        wait_until(lambda: not story.names("HTTPRoute"), "the route that nobody wants any more goes")
        assert operator.terminate() < 25

    used, rights = asked(bare_plane, place), granted(bare_plane, place)
    assert not {right for right, codes in used.items() if codes & {401, 403}}, "the chart grants too little"
    assert rights - set(used) == set(UNUSED), "the chart grants what is never used"
    assert set(used) <= rights, "a right of another role was used"


def test_in_the_whole_cluster_it_works_in_namespaces_that_come_later(bare_plane, release, tmp_path):
    release.helm("install", "--set", URI, "--set", "clusterWide=true", "--set", "replicas=0")
    kubeconfig, _ = token_kubeconfig(release, tmp_path)
    with OperatorProcess(tmp_path, kubeconfig, "operator", **environment(release)) as operator:
        wait_until(lambda: operator.ready_as("leader"), "it leads")
        later = f"{release.namespace}-later"
        made(bare_plane, later)
        body = {
            "apiVersion": API_VERSION,
            "kind": "ModelRepository",
            "metadata": {"name": "team"},
            "spec": {"url": "https://git.example.invalid/x.git", "ref": {"branch": "main"}},
        }
        bare_plane.apply(body, f"/apis/{API_VERSION}/namespaces/{later}/modelrepositories")
        key = Key("ModelRepository", later, "team")
        wait_until(lambda: ready(bare_plane.kubeconfig, key), "it has looked at the repository")
    release.helm("uninstall")
    refused = {right for right, codes in asked(bare_plane, release.namespace).items() if codes & {401, 403}}
    assert not refused, "the chart grants too little"


def test_doctor_asks_for_exactly_what_the_chart_grants_where_models_are(bare_plane, release):
    release.helm("install", "--set", URI)
    assert granted(bare_plane, release.namespace) == set(OPERATOR_RIGHTS)


@pytest.mark.parametrize(
    ("what", "path"),
    [
        ("the Secrets of its own namespace", "/api/v1/namespaces/{own}/secrets"),
        ("all Secrets", "/api/v1/secrets"),
        ("a Secret of another namespace", "/api/v1/namespaces/{other}/secrets/theirs"),
        ("ModelSpecs of another namespace", "/apis/mainspring.dev/v1alpha1/namespaces/{other}/modelspecs"),
        ("all ModelSpecs", "/apis/mainspring.dev/v1alpha1/modelspecs"),
        ("pods of another namespace", "/api/v1/namespaces/{other}/pods"),
        ("all pods", "/api/v1/pods"),
        ("ConfigMaps of another namespace", "/api/v1/namespaces/{other}/configmaps/kube-root-ca.crt"),
        ("Leases of another namespace", "/apis/coordination.k8s.io/v1/namespaces/{other}/leases"),
        ("logs of pods", "/api/v1/namespaces/{own}/pods/any/log"),
        ("namespaces", "/api/v1/namespaces"),
        ("nodes", "/api/v1/nodes"),
    ],
)
def test_it_cannot_read(bare_plane, installed, what, path):
    release, token = installed
    with httpx.Client(base_url=bare_plane.url, verify=bare_plane._trust(), trust_env=False) as client:
        where = path.format(own=release.namespace, other="default")
        answer = client.get(where, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 403, f"{what}: {answer.text[:300]}"


def test_a_list_of_secret_names_closes_all_others(bare_plane, release, tmp_path):
    release.helm("install", "--set", URI, "--set", "rbac.secretNames={git}")
    _, token = token_kubeconfig(release, tmp_path)
    with httpx.Client(base_url=bare_plane.url, verify=bare_plane._trust(), trust_env=False) as client:
        secret = f"/api/v1/namespaces/{release.namespace}/secrets/"
        codes = [
            client.get(secret + name, headers={"Authorization": f"Bearer {token}"}).status_code
            for name in ("git", "mainspring-signing-key")
        ]
    # The named one does not exist, and it may be told so.
    assert codes == [404, 403]
