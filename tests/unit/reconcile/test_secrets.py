"""Who may use a Secret: its label says so, and whoever is refused reads the line that admits him."""

from __future__ import annotations

import asyncio
import base64
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from controller.api.kinds import ModelSpec
from controller.api.meta import Key
from controller.clients import credentials
from controller.clients.errors import Denied, NotFound
from controller.clients.redact import redact
from controller.reconcile import access
from controller.reconcile.access import Access
from controller.reconcile.secrets import FRESH_S, SecretBook, User
from tests.corpus import standing

CHURN = Key("ModelSpec", "ml", "churn")
USER = User(CHURN, "source.secretRef")


class Objects:
    """An API server that has these objects and counts who asks."""

    def __init__(self, *manifests):
        self.asked = []
        self.objects = {}
        for manifest in manifests:
            self.put(manifest)

    def put(self, manifest):
        meta = manifest["metadata"]
        self.objects[Key(manifest["kind"], meta["namespace"], meta["name"])] = manifest

    async def get(self, key):
        self.asked.append(key)
        return self.objects.get(key)


def secret(name="churn-git", label="churn", namespace="ml", **data):
    labels = {} if label is None else {"mainspring.dev/usable-by": label}
    given = {k: v if isinstance(v, bytes) else v.encode() for k, v in (data or {"bearerToken": "t0ken"}).items()}
    values = {k: base64.b64encode(v).decode() for k, v in given.items()}
    return {
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "data": values,
    }


@pytest.mark.anyio
@pytest.mark.parametrize("label", ["churn", "Any"])
async def test_a_secret_that_admits_its_user_is_read(label):
    assert (await SecretBook(Objects(secret(label=label))).get("churn-git", USER)).data == {"bearerToken": "t0ken"}


@pytest.mark.parametrize(
    ("present", "kind", "reason", "message"),
    [
        pytest.param(
            None,
            NotFound,
            "SecretNotFound",
            "Secret churn-git (source.secretRef of ModelSpec churn) is not in namespace ml: create it with the "
            "keys that docs/secrets.md names, and then: kubectl label secret churn-git -n ml "
            "mainspring.dev/usable-by=churn",
            id="Y35 missing",
        ),
        pytest.param(
            secret(label=None),
            Denied,
            "SecretNotUsable",
            "Secret churn-git (source.secretRef of ModelSpec churn) in namespace ml has no label "
            "mainspring.dev/usable-by, so it was not used. If churn may use it: kubectl label secret churn-git "
            "-n ml mainspring.dev/usable-by=churn",
            id="Y35 no label",
        ),
        pytest.param(
            secret(label="bikes"),
            Denied,
            "SecretNotUsable",
            "Secret churn-git (source.secretRef of ModelSpec churn) in namespace ml admits bikes by its label "
            "mainspring.dev/usable-by, so it was not used. If churn may use it: kubectl label secret churn-git "
            "-n ml --overwrite mainspring.dev/usable-by=churn (or =Any, for every object there)",
            id="Y35 a label for another",
        ),
        pytest.param(
            secret(namespace="other"), NotFound, "SecretNotFound", "", id="Y35 in another namespace only"
        ),
    ],
)
def test_a_secret_that_cannot_be_used_says_what_to_do(present, kind, reason, message):
    book = SecretBook(Objects(*([present] if present else [])))
    with pytest.raises(kind) as caught:
        asyncio.run(book.get("churn-git", USER))
    standing.git_says(caught.value)
    assert caught.value.reason == reason
    assert not message or caught.value.message == message
    assert redact(caught.value.message) == caught.value.message


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        pytest.param(
            {"user": "a"}, "SecretKeyMissing", "has user, but needs username and password", id="Y35 wrong key"
        ),
        pytest.param(
            {"username": "a", "password": ""},
            "SecretKeyMissing",
            "needs username and password",
            id="Y35 empty value",
        ),
        pytest.param(
            {"bearerToken": b"\xff\xfe\x00"},
            "SecretInvalid",
            "the value of key bearerToken is no text of at most 65,536 bytes",
            id="Y35 binary",
        ),
        pytest.param({"bearerToken": "a\x00b"}, "SecretInvalid", "control character inside", id="Y35 a zero byte"),
    ],
)
def test_a_secret_of_other_content_says_what_is_wrong_with_it(data, reason, words):
    book = SecretBook(Objects(secret(**data)))
    with pytest.raises(Denied) as caught:
        credentials.git(asyncio.run(book.get("churn-git", USER)), "https://git.example.com/x.git")
    standing.git_says(caught.value)
    assert caught.value.reason == reason
    assert words in caught.value.message


