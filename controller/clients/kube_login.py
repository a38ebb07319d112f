"""Who we are to an API server: kubeconfig files, login plugins, and the service account of a pod.

The `kubernetes` library reads them (it costs half a second to import, so it is imported when used) and is used for
nothing else.  A login may be read again at any time: tokens are short-lived.  No secret reaches a message.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from yaml import YAMLError

from controller.clients.errors import Denied
from controller.clients.redact import redact

TOKEN_FRESH_S: Final = 60.0
"""How long the token file of a pod is believed; the kubelet renews it long before it expires."""
SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class Access:
    """One login: where, as whom, and the namespace that it names."""

    url: str
    namespace: str
    authorization: str = field(default="", repr=False)
    """Value of the Authorization header; empty with client certificates."""
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    verify: bool = True
    server_name: str = ""
    """Name that the server's certificate must have, where it is not the host's."""
    proxy: str | None = field(default=None, repr=False)

    def tls(self) -> ssl.SSLContext:
        """Build the TLS settings.

        Raises:
            Denied: a certificate or key cannot be read.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if not self.verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file)
        except (OSError, ssl.SSLError) as error:
            raise Denied(
                f"the certificates for {self.url} cannot be read ({redact(str(error), limit=200)}): check the "
                "kubeconfig",
                reason="CredentialsInvalid",
            ) from None
        return context


def in_cluster() -> bool:
    """Tell whether this process runs in a pod with a service account."""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and (SERVICE_ACCOUNT / "token").is_file()


def kubeconfig_paths(given: Path | None) -> list[Path]:
    """Name the kubeconfig files that are used: the given one, those of KUBECONFIG, or the user's own."""
    if given is not None:
        return [given]
    if text := os.environ.get("KUBECONFIG", ""):
        return [Path(p) for p in text.split(os.pathsep) if p]
    return [Path.home() / ".kube" / "config"]


def _by_pod(kubeconfig: Path | None, context: str | None) -> bool:
    return kubeconfig is None and context is None and not os.environ.get("KUBECONFIG") and in_cluster()


def default_namespace(kubeconfig: Path | None, context: str | None) -> str:
    """Read the namespace that the context, or the pod, names; `default` when it names none.

    Raises:
        Denied: there is no usable kubeconfig.
    """
    if _by_pod(kubeconfig, context):
        return _text(SERVICE_ACCOUNT / "namespace") or "default"
    return read_kubeconfig(kubeconfig, context).namespace


class Login:
    """Credentials that can be read again."""

    def __init__(self, kubeconfig: Path | None = None, context: str | None = None) -> None:
        """Use a kubeconfig file and context; without both, what `connect` of the client says."""
        self._kubeconfig = kubeconfig
        self._context = context
        self._pod = _by_pod(kubeconfig, context)
        self._access: Access | None = None
        self._read_at = 0.0
        self._lock = asyncio.Lock()

    async def access(self, *, not_this: Access | None = None) -> Access:
        """Return the login; read anew when `not_this` (one that was refused) is the present one.

        Raises:
            Denied: there is none, or it cannot be read.
        """
        async with self._lock:
            stale = self._pod and time.monotonic() - self._read_at > TOKEN_FRESH_S
            if self._access is None or stale or self._access is not_this:
                self._access = await asyncio.to_thread(self._load)
                self._read_at = time.monotonic()
            return self._access

    def _load(self) -> Access:
        from kubernetes import config as library

        config: Any = library
        settings = _Settings()
        try:
            if self._pod:
                config.load_incluster_config(client_configuration=settings)
                return settings.access(_text(SERVICE_ACCOUNT / "namespace"))
            return self._from_files(settings)
        except config.ConfigException as error:
            raise _unusable(f"the credentials cannot be used: {_said(error)}") from None

    def _from_files(self, settings: _Settings) -> Access:
        from kubernetes.config import kube_config as library

        config: Any = library
        chosen = read_kubeconfig(self._kubeconfig, self._context)
        loader = config.KubeConfigLoader(
            config_dict=chosen.merged, active_context=chosen.context, config_base_path=None
        )
        loader.load_and_set(settings)
        if not settings.host:
            raise _unusable(f'context "{chosen.context}" of {chosen.files} names no server')
        plugin = chosen.user.get("exec")
        if plugin and not settings.api_key and not settings.cert_file:
            # The library only logs that; every request would be anonymous.
            raise _unusable(
                f'the login plugin {plugin.get("command")} of context "{chosen.context}" gave no credentials'
            )
        return settings.access(chosen.namespace)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A context of the kubeconfig files."""

    files: str
    context: str
    namespace: str
    user: dict[str, Any] = field(repr=False)
    merged: Any = field(repr=False)
    """What the library made of all files."""


def read_kubeconfig(kubeconfig: Path | None, context: str | None) -> Chosen:
    """Read the files and find the context: the given one, or the current one. Logs nobody in.

    Raises:
        Denied: no file, no kubeconfig, or no such context.
    """
    from kubernetes.config import ConfigException
    from kubernetes.config import kube_config as library

    config: Any = library
    files = kubeconfig_paths(kubeconfig)
    joined = os.pathsep.join(str(path) for path in files)
    if not any(path.is_file() for path in files):
        raise _unusable(f"no cluster is known: {joined} is not there; give --kubeconfig or set KUBECONFIG")
    try:
        merged = config.KubeConfigMerger(joined).config
        contexts = {node["name"]: node.value["context"] for node in merged["contexts"]}
        users = {node["name"]: node.value.get("user") or {} for node in merged["users"]}
        wanted = context or merged.value.get("current-context") or ""
    except (TypeError, KeyError, AttributeError, ValueError, OSError, YAMLError, ConfigException) as error:
        raise _unusable(f"{joined} is no kubeconfig: {_said(error)}") from None
    if wanted not in contexts:
        raise _unusable(f'{joined} has no context "{wanted}"; there is: {", ".join(contexts) or "none"}')
    namespace = contexts[wanted].get("namespace") or "default"
    return Chosen(joined, wanted, namespace, users.get(contexts[wanted].get("user"), {}), merged)


class _Settings:
    """What the library fills in; stands for its own class, whose defaults read the whole environment."""

    def __init__(self) -> None:
        self.host = ""
        self.api_key: dict[str, str] = {}
        self.ssl_ca_cert: str | None = None
        self.cert_file: str | None = None
        self.key_file: str | None = None
        self.verify_ssl = True
        self.tls_server_name: str | None = None
        self.proxy: str | None = None
        self.refresh_api_key_hook: Any = None

    def access(self, namespace: str) -> Access:
        return Access(
            url=self.host.rstrip("/"),
            namespace=namespace or "default",
            authorization=self.api_key.get("BearerToken", "").strip(),
            ca_file=self.ssl_ca_cert,
            cert_file=self.cert_file,
            key_file=self.key_file,
            verify=self.verify_ssl,
            server_name=self.tls_server_name or "",
            proxy=self.proxy,
        )


def _unusable(message: str) -> Denied:
    return Denied(redact(message, limit=600), reason="CredentialsInvalid")


def _said(error: Exception) -> str:
    return redact(" ".join(str(error).split()) or type(error).__name__, limit=300)


def _text(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""
