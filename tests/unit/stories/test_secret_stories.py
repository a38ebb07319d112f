"""A model that needs a login, from the missing Secret to the served model: what its owner reads, and what runs."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from controller.api.meta import Key, Manifest
from controller.clients.git_types import Credential, GitRef, Head, TreeEntry
from controller.clients.signing import Verifier
from controller.reconcile.access import Access
from controller.reconcile.ledger import LedgerBook
from controller.reconcile.secrets import SecretBook
from tests.support.cluster_simulation import ClusterSimulation
from tests.support.stories import FIRST, spec

pytestmark = pytest.mark.anyio
DIGEST = f"sha256:{'0' * 64}"
TOKEN = "t0kenThatNobodySees"


class LoginGit:
    """The simulated repository behind a login."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.used = inner, set[str]()

    async def resolve(self, url: str, ref: GitRef, *, credential: Credential | None, **more: Any) -> Head:
        self.used.add(credential.token if credential else "")
        found: Head = await self.inner.resolve(url, ref, **more)
        return found

    refresh = resolve

    async def files(self, url: str, commit: str, *, credential: Credential | None) -> tuple[TreeEntry, ...]:
        found: tuple[TreeEntry, ...] = await self.inner.files(url, commit)
        return found

    async def read_many(self, *args: Any, credential: Credential | None, **more: Any) -> dict[str, bytes]:
        return dict(await self.inner.read_many(*args, **more))

    async def retire(self, url: str, credential: Credential) -> None:
        """Nothing is kept."""


@dataclass
class SecretSimulation(ClusterSimulation):
    """A cluster with Secrets."""

    secrets: dict[str, Manifest] = field(default_factory=dict)

    def put(self, name: str, label: str | None = "bikes", **data: str) -> None:
        """Write a Secret."""
        labels = {} if label is None else {"mainspring.dev/usable-by": label}
        values = {k: base64.b64encode(v.encode()).decode() for k, v in (data or {"token": TOKEN}).items()}
        meta = {"name": name, "namespace": "default", "labels": labels}
        self.secrets[name] = {"kind": "Secret", "metadata": meta, "data": values}

    async def get(self, key: Key) -> Manifest | None:
        """Answer as the API server, for Secrets."""
        return self.secrets.get(key.name)

    def restart(self) -> None:
        super().restart()

        def open_registry(_: object) -> tuple[Any, LedgerBook]:
            return self.registry, LedgerBook(
                self.registry, self.signer, Verifier([self.signer.public]), self.clock.now
            )

        self.login_git = LoginGit(self.git)
        book = SecretBook(self, clock=lambda: self.clock.now().timestamp())
        self.world = replace(self.world, access=Access(book, self.login_git, open_registry))

    async def jobs(self) -> tuple[Manifest, ...]:
        """Read the Jobs of the model."""
        return await self.store.list("Job")

    async def says(self) -> tuple[str, str, str]:
        """Read the condition Ready."""
        ready = await self.condition()
        return ready["status"], ready["reason"], ready["message"]


def private(name: str = "churn-data", **more: object) -> Manifest:
    data = {
        "name": "train",
        "uri": "https://data.example.com/d.csv",
        "digest": DIGEST,
        "secretRef": {"name": name},
    }
    made: Manifest = spec(**more)
    made["spec"]["data"] = [data]
    made["spec"]["source"]["secretRef"] = {"name": "git"}
    return made


