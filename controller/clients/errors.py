"""The four ways in which the world says no.  Clients raise nothing else.

Each carries what was tried, on what, and a hint for a person: one line, no secret, no traceback.
`reason` is the CamelCase word that a condition will show.
"""

from __future__ import annotations


class ClientError(Exception):
    """Base of the four; never raised itself."""

    default_reason = "Error"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason


class NotFound(ClientError):
    """What was asked for is not there. Time or a person may bring it."""

    default_reason = "NotFound"


class Conflict(ClientError):
    """Somebody else wrote first: read again and decide anew."""

    default_reason = "Conflict"


class Denied(ClientError):
    """Refused for a reason that will not go away by waiting: a person must act."""

    default_reason = "Denied"


class Unavailable(ClientError):
    """No answer, or none that can be trusted: worth trying again."""

    default_reason = "Unavailable"

    retry_after_s: float | None = None
    """Seconds after which the server asked to be tried again (`Retry-After`); None when it named none."""
