"""The bins in which servers count predicted numbers: the same for every model, so that two models' counts compare.

Logarithmic, of both signs: no value of a bin is further than 5 % from the bin's middle.  What is nearer to zero
than 0.0001 is one bin, `0`; what is further away than about 8e8 is `inf` or `-inf`.  599 names, and no more.
Never counts anything: servers do.
"""

from __future__ import annotations

from bisect import bisect_right
from math import inf
from typing import Final

SMALLEST: Final = 1e-4
"""Numbers nearer to zero than this are counted as zero."""
RATIO: Final = 1.05 / 0.95
"""Upper end of a bin by its lower end: both are 5 % from the middle."""
PER_SIGN: Final = 298
"""Bins of positive numbers, and as many of negative ones."""

_ENDS: Final = tuple(SMALLEST * RATIO**n for n in range(PER_SIGN + 1))

EDGES: Final[tuple[float, ...]] = (*(-e for e in reversed(_ENDS)), *_ENDS)
"""Ends of all bins, ascending: bin n has the numbers from EDGES[n - 1] to below EDGES[n]."""


def _names() -> tuple[str, ...]:
    middles = [f"{low * (1 + RATIO) / 2:.4g}" for low in _ENDS[:-1]]
    return ("-inf", *(f"-{m}" for m in reversed(middles)), "0", *middles, "inf")


NAMES: Final[tuple[str, ...]] = _names()
"""Names of all bins in ascending order: the middle of each, as a number."""

_PLACES: Final = {name: n for n, name in enumerate(NAMES)}


def bin_of(x: float) -> str:
    """Name the bin that a finite number falls in.

    >>> bin_of(0.0), bin_of(1.0), bin_of(-1e300)
    ('0', '1.006', '-inf')
    """
    return NAMES[bisect_right(EDGES, x)]


def bounds(name: str) -> tuple[float, float]:
    """Give the ends of a bin: numbers from the first to below the second are in it.

    Raises:
        KeyError: there is no bin of that name.
    """
    place = _PLACES[name]
    return (EDGES[place - 1] if place else -inf), (EDGES[place] if place < len(EDGES) else inf)
