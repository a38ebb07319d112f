"""What is read from a server's metrics page: all that a canary judges, whatever classes are called."""

from __future__ import annotations

import pytest

from controller.clients.telemetry import parse
from controller.serving.metrics import Metrics

PAGE = r"""
# HELP mainspring_requests_total Requests for predictions, by HTTP status.
mainspring_requests_total{status="200"} 3
mainspring_requests_total{status="500"} 1.0
mainspring_predictions_total{value="a \"b\" {x}, y=\\"} 7.0
mainspring_confidence_bucket{le="0.05"} 1
mainspring_confidence_bucket{le="+Inf"} 4
mainspring_missing_values_total{column="a"} 1
mainspring_missing_values_total{column="b"} 2
mainspring_unseen_categories_total{column="b"} 2
mainspring_predicted_rows_total 9
mainspring_compared_total 8
mainspring_disagreed_total 2
mainspring_compared_requests_total 5
mainspring_model_info{digest="sha256:x",model="m"} 1
mainspring_request_duration_seconds_bucket{le="+Inf"} 4
mainspring_something_else{a="b"} 3
no metric at all
"""


def test_everything_that_a_canary_judges_is_read() -> None:
    assert parse(PAGE) == {
        "requests": 4.0,
        "errors": 1.0,
        'p=a "b" {x}, y=\\': 7.0,
        "conf_le=0.05": 1.0,
        "conf_le=inf": 4.0,
        "missing": 3.0,
        "unseen": 2.0,
        "rows": 9.0,
        "compared": 8.0,
        "disagreed": 2.0,
        "compared_requests": 5.0,
        "digest=sha256:x": 1.0,
        "le=inf": 4.0,
    }


@pytest.mark.parametrize(
    "value", ["yes", 'a"b', "a\\nb", "a\nb", "{}", "a|b", "p=1", "ä €", 'le="0.1"'], ids=lambda v: repr(v)
)
def test_a_class_is_read_as_a_server_writes_it(value: str) -> None:
    metrics = Metrics({"digest": "d"})
    metrics.classes({value: 3})
    assert {k: v for k, v in parse(metrics.text().decode()).items() if k.startswith("p=")} == {f"p={value}": 3.0}
