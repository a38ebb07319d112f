"""DSSE envelopes with ed25519: what the controller signs, and whose signatures it believes.

Follows the DSSE protocol 1.0 (github.com/secure-systems-lab/dsse): the signature covers the payload and its type,
and the payload is used only as the very bytes that were verified.  A private key never leaves this module, is
never written but to its own file, and never appears in a message.  Verifying needs no private key.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from controller.clients.errors import Denied

ENVELOPE_MAX_BYTES: Final = 1_048_576
"""Largest envelope that is read."""
SIGNATURES_MAX: Final = 16
"""Most signatures of one envelope that are tried."""
_RAW: Final = serialization.Encoding.Raw, serialization.PublicFormat.Raw


@dataclass(frozen=True, slots=True)
class Opened:
    """A payload whose signature holds."""

    payload: bytes
    payload_type: str
    keyid: str
    """The trusted key that signed it."""


def pae(payload_type: str, payload: bytes) -> bytes:
    """Encode what is signed: DSSE's pre-authentication encoding.

    >>> pae("http://example.com/HelloWorld", b"hello world")
    b'DSSEv1 29 http://example.com/HelloWorld 11 hello world'
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def keyid(public: bytes) -> str:
    """Name a public key: sha256 of its 32 raw bytes, in hex."""
    return hashlib.sha256(public).hexdigest()


class Signer:
    """Signs with one private key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key().public_bytes(*_RAW)
        """The public key, 32 raw bytes."""
        self.keyid = keyid(self.public)

    @classmethod
    def load_or_create(cls, path: Path) -> Signer:
        """Read the key file, or make one: PEM, PKCS#8, mode 0600.

        **Repeat:** an existing key is never replaced; of two processes that start at once, both get the same key.

        Raises:
            Denied: others may read the file (KeyFileExposed), or it holds no ed25519 key (KeyFileInvalid).
        """
        if not path.exists():
            _write_new(path, Ed25519PrivateKey.generate())
        return cls(_read_private(path))

    def sign(self, payload: bytes, payload_type: str) -> bytes:
        """Put a payload into a signed envelope. The same payload always gives the same bytes."""
        signature = self._key.sign(pae(payload_type, payload))
        envelope = {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": payload_type,
            "signatures": [{"keyid": self.keyid, "sig": base64.b64encode(signature).decode()}],
        }
        return json.dumps(envelope, separators=(",", ":")).encode()

    def public_pem(self) -> str:
        """Write the public key as PEM, for `trustedKeys` elsewhere."""
        public = self._key.public_key()
        return public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode()


class Verifier:
    """Opens envelopes that one of the trusted keys has signed."""

    def __init__(self, trusted: Iterable[bytes]) -> None:
        """Trust these public keys, each 32 raw bytes."""
        self._keys = {keyid(raw): Ed25519PublicKey.from_public_bytes(raw) for raw in trusted}

    def open(self, envelope: bytes, payload_type: str) -> Opened:
        """Verify an envelope and return its payload.

        A signature counts for the key that its `keyid` names, and no other; further signatures do no harm.

        Raises:
            Denied: EnvelopeMalformed, KeyUnknown (no signature names a trusted key) or SignatureInvalid (one does,
                but does not fit the payload).
        """
        payload, kind, signatures = _parse(envelope)
        if kind != payload_type:
            raise _malformed(f"its payload is a {kind[:80]!r}, {payload_type} was expected")
        message = pae(kind, payload)
        named = [(name, signature) for name, signature in signatures if name in self._keys]
        for name, signature in named:
            with contextlib.suppress(InvalidSignature):  # the next one may fit; that none does is reported below
                self._keys[name].verify(signature, message)
                return Opened(payload, kind, name)
        if named:
            raise Denied(
                f"the signature by key {named[0][0][:12]} does not fit: the content was changed after signing",
                reason="SignatureInvalid",
            )
        hints = ", ".join(hint[:12] or "a key without name" for hint, _ in signatures)
        raise Denied(
            f"signed by {hints}, which is not among the {len(self._keys)} trusted keys; "
            "if the key was changed, add the old public key to trustedKeys",
            reason="KeyUnknown",
        )


def public_text(keys: Iterable[bytes]) -> str:
    """Write public keys, 32 raw bytes each, in one line: base64, with commas between them."""
    return ",".join(base64.b64encode(key).decode() for key in keys)


def read_public_pem(pem: str) -> bytes:
    """Read a public key in PEM as its 32 raw bytes.

    Raises:
        Denied: KeyInvalid: not an ed25519 public key.
    """
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise Denied("a trusted key is not an ed25519 public key in PEM", reason="KeyInvalid")
    return key.public_bytes(*_RAW)


def _parse(envelope: bytes) -> tuple[bytes, str, list[tuple[str, bytes]]]:
    """Read an envelope strictly: nothing of it is believed yet."""
    if len(envelope) > ENVELOPE_MAX_BYTES:
        raise _malformed(f"it has {len(envelope):,} bytes, more than {ENVELOPE_MAX_BYTES:,}")
    try:
        outer = json.loads(envelope.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise _malformed("it is not JSON") from None
    if not isinstance(outer, dict):
        raise _malformed("it is not a JSON object")
    kind, listed = outer.get("payloadType"), outer.get("signatures")
    if not isinstance(kind, str):
        raise _malformed("payloadType is missing")
    if not isinstance(listed, list) or not 0 < len(listed) <= SIGNATURES_MAX:
        raise _malformed(f"signatures must be a list of 1 to {SIGNATURES_MAX}")
    signatures = []
    for entry in listed:
        name = entry.get("keyid") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not isinstance(name, str):
            raise _malformed("a signature is not an object with a keyid")
        signatures.append((name, _base64(entry.get("sig"), "a signature")))
    return _base64(outer.get("payload"), "the payload"), kind, signatures


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key that comes twice: two readers might take different ones."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice")
    return found


def _base64(text: object, what: str) -> bytes:
    """Decode base64 that is written in the one canonical way."""
    if not isinstance(text, str):
        raise _malformed(f"{what} is missing")
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise _malformed(f"{what} is not base64") from None
    if base64.b64encode(raw).decode() != text:
        raise _malformed(f"{what} is not base64 in its canonical form")
    return raw


def _malformed(why: str) -> Denied:
    return Denied(f"not a signed envelope: {why}", reason="EnvelopeMalformed")


def _write_new(path: Path, key: Ed25519PrivateKey) -> None:
    """Write a key file that did not exist, all at once; the first of several writers wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another process made the key first: that one is used
            os.link(name, path)
    finally:
        Path(name).unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read_private(path: Path) -> Ed25519PrivateKey:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o027:  # the group may read: that is how a Secret is mounted for a process that is not root
        raise Denied(
            f"the signing key {path} has mode {mode:04o}, so others may read or change it: run "
            f"`chmod 600 {path}`, or make a new key if somebody may have copied it",
            reason="KeyFileExposed",
        )
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise Denied(
            f"the signing key {path} is not an ed25519 key in PEM (PKCS#8): restore it from its backup",
            reason="KeyFileInvalid",
        )
    return key
