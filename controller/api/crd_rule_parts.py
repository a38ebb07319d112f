"""What the CEL rules of the CRDs are put together from: see `crd_rules.py`."""

from __future__ import annotations

Rule = tuple[str, str]
"""(CEL expression, message)."""


def quoted(names: list[str]) -> str:
    """Write names as a list of CEL."""
    return "[" + ", ".join(f"'{n}'" for n in names) + "]"


def between(low: str, high: str) -> Rule:
    """Hold a duration between two."""
    return (
        f"duration(self) >= duration('{low}') && duration(self) <= duration('{high}')",
        f"must be between {low} and {high}",
    )


def path(subject: str) -> Rule:
    """Relative, normal, not inside `.git`; a `/` at the end is accepted where the model accepts it."""
    return (
        f"!{subject}.startsWith('/') && !{subject}.contains('//') && "
        f"!{subject}.matches('(^|/)([.]|[.][.]|[.][gG][iI][tT])(/|$)')",
        "must be a relative path without '..', '.', '//' and .git",
    )
