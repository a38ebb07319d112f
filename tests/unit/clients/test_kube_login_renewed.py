"""A login that ended is read again, once: the token file, and the plugin of a kubeconfig."""

from __future__ import annotations

import json
import sys

import httpx
import pytest
import yaml

from controller.clients.errors import ClientError
from controller.clients.kube import KubeClient
from controller.clients.kube_login import Login
from controller.clients.kube_rest import KubeRest

pytestmark = pytest.mark.anyio
PLUGIN = """
import json, pathlib
here = pathlib.Path(__file__).parent
with (here / "runs").open("a") as file:
    file.write("x")
token = (here / "token").read_text()
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
                  "status": {"token": token}}))
"""


def kubeconfig(tmp_path, way):
    (tmp_path / "token").write_text("old")
    (tmp_path / "plugin.py").write_text(PLUGIN)
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": [str(tmp_path / "plugin.py")],
        "interactiveMode": "Never",
    }
    user = {"tokenFile": str(tmp_path / "token")} if way == "file" else {"exec": plugin}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "http://cluster.example.com"}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return file


class Server:
    """An API server that lets in one token."""

    def __init__(self):
        self.admits, self.seen = "old", list[str]()

    def __call__(self, request):
        given = request.headers.get("Authorization", "")
        self.seen.append(given)
        if given == f"Bearer {self.admits}":
            return httpx.Response(200, json={"kind": "ConfigMapList", "metadata": {}, "items": []})
        status = {"kind": "Status", "status": "Failure", "reason": "Unauthorized", "code": 401}
        return httpx.Response(401, content=json.dumps(status))


@pytest.mark.parametrize("way", ["file", "exec"])
async def test_a_refused_token_is_read_again_once_and_the_request_sent_again(tmp_path, way):
    server = Server()
    rest = KubeRest(Login(kubeconfig(tmp_path, way)), transport=httpx.MockTransport(server))
    client = KubeClient(rest)
    await client.list("ConfigMap", namespace="ml")
    (tmp_path / "token").write_text("new")
    await client.list("ConfigMap", namespace="ml")
    assert server.seen == ["Bearer old"] * 2, "nothing is read anew while the server takes it"
    server.admits = "new"
    await client.list("ConfigMap", namespace="ml")
    assert server.seen[2:] == ["Bearer old", "Bearer new"]
    server.admits = "nobody's"
    with pytest.raises(ClientError) as caught:
        await client.list("ConfigMap", namespace="ml")
    assert len(server.seen) == 6, "once, and not for ever"
    assert "new" not in caught.value.message.replace("renew", "")
    if way == "exec":
        assert (tmp_path / "runs").read_text() == "xxx"
    await client.aclose()
