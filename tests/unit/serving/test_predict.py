"""The predict step: what it writes for a good model, and that no model gets more out of it than an error."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from controller.api.reports import PredictFacts, PredictTask, Termination
from controller.clients import artifacts
from controller.clients.errors import Denied
from controller.serving import frames, predict
from controller.serving.child import running
from tests.support.serving_models import as_artifact, digest_of


@pytest.fixture
def features(tmp_path: Path, table) -> Path:
    where = tmp_path / "features"
    where.mkdir()
    table.to_parquet(where / "features.parquet")
    return where


def hostile(directory: Path, body: str) -> Path:
    """Leave a model whose class is `M` in code/; `body` is the source of its class."""
    (directory / "code").mkdir(parents=True)
    (directory / "code" / "hostile.py").write_text(f"import os, sys, time\nclass M:\n{body}\n")
    (directory / "model.joblib").write_bytes(b"chostile\nM\n)\x81.")
    return directory


def method(line: str) -> str:
    return f"    def predict(self, rows):\n        {line}"


@pytest.mark.parametrize("kind", ["joblib", "skops", "mlflow-cloudpickle"])
def test_every_format_is_predicted_timed_and_told(kind, saved, pipeline, table, features, tmp_path):
    task = PredictTask(digest=digest_of(saved[kind]), probe_requests=20, scores=True)
    facts = predict.predict(task, saved[kind], features, tmp_path / "out")
    written = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    assert written.columns.tolist() == ["prediction", "score:no", "score:yes"]
    assert written["prediction"].tolist() == pipeline.predict(table).tolist()
    assert written["score:yes"].tolist() == pipeline.predict_proba(table)[:, 1].tolist()
    assert PredictFacts.model_validate_json((tmp_path / "out" / "facts.json").read_bytes()) == facts
    assert (facts.rows, facts.requests, facts.format) == (60, 20, kind.partition("-")[0])
    assert facts.digest == digest_of(saved[kind])
    times = [t for t in (facts.p50_ms, facts.p95_ms, facts.p99_ms) if t is not None]
    assert len(times) == 3
    assert 0 < times[0] <= times[1] <= times[2] < 10_000
    assert facts.packages["scikit-learn"] == "1.9.1"
    sample = json.loads((tmp_path / "out" / "sample.json").read_bytes())
    assert sample["dataframe_split"]["data"] == [table.iloc[0].tolist()]


def test_a_model_that_was_just_trained_needs_no_digest_and_gets_one(saved, features, tmp_path):
    output = tmp_path / "output"
    shutil.copytree(saved["joblib"], output)
    (output / "metrics.json").write_text("{}")
    facts = predict.predict(PredictTask(), output, features, tmp_path / "out")
    assert facts.digest == digest_of(saved["joblib"])
    assert (facts.requests, facts.p50_ms) == (0, None)


def test_a_tampered_champion_is_refused_before_a_process_starts(features, tmp_path):
    marker = tmp_path / "ran"
    model = hostile(tmp_path / "m", f"    open({str(marker)!r}, 'w')\n" + method("return []"))
    task = PredictTask(digest="sha256:" + "0" * 64)
    with pytest.raises(Denied) as caught:
        predict.predict(task, model, features, tmp_path / "out")
    assert caught.value.reason == "ManifestMismatch"
    assert not marker.exists()
    assert not (tmp_path / "out").exists()


def test_regression_without_names_and_with_missing_values_is_predicted(gaps, features, table, tmp_path):
    table.assign(income=table["income"].where(table["age"] > 40)).to_parquet(features / "features.parquet")
    facts = predict.predict(
        PredictTask(probe_requests=10, scores=True), as_artifact(gaps, tmp_path / "m"), features, tmp_path / "out"
    )
    assert facts.rows == 60


GARBAGE = "[os.write(fd, b'garbage' * 99) for fd in range(3, 12) if os.path.exists(f'/proc/self/fd/{fd}')"
HUGE = "[os.write(fd, b'MSP1A' + b'\\xff' * 8) for fd in range(3, 12) if os.path.exists(f'/proc/self/fd/{fd}')"
PIPE = " and os.readlink(f'/proc/self/fd/{fd}').startswith('pipe')]; time.sleep(60)"

PREDICTS = [
    ("NaN for one row", "return [0.5, float('nan')] + [1.0] * (len(rows) - 2)", "predicts nan for row 1"),
    ("infinity", "return [float('inf')] * len(rows)", "predicts inf for row 0"),
    ("too few", "return [1] * (len(rows) - 1)", "answers 60 rows with 59 predictions"),
    ("too many", "return [1] * 61", "answers 60 rows with 61 predictions"),
    ("nothing", "return None", "answers with NoneType"),
    ("lists", "return [[1, 2]] * len(rows)", "predicts list for row 0"),
    ("a table", "import numpy; return numpy.zeros((len(rows), 2))", r"array of shape \(60, 2\)"),
    ("numbers and strings", "return [1, 'a'] * 30", "numbers for some rows"),
    ("raises", "raise KeyError('colour')", "fails to predict: KeyError: 'colour'"),
    ("ends its process", "os._exit(7)", r"ended without an answer \(exit code 7\)"),
    ("is killed", "os.kill(os.getpid(), 9)", r"SIGKILL, out of memory\?"),
    ("writes garbage into the pipe", GARBAGE + PIPE, "sent something that is no answer"),
    ("announces a huge answer", HUGE + PIPE, r"announced 18,446,744,073,709,551,615 bytes, more"),
]
LOADS = [
    ("raises when loaded", "    raise RuntimeError('no')", "cannot be loaded: RuntimeError: no"),
    ("ends its process when loaded", "    os._exit(9)", "exit code 9"),
    ("no predict", "    pass", "no predict method"),
]
MODELS = [(name, method(line), said, "PredictionsInvalid") for name, line, said in PREDICTS]
MODELS += [(*rest, "ModelNotLoadable") for rest in LOADS]


@pytest.mark.parametrize(("body", "said", "reason"), [m[1:] for m in MODELS], ids=[m[0] for m in MODELS])
def test_a_bad_model_is_an_error_with_its_reason_and_leaves_nothing(body, said, reason, features, tmp_path):
    model = hostile(tmp_path / "m", body)
    with pytest.raises(Denied, match=said) as caught:
        predict.predict(PredictTask(), model, features, tmp_path / "out", deadline_s=60)
    assert caught.value.reason == reason
    assert not (tmp_path / "out").exists()


def test_a_model_that_hangs_when_it_is_loaded_is_stopped_at_the_deadline(features, tmp_path):
    started = time.monotonic()
    model = hostile(tmp_path / "m", "    time.sleep(600)")
    with pytest.raises(Denied, match="did not answer within 3 s and was stopped") as caught:
        predict.predict(PredictTask(), model, features, tmp_path / "out", deadline_s=3)
    assert caught.value.reason == "ModelNotLoadable"
    assert time.monotonic() - started < 60


def alive_in(group: int) -> list[list[str]]:
    states = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            states.append(path.read_text().rpartition(") ")[2].split())
    return [s for s in states if s[2] == str(group) and s[0] not in "ZX"]


def wait_until(true, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"did not happen within {seconds} s"
        time.sleep(0.02)


def test_a_model_that_hangs_when_it_predicts_is_stopped_with_all_it_started(tmp_path):
    source = (
        "import os, subprocess, time; subprocess.Popen(['sleep', '600']); "
        "os.write(1, b'MSP1A' + (2).to_bytes(8, 'big') + b'{}'); time.sleep(600)"
    )
    with running(tmp_path, "joblib", 10, [sys.executable, "-c", source]) as child:
        assert child.ask(frames.LOAD, b"", "ModelNotLoadable")[0] == {}
        group = child.pid
        with pytest.raises(Denied, match="did not answer within 10 s and was stopped") as caught:
            child.ask(frames.BATCH, b"x" * 1_000_000, "PredictionsInvalid")
    assert caught.value.reason == "PredictionsInvalid"
    # A killed process stays for a moment until it is reaped; none of them runs on.
    wait_until(lambda: not alive_in(group))


def test_what_a_model_prints_is_not_taken_for_an_answer(features, tmp_path):
    model = hostile(tmp_path / "m", method("print('MSP1A'); os.write(1, b'x' * 99); return [True] * len(rows)"))
    assert predict.predict(PredictTask(), model, features, tmp_path / "out").rows == 60


def test_the_model_sees_no_credentials_and_none_of_our_settings(features, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    monkeypatch.setenv("MAINSPRING_MODEL", "m")
    model = hostile(
        tmp_path / "m",
        method("return [str([k for k in os.environ if 'MLFLOW' in k or 'SPRING' in k])] * len(rows)"),
    )
    predict.predict(PredictTask(), model, features, tmp_path / "out")
    assert pd.read_parquet(tmp_path / "out" / "predictions.parquet")["prediction"][0] == "[]"


def test_a_model_that_only_predicts_tables_is_found_before_it_is_served(features, tmp_path):
    model = hostile(tmp_path / "m", method("assert len(rows) > 1, 'a whole table please'; return [1] * len(rows)"))
    with pytest.raises(Denied, match="fails to predict: AssertionError: a whole table please"):
        predict.predict(PredictTask(probe_requests=1), model, features, tmp_path / "out")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("print('hello')", "no answer|ended without"),
        ("import sys; sys.stdin.close()", "ended"),
        ("import os; os.write(1, b'MSP1A' + (3).to_bytes(8, 'big') + b'{{{')", "no answer"),
        ("import os; os.write(1, b'MSP1A' + (2).to_bytes(8, 'big') + b'[]')", "no answer"),
        ("import os; os.write(1, b'MSP1A' + (9).to_bytes(8, 'big') + b'{}')", "ended without"),
        ("import sys; sys.stdout.buffer.write(b'MSP1A' + (200000).to_bytes(8, 'big') + b'['*200000)", "no answer"),
    ],
    ids=["text", "a closed pipe", "broken JSON", "a list", "a short frame", "deep JSON"],
)
def test_another_program_in_place_of_the_worker_is_an_error(source, said, tmp_path):
    with (
        running(tmp_path, "joblib", 30, [sys.executable, "-c", source]) as child,
        pytest.raises(Denied, match=said),
    ):
        child.ask(frames.LOAD, b"x", "ModelNotLoadable")


def test_the_step_ends_with_3_and_its_reason_for_wrong_input(features, tmp_path, monkeypatch):
    said = tmp_path / "said"
    monkeypatch.setenv("MAINSPRING_TERMINATION_LOG", str(said))
    (tmp_path / "task.json").write_text("{}")
    (tmp_path / "m").mkdir()
    arguments = ["--task", f"{tmp_path}/task.json", "--model", f"{tmp_path}/m", "--features", str(features)]
    assert predict.main([*arguments, "--out", f"{tmp_path}/out"]) == 3
    ended = Termination.model_validate_json(said.read_bytes())
    assert (ended.outcome, ended.reason) == ("Invalid", "ModelMissing")
    assert "no model was left: expected model/MLmodel, model.skops, model.joblib" in ended.message
    assert ended.message.endswith("there is nothing")


@pytest.mark.parametrize("text", ["", "{", '{"v":2}', '{"surprise":1}', "[]"])
def test_a_task_that_is_none_is_wrong_input(text, features, tmp_path, monkeypatch):
    monkeypatch.setenv("MAINSPRING_TERMINATION_LOG", str(tmp_path / "said"))
    (tmp_path / "task.json").write_text(text)
    arguments = ["--task", f"{tmp_path}/task.json", "--model", str(tmp_path), "--features", str(features)]
    assert predict.main([*arguments, "--out", f"{tmp_path}/out"]) == 3
    assert Termination.model_validate_json((tmp_path / "said").read_bytes()).reason == "TaskInvalid"


def test_quantiles_are_values_that_were_measured():
    assert predict.quantiles([float(n) for n in range(100, 0, -1)]) == (50.0, 95.0, 99.0)
    assert predict.quantiles([3.0]) == (3.0, 3.0, 3.0)
    assert predict.quantiles([]) == (None, None, None)


SCRIPT = """
import sys, joblib
class Halves:
    def predict(self, rows):
        return [0.5] * len(rows)
