"""How long the command line takes to start, against a Python that does nothing and one that imports pydantic.

`python -m benchmarks.startup --rounds 15`.  Checks nothing; `tests/unit/test_imports.py` keeps heavy imports out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.measure import interleaved, table

ROOT = Path(__file__).parents[1]
MAINSPRING = str(Path(sys.executable).with_name("mainspring"))
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import pydantic": [sys.executable, "-c", "from pydantic import BaseModel"],
    "mainspring --help": [MAINSPRING, "--help"],
    "mainspring validate": [MAINSPRING, "validate", "examples/bikes/model.yaml"],
}


def run(command: list[str]) -> None:
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="runs of each command that count")
    rounds = parser.parse_args().rounds
    subjects: dict[str, Callable[[], object]] = {name: partial(run, command) for name, command in COMMANDS.items()}
    times = interleaved(subjects, rounds)
    print(table(f"Start-up, {rounds} runs each", times, ["python -c pass", "import pydantic"]))


if __name__ == "__main__":
    main()
