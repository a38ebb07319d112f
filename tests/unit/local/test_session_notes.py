"""Which data directory a state belongs to, whatever a kill left of the note about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.local.session import allow_roots, git_roots, places, prepare


def test_a_state_remembers_its_data_directory(tmp_path: Path):
    prepare(places(tmp_path / "state", tmp_path / "data"))

    assert places(tmp_path / "state").data == tmp_path / "data"


def test_an_empty_note_is_no_note_and_never_means_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MAINSPRING_DATA", str(tmp_path / "data"))
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "data-directory").write_text("")

    assert places(tmp_path / "state").data == tmp_path / "data"


def test_notes_are_replaced_as_a_whole_and_leave_nothing_else_behind(tmp_path: Path):
    where = places(tmp_path / "state", tmp_path / "data")
    prepare(where)
    old = (where.state / "data-directory").stat().st_ino
    allow_roots(where, [tmp_path / "one"])
    allow_roots(where, [tmp_path / "two"])
    prepare(where)

    assert git_roots(where) == ((tmp_path / "one").resolve(), (tmp_path / "two").resolve())
    assert (where.state / "data-directory").stat().st_ino != old
    assert sorted(p.name for p in where.state.iterdir()) == ["data-directory", "git-roots"]
