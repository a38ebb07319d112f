"""What a registry holds of a model is believed only as signed: one flipped bit anywhere, and it serves nobody.

The model of the commit before is asked for again by a revert, while somebody has changed what is stored of it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

from tests.support.git_repos import Scratch
from tests.support.linear_model import TRAIN, csv, model, rows
from tests.support.local_mode import Local, condition

ROW = '{"x1": 2.0, "x2": 1.0}'


def flip(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


def in_payload(content: bytes) -> bytes:
    envelope = json.loads(content)
    envelope["payload"] = base64.b64encode(flip(base64.b64decode(envelope["payload"]))).decode()
    return json.dumps(envelope).encode()


def in_signature(content: bytes) -> bytes:
    envelope = json.loads(content)
    (one,) = envelope["signatures"]
    one["sig"] = base64.b64encode(flip(base64.b64decode(one["sig"]))).decode()
    return json.dumps(envelope).encode()


CASES: list[tuple[str, Callable[[bytes], bytes], str, str]] = [
    ("lineage.json", in_payload, "LineageNotTrusted", "the content was changed after signing"),
    ("lineage.json", in_signature, "LineageNotTrusted", "does not fit"),
    ("lineage.json", flip, "LineageNotTrusted", "the lineage statement is not trusted"),
    ("model.joblib", flip, "ArtifactTampered", "is not the one that was admitted"),
]


def stored(local: Local, run: str, name: str) -> Path:
    """Find a file of a run where MLflow keeps it."""
    (found,) = [p for p in (local.data / "mlflow" / "artifacts").rglob(name) if run in str(p)]
    return found


def test_a_flipped_bit_in_what_is_stored_serves_nobody_and_the_champion_stays(local: Local, repository: Scratch):
    table, spec = csv(rows()), json.dumps(model(repository.url)).encode()
    files: dict[str, bytes | tuple[str, bytes]] = {"rows.csv": table, "deploy/line.yaml": spec}
    first = repository.commit({"train.py": TRAIN, **files})
    local.start("--repo", str(repository.path), "--path", "deploy", "--interval", "1s")
    old = local.until_condition("Succeeded", commit=first)["status"]["champion"]
    second = repository.commit({"train.py": TRAIN + b"# again\n", **files})
    champion = local.until_condition("Succeeded", commit=second)["status"]["champion"]
    assert champion["revision"] != old["revision"]
    run = old["evidence"].removeprefix("mlflow:/").partition("/")[0]
    sound = {name: stored(local, run, name).read_bytes() for name in ("lineage.json", "model.joblib")}

    stored(local, run, "lineage.json").write_bytes(in_payload(sound["lineage.json"]))
    back = repository.commit({"train.py": TRAIN, **files})
    for name, change, reason, words in CASES:
        for file, content in sound.items():
            stored(local, run, file).write_bytes(change(content) if file == name else content)

        def refused(reason: str = reason, words: str = words) -> bool:
            said = condition(local.model(), "Ready").get("message", "")
            return reason in said and words in said

        local.until(f"the server to refuse {name}: {reason}: {words}", refused)
        seen = local.model()["status"]
        assert (seen["champion"]["revision"], seen["champion"]["weight"]) == (champion["revision"], 100)
        answered = json.loads(local.run("predict", "line", "--row", ROW, "-o", "json").out)
        assert answered["revision"] == champion["revision"]
        told = local.run("explain", "modelspec/line").out
        assert reason in told
        assert "Traceback" not in told

    for file, content in sound.items():
        stored(local, run, file).write_bytes(content)
    served = local.until_condition("Succeeded", commit=back)["status"]["champion"]
    assert (served["revision"], served["digest"]) == (old["revision"], old["digest"])
