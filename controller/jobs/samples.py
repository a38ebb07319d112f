"""Values of the data in messages: short, escaped, and never those of a person.

Messages of checks go into conditions, events and reports, which more people read than may read the data.  A value
that looks like an address, a number of a person, or a card is masked, and so is every text in a column whose name
says that it holds such values.  It masks rather too much than too little; rows are always named, so that whoever
may read the data finds the value there.
"""

from __future__ import annotations

import re
from typing import Any, Final

from controller.clients.redact import MASK, redact

LENGTH: Final = 24
"""Characters of a value in a message."""
_WORDS: Final = """
    name firstname lastname surname forename fullname username user login email mail phone mobile telephone fax
    address street zip zipcode postcode postal birth birthday birthdate dob ssn passport license licence iban bic
    account card cardnumber cvv tax taxid nationalid insurance patient ip ipaddress latitude longitude diagnosis
"""
_PRIVATE: Final = frozenset(_WORDS.split())
"""Words in the name of a column that holds what belongs to a person."""
_LOOKS_PRIVATE: Final = re.compile(
    r"[^\s@]{1,64}@[^\s@]{1,255}"  # an e-mail address
    r"|(?:\d[ ()./-]{0,2}){8,}\d"  # nine digits and more: telephone, card, social security
    r"|\b[A-Z]{2}\d{2}[ ]?(?:[A-Z0-9]{4}[ ]?){2,7}"  # an IBAN
    r"|\b\d{1,3}(?:\.\d{1,3}){3}\b"  # an address of a machine
)
_MOMENT: Final = re.compile(r"\b\d{4}-\d{2}-\d{2}(?:[ T]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?)?")
_WORD: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def private_column(name: object) -> bool:
    """Tell whether a column's name says that its texts belong to persons."""
    words = [w.lower() for w in _WORD.findall(str(name)[:200])]
    return any(w in _PRIVATE for w in words) or "".join(words) in _PRIVATE


def sample(text: str, *, hide: bool = False) -> str:
    """Make the text of a value fit for a message: masked, escaped, at most 24 characters."""
    if hide or _LOOKS_PRIVATE.search(_MOMENT.sub("", text[:400])):
        return MASK
    return redact(text, limit=LENGTH + 1) if len(text) > LENGTH else redact(text)


def value(found: Any, column: object = "") -> str:
    """Make a value fit for a message: texts in quotes, and masked in a column of what belongs to persons."""
    is_text = isinstance(found, str)
    return sample(repr(found) if is_text else str(found), hide=is_text and private_column(column))
