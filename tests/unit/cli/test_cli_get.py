"""`mainspring get`: the columns of the kinds, and words of help when there is no such thing."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest
import yaml

from controller.api.kinds import KINDS
from controller.cli import jsonpath
from controller.cli.output import age, aligned, clean
from tests.support.cli_session import mainspring, model, put, refused, stored, tell


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    state = tmp_path_factory.mktemp("state")
    tell(state, refused)
    return state


def test_everything_is_listed_with_the_columns_of_its_kind(state):
    lines = mainspring(state, "get").lines
    assert lines[0].split() == ["NAME", "READY", "AVAILABLE", "REASON", "STAGE", "CHAMPION", "CANARY%", "AGE"]
    assert lines[1].split()[:6] == ["bikes", "False", "True", "GateFailed", "Stalled", "bikes-dd1196040a"]
    assert lines[2] == ""
    assert lines[3].split() == ["NAME", "MODEL", "READY", "REASON", "VERSION", "COMMIT", "AGE"]
    assert lines[4].split()[:6] == ["bikes-4b78198ae3", "bikes", "True", "Succeeded", "2", "80a9605"]
    assert len(lines) == 6


@pytest.mark.parametrize(
    "args",
    [["modelspec"], ["ModelSpecs"], ["mspec"], ["modelspecs.mainspring.dev"], ["mspec/bikes"], ["mspec", "bikes"]],
    ids=["kind", "plural", "short", "with its group", "one object", "kind and name as kubectl takes them"],
)
def test_a_kind_has_many_names(args, state):
    assert mainspring(state, "get", *args, "-o", "name").out == "modelspec.mainspring.dev/bikes\n"


def test_wide_adds_commit_data_url_and_message_in_full(state):
    head, row = mainspring(state, "get", "mspec", "-o", "wide").lines
    assert head.split()[-6:] == ["OVERRIDDEN", "COMMIT", "DATA", "CHECKS", "URL", "MESSAGE"]
    assert "c506f45455933c98fab1a4caebd8be4c950a14e5" in row
    assert "gitblob:2219fecb861ae82ba2706e49a065c8d155e9f2a6" in row
    assert row.endswith("bikes-dd1196040a keeps serving.")


def test_json_of_one_object_is_the_object_and_of_many_a_list(state):
    one = json.loads(mainspring(state, "get", "mspec/bikes", "-o", "json").out)
    assert one == stored(state, "ModelSpec", "bikes")
    many = json.loads(mainspring(state, "get", "mrev", "-o", "json").out)
    assert many["kind"] == "List"
    assert [m["metadata"]["name"] for m in many["items"]] == ["bikes-4b78198ae3", "bikes-dd1196040a"]


def test_yaml_reads_back_as_the_object(state):
    assert yaml.safe_load(mainspring(state, "get", "mspec/bikes", "-o", "yaml").out) == stored(
        state, "ModelSpec", "bikes"
    )


def test_a_mistyped_name_is_answered_with_the_nearest_and_with_all(state):
    answer = mainspring(state, "get", "mspec/bike")
    assert answer.code == 1
    expected = 'error: no ModelSpec "bike" in namespace default; did you mean bikes? There is: bikes\n'
    assert answer.err == expected


def test_a_mistyped_kind_is_a_usage_error_with_the_nearest_kind(state):
    answer = mainspring(state, "get", "modelspek")
    assert answer.code == 2
    assert answer.err == (
        'error: unknown kind "modelspek"; did you mean modelspec? '
        "Kinds are modelspec (mspec), modelrevision (mrev), modelrepository (mrepo), modeloverride (movr)\n"
    )


def test_an_object_of_another_namespace_is_pointed_at(tmp_path):
    there = model()
    there["metadata"]["namespace"] = "team"
    put(tmp_path, there)
    answer = mainspring(tmp_path, "get", "mspec/bikes")
    assert answer.err == 'error: no ModelSpec "bikes" in namespace default; it is in namespace team (use -n)\n'
    assert mainspring(tmp_path, "get", "mspec", "-A").lines[1].split()[:2] == ["team", "bikes"]
    assert mainspring(tmp_path, "get", "mspec/bikes", "-n", "team", "-o", "name").code == 0


def test_an_empty_answer_says_what_to_do(tmp_path):
    put(tmp_path)
    answer = mainspring(tmp_path, "get")
    assert (answer.code, answer.out) == (0, "")
    assert answer.err == "no object in namespace default; create one with mainspring apply -f FILE\n"


def test_a_terminal_cannot_be_steered_by_what_an_object_says(tmp_path):
    status = {"observedGeneration": 1, "stage": "\x1b[2JServing\x07"}
    put(tmp_path, model(), statuses={"bikes": status})
    out = mainspring(tmp_path, "get", "mspec").out
    assert "\x1b" not in out
    assert "\N{REPLACEMENT CHARACTER}[2JServing\N{REPLACEMENT CHARACTER}" in out
    assert clean("tab\there") == "tab\there"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".metadata.name", "bikes"),
        (".status.data[0].digest", "sha256:1"),
        (".status.data[7].digest", None),
        ('.status.conditions[?(@.type=="Ready")].reason', "Succeeded"),
        ('.status.conditions[?(@.type=="Stalled")].reason', None),
        (".status.conditions.type", None),
    ],
)
def test_a_json_path_leads_to_its_value_or_to_nothing(path, found):
    value = {
        "metadata": {"name": "bikes"},
        "status": {"data": [{"digest": "sha256:1"}], "conditions": [{"type": "Ready", "reason": "Succeeded"}]},
    }
    assert jsonpath.read(path, value) == found


def test_every_column_of_every_kind_can_be_read():
    for kind in KINDS.values():
        for _, _, path, _ in kind.columns:
            assert jsonpath.read(path, {}) is None


def test_a_path_of_another_form_is_refused():
    with pytest.raises(ValueError, match=r"JSON path \.a\[\*\]: cannot read '\[\*\]'"):
        jsonpath.read(".a[*]", {"a": []})


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (3599, "59m"),
        (3600, "1h"),
        (9000, "2h30m"),
        (86_400, "24h"),
        (172_800, "2d"),
    ],
)
def test_ages_are_short(seconds, shown):
    now = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
    since = datetime.fromtimestamp(now.timestamp() - seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert age(since, now) == shown


def test_an_age_that_cannot_be_read_is_a_question_mark():
    assert age("soon", datetime.now(UTC)) == "?"


def test_colour_changes_no_column_and_folds_no_name():
    rows = [["bikes-dd1196040a", "False", "a message of any length " * 20], ["b", "True", ""]]
    plain = aligned(("NAME", "READY", "MESSAGE"), rows)
    painted = aligned(("NAME", "READY", "MESSAGE"), rows, colour=True)
    assert "\x1b[31mFalse\x1b[0m" in painted[1]
    assert "\x1b[32mTrue \x1b[0m" in painted[2]
    assert [re.sub(r"\x1b\[[0-9]*m", "", line).rstrip() for line in painted] == plain
    assert plain[1].startswith("bikes-dd1196040a   False   a message of any length")
