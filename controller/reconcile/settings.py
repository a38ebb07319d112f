"""Every setting of the operator process, read once from `MAINSPRING_*` variables into one frozen dataclass.

`python -m controller.reconcile.settings` prints `docs/settings.md` from the docstrings below, and a test
compares the two.  A bad value names the variable, the value and what is allowed.  Nothing here opens a file or a
connection.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

PREFIX: Final = "MAINSPRING_"
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_HOST: Final = re.compile(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?")
_IMAGE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,500}")
PROTOCOLS: Final = ("https", "ssh", "http")


class BadSetting(Exception):
    """A variable holds what is not allowed; one sentence for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSettings:
    """What the operator is told when it starts."""

    namespaces: tuple[str, ...] = ()
    """Namespaces to work in, separated by commas. Empty: the pod's own, or that of the kubeconfig's context.
    `*`: all."""
    tracking_uri: str
    """Address of the MLflow server. Required."""
    signing_key: Path
    """File of the ed25519 key (PEM) that signs ledger and lineage. Required; made when it is missing."""
    trusted_keys: tuple[Path, ...] = ()
    """Files of further public keys (PEM) whose signatures count, separated by commas: rotation, other
    environments."""
    mirrors: Path = Path("mirrors")
    """Directory for the bare mirrors of Git repositories. May be empty at every start."""
    allowed_hosts: tuple[str, ...] = ()
    """Hosts that Git repositories may be on, separated by commas: names, addresses, `*.suffix`. Empty: every
    public one."""
    prometheus: tuple[str, ...] = ()
    """Addresses of the Prometheus servers that checks of canaries may ask, separated by commas; the first is the
    default. Empty: none."""
    git_protocols: tuple[str, ...] = ("https", "ssh")
    """How Git may be spoken, separated by commas: https, ssh, http."""
    jobs_image: str = "mainspring-jobs"
    """Image of the steps fetch and evaluate, and of a training program that names none."""
    server_image: str = "mainspring-server"
    """Image of the step predict and of model servers."""
    workers: int = 16
    """How many objects are worked on at once, 1 to 256."""
    resync: float = 600.0
    """Longest time between two looks at an object if nothing is heard, seconds, 1 to 86400."""
    metrics_host: str = "0.0.0.0"  # noqa: S104 - Prometheus and the kubelet come from outside the pod
    """Address that /metrics listens on, and /healthz and /readyz too."""
    metrics_port: int = 8081
    """Port of /metrics; 0: any free one."""
    health_port: int = 8082
    """Port of /healthz and /readyz; 0: any free one. May equal the one of the metrics."""
    webhook_key: Path | None = None
    """File with the secret of the push webhook, at least 16 characters; several, one a line, while it is changed.
    Empty: no webhook."""
    webhook_port: int = 8083
    """Port of the push webhook, at the address of the metrics; 0: any free one."""
    lease_name: str = "mainspring"
    """Name of the Lease by which replicas choose their leader."""
    lease_namespace: str = ""
    """Namespace of the Lease. Empty: the pod's own, or that of the kubeconfig's context."""
    identity: str = ""
    """Name of this replica in the Lease. Empty: host name and process number."""
    log_format: str = "json"
    """`json`: one object a line. `text`: for people."""
    log_level: str = "info"
    """debug, info, warning or error."""
    drain: float = 20.0
    """After SIGTERM, how long objects that are being worked on may go on, seconds, 0 to 300."""
    deaf_after: float = 120.0
    """After how long without an echo of its own write through the watch the operator counts as deaf, seconds, 5
    to 3600."""

    @property
    def all_namespaces(self) -> bool:
        """Tell whether the whole cluster is watched."""
        return self.namespaces == ("*",)

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> OperatorSettings:
        """Read the settings.

        Raises:
            BadSetting: a value is not allowed, or a required one is missing.
        """
        given: dict[str, Any] = {}
        for field in fields(cls):
            variable = PREFIX + field.name.upper()
            text = environment.get(variable, "").strip()
            if text:
                given[field.name] = _READ[field.name](variable, text)
            elif field.name in ("tracking_uri", "signing_key"):
                raise BadSetting(f"{variable} is not set; {described()[field.name]}")
        given.setdefault("identity", f"{socket.gethostname()}_{os.getpid()}")
        return cls(**given)


