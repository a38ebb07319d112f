"""`python -m tests.support.halves [PYTEST OPTIONS]`: every test, in two runs of pytest side by side.

One half computes, the other mostly waits for real servers, so two cores do both in little more than the time of
the longer.  The second half is shown as it goes, the first when both have ended.  A directory of tests belongs to
the second half unless it is named here, so none is left out.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parents[1]
COMPUTES = ("corpus", "simulation", "unit")
NO_TESTS = 5
"""Exit code of pytest where options selected nothing of a half."""


def halves() -> tuple[list[str], list[str]]:
    """Name the directories that compute, and all others with tests."""
    found = sorted({f.relative_to(TESTS).parts[0] for f in TESTS.rglob("test_*.py")})
    computing, waiting = ([d for d in found if (d in COMPUTES) == wanted] for wanted in (True, False))
    return computing, waiting


def main(options: list[str]) -> int:
    """Run both; 0 when both passed."""
    computing, waiting = halves()
    with tempfile.TemporaryFile("w+") as output:
        first = subprocess.Popen(_command(computing, options), stdout=output, stderr=output)
        try:
            print(
                f"tests of {', '.join(waiting)}; beside them, shown afterwards: {', '.join(computing)}", flush=True
            )
            codes = [subprocess.call(_command(waiting, options)), first.wait()]
        finally:
            first.kill()
        output.seek(0)
        print(f"\ntests of {', '.join(computing)}")
        print(output.read(), flush=True)
    ran = [code for code in codes if code != NO_TESTS]
    return next((code for code in ran if code), 0 if ran else NO_TESTS)


def _command(directories: list[str], options: list[str]) -> list[str]:
    return [sys.executable, "-m", "pytest", *options, *(str(TESTS / d) for d in directories)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
