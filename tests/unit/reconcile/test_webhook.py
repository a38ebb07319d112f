"""The push webhook: who may wake a poll, in which form, how often, how much, and what the sender is told."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from typing import Any

import httpx
import pytest

from controller.api.meta import Key
from controller.clients.errors import Unavailable
from controller.clients.git_types import GitRef
from controller.reconcile.cache import Cache
from controller.reconcile.pushes import ANNOTATION_PUSHED, PushedMirrors, Pushes, token_of_url
from controller.reconcile.webhook import BODY_MAX, BURST, PER_S, Bucket, Head, Webhook, place_of, places_in

KEY = "correct horse battery staple"
HTTPS = "https://git.example.com/Team/Bikes.git"
GITHUB = {"repository": {"clone_url": HTTPS, "ssh_url": "git@git.example.com:Team/Bikes.git", "id": 1}}
GITLAB = {"project": {"git_http_url": HTTPS}, "repository": {"git_ssh_url": "git@git.example.com:Team/Bikes.git"}}
HERE = frozenset({"git.example.com/team/bikes"})


def signature(body, key=KEY):
    return hmac.new(key.encode(), body, hashlib.sha256).hexdigest()


def github(payload, key=KEY, event="push"):
    body = json.dumps(payload).encode()
    return {"x-github-event": event, "x-hub-signature-256": f"sha256={signature(body, key)}"}, body


def gitlab(payload, key=KEY, event="Push Hook"):
    return {"x-gitlab-event": event, "x-gitlab-token": key}, json.dumps(payload).encode()


def gitea(payload, key=KEY, event="push"):
    headers, body = github(payload, "another key that is not looked at", event)
    return {**headers, "x-gitea-event": event, "x-gitea-signature": signature(body, key)}, body


def forgejo(payload, key=KEY, event="push"):
    body = json.dumps(payload).encode()
    return {"x-gitea-event": event, "x-forgejo-event": event, "x-forgejo-signature": signature(body, key)}, body


@pytest.fixture
def hook(tmp_path):
    """A receiver that notes what it wakes; two objects use the place of the story."""
    file = tmp_path / "key"
    file.write_text(KEY + "\n")

    class Hook:
        def __init__(self):
            self.woken: list[frozenset[str]] = []
            self.counted: list[tuple[str, str]] = []
            self.error: Exception | None = None
            self.key_file = file
            self.receiver = Webhook(file, self.wake, self.count)

        async def wake(self, places):
            if self.error is not None:
                raise self.error
            self.woken.append(places)
            return 2 if places & HERE else 0

        def count(self, form, outcome):
            self.counted.append((form, outcome))

        def ask(self, headers, body):
            reply = asyncio.run(self.receiver.answer(Head("POST", "/hook", headers), body))
            return reply.code, reply.outcome, reply.said

    return Hook()


@pytest.mark.parametrize(
    ("form", "payload"),
    [
        pytest.param(github, GITHUB, id="GitHub signs the body"),
        pytest.param(gitlab, GITLAB, id="GitLab sends the token itself"),
        pytest.param(gitea, GITHUB, id="Gitea signs the body and sends GitHub's headers too"),
        pytest.param(forgejo, GITHUB, id="Forgejo signs the body under its own name"),
    ],
)
def test_a_push_with_the_key_wakes_and_one_with_another_key_does_not(hook, form, payload):
    assert hook.ask(*form(payload)) == (202, "accepted", "2 objects will be polled now")
    assert hook.woken == [HERE]
    code, outcome, said = hook.ask(*form(payload, key="a key that is long enough and wrong"))
    assert (code, outcome) == (401, "refused")
    assert said == "the signature or token does not fit the key: set the same secret"
    assert hook.woken == [HERE]


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        pytest.param({"x-github-event": "push"}, b"{}", (401, "refused"), id="no signature at all"),
        pytest.param(
            {"x-github-event": "push", "x-hub-signature": "sha1=0"}, b"{}", (401, "refused"), id="only SHA-1"
        ),
        pytest.param({"x-hub-signature-256": "sha256="}, b"{}", (401, "refused"), id="an empty signature"),
        pytest.param({"x-gitlab-token": ""}, b"{}", (401, "refused"), id="an empty token"),
        pytest.param({"x-gitlab-token": "\xff" * 20}, b"{}", (401, "refused"), id="a token that is no text"),
        pytest.param(
            {"x-gitea-signature": "0" * 64, "x-gitlab-token": KEY}, b"{}", (401, "refused"), id="two, one wrong"
        ),
    ],
)
def test_what_is_not_signed_is_refused_whatever_else_it_says(hook, headers, body, expected):
    assert hook.ask(headers, body)[:2] == expected
    assert hook.woken == []


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        pytest.param(github({"zen": "x"}, event="ping"), (200, "ignored"), id="GitHub's ping"),
        pytest.param(github(GITHUB, event="issues"), (200, "ignored"), id="another event"),
        pytest.param(gitlab(GITLAB, event="Note Hook"), (200, "ignored"), id="another event of GitLab"),
        pytest.param(gitlab(GITLAB, event="Tag Push Hook"), (202, "accepted"), id="a tag"),
        pytest.param(
            github({"repository": {"clone_url": "https://x.example/y"}}), (202, "unmatched"), id="not ours"
        ),
        pytest.param(
            github({"repository": {"clone_url": ["x"]}}), (400, "invalid"), id="an address that is a list"
        ),
        pytest.param(github([1]), (400, "invalid"), id="JSON that is a list"),
        pytest.param(github({}), (400, "invalid"), id="no repository"),
    ],
)
def test_only_a_push_to_a_repository_of_ours_wakes(hook, request_, expected):
    assert hook.ask(*request_)[:2] == expected


@pytest.mark.parametrize("body", [b"payload=%7B%7D", b"[" * 100_000, b"\xff\xfe"])
def test_a_body_that_is_no_json_is_refused_in_words(hook, body):
    code, outcome, said = hook.ask({"x-hub-signature-256": f"sha256={signature(body)}"}, body)
    assert (code, outcome) == (400, "invalid")
    assert "application/json" in said


def test_two_keys_count_while_one_is_replaced_by_the_other_and_the_file_is_read_anew(hook):
    hook.key_file.write_text(f"{KEY}\nthe next key of this hook\n")
    assert hook.ask(*github(GITHUB))[0] == 202
    assert hook.ask(*github(GITHUB, key="the next key of this hook"))[0] == 202
    hook.key_file.write_text("the next key of this hook\n")
    assert hook.ask(*github(GITHUB))[0] == 401


def test_without_a_key_nothing_is_believed(hook):
    hook.key_file.unlink()
    assert hook.ask(*github(GITHUB, key=""))[:2] == (503, "refused")
    for text in ("", "\n\n", "short"):
        hook.key_file.write_text(text)
        assert hook.ask(*github(GITHUB, key=text))[:2] == (503, "refused")
    with pytest.raises(ValueError, match="must hold keys of at least 16 characters"):
        asyncio.run(hook.receiver.serve("127.0.0.1", 0))


def test_what_cannot_be_passed_on_is_to_be_sent_again(hook):
    hook.error = Unavailable("no connection")
    assert hook.ask(*github(GITHUB))[0] == 503


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (HTTPS, "git@git.example.com:team/bikes"),
        (HTTPS, "ssh://git@git.example.com:22/Team/Bikes.git"),
        (HTTPS, "https://token@git.example.com/team/bikes/"),
    ],
)
def test_addresses_of_one_place_are_the_same(one, other):
    assert place_of(one) == place_of(other) != ""


@pytest.mark.parametrize("url", ["", "/srv/git/x", "--upload-pack=x", "ext::sh -c x", "https://x/" + "a" * 4000])
def test_what_is_no_address_of_a_server_is_no_place(url):
    assert place_of(url) == ""
    assert places_in({"repository": {"clone_url": url}}) == frozenset()


def test_a_bucket_admits_a_burst_and_then_so_many_a_second():
    now = [0.0]
    bucket = Bucket(BURST, PER_S, lambda: now[0])
    assert sum(bucket.admits() for _ in range(200)) == BURST
    now[0] += 2.0
    assert sum(bucket.admits() for _ in range(200)) == 2 * PER_S


def raw(hook, *requests):
    """Send requests over real connections; returns status and text of each."""

    async def one(port, data, finish):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        if finish:
            writer.write_eof()
        answer = (await asyncio.wait_for(reader.read(), 20)).decode()
        writer.close()
        return int(answer.split()[1]), answer.rpartition("\r\n\r\n")[2].strip()

    async def story():
        server = await hook.receiver.serve("127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        answers = [await one(port, *request) for request in requests]
        server.close()
        return answers

    return asyncio.run(story())


def test_over_a_connection_limits_hold_before_the_body_is_read(hook):
    line = "POST /hook HTTP/1.1\r\n"
    answers = raw(
        hook,
        (f"{line}Content-Length: {BODY_MAX + 1}\r\n\r\n".encode() + b"x" * 100_000, False),
        (f"{line}Content-Length: 99999999999999999999\r\n\r\n".encode(), False),
        (f"{line}Content-Length: -1\r\n\r\n".encode(), False),
        (f"{line}Transfer-Encoding: chunked\r\n\r\n".encode(), False),
        (b"GET /hook HTTP/1.1\r\n\r\n", False),
        (b"POST /metrics HTTP/1.1\r\n\r\n", False),
        (f"{line}Content-Length: 10\r\n\r\nhalf".encode(), True),
        (b"nonsense\r\n\r\n", False),
        (b"\0" * 50_000, False),
    )
    assert [code for code, _ in answers] == [413, 413, 411, 411, 405, 404, 400, 400, 400]
    assert answers[0][1] == f"a push has at most {BODY_MAX} bytes, this one {BODY_MAX + 1}"
    assert hook.woken == []


def test_over_a_connection_a_push_is_answered_and_counted_and_too_many_are_sent_away(hook):
    async def story():
        server = await hook.receiver.serve("127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook?from=tests"
        headers, body = github(GITHUB)
        async with httpx.AsyncClient(trust_env=False) as client:
            answers = [await client.post(url, content=body, headers=headers) for _ in range(int(BURST) + 20)]
        server.close()
        return answers

    answers = asyncio.run(story())
    assert answers[0].text == "2 objects will be polled now\n"
    assert {a.status_code for a in answers} == {202, 429}
    assert next(a for a in answers if a.status_code == 429).headers["retry-after"]
    assert set(hook.counted) == {("github", "accepted"), ("github", "limited")}


# -- what a push sets going ---------------------------------------------------------------------------------------


def model(name, url, version="1"):
    meta = {"name": name, "namespace": "a", "resourceVersion": version}
    return {"kind": "ModelSpec", "metadata": meta, "spec": {"source": {"url": url}}}


class Live:
    """Takes annotations."""

    def __init__(self):
        self.annotations: dict[str, str | None] = {}

    async def annotate(self, key, annotations):
        assert key == LEASE
        self.annotations |= annotations
        return {}


LEASE = Key("Lease", "system", "mainspring-canary")


def replica(tmp_path, live, me, *, leads):
    cache = Cache()
    woken: list[Key] = []
    cache.put(model("bikes", HTTPS))
    cache.put(model("taxis", "https://git.example.com/team/taxis.git"))
    repository = {"kind": "ModelRepository", "metadata": {"name": "all", "namespace": "a", "resourceVersion": "1"}}
    cache.put({**repository, "spec": {"url": "git@git.example.com:team/bikes.git"}})
    mirrors = PushedMirrors(tmp_path / me)
    kube: Any = live
    made = Pushes(
        cache=cache, mirrors=mirrors, live=kube, lease=LEASE, me=me, add=woken.append, leading=lambda: leads
    )
    return made, mirrors, woken


def test_the_leader_looks_at_all_that_use_the_repository_and_at_nothing_else(tmp_path):
    pushes, mirrors, woken = replica(tmp_path, Live(), "first", leads=True)
    assert asyncio.run(pushes.wake(HERE)) == 2
    assert woken == [Key("ModelRepository", "a", "all"), Key("ModelSpec", "a", "bikes")]
    assert asyncio.run(pushes.wake(frozenset({"git.example.com/other/thing"}))) == 0
    assert len(mirrors._pushed) == 1


def test_a_standby_passes_it_on_once_and_without_the_address(tmp_path):
    live = Live()
    standby, _, idle = replica(tmp_path, live, "second", leads=False)
    leader, mirrors, woken = replica(tmp_path, live, "first", leads=True)
    assert asyncio.run(standby.wake(HERE)) == 2
    assert idle == []
    meta = {"name": LEASE.name, "namespace": LEASE.namespace, "annotations": live.annotations}
    lease = {"kind": "Lease", "metadata": meta}
    for _ in range(3):
        leader.heard(lease)
    assert woken == [Key("ModelRepository", "a", "all"), Key("ModelSpec", "a", "bikes")]
    assert len(mirrors._pushed) == 1
    assert "bikes" not in str(live.annotations[ANNOTATION_PUSHED])
    asyncio.run(standby.wake(HERE))
    leader.heard({**lease, "metadata": {**meta, "annotations": live.annotations}})
    assert len(woken) == 4


def test_after_a_push_a_fresh_poll_counts_as_old_once_per_ref(tmp_path):
    asked = []

    class Answered(PushedMirrors):
        async def _resolve(self, url, ref, credential, max_age_s, timeout_s, *, strict):
            asked.append((ref.branch, strict))
            return url

    mirrors = Answered(tmp_path)
    main, next_ = GitRef(branch="main"), GitRef(branch="next")

    async def story():
        for ref in (main, next_, main):
            await mirrors.resolve(HTTPS, ref, max_age_s=600)
        mirrors.pushed({token_of_url(HTTPS)})
        for ref in (main, main, next_, next_):
            await mirrors.resolve(HTTPS, ref, max_age_s=600)

    asyncio.run(story())
    assert asked == [
        ("main", False),
        ("next", False),
        ("main", False),
        ("main", True),
        ("main", False),
        ("next", True),
        ("next", False),
    ]
