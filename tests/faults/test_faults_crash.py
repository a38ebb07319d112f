"""Killed between two writes to the API server, the operator ends where it would have ended (F1).

Points that matter most; `make faults` tries every write of the story, before and after.
"""

from __future__ import annotations

from tests.faults.crashes import Point, tell
from tests.support.mlflow_shared import tracking_uri

POINTS: list[Point] = [
    (0, "create modelrevisions", 1, "after"),
    (0, "patch jobs", 1, "after"),
    (1, "patch configmaps", 1, "after"),
    (1, "patch modelrevisions/status", 2, "before"),
    (2, "patch deployments", 1, "before"),
    (2, "patch services", 1, "after"),
    (3, "delete deployments", 1, "after"),
    (3, "patch modelspecs/status", 2, "before"),
]


def test_killed_at_writes_that_matter_it_ends_the_same(control_plane, namespace, tmp_path):
    result = tell(control_plane, namespace, tmp_path, tracking_uri(), POINTS)

    assert result.wrong == []
    assert sorted(result.reached) == sorted(POINTS)
