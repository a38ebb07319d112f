"""Checking files: ours or not, all or nothing, everything at once."""

from __future__ import annotations

import re

import pytest

from controller.api.crd import schema_of
from controller.api.kinds import KINDS, parse
from controller.api.pods import reachable
from controller.api.validation import check_text
from controller.api.validation_words import PATTERNS

GOOD = """\
apiVersion: mainspring.dev/v1alpha1
kind: ModelSpec
metadata: {name: churn, creationTimestamp: null}
spec:
  source: {url: "https://git.example.com/churn.git", ref: {branch: main}}
  data: [{name: train, path: train.csv}]
  columns: {target: churned}
  training: {command: [python, train.py], params: {rate: 1e-3, deep: {none: null}}}
"""


def test_a_right_file_gives_objects_that_the_kinds_accept() -> None:
    checked = check_text(GOOD.encode(), "a.yaml")
    assert checked.problems == ()
    typed = parse(checked.documents[0].manifest)
    assert not isinstance(typed, tuple)
    assert checked.names == (("ModelSpec", "churn"),)


def test_one_wrong_document_holds_back_the_whole_file_and_names_stay_known() -> None:
    bad = GOOD.replace("churn,", "other,").replace("churned", "[x]")
    checked = check_text(f"{GOOD}---\n{bad}".encode(), "a.yaml")
    assert checked.documents == ()
    assert [str(p) for p in checked.problems] == [
        "a.yaml:16:13: spec.columns.target: text is wanted here, not a list"
    ]
    assert checked.names == (("ModelSpec", "churn"), ("ModelSpec", "other"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("apiVersion: v1\nkind: Pod\n", "v1 Pod is no kind of Mainspring", id="another kind"),
        pytest.param("lr: 0.1\n", "no Kubernetes object", id="parameters of a training"),
        pytest.param("", "no document", id="nothing"),
        pytest.param("a: *b\n", "names nothing of Mainspring (line 1: aliases are", id="strange YAML of others"),
        pytest.param(
            "apiVersion: ml.example.com/v1\nkind: ModelSpec\n",
            "ml.example.com/v1 ModelSpec is no kind of Mainspring",
            id="a kind of the same name in another group",
        ),
    ],
)
def test_a_file_of_others_is_skipped_with_the_reason(text: str, reason: str) -> None:
    checked = check_text(text.encode(), "a.yaml")
    assert checked.skipped is not None
    assert checked.skipped.startswith(reason)
    assert checked.problems == ()


def test_a_foreign_document_beside_ours_is_no_error() -> None:
    checked = check_text(f"apiVersion: v1\nkind: Pod\n---\n{GOOD}".encode(), "a.yaml")
    assert len(checked.documents) == 1


def test_a_revision_is_not_written_by_people() -> None:
    text = GOOD.replace("kind: ModelSpec", "kind: ModelRevision")
    assert check_text(text.encode(), "a.yaml").problems[0].message == (
        "a ModelRevision is written by the controller only; delete it from the file"
    )


def test_a_password_is_never_repeated() -> None:
    for where in ("https://git.example.com/churn.git", "main", "train.csv", "churned"):
        text = GOOD.replace(where, "https://bot:hunter2@git.example.com/churn.git", 1)
        for problem in check_text(text.encode(), "a.yaml").problems:
            assert "hunter2" not in str(problem)


def test_every_pattern_of_the_language_has_words() -> None:
    wanted = set(re.findall(r"'pattern': '((?:[^'\\]|\\.)*)'", str([schema_of(k) for k in KINDS])))
    assert {p.replace("\\\\", "\\") for p in wanted} <= set(PATTERNS)


@pytest.mark.parametrize(
    ("replicas", "weight", "share"), [(1, 10, 50), (2, 10, 33), (9, 10, 10), (4, 20, 20), (3, 50, 50)]
)
def test_a_weight_is_what_whole_servers_come_nearest_to(replicas: int, weight: int, share: int) -> None:
    assert reachable(replicas, weight) == share


def test_only_weights_out_of_reach_are_warned_of() -> None:
    serving = "  serving: {minReplicas: 9, canary: {stepWeights: [10, 11]}}\n"
    assert check_text((GOOD + serving).encode(), "a.yaml").warnings == ()
    (warning,) = check_text((GOOD + serving.replace("9", "4")).encode(), "a.yaml").warnings
    assert "with 4 servers" in warning.message
    assert "10 % becomes 20 %" in warning.message