async def test_a_model_waits_for_its_secrets_says_what_to_do_and_trains_once_they_admit_it() -> None:
    s = SecretSimulation()
    s.git.commit("Predict bikes", FIRST)
    await s.store.apply(private())
    await s.run(20)
    status, reason, message = await s.says()
    assert (status, reason) == ("False", "SecretNotFound")
    assert message.startswith(
        "Secret git (source.secretRef of ModelSpec bikes) is not in namespace default: create"
    )
    s.put("git", bearerToken=TOKEN)
    await s.run(90)
    status, reason, message = await s.says()
    assert (status, reason) == ("False", "SecretNotFound")
    assert "Secret churn-data (data[].secretRef of ModelSpec bikes) is not in namespace default" in message
    assert s.login_git.used == {TOKEN}
    s.put("churn-data", None)
    await s.run(90)
    status, reason, message = await s.says()
    assert (status, reason) == ("False", "SecretNotUsable")
    assert "kubectl label secret churn-data -n default mainspring.dev/usable-by=bikes" in message
    s.put("churn-data", username="robot")
    await s.run(90)
    _, reason, message = await s.says()
    assert reason == "SecretKeyMissing"
    assert "has username, but needs username and password, or token" in message
    assert await s.jobs() == (), "no pod mounts what it may not use"
    s.put("churn-data")
    await s.run(240)
    assert (await s.says())[0] == "True"
    (job,) = await s.jobs()
    volumes = {
        v["name"]: v["secret"]["secretName"] for v in job["spec"]["template"]["spec"]["volumes"] if "secret" in v
    }
    assert volumes == {
        "git-credentials": "git",
        "data-credentials-0": "churn-data",
        "registry-credentials": "mainspring-registry",
    }
    everything = [
        m for kind in ("ModelSpec", "ModelRevision", "Event", "ConfigMap", "Job") for m in await s.store.list(kind)
    ]
    assert TOKEN not in repr(everything)


async def test_another_name_for_the_same_secret_trains_nothing_again() -> None:
    s = SecretSimulation()
    s.git.commit("Predict bikes", FIRST)
    for name in ("churn-data", "renamed"):
        s.put(name)
    s.put("git", bearerToken=TOKEN)
    await s.store.apply(private())
    await s.run(120)
    before = await s.jobs()
    assert (await s.says())[0] == "True"
    await s.store.apply(private("renamed"))
    await s.run(120)
    assert (await s.says())[0] == "True"
    assert [j["metadata"]["name"] for j in await s.jobs()] == [j["metadata"]["name"] for j in before]


async def test_a_login_for_a_file_of_the_commit_is_refused_and_not_ignored() -> None:
    s = SecretSimulation()
    s.git.commit("Predict bikes", FIRST)
    s.put("git", bearerToken=TOKEN)
    made = private()
    made["spec"]["data"] = [{"name": "train", "path": "data.csv", "secretRef": {"name": "churn-data"}}]
    await s.store.apply(made)
    await s.run(20)
    status, reason, message = await s.says()
    assert (status, reason) == ("False", "DataSpecInvalid")
    assert message.startswith("dataset train: data.csv is a file of the commit itself, with no login of its own")


async def test_a_model_that_serves_goes_on_when_its_secrets_are_gone() -> None:
    s = SecretSimulation()
    s.git.commit("Predict bikes", FIRST)
    for name in ("churn-data", "mlflow"):
        s.put(name)
    s.put("git", bearerToken=TOKEN)
    made = private()
    made["spec"]["registry"] = {"secretRef": {"name": "mlflow"}}
    await s.store.apply(made)
    await s.run(120)
    assert (await s.says())[0] == "True"
    sizes = await s.sizes()
    s.secrets.clear()
    await s.run(120)
    assert (await s.says())[:2] == ("False", "SecretNotFound")
    assert await s.sizes() == sizes
    await s.store.patch_spec(Key("ModelSpec", "default", "bikes"), {"serving": {"minReplicas": 2}})
    await s.run(60)
    assert sum((await s.sizes()).values()) == 2, "it can be scaled all the same"


async def test_servers_move_to_the_secret_that_the_registry_has_now_and_nothing_is_trained_again() -> None:
    s = SecretSimulation()
    s.git.commit("Predict bikes", FIRST)
    for name in ("churn-data", "mlflow", "mlflow-2"):
        s.put(name)
    s.put("git", bearerToken=TOKEN)
    made = private()
    made["spec"]["registry"] = {"secretRef": {"name": "mlflow"}}
    await s.store.apply(made)
    await s.run(120)

    async def named() -> set[str]:
        pods = [d["spec"]["template"]["spec"] for d in await s.deployments() if d["spec"]["replicas"]]
        return {v["secret"]["secretName"] for pod in pods for v in pod["volumes"] if "secret" in v}

    assert await named() == {"mlflow"}
    jobs = len(await s.jobs())
    made["spec"]["registry"] = {"secretRef": {"name": "mlflow-2"}}
    await s.store.apply(made)
    await s.run(120)
    assert (await s.says())[0] == "True"
    assert await named() == {"mlflow-2"}
    assert len(await s.jobs()) == jobs
