"""The one redactor: text from outside, made fit to be shown.

Everything that goes into a log, a condition, an event, a report or an error passes through `redact`, which
masks what looks like a credential and escapes control, bidirectional and invisible characters, so that one
message is one line and shows what is there.  It must never raise, and never take more than linear time: every
pattern is bounded, and the text is cut before it is searched.  It masks rather too much than too little.
"""

from __future__ import annotations

import re
import unicodedata

MASK = "***"
LIMIT = 16_384
"""Characters kept when the caller names no limit."""

_KEYWORDS = (
    r"password|passwd|passphrase|pwd|secret|token|credential|credentials|signature|sig|"
    r"api[_-]?key|access[_-]?key(?:[_-]?id)?|account[_-]?key|private[_-]?key|secret[_-]?key|auth[_-]?key"
)
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----.{0,20000}?(?:-----END [A-Z0-9 ]{0,40}-----|\Z)", re.S
        ),
        MASK,
    ),
    # First the form with a colon, whose password may hold a slash; then any other user part.
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]{0,20}://)[^\s/@:]{0,300}:[^\s@]{0,2000}@"), rf"\1{MASK}@"),
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]{0,20}://)[^\s/@]{1,2000}@"), rf"\1{MASK}@"),
    (
        re.compile(
            r"(?i)\b((?:proxy-)?authorization[\"']?\s{0,5}[:=]\s{0,5}[\"']?)(?:(basic|bearer|token|digest)\s+)?[^\s\"',;]+"
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r"(?i)\b(bearer)\s{1,5}(?!token\b|auth)[A-Za-z0-9._~+/=-]{4,4000}"), rf"\1 {MASK}"),
    (
        re.compile(r"(?i)\b(basic)\s{1,5}(?!auth)(?=[A-Za-z0-9+/]{0,200}[0-9A-Z=])[A-Za-z0-9+/]{8,4000}={0,2}"),
        rf"\1 {MASK}",
    ),
    (
        re.compile(
            rf"(?i)(\b[\w.-]{{0,60}}?(?:{_KEYWORDS})[\"']?\s{{0,5}}(?:=|:)\s{{0,5}})"
            r"(?:\"(?:[^\"\\]|\\.){0,4000}\"?|'[^']{0,4000}'?|[^\s,;&\"'{}()\[\]]{1,4000})"
        ),
        rf"\1{MASK}",
    ),
    (
        re.compile(
            r"\b(?:gh[pousr]_[A-Za-z0-9]{16,255}|github_pat_\w{20,255}|glpat-[\w-]{16,255}|xox[abprs]-[\w-]{8,255}"
            r"|(?:AKIA|ASIA)[0-9A-Z]{16}|eyJ[\w-]{8,4000}\.[\w-]{2,8000}(?:\.[\w-]{0,4000})?|hf_[A-Za-z0-9]{16,255}"
            r"|sk-[\w-]{16,255}|AIza[\w-]{30,60}|dapi[0-9a-f]{32})"
        ),
        MASK,
    ),
)
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def redact(text: str, *, limit: int = LIMIT) -> str:
    """Return `text` on one line with credentials masked and unprintable characters escaped, cut at `limit`.

    A cut is marked with `…`. Printable text of any script is kept as it is.
    """
    raw = text[: limit * 4 + 4096]
    for pattern, replacement in _RULES:
        raw = pattern.sub(replacement, raw)
    escaped = escape(raw)
    return escaped if len(escaped) <= limit and len(raw) <= limit else escaped[: max(limit - 1, 0)] + "…"


def escape(text: str) -> str:
    """Escape control, format (bidirectional, zero-width), separator and surrogate characters; keep the rest."""
    if text.isprintable():
        return text
    return "".join(_NAMED.get(ch) or (_hex(ch) if _hidden(ch) else ch) for ch in text)


def _hidden(ch: str) -> bool:
    return unicodedata.category(ch) in ("Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn")


def _hex(ch: str) -> str:
    """Write a character as `\\x1b`, `\\u202e` or `\\U000e0041`."""
    code = ord(ch)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
