"""Reading YAML: what the API server would read, or a refusal with line and column."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.strictyaml import MAX_BYTES, read
from controller.api.strictyaml_scalars import Trap, plain

# Compared with sigs.k8s.io/yaml 1.6 (which kubectl uses) on these and on 28,000 generated scalars.
SAME_AS_SERVER = {
    "1e3": 1000, "1e-3": 0.001, "1.0": 1, "-0": 0, "0x1F": 31, ".5": 0.5, "5.": 5, "+5": 5, "007.5": 7.5,
    "1e21": 1e21, "9223372036854775807": 2**63 - 1, "2026-01-31": "2026-01-31", "1.2.3": "1.2.3", "=": "=",
    "~": None, "Null": None, "True": True, "FALSE": False, "1:2:3:x": "1:2:3:x", "-": "-", "1-2": "1-2",
}  # fmt: skip

TRAPS = (
    "yes", "No", "on", "OFF", "y", "N", "0123456", "089", "12:30:00", "1:30", "1_000", "0o17", "0b11", "-0x10",
    ".nan", "-.inf", "1e400", "9223372036854775808", "1" * 5000,
)  # fmt: skip


@pytest.mark.parametrize(("text", "value"), SAME_AS_SERVER.items())
def test_an_unquoted_scalar_is_what_the_server_reads(text: str, value: object) -> None:
    got = plain(text)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize("text", TRAPS)
def test_an_unquoted_scalar_with_two_meanings_is_refused(text: str) -> None:
    got = plain(text)
    assert isinstance(got, Trap)
    assert len(got.message) < 250


@pytest.mark.parametrize("text", TRAPS)
def test_quotes_make_text_of_it(text: str) -> None:
    (document,) = read(f'a: "{text}"\n'.encode()).documents
    assert document.value == {"a": text}


def test_every_key_and_entry_has_its_position() -> None:
    (document,) = read("a: ü\nb:\n  - x\n  - {c: 1}\n".encode()).documents
    assert document.positions == {
        (): (1, 1),
        ("a",): (1, 1),
        ("b",): (2, 1),
        ("b", 0): (3, 5),
        ("b", 1): (4, 5),
        ("b", 1, "c"): (4, 6),
    }
    assert document.position(("b", 1, "d", "e")) == (4, 5)


def test_every_mistake_of_a_file_is_named_at_once() -> None:
    problems = read(b"a: yes\nb: [0123]\na: &x 1\nc: *x\n---\nd: 1_0\n").problems
    assert [(p.line, p.column) for p in problems] == [(1, 4), (2, 5), (3, 1), (3, 4), (4, 4), (6, 4)]


def test_documents_know_their_lines_and_empty_ones_are_left_out() -> None:
    documents = read(b"---\n---\na: 1\n---\n# only a comment\n---\nb: 2\n").documents
    assert [(d.value, d.line) for d in documents] == [({"a": 1}, 3), ({"b": 2}, 7)]


def test_the_largest_file_is_read_and_one_byte_more_is_not() -> None:
    comment = b"#" * (MAX_BYTES - 6) + b"\na: 1\n"
    assert read(comment).problems == ()
    assert "larger than 256 KiB" in read(b"#" + comment).problems[0].message


def test_a_hundred_documents_are_read_and_one_more_is_not() -> None:
    assert len(read(b"--- 1\n" * 100).documents) == 100
    assert read(b"--- 1\n" * 101).problems[0].message == "more than 100 documents; split the file"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        pytest.param(b"a: [1,\n", 2, "a value is missing here", id="a list that is not closed"),
        pytest.param(b"a: 'x\n", 2, "a quote is not closed", id="a quote that is not closed"),
        pytest.param(b"a: b: c\n", 1, "a ':' where no key can be", id="a colon in a value"),
        pytest.param(b"a: @x\n", 1, '"@" cannot begin a value', id="a reserved character"),
        pytest.param(b"? [a]\n: b\n", 1, "a key must be text", id="a list as key"),
        pytest.param(b"8080: b\n", 1, 'the key 8080 is a number; quote it: "8080"', id="a number as key"),
        pytest.param(b"%YAML 1.1\n---\na: 1\n", 2, "%YAML and %TAG lines are not allowed", id="a directive"),
    ],
)
def test_a_mistake_is_said_in_words(text: bytes, line: int, message: str) -> None:
    (problem,) = read(text).problems
    assert problem.line in (line, line - 1)
    assert problem.message.startswith(message)


@given(st.binary(max_size=400))
def test_no_bytes_bring_it_down(data: bytes) -> None:
    read(data)


@given(st.text(alphabet="ab:-[]{}&*!#?'\"\n \t|>%@0159._exyno~<", max_size=80))
def test_no_text_brings_it_down(text: str) -> None:
    for document in read(text.encode()).documents:
        assert document.positions[()][0] == document.line