def described() -> dict[str, str]:
    """Return the docstring of every field."""
    tree = ast.parse(inspect.getsource(OperatorSettings)).body[0]
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    for before, after in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(before, ast.AnnAssign)
            and isinstance(before.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            found[before.target.id] = " ".join(str(after.value.value).split())
    return found


def page() -> str:
    """Write `docs/settings.md`."""
    lines = [
        "# Settings of the operator",
        "",
        "Written by `python -m controller.reconcile.settings`. A bad value ends the process with exit code 2 and",
        "one line that names the variable, the value and what is allowed.",
        "",
        "| Variable | Default | Meaning |",
        "|---|---|---|",
    ]
    texts = described()
    for field in fields(OperatorSettings):
        default = field.default
        if isinstance(default, tuple):
            shown = ",".join(str(item) for item in default)
        elif isinstance(default, str | int | float | Path):
            shown = f"{default:g}" if isinstance(default, float) else str(default)
        else:
            shown = ""
        lines.append(f"| `{PREFIX}{field.name.upper()}` | {f'`{shown}`' if shown else ''} | {texts[field.name]} |")
    return "\n".join([*lines, ""])


def _bad(variable: str, text: str, allowed: str) -> BadSetting:
    return BadSetting(f"{variable} is {text!r}; allowed is {allowed}")


def _number(least: float, most: float, kind: Callable[[str], Any]) -> Callable[[str, str], Any]:
    def read(variable: str, text: str) -> Any:
        allowed = f"a {'whole ' if kind is int else ''}number from {least:g} to {most:g}"
        try:
            value = kind(text)
        except ValueError:
            raise _bad(variable, text, allowed) from None
        if not least <= value <= most:
            raise _bad(variable, text, allowed)
        return value

    return read


def _one_of(*words: str) -> Callable[[str, str], str]:
    def read(variable: str, text: str) -> str:
        if text.lower() not in words:
            raise _bad(variable, text, "one of " + ", ".join(words))
        return text.lower()

    return read


def _matching(pattern: re.Pattern[str], allowed: str) -> Callable[[str, str], str]:
    def read(variable: str, text: str) -> str:
        if not pattern.fullmatch(text):
            raise _bad(variable, text, allowed)
        return text

    return read


def _many(one: Callable[[str, str], Any]) -> Callable[[str, str], tuple[Any, ...]]:
    def read(variable: str, text: str) -> tuple[Any, ...]:
        parts = (part.strip() for part in text.split(","))
        return tuple(dict.fromkeys(one(variable, part) for part in parts if part))

    return read


def _namespaces(variable: str, text: str) -> tuple[str, ...]:
    if text == "*":
        return ("*",)
    return _many(_matching(_NAME, "`*` or names of namespaces, separated by commas"))(variable, text)


def _address(variable: str, text: str) -> str:
    if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", text):
        # The value itself may hold a password and is not shown.
        raise BadSetting(f"{variable} is no address; allowed is http://… or https://…")
    return text


def _server(variable: str, text: str) -> str:
    if not re.fullmatch(r"https?://[^/@?#\s]+/?", text):
        # The value itself may hold a password and is not shown.
        raise BadSetting(f"{variable} is no address; allowed are http://host:port and https://host:port")
    return text.rstrip("/")


def _path(_: str, text: str) -> Path:
    return Path(text)


_NAMED: Final = _matching(_NAME, "a name of lower-case letters, digits, - and .")
_READ: Final[dict[str, Callable[[str, str], Any]]] = {
    "namespaces": _namespaces,
    "tracking_uri": _address,
    "signing_key": _path,
    "trusted_keys": _many(_path),
    "mirrors": _path,
    "allowed_hosts": _many(_matching(_HOST, "names of hosts, addresses or *.suffix")),
    "prometheus": _many(_server),
    "git_protocols": _many(_one_of(*PROTOCOLS)),
    "jobs_image": _matching(_IMAGE, "the name of an image"),
    "server_image": _matching(_IMAGE, "the name of an image"),
    "workers": _number(1, 256, int),
    "resync": _number(1, 86_400, float),
    "metrics_host": _matching(re.compile(r"[0-9A-Za-z.:-]{1,253}"), "an address of this machine"),
    "metrics_port": _number(0, 65_535, int),
    "health_port": _number(0, 65_535, int),
    "webhook_key": _path,
    "webhook_port": _number(0, 65_535, int),
    "lease_name": _NAMED,
    "lease_namespace": _NAMED,
    "identity": _matching(re.compile(r"[\w.-]{1,200}"), "letters, digits, _, . and -"),
    "log_format": _one_of("json", "text"),
    "log_level": _one_of("debug", "info", "warning", "error"),
    "drain": _number(0, 300, float),
    "deaf_after": _number(5, 3600, float),
}

if __name__ == "__main__":
    sys.stdout.write(page())
