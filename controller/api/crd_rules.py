"""CEL rules of the CRDs: each says to the API server what a validator of our models says to `validate`.

Keyed by the name of the model (rules on the object) or of model and field (rules on the field).  What CEL cannot
say is listed in `NOT_IN_CRD` with the reason; on a cluster such an object becomes Stalled(InvalidSpec).  A
validator that is in neither table fails a test.  Never a rule without `has()` for a field that may be absent.
"""

from __future__ import annotations

from typing import Any, Final

from controller.api.base import MODEL_NAME_MAX, MODEL_NAME_PATTERN, NAME_PATTERN
from controller.api.crd_rule_parts import Rule
from controller.api.crd_rule_parts import between as _between
from controller.api.crd_rule_parts import path as _path
from controller.api.crd_rule_parts import quoted as _quoted
from controller.api.crd_rules_rollout import FIELDS as ROLLOUT_FIELDS
from controller.api.crd_rules_rollout import OBJECTS as ROLLOUT_OBJECTS
from controller.api.metrics import METRICS
from controller.api.modelspec import FORBIDDEN_ENV
from controller.api.pods import EXTENDED_PATTERN, QUALIFIED_PATTERN, RESOURCES
from controller.api.predictionlog import RETENTION


def _any(fields: tuple[str, ...]) -> str:
    return " || ".join(f"has(self.{f})" for f in fields)


_OF_COLUMN: Final = ("type", "maxNullFraction", "min", "max", "unique", "maxAge")
_OF_TABLE: Final = ("schema", "minRows", "maxChange", "pandera", "greatExpectations")
_CLASSIFICATION: Final = _quoted([m.name for m in METRICS.values() if m.task == "Classification"])
_REGRESSION: Final = _quoted([m.name for m in METRICS.values() if m.task == "Regression"])


_METRICS: Final = _quoted(list(METRICS))
_OTHER: Final = "has(self.probe) || has(self.fairness) || has(self.report) || has(self.cel)"
"""Gates that judge no metric."""
_TRAINER: Final = "(has(self.from) && self.from == 'Trainer')"
_OWN: Final = "has(g.metric) && (!has(g.from) || g.from != 'Trainer') && g.metric"


_URL: Final[tuple[Rule, ...]] = (
    ("self.matches('^((https|http|ssh|file)://[^-]|/|[^-/:@]+@[^:/]+:)')", "must be https://… or ssh://…"),
    ("!self.matches('://[^/@]*:[^/@]*@')", "must not contain a password; put it into a Secret"),
    ("!self.matches('^(https|http)://[^/]*@')", "must not contain credentials; put them into a Secret"),
    ("!self.matches('[?#\\\\s]')", "must not contain a space, '?' or '#'"),
)

_SAME_GATEWAY: Final = (
    "a.name == b.name && "
    "(has(a.__namespace__) ? a.__namespace__ : '') == (has(b.__namespace__) ? b.__namespace__ : '')"
)

_NAMED: Final[tuple[Rule, ...]] = (
    ("self.metadata.name.size() <= 63", "the name has at most 63 characters"),
    (f"self.metadata.name.matches('{NAME_PATTERN}')", "the name has lower-case letters, digits and -"),
)

