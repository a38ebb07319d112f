"""What the client of the API server does when the server refuses, forgets, hangs up or is away.

A transport in the place of the network gives the answers of a real server, word by word; what a whole server does
is held by `tests/contract`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import textwrap
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from controller.api.meta import Key
from controller.clients.errors import Conflict, Denied, NotFound, Unavailable
from controller.clients.kube import KubeClient
from controller.clients.kube_login import Login
from controller.clients.kube_rest import KubeRest
from controller.clients.kube_watch import PAGE

pytestmark = pytest.mark.anyio

TOKEN = "eyJhbGciOiJSUzI1NiJ9.c2VjcmV0LXRva2Vu.abcdefghijkl"
CONFIG = Key("ConfigMap", "ml", "settings")
MODEL = Key("ModelSpec", "ml", "bikes")


@pytest.fixture
def anyio_backend():
    return "asyncio"


def kubeconfig(tmp_path, user=None, **cluster):
    file = tmp_path / "kubeconfig"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": "http://api.example.com:6443", **cluster}}],
        "contexts": [
            {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "ml"}},
            {"name": "there", "context": {"cluster": "c", "user": "u"}},
        ],
        "users": [{"name": "u", "user": user or {"token": TOKEN}}],
    }
    file.write_text(json.dumps(content))
    return file


@asynccontextmanager
async def client(tmp_path, handler, **options):
    rest = KubeRest(Login(kubeconfig(tmp_path)), transport=httpx.MockTransport(handler))
    kube = KubeClient(rest, backoff_s=(0.01,), **options)
    try:
        yield kube
    finally:
        await kube.aclose()


def refusal(code, reason, message, **more):
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message}
    return httpx.Response(code, json={**body, "code": code, **more})


def config(name="settings", version="1", uid="u1"):
    return {"metadata": {"name": name, "namespace": "ml", "uid": uid, "resourceVersion": version}}


def lines(*events):
    return b"".join(json.dumps({"type": kind, "object": item}).encode() + b"\n" for kind, item in events)


def always(answer):
    return lambda request: answer


RBAC = (
    'modelspecs.mainspring.dev "bikes" is forbidden: User "system:serviceaccount:ml:robot" cannot get resource '
    '"modelspecs" in API group "mainspring.dev" in the namespace "ml"'
)


@pytest.mark.parametrize(
    ("answer", "error", "reason", "said"),
    [
        pytest.param(
            refusal(403, "Forbidden", RBAC),
            Denied,
            "Forbidden",
            "system:serviceaccount:ml:robot may not get ModelSpec/ml/bikes: a Role or ClusterRole must grant it "
            'verb get on resource modelspecs of API group "mainspring.dev" in namespace ml',
            id="a missing right is named with verb, resource, group and namespace",
        ),
        pytest.param(
            refusal(401, "Unauthorized", "Unauthorized"),
            Denied,
            "Unauthorized",
            "does not accept the credentials",
            id="credentials that are refused again after they were read anew",
        ),
        pytest.param(
            refusal(422, "Invalid", "spec.gates: Too many: 99: must have at most 64 items"),
            Denied,
            "Invalid",
            "spec.gates: Too many: 99",
            id="an invalid object, in the server's words",
        ),
        pytest.param(
            refusal(400, "BadRequest", 'strict decoding error: unknown field "spec.gatez"'),
            Denied,
            "Invalid",
            'unknown field "spec.gatez"',
            id="a field that the schema does not know",
        ),
        pytest.param(
            refusal(409, "Conflict", "the object has been modified"),
            Conflict,
            "Conflict",
            "the object has been modified; read it again",
            id="somebody else wrote first",
        ),
        pytest.param(
            refusal(500, "InternalError", "etcdserver: request timed out"),
            Unavailable,
            "Unavailable",
            "answers 500: etcdserver: request timed out",
            id="the store behind the server is away",
        ),
        pytest.param(
            refusal(
                500,
                "InternalError",
                "failed to create typed patch object (ml/bikes; mainspring.dev/v1alpha1, Kind=ModelSpec): "
                ".status.images: field not declared in schema",
            ),
            Denied,
            "Invalid",
            ".status.images: field not declared in schema; the installed schema of modelspecs.mainspring.dev is "
            "older than this program: install the CRDs of this version",
            id="a CRD that is older than the program is no passing trouble",
        ),
        pytest.param(
            httpx.Response(502, text="<html>\n<body>Bad Gateway</body></html>"),
            Unavailable,
            "Unavailable",
            "answers 502: <html> <body>Bad Gateway",
            id="a proxy's page, on one line",
        ),
        pytest.param(
            httpx.Response(404, text="404 page not found\n"),
            NotFound,
            "KindNotInstalled",
            "does not know ModelSpec (mainspring.dev/v1alpha1); install it with helm upgrade",
            id="our CRDs are not installed",
        ),
        pytest.param(
            httpx.Response(200, text="<html>log in please</html>"),
            Unavailable,
            "Unavailable",
            "is no JSON: is a proxy in between?",
            id="a page that asks to log in",
        ),
        pytest.param(
            refusal(403, "Forbidden", "exceeded quota: few, requested: pods=1, used: pods=1, limited: pods=1"),
            Denied,
            "QuotaExceeded",
            "exceeded quota: few",
            id="a quota is no missing right",
        ),
    ],
)
async def test_a_refusal_becomes_one_of_the_four_errors_in_one_line(tmp_path, answer, error, reason, said):
    async with client(tmp_path, always(answer)) as kube:
        with pytest.raises(error) as caught:
            await kube.get(MODEL)
    assert type(caught.value) is error
    assert caught.value.reason == reason
    assert said in caught.value.message
    assert "\n" not in caught.value.message


async def test_a_missing_right_on_a_subresource_names_it(tmp_path):
    message = (
        'pods "x" is forbidden: User "jo" cannot get resource "pods/log" in API group "" in the namespace "ml"'
    )
    async with client(tmp_path, always(refusal(403, "Forbidden", message))) as kube:
        with pytest.raises(Denied, match='verb get on resource pods/log of API group "" in namespace ml'):
            await kube.get(Key("Pod", "ml", "x"))


async def test_a_busy_server_says_when_to_come_back(tmp_path):
    answer = refusal(429, "TooManyRequests", "too many requests")
    answer.headers["Retry-After"] = "7"
    async with client(tmp_path, always(answer)) as kube:
        with pytest.raises(Unavailable, match="too busy") as caught:
            await kube.get(CONFIG)
    assert caught.value.retry_after_s == 7.0


async def test_no_token_reaches_a_message(tmp_path):
    def echo(request):
        return refusal(500, "InternalError", f"cannot parse {request.headers['authorization']}")

    async with client(tmp_path, echo) as kube:
        with pytest.raises(Unavailable) as caught:
            await kube.get(CONFIG)
    assert TOKEN not in caught.value.message


async def test_a_refused_token_is_read_again_once(tmp_path):
    seen = []

    def handler(request):
        seen.append(request.headers["authorization"])
        if seen[-1] == f"Bearer {TOKEN}":
            kubeconfig(tmp_path, {"token": "fresh"})  # as somebody logs in anew
            return refusal(401, "Unauthorized", "Unauthorized")
        return httpx.Response(200, json=config())

    async with client(tmp_path, handler) as kube:
        assert await kube.get(CONFIG) is not None
        assert await kube.get(CONFIG) is not None
    assert seen == [f"Bearer {TOKEN}", "Bearer fresh", "Bearer fresh"]


async def test_a_server_that_is_away_is_unavailable_and_named(tmp_path):
    def handler(request):
        raise httpx.ConnectError("All connection attempts failed")

    async with client(tmp_path, handler) as kube:
        with pytest.raises(Unavailable, match=r"no connection to http://api\.example\.com:6443: All connection"):
            await kube.get(CONFIG)


@pytest.mark.parametrize(
    ("write", "tries"),
    [
        pytest.param(lambda kube, item: kube.apply(item), 2, id="an apply is sent again, since it says the same"),
        pytest.param(lambda kube, item: kube.create(item), 1, id="a create is not: it may have been done"),
    ],
)
async def test_after_a_broken_connection(tmp_path, write, tries):
    methods = []

    def handler(request):
        methods.append(request.method)
        raise httpx.ReadError("")

    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "ml"}}
    async with client(tmp_path, handler) as kube:
        with pytest.raises(Unavailable):
            await write(kube, manifest)
    assert len(methods) == tries


async def test_an_apply_sends_what_is_meant_and_nothing_of_the_servers_own(tmp_path):
    sent: dict[str, Any] = {}

    def handler(request):
        sent.update(
            {"params": dict(request.url.params), "type": request.headers["content-type"]},
            path=request.url.path,
            body=json.loads(request.content),
        )
        return httpx.Response(200, json=config())

    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {**config()["metadata"], "generation": 3, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "data": {"level": "1", "none": None},
        "status": {"forged": True},
    }
    async with client(tmp_path, handler) as kube:
        await kube.apply(manifest)
    assert sent["path"] == "/api/v1/namespaces/ml/configmaps/settings"
    assert sent["type"] == "application/apply-patch+yaml"
    assert sent["params"] == {"fieldManager": "mainspring", "force": "true", "fieldValidation": "Strict"}
    assert sent["body"]["metadata"] == config()["metadata"]
    assert sent["body"]["data"] == {"level": "1"}
    assert "status" not in sent["body"]


async def test_a_list_is_read_in_pages_and_begins_again_when_it_grew_too_old(tmp_path):
    page = str(PAGE)
    asked = []
    pages = {None: ("a", "next"), "next": ("b", None)}

    def handler(request):
        params = request.url.params
        asked.append((params.get("limit"), params.get("continue")))
        if asked.count((page, "next")) == 1 and asked[-1] == (page, "next"):
            return refusal(410, "Expired", "The provided continue parameter is too old")
        name, more = pages[asked[-1][1]]
        meta = {"resourceVersion": "9"} | ({"continue": more} if more else {})
        return httpx.Response(200, json={"metadata": meta, "items": [config(name)]})

    async with client(tmp_path, handler) as kube:
        found = await kube.list("ConfigMap", namespace="ml")
    assert [item["metadata"]["name"] for item in found] == ["a", "b"]
    assert [item["kind"] for item in found] == ["ConfigMap", "ConfigMap"]
    assert asked == [(page, None), (page, "next"), (page, None), (page, "next")]


async def test_a_kind_that_a_cluster_need_not_have_has_no_objects_there(tmp_path):
    async with client(tmp_path, always(httpx.Response(404, text="404 page not found\n"))) as kube:
        assert await kube.get(Key("HTTPRoute", "ml", "bikes")) is None
        assert await kube.list("HTTPRoute") == ()
        await kube.delete(Key("HTTPRoute", "ml", "bikes"))


class Server:
    """Answers lists and watches of ConfigMaps from a script; the last watch stays open."""

    def __init__(self, lists, watches):
        self.lists, self.watches = list(lists), list(watches)
        self.asked = []

    async def __call__(self, request):
        params = request.url.params
        if "watch" not in params:
            self.asked.append("list")
            answer = self.lists.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return httpx.Response(200, json=answer)
        self.asked.append(f"watch from {params['resourceVersion']}")
        if not self.watches:
            return httpx.Response(200, stream=Silence())
        answer = self.watches.pop(0)
        if isinstance(answer, httpx.Response):
            return answer
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(200, content=answer)


class Silence(httpx.AsyncByteStream):
    async def __aiter__(self):
        await asyncio.Event().wait()
        yield b""


def listed(version, *items):
    return {"metadata": {"resourceVersion": version}, "items": list(items)}


async def told(kube, count, kinds=("ConfigMap",)):
    events = []
    async with asyncio.timeout(10):
        async for event in kube.watch(kinds):
            events.append((event.type, event.object["metadata"]["name"], event.object["metadata"]["uid"]))
            if len(events) == count:
                return events
    raise AssertionError


async def test_a_cut_watch_goes_on_where_it_was(tmp_path):
    bookmark = {"kind": "ConfigMap", "metadata": {"resourceVersion": "8"}}
    server = Server(
        [listed("5", config("a"))],
        [lines(("ADDED", config("b", "6")), ("BOOKMARK", bookmark)), lines(("MODIFIED", config("b", "9")))],
    )
    async with client(tmp_path, server) as kube:
        events = await told(kube, 3)
    assert events == [("Added", "a", "u1"), ("Added", "b", "u1"), ("Modified", "b", "u1")]
    assert server.asked[:3] == ["list", "watch from 5", "watch from 8"]


@pytest.mark.parametrize(
    "gone",
    [
        pytest.param(refusal(410, "Expired", "too old resource version"), id="as the answer"),
        pytest.param(lines(("ERROR", {"kind": "Status", "code": 410, "message": "too old"})), id="in the stream"),
    ],
)
async def test_after_410_the_list_tells_what_was_deleted_changed_and_made_anew(tmp_path, gone):
    first = [config("changed"), config("deleted"), config("anew"), config("same")]
    second = [config("changed", "7"), config("anew", "8", uid="u2"), config("same"), config("new", "9")]
    server = Server([listed("5", *first), listed("9", *second)], [gone])
    async with client(tmp_path, server) as kube:
        events = await told(kube, 9)
    assert events[4:] == [
        ("Deleted", "deleted", "u1"),
        ("Modified", "changed", "u1"),
        ("Deleted", "anew", "u1"),
        ("Added", "anew", "u2"),
        ("Added", "new", "u1"),
    ]


async def test_a_watch_waits_for_a_server_that_is_away(tmp_path):
    down = httpx.ConnectError("refused")
    server = Server(
        [down, down, listed("5", config("a"))],
        [down, refusal(503, "ServiceUnavailable", "starting"), lines(("ADDED", config("b", "6")))],
    )
    async with client(tmp_path, server) as kube:
        assert await told(kube, 2) == [("Added", "a", "u1"), ("Added", "b", "u1")]
    assert server.asked[:6] == ["list"] * 3 + ["watch from 5"] * 3


async def test_a_right_that_is_taken_away_later_does_not_end_a_watch(tmp_path):
    server = Server(
        [listed("5", config("a"))], [refusal(403, "Forbidden", RBAC), lines(("ADDED", config("b", "6")))]
    )
    async with client(tmp_path, server) as kube:
        assert len(await told(kube, 2)) == 2


async def test_a_right_that_is_missing_at_the_beginning_ends_it(tmp_path):
    async with client(tmp_path, always(refusal(403, "Forbidden", RBAC))) as kube:
        with pytest.raises(Denied, match="may not get"):
            await told(kube, 1, ["ModelSpec"])


async def test_closing_ends_a_watch_that_waits(tmp_path):
    server = Server([listed("5", config("a"))], [])
    async with client(tmp_path, server) as kube:
        events = kube.watch(["ConfigMap"])
        assert (await anext(events)).type == "Added"
        waiting = asyncio.ensure_future(anext(events))
        await kube.aclose()
        with pytest.raises(Unavailable, match="closed by this program"):
            await waiting


async def test_a_watch_is_narrowed_on_the_server(tmp_path):
    selectors = []

    def handler(request):
        selectors.append(request.url.params.get("labelSelector"))
        return httpx.Response(200, json=listed("5", config("a")))

    async with client(tmp_path, handler, selectors={"ConfigMap": "app=x"}) as kube:
        await told(kube, 1)
    assert set(selectors) == {"app=x"}


PLUGIN = """
import json
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
                  "status": {"token": "from-the-plugin"}}))
