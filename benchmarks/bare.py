"""The floor: a bare asyncio watch loop that looks after the same fleet and decides nothing.

`python benchmarks/bare.py`, told by variables what and where.  It imports nothing of ours.  It lists and watches
the same kinds with the same selectors, keeps the same objects, and for each ModelSpec asks MLflow and its servers
the same questions; where the status is of an older generation, it writes it.  No kopf, no pydantic, no plan, no
Lease, no signatures.  With `QUESTIONS=none` it asks nobody but the API server.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from pathlib import Path
from typing import Any

import aiohttp

Object = dict[str, Any]
WORKERS = 16
RESYNC_S = float(os.environ["RESYNC"])
QUESTIONS = os.environ.get("QUESTIONS", "") != "none"
NAMESPACE = os.environ["NAMESPACE"]
PATHS: dict[str, str] = json.loads(os.environ["PATHS"])
"""Collection of each kind, with its selector."""
MANAGER, LABEL_MODEL = "mainspring", "mainspring.dev/model"


class Loop:
    """Everything that is known, and the queue of names."""

    def __init__(self, api: aiohttp.ClientSession, out: aiohttp.ClientSession) -> None:
        self.api, self.out = api, out
        self.mlflow = os.environ.get("MLFLOW", "")
        self.objects: dict[str, dict[str, Object]] = {kind: {} for kind in PATHS}
        self.pods: dict[str, dict[str, Object]] = {}
        self.entries: dict[str, bytes] = {}
        self.queue: asyncio.Queue[str] = asyncio.Queue()
        self.queued: set[str] = set()
        self.listed = asyncio.Event()

    def add(self, name: str) -> None:
        """Have a ModelSpec looked at."""
        if name not in self.queued:
            self.queued.add(name)
            self.queue.put_nowait(name)

    def seen(self, kind: str, event: str, item: Object) -> None:
        """Keep an object and name whose turn it is."""
        meta = item["metadata"]
        meta.pop("managedFields", None)
        known, name = self.objects[kind], meta["name"]
        if event == "DELETED":
            known.pop(name, None)
        else:
            known[name] = item
        owner = name if kind == "ModelSpec" else (meta.get("labels") or {}).get(LABEL_MODEL)
        if kind == "Pod" and owner:
            self.pods.setdefault(owner, {})[name] = item
        if owner and self.listed.is_set():
            self.add(owner)

    async def list(self, kind: str) -> str:
        """List a kind in pages; return the version."""
        more = ""
        while True:
            async with self.api.get(f"{PATHS[kind]}&limit=500&continue={more}") as answer:
                answer.raise_for_status()
                page = json.loads(await answer.read())
            for item in page["items"]:
                self.seen(kind, "ADDED", item)
            more = page["metadata"].get("continue", "")
            if not more:
                return str(page["metadata"]["resourceVersion"])

    async def follow(self, kind: str, version: str) -> None:
        """Watch a kind, again and again."""
        query = "watch=true&allowWatchBookmarks=true&timeoutSeconds=300"
        while True:
            async with self.api.get(
                f"{PATHS[kind]}&{query}&resourceVersion={version}",
                timeout=aiohttp.ClientTimeout(total=None),
            ) as answer:
                waiting = b""
                async for chunk in answer.content.iter_any():
                    *lines, waiting = (waiting + chunk).split(b"\n")
                    for line in lines:
                        event = json.loads(line)
                        version = event["object"]["metadata"]["resourceVersion"]
                        if event["type"] != "BOOKMARK":
                            self.seen(kind, event["type"], event["object"])

    async def work(self) -> None:
        """Look at one ModelSpec after the other."""
        while True:
            name = await self.queue.get()
            self.queued.discard(name)
            found = self.objects["ModelSpec"].get(name)
            if found is None:
                continue
            if QUESTIONS:
                await self.ask(found)
            status, generation = found.get("status") or {}, found["metadata"]["generation"]
            if status.get("observedGeneration") != generation:
                await self.write(found, {**status, "observedGeneration": generation}, generation)
            asyncio.get_running_loop().call_later(RESYNC_S, self.add, name)

    async def ask(self, found: Object) -> None:
        """Read what the operator reads about a served model: ledger, alias, what the servers have loaded."""
        name, api = found["metadata"]["name"], f"{self.mlflow}/api/2.0/mlflow"
        asked = {"filter": f"tags.`mainspring.ledger` = '{name}/{NAMESPACE}'"}
        async with self.out.post(f"{api}/runs/search", json=asked) as answer:
            run = json.loads(await answer.read())["runs"][0]
        root = run["info"]["artifact_uri"].removeprefix("mlflow-artifacts:/")
        for tag in run["data"]["tags"][1:]:
            if tag["value"] in self.entries:
                continue
            file = f"{tag['key'].rpartition('.')[2]}.json"
            async with self.out.get(f"{api}-artifacts/artifacts/{root}/ledger/{file}") as answer:
                self.entries[tag["value"]] = await answer.read()
        for pod in self.pods.get(name, {}).values():
            port = pod["spec"]["containers"][0]["ports"][0]["containerPort"]
            async with self.out.get(f"http://{pod['status']['podIP']}:{port}/metrics") as answer:
                await answer.read()
        async with self.out.get(f"{api}/registered-models/get", params={"name": name}) as answer:
            await answer.read()

    async def write(self, found: Object, status: Object, generation: int) -> None:
        """Write a status by server-side apply."""
        for condition in status.get("conditions", ()):
            condition["observedGeneration"] = generation
        meta = {key: found["metadata"][key] for key in ("name", "namespace", "uid")}
        body = {"apiVersion": found["apiVersion"], "kind": found["kind"], "metadata": meta, "status": status}
        async with self.api.patch(
            f"{PATHS['ModelSpec'].partition('?')[0]}/{meta['name']}/status",
            params={"fieldManager": MANAGER, "force": "true"},
            data=json.dumps(body),
            headers={"Content-Type": "application/apply-patch+yaml"},
        ) as answer:
            answer.raise_for_status()
            self.seen("ModelSpec", "MODIFIED", json.loads(await answer.read()))


async def main() -> None:
    """Run until the process is ended."""
    config = json.loads(Path(os.environ["KUBECONFIG"]).read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    tls = ssl.create_default_context(cafile=cluster["certificate-authority"])
    api = aiohttp.ClientSession(
        cluster["server"],
        connector=aiohttp.TCPConnector(limit=40, ssl=tls),
        headers={"Authorization": f"Bearer {user['token']}", "User-Agent": "bare"},
    )
    async with api, aiohttp.ClientSession() as out:
        loop = Loop(api, out)
        versions = {kind: await loop.list(kind) for kind in PATHS}
        loop.listed.set()
        for name in loop.objects["ModelSpec"]:
            loop.add(name)
        async with asyncio.TaskGroup() as group:
            for kind, version in versions.items():
                group.create_task(loop.follow(kind, version))
            for _ in range(WORKERS):
                group.create_task(loop.work())


if __name__ == "__main__":
    asyncio.run(main())
