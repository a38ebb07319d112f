"""Secrets that a ModelSpec names and that cannot be used: Y35. Each answer is that of the code that reads them."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from controller.api.meta import LABEL_USABLE_BY, Key
from controller.clients import credentials
from controller.clients.errors import ClientError
from controller.reconcile.secrets import SecretBook, User
from tests.corpus import standing

USER = User(Key("ModelSpec", "default", "bikes"), "source.secretRef")
RIGHT = {"username": b"robot", "password": b"hunter2"}


class Secrets:
    """An API server with at most one Secret."""

    def __init__(self, data: dict[str, bytes] | None, labels: dict[str, str]) -> None:
        self.data, self.labels = data, labels

    async def get(self, key: Key) -> Any:
        if self.data is None:
            return None
        coded = {k: base64.b64encode(v).decode() for k, v in self.data.items()}
        meta = {"name": key.name, "namespace": key.namespace, "labels": self.labels}
        return {"kind": "Secret", "metadata": meta, "data": coded}


OURS = {LABEL_USABLE_BY: "bikes"}
ROWS = [
    (
        "Y35-missing",
        (None, {}),
        "SecretNotFound",
        "Secret git (source.secretRef of ModelSpec bikes) is not in namespace default: create it with the keys",
    ),
    (
        "Y35-without our label",
        (RIGHT, {}),
        "SecretNotUsable",
        f"has no label {LABEL_USABLE_BY}, so it was",
    ),
    (
        "Y35-of another model",
        (RIGHT, {LABEL_USABLE_BY: "trams"}),
        "SecretNotUsable",
        f"admits trams by its label {LABEL_USABLE_BY}, so it was not used",
    ),
    (
        "Y35-a wrong key",
        ({"user": b"robot", "pass": b"hunter2"}, OURS),
        "SecretKeyMissing",
        "has pass, user, but needs username and password",
    ),
    (
        "Y35-an empty value",
        ({**RIGHT, "password": b""}, OURS),
        "SecretKeyMissing",
        "has password (empty), username, but needs",
    ),
    (
        "Y35-bytes that are no text",
        ({**RIGHT, "password": b"\xff\xfehunter2"}, OURS),
        "SecretInvalid",
        "the value of key password is no text",
    ),
]


@pytest.mark.parametrize(("secret", "reason", "words"), [pytest.param(*rest, id=name) for name, *rest in ROWS])
def test_a_secret_that_cannot_be_used_is_told_without_its_content(secret, reason, words):
    async def login() -> object:
        found = await SecretBook(Secrets(*secret)).get("git", USER)
        return credentials.git(found, standing.BIKES)

    with pytest.raises(ClientError) as caught:
        asyncio.run(login())
    assert caught.value.reason == reason
    assert words in caught.value.message
    assert "hunter2" not in caught.value.message
    standing.git_says(caught.value)
