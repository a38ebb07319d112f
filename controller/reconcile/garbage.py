"""When the operator looks for cyclic garbage: rarely, and never among what stays.

With thousands of objects in the cache, one look through all of them takes as long as dozens of reconciles, and
finds nothing: JSON has no cycles, and what the cache lets go is freed at once.  No thread, no timer.
"""

from __future__ import annotations

import gc
from typing import Final

THRESHOLDS: Final = (20_000, 20, 20)
"""New containers before a look at the young ones, then looks before one at older ones.  Python: 700, 10, 10."""


def look_rarely() -> None:
    """Raise the thresholds, and leave out for good what the imports have made."""
    gc.set_threshold(*THRESHOLDS)
    leave_alone()


def leave_alone() -> None:
    """Leave out for good whatever there is now: modules at the start, the cache after its first lists.

    What is in it is still freed when nobody holds it any more, as long as it is in no cycle.
    """
    gc.collect()
    gc.freeze()
