"""Where a verb works: what is named wins, and an error says where was looked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controller.cli.errors import Failure
from controller.cli.place import as_plugin, choose
from tests.support.cli_session import mainspring

FILE = Path("kubeconfig")


@pytest.mark.parametrize(
    ("options", "has_state", "expected"),
    [
        pytest.param({"kubeconfig": FILE}, True, "cluster", id="--kubeconfig wins over a state directory"),
        pytest.param({"context": "prod"}, True, "cluster", id="--context wins over a state directory"),
        pytest.param({"given": "--state", "plugin": True}, False, "local", id="--state wins over kubectl"),
        pytest.param(
            {"given": "MAINSPRING_STATE", "env": {"KUBECONFIG": "x"}},
            False,
            "local",
            id="so does MAINSPRING_STATE",
        ),
        pytest.param(
            {"given": "MAINSPRING_STATE", "context": "prod"},
            True,
            "cluster",
            id="an option wins over the environment",
        ),
        pytest.param({"plugin": True}, True, "cluster", id="kubectl mainspring means the cluster"),
        pytest.param({"env": {"KUBECONFIG": "x"}}, True, "local", id="a state directory wins over KUBECONFIG"),
        pytest.param({"env": {"KUBECONFIG": "x"}}, False, "cluster", id="without one KUBECONFIG counts"),
        pytest.param({"env": {}}, False, "local", id="with nothing at all it is the local state"),
    ],
)
def test_where_a_verb_works(options, has_state, expected, tmp_path):
    state = tmp_path / "state"
    if has_state:
        state.mkdir()
        (state / "objects.db").touch()
    plain: dict[str, Any] = {"given": "", "kubeconfig": None, "context": None, "plugin": False, "env": {}}
    assert choose(state, **{**plain, **options}).kind == expected


def test_the_users_own_kubeconfig_counts(tmp_path):
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").touch()
    env = {"HOME": str(tmp_path)}
    place = choose(tmp_path / "none", given="", kubeconfig=None, context=None, plugin=False, env=env)
    assert place.kind == "cluster"
    assert place.why == f"there is no local state {tmp_path / 'none'}"


def test_state_and_cluster_together_are_refused(tmp_path):
    with pytest.raises(Failure, match="not both"):
        choose(tmp_path, given="--state", kubeconfig=FILE, context=None, plugin=False, env={})


@pytest.mark.parametrize(
    ("program", "expected"),
    [("/usr/bin/kubectl-mainspring", True), ("mainspring", False)],
    ids=["plugin", "alone"],
)
def test_the_name_of_the_program_tells_the_plugin(program, expected):
    assert as_plugin(program) is expected


def test_an_error_of_the_local_state_says_so_where_a_cluster_was_possible(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    answer = mainspring(tmp_path, "get")
    assert answer.code == 1
    assert answer.err.endswith(f"[looked in the local state {tmp_path}: MAINSPRING_STATE names it]\n")


def test_a_kubeconfig_that_is_not_there_is_one_line(tmp_path):
    answer = mainspring(tmp_path, "get", "--kubeconfig", str(tmp_path / "none"))
    assert answer.code == 1
    assert answer.err.startswith(
        f"error: no cluster is known: {tmp_path / 'none'} is not there; give --kubeconfig"
    )
    assert len(answer.err.splitlines()) == 1


def test_every_verb_that_reads_objects_offers_a_cluster(tmp_path):
    for verb in ("get", "explain", "plan", "apply", "logs", "trace", "doctor"):
        assert "--kubeconfig" in mainspring(tmp_path, verb, "--help").out
    for verb in ("up", "validate", "demo"):
        assert "--kubeconfig" not in mainspring(tmp_path, verb, "--help").out
