"""Models that come from files instead of a repository of YAML: `up -f`, and `apply -f` while it runs."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.git_repos import Scratch
from tests.support.linear_model import TRAIN, csv, model, rows
from tests.support.local_mode import Local


def test_a_file_at_the_start_and_another_one_while_it_runs(local: Local, repository: Scratch, tmp_path: Path):
    repository.commit({"train.py": TRAIN, "rows.csv": csv(rows()), "README.md": b"Lines"})
    first, second, wrong = (tmp_path / name for name in ("first.yaml", "second.yaml", "wrong.yaml"))
    first.write_text(json.dumps(model(repository.url, "first")))
    second.write_text(json.dumps(model(repository.url, "second", training={"command": ["python", "train.py"]})))
    wrong.write_text(first.read_text().replace('"max": 2', '"max": 2, "maxx": 3'))

    refused = local.run("up", "-f", str(wrong))
    assert refused.code == 1
    assert "wrong.yaml:1:" in refused.err
    assert 'unknown field "maxx"' in refused.err
    assert local.processes() == {}

    local.start("-f", str(first), "--git-root", str(repository.path.parent))
    local.until_condition("Succeeded", name="first")
    assert local.run("apply", "-f", str(wrong)).code == 1
    applied = local.run("apply", "-f", str(second))

    assert applied.code == 0, applied
    assert "second" in applied.out
    local.until_condition("Succeeded", name="second")
    for name in ("first", "second"):
        answer = local.run("predict", name, "--row", '{"x1": 2.0, "x2": 1.0}')
        assert answer.code == 0, answer
    told = local.run("get", "modelspec").out
    assert "first" in told
    assert "second" in told


def test_a_repository_that_was_not_allowed_is_refused_with_the_way_out(
    local: Local, repository: Scratch, tmp_path: Path
):
    repository.commit({"train.py": TRAIN, "rows.csv": csv(rows())})
    file = tmp_path / "line.yaml"
    file.write_text(json.dumps(model(repository.url)))

    answer = local.run("up", "-f", str(file))

    assert answer.code == 1
    assert answer.err == (
        f"error: ModelSpec line follows {repository.url}, which no --git-root allows; "
        f"add --git-root {repository.path}\n"
    )
