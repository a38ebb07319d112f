"""Promises of the shim: a directory runs once, output is bounded, exits are recorded, nothing stays behind."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import time

import pytest

from controller.local import shim
from tests.unit.local.runner_world import processes_in


def prepare(path, *containers, **fields):
    plan = {"restart": False, "deadline": None, "grace": 5, "log_bytes": 10_000, **fields}
    plan["containers"] = [container(path, **c) for c in containers]
    (path / "plan.json").write_text(json.dumps(plan))


def container(path, name="main", code="", **fields):
    return {
        "name": name,
        "init": False,
        "argv": [sys.executable, "-c", code],
        "cwd": str(path),
        "env": {"WHERE": str(path), "MAINSPRING_TERMINATION_LOG": str(path / f"{name}.termination")},
        "termination": str(path / f"{name}.termination"),
        "fallback": False,
        **fields,
    }


def run(path):
    command = [sys.executable, "-I", "-S", shim.__file__, str(path)]
    return subprocess.run(command, timeout=30, check=True, capture_output=True)


def wait_until_up(path, process):
    """Wait until the container has said that it is up."""
    log, deadline = path / "main.log", time.monotonic() + 30
    while not log.exists() or "up" not in log.read_text():
        assert process.poll() is None, "the shim ended"
        assert time.monotonic() < deadline, "the container did not come up"


def read(path, name):
    return json.loads((path / name).read_text())


def test_it_imports_nothing_that_makes_it_slow():
    code = f"import runpy, sys; runpy.run_path({shim.__file__!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True)
    heavy = {"controller", "pydantic", "httpx", "asyncio", "subprocess", "logging", "socket"}
    assert heavy & set(done.stdout.split()) == set()


def test_a_directory_runs_once_however_often_it_is_started(tmp_path):
    prepare(tmp_path, {"code": "open('runs', 'a').write('x')"})
    run(tmp_path)
    run(tmp_path)
    assert (tmp_path / "runs").read_text() == "x"
    assert read(tmp_path, "done.json")["outcome"] == "Succeeded"


def test_two_shims_at_once_run_a_directory_once(tmp_path):
    prepare(tmp_path, {"code": "open('runs', 'a').write('x')"})
    command = [sys.executable, "-I", "-S", shim.__file__, str(tmp_path)]
    both = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(timeout=30) for process in both] == [0, 0, 0, 0]
    assert (tmp_path / "runs").read_text() == "x"


def test_nothing_runs_while_another_shim_holds_the_directory(tmp_path):
    prepare(tmp_path, {"code": "open('runs', 'a').write('x')"})
    with (tmp_path / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        run(tmp_path)
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "shim.json").exists()


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        pytest.param("import sys; sys.exit(3)", 3, id="a program's own code is kept"),
        pytest.param("import os; os.kill(os.getpid(), 9)", 137, id="a signal is 128 and its number"),
        pytest.param("raise ValueError", 1, id="an exception is 1"),
    ],
)
def test_exit_codes_are_recorded(tmp_path, code, exit_code):
    prepare(tmp_path, {"code": code})
    run(tmp_path)
    assert read(tmp_path, "main.exit.json")["exitCode"] == exit_code
    assert read(tmp_path, "done.json")["outcome"] == "Failed"


def test_a_program_that_does_not_exist_is_named(tmp_path):
    prepare(tmp_path, {"argv": ["no-such-trainer"]})
    run(tmp_path)
    ended = read(tmp_path, "main.exit.json")
    assert (ended["exitCode"], ended["message"]) == (
        127,
        "no-such-trainer cannot be started: No such file or directory",
    )


def test_a_flood_of_output_is_cut_to_its_end(tmp_path):
    prepare(tmp_path, {"code": "for i in range(20000): print('line', i)"})
    run(tmp_path)
    log = (tmp_path / "main.log").read_text()
    assert len(log) <= 10_000
    assert log.startswith("[earlier output was dropped]\n")
    assert log.endswith("line 19999\n")


def test_stdout_and_stderr_end_up_in_one_log(tmp_path):
    prepare(tmp_path, {"code": "import sys; print('out', flush=True); print('err', file=sys.stderr)"})
    run(tmp_path)
    assert (tmp_path / "main.log").read_text() == "out\nerr\n"


def test_a_termination_message_is_cut_at_4096_bytes(tmp_path):
    say = "import os; open(os.environ['MAINSPRING_TERMINATION_LOG'], 'w').write('x' * 5000)"
    prepare(tmp_path, {"code": say})
    run(tmp_path)
    assert read(tmp_path, "main.exit.json")["message"] == "x" * 4096


def test_the_end_of_the_log_stands_in_for_a_message_where_the_policy_says_so(tmp_path):
    prepare(tmp_path, {"code": "raise SystemExit('out of memory')", "fallback": True})
    run(tmp_path)
    assert read(tmp_path, "main.exit.json")["message"] == "out of memory\n"


def test_a_daemon_that_a_container_left_is_ended_with_it(tmp_path):
    code = "import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True)"
    prepare(tmp_path, {"code": code})
    run(tmp_path)
    assert read(tmp_path, "done.json")["outcome"] == "Succeeded"
    assert processes_in(tmp_path) == []


def test_a_container_that_closes_its_output_is_waited_for(tmp_path):
    code = "import os\nos.close(1); os.close(2)\nopen('runs', 'w').write('x')\nos._exit(7)"
    prepare(tmp_path, {"code": code})
    run(tmp_path)
    assert read(tmp_path, "main.exit.json")["exitCode"] == 7


def test_a_stop_lets_a_server_end_by_itself_and_says_so(tmp_path):
    code = (
        "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\nprint('up', flush=True)\n"
        "while True: signal.pause()"
    )
    prepare(tmp_path, {"code": code}, restart=True)
    process = subprocess.Popen([sys.executable, "-I", "-S", shim.__file__, str(tmp_path)])
    wait_until_up(tmp_path, process)
    process.terminate()
    process.wait(timeout=30)
    assert read(tmp_path, "main.exit.json")["exitCode"] == 0
    assert read(tmp_path, "done.json")["reason"] == "Stopped"


def test_a_stop_is_told_to_the_first_process_only_so_that_workers_can_finish(tmp_path):
    code = (
        "import signal, subprocess, sys\n"
        'work = \'print("up", flush=True); input(); print("finished")\'\n'
        "worker = subprocess.Popen([sys.executable, '-c', work], stdin=subprocess.PIPE)\n"
        "def end(*_):\n    worker.communicate(b'\\n')\n    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\nwhile True: signal.pause()"
    )
    prepare(tmp_path, {"code": code}, restart=True)
    process = subprocess.Popen([sys.executable, "-I", "-S", shim.__file__, str(tmp_path)])
    wait_until_up(tmp_path, process)
    process.terminate()
    process.wait(timeout=30)
    assert (tmp_path / "main.log").read_text() == "up\nfinished\n"
    assert read(tmp_path, "main.exit.json")["exitCode"] == 0


def test_a_process_with_the_same_number_but_another_start_is_another_process():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        seen = shim.identity(process.pid)
        assert seen == shim.identity(process.pid)
        assert seen is not None
        process.communicate(b"\n")
    assert shim.identity(process.pid) is None


WRITES = "import os, time\nfile = open(os.environ['WHERE'] + '/volumes/out/x', 'wb', buffering=0)\n"


@pytest.mark.parametrize(
    ("code", "limit", "ended"),
    [
        (WRITES + "while True: file.write(b'x' * 100_000)", 1_000_000, 153),
        (WRITES + "file.write(b'x' * 2_000_000)", 1_000_000, 153),
        (WRITES + "file.write(b'x' * 500_000)", 1_000_000, 0),
        (WRITES + "file.truncate(1 << 40)", 1_000_000, 0),
        (WRITES + "file.write(b'x' * 2_000_000)", None, 0),
    ],
    ids=["without end", "too much at once and then ends", "less than it may", "a hole of 1 TB", "as it likes"],
)
def test_a_program_writes_no_more_than_it_may(tmp_path, code, limit, ended):
    (tmp_path / "volumes" / "out").mkdir(parents=True)
    (tmp_path / "volumes" / "out" / "before").write_bytes(b"x" * 5_000_000)
    prepare(tmp_path, {"code": code, "output_bytes": limit}, {"name": "next", "code": "open('next', 'w')"})
    run(tmp_path)
    told = read(tmp_path, "main.exit.json")
    assert told["exitCode"] == ended
    assert (tmp_path / "next").exists() == (ended == 0)
    if ended:
        assert told["message"] == "it wrote more than 1,000,000 bytes, was stopped, and all was removed"
        assert read(tmp_path, "done.json")["reason"] == "OutputTooLarge"
        assert not [p for p in (tmp_path / "volumes").rglob("*") if p.is_file()]