OBJECT_RULES: Final[dict[str, tuple[Rule, ...]]] = {
    "ModelSpec": (
        (f"self.metadata.name.size() <= {MODEL_NAME_MAX}", f"the name has at most {MODEL_NAME_MAX} characters"),
        (
            f"self.metadata.name.matches('{MODEL_NAME_PATTERN}')",
            "the name has lower-case letters, digits and -, and starts with a letter",
        ),
    ),
    "ModelRevision": _NAMED,
    "ModelRepository": _NAMED,
    "ModelOverride": _NAMED,
    "ModelOverrideSpec": (("self == oldSelf", "a ModelOverride never changes; another order is another one"),),
    "ModelRevisionSpec": (("self == oldSelf", "a ModelRevision never changes; other inputs are another one"),),
    "Ref": (
        (
            "[has(self.branch), has(self.tag), has(self.name), has(self.commit)].filter(x, x).size() == 1",
            "exactly one of branch, tag, name, commit must be set",
        ),
    ),
    "Serving": (
        (
            "!has(self.maxReplicas) || !has(self.minReplicas) || self.maxReplicas >= self.minReplicas",
            "maxReplicas is below minReplicas",
        ),
        ("!has(self.autoscaling) || has(self.maxReplicas)", "autoscaling needs maxReplicas"),
    ),
    "RouteSpec": (
        (
            f"self.gatewayRefs.all(a, self.gatewayRefs.filter(b, {_SAME_GATEWAY}).size() == 1 || "
            f"has(a.sectionName) && self.gatewayRefs.filter(b, {_SAME_GATEWAY} && "
            "(!has(b.sectionName) || b.sectionName == a.sectionName)).size() == 1)",
            "a Gateway is named twice: give each a sectionName of its own",
        ),
    ),
    "Resources": (
        *(
            (
                f"!has(self.{part}) || self.{part}.all(k, k in {_quoted(list(RESOURCES))} || "
                f"k.matches('{EXTENDED_PATTERN}') && !k.contains('kubernetes.io/') && !k.startsWith('requests.'))",
                f"{part}: known are {', '.join(RESOURCES)} and those of the cluster, nvidia.com/gpu",
            )
            for part in ("requests", "limits")
        ),
        (
            "!has(self.requests) || self.requests.all(k, !k.contains('/') || "
            "has(self.limits) && k in self.limits && self.limits[k] == self.requests[k])",
            "a resource of the cluster needs the same whole number in requests and limits",
        ),
        (
            "!has(self.limits) || self.limits.all(k, !k.contains('/') || self.limits[k].matches('^[0-9]+$'))",
            "a resource of the cluster needs a whole number",
        ),
        (
            "!has(self.requests) || !has(self.limits) || self.requests.all(k, !(k in self.limits) || "
            "!quantity(self.requests[k]).isGreaterThan(quantity(self.limits[k])))",
            "requests are above limits",
        ),
    ),
    "Toleration": (
        (
            "!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''",
            "operator: Exists takes no value",
        ),
        (
            "has(self.key) || has(self.operator) && self.operator == 'Exists'",
            "without key, operator must be Exists: every taint",
        ),
        (
            "!has(self.tolerationSeconds) || has(self.effect) && self.effect == 'NoExecute'",
            "tolerationSeconds goes with effect: NoExecute",
        ),
    ),
    "Dataset": (
        ("has(self.path) != has(self.uri)", "exactly one of path and uri must be set"),
        (
            "!has(self.uri) || has(self.digest)",
            "uri needs digest: without it nobody knows which data the model learned from",
        ),
        ("!has(self.path) || !has(self.digest)", "digest belongs to uri; a file in the repository has Git's own"),
        (
            "!has(self.secretRef) || !has(self.uri) || !self.uri.startsWith('file:')",
            "secretRef is for servers; a local file takes no login",
        ),
        (
            "!has(self.path) || (" + _path("self.path")[0] + " && !self.path.endsWith('/'))",
            "path: " + _path("")[1],
        ),
    ),
    "LogStorage": (
        (
            "!has(self.secretRef) || !self.uri.startsWith('file:')",
            "secretRef is for stores of objects; a directory takes no login",
        ),
    ),
    "Holdout": (
        (
            "!has(self.by) || self.by != 'Group' || has(self.column)",
            "by: Group needs column, the column whose equal values stay together",
        ),
        (
            "!has(self.by) || self.by != 'Random' || !has(self.column)",
            "by: Random takes no column; the id of a row is columns.id",
        ),
    ),
    "Check": (
        (f"!({_any(_OF_COLUMN)}) || has(self.column)", f"{', '.join(_OF_COLUMN)} need column"),
        ("!has(self.min) || !has(self.max) || self.min <= self.max", "min is above max"),
    ),
    "Gate": (
        (
            "[(has(self.min) || has(self.max)) && !has(self.fairness), has(self.champion), has(self.baseline), "
            "has(self.probe), has(self.fairness), has(self.report), has(self.cel)].filter(x, x).size() == 1",
            "set exactly one of min/max, champion, baseline, probe, fairness, report, cel",
        ),
        (f"{_OTHER} || has(self.metric)", "the gate needs metric"),
        (f"!({_OTHER}) || !has(self.metric)", "probe, fairness, report and cel take no metric"),
        (
            f"!has(self.metric) || {_TRAINER} || self.metric in {_METRICS}",
            "metric is not in the table of metrics; `mainspring validate` names them",
        ),
        ("!has(self.min) || !has(self.max) || self.min <= self.max", "min is above max"),
        (
            f"!has(self.slices) || !({_OTHER} || has(self.baseline))",
            "slices go with min/max or champion",
        ),
        ("!has(self.minRows) || has(self.slices) || has(self.fairness)", "minRows goes with slices or fairness"),
        ("has(self.baseline) || !(has(self.margin) || has(self.mode))", "margin and mode go with baseline"),
        (
            "!has(self.baseline) || !has(self.metric) || "
            f"(self.metric in {_CLASSIFICATION}) == (self.baseline.dummy in ['MostFrequent', 'Prior'])",
            "dummy MostFrequent and Prior go with metrics of classes, Mean and Median with those of numbers",
        ),
        ("has(self.fairness) == has(self.by)", "fairness and by go together"),
        (
            "!has(self.fairness) || (self.fairness.endsWith('Ratio') ? has(self.min) && !has(self.max) "
            "&& self.min >= 0.0 && self.min <= 1.0 : has(self.max) && !has(self.min) && self.max >= 0.0 "
            "&& self.max <= 1.0)",
            "a difference takes max, a ratio takes min, from 0 to 1",
        ),
        (f"{_TRAINER} == has(self.direction)", "from: Trainer and direction go together"),
        (
            f"!({_TRAINER}) || !has(self.direction) || !(has(self.champion) || has(self.baseline) || "
            "has(self.slices)) && (self.direction == 'Higher' ? has(self.min) && !has(self.max) : "
            "has(self.max) && !has(self.min))",
            "from: Trainer goes with metric and a limit: direction Higher takes min, Lower takes max",
        ),
    ),
    **ROLLOUT_OBJECTS,
    "ModelSpecSpec": (
        (
            "self.data[0].name != 'holdout'",
            "the first dataset is the one to learn from and cannot be named holdout",
        ),
        (
            "self.holdout.by != 'Time' || has(self.holdout.column) || has(self.columns.time)",
            "holdout.by: Time needs columns.time or holdout.column",
        ),
        (
            f"!has(self.gates) || !(self.gates.exists(g, has(g.fairness) || {_OWN} in {_CLASSIFICATION}) "
            f"&& self.gates.exists(g, {_OWN} in {_REGRESSION}))",
            "gates mix metrics of classification and regression",
        ),
    ),
}
"""Rules on whole objects, by the name of the model."""

