"""The frame of every step of ours: read the task, run, say how it ended, and leave with the right exit code.

0 done, 3 the input is wrong (trying again cannot help), 1 anything else.  Every error is one clear line on stderr
and the same sentence in the termination message; only a bug of ours also leaves a traceback, in the step's log.
Knows nothing of what a step does, and never lets a secret into either of the two.
"""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from controller.api.reports import TERMINATION_MAX_BYTES, WRONG_INPUT, Termination
from controller.clients.errors import ClientError, Denied, NotFound
from controller.clients.redact import redact

DONE: Final = 0
RETRY: Final = 1
"""Exit code of everything that trying again may cure."""
TASK_MAX_BYTES: Final = 1_048_576
"""Largest task that is read; a ConfigMap cannot hold more."""
TERMINATION_ENV: Final = "MAINSPRING_TERMINATION_LOG"
"""Names the file for the termination message where there is no kubelet."""
TERMINATION_LOG: Final = Path("/dev/termination-log")

Task = TypeVar("Task", bound=BaseModel)


class WrongInput(Exception):
    """What the step was given is wrong, and stays wrong: exit code 3."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        """One word, for example DataInvalid."""
        self.message = message
        """One sentence: what, where, numbers, what to do."""


class TryAgain(Exception):
    """The step could not do its work this time: exit code 1."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def read_task(path: Path, kind: type[Task]) -> Task:
    """Read a step's task, strictly.

    Raises:
        WrongInput: TaskInvalid: not there, too large, or not exactly a task of this kind and version.
    """
    try:
        with path.open("rb") as file:
            data = file.read(TASK_MAX_BYTES + 1)
    except OSError as error:
        raise WrongInput("TaskInvalid", f"the task file {path.name} cannot be read: {error.strerror}") from None
    if len(data) > TASK_MAX_BYTES:
        raise WrongInput("TaskInvalid", f"the task file {path.name} has more than {TASK_MAX_BYTES:,} bytes")
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise WrongInput(
            "TaskInvalid", f"the task file {path.name} is no {kind.__name__}: {where}: {first['msg']}{more}"
        ) from None


def run_step(step: str, work: Callable[[], Awaitable[Termination | None]]) -> int:
    """Run a step to its end and return the exit code; raises nothing but what ends the process on purpose.

    Args:
        step: name of the step, for the line on stderr.
        work: does it all; may return the termination message to leave (default: Done).
    """
    try:
        said = asyncio.run(_awaited(work)) or Termination(outcome="Done")
    except WrongInput as error:
        return _ended(step, "Invalid", error.reason, error.message)
    except (Denied, NotFound) as error:
        return _ended(step, "Invalid", error.reason, error.message)
    except (ClientError, TryAgain) as error:
        return _ended(step, "Failed", error.reason, error.message)
    except MemoryError:
        text = "the step ran out of memory; the data does not fit into the memory limit of the step"
        return _ended(step, "Failed", "OutOfMemory", text)
    except OSError as error:
        what = f"{error.strerror or error}: {Path(str(error.filename)).name}" if error.filename else str(error)
        _trace()
        return _ended(step, "Failed", "SystemError", what)
    except Exception as error:  # noqa: BLE001  # whatever it is, it is told in one line and tried again
        _trace()
        return _ended(step, "Failed", "StepFailed", f"{type(error).__name__}: {error}")
    write_termination(said)
    return DONE


def _trace() -> None:
    """Leave the traceback in the step's log, line by line and masked."""
    sys.stdout.write("".join(f"{redact(line)}\n" for line in traceback.format_exc().splitlines()))


async def _awaited(work: Callable[[], Awaitable[Termination | None]]) -> Termination | None:
    return await work()


def _ended(step: str, outcome: Literal["Invalid", "Failed"], reason: str, message: str) -> int:
    text = redact(message, limit=2000)
    sys.stderr.write(f"{step}: {reason}: {text}\n")
    write_termination(Termination(outcome=outcome, reason=reason[:60], message=text))
    return WRONG_INPUT if outcome == "Invalid" else RETRY


def write_termination(said: Termination) -> None:
    """Leave the termination message, its sentence shortened until all of it fits into 512 bytes of UTF-8.

    Where neither MAINSPRING_TERMINATION_LOG nor the kubelet's file is there, nothing is left.
    """
    given = os.environ.get(TERMINATION_ENV)
    path = Path(given) if given else TERMINATION_LOG
    if not given and not path.exists():
        return
    try:
        path.write_bytes(bounded(said))
    except OSError as error:
        sys.stderr.write(f"the termination message cannot be written: {error.strerror}\n")


def bounded(said: Termination) -> bytes:
    """Write a termination message as JSON of at most 512 bytes; a longer sentence ends with `…`."""
    data = _json(said)
    message = said.message
    while len(data) > TERMINATION_MAX_BYTES and message:
        # A character has 1 to 6 bytes in JSON, so cutting the excess over 6 never cuts too much.
        message = message[: -max(1, (len(data) - TERMINATION_MAX_BYTES) // 6)]
        data = _json(said.model_copy(update={"message": f"{message.rstrip()}…"}))
    return data


def _json(said: Termination) -> bytes:
    return said.model_dump_json(by_alias=True, exclude_defaults=True).encode("utf-8", "replace")
