"""How much a training may write is a setting that is read strictly."""

from __future__ import annotations

import pytest

from controller.clients.errors import Denied
from controller.local.up import output_limit


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("", 10 * 2**30), ("1", 1), ("500Mi", 500 * 2**20), ("2Gi", 2 * 2**30)],
    ids=["not set", "bytes", "mebibytes", "gibibytes"],
)
def test_the_limit_is_read(text, bytes_):
    assert output_limit({"MAINSPRING_OUTPUT_LIMIT": text}) == bytes_


@pytest.mark.parametrize("text", ["0", "-1", "10G", "much", "1.5Gi", "9" * 40])
def test_what_is_no_limit_is_refused(text):
    with pytest.raises(Denied, match="write bytes, or a number with Mi or Gi: 10Gi"):
        output_limit({"MAINSPRING_OUTPUT_LIMIT": text})
