"""A push and its webhook are seen within seconds although the poll is due in ten minutes, at whichever replica."""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
import re

import httpx
import pytest

from controller.api.meta import API_VERSION, Key
from tests.support.git_repos import GitServer, Scratch
from tests.support.operator_process import OperatorProcess, wait_until, with_client

SECRET = "a secret that both sides know"
SEEN_WITHIN_S = 10.0


@pytest.fixture
def start(control_plane, namespace, tmp_path):
    """Start replicas with a webhook; they end with the test."""
    started = []
    key = tmp_path / "webhook-key"
    key.write_text(SECRET)

    def one(name):
        settings = {"NAMESPACES": namespace, "LEASE_NAMESPACE": namespace, "ALLOWED_HOSTS": "127.0.0.1"}
        settings |= {"GIT_PROTOCOLS": "http", "WEBHOOK_KEY": str(key), "WEBHOOK_PORT": "0"}
        started.append(OperatorProcess(tmp_path, control_plane.kubeconfig, name, **settings))
        return started[-1]

    yield one
    for process in started:
        process.__exit__()


def push(operator, url, secret=SECRET):
    """Send what GitHub sends after a push."""
    (port,) = re.findall(r"pushes at port (\d+)", operator.said())
    body = json.dumps({"ref": "refs/heads/main", "repository": {"clone_url": url}}).encode()
    signed = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-GitHub-Event": "push", "X-Hub-Signature-256": f"sha256={signed}"}
    return httpx.post(f"http://127.0.0.1:{port}/hook", content=body, headers=headers, trust_env=False, timeout=10)


def test_a_push_is_seen_at_once_at_the_leader_and_at_a_standby(control_plane, namespace, tmp_path, start):
    scratch = Scratch.create(tmp_path / "git" / "models.git")
    scratch.commit({"readme.txt": b"one"})
    first = start("first")
    wait_until(lambda: first.ready_as("leader"), "the first leads")
    second = start("second")
    wait_until(lambda: second.ready_as("standby"), "the second stands by")
    with GitServer(tmp_path / "git") as git:
        url = git.url("models.git")
        meta = {"name": "models", "namespace": namespace}
        spec = {"url": url, "ref": {"branch": "main"}, "interval": "10m", "timeout": "10s"}
        repository = {"apiVersion": API_VERSION, "kind": "ModelRepository", "metadata": meta, "spec": spec}
        with_client(control_plane.kubeconfig, lambda kube: kube.create(repository))

        def seen(commit):
            found = with_client(
                control_plane.kubeconfig, lambda kube: kube.get(Key("ModelRepository", namespace, "models"))
            )
            return commit in json.dumps((found or {}).get("status") or {})

        tip = scratch.git("rev-parse", "refs/heads/main")
        wait_until(lambda: seen(tip), "the first commit is seen")
        for number, operator in enumerate((first, second)):
            commit = scratch.commit({"readme.txt": f"pushed {number}".encode()})
            assert push(operator, url, "another secret of theirs").status_code == 401
            answer = push(operator, url)
            assert (answer.status_code, answer.text) == (202, "1 object will be polled now\n")
            wait_until(functools.partial(seen, commit), "the push is seen", within_s=SEEN_WITHIN_S)
            assert push(operator, "https://git.example.com/else.git").text.startswith("no ModelSpec")
        figures = second.ask("/metrics").text

    for outcome in ("accepted", "refused", "unmatched"):
        assert f'mainspring_webhook_requests_total{{form="github",outcome="{outcome}"}} 1.0' in figures


def test_without_a_key_there_is_no_webhook_and_with_a_bad_one_no_operator(
    control_plane, namespace, tmp_path, start
):
    (tmp_path / "webhook-key").write_text("short")
    operator = start("only")
    operator.process.wait(60)
    assert operator.process.returncode == 1
    assert "must hold keys of at least 16 characters" in operator.said()