FIELD_RULES: Final[dict[tuple[str, str], tuple[Rule, ...]]] = {
    ("Source", "url"): _URL,
    ("Source", "interval"): (_between("1s", "86400s"),),
    ("Source", "timeout"): (_between("1s", "86400s"),),
    ("Source", "paths"): (("self.all(p, " + _path("p")[0] + ")", "each " + _path("")[1]),),
    ("ModelRepositorySpec", "url"): _URL,
    ("ModelRepositorySpec", "path"): (("self == '.' || (" + _path("self")[0] + ")", _path("")[1]),),
    ("ModelRepositorySpec", "interval"): (_between("1s", "86400s"),),
    ("ModelRepositorySpec", "timeout"): (_between("1s", "86400s"),),
    ("ModelOverrideSpec", "reason"): (("self.matches('[^[:space:]]')", "must say why"),),
    ("ModelOverrideSpec", "expiresAt"): (
        (
            "timestamp(self) > timestamp('1970-01-01T00:00:00Z')",
            "must be a time, RFC 3339 in UTC: 2026-03-02T12:00:00Z",
        ),
    ),
    ("PredictionLog", "retention"): (_between(*RETENTION),),
    ("Suite", "path"): (
        (_path("self")[0] + " && self.matches('[.]ya?ml$')", _path("")[1] + ", and end in .yaml"),
    ),
    ("Expectations", "path"): (
        (_path("self")[0] + " && self.endsWith('.json')", _path("")[1] + ", and end in .json"),
    ),
    ("EnvVar", "name"): (
        (
            f"!self.startsWith('MAINSPRING_') && !(self in {_quoted(sorted(FORBIDDEN_ENV))})",
            "is set by Mainspring and cannot be changed",
        ),
    ),
    ("PodTemplate", "nodeSelector"): (
        (
            f"self.all(k, k.size() <= 317 && k.matches('{QUALIFIED_PATTERN}'))",
            "each key is that of a label: a name, with a domain and / in front or not",
        ),
    ),
    ("Canary", "stepWeights"): (
        (
            "self.isSorted() && self.all(x, self.filter(y, y == x).size() == 1)",
            "stepWeights must grow from step to step",
        ),
    ),
    ("ScanReport", "path"): ((_path("self")[0] + " && !self.endsWith('/')", _path("")[1]),),
    ("Gate", "cel"): (("self.matches('[^ ]')", "must not be empty"),),
    ("Canary", "interval"): (_between("1s", "604800s"),),
    **ROLLOUT_FIELDS,
}
"""Rules on single fields, by the names of model and field."""

