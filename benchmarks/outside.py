"""What the operator asks besides the API server, as small as it can be: an MLflow server, and all model servers.

`python -m benchmarks.outside FILE COUNT KEY` serves, on a free loopback port that it prints, the ledgers and the
aliases of COUNT models of the fleet in FILE, signed with KEY, and one metrics page for whoever asks a server.  It
counts who was asked about: `/asked` says how many models, and when the last new one came.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from benchmarks.fleet import NAMESPACE, STEM, name_of
from controller.api.hashes import canonical
from controller.api.statements import LEDGER_TYPE, chain_digest
from controller.clients.registry_names import TAG_LEDGER
from controller.clients.signing import Signer

EXPERIMENT = "7"
_ENTRY = re.compile(r"/L(\d+)/artifacts/ledger/(\d{6})\.json$")


class Outside:
    """The answers, all made before the first question."""

    def __init__(self, template: dict[str, Any], count: int, key: Path) -> None:
        signer = Signer.load_or_create(key)
        self.entries: list[list[bytes]] = []
        for number in range(count):
            envelopes, before = [], ""
            for entry in json.loads(json.dumps(template["ledger"]).replace(STEM, name_of(number))):
                payload = canonical({**entry, "prev": before} if before else entry)
                before = chain_digest(payload)
                envelopes.append(signer.sign(payload, LEDGER_TYPE))
            self.entries.append(envelopes)
        self.page = f'mainspring_model_info{{digest="{template["digest"]}"}} 1\n'.encode()
        self.version = template["ledger"][-1]["version"]
        self.asked: set[str] = set()
        self.last_at = 0.0
        self.requests = 0

    def answer(self, target: str, body: bytes) -> bytes:
        """Answer one request."""
        parts = urlsplit(target)
        path = parts.path
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        if path == "/metrics":
            return self.page
        if path == "/asked":
            said = json.dumps({"models": len(self.asked), "at": self.last_at, "requests": self.requests}).encode()
            if query.get("forget"):
                self.asked, self.requests = set(), 0
            return said
        self.requests += 1
        if found := _ENTRY.search(path):
            return self.entries[int(found[1])][int(found[2]) - 1]
        return json.dumps(self._mlflow(path.rpartition("mlflow/")[2], query, body)).encode()

    def _mlflow(self, what: str, query: dict[str, str], body: bytes) -> dict[str, Any]:
        if what == "experiments/get-by-name":
            return {"experiment": {"experiment_id": EXPERIMENT, "lifecycle_stage": "active"}}
        if what == "runs/search":
            wanted = re.search(r"= '(.*)'", json.loads(body)["filter"])
            name = wanted[1] if wanted else ""
            number = name.partition("/")[0].rpartition("-")[2]
            known = number.isdecimal() and int(number) < len(self.entries)
            return {"runs": [self._run(int(number))] if known else []}
        if what == "runs/get":
            return {"run": self._run(int(query["run_id"].removeprefix("L")))}
        if what == "registered-models/get":
            name = query["name"]
            if name not in self.asked:
                self.asked.add(name)
                self.last_at = time.time()
            aliases = [{"alias": f"{NAMESPACE}-champion", "version": self.version}]
            return {"registered_model": {"name": name, "aliases": aliases}}
        raise ValueError(what)

    def _run(self, number: int) -> dict[str, Any]:
        tags = [
            {"key": f"{TAG_LEDGER}.{seq:06d}", "value": hashlib.sha256(envelope).hexdigest()}
            for seq, envelope in enumerate(self.entries[number], 1)
        ]
        own = {"key": TAG_LEDGER, "value": f"{name_of(number)}/{NAMESPACE}"}
        where = f"mlflow-artifacts:/{EXPERIMENT}/L{number}/artifacts"
        info = {"run_id": f"L{number}", "artifact_uri": where, "status": "RUNNING"}
        return {"info": info, "data": {"tags": [own, *tags]}}


class Connection(asyncio.Protocol):
    """HTTP/1.1 with kept connections: a request line, headers, a body by its length, and nothing else."""

    def __init__(self, outside: Outside) -> None:
        self.outside = outside
        self.waiting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        self.waiting += data
        while b"\r\n\r\n" in self.waiting:
            head, _, rest = self.waiting.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: *(\d+)", head)
            size = int(length[1]) if length else 0
            if len(rest) < size:
                return
            self.waiting = rest[size:]
            _, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            body = self.outside.answer(target, rest[:size])
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


async def main(template: Path, count: int, key: Path) -> None:
    """Serve until the process is ended."""
    outside = Outside(json.loads(template.read_text()), count, key)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(outside), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
