"""What a Secret must hold for each use, and how it is read: from an object of the API or from mounted files.

One set of rules for the operator and for the pods, so that what the operator accepts works in the pod.  Every
refusal names the Secret, the keys that it has and those that are needed; no value of a key is ever in a message, a
repr, an argument, a variable or a log.  Expected keys are described for people in `docs/secrets.md`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from controller.api import git_rules
from controller.api.meta import Manifest
from controller.clients.errors import Denied, NotFound
from controller.clients.git_types import Credential

PAGE: Final = "docs/secrets.md"
VALUE_MAX_BYTES: Final = 65_536
"""Largest value that is read; the API server allows a Secret 1 MiB in all."""
BASIC: Final = ("username", "password")
GIT_BEARER: Final = "bearerToken"
TOKEN: Final = "token"  # noqa: S105 - the name of a key
CA: Final = ("caFile", "ca.crt")
SSH: Final = ("identity", "known_hosts")
S3_KEYS: Final = (("accesskey", "AWS_ACCESS_KEY_ID"), ("secretkey", "AWS_SECRET_ACCESS_KEY"))
"""The two that an S3 login needs, each under either of its names."""
HOSTS: Final = "hosts"
"""Optional in every Secret: hosts that may see what is in it, separated by commas or line ends."""
_LINE: Final = re.compile(r"[\x20-\x7e\x80-\U0010ffff]+")
_WORD: Final = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Secret:
    """The keys of one Secret, with what messages need: its name, and the field that asked for it."""

    name: str
    asked_by: str
    """Field and object, `source.secretRef of ModelSpec churn`."""
    data: Mapping[str, str] = field(repr=False)

    def line(self, key: str, *others: str) -> str:
        """Return a value of one line, under the first of its names that is there; empty when none is.

        A line end at the end, as `echo` leaves it, is dropped.

        Raises:
            Denied: SecretInvalid: a line end or control character inside.
        """
        name = next((k for k in (key, *others) if k in self.data), "")
        value = self.data.get(name, "").rstrip("\r\n")
        if value and not _LINE.fullmatch(value):
            raise self.invalid(name, "has a line end or control character inside")
        return value

    def word(self, key: str, *others: str) -> str:
        """Return a value that goes into a header as it is: printable ASCII without a space; else as `line`."""
        value = self.line(key, *others)
        if value and not _WORD.fullmatch(value):
            name = next(k for k in (key, *others) if k in self.data)
            raise self.invalid(name, "has a space or a character beyond ASCII inside")
        return value

    def invalid(self, key: str, what: str) -> Denied:
        """Refuse the value of a key."""
        return Denied(
            f"Secret {self.name} ({self.asked_by}): the value of key {key} {what}", reason="SecretInvalid"
        )

    def lacks(self, needed: str) -> Denied:
        """Refuse a Secret without the keys that are needed."""
        empty = {k for k, v in self.data.items() if not v.strip()}
        names = [git_rules.shown(k, 60)[1:-1] + " (empty)" * (k in empty) for k in sorted(self.data)[:20]]
        there = ", ".join(names) or "no key"
        return Denied(
            f"Secret {self.name} ({self.asked_by}) has {there}, but needs {needed}; add what is missing, {PAGE} "
            "shows how",
            reason="SecretKeyMissing",
        )

    def hosts(self) -> tuple[str, ...]:
        """Return the hosts that may see the credentials; empty: all."""
        return tuple(h for h in re.split(r"[,\s]+", self.data.get(HOSTS, "")) if h)

    def check_host(self, host: str) -> None:
        """Keep credentials from a host that the Secret does not name.

        Raises:
            Denied: SecretNotForHost.
        """
        allowed = self.hosts()
        if allowed and not git_rules.host_listed(host, allowed):
            raise Denied(
                f"Secret {self.name} ({self.asked_by}) is for {', '.join(allowed)[:200]}, not for "
                f"{git_rules.shown(host, 100)}: nothing was sent; correct the address, or key {HOSTS} of the "
                "Secret",
                reason="SecretNotForHost",
            )


@dataclass(frozen=True, slots=True)
class WebLogin:
    """User name and password, or a bearer token, for a server that speaks HTTP."""

    username: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    def header(self) -> str:
        """Return the value of the Authorization header; empty without a login."""
        if self.username:
            pair = f"{self.username}:{self.password}".encode()
            return f"Basic {base64.b64encode(pair).decode('ascii')}"
        return f"Bearer {self.token}" if self.token else ""


@dataclass(frozen=True, slots=True)
class S3Login:
    """Keys for an S3 service, and where it is if not where the repository says."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)
    endpoint: str = ""
    region: str = ""


