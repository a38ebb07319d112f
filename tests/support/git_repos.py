"""Builders of real Git repositories for tests, honest and hostile, and small servers for them.

Repositories are made by the real `git` with a fixed environment, dates and names, so that commit ids repeat.
Objects that `git add` would refuse (a `.git` part, a link in a tree) are written with plumbing.  The servers
listen on loopback ports of their own choosing and stop with their `with` block.
"""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ENV = {
    "PATH": os.environ.get("PATH", os.defpath),
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.com",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.com",
    "GIT_AUTHOR_DATE": "2026-01-02T03:04:05Z",
    "GIT_COMMITTER_DATE": "2026-01-02T03:04:05Z",
}


@dataclass
class Scratch:
    """A bare repository on disk, changed by plumbing only."""

    path: Path
    env: dict[str, str] = field(default_factory=lambda: dict(ENV))

    @classmethod
    def create(cls, path: Path, *, object_format: str = "sha1") -> Scratch:
        """Make an empty bare repository whose HEAD is main."""
        made = cls(path)
        path.mkdir(parents=True)
        made.git("init", "-q", "--bare", "-b", "main", f"--object-format={object_format}")
        return made

    @property
    def url(self) -> str:
        return f"file://{self.path}"

    def git(self, *args: str, stdin: bytes = b"", env: dict[str, str] | None = None) -> str:
        """Run git here and return its output."""
        done = subprocess.run(
            ["git", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", *args],
            cwd=self.path,
            env={**self.env, **(env or {})},
            input=stdin,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, (args, done.stderr.decode())
        return done.stdout.decode("utf-8", "surrogateescape").strip()

    def blob(self, data: bytes) -> str:
        return self.git("hash-object", "-w", "--stdin", stdin=data)

    def raw(self, kind: str, data: bytes) -> str:
        """Write any object, malformed ones included."""
        return self.git("hash-object", "-w", "-t", kind, "--literally", "--stdin", stdin=data)

    def tree(self, files: Mapping[str, bytes | tuple[str, bytes]]) -> str:
        """Write a tree from {path: bytes or (mode, bytes)}; mode 160000 takes a commit id in hex as bytes."""
        here: list[bytes] = []
        below: dict[str, dict[str, bytes | tuple[str, bytes]]] = {}
        for path, value in files.items():
            name, _, rest = path.partition("/")
            if rest:
                below.setdefault(name, {})[rest] = value
                continue
            mode, data = value if isinstance(value, tuple) else ("100644", value)
            sha = data.decode() if mode == "160000" else self.blob(data)
            here.append(_entry(mode, name, sha))
        here += [_entry("40000", name, self.tree(inner)) for name, inner in below.items()]
        ordered = sorted(
            here,
            key=lambda item: item.split(b" ", 1)[1].split(b"\0")[0] + (b"/" if item.startswith(b"4") else b""),
        )
        return self.raw("tree", b"".join(ordered))

    def commit(
        self,
        files: Mapping[str, bytes | tuple[str, bytes]],
        *,
        branch: str = "main",
        message: str = "Train",
        parents: list[str] | None = None,
        env: dict[str, str] | None = None,
    ) -> str:
        """Commit exactly these files on a branch, on top of it unless `parents` says otherwise."""
        if parents is None:
            tip = self.git("for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}")
            parents = [tip] if tip else []
        args = [word for parent in parents for word in ("-p", parent)]
        sha = self.git("commit-tree", self.tree(files), *args, stdin=message.encode(), env=env)
        self.ref(f"refs/heads/{branch}", sha)
        return sha

    def ref(self, name: str, sha: str) -> None:
        self.git("update-ref", name, sha)

    def tag(self, name: str, target: str) -> str:
        """Make or move an annotated tag; returns the id of the tag object."""
        self.git("tag", "-f", "-a", "-m", "release", name, target)
        return self.git("rev-parse", f"refs/tags/{name}")


def _entry(mode: str, name: str, sha: str) -> bytes:
    return mode.encode() + b" " + os.fsencode(name) + b"\0" + bytes.fromhex(sha)


@dataclass
class Seen:
    """One request that a server got."""

    path: str
    authorization: str


class GitServer:
    """Smart HTTP over `git http-backend` for a directory of bare repositories, with a password or a redirect."""

    def __init__(
        self,
        root: Path,
        *,
        user: str = "",
        password: str = "",
        redirect: str = "",
        status: int = 0,
        tls: ssl.SSLContext | None = None,
        cut_pack: int = 0,
        stall: Callable[[bytes], None] | None = None,
    ) -> None:
        self.root, self.seen = root, list[Seen]()
        self.expected = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode() if password else ""
        self.redirect, self.status, self.cut_pack = redirect, status, cut_pack
        self.stall = stall
        self.scheme = "https" if tls else "http"
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer._answer(self)

            def do_POST(self) -> None:
                outer._answer(self)

            def log_message(self, *args: object) -> None:
                """Stay silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]

    def url(self, name: str) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/{name}"

    def __enter__(self) -> GitServer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        given = request.headers.get("Authorization", "")
        self.seen.append(Seen(request.path, given))
        if self.redirect:
            request.send_response(302)
            request.send_header("Location", self.redirect + request.path)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        if self.status or (self.expected and given != self.expected):
            request.send_response(self.status or 401)
            request.send_header("WWW-Authenticate", 'Basic realm="git"')
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        self._backend(request)

    def _backend(self, request: BaseHTTPRequestHandler) -> None:
        path, _, query = request.path.partition("?")
        body = request.rfile.read(int(request.headers.get("Content-Length", "0") or 0))
        if self.stall is not None:
            self.stall(body)
        env = {
            **ENV,
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": request.command,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
            "REMOTE_ADDR": "127.0.0.1",
        }
        done = subprocess.run(["git", "http-backend"], env=env, input=body, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        request.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if self.cut_pack and b"PACK" in content:
            request.wfile.write(content[: content.index(b"PACK") + self.cut_pack])
            request.close_connection = True
            return
        request.wfile.write(content)


@contextlib.contextmanager
def raw_server(talk: Callable[[socket.socket, threading.Event], None]) -> Iterator[int]:
    """Listen on loopback and hand each connection to `talk` with an event that ends it; yields the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            talk(connection, stop)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=one, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def hang(connection: socket.socket, stop: threading.Event) -> None:
    """Accept and never answer."""
    stop.wait(60)


def drip(connection: socket.socket, stop: threading.Event) -> None:
    """Answer one byte at a time, for ever."""
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n\r\n")
    while not stop.wait(0.1):
        connection.sendall(b"0")


def advertise(lines: list[bytes]) -> Callable[[socket.socket, threading.Event], None]:
    """Answer ref discovery with these raw lines in packets (protocol v0), then close."""

    def talk(connection: socket.socket, stop: threading.Event) -> None:
        connection.recv(65536)
        packets = [b"# service=git-upload-pack\n", None, *lines, None]
        body = b"".join(b"0000" if item is None else b"%04x" % (len(item) + 4) + item for item in packets)
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n"
            b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body
        )

    return talk
