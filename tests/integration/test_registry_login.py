"""MLflow behind a login: each namespace with its own Secret, renewed while the operator runs, or refused."""

from __future__ import annotations

import base64
import http.client
import subprocess
import sys
import threading
import uuid
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from controller.api.meta import Key
from controller.clients.credentials import WebLogin
from controller.clients.errors import ClientError, Denied
from controller.clients.registry import Registry
from controller.clients.signing import Signer, Verifier, public_text
from controller.plan.ledger import Ledger
from controller.plan.verdict import Unknown
from controller.reconcile import access
from controller.reconcile.access import Access
from controller.reconcile.ledger import LedgerBook
from controller.reconcile.secrets import SecretBook
from controller.reconcile.world import Settings, World

pytestmark = pytest.mark.anyio
OLD, NEW = "0ldPassw0rd", "n3wPassw0rd"


def basic(password, user="robot"):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class Gate:
    """A proxy before MLflow that lets in who has one of the allowed headers."""

    def __init__(self, uri):
        self.allowed = {basic(OLD)}
        self.seen: list[str] = []
        self.target = urlsplit(uri).netloc
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def pass_on(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", "0") or 0))
                given = self.headers.get("Authorization", "")
                outer.seen.append(given)
                if given not in outer.allowed:
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="mlflow"')
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                onward = http.client.HTTPConnection(outer.target, timeout=30)
                kept = {k: v for k, v in self.headers.items() if k.lower() in ("content-type", "accept")}
                onward.request(self.command, self.path, body=body or None, headers=kept)
                answer = onward.getresponse()
                content = answer.read()
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                onward.close()

            do_GET = do_POST = do_PUT = pass_on

            def log_message(self, *args):
                """Stay silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *args):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def gate(mlflow_uri):
    with Gate(mlflow_uri) as made:
        yield made


class Cluster:
    """Secrets and ModelSpecs by namespace, and the operator's view of them."""

    def __init__(self, gate, directory):
        self.now = 0.0
        self.objects: dict[Key, Any] = {}
        self.opened: list[Registry] = []
        kube: Any = self
        nothing: Any = None
        signer = Signer.load_or_create(directory / "key.pem")

        def open_registry(login):
            registry = Registry(gate.url, login=login)
            self.opened.append(registry)
            return registry, LedgerBook(registry, signer, Verifier([signer.public]), lambda: datetime.now(UTC))

        registry, ledger = open_registry(WebLogin)
        self.world = World(
            kube=kube,
            git=nothing,
            registry=registry,
            ledger=ledger,
            telemetry=nothing,
            settings=Settings(runtime="", tracking_uri=gate.url),
            now=lambda: datetime.now(UTC),
            url_of=lambda namespace, name: "",
            access=Access(SecretBook(self, clock=lambda: self.now), nothing, open_registry),
        )

    async def get(self, key):
        return self.objects.get(key)

    def secret(self, namespace, name="mainspring-registry", label=None, **data):
        """Write a Secret; the operator sees it at its next look."""
        labels = {"mainspring.dev/usable-by": label} if label else {}
        values = {k: base64.b64encode(v.encode()).decode() for k, v in data.items()}
        meta = {"name": name, "namespace": namespace, "labels": labels}
        self.objects[Key("Secret", namespace, name)] = {"kind": "Secret", "metadata": meta, "data": values}
        self.now += 60

    async def ledger(self, namespace, name, **spec):
        """Read a ledger as the ModelSpec `bikes` of a namespace does."""
        key = Key("ModelSpec", namespace, "bikes")
        meta = {"name": "bikes", "namespace": namespace}
        self.objects[key] = {"kind": "ModelSpec", "metadata": meta, "spec": spec}
        self.scoped = await access.scoped(self.world, key)
        return await self.scoped.ledger.read(name, namespace)


@pytest.fixture
async def cluster(gate, tmp_path):
    made = Cluster(gate, tmp_path)
    yield made
    for registry in made.opened:
        await registry.aclose()


@pytest.fixture
def name():
    return f"bikes-{uuid.uuid4().hex[:10]}"


async def test_each_namespace_logs_in_with_its_own_secret_and_one_without_does_not(cluster, gate, name):
    gate.allowed = {basic(OLD), "Bearer t0ken"}
    cluster.secret("ml", username="robot", password=OLD)
    cluster.secret("other", token="t0ken")
    assert isinstance(await cluster.ledger("ml", name), Ledger)
    run = await cluster.scoped.registry.ensure_run(name, environment="ml", revision=f"{name}-1", attempt=1)
    await cluster.scoped.registry.upload(run, "mainspring", {"report.json": b"{}"})
    assert await cluster.scoped.registry.read_artifact(run, "mainspring/report.json") == b"{}"
    assert set(gate.seen) == {basic(OLD)}
    gate.seen.clear()
    assert isinstance(await cluster.ledger("other", name), Ledger)
    assert set(gate.seen) == {"Bearer t0ken"}
    gate.seen.clear()
    found = await cluster.ledger("third", name)
    assert isinstance(found, Unknown)
    assert found.reason == "RegistryDenied"
    assert "check the user name and password or the token in the Secret for MLflow" in found.message
    assert set(gate.seen) == {""}


async def test_a_renewed_secret_is_used_by_the_next_look(cluster, gate, name):
    cluster.secret("ml", username="robot", password=OLD)
    assert isinstance(await cluster.ledger("ml", name), Ledger)
    gate.allowed = {basic(NEW)}
    with pytest.raises(Denied) as caught:
        await cluster.scoped.registry.ping()
    assert OLD not in caught.value.message
    cluster.secret("ml", username="robot", password=NEW)
    held = cluster.scoped.registry
    await access.scoped(cluster.world, Key("ModelSpec", "ml", "bikes"))
    await held.ping()


@pytest.mark.parametrize(
    ("secret", "reason", "words"),
    [
        pytest.param(
            None, "SecretNotFound", "Secret mlflow (registry.secretRef of ModelSpec bikes)", id="missing"
        ),
        pytest.param(
            {"token": OLD},
            "SecretNotUsable",
            "kubectl label secret mlflow -n ml mainspring.dev/usable-by=bikes",
            id="no label",
        ),
        pytest.param(
            {"label": "bikes", "username": "robot"},
            "SecretKeyMissing",
            "has username, but needs username and password, or token",
            id="half a login",
        ),
    ],
)
async def test_a_secret_that_cannot_be_used_sends_nothing_and_says_why(cluster, gate, name, secret, reason, words):
    if secret is not None:
        cluster.secret("ml", "mlflow", **secret)
    found = await cluster.ledger("ml", name, registry={"secretRef": {"name": "mlflow"}})
    assert isinstance(found, Unknown)
    assert found.reason == reason
    assert words in found.message
    assert gate.seen == []
    with pytest.raises(ClientError, match="Secret mlflow"):
        await cluster.scoped.registry.ensure_run(name, environment="ml", revision="r", attempt=1)


async def test_a_ledger_that_was_read_counts_on_when_the_secret_goes_away(cluster, name):
    cluster.secret("ml", username="robot", password=OLD)
    assert isinstance(await cluster.ledger("ml", name), Ledger)
    cluster.scoped.ledger.now = lambda: datetime(2100, 1, 1, tzinfo=UTC)
    cluster.secret("ml", username="robot")
    assert isinstance(await cluster.ledger("ml", name), Ledger)
    with pytest.raises(Denied, match="has username, but needs"):
        await cluster.scoped.registry.ping()


def test_a_model_server_brings_its_model_with_the_mounted_login(gate, mlflow_uri, tmp_path):
    """The init container as its image starts it; what it is refused for here is the run, no more the login."""
    (tmp_path / "registry").mkdir()
    keys = public_text([Signer.load_or_create(tmp_path / "key.pem").public])

    def start(password):
        (tmp_path / "registry" / "username").write_text("robot")
        (tmp_path / "registry" / "password").write_text(password)
        command = [sys.executable, "-m", "controller.serving.fetch_model"]
        command += ["--run", "0" * 32, "--digest", f"sha256:{'0' * 64}", "--out", str(tmp_path / "artifact")]
        env = {"MLFLOW_TRACKING_URI": gate.url, "MAINSPRING_CREDENTIALS": str(tmp_path)}
        env |= {"MAINSPRING_TRUSTED_KEYS": keys, "PATH": ""}
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)

    wrong = start(NEW)
    assert "refused with 401; check the user name and password" in wrong.stdout + wrong.stderr
    right = start(OLD)
    assert "401" not in right.stdout + right.stderr
    assert f"Run with id={'0' * 32} not found" in right.stdout + right.stderr
    assert OLD not in right.stdout + right.stderr
    assert gate.seen == [basic(NEW), basic(OLD)]
