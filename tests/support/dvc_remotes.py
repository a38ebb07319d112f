"""Data kept the way DVC keeps it: pointers, object stores on disk, and small servers for them by HTTP and S3.

The S3 server checks no signature; it notes what a request carried.  All of it listens on loopback ports of its own
choosing and stops with its `with` block.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def pointer(data: bytes, name: str, *, legacy: bool = False, digest: str = "", size: int | None = None) -> bytes:
    """Write the `.dvc` file that `dvc add` writes beside a file."""
    lines = ["outs:", f"- md5: {digest or md5(data)}", f"  size: {len(data) if size is None else size}"]
    lines += [] if legacy else ["  hash: md5"]
    return "\n".join([*lines, f"  path: {name}", ""]).encode()


def lock(outs: dict[str, bytes], deps: dict[str, bytes] | None = None) -> bytes:
    """Write the dvc.lock of one stage, `prepare`."""
    lines = ["schema: '2.0'", "stages:", "  prepare:", "    cmd: python prepare.py"]
    for key, files in (("deps", deps or {}), ("outs", outs)):
        lines += [f"    {key}:"] if files else []
        for path, data in files.items():
            lines += [
                f"    - path: {path}",
                "      hash: md5",
                f"      md5: {md5(data)}",
                f"      size: {len(data)}",
            ]
    return "\n".join([*lines, ""]).encode()


def config(url: str, name: str = "store", **more: str) -> bytes:
    """Write a `.dvc/config` with one default remote."""
    lines = [f"[core]\n    remote = {name}", f"['remote \"{name}\"']", f"    url = {url}"]
    return "\n".join([*lines, *(f"    {k} = {v}" for k, v in more.items()), ""]).encode()


def key(data: bytes, *, legacy: bool = False) -> str:
    """Name an object as DVC 3 does, or as DVC 2 did."""
    found = md5(data)
    return f"{'' if legacy else 'files/md5/'}{found[:2]}/{found[2:]}"


def push(store: Path, data: bytes, *, legacy: bool = False, content: bytes | None = None) -> None:
    """Put an object into a directory, as `dvc push` does; `content` puts another one in its place."""
    file = store / key(data, legacy=legacy)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data if content is None else content)


@dataclass
class Asked:
    """One request that a server got."""

    path: str
    query: dict[str, list[str]] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


class ObjectServer:
    """Gives out the files below a directory: an HTTP remote, or with `bucket` an S3 service of path style."""

    def __init__(self, store: Path, *, bucket: str = "", status: int = 0) -> None:
        self.store, self.bucket, self.status = store, bucket, status
        self.asked: list[Asked] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer._answer(self)

            def log_message(self, *args: object) -> None:
                """Stay silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> ObjectServer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(request.path)
        self.asked.append(Asked(unquote(parts.path), parse_qs(parts.query), dict(request.headers)))
        name = unquote(parts.path).removeprefix(f"/{self.bucket}" if self.bucket else "").lstrip("/")
        file = self.store / name
        code = self.status or (200 if file.is_file() else 404)
        body = file.read_bytes() if code == 200 else b""
        request.send_response(code)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)