@pytest.mark.apart("it is refused where it is written, and never stored")
@pytest.mark.parametrize(
    "reference", [{"name": "other/churn-git"}, {"name": "churn-git", "namespace": "other"}], ids=["Y35 a", "Y35 b"]
)
def test_no_reference_names_another_namespace(reference):
    with pytest.raises(ValidationError):
        spec(source={"secretRef": reference})


@pytest.mark.anyio
async def test_many_who_look_at_the_same_time_cost_one_request_and_a_change_is_seen_soon():
    now = [100.0]
    objects = Objects(secret(bearerToken="old"))
    book = SecretBook(objects, clock=lambda: now[0])
    for _ in range(50):
        await book.get("churn-git", USER)
    assert len(objects.asked) == 1
    objects.put(secret(bearerToken="new"))
    now[0] += FRESH_S
    assert (await book.get("churn-git", USER)).data["bearerToken"] == "new"


def job(**volumes):
    mounted = [{"name": n.replace("_", "-"), "secret": s} for n, s in volumes.items()]
    spec = {"template": {"spec": {"volumes": [{"name": "work", "emptyDir": {}}, *mounted]}}}
    meta = {"name": "churn-1", "namespace": "ml", "labels": {"mainspring.dev/model": "churn"}}
    return {"kind": "Job", "metadata": meta, "spec": spec}


def world(objects) -> Any:
    nothing: Any = None
    found = Access(SecretBook(objects), nothing, nothing)
    return SimpleNamespace(access=found, kube=objects, git="plain")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("mounted", "present", "reason"),
    [
        pytest.param(
            "data_credentials_0", secret("s", None, username="a", password="b"), "SecretNotUsable", id="label"
        ),
        pytest.param("data_credentials_0", secret("s", username="a"), "SecretKeyMissing", id="keys of data"),
        pytest.param("registry_credentials", secret("s", accesskey="a"), "SecretKeyMissing", id="keys of MLflow"),
        pytest.param("git_credentials", secret("s", "bikes"), "SecretNotUsable", id="label of another"),
        pytest.param("git_credentials", secret("t"), "SecretNotFound", id="missing"),
    ],
)
async def test_no_pod_is_made_that_mounts_a_secret_which_its_model_may_not_use(mounted, present, reason):
    with pytest.raises((Denied, NotFound)) as caught:
        await access.check_mounts(world(Objects(present)), job(**{mounted: {"secretName": "s"}}))
    assert caught.value.reason == reason


@pytest.mark.anyio
async def test_servers_that_mount_it_already_can_still_be_scaled_when_the_secret_is_gone():
    there = job(registry_credentials={"secretName": "s"})
    await access.check_mounts(world(Objects(there)), there)


@pytest.mark.anyio
async def test_the_well_known_secret_of_the_registry_is_optional():
    objects = Objects()
    mounted = {"secretName": "mainspring-registry", "optional": True}
    await access.check_mounts(world(objects), job(registry_credentials=mounted))
    assert objects.asked == []


def spec(**more):
    return ModelSpec.model_validate(
        {
            "metadata": {"name": "churn", "namespace": "ml"},
            "spec": {
                "source": {
                    "url": "https://git.example.com/x.git",
                    "ref": {"branch": "main"},
                    **more.pop("source", {}),
                },
                "data": [{"name": "train", "path": "train.csv", **more.pop("data", {})}],
                "columns": {"target": "y"},
                "training": {"command": ["python", "train.py"]},
                **more,
            },
        }
    )


REF = {"secretRef": {"name": "s"}}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("more", "field"),
    [
        pytest.param({"source": REF}, "source.secretRef", id="git"),
        pytest.param({"data": REF}, "data[train].secretRef", id="data"),
        pytest.param({"registry": REF}, "registry.secretRef", id="registry"),
    ],
)
async def test_local_mode_refuses_a_field_that_it_could_only_ignore(more, field):
    local: Any = SimpleNamespace(access=None, git="plain")
    with pytest.raises(Denied, match="local mode has no Secrets: leave secretRef out") as caught:
        await access.git_for(local, spec(**more))
    assert caught.value.message.startswith(f"{field} names a Secret")
    assert await access.git_for(local, spec()) is local.git
