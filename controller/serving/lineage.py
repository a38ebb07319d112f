"""The signed lineage of a model, as a server asks for it before it takes the model: who vouches for these bytes?

A statement counts when a trusted key has signed it and its subject has the digest that the server was told.  The
public keys come from the operator by MAINSPRING_TRUSTED_KEYS; without any, nothing is trusted and nothing served.
Reads no private key, loads no model, and believes nothing of a statement before its signature holds.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, Final

from controller.api.statements import LINEAGE_TYPE, PREDICATE_TYPE, STATEMENT_TYPE
from controller.clients.errors import Denied
from controller.clients.signing import Opened, Verifier, read_public_pem

KEYS_ENV: Final = "MAINSPRING_TRUSTED_KEYS"
"""Public keys that may vouch for a model: PEM blocks, or raw keys in base64 with commas or blanks between them."""
PATH: Final = "mainspring/lineage.json"
"""Artifact of a run: the DSSE envelope."""
KEYS_MAX: Final = 64
_PEM: Final = re.compile(r"-----BEGIN PUBLIC KEY-----[^-]*-----END PUBLIC KEY-----")
_ADVICE: Final = "restore it from a backup, or push a change so that a new revision is trained"


def read_keys(text: str) -> tuple[bytes, ...]:
    """Read public keys as their 32 raw bytes each.

    Raises:
        Denied: LineageNotTrusted: there is none; KeyInvalid: one is no ed25519 public key.
    """
    found = [read_public_pem(block) for block in _PEM.findall(text)]
    found += [_raw(word) for word in re.split(r"[\s,]+", _PEM.sub(" ", text)) if word]
    if not 0 < len(found) <= KEYS_MAX:
        raise Denied(
            f"{KEYS_ENV} names {len(found)} public keys, 1 to {KEYS_MAX} are needed: whether a model is the one "
            "that was admitted cannot be told, so it is not served; the operator sets it on the servers it makes",
            reason="LineageNotTrusted",
        )
    return tuple(found)


def check(envelope: bytes, digest: str, keys: tuple[bytes, ...]) -> str:
    """Return the id of the trusted key that vouches for the model of this digest.

    Args:
        envelope: DSSE, as it came from the registry.
        digest: `sha256:<64 hex>` of the model's manifest, as the operator told the server.
        keys: trusted public keys, raw.

    Raises:
        Denied: LineageNotTrusted; the message says what is wrong, names keys and digests, and what to do.
    """
    try:
        opened = Verifier(keys).open(envelope, LINEAGE_TYPE)
    except Denied as error:
        raise Denied(
            f"the lineage statement is not trusted: {error.message}. {_ADVICE}", reason="LineageNotTrusted"
        ) from None
    subjects = _subjects(opened)
    if digest not in subjects:
        named = ", ".join(sorted(subjects))[:160] or "no digest"
        raise Denied(
            f"the lineage statement, signed by key {opened.keyid[:12]}, speaks of {named}, not of {digest}: "
            f"it belongs to another model. {_ADVICE}",
            reason="LineageNotTrusted",
        )
    return opened.keyid


def _subjects(opened: Opened) -> set[str]:
    """Read the digests that a statement speaks of; its signature holds."""
    statement: Any = json.loads(opened.payload)
    kinds = (statement.get("_type"), statement.get("predicateType")) if isinstance(statement, dict) else ()
    if kinds != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise Denied(
            f"what key {opened.keyid[:12]} has signed is not a lineage statement of a kind that is known; "
            "was it written by a newer Mainspring?",
            reason="LineageNotTrusted",
        )
    digests = [s.get("digest", {}).get("sha256", "") for s in statement.get("subject", ())]
    return {f"sha256:{value}" for value in digests if value}


def _raw(word: str) -> bytes:
    try:
        raw = base64.b64decode(word, validate=True)
    except binascii.Error:
        raw = b""
    if len(raw) != 32:
        raise Denied(
            f"{KEYS_ENV} has something that is neither a PEM block nor 32 bytes in base64", reason="KeyInvalid"
        )
    return raw
