"""Builds our images from the repository's Dockerfile on machines that reach no image registry.

The base is a Debian made here by mmdebstrap, under the name that the Dockerfile's BASE is then set to.  Everything
is made once per content and kept in the cache directory: the builder's layers, and a layout of images that a node
imports.  The machine's package index and certificates are handed to the build as secrets, so they are in no
image and in no file of the repository.  Root only.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from controller import __version__
from tests.cluster import oci
from tests.cluster.build import SOURCES, cache_directory, locked, say
from tests.cluster.oci import Image
from tests.cluster.packages import IMAGES, installed

if TYPE_CHECKING:
    from tests.cluster.node import Node

ROOT = SOURCES.parent.parent
TARGETS = ("operator", "jobs", "server")
_BASE_PACKAGES = ("python3", "python3-venv", "git", "openssh-client", "ca-certificates", "libgomp1")
_BASE_OPTIONS = (
    "--variant=minbase",
    f"--include={','.join(_BASE_PACKAGES)}",
    *(f"--dpkgopt=path-exclude=/usr/share/{place}/*" for place in ("doc", "info", "locale", "man")),
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
)
# What the Dockerfile copies, besides itself.
_CONTEXT = ("Dockerfile", ".dockerignore", "pyproject.toml", "README.md", "LICENSE", "requirements", "controller")
# A change of our code leaves about three such images of a few megabytes; a change of a lock leaves a gigabyte.
_DANGLING = 40
_CERTIFICATES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")


class ImageFailed(RuntimeError):
    """An image could not be built; the message ends with what the builder printed."""


def base_image() -> Image:
    """A Debian bookworm with what the three images have in common, made now if this machine has none.

    Raises NotInstalled without root or packages, ImageFailed when mmdebstrap fails.
    """
    key = hashlib.sha256("\n".join(_BASE_OPTIONS).encode()).hexdigest()[:12]
    return _made("base", f"localhost/mainspring-base:{key}")


def build(*targets: str) -> dict[str, Image]:
    """The images of targets of the Dockerfile, built now unless this very content was built before.

    All are of one content, whatever happens to the work tree meanwhile.
    """
    base = base_image()
    with tempfile.TemporaryDirectory(prefix="mainspring-context-") as place:
        context = Path(place)
        key = _copy_context(context, base.name)
        return {
            target: _made(target, f"localhost/mainspring-{target}:{key}", base.name, context) for target in targets
        }


def _made(target: str, name: str, base: str = "", context: Path = ROOT) -> Image:
    place = cache_directory() / "images"
    place.mkdir(exist_ok=True)
    layout = place / "layout"
    with locked(place / "build.lock", "images"):
        if name not in oci.images(layout):
            installed(IMAGES, "building images")
            builder = _Builder(place)
            started = time.monotonic()
            say(f"making the image {name} (minutes the first time)")
            if base:
                builder.build(base, target, name, context)
            else:
                builder.make_base(name)
            builder.publish(name, layout)
            # What the target was before is of no use to anybody.
            builder.forget_all_but(name)
            family = f"{name.partition(':')[0]}:"
            oci.keep(layout, {each for each in oci.images(layout) if each == name or not each.startswith(family)})
            say(f"{name}: {oci.images(layout)[name].size / 1e6:.0f} MB in {time.monotonic() - started:.0f} s")
        return oci.images(layout)[name]


class _Builder:
    """buildah with a store, settings and temporary files of its own."""

    def __init__(self, place: Path) -> None:
        self._place = place / "buildah"
        (self._place / "tmp").mkdir(parents=True, exist_ok=True)
        self._policy = self._place / "policy.json"
        self._policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
        # Fast where the kernel can; inside of some containers it cannot.
        self._driver = "overlay" if self._run(["images"], driver="overlay").returncode == 0 else "vfs"
        # A killed build leaves its containers, and they hold their layers.
        self._run(["rm", "--all"])

    def make_base(self, name: str) -> None:
        """Make a Debian and call it `name`."""
        with tempfile.TemporaryDirectory(dir=self._place / "tmp") as scratch:
            layer, archive = Path(scratch) / "layer.tar", Path(scratch) / "image.tar"
            command = ["mmdebstrap", "--quiet", *_BASE_OPTIONS, *_proxies(), "bookworm", str(layer), *_mirrors()]
            environment = {**os.environ, "TMPDIR": scratch}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ImageFailed(f"`{' '.join(command)}` ended with {done.returncode}:\n{done.stderr[-3000:]}")
            path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
            oci.write_image(archive, name, layer, {"Env": [path], "Cmd": ["bash"]})
            self._must(["pull", *self._trusting(), f"docker-archive:{archive}"])

    def build(self, base: str, target: str, name: str, context: Path) -> None:
        """Build `target` of the Dockerfile in `context` on `base` and call it `name`."""
        with tempfile.TemporaryDirectory(dir=self._place / "tmp") as secrets:
            command = ["bud", "--isolation", "chroot", "--layers", "--pull-never", *self._trusting()]
            command += ["--build-arg", f"BASE={base}", *_secrets(Path(secrets))]
            self._must([*command, "--target", target, "--tag", name, str(context)])

    def publish(self, name: str, layout: Path) -> None:
        """Put an image into a layout; layers that are there already are not read."""
        # buildah's own `push` would compress every layer, every time.
        command = [
            "skopeo",
            "copy",
            "--quiet",
            "--policy",
            str(self._policy),
            "--dest-oci-accept-uncompressed-layers",
        ]
        store = f"{self._driver}@{self._store(self._driver)}+{self._store(self._driver)}-run"
        command += [f"containers-storage:[{store}]{name}", f"oci:{layout}:{name}"]
        done = subprocess.run(command, env=self._environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise ImageFailed(f"`{' '.join(command)}` ended with {done.returncode}:\n{done.stderr[-3000:]}")

    def forget_all_but(self, name: str) -> None:
        """Drop other images of the same target, and from time to time layers that no image has any more."""
        listed = self._run(["images", "--format", "{{.Name}}:{{.Tag}}"]).stdout.split()
        family = f"{name.partition(':')[0]}:"
        old = [each for each in listed if each.startswith(family) and each != name]
        if old:
            self._run(["rmi", *old])
        # They are what makes the next build fast, so not each time.
        if len(self._run(["images", "--quiet", "--filter", "dangling=true"]).stdout.split()) > _DANGLING:
            self._run(["rmi", "--prune"])

    def _trusting(self) -> list[str]:
        return ["--signature-policy", str(self._policy)]

    def _must(self, arguments: list[str]) -> None:
        done = self._run(arguments)
        if done.returncode:
            raise ImageFailed(
                f"`buildah {' '.join(arguments[:2])} …` ended with {done.returncode}:\n"
                f"{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
            )

    def _run(self, arguments: list[str], driver: str = "") -> subprocess.CompletedProcess[str]:
        chosen = driver or self._driver
        store = self._store(chosen)
        command = ["buildah", "--storage-driver", chosen, "--root", store, "--runroot", f"{store}-run", *arguments]
        return subprocess.run(
            command, env=self._environment(), capture_output=True, text=True, errors="replace", check=False
        )

    def _store(self, driver: str) -> str:
        return str(self._place / driver)

    def _environment(self) -> dict[str, str]:
        # Cache mounts live in the temporary directory.
        return {**os.environ, "TMPDIR": str(self._place / "tmp")}


def _mirrors() -> list[str]:
    """The machine's own sources of Debian bookworm as lines for mmdebstrap; none where it has no such."""
    asked = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    )
    found = {tuple(line.split()) for line in asked.stdout.splitlines()}
    suites = ("bookworm", "bookworm-updates", "bookworm-security")
    lines = sorted(
        {
            f"deb {each[0]} {each[1]} main"
            for each in found
            if len(each) == 3 and each[1] in suites and each[2] == "main"
        }
    )
    return lines if any(" bookworm main" in line for line in lines) else []


