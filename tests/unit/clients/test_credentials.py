"""What a Secret must hold: each use with its keys, and a sentence for whoever left one out; never a value."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from controller.clients import credentials
from controller.clients.credentials import Secret, WebLogin
from controller.clients.errors import Denied, NotFound
from controller.clients.redact import redact

HTTPS, SSH = "https://git.example.com/churn.git", "ssh://git@git.example.com/churn.git"
PLAIN_KEY = base64.b64encode(b"openssh-key-v1\0\0\0\0\x04none\0\0\0\x04none\0\0\0\0" + b"k" * 60).decode()
LOCKED_KEY = base64.b64encode(b"openssh-key-v1\0\0\0\0\x0aaes256-ctr\0\0\0\x06bcrypt" + b"k" * 60).decode()
VALUE = "v4lueThatNobodySees"


def pem(body):
    return f"-----BEGIN OPENSSH PRIVATE KEY-----\n{body}\n-----END OPENSSH PRIVATE KEY-----\n"


def secret(**data):
    return Secret("churn-git", "source.secretRef of ModelSpec churn", data)


def refusal(read, *arguments):
    with pytest.raises(Denied) as caught:
        read(*arguments)
    message = caught.value.message
    assert "\n" not in message
    assert VALUE not in message
    assert redact(message) == message, "the redactor must not take the advice away"
    assert "churn-git (source.secretRef of ModelSpec churn)" in message or caught.value.reason == "SecretNotUsed"
    return caught.value


def test_git_over_https_takes_a_user_a_bearer_token_or_only_a_ca():
    basic = credentials.git(secret(username="robot", password=f"{VALUE}\n"), HTTPS)
    assert (basic.username, basic.password, basic.token) == ("robot", VALUE, "")
    assert credentials.git(secret(bearerToken=VALUE), HTTPS).token == VALUE
    ca = "-----BEGIN CERTIFICATE-----\nx\n"
    assert credentials.git(secret(caFile=ca), HTTPS).ca == ca
    assert credentials.git(secret(**{"ca.crt": ca, "bearerToken": VALUE}), HTTPS).ca == ca


@pytest.mark.parametrize("url", [SSH, "git@git.example.com:churn.git"])
def test_git_over_ssh_takes_a_key_and_the_hosts_that_it_knows(url):
    found = credentials.git(secret(identity=pem(PLAIN_KEY), known_hosts="git.example.com ssh-ed25519 A"), url)
    assert found.ssh_key == pem(PLAIN_KEY)
    assert found.known_hosts.startswith("git.example.com")


@pytest.mark.parametrize(
    ("data", "url", "reason", "words"),
    [
        pytest.param(
            {"username": "robot", "extra": VALUE},
            HTTPS,
            "SecretKeyMissing",
            "has extra, username, but needs username and password, or bearerToken",
            id="a user name without its password",
        ),
        pytest.param({}, HTTPS, "SecretKeyMissing", "has no key, but needs username", id="nothing at all"),
        pytest.param(
            {"username": "robot", "password": VALUE},
            SSH,
            "SecretKeyMissing",
            "needs identity and known_hosts, since its URL is one of ssh",
            id="a password for a repository over ssh",
        ),
        pytest.param(
            {"identity": pem(PLAIN_KEY)},
            SSH,
            "SecretKeyMissing",
            "has identity, but needs identity and known_hosts",
            id="a key without known hosts",
        ),
        pytest.param(
            {"identity": pem(LOCKED_KEY), "known_hosts": "x"},
            SSH,
            "SecretInvalid",
            "the value of key identity has a passphrase",
            id="a key that needs a passphrase",
        ),
        pytest.param(
            {"identity": VALUE, "known_hosts": "x"},
            SSH,
            "SecretInvalid",
            "is no private key in PEM form",
            id="no PEM",
        ),
        pytest.param(
            {"bearerToken": f"{VALUE}\r\nX-Evil: 1"},
            HTTPS,
            "SecretInvalid",
            "the value of key bearerToken has a line end",
            id="a header smuggled into a token",
        ),
        pytest.param(
            {"username": "robot\nother", "password": VALUE},
            HTTPS,
            "SecretInvalid",
            "the value of key username has a line end",
            id="a line smuggled into a user name",
        ),
        pytest.param(
            {"bearerToken": f"{VALUE} x"}, HTTPS, "SecretInvalid", "has a space", id="a token of two words"
        ),
        pytest.param(
            {"caFile": VALUE}, HTTPS, "SecretInvalid", "is no certificate in PEM form", id="no certificate"
        ),
        pytest.param(
            {"bearerToken": VALUE, "hosts": "git.example.org, *.corp.example.com"},
            HTTPS,
            "SecretNotForHost",
            "is for git.example.org, *.corp.example.com, not for 'git.example.com': nothing was sent",
            id="a Secret for another host",
        ),
        pytest.param(
            {"username": "robot"}, "file:///srv/x.git", "SecretNotUsed", "takes no login", id="a local one"
        ),
    ],
)
def test_a_login_for_git_that_cannot_be_used_says_what_is_missing(data, url, reason, words):
    error = refusal(credentials.git, secret(**data), url)
    assert error.reason == reason
    assert words in error.message


def test_a_host_that_the_secret_names_gets_its_login():
    assert credentials.git(secret(bearerToken=VALUE, hosts="*.example.com\n"), HTTPS).token == VALUE


def test_data_takes_a_web_login_or_s3_keys_under_either_name():
    web = credentials.data(secret(username="robot", password=VALUE))
    assert web.web == WebLogin("robot", VALUE)
    assert web.s3 is None
    by_token: Any = credentials.data(secret(token=VALUE)).web
    assert by_token.header() == f"Bearer {VALUE}"
    keys: Any = credentials.data(
        secret(accesskey="AK", secretkey=VALUE, endpoint="minio.example.com:9000", region="eu-1")
    ).s3
    assert (keys.access_key, keys.secret_key, keys.region) == ("AK", VALUE, "eu-1")
    assert keys.endpoint == "https://minio.example.com:9000"
    aws = {"AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": VALUE, "AWS_SESSION_TOKEN": "T"}
    keys = credentials.data(secret(**aws)).s3
    assert keys.session_token == "T"


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        pytest.param(
            {"accesskey": "AK"}, "SecretKeyMissing", "or accesskey and secretkey", id="half of an S3 login"
        ),
        pytest.param(
            {"username": "x", "token": VALUE}, "SecretKeyMissing", "username and password", id="half a login"
        ),
        pytest.param(
            {"identity": VALUE}, "SecretKeyMissing", "has identity, but needs", id="keys for something else"
        ),
        pytest.param(
            {"accesskey": "AK", "secretkey": VALUE, "endpoint": f"https://u:{VALUE}@h"},
            "SecretInvalid",
            "the value of key endpoint is no address",
            id="a password inside the endpoint",
        ),
    ],
)
def test_a_login_for_data_that_cannot_be_used_says_what_is_missing(data, reason, words):
    error = refusal(credentials.data, secret(**data))
    assert error.reason == reason
    assert words in error.message


def test_mlflow_takes_a_user_or_a_token_and_not_both_by_halves():
    assert credentials.registry(secret(username="robot", password=VALUE)).header().startswith("Basic ")
    assert credentials.registry(secret(token=f"{VALUE}\n")).header() == f"Bearer {VALUE}"
    error = refusal(credentials.registry, secret(token=VALUE, username="robot"))
    assert error.message.endswith(
        "has token, username, but needs username and password, or token; "
        "add what is missing, docs/secrets.md shows how"
    )


def manifest(**data):
    return {"metadata": {"name": "churn-git"}, "data": data}


def test_an_object_of_the_api_is_read_as_base64():
    found = credentials.of_manifest(manifest(password=base64.b64encode(b"caf\xc3\xa9").decode()), "x")
    assert found.data == {"password": "café"}
    for bad in ("%%%", base64.b64encode(b"\xff\xfe").decode(), base64.b64encode(b"a" * 70_000).decode()):
        with pytest.raises(Denied, match="the value of key password is no text of at most 65,536 bytes"):
            credentials.of_manifest(manifest(password=bad), "x")


def test_mounted_files_are_read_as_the_kubelet_lays_them_out(tmp_path):
    data = tmp_path / "git" / "..2026_11_25"
    data.mkdir(parents=True)
    (data / "password").write_text(VALUE)
    (tmp_path / "git" / "..data").symlink_to(data.name)
    (tmp_path / "git" / "password").symlink_to("..data/password")
    assert credentials.of_directory(tmp_path / "git", "source.secretRef").data == {"password": VALUE}
    with pytest.raises(NotFound, match=r"no Secret is mounted for source\.secretRef"):
        credentials.of_directory(tmp_path / "absent", "source.secretRef")


def test_a_login_of_files_is_read_again_whenever_it_is_asked_for(tmp_path):
    login = credentials.registry_here({"MAINSPRING_CREDENTIALS": str(tmp_path), "MLFLOW_TRACKING_TOKEN": "env"})
    assert login().header() == "Bearer env"
    (tmp_path / "registry").mkdir()
    for value in ("first", "second"):
        (tmp_path / "registry" / "token").write_text(value)
        assert login().header() == f"Bearer {value}"


def test_no_repr_shows_a_value():
    shown = [
        repr(secret(password=VALUE)),
        repr(WebLogin("robot", VALUE, VALUE)),
        repr(credentials.data(secret(accesskey=VALUE, secretkey=VALUE, sessiontoken=VALUE))),
        repr(credentials.git(secret(bearerToken=VALUE), HTTPS)),
    ]
    assert VALUE not in "".join(shown)
