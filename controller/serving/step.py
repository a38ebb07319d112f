"""How a serving step ends: its termination message and its exit code.

0 done; 3 the input is wrong, do not try again; 1 anything else.  The message goes where the kubelet reads it, or
to the file that MAINSPRING_TERMINATION_LOG names.  Never writes more than the kubelet keeps, never a traceback.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from controller.api.reports import TERMINATION_MAX_BYTES, WRONG_INPUT, Termination
from controller.clients.errors import ClientError, Denied, NotFound
from controller.clients.redact import redact

TERMINATION_ENV: Final = "MAINSPRING_TERMINATION_LOG"
TERMINATION_DEFAULT: Final = "/dev/termination-log"

log = logging.getLogger("mainspring.serving")


def run(name: str, step: Callable[[], None]) -> int:
    """Run a step and tell how it ended; returns the exit code.

    Denied and NotFound are wrong input; everything else may be worth another attempt.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        step()
    except (Denied, NotFound) as error:
        return _end(name, "Invalid", WRONG_INPUT, error.reason, error.message)
    except ClientError as error:
        return _end(name, "Failed", 1, error.reason, error.message)
    except Exception as error:
        log.debug("%s failed", name, exc_info=True)
        return _end(name, "Failed", 1, "Failed", f"{name} failed: {type(error).__name__}: {error}")
    return _end(name, "Done", 0, "", "")


def termination_text(termination: Termination) -> str:
    """Write a termination message in at most 512 bytes; what is too long is cut in its sentence."""
    message = termination.message
    text = termination.model_dump_json(by_alias=True, exclude_defaults=True)
    while (over := len(text.encode()) - TERMINATION_MAX_BYTES) > 0 and message:
        # A character has 1 to 6 bytes in JSON, so cutting the excess over 6 never cuts too much.
        message = message[: -max(1, over // 6)]
        shorter = termination.model_copy(update={"message": f"{message.rstrip()}…"})
        text = shorter.model_dump_json(by_alias=True, exclude_defaults=True)
    return text


def _end(name: str, outcome: Literal["Done", "Invalid", "Failed"], code: int, reason: str, message: str) -> int:
    line = redact(message, limit=2000)
    if code:
        log.error("%s: %s: %s", name, reason, line)
    path = Path(os.environ.get(TERMINATION_ENV, TERMINATION_DEFAULT))
    if not path.parent.is_dir() or (TERMINATION_ENV not in os.environ and not path.exists()):
        return code
    try:
        path.write_text(termination_text(Termination(outcome=outcome, reason=reason, message=line)))
    except OSError as error:
        log.warning("the termination message could not be written: %s", error.strerror)
    return code