@dataclass(frozen=True, slots=True)
class DataLogin:
    """Credentials for one dataset: of a web server, of an S3 service, or of both."""

    secret: Secret
    web: WebLogin | None = None
    s3: S3Login | None = None


def of_manifest(manifest: Manifest, asked_by: str) -> Secret:
    """Read a Secret as the API server sends it.

    Raises:
        Denied: SecretInvalid: a value is no base64 of UTF-8 text, or too large.
    """
    name = manifest["metadata"]["name"]
    data: dict[str, str] = {}
    for key, value in (manifest.get("data") or {}).items():
        try:
            data[key] = _text(base64.b64decode(str(value), validate=True))
        except (binascii.Error, UnicodeDecodeError, OverflowError):
            problem = f"is no text of at most {VALUE_MAX_BYTES:,} bytes in base64"
            raise Secret(name, asked_by, {}).invalid(key, problem) from None
    # What a person writes in a file and local mode keeps as it is; an API server never sends it.
    data |= {key: str(value) for key, value in (manifest.get("stringData") or {}).items()}
    return Secret(name, asked_by, data)


def of_directory(directory: Path, asked_by: str) -> Secret:
    """Read a Secret that is mounted as files.

    Raises:
        NotFound: SecretNotFound: the directory is not there or empty.
        Denied: SecretInvalid: a value is no UTF-8 text, or too large.
    """
    data: dict[str, str] = {}
    files = sorted(directory.iterdir()) if directory.is_dir() else []
    for file in files:
        # The kubelet keeps the files in a directory `..data` and links to them.
        if file.name.startswith("..") or not file.is_file():
            continue
        try:
            with file.open("rb") as opened:
                data[file.name] = _text(opened.read(VALUE_MAX_BYTES + 1))
        except (UnicodeDecodeError, OverflowError):
            problem = f"is no text of at most {VALUE_MAX_BYTES:,} bytes"
            raise Secret(directory.name, asked_by, {}).invalid(file.name, problem) from None
    if not data:
        raise NotFound(f"no Secret is mounted for {asked_by}: {PAGE} shows what it needs", reason="SecretNotFound")
    return Secret(directory.name, asked_by, data)


def _text(value: bytes) -> str:
    if len(value) > VALUE_MAX_BYTES:
        raise OverflowError
    return value.decode()


def git(secret: Secret, url: str) -> Credential:
    """Read a login for a Git repository: by what its URL speaks, and bound to its host.

    Raises:
        Denied: SecretKeyMissing, SecretInvalid, SecretNotForHost; SecretNotUsed where the URL takes no login.
    """
    parts = git_rules.parse_url(url)
    scheme = parts.scheme if parts is not None else ""
    if parts is None or scheme == "file":
        raise Denied(
            f"{secret.asked_by} names a Secret, but a local repository takes no login: leave secretRef out",
            reason="SecretNotUsed",
        )
    secret.check_host(parts.host)
    if scheme == "ssh":
        return _ssh(secret)
    ca = _ca(secret)
    bearer = secret.word(GIT_BEARER)
    username, password = (secret.line(k) for k in BASIC)
    if bearer and not username:
        return Credential(token=bearer, ca=ca)
    if username and password:
        return Credential(username=username, password=password, ca=ca)
    if ca and not username and not password:
        return Credential(ca=ca)
    raise secret.lacks(f"{BASIC[0]} and {BASIC[1]}, or {GIT_BEARER} (and {CA[0]} for a CA of your own)")


def _ssh(secret: Secret) -> Credential:
    identity, known_hosts = (secret.data.get(k, "") for k in SSH)
    if not identity.strip() or not known_hosts.strip():
        raise secret.lacks(f"{SSH[0]} and {SSH[1]}, since its URL is one of ssh")
    if "PRIVATE KEY" not in identity:
        raise secret.invalid(SSH[0], "is no private key in PEM form")
    if _has_passphrase(identity):
        raise secret.invalid(SSH[0], "has a passphrase, which nobody could type: store a key without one")
    return Credential(ssh_key=identity, known_hosts=known_hosts)


