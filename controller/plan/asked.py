"""When a person last asked for a look (`mainspring reconcile`): the annotation, read tolerantly.

Pure, and below everything that decides by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from controller.api.meta import ANNOTATION_REQUESTED_AT


def asked_at(annotations: Mapping[str, str]) -> datetime | None:
    """Read when a person asked for a look: RFC 3339 in any time zone, or seconds since 1970; None for neither."""
    text = annotations.get(ANNOTATION_REQUESTED_AT, "").strip()
    try:
        if text.isascii() and text.isdigit():
            return datetime.fromtimestamp(int(text), UTC)
        moment = datetime.fromisoformat(text)
        # A time near the ends of the calendar has no form in UTC.
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return None