"""


def exec_user(tmp_path, code):
    script = tmp_path / "plugin.py"
    script.write_text(textwrap.dedent(code))
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": [str(script)],
            "interactiveMode": "Never",
        }
    }


async def test_a_login_plugin_is_asked(tmp_path):
    access = await Login(kubeconfig(tmp_path, exec_user(tmp_path, PLUGIN))).access()
    assert access.authorization == "Bearer from-the-plugin"
    assert "from-the-plugin" not in repr(access)


async def test_a_login_plugin_that_fails_is_named(tmp_path):
    with pytest.raises(Denied, match=r'the login plugin .* of context "here" gave no credentials'):
        await Login(kubeconfig(tmp_path, exec_user(tmp_path, "raise SystemExit(1)"))).access()


async def test_the_context_names_server_and_namespace(tmp_path):
    file = kubeconfig(tmp_path)
    assert (await Login(file).access()).namespace == "ml"
    assert (await Login(file, "there").access()).namespace == "default"


@pytest.mark.parametrize(
    ("content", "context", "said"),
    [
        pytest.param(None, None, "is not there; give --kubeconfig or set KUBECONFIG", id="no file"),
        pytest.param("- a list\n", None, "is no kubeconfig", id="a file of something else"),
        pytest.param("a: {", None, "is no kubeconfig", id="no YAML"),
        pytest.param("", None, "kubeconfig is no kubeconfig|cannot be used", id="an empty file"),
        pytest.param(
            "here", "elsewhere", 'has no context "elsewhere"; there is: here, there', id="a wrong context"
        ),
    ],
)
async def test_a_kubeconfig_that_cannot_be_used_is_denied_in_one_line(tmp_path, content, context, said):
    file = tmp_path / "kubeconfig"
    if content == "here":
        kubeconfig(tmp_path)
    elif content is not None:
        file.write_text(content)
    with pytest.raises(Denied, match=said) as caught:
        await Login(file, context).access()
    assert caught.value.reason == "CredentialsInvalid"
    assert "\n" not in caught.value.message


async def test_certificates_that_cannot_be_read_are_denied(tmp_path):
    garbage = base64.b64encode(b"no certificate").decode()
    user = {"client-certificate-data": garbage, "client-key-data": garbage}
    file = kubeconfig(tmp_path, user, server="https://api.example.com:6443")
    kube = KubeClient(KubeRest(Login(file)))
    with pytest.raises(Denied, match=r"certificates for https://api\.example\.com:6443 cannot be read"):
        await kube.get(Key("ModelSpec", "ml", "bikes"))
    await kube.aclose()