def _proxies() -> list[str]:
    """What apt-get is told here about proxies, as options of mmdebstrap."""
    asked = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False)
    wanted = ("Acquire::http::Proxy ", "Acquire::https::Proxy ")
    return [f"--aptopt={line}" for line in asked.stdout.splitlines() if line.startswith(wanted)]


def _secrets(place: Path) -> list[str]:
    """The machine's package index, proxy and certificates as build secrets, written to `place`."""
    settings = _pip_settings()
    pip = ["[global]", *(f"{key} = {value}" for key, value in settings.items())]
    # uv reads no settings of pip.
    uv = {"index-url": os.environ.get("UV_DEFAULT_INDEX") or settings.get("index-url")}
    extra = settings.get("extra-index-url", "").split()
    lines = [f"{key} = {json.dumps(value)}" for key, value in uv.items() if value]
    lines += [f"extra-index-url = {json.dumps(extra)}"] if extra else []
    hosts = settings.get("trusted-host", "").split()
    lines += [f"allow-insecure-host = {json.dumps(hosts)}"] if hosts else []
    secrets = {"pip": "\n".join(pip), "uv": "\n".join(lines)}
    options: list[str] = []
    for name, content in secrets.items():
        file = place / name
        file.touch(mode=0o600)
        file.write_text(content + "\n")
        options += ["--secret", f"id={name},src={file}"]
    known = [os.environ.get(name, "") for name in ("PIP_CERT", "SSL_CERT_FILE")] + list(_CERTIFICATES)
    certificates = next((path for path in known if path and Path(path).is_file()), None)
    return options + (["--secret", f"id=ca,src={certificates}"] if certificates else [])


def _pip_settings() -> dict[str, str]:
    """What pip is told on this machine by files and environment; the environment comes last and wins."""
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in asked.stdout.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if section in found and key in ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout"):
            found[section][key] = " ".join(str(ast.literal_eval(value)).split())
    return {key: value for section in found.values() for key, value in section.items()}


def _copy_context(place: Path, base: str) -> str:
    """Copy what the Dockerfile needs to `place`; a short hash of it and of the base."""
    digest = hashlib.sha256(base.encode())
    for file in _context():
        content, name = file.read_bytes(), file.relative_to(ROOT)
        digest.update(f"{name} {len(content)}\n".encode() + content)
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
        (place / name).chmod(0o755 if file.suffix == ".sh" else 0o644)
    return digest.hexdigest()[:12]


def _context() -> Iterator[Path]:
    for name in _CONTEXT:
        place = ROOT / name
        if place.is_file():
            yield place
        else:
            yield from sorted(f for f in place.rglob("*") if f.is_file() and "__pycache__" not in f.parts)


def imported(node: Node) -> dict[str, str]:
    """Give the node our images and their base; their names by target, and `base`.

    The chart's own names for this version, without a registry, then name them too.
    """
    made = {"base": base_image(), **build(*TARGETS)}
    for image in made.values():
        node.import_image(image)
    for target in TARGETS:
        node.tag_image(made[target].name, f"docker.io/library/mainspring-{target}:{__version__}")
    node.keep_images({image.name for image in made.values()})
    return {target: image.name for target, image in made.items()}
