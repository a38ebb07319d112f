"""Which files make a revision: a change of them retrains, a change of anything else does not."""

from __future__ import annotations

import pytest

from controller.plan.selection import OUR_YAML_MAX_BYTES, is_our_yaml, may_be_our_yaml, select, unmatched

TREE = tuple(
    (mode, path, f"{number:040x}")
    for number, (mode, path) in enumerate(
        [
            ("100644", "train.py"),
            ("100755", "run.sh"),
            ("100644", "README.md"),
            ("100644", "lib/notes.MD"),
            ("100644", "lib/features.py"),
            ("100644", "library.py"),
            ("100644", "docs/index.html"),
            ("100644", "src/docs/schema.json"),
            ("100644", ".github/workflows/ci.yml"),
            ("100644", "data/train.csv"),
            ("100644", "deploy/model.yaml"),
            ("120000", "link"),
        ]
    )
)
OURS = "apiVersion: mainspring.dev/v1alpha1\nkind: ModelSpec\n"


def chosen(paths, exclude=()):
    return [path for _, path, _ in select(TREE, tuple(paths), exclude=frozenset(exclude))]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        pytest.param(
            ["lib/"], ["lib/features.py", "lib/notes.MD"], id="a directory brings all below it, *.md too"
        ),
        pytest.param(["lib"], ["lib/features.py", "lib/notes.MD"], id="a plain name matches the directory"),
        pytest.param(["train.py"], ["train.py"], id="a plain name matches the file"),
        pytest.param(["train.py/"], [], id="a file is no directory"),
        pytest.param(
            ["docs/", "README.md"], ["README.md", "docs/index.html"], id="what is named counts, docs too"
        ),
        pytest.param(
            ["lib/", "lib/features.py"], ["lib/features.py", "lib/notes.MD"], id="named twice comes once"
        ),
        pytest.param(["LIB/"], [], id="names are compared by exact bytes"),
    ],
)
def test_paths_choose_files(paths, expected):
    assert chosen(paths) == expected


def test_without_paths_everything_but_prose_and_ci_counts():
    assert chosen([]) == [
        "data/train.csv",
        "deploy/model.yaml",
        "lib/features.py",
        "library.py",
        "link",
        "run.sh",
        "src/docs/schema.json",
        "train.py",
    ]


def test_datasets_and_our_yaml_never_count_even_when_named():
    assert chosen([], ["data/train.csv", "deploy/model.yaml"])[:2] == ["lib/features.py", "library.py"]
    assert chosen(["data/", "deploy/model.yaml"], ["data/train.csv", "deploy/model.yaml"]) == []


def test_the_order_of_the_listing_does_not_matter():
    again = select(reversed(TREE), (), exclude=frozenset())
    assert again == select(TREE, (), exclude=frozenset())
    assert [line[1] for line in again] == sorted(line[1] for line in again)


def test_lines_keep_mode_and_blob_so_that_a_changed_mode_is_another_input():
    assert select(TREE, ("run.sh",), exclude=frozenset()) == (("100755", "run.sh", f"{1:040x}"),)


def test_names_that_match_nothing_are_told():
    assert unmatched(TREE, ("lib/", "trian.py", "train.py/")) == ("trian.py", "train.py/")


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        pytest.param(OURS, True, id="a ModelSpec is ours"),
        pytest.param(f"# comment\n---\n{OURS}---\n{OURS}...\n", True, id="several documents, all ours"),
        pytest.param(f"{OURS}---\n# only a comment\n", True, id="an empty document says nothing against it"),
        pytest.param(
            f"{OURS}---\napiVersion: v1\nkind: Service\n", False, id="one foreign document makes it code"
        ),
        pytest.param("params: {depth: 3}\n", False, id="parameters are code"),
        pytest.param(
            "spec:\n  apiVersion: mainspring.dev/v1alpha1\n", False, id="our group below the top is no kind"
        ),
        pytest.param("- apiVersion: mainspring.dev/v1alpha1\n", False, id="a list is no kind"),
        pytest.param("apiVersion: mainspring.device/v1\n", False, id="another group that begins alike"),
        pytest.param("apiVersion: {mainspring.dev/v1alpha1: 1}\n", False, id="the group must be text"),
        pytest.param("# nothing\n", False, id="an empty file is not ours"),
        pytest.param("a: [\n", False, id="broken YAML is not ours"),
        pytest.param("[" * 100_000, False, id="a very deep file is not ours"),
        pytest.param("a: \x00", False, id="control characters are not ours"),
    ],
)
def test_our_yaml_is_told_from_code(text, ours):
    assert is_our_yaml(text) is ours
    assert is_our_yaml(text.encode()) is ours


def test_only_yaml_files_of_bounded_size_are_looked_into():
    assert may_be_our_yaml("deploy/model.yaml", 10)
    assert may_be_our_yaml("M.YML", OUR_YAML_MAX_BYTES)
    assert not may_be_our_yaml("model.yaml", OUR_YAML_MAX_BYTES + 1)
    assert not may_be_our_yaml("model.json", 10)
    assert not may_be_our_yaml("model.yaml", 10, "120000"), "a link is never followed"
    assert not may_be_our_yaml("mo\x1bdel.yaml", 10), "a name that no spec could hold"


def test_one_byte_that_is_no_text_does_not_make_our_yaml_code():
    assert is_our_yaml(b"# caf\xe9\n" + OURS.encode())
    assert not is_our_yaml(OURS.encode("utf-16"))