joblib.dump(Halves(), sys.argv[1])
"""


def test_a_class_of_the_script_that_was_started_is_refused_with_the_way_out(features, tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "output").mkdir()
    target = str(tmp_path / "output" / "model.joblib")
    subprocess.run([sys.executable, str(tmp_path / "train.py"), target], check=True)
    with pytest.raises(
        Denied, match=r"class of the script that was started .*'Halves'.*: define it in a module"
    ) as caught:
        predict.predict(PredictTask(), tmp_path / "output", features, tmp_path / "out")
    assert caught.value.reason == "ModelNotLoadable"
    assert str(tmp_path) not in caught.value.message


def own_class(output: Path) -> None:
    """Leave a joblib file that names a class of a module, without the module."""
    output.mkdir()
    (output / "model.joblib").write_bytes(b"cmine_of_git\nMine\n)\x81.")


def test_the_modules_of_the_commit_belong_to_a_pickle_that_came_without(features, tmp_path):
    own_class(tmp_path / "output")
    code = tmp_path / "code"
    (code / "src").mkdir(parents=True)
    (code / "paths.json").write_text('["src", "../output", "/", 7, "nowhere"]')
    (code / "src" / "mine_of_git.py").write_text(
        "class Mine:\n    def predict(self, rows):\n        return [1.5] * len(rows)\n"
    )
    with pytest.raises(Denied, match="No module named 'mine_of_git'; leave the modules that it needs in code/"):
        predict.predict(PredictTask(), tmp_path / "output", features, tmp_path / "without")
    facts = predict.predict(PredictTask(), tmp_path / "output", features, tmp_path / "out", code=code)
    located = artifacts.locate(tmp_path / "output")
    assert facts.digest == artifacts.manifest_digest(artifacts.assemble(located, code, None))
    assert facts.digest != artifacts.manifest_digest(artifacts.assemble(located, None, None))


def test_modules_that_the_training_left_itself_are_not_mixed_with_those_of_the_commit(tmp_path):
    own_class(tmp_path / "output")
    (tmp_path / "output" / "code").mkdir()
    (tmp_path / "output" / "code" / "mine.py").write_text("")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "other.py").write_text("")
    files = artifacts.assemble(artifacts.locate(tmp_path / "output"), tmp_path / "code", None)
    assert [f.path for f in files] == ["code/mine.py", "model.joblib"]


DAEMON = """
    def __init__(self):
        out = open(f"/proc/{os.getppid()}/cmdline").read().split("\\0--out\\0")[1].split("\\0")[0]
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                for number in range(3):
                    os.dup2(os.open(os.devnull, os.O_RDWR), number)
                forge = "import os, sys, time\\nwhile True:\\n    os.makedirs(sys.argv[1], exist_ok=True)\\n" + (
                    "    for name in ('facts.json', 'predictions.parquet'):\\n"
                    "        open(sys.argv[1] + '/' + name, 'w').write('forged')\\n"
                    "    open(sys.argv[2], 'w').write(str(os.getpid()))\\n    time.sleep(0.01)"
                )
                os.execve(sys.executable, [sys.executable, "-c", forge, out, out + ".daemon"], {})
            os._exit(0)
        while not os.path.exists(out + ".daemon"):
            time.sleep(0.02)
    def predict(self, rows):
        return [1.5] * len(rows)
"""


def test_a_daemon_that_a_model_leaves_is_ended_before_anything_is_written(features, tmp_path):
    """Latency and digest are the parent's own numbers: nothing of the model lives when they are written."""
    hostile(tmp_path / "m", DAEMON)
    (tmp_path / "m" / "model.joblib").write_bytes(b"chostile\nM\n(tR.")
    (tmp_path / "task.json").write_text(PredictTask(probe_requests=5).model_dump_json(by_alias=True))
    out = tmp_path / "out"
    step = [sys.executable, "-m", "controller.serving.predict", "--task", f"{tmp_path}/task.json"]
    step += ["--model", f"{tmp_path}/m", "--features", str(features), "--out", str(out)]
    done = subprocess.run(step, timeout=120, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pid = int(Path(f"{out}.daemon").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert PredictFacts.model_validate_json((out / "facts.json").read_bytes()).requests == 5
    assert pd.read_parquet(out / "predictions.parquet")["prediction"].tolist() == [1.5] * 60
