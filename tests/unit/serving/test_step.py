"""A step's last words fit where they go."""

from __future__ import annotations

import pytest

from controller.api.reports import Termination
from controller.clients.errors import Conflict, Denied, NotFound, Unavailable
from controller.serving import step


@pytest.mark.parametrize(
    ("error", "code", "outcome", "reason"),
    [
        (None, 0, "Done", ""),
        (Denied("no", reason="ManifestMismatch"), 3, "Invalid", "ManifestMismatch"),
        (NotFound("no", reason="ModelMissing"), 3, "Invalid", "ModelMissing"),
        (Unavailable("no"), 1, "Failed", "Unavailable"),
        (Conflict("no"), 1, "Failed", "Conflict"),
        (KeyError("no"), 1, "Failed", "Failed"),
    ],
)
def test_how_a_step_ends_decides_whether_it_is_tried_again(error, code, outcome, reason, tmp_path, monkeypatch):
    monkeypatch.setenv("MAINSPRING_TERMINATION_LOG", str(tmp_path / "said"))

    def work() -> None:
        if error is not None:
            raise error

    assert step.run("predict", work) == code
    ended = Termination.model_validate_json((tmp_path / "said").read_bytes())
    assert (ended.outcome, ended.reason) == (outcome, reason)


@pytest.mark.parametrize("text", ["x" * 5000, "ü" * 5000, '"\\' * 5000, "𝔘" * 5000, "a" * 460])
def test_a_long_sentence_is_cut_to_512_bytes_and_stays_json(text):
    written = step.termination_text(Termination(outcome="Invalid", reason="ModelNotLoadable", message=text))
    assert len(written.encode()) <= 512
    assert Termination.model_validate_json(written).message.endswith("…") or len(text) < 480
    assert len(Termination.model_validate_json(written).message) > 50