REQUIRED_ONE_OF: Final[dict[str, tuple[tuple[dict[str, Any], ...], ...]]] = {
    "Check": (
        tuple({"required": [name]} for name in (*_OF_COLUMN, "allowed", *_OF_TABLE)),
        ({"required": ["column"]}, {"not": {"required": ["allowed"]}}),
    )
}
"""Choices of which one must hold, in OpenAPI: CEL cannot see `allowed`, whose entries have no single type."""

ENUMS: Final[dict[tuple[str, str], tuple[str, ...]]] = {}
"""Fields whose values come from a table of ours."""

ON_OBJECT: Final = frozenset({("Gate", "metric")})
"""Fields that a rule on their object speaks of, since it depends on another field."""

NAMED_LISTS: Final = frozenset(
    {
        ("ModelSpecSpec", "data"),
        ("ModelSpecSpec", "checks"),
        ("ModelSpecSpec", "gates"),
        ("Training", "env"),
        ("Canary", "analysis"),
        ("ModelRevisionSpec", "data"),
    }
)
"""Lists whose entries have a unique `name`: the API server merges them by it and refuses doubles."""

NOT_IN_CRD: Final[dict[str, str]] = {
    "Ref": "the finer rules of `git check-ref-format` for branch, tag and name",
    "Source.url": "hosts, users and escapes inside a URL",
    "ModelRepositorySpec.url": "hosts, users and escapes inside a URL",
    "Columns.positive": "a scalar of four types has no type in a structural schema; a list would be accepted",
    "Check.allowed": "entries of four types, likewise",
    "Canary.analysis": "a failureLimit that the measurements of a step cannot reach, where measureEvery is set",
    "Gate.cel": "syntax, names and types of an expression",
    "YAML": "anchors, doubles and unquoted scalars are gone once an object is JSON",
}
"""What only `validate` and the controller say, not the API server."""


def cel(rules: tuple[Rule, ...]) -> list[dict[str, Any]]:
    """Write rules as `x-kubernetes-validations`."""
    return [{"rule": rule, "message": message} for rule, message in rules]
