"""A real Kubernetes control plane for tests: etcd, the API server and the controllers, on loopback, without root.

Objects, validation, RBAC, server-side apply, watches, garbage collection, Jobs, Deployments and namespaces are
real.  There is no kubelet: a test that wants a pod to run either plays the kubelet and patches the pod's status,
or takes the `node` of `tests.cluster.node`.  Everything lies in one directory: keys, data, kubeconfig, logs.
"""

from __future__ import annotations

import functools
import ipaddress
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.cluster.build import built
from tests.cluster.certificates import Authority, signing_key
from tests.cluster.processes import Server, free_port, wait_until

ISSUER = "https://kubernetes.default.svc.cluster.local"
# Long, because machines that run tests may be busy with a compiler at the same time.
DEADLINE = 180.0
_AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


class ControlPlane:
    """A running control plane; see `start`.

    url: where the API server listens; token: bearer token of a member of `system:masters`; ca: the authority of
    its certificate; kubeconfig: a file with all three; audit_log: JSON lines of every request (empty without
    `audit`); directory: keys, data and `<component>.log`.
    """

    def __init__(self, directory: Path, address: str, services: str, *, audit: bool) -> None:
        self.directory = directory
        self.address = address
        self.services = ipaddress.IPv4Network(services)
        self.token = secrets.token_hex(16)
        self.audit_log = directory / "audit.log"
        self.kube = built() / "kube"
        self.authority = Authority(directory)
        self.ca = self.authority.certificate
        self._audit = audit
        self._port = free_port(address)
        self._etcd_port = free_port()
        self.url = f"https://{address}:{self._port}"
        self.kubeconfig = self._write_kubeconfig()
        self._write_keys()
        self._etcd: Server | None = None
        self._api: Server | None = None
        self._controllers: Server | None = None

    @classmethod
    def start(
        cls,
        directory: Path,
        *,
        controllers: bool = True,
        audit: bool = False,
        address: str = "127.0.0.1",
        services: str = "10.96.0.0/16",
    ) -> ControlPlane:
        """Start in `directory` (made when missing) on `address` and wait until requests are answered.

        Services get their addresses from the range `services`.

        Without `controllers` nothing acts on objects: no Job makes pods, no namespace gets its service account or
        ever goes away.  Raises NotReady with the tails of the logs, and leaves nothing running then.
        """
        directory.mkdir(parents=True, exist_ok=True)
        plane = cls(directory, address, services, audit=audit)
        try:
            plane._start_etcd()
            plane.start_api()
            if controllers:
                plane._start_controllers()
        except BaseException:
            plane.stop()
            raise
        return plane

    def start_api(self) -> None:
        """Start the API server on its port and wait until it is ready; the data are those of before."""
        assert self._api is None, "the API server runs already"
        started = Server("kube-apiserver", self._api_command(), self.directory / "kube-apiserver.log")
        self._api = started
        servers = [server for server in (self._etcd, started) if server]
        wait_until(lambda: self._answers("/readyz"), f"waiting for {self.url}/readyz", DEADLINE, *servers)

    def stop_api(self) -> None:
        """Kill the API server as if its machine had lost power: connections break, nobody answers."""
        if self._api:
            self._api.stop()
        self._api = None

    def stop(self) -> None:
        """Stop everything; the directory stays for whoever wants to read the logs."""
        for server in (self._controllers, self._api, self._etcd):
            if server:
                server.stop()
        self._controllers = self._api = self._etcd = None

    def request(self, method: str, path: str, body: Any = None, *, kind: str = "application/json") -> Any:
        """Ask the API server as an administrator and return the decoded answer.

        `kind` is the content type of `body`.  Raises httpx.HTTPStatusError with the server's message on a refusal.
        """
        import httpx

        with httpx.Client(
            base_url=self.url, verify=self._trust(), headers={"Authorization": f"Bearer {self.token}"}, timeout=60
        ) as client:
            content = None if body is None else json.dumps(body)
            answer = client.request(method, path, content=content, headers={"Content-Type": kind})
        if answer.is_error:
            message = f"{method} {path}: {answer.status_code} {answer.text[:1000]}"
            raise httpx.HTTPStatusError(message, request=answer.request, response=answer)
        return answer.json()

    def apply(self, manifest: Mapping[str, Any], path: str) -> Any:
        """Apply one object, by server-side apply, to the collection at `path`; the object as stored."""
        name = manifest["metadata"]["name"]
        query = "?fieldManager=tests&force=true"
        return self.request("PATCH", f"{path}/{name}{query}", dict(manifest), kind="application/apply-patch+yaml")

    def apply_definition(self, definition: Mapping[str, Any]) -> None:
        """Apply a CustomResourceDefinition and wait until each of its served versions can be listed."""
        self.apply(definition, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
        spec = definition["spec"]
        for version in spec["versions"]:
            if version["served"]:
                path = f"/apis/{spec['group']}/{version['name']}/{spec['names']['plural']}"
                wait_until(functools.partial(self._answers, path), f"waiting for {path}", DEADLINE)

    def audited(self) -> list[dict[str, Any]]:
        """The audit events so far, oldest first."""
        if not self.audit_log.exists():
            return []
        # The last line may be half written.
        lines = self.audit_log.read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines if line]

    def _answers(self, path: str) -> bool:
        import httpx

        headers = {"Authorization": f"Bearer {self.token}"}
        try:
            return httpx.get(self.url + path, verify=self._trust(), headers=headers, timeout=5).is_success
        except httpx.TransportError:
            return False

    def _trust(self) -> Any:
        import ssl

        return ssl.create_default_context(cafile=str(self.ca))

    def _write_keys(self) -> None:
        addresses = sorted({"127.0.0.1", self.address, str(self.services[1])})
        names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", ISSUER[8:]]
        self.authority.serving("apiserver", addresses, names)
        self.authority.client("apiserver-kubelet-client", "apiserver", "system:masters")
        signing_key(self.directory / "service-accounts.key")
        (self.directory / "tokens.csv").write_text(f'{self.token},admin,admin,"system:masters"\n')
        (self.directory / "audit-policy.json").write_text(json.dumps(_AUDIT))

    def _write_kubeconfig(self) -> Path:
        path = self.directory / "kubeconfig"
        cluster = {"server": self.url, "certificate-authority": str(self.ca)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": self.token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "current-context": "test",
        }
        path.write_text(json.dumps(config, indent=1))
        path.chmod(0o600)
        return path

    def _start_etcd(self) -> None:
        client, peer = (f"http://127.0.0.1:{port}" for port in (self._etcd_port, free_port()))
        command = [str(self.kube), "etcd", "--data-dir", str(self.directory / "etcd"), "--unsafe-no-fsync"]
        command += ["--listen-client-urls", client, "--advertise-client-urls", client]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        command += ["--initial-cluster", f"default={peer}", "--log-level", "warn"]
        self._etcd = Server("etcd", command, self.directory / "etcd.log")

    def _api_command(self) -> list[str]:
        here = self.directory
        # The advertised address may not be loopback; without a node nobody uses it.
        advertised = "192.0.2.1" if self.address.startswith("127.") else self.address
        flags = {
            "etcd-servers": f"http://127.0.0.1:{self._etcd_port}",
            "bind-address": self.address,
            "secure-port": self._port,
            "advertise-address": advertised,
            "tls-cert-file": here / "apiserver.crt",
            "tls-private-key-file": here / "apiserver.key",
            "client-ca-file": self.ca,
            "kubelet-client-certificate": here / "apiserver-kubelet-client.crt",
            "kubelet-client-key": here / "apiserver-kubelet-client.key",
            "kubelet-preferred-address-types": "InternalIP",
            "token-auth-file": here / "tokens.csv",
            "authorization-mode": "Node,RBAC",
            "service-account-issuer": ISSUER,
            "service-account-key-file": here / "service-accounts.key",
            "service-account-signing-key-file": here / "service-accounts.key",
            "service-cluster-ip-range": self.services,
            "allow-privileged": "true",
        }
        if self._audit:
            flags |= {"audit-policy-file": here / "audit-policy.json", "audit-log-path": self.audit_log}
        return [str(self.kube), "kube-apiserver", *(f"--{name}={value}" for name, value in flags.items())]

    def _start_controllers(self) -> None:
        flags = {
            "kubeconfig": self.kubeconfig,
            "authentication-kubeconfig": self.kubeconfig,
            "authorization-kubeconfig": self.kubeconfig,
            "service-account-private-key-file": self.directory / "service-accounts.key",
            "root-ca-file": self.ca,
            "secure-port": 0,
            "leader-elect": "false",
            "kube-api-qps": 200,
            "kube-api-burst": 400,
        }
        command = [str(self.kube), "kube-controller-manager"]
        command += [f"--{name}={value}" for name, value in flags.items()]
        self._controllers = Server(
            "kube-controller-manager", command, self.directory / "kube-controller-manager.log"
        )
        path = "/api/v1/namespaces/default/serviceaccounts/default"
        wait_until(
            lambda: self._answers(path), "waiting for the controllers' first act", DEADLINE, self._controllers
        )
