"""What a signature promises: the very bytes, by a key that is trusted, and nothing else."""

from __future__ import annotations

import base64
import json
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.clients.errors import Denied
from controller.clients.signing import Signer, Verifier, keyid, pae, read_public_pem

KIND = "application/vnd.mainspring.ledger+json"
OURS = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
THEIRS = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
TRUST_OURS = Verifier([OURS.public])
PAYLOAD = b'{"seq":1,"kind":"Promoted","champion":"bikes-0123456789"}'
ENVELOPE = OURS.sign(PAYLOAD, KIND)


def changed(**fields) -> bytes:
    return json.dumps({**json.loads(ENVELOPE), **fields}).encode()


def signature_of(envelope):
    return json.loads(envelope)["signatures"][0]


def test_what_is_signed_is_written_as_the_dsse_specification_says():
    # The example of the DSSE specification, protocol.md.
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("", b"") == b"DSSEv1 0  0 "
    assert pae("é", b"\x00") == b"DSSEv1 2 \xc3\xa9 1 \x00"


def test_the_signature_is_ed25519_of_that_encoding():
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    expected = base64.b64encode(key.sign(pae(KIND, PAYLOAD))).decode()
    assert signature_of(ENVELOPE) == {"keyid": keyid(OURS.public), "sig": expected}
    assert OURS.sign(PAYLOAD, KIND) == ENVELOPE


@given(payload=st.binary(max_size=300), kind=st.text(max_size=40))
def test_what_we_sign_we_can_open(payload, kind):
    opened = TRUST_OURS.open(OURS.sign(payload, kind), kind)
    assert (opened.payload, opened.payload_type, opened.keyid) == (payload, kind, OURS.keyid)


@settings(max_examples=500)
@given(at=st.integers(0, len(ENVELOPE) - 1), byte=st.integers(0, 255))
def test_no_byte_of_an_envelope_can_be_changed(at, byte):
    tampered = ENVELOPE[:at] + bytes([byte]) + ENVELOPE[at + 1 :]
    if tampered == ENVELOPE:
        assert TRUST_OURS.open(tampered, KIND).payload == PAYLOAD
    else:
        with pytest.raises(Denied):
            TRUST_OURS.open(tampered, KIND)


@given(cut=st.integers(0, len(ENVELOPE) - 1))
def test_a_cut_envelope_is_not_accepted(cut):
    with pytest.raises(Denied, match="not a signed envelope"):
        TRUST_OURS.open(ENVELOPE[:cut], KIND)


@given(raw=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_noise_is_not_accepted(raw):
    with pytest.raises(Denied, match="not a signed envelope"):
        TRUST_OURS.open(raw, KIND)


@pytest.mark.parametrize(
    ("envelope", "reason", "message"),
    [
        (THEIRS.sign(PAYLOAD, KIND), "KeyUnknown", "not among the 1 trusted keys"),
        (
            changed(payload=base64.b64encode(b'{"seq":2}').decode()),
            "SignatureInvalid",
            "the content was changed after signing",
        ),
        (OURS.sign(PAYLOAD, "application/vnd.in-toto+json"), "EnvelopeMalformed", "was expected"),
        (changed(signatures=[]), "EnvelopeMalformed", "a list of 1 to 16"),
        (changed(signatures=[signature_of(ENVELOPE)] * 17), "EnvelopeMalformed", "a list of 1 to 16"),
        (changed(signatures=["x"]), "EnvelopeMalformed", "not an object with a keyid"),
        (changed(payload="e30 "), "EnvelopeMalformed", "the payload is not base64"),
        (changed(payload="e31="), "EnvelopeMalformed", "canonical form"),
        (changed(payload="é"), "EnvelopeMalformed", "the payload is not base64"),
        (changed(payload=None), "EnvelopeMalformed", "the payload is missing"),
        (changed(payloadType=1), "EnvelopeMalformed", "payloadType is missing"),
        (ENVELOPE[:-1] + b',"payload":"e30="}', "EnvelopeMalformed", "not JSON"),
        (b"[" * 200_000, "EnvelopeMalformed", "not JSON"),
        (b"[]", "EnvelopeMalformed", "not a JSON object"),
        (ENVELOPE + b" " * 1_048_576, "EnvelopeMalformed", "more than 1,048,576"),
        (
            changed(signatures=[{"keyid": OURS.keyid, "sig": signature_of(THEIRS.sign(PAYLOAD, KIND))["sig"]}]),
            "SignatureInvalid",
            "changed after signing",
        ),
    ],
)
def test_what_is_not_signed_by_a_trusted_key_is_refused_with_its_reason(envelope, reason, message):
    with pytest.raises(Denied, match=message) as caught:
        TRUST_OURS.open(envelope, KIND)
    assert caught.value.reason == reason


def test_one_trusted_signature_among_foreign_ones_is_enough():
    foreign = signature_of(THEIRS.sign(PAYLOAD, KIND))
    both = changed(signatures=[foreign, {**foreign, "keyid": OURS.keyid}, signature_of(ENVELOPE)])
    assert TRUST_OURS.open(both, KIND).keyid == OURS.keyid


def test_a_retired_key_stays_trusted_while_it_is_listed():
    assert Verifier([THEIRS.public, OURS.public]).open(ENVELOPE, KIND).payload == PAYLOAD
    with pytest.raises(Denied, match="add the old public key to trustedKeys"):
        Verifier([THEIRS.public]).open(ENVELOPE, KIND)


def test_the_key_file_is_made_once_and_is_private(tmp_path):
    path = tmp_path / "keys" / "signing.pem"
    first = Signer.load_or_create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().startswith("-----BEGIN PRIVATE KEY-----")
    assert Signer.load_or_create(path).public == first.public
    assert read_public_pem(first.public_pem()) == first.public
    assert [p.name for p in path.parent.iterdir()] == ["signing.pem"]


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o666])
def test_a_key_that_others_may_read_or_change_is_refused(tmp_path, mode):
    path = tmp_path / "signing.pem"
    Signer.load_or_create(path)
    path.chmod(mode)
    with pytest.raises(Denied, match=rf"has mode {mode:04o}, so others .*: run `chmod 600"):
        Signer.load_or_create(path)


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_damaged_key_is_never_replaced(tmp_path, content):
    path = tmp_path / "signing.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(Denied, match="restore it from its backup"):
        Signer.load_or_create(path)
    assert path.read_bytes() == content


def test_a_trusted_key_must_be_an_ed25519_key():
    with pytest.raises(Denied, match="not an ed25519 public key"):
        read_public_pem("ssh-ed25519 AAAA")
