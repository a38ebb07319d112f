"""Checking 1,000 ModelSpec files against parsing the same files with PyYAML's C loader.

`python -m benchmarks.validate --files 1000 --rounds 5`.  The second does less: no positions, no duplicate keys, no
schema.  The ratio says what the answers cost.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import yaml

from benchmarks.measure import interleaved, table
from controller.api.validation import check_text

EXAMPLE = Path(__file__).parent.parent / "examples" / "bikes" / "model.yaml"


def measure(files: int, rounds: int) -> dict[str, list[float]]:
    """Time both over all files; seconds per round."""
    text = EXAMPLE.read_text()
    with tempfile.TemporaryDirectory() as scratch:
        paths = []
        for number in range(files):
            path = Path(scratch) / f"{number}.yaml"
            path.write_text(text.replace("name: bikes", f"name: bikes-{number}", 1))
            paths.append(path)

        def checked() -> None:
            for path in paths:
                assert not check_text(path.read_bytes(), path.name).problems

        def parsed() -> None:
            for path in paths:
                list(yaml.load_all(path.read_bytes(), Loader=yaml.CSafeLoader))

        return interleaved({"mainspring validate": checked, "PyYAML, C loader": parsed}, rounds)


def ratio(times: dict[str, list[float]]) -> float:
    """Return how many times longer checking takes than parsing."""
    ours, theirs = (statistics.median(t) for t in times.values())
    return ours / theirs


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print(table(f"{given.files} files", measure(given.files, given.rounds), ["PyYAML, C loader"]))
