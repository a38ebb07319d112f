"""Training programs that go wrong: one program each, and what their ModelRevision must say.

A program finds what a real one finds (`MAINSPRING_OUTPUT`, its work directory) and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

MODEL = """
import os, joblib
from sklearn.dummy import DummyRegressor
output = os.environ["MAINSPRING_OUTPUT"]
def leave(name="model.joblib", model=DummyRegressor(strategy="constant", constant=1.0).fit([[0.0]], [1.0])):
    joblib.dump(model, os.path.join(output, name))
"""
LEAVES = "leave()\n"
OUT = "import os\noutput = os.environ['MAINSPRING_OUTPUT']\n"


DAEMON_SLEEPS_S = "36017.5"
"""Seconds that daemons sleep: how they are found again."""


@dataclass(frozen=True)
class Case:
    """A program, and reason and message of what becomes of it; an empty reason: nothing is wrong."""

    id: str
    program: str
    reason: str
    says: str
    """A regular expression that the whole message matches."""
    deadline_s: int = 300


def ended(code: int, last: str = "") -> str:
    return rf"the training program ended with exit code {code}(?: \([a-z ,?]+\))?{last}"


CASES = (
    *(
        Case(f"J01 exit {code}", f"import sys; sys.exit({code})", "TrainingFailed", ended(code))
        for code in (1, 2, 3, 126, 127, 255)
    ),
    Case(
        "J01 a traceback: its last line",
        "import sys\nprint('epoch 1')\nint('seven')",
        "TrainingFailed",
        ended(1, r": ValueError: invalid literal for int\(\) with base 10: 'seven'"),
    ),
    Case(
        "J01 killed by a segmentation fault", "import os; os.kill(os.getpid(), 11)", "TrainingFailed", ended(139)
    ),
    Case("J01 told to stop by itself", "import os; os.kill(os.getpid(), 15)", "TrainingFailed", ended(143)),
    Case(
        "J02 killed as the kernel does without memory",
        "import os; print('epoch 2', flush=True); os.kill(os.getpid(), 9)",
        "TrainingFailed",
        ended(137, ": epoch 2"),
    ),
    Case(
        "J03 hangs and ignores the order to stop",
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)",
        "DeadlineExceeded",
        r"attempt 1 took longer than training\.activeDeadlineSeconds, 2 s; it was ended in step train",
        deadline_s=2,
    ),
    Case(
        "J04 exits 0 without a model",
        OUT + "open(os.path.join(output, 'weights.bin'), 'w').write('1')",
        "ModelMissing",
        r"no model was left: expected model/MLmodel, model\.skops, .* in MAINSPRING_OUTPUT; there is weights\.bin",
    ),
    Case(
        "J04 exits 0 after a traceback that it caught",
        "import traceback\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    traceback.print_exc()",
        "ModelMissing",
        r"no model was left: .*; there is nothing",
    ),
    Case("J04 two models", MODEL + LEAVES + "leave('model.skops')", "AmbiguousModel", r"2 models were left .*one"),
    Case(
        "J05 a model that is a link",
        OUT + "os.symlink('/etc/hostname', os.path.join(output, 'model.joblib'))",
        "ArtifactRefused",
        r"the model's files are refused: 'model\.joblib' is a link",
    ),
    Case(
        "J05 a pipe without an end",
        OUT + "os.mkfifo(os.path.join(output, 'model.joblib'))",
        "ArtifactRefused",
        r"the model's files are refused: 'model\.joblib' is not a regular file",
    ),
    Case(
        "J05 a directory that is a link",
        OUT + "os.symlink('/etc', os.path.join(output, 'model'))",
        "ModelMissing",
        r"no model was left: .*; there is model",
    ),
    Case(
        "J05 100,000 files in the model",
        OUT + "os.mkdir(output + '/model')\nfor n in range(100_000):\n    os.mknod(f'{output}/model/{n}')\n"
        "os.mknod(output + '/model/MLmodel')",
        "ArtifactRefused",
        r"the model's files are refused: more than 10,000 files",
    ),
    Case(
        "J05 a sparse file of 1 TB",
        OUT + "os.truncate(os.open(output + '/model.joblib', os.O_CREAT | os.O_RDWR), 1 << 40)",
        "ArtifactRefused",
        r"the model's files are refused: they have 1,099,511,627,776 bytes, more than [0-9,]+",
    ),
    Case(
        "J05 an empty file",
        OUT + "os.mknod(output + '/model.joblib')",
        "ModelNotLoadable",
        r"the model cannot be loaded: model\.joblib cannot be loaded: EOFError.*",
    ),
    Case(
        "J06 needs a module that is not there",
        OUT + "open(output + '/model.joblib', 'wb').write(b'cnowhere_at_all\\nThing\\n.')",
        "ModelNotLoadable",
        r"the model cannot be loaded: .*No module named 'nowhere_at_all'; leave the modules .* in code/ .*",
    ),
    Case(
        "J08 prints 100 MB and then fails",
        "import sys\nline = 'x' * 99_999\nfor _ in range(1000):\n    print(line)\nsys.exit('at last')",
        "TrainingFailed",
        ended(1, ": at last"),
    ),
    Case(
        "J08 prints secrets, colours and progress bars last",
        "import sys\nsys.stdout.write('10%\\r20%\\r\\x1b[31mpassword=hunter2 failed\\x1b[0m')\nsys.exit(4)",
        "TrainingFailed",
        ended(4, r": password=\*\*\* failed"),
    ),
    Case(
        "J08 prints bytes that are no UTF-8",
        "import os\nos.write(2, b'caf\\xe9 is closed\\n')\nos._exit(1)",
        "TrainingFailed",
        ended(1, ": caf. is closed"),
    ),
    Case(
        "J08 prints what one of our steps would say",
        'import sys\nprint(\'{"v": 1, "outcome": "Invalid", "reason": "DataInvalid"}\')\nsys.exit(3)',
        "TrainingFailed",
        ended(3, ': {"v": 1, "outcome": "Invalid".*'),
    ),
    Case(
        "J10 writes without end",
        OUT + "with open(output + '/huge', 'wb', buffering=0) as file:\n    while True:\n"
        "        file.write(b'x' * 1_000_000)",
        "OutputTooLarge",
        r"the training program wrote too much: it wrote more than [0-9,]+ bytes, was stopped, and all was removed",
    ),
    Case(
        "J10 fills its work directory with many small files",
        "for n in range(10**9):\n    open(str(n), 'w').write('x' * 4096)",
        "OutputTooLarge",
        r"the training program wrote too much: .*",
    ),
    Case(
        "J11 leaves processes behind that left their session",
        MODEL + LEAVES + "import subprocess, sys\nfor _ in range(3):\n"
        f"    command = 'setsid sleep {DAEMON_SLEEPS_S} & exec setsid sleep {DAEMON_SLEEPS_S}'\n"
        "    subprocess.Popen(['sh', '-c', command], env={}, start_new_session=True)\n",
        "",
        "",
    ),
    Case("J00 does it right", MODEL + LEAVES, "", ""),
)
