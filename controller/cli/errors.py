"""What a verb says when it cannot do what was asked, and the exit codes of the command line.

A verb raises `Failure` with one sentence: what happened, on what, and what to type next.  `main.py` prints it as
`error: …`.  Nothing here prints.
"""

from __future__ import annotations

from typing import Final

OK: Final = 0
WRONG: Final = 1
USAGE: Final = 2
CHANGES: Final = 2

EXIT_CODES: Final = (
    ("0", "done, and everything is as asked"),
    ("1", "something is not as asked: an error in a file, Stalled, a failed request"),
    ("2", "the command line itself is wrong: an unknown verb, option or kind"),
    ("2", "only `plan --detailed-exitcode`: something would change (0: nothing would, 1: error)"),
    ("4", "only `up --until-settled`: the time was over before everything settled"),
)
"""The codes and what they mean, as `mainspring --help` shows them."""


class Failure(Exception):
    """What was asked for cannot be done; one sentence for a person."""

    def __init__(self, message: str, *, code: int = WRONG) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
