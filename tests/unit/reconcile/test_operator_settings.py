"""The operator's settings: what is read, what is refused and in which words, and that the page says the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.reconcile.process import main
from controller.reconcile.settings import BadSetting, OperatorSettings, page

ROOT = Path(__file__).parents[3]
NEEDED = {"MAINSPRING_TRACKING_URI": "http://mlflow:5000", "MAINSPRING_SIGNING_KEY": "/keys/key.pem"}


def test_what_is_not_set_has_its_default_and_lists_are_split():
    read = OperatorSettings.read(
        {**NEEDED, "MAINSPRING_NAMESPACES": "team-a, team-b,", "MAINSPRING_ALLOWED_HOSTS": "*.example.com"}
    )
    assert read.namespaces == ("team-a", "team-b")
    assert read.allowed_hosts == ("*.example.com",)
    assert read.git_protocols == ("https", "ssh")
    assert not read.all_namespaces
    assert read.identity
    assert OperatorSettings.read({**NEEDED, "MAINSPRING_NAMESPACES": "*"}).all_namespaces


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        pytest.param("WORKERS", "many", "allowed is a whole number from 1 to 256", id="a word for a number"),
        pytest.param("WORKERS", "0", "allowed is a whole number from 1 to 256", id="no workers at all"),
        pytest.param("RESYNC", "nan", "allowed is a number from 1 to 86400", id="not a number"),
        pytest.param("METRICS_PORT", "70000", "allowed is a whole number from 0 to 65535", id="a port too high"),
        pytest.param("NAMESPACES", "Team_A", "allowed is `*` or names of namespaces", id="no namespace name"),
        pytest.param("GIT_PROTOCOLS", "https,git", "allowed is one of https, ssh, http", id="a protocol"),
        pytest.param("LOG_FORMAT", "xml", "allowed is one of json, text", id="a log format"),
        pytest.param("ALLOWED_HOSTS", "a b", "allowed is names of hosts, addresses or *.suffix", id="a host"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(variable, value, said):
    with pytest.raises(BadSetting) as caught:
        OperatorSettings.read({**NEEDED, f"MAINSPRING_{variable}": value})
    assert f"MAINSPRING_{variable} is " in str(caught.value)
    assert said in str(caught.value)


def test_an_address_with_a_password_is_refused_without_showing_it():
    with pytest.raises(BadSetting) as caught:
        OperatorSettings.read({**NEEDED, "MAINSPRING_TRACKING_URI": "ftp://me:hunter2@mlflow"})
    assert "MAINSPRING_TRACKING_URI" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_missing_setting_ends_the_process_with_2_and_one_line(monkeypatch, capsys):
    monkeypatch.delenv("MAINSPRING_TRACKING_URI", raising=False)
    assert main() == 2
    said = capsys.readouterr().err
    assert said.startswith("error: MAINSPRING_TRACKING_URI is not set; ")
    assert said.count("\n") == 1


def test_the_page_in_docs_is_the_one_that_the_code_writes():
    written = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert written == page(), "run: python -m controller.reconcile.settings > docs/settings.md"