def _has_passphrase(identity: str) -> bool:
    if "ENCRYPTED" in identity:
        return True
    body = "".join(line for line in identity.splitlines() if line and "-----" not in line)
    try:
        # OpenSSH's own form starts with a magic word, then the cipher: `none` without a passphrase.
        start = base64.b64decode(body[: len(body) // 4 * 4][:120])
    except (binascii.Error, ValueError):
        return False
    return start.startswith(b"openssh-key-v1\0") and b"\x00\x00\x00\x04none" not in start[:40]


def _ca(secret: Secret) -> str:
    name = next((k for k in CA if secret.data.get(k, "").strip()), "")
    if not name:
        return ""
    if "BEGIN CERTIFICATE" not in secret.data[name]:
        raise secret.invalid(name, "is no certificate in PEM form")
    return secret.data[name]


def data(secret: Secret) -> DataLogin:
    """Read a login for datasets.

    Raises:
        Denied: SecretKeyMissing, SecretInvalid.
    """
    access, key = (secret.line(*names) for names in S3_KEYS)
    username, password = (secret.line(k) for k in BASIC)
    token = secret.word(TOKEN, GIT_BEARER)
    s3 = None
    if access and key:
        s3 = S3Login(
            access,
            key,
            session_token=secret.line("sessiontoken", "AWS_SESSION_TOKEN"),
            endpoint=_endpoint(secret),
            region=secret.line("region", "AWS_REGION"),
        )
    web = WebLogin(username, password) if username and password else WebLogin(token=token) if token else None
    half = bool(access) != bool(key) or bool(username) != bool(password)
    if half or (s3 is None and web is None):
        raise secret.lacks(f"{BASIC[0]} and {BASIC[1]}, or {TOKEN}, or {S3_KEYS[0][0]} and {S3_KEYS[1][0]}")
    return DataLogin(secret, web, s3)


def _endpoint(secret: Secret) -> str:
    endpoint = secret.line("endpoint", "AWS_ENDPOINT_URL")
    if not endpoint:
        return ""
    parts = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.username is not None:
        raise secret.invalid("endpoint", "is no address: write https://<host>[:<port>]")
    return parts.geturl()


GS_KEY: Final = "credentials.json"
"""The key of a Google service account, as Google gives it out."""


def store(secret: Secret, scheme: str) -> dict[str, str]:
    """Read a login for the store of the prediction log: the settings that its file system takes.

    Args:
        secret: what was read.
        scheme: s3, gs or az.

    Raises:
        Denied: SecretKeyMissing, SecretInvalid.
    """
    if scheme == "s3":
        login = data(secret).s3
        if login is None:
            raise secret.lacks(f"{S3_KEYS[0][0]} and {S3_KEYS[1][0]}, since the log is kept in s3://")
        found = {"accesskey": login.access_key, "secretkey": login.secret_key, "sessiontoken": login.session_token}
        return {**found, "endpoint": login.endpoint, "region": login.region}
    if scheme == "gs":
        if not secret.data.get(GS_KEY, "").lstrip().startswith("{"):
            raise secret.lacks(f"{GS_KEY}, the key of a service account, since the log is kept in gs://")
        return {"endpoint": _endpoint(secret)}
    account, key, token = (secret.line(k) for k in ("account", "accountkey", "sastoken"))
    if not account or bool(key) == bool(token):
        raise secret.lacks("account and one of accountkey and sastoken, since the log is kept in az://")
    return {"account": account, "accountkey": key, "sastoken": token}


def registry(secret: Secret) -> WebLogin:
    """Read a login for MLflow.

    Raises:
        Denied: SecretKeyMissing, SecretInvalid.
    """
    username, password = (secret.line(k) for k in BASIC)
    token = secret.word(TOKEN)
    if username and password:
        return WebLogin(username, password)
    if token and not username and not password:
        return WebLogin(token=token)
    raise secret.lacks(f"{BASIC[0]} and {BASIC[1]}, or {TOKEN}")


def registry_here(environment: Mapping[str, str]) -> Callable[[], WebLogin]:
    """Return the login of a step for MLflow: mounted files first, then what MLflow's own clients read.

    The files are read whenever it is asked for, so that they may change.  The function raises as `registry`.
    """
    at = environment.get("MAINSPRING_CREDENTIALS", "")
    names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
    given = WebLogin(*(environment.get(name, "") for name in names))

    def read() -> WebLogin:
        if not at:
            return given
        try:
            return registry(of_directory(Path(at) / "registry", "the registry"))
        except NotFound:
            return given

    return read
