"""CEL rules of the CRDs about smoke test, canary and analysis; merged into the tables of `crd_rules.py`."""

from __future__ import annotations

from typing import Final

from controller.api.crd_rule_parts import Rule, between, path, quoted
from controller.api.rollout import BUILT_IN, PLACEHOLDER

OBJECTS: Final[dict[str, tuple[Rule, ...]]] = {
    "SmokeExpect": (
        (
            "!has(self.status) || self.status == 200 || !(has(self.rows) || has(self.type) || has(self.min) || "
            "has(self.max) || has(self.among))",
            "predictions come with status 200 only",
        ),
        ("!has(self.min) || !has(self.max) || self.min <= self.max", "min is above max"),
        (
            "!(has(self.min) || has(self.max)) || !has(self.type) || self.type == 'Number'",
            "min and max go with numbers",
        ),
    ),
    "Analysis": (
        (
            "has(self.metric) != has(self.prometheus)",
            "set exactly one of metric and prometheus",
        ),
        (
            "!has(self.prometheus) || !has(self.max) && !has(self.maxDuration)",
            "with prometheus, max stands inside of it, beside the query",
        ),
        (
            "!has(self.prometheus) || has(self.prometheus.min) || has(self.prometheus.max) || has(self.champion)",
            "prometheus needs min, max or, beside it, champion",
        ),
        (
            "!has(self.prometheus) || has(self.prometheus.direction) == has(self.champion)",
            "prometheus.direction and champion go together",
        ),
        (
            "!has(self.prometheus) || !has(self.prometheus.min) || !has(self.prometheus.max) || "
            "self.prometheus.min <= self.prometheus.max",
            "prometheus.min is above max",
        ),
        (
            "!has(self.metric) || !(self.metric in ['prediction-drift', 'disagreement']) || "
            "has(self.max) && !has(self.maxDuration) && !has(self.champion)",
            "prediction-drift and disagreement take max: they always compare with the champion",
        ),
        (
            "!(has(self.sample) || has(self.tolerance)) || has(self.metric) && self.metric == 'disagreement'",
            "sample and tolerance go with disagreement",
        ),
        (
            "!has(self.metric) || self.metric != 'request-error-rate' || !has(self.maxDuration) && "
            "(has(self.max) || has(self.champion))",
            "request-error-rate takes max, champion or both",
        ),
        (
            "!has(self.metric) || !self.metric.startsWith('request-duration-') || !has(self.max) && "
            "(has(self.maxDuration) || has(self.champion))",
            "request-duration-* takes maxDuration, champion or both",
        ),
    ),
    "Canary": (
        (
            "!has(self.measureEvery) || !has(self.interval) || "
            "duration(self.measureEvery) <= duration(self.interval)",
            "measureEvery is longer than the interval",
        ),
        (
            "has(self.measureEvery) || !has(self.analysis) || "
            "self.analysis.all(a, !has(a.failureLimit) || a.failureLimit == 1)",
            "a failureLimit above 1 needs measureEvery",
        ),
    ),
}
"""Rules on whole objects, by the name of the model."""

FIELDS: Final[dict[tuple[str, str], tuple[Rule, ...]]] = {
    ("SmokeTest", "path"): (
        (path("self")[0] + " && self.matches('[.](json|csv)$')", path("")[1] + ", and end in .json or .csv"),
    ),
    ("PrometheusQuery", "query"): (
        (
            f"self.findAll('[{{][{{]').size() == self.findAll('{PLACEHOLDER}').size()",
            "known are {{ .version }}, {{ .revision }}, {{ .model }} and {{ .namespace }}",
        ),
    ),
    ("Canary", "measureEvery"): (between("1s", "604800s"),),
    ("Canary", "analysis"): (
        (f"self.all(a, !(a.name in {quoted(list(BUILT_IN))}))", "that is the name of a built-in check"),
        (
            "self.filter(a, has(a.metric) && a.metric == 'disagreement').size() <= 1",
            "disagreement comes twice: servers compare by one tolerance",
        ),
    ),
}
"""Rules on single fields, by the names of model and field."""
