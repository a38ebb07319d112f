"""What the init container leaves for a server: exactly the files that a trusted key vouches for, or nothing."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controller.api.hashes import canonical
from controller.api.reports import Termination
from controller.api.statements import LINEAGE_TYPE, PREDICATE_TYPE, STATEMENT_TYPE
from controller.clients.errors import Denied, NotFound, Unavailable
from controller.clients.signing import Signer
from controller.serving import fetch_model, lineage
from tests.support.serving_models import digest_of

OURS, FOREIGN = Signer(Ed25519PrivateKey.generate()), Signer(Ed25519PrivateKey.generate())
KEYS = (OURS.public,)


def signed(digest: str, signer: Signer = OURS, kind: str = LINEAGE_TYPE) -> bytes:
    """Sign that a model of this digest is ours, as the controller does."""
    subject = {"name": "bikes-1/model", "digest": {"sha256": digest.removeprefix("sha256:")}}
    statement = {"_type": STATEMENT_TYPE, "predicateType": PREDICATE_TYPE, "subject": [subject], "predicate": {}}
    return signer.sign(canonical(statement), kind)


class Run:
    """A run of a registry, in memory."""

    def __init__(
        self, files: dict[str, bytes], sample: bytes | None = None, statement: bytes | None = None
    ) -> None:
        self.files, self.sample, self.statement, self.down = files, sample, statement, False

    async def download_model(self, run_id: str, dest: Path) -> int:
        if self.down:
            raise Unavailable("MLflow does not answer")
        for name, content in self.files.items():
            (dest / name).parent.mkdir(parents=True, exist_ok=True)
            (dest / name).write_bytes(content)
        return len(self.files)

    async def read_artifact(self, run_id: str, path: str, limit: int = 0) -> bytes:
        if self.down:
            raise Unavailable("MLflow does not answer")
        found = {"mainspring/sample.json": self.sample, "mainspring/lineage.json": self.statement}[path]
        if found is None:
            raise NotFound("no such artifact")
        if len(found) > limit:
            raise Denied(f"{path} is larger than {limit:,} bytes", reason="ArtifactTooLarge")
        return found


FILES = {"model.joblib": b"model", "code/mine.py": b"x = 1"}


@pytest.fixture
def digest(tmp_path) -> str:
    asyncio.run(Run(FILES).download_model("", tmp_path / "original"))
    return digest_of(tmp_path / "original")


def fetch(run: Run, digest: str, out: Path, keys: tuple[bytes, ...] = KEYS) -> None:
    if run.statement is None:
        run.statement = signed(digest)
    asyncio.run(fetch_model.fetch_model(run, "r1", digest, out, keys))


def test_the_model_and_its_sample_are_laid_out_for_the_server(tmp_path, digest):
    fetch(Run(FILES, b'{"instances": [[1]]}'), digest, tmp_path / "out")
    found = sorted(
        p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()
    )
    assert found == ["lineage.json", "model/code/mine.py", "model/model.joblib", "sample.json"]
    assert digest_of(tmp_path / "out") == digest


def test_a_run_without_a_sample_is_fetched_all_the_same(tmp_path, digest):
    fetch(Run(FILES), digest, tmp_path / "out")
    assert not (tmp_path / "out" / "sample.json").exists()


@pytest.mark.parametrize(
    "files",
    [{**FILES, "model.joblib": b"modeL"}, {**FILES, "more": b""}, {"model.joblib": b"model"}],
    ids=["another byte", "another file", "a missing file"],
)
def test_other_files_than_those_of_the_digest_leave_nothing(files, tmp_path, digest):
    with pytest.raises(Denied) as caught:
        fetch(Run(files, b"{}"), digest, tmp_path / "out")
    assert caught.value.reason == "ArtifactTampered"
    assert "the model of run r1 in the registry is not the one that was admitted" in caught.value.message
    assert "Restore the run's files from a backup" in caught.value.message
    assert list((tmp_path / "out").iterdir()) == []


def test_one_flipped_bit_in_any_file_of_an_mlflow_model_is_found(saved, tmp_path):
    root = saved["mlflow-skops"] / "model"
    files = {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    digest = digest_of(saved["mlflow-skops"])
    assert {"MLmodel", "model.skops"} <= set(files)
    fetch(Run(files), digest, tmp_path / "sound")
    for number, (name, content) in enumerate(files.items()):
        changed = bytearray(content)
        changed[len(changed) // 2] ^= 1
        with pytest.raises(Denied) as caught:
            fetch(Run({**files, name: bytes(changed)}), digest, tmp_path / str(number))
        assert (name, caught.value.reason) == (name, "ArtifactTampered")
        assert not list((tmp_path / str(number)).iterdir())


DIGEST_OF_ANOTHER = "sha256:" + "0" * 64


def flipped(envelope: bytes, part: str) -> bytes:
    """Flip one bit of the payload or of the signature of an envelope, and leave the rest in its form."""
    outer = json.loads(envelope)
    where = outer if part == "payload" else outer["signatures"][0]
    content = bytearray(base64.b64decode(where[part]))
    content[len(content) // 2] ^= 1
    where[part] = base64.b64encode(bytes(content)).decode()
    return json.dumps(outer).encode()


UNTRUSTED = {
    "A05 no statement": (lambda d: b"", "", "has no signed lineage statement"),
    "one flipped bit in the payload": (
        lambda d: flipped(signed(d), "payload"),
        OURS.keyid[:12],
        "the content was changed after signing",
    ),
    "one flipped bit in the signature": (
        lambda d: flipped(signed(d), "sig"),
        OURS.keyid[:12],
        "the content was changed after signing",
    ),
    "A05 another key": (
        lambda d: signed(d, FOREIGN),
        FOREIGN.keyid[:12],
        "which is not among the 1 trusted keys",
    ),
    "A05 a valid signature of another model": (
        lambda d: signed(DIGEST_OF_ANOTHER),
        OURS.keyid[:12],
        f"speaks of {DIGEST_OF_ANOTHER}, not of sha256:",
    ),
    "a ledger entry in its place": (
        lambda d: signed(d, kind="application/vnd.mainspring.ledger+json"),
        "",
        "application/vnd.in-toto+json was expected",
    ),
    "something else that we have signed": (
        lambda d: OURS.sign(b'["x"]', LINEAGE_TYPE),
        OURS.keyid[:12],
        "not a lineage statement of a kind that is known",
    ),
    "cut in the middle": (lambda d: signed(d)[:200], "", "it is not JSON"),
    "A06 100 MB": (lambda d: b" " * 100_000_000, "", "is larger than 1,048,576 bytes"),
}


@pytest.mark.parametrize("case", UNTRUSTED)
def test_a_model_that_no_trusted_key_vouches_for_is_not_even_fetched(case, tmp_path, digest):
    statement, key, words = UNTRUSTED[case]
    run = Run(FILES, b"{}")
    if case != "A05 no statement":
        run.statement = statement(digest)
    with pytest.raises(Denied) as caught:
        asyncio.run(fetch_model.fetch_model(run, "r1", digest, tmp_path / "out", KEYS))
    assert caught.value.reason == "LineageNotTrusted"
    assert words in caught.value.message
    assert key in caught.value.message
    assert not list(tmp_path.glob("out/*"))


def test_what_was_fetched_before_counts_only_while_its_key_is_trusted(tmp_path, digest):
    run = Run(FILES)
    fetch(run, digest, tmp_path / "out")
    with pytest.raises(
        Denied, match="not among the 1 trusted keys; if the key was changed, add the old public key"
    ):
        fetch(run, digest, tmp_path / "out", (FOREIGN.public,))
    assert not (tmp_path / "out" / "model").exists()
    fetch(run, digest, tmp_path / "out", (FOREIGN.public, OURS.public))
    assert digest_of(tmp_path / "out") == digest


@pytest.mark.parametrize("how", ["PEM", "base64", "both, with blanks and a comma"])
def test_trusted_keys_are_read_as_people_write_them(how):
    raw = base64.b64encode(OURS.public).decode()
    text = {"PEM": OURS.public_pem(), "base64": raw}.get(how, f" {FOREIGN.public_pem()}, {raw}\n")
    keys = lineage.read_keys(text)
    assert keys[-1] == OURS.public
    assert lineage.check(signed(DIGEST_OF_ANOTHER), DIGEST_OF_ANOTHER, keys) == OURS.keyid


@pytest.mark.parametrize(
    ("text", "reason", "words"),
    [
        ("", "LineageNotTrusted", "MAINSPRING_TRUSTED_KEYS names 0 public keys, 1 to 64 are needed"),
        ("AAAA", "KeyInvalid", "neither a PEM block nor 32 bytes in base64"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "KeyInvalid", "not an ed25519 public key"),
    ],
    ids=["none", "not a key", "a broken PEM block"],
)
def test_without_a_key_to_trust_nothing_is_served(text, reason, words, tmp_path, digest, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MAINSPRING_TRUSTED_KEYS", text)
    monkeypatch.setenv("MAINSPRING_TERMINATION_LOG", str(tmp_path / "said"))
    assert fetch_model.main(["--run", "r", "--digest", digest, "--out", str(tmp_path / "out")]) == 3
    ended = Termination.model_validate_json((tmp_path / "said").read_bytes())
    assert (ended.reason, words in ended.message) == (reason, True)


def test_a_server_that_restarts_needs_no_registry(tmp_path, digest):
    run = Run(FILES)
    fetch(run, digest, tmp_path / "out")
    run.down = True
    fetch(run, digest, tmp_path / "out")
    with pytest.raises(Unavailable):
        fetch(run, digest, tmp_path / "elsewhere")


def test_what_was_changed_on_disk_is_fetched_anew(tmp_path, digest):
    fetch(Run(FILES), digest, tmp_path / "out")
    (tmp_path / "out" / "model" / "model.joblib").write_bytes(b"changed")
    fetch(Run(FILES), digest, tmp_path / "out")
    assert digest_of(tmp_path / "out") == digest


def test_without_a_registry_the_step_says_what_is_missing(tmp_path, digest, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MAINSPRING_TERMINATION_LOG", str(tmp_path / "said"))
    assert fetch_model.main(["--run", "r", "--digest", digest, "--out", str(tmp_path / "out")]) == 3
    ended = Termination.model_validate_json((tmp_path / "said").read_bytes())
    assert (ended.reason, "MLFLOW_TRACKING_URI is not set" in ended.message) == ("RegistryMissing", True)
