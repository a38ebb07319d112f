"""What the redactor hides, what it keeps, and that it stays quick on hostile text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.clients.redact import redact

PLANTED = "s3cr3tT0kenValue99"


@pytest.mark.parametrize(
    "text",
    [
        f"https://ada:{PLANTED}@git.example.com/x",
        f"https://{PLANTED}@git.example.com/x",
        f"fatal: unable to access 'https://ada:{PLANTED}/with/slash@git.example.com/x/'",
        f"Authorization: Bearer {PLANTED}",
        f"'authorization': 'Basic {PLANTED}=='",
        f"sent bearer {PLANTED} to host",
        f"password={PLANTED}",
        f"PASSWORD: {PLANTED}",
        f'{{"password": "{PLANTED} with space"}}',
        f"MLFLOW_TRACKING_TOKEN={PLANTED}",
        f"aws_secret_access_key = {PLANTED}",
        f"https://store.example.com/x?X-Amz-Signature={PLANTED}&a=b",
        f"https://store.example.com/x?sig={PLANTED}",
        f"AccountKey={PLANTED};EndpointSuffix=x",
        f"ghp_{PLANTED}",
        f"glpat-{PLANTED}",
        f"eyJhbGciOiJI.{PLANTED}.abc",
        f"-----BEGIN OPENSSH PRIVATE KEY-----\n{PLANTED}\n-----END OPENSSH PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{PLANTED}",
    ],
)
def test_a_planted_secret_is_masked(text):
    shown = redact(text)
    assert PLANTED not in shown
    assert "***" in shown


def test_the_rest_of_the_message_survives():
    assert (
        redact("fetching https://ada:pw@git.example.com/team/x.git failed: 403")
        == "fetching https://***@git.example.com/team/x.git failed: 403"
    )


@pytest.mark.parametrize(
    "text",
    [
        "the Secret named by secretRef {name: churn-git} has no key ssh-privatekey",
        "HTTP Basic authentication failed",
        "git@git.example.com:team/churn.git",
        "größe ist 3 µm, 日本語",
        "commit 0123456789abcdef0123456789abcdef01234567",
    ],
)
def test_ordinary_text_is_kept(text):
    assert redact(text) == text


def test_hidden_characters_are_shown_as_escapes_on_one_line():
    assert (
        redact("a\nb\x1b[31m\u202ec\u200bd\x00\ud800\u2028") == "a\\nb\\x1b[31m\\u202ec\\u200bd\\x00\\ud800\\u2028"
    )


def test_a_long_text_is_cut_and_says_so():
    assert redact("x" * 500, limit=100) == "x" * 99 + "…"


@given(st.text())
def test_any_text_becomes_one_printable_line(text):
    shown = redact(text)
    assert "\n" not in shown
    assert "\x1b" not in shown
    shown.encode("utf-8")


@pytest.mark.parametrize(
    "piece",
    ["a", "://:", "password", "https://a:", "-----BEGIN PRIVATE KEY-----", "a.", "bearer ", "eyJaaaaaaaa."],
)
def test_hostile_text_takes_no_time(piece):
    began = time.perf_counter()
    redact(piece * 100_000)
    assert time.perf_counter() - began < 2.0
