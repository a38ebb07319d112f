"""A replica that does not lead sends nothing that changes anything, to the API server or to MLflow."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from controller.api.meta import API_VERSION, Key
from controller.clients.errors import Unavailable
from controller.clients.kube import KubeClient
from controller.clients.kube_login import Login
from controller.clients.registry import Registry
from controller.reconcile.process import CountedRest

SAID = "this replica does not lead any more; nothing was written"
SPEC = Key("ModelSpec", "ml", "bikes")
REVISION = {"apiVersion": API_VERSION, "kind": "ModelRevision", "metadata": {"name": "x", "namespace": "ml"}}
LEASE = Key("Lease", "ml", "mainspring-canary")


@pytest.fixture
def kubeconfig(tmp_path):
    file = tmp_path / "kubeconfig"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": "http://api.example.com:6443"}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "ml"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    file.write_text(json.dumps(content))
    return file


def refuse():
    raise Unavailable(SAID)


def with_kube(kubeconfig, act, *, handler=None, guard=refuse):
    """Call the API server as a replica that does not lead; returns what arrived, and what was said."""
    arrived = []

    def answer(request):
        arrived.append((request.method, request.url.path))
        meta = {"name": "x", "namespace": "ml", "uid": "u", "resourceVersion": "1"}
        return httpx.Response(200, json={"metadata": meta}) if handler is None else handler(request)

    async def go():
        rest = CountedRest(Login(kubeconfig), transport=httpx.MockTransport(answer))
        rest.guard = guard
        kube = KubeClient(rest)
        try:
            await act(kube)
        finally:
            await kube.aclose()

    said = ""
    try:
        asyncio.run(go())
    except Unavailable as error:
        said = error.message
    return arrived, said


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda k: k.create(REVISION), id="create"),
        pytest.param(lambda k: k.patch_status(SPEC, {"stage": "x"}, uid="u"), id="status"),
        pytest.param(lambda k: k.annotate(SPEC, {"a": "b"}), id="annotate"),
        pytest.param(lambda k: k.patch_spec(SPEC, {"suspend": True}), id="patch"),
        pytest.param(lambda k: k.delete(SPEC), id="delete"),
    ],
)
def test_no_write_leaves(kubeconfig, act):
    arrived, said = with_kube(kubeconfig, act)
    assert said == SAID
    assert [method for method, _ in arrived if method != "GET"] == []


def test_reads_and_leases_leave(kubeconfig):
    async def act(kube):
        await kube.get(SPEC)
        await kube.annotate(LEASE, {"a": "b"})

    arrived, said = with_kube(kubeconfig, act)
    assert said == ""
    assert [method for method, _ in arrived] == ["GET", "PATCH"]


def test_the_second_try_after_a_broken_connection_is_held_back_too(kubeconfig):
    """A process that stood still finds its connections broken, and must not simply send again."""
    leads = [True]

    def guard():
        if not leads.pop():
            raise Unavailable(SAID)
        leads.append(False)

    def broken(request):
        raise httpx.ReadError("reset")

    arrived, said = with_kube(kubeconfig, lambda k: k.annotate(SPEC, {"a": "b"}), handler=broken, guard=guard)
    assert said == SAID
    assert len(arrived) == 1


def test_nothing_is_changed_in_mlflow():
    arrived = []

    async def answer(reader, writer):
        arrived.append((await reader.readuntil(b"\r\n\r\n")).split()[0])
        body = json.dumps({"run": {"info": {"run_id": "0" * 32, "status": "RUNNING"}, "data": {}}}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        writer.close()

    async def go():
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        registry = Registry(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", guard=refuse)
        with pytest.raises(Unavailable, match="nothing was written"):
            await registry.finish_run("0" * 32, "FINISHED")
        await registry.aclose()
        server.close()

    asyncio.run(go())
    assert arrived == [b"GET"]
