"""The dashboard and the alerts ask for nothing but what the operator really exports: names, labels, values."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from controller.reconcile.cache import KINDS, Cache
from controller.reconcile.metrics import Live, Metrics
from tests.support.helm import CHART, template

DASHBOARD = json.loads((CHART / "files" / "dashboard.json").read_text())
ALERTS = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
PANELS = [p for p in DASHBOARD["panels"] if p["type"] != "row"]
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
QUERIES = {
    **{f"panel {p['title']} {t['refId']}": t["expr"] for p in PANELS for t in p["targets"]},
    **{f"alert {rule['alert']}": rule["expr"] for rule in RULES},
}
OF_PROMETHEUS = {"namespace", "pod", "le"}
"""Labels that Prometheus itself adds, or the format."""
WORDS = {
    "kind": set(KINDS),
    "outcome": {"ok", "failed", "error"},
    "status": {"True", "False", "Unknown"},
    "type": {"Ready", "Reconciling", "Stalled", "Available", "Degraded"},
    "code": {"200", "201", "404", "409", "401", "403", "500", "none"},
}
FUNCTIONS = {"sum", "max", "min", "rate", "increase", "histogram_quantile", "absent", "vector"}


@pytest.fixture(scope="module")
def page():
    """The figures of an operator that has done everything once."""
    conditions = [{"type": type_, "status": "True"} for type_ in (*WORDS["type"], "SourceReady", "Trained")]
    cache = Cache()
    for kind in KINDS[:3]:
        meta = {"name": "a", "namespace": "team", "resourceVersion": "1"}
        status = {"conditions": conditions, "attempts": [{"outcome": "Succeeded"}]}
        spec = {"trigger": {"type": "Commit"}}
        cache.put(
            {
                "apiVersion": "mainspring.dev/v1alpha1",
                "kind": kind,
                "metadata": meta,
                "spec": spec,
                "status": status,
            }
        )
    live = Live(
        cache=cache,
        clock=lambda: 10.0,
        depth=lambda: 1,
        oldest_s=lambda: 2.0,
        leading=lambda: True,
        deaf_s=lambda: 0.0,
        heard_at={"ModelSpec": 5.0},
    )
    metrics = Metrics(live)
    metrics.worked("ModelSpec", 0.1, "ok")
    metrics.requeued("ModelSpec", "failure")
    metrics.requested("get", "ModelSpec", "200")
    metrics.watch_restarted()
    metrics.pushed("github", "accepted")
    return metrics.page().decode()


@pytest.fixture(scope="module")
def exported(page):
    """Metric → names of its labels."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(page):
        assert family.samples, f"make it count {family.name} once"
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def selectors(query):
    """Each metric of a query with its matchers: name, [(label, operator, value)]."""
    for name, inside in re.findall(r"\b(mainspring_\w+)(?:\{([^}]*)\})?", query):
        yield name, re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', inside)


@pytest.mark.parametrize("what", QUERIES)
def test_a_query_asks_for_what_is_exported(what, exported):
    query = QUERIES[what]
    asked = list(selectors(query))
    assert asked, f"{query} asks for nothing of ours"
    labels = set(OF_PROMETHEUS)
    for name, matchers in asked:
        assert name in exported, f"{query}: the operator exports no {name}"
        labels |= exported[name]
        for label, operator, value in matchers:
            assert label in exported[name] | OF_PROMETHEUS, f"{query}: {name} has no label {label}"
            if label in WORDS:
                known = [w for w in WORDS[label] if re.fullmatch(value, w)]
                assert known, f"{query}: {label} is never {value} ({operator})"
    for group in re.findall(r"\bby \(([^)]*)\)", query):
        assert {name.strip() for name in group.split(",")} <= labels, f"{query}: grouped by what is not there"


@pytest.mark.parametrize("what", QUERIES)
def test_a_query_is_whole(what):
    query = re.sub(r'"[^"]*"', '""', QUERIES[what])
    for opened, closed in ("()", "{}", "[]"):
        assert query.count(opened) == query.count(closed), query
    assert set(re.findall(r"\b([a-z_]+)\(", query)) <= FUNCTIONS, query
    assert len(re.findall(r"\b(?:rate|increase)\(", query)) == query.count("["), f"{query}: a rate needs a range"


def test_the_words_of_conditions_are_those_that_are_exported(page):
    assert set(re.findall(r'mainspring_conditions{[^}]*type="(\w+)"', page)) == WORDS["type"]


def test_every_figure_of_the_operator_is_shown(exported):
    shown = {name for query in QUERIES.values() for name, _ in selectors(query)}
    stems = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported} == stems


def test_no_two_panels_lie_on_one_another():
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_means_and_what_to_do(rule):
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["for"]
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"].endswith(".")


def test_dashboard_and_alerts_arrive_unchanged_where_they_are_asked_for():
    values = ("--set", "metrics.dashboard.enabled=true", "--set", "metrics.prometheusRule.enabled=true")
    text = template("--set", "trackingURI=http://mlflow.example.internal", *values)
    found = {m["kind"]: m for m in yaml.safe_load_all(text) if m}
    assert json.loads(found["ConfigMap"]["data"]["mainspring.json"]) == DASHBOARD
    assert found["ConfigMap"]["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found["PrometheusRule"]["spec"] == ALERTS
