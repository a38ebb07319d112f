"""Files as people get them wrong, by the row of the bad-input table that they belong to.

Rows of kinds and fields that this Mainspring has not: Y32 (image policy), Y36 (schedule), Y42 to Y44 (DriftPolicy,
retrain).  Rows about the controller and not about a file: Y26, Y35, Y39, Y45, Y49 to Y52, Y54.  Y06 to Y09 are
timed beside the table.
"""

from __future__ import annotations

BASE = """\
apiVersion: mainspring.dev/v1alpha1
kind: ModelSpec
metadata:
  name: churn
  namespace: ml
spec:
  source:
    url: https://git.example.com/team/churn.git
    ref:
      branch: main
  data:
    - name: train
      path: data/train.csv
  columns:
    target: churned
  training:
    command: [python, train.py]
  gates:
    - name: good
      metric: f1
      min: 0.85
  serving:
    minReplicas: 2
"""


def changed(*changes: tuple[str, str]) -> bytes:
    """Replace pieces of the base, each of which must be there exactly once."""
    text = BASE
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} is not in the base exactly once"
        text = text.replace(old, new)
    return text.encode()


def tr(lines: str) -> bytes:
    """Put lines into `training`."""
    return changed(("  training:\n", f"  training:\n{lines}"))


def sp(lines: str) -> bytes:
    """Put lines into `spec`."""
    return changed(("spec:\n", f"spec:\n{lines}"))


def analysis(rule: str, canary: str = "interval: 60s") -> bytes:
    """Measure something else in a canary."""
    return changed(("minReplicas: 2", f"canary: {{{canary}, analysis: [{{name: a, {rule}}}]}}"))


def smoke(test: str) -> bytes:
    """Ask for a smoke test."""
    return changed(("minReplicas: 2", f"smokeTest: {{{test}}}"))


def gate(*lines: str) -> bytes:
    """Say something else in the one gate."""
    return changed(("      metric: f1\n      min: 0.85\n", "".join(f"      {line.rstrip()}\n" for line in lines)))


HEAD = BASE.partition("spec:")[0].encode()

CASES: dict[str, bytes] = {
    "Y01-empty": b"",
    "Y01-comments": b"# nothing\n# here\n",
    "Y01-separator": b"---\n",
    "Y02-spec-null": HEAD + b"spec: null\n",
    "Y02-spec-list": HEAD + b"spec: []\n",
    "Y02-spec-text": HEAD + b'spec: "x"\n',
    "Y03": changed(("  training:", "  trainig:")),
    "Y03-elsewhere": sp("  stepWeights: [10]\n"),
    "Y04-twice": tr("    seed: 1\n    seed: 2\n"),
    "Y05": changed(("[python, train.py]", "&c [python, train.py]"), ("min: 0.85", "min: 0.85\n      x: *c")),
    "Y10": changed(("branch: main", "branch: !!python/object/apply:os.system [ls]")),
    "Y10-binary": changed(("branch: main", "branch: !!binary bWFpbg==")),
    "Y10-own": changed(("branch: main", "branch: !own main")),
    "Y11": changed(("      branch: main", "      <<: {branch: main}")),
    "Y12-octal": changed(("branch: main", "commit: 0123456")),
    "Y12-exponent": changed(("branch: main", "commit: 1e10")),
    "Y12-digits": changed(("branch: main", "commit: 12345678")),
    "Y13": changed(("min: 0.85", "max: 1e3")).replace(b"f1", b"rmse"),
    "Y14-yes": sp("  suspend: yes\n"),
    "Y14-off": changed(("target: churned", "target: off")),
    "Y14-y": changed(("target: churned", "target: y")),
    "Y14-quoted": sp('  suspend: "on"\n'),
    "Y15": changed(("branch: main\n", "branch: main\n    interval: 12:30:00\n")),
    "Y16-nan": changed(("0.85", ".nan")),
    "Y16-inf": changed(("0.85", "-.inf")),
    "Y17-text": changed(("0.85", '"0.85"')),
    "Y17-bool": changed(("0.85", "true")),
    "Y17-list": changed(("0.85", "[0.85]")),
    "Y18": changed(("minReplicas: 2", "minReplicas: 1" + "0" * 4999)),
    "Y19-half": changed(("minReplicas: 2", "minReplicas: 1.5")),
    "Y19-one": changed(("minReplicas: 2", "minReplicas: 2.0")),
    "Y20-neg": changed(("minReplicas: 2", "minReplicas: -1")),
    "Y20-0": changed(("minReplicas: 2", "minReplicas: 0")),
    "Y20-2^31": changed(("minReplicas: 2", "minReplicas: 2147483648")),
    **{
        f"Y21-{i}": changed(("minReplicas: 2", f"canary: {{stepWeights: {w}}}"))
        for i, w in enumerate(["[]", "[50, 10]", "[50, 101]", "[50, 50]"])
    },
    "Y21-1000": changed(("minReplicas: 2", f"canary: {{stepWeights: {[50] * 1000}}}")),
    "Y21-drift-without-limit": analysis("metric: prediction-drift"),
    "Y21-drift-with-champion": analysis("metric: prediction-drift, max: 0.1, champion: {margin: 0}"),
    "Y21-errors-without-limit": analysis("metric: request-error-rate"),
    "Y21-errors-with-duration": analysis("metric: request-error-rate, max: 0.1, maxDuration: 1s"),
    "Y21-duration-with-max": analysis("metric: request-duration-p99, max: 0.1"),
    "Y21-duration-beside-champion": analysis("metric: request-duration-p50, champion: {margin: -0.01}"),
    "Y21-nothing-measured": analysis("max: 0.1"),
    "Y21-measured-twice": analysis('metric: request-error-rate, max: 0.1, prometheus: {query: "up", max: 1}'),
    "Y21-query-without-limit": analysis('prometheus: {query: "up"}'),
    "Y21-query-without-direction": analysis('prometheus: {query: "up"}, champion: {margin: 0}'),
    "Y21-query-with-outer-max": analysis('prometheus: {query: "up", min: 0}, max: 1'),
    "Y21-query-upside-down": analysis('prometheus: {query: "up", min: 2, max: 1}'),
    "Y21-query-of-what": analysis("prometheus: {query: 'x{v=\"{{ .sha }}\"}', min: 0}"),
    "Y21-query-with-login": analysis('prometheus: {query: "up", min: 0, server: "http://me:pw@p:9090"}'),
    "Y21-query": analysis("prometheus: {query: 'x{v=\"{{ .version }}\"}', min: 0, server: 'http://p:9090'}"),
    "Y21-disagreement": analysis("metric: disagreement, max: 0.05, sample: 0.2, tolerance: 0"),
    "Y21-disagreement-without-limit": analysis("metric: disagreement"),
    "Y21-sample-of-errors": analysis("metric: request-error-rate, max: 0.1, sample: 0.2"),
    "Y21-disagreement-twice": changed(
        (
            "minReplicas: 2",
            "canary: {analysis: [{name: a, metric: disagreement, max: 0.1}, "
            "{name: b, metric: disagreement, max: 0.2}]}",
        )
    ),
    "Y21-smoke": smoke('path: tests/smoke.json, expect: {rows: 2, type: Text, among: ["yes", "no"]}'),
    "Y21-smoke-elsewhere": smoke("path: ../smoke.json"),
    "Y21-smoke-of-what": smoke("path: tests/smoke.txt"),
    "Y21-smoke-refused-with-rows": smoke("path: smoke.csv, expect: {status: 400, rows: 2}"),
    "Y21-smoke-upside-down": smoke("path: smoke.csv, expect: {min: 2, max: 1}"),
    "Y21-smoke-of-text-with-min": smoke("path: smoke.csv, expect: {type: Text, min: 2}"),
    "Y21-limit-never-reached": analysis("metric: request-error-rate, max: 0.1, failureLimit: 2"),
    "Y21-limit-too-high": analysis(
        "metric: request-error-rate, max: 0.1, failureLimit: 5", "interval: 60s, measureEvery: 20s"
    ),
    "Y21-limit": analysis(
        "metric: request-error-rate, max: 0.1, failureLimit: 3", "interval: 60s, measureEvery: 20s"
    ),
    "Y21-longer-than-a-step": analysis("metric: request-error-rate, max: 0.1", "interval: 60s, measureEvery: 90s"),
    "Y21-name-of-a-built-in": changed(
        ("minReplicas: 2", "canary: {analysis: [{name: volume, metric: request-error-rate, max: 0.1}]}")
    ),
    "Y21-built-in-unknown": changed(("minReplicas: 2", "canary: {builtIn: {disabled: [speed]}}")),
    "Y21-built-in": changed(
        ("minReplicas: 2", "canary: {onInconclusive: Rollback, builtIn: {disabled: [volume], dryRun: true}}")
    ),
    "Y22-tab": changed(("    ref:\n", "\tref:\n")),
    "Y22-crlf": BASE.replace("\n", "\r\n").encode(),
    "Y22-bom": b"\xef\xbb\xbf" + BASE.encode(),
    "Y22-utf16": BASE.encode("utf-16"),
    "Y22-latin": changed(("churned", "ch\u00fcrned")).decode().encode("latin-1"),
    "Y23-nul": changed(("churned", "chur\x00ned")),
    "Y23-esc": changed(("churned", '"\\ea"')),
    "Y23-rtl": changed(("churned", "chur\u202ened")),
    "Y23-zero-width": changed(("churned", "chur\u200bned")),
    "Y24": changed(("name: churn\n", "name: c\u0430t\n")),
    "Y25-41": changed(("name: churn\n", "name: " + "c" * 41 + "\n")),
    "Y25-40": changed(("name: churn\n", "name: " + "c" * 40 + "\n")),
    "Y25-dots": changed(("name: churn\n", "name: a.b\n")),
    "Y27-default": changed(("name: churn\n", "name: default\n")),
    "Y27-lead": changed(("name: churn\n", "name: -x\n")),
    "Y27-trail": changed(("name: churn\n", "name: x-\n")),
    "Y27-upper": changed(("name: churn\n", "name: X\n")),
    "Y28-labels": changed(
        ("  namespace: ml\n", "  namespace: ml\n  labels:\n" + "".join(f"    l{i}: v\n" for i in range(10000)))
    ),
    "Y28-label-value": changed(("  namespace: ml\n", f"  namespace: ml\n  labels: {{team: {'x' * 64}}}\n")),
    "Y28-annotation": changed(
        ("  namespace: ml\n", f"  namespace: ml\n  annotations: {{a: {'x' * 300 * 1024}}}\n")
    ),
    "Y29-count": tr("    env:\n" + "".join(f"      - name: A{i}\n" for i in range(5000))),
    **{
        f"Y29-{k}": tr(f"    env: [{{name: {k}}}]\n")
        for k in ["LD_PRELOAD", "PATH", "PYTHONPATH", "KUBERNETES_SERVICE_HOST"]
    },
    "Y30-text": changed(("[python, train.py]", "python train.py")),
    "Y30-shell": changed(("[python, train.py]", '"python train.py && rm -rf $HOME"')),
    "Y30-empty": changed(("[python, train.py]", "[]")),
    "Y30-long": changed(("[python, train.py]", "[python, %s]" % ("x" * 5000))),
    **{
        f"Y31-{k}": tr(f"    image: {v}\n")
        for k, v in {
            "empty": '""',
            "digest": "a/b@sha256:00ff",
            "upper": "Reg.example.com/A",
            "http": "http://a/b",
            "spaces": '"a b"',
        }.items()
    },
    **{
        f"Y33-{k}": tr(f"    resources: {v}\n")
        for k, v in {
            "negative": '{requests: {cpu: "-1"}}',
            "negative-number": "{requests: {cpu: -1}}",
            "beyond": '{limits: {memory: "1e100"}}',
            "limit-below-request": "{requests: {memory: 4Gi}, limits: {memory: 2Gi}}",
            "half-a-gpu": '{limits: {nvidia.com/gpu: "0.5"}}',
            "gpu-of-one-side": '{requests: {nvidia.com/gpu: "1"}}',
            "unit": "{limits: {memory: 4GB}}",
            "number": "{limits: {cpu: 2}}",
            "name": '{limits: {"bad name!": "1"}}',
            "right": '{requests: {cpu: "2", memory: 4Gi}, limits: {memory: 4Gi, nvidia.com/gpu: "1"}}',
        }.items()
    },
    **{
        f"Y34-{k}": tr(f"    template: {v}\n")
        for k, v in {
            "privileged": "{securityContext: {privileged: true}}",
            "volume-of-the-host": "{volumes: [{name: host, hostPath: {path: /}}]}",
            "network-of-the-host": "{hostNetwork: true}",
            "another-account": "{serviceAccountName: admin}",
            "token": "{automountServiceAccountToken: true}",
            "init-containers": "{initContainers: [{name: x, image: x}]}",
            "whole-spec": "{spec: {hostPID: true}}",
            "another-namespace": "{imagePullSecrets: [{name: other/pull}]}",
            "right": '{nodeSelector: {gpu: "yes"}, tolerations: [{operator: Exists}]}',
        }.items()
    },
    "Y34-podTemplate": tr("    podTemplate: {spec: {hostPID: true}}\n"),
    **{
        f"Y37-{k}": changed(("branch: main\n", f"branch: main\n    interval: {v}\n"))
        for k, v in {
            "zero": "0s",
            "negative": "-5m",
            "long": "1000000h",
            "words": "5 minutes",
            "iso": "PT5M",
        }.items()
    },
    "Y40-same": changed(("      min: 0.85", "      min: 0.85\n    - {name: good, metric: f1, max: 1}")),
    "Y40-above": changed(("min: 0.85", "min: 0.85\n      max: 0.5")),
    "Y38-syntax": gate("cel: metrics.f1 >"),
    "Y38-unknown-function": gate("cel: sqrt(metrics.f1) > 0.1"),
    "Y38-unknown-metric": gate("cel: metrics.recal > 0.1"),
    "Y38-type": gate("""cel: "'a' > 1" """),
    "Y38-number": gate("cel: 1 + 1"),
    "Y38-nested": gate(f"cel: {'(' * 60}true{')' * 60}"),
    "Y38-long": gate(f"cel: {'true && ' * 13_000}true"),
    "Y38-with-metric": gate("metric: f1", "cel: metrics.f1 > 0.8"),
    "Y38-right": gate("cel: metrics.f1 >= 0.8 && data.holdout.rows >= 2000"),
    "Y39-unknown-metric": gate("metric: f2", "min: 0.8"),
    "Y39-of-the-trainer-without-direction": gate("metric: churn_score", "from: Trainer", "min: 0.8"),
    "Y39-of-the-trainer-on-the-wrong-side": gate(
        "metric: churn_score", "from: Trainer", "direction: Higher", "max: 0.8"
    ),
    "Y39-of-the-trainer": gate("metric: churn_score", "from: Trainer", "direction: Higher", "min: 0.8"),
    "Y40-empty": changed(("      min: 0.85\n", "")),
    "Y40-minRows-alone": gate("metric: f1", "min: 0.8", "minRows: 10"),
    "Y40-slices-empty": gate("metric: f1", "min: 0.8", "slices: []"),
    "Y40-slices-of-a-probe": gate("probe: {p95: 40ms}", "slices: [country]"),
    "Y40-margin-alone": gate("metric: f1", "min: 0.8", "margin: 0.1"),
    "Y40-baseline-of-numbers": gate("metric: f1", "baseline: {dummy: Mean}"),
    "Y40-baseline": gate("metric: f1", "baseline: {dummy: MostFrequent}", "margin: 0.1", "mode: Absolute"),
    "Y40-report-outside": gate("report: {path: ../scan.sarif, maxSeverity: Medium}"),
    "Y40-report-severity": gate("report: {path: scan.sarif, maxSeverity: Severe}"),
    "Y40-report": gate("report: {path: scan.sarif, maxSeverity: Medium}", "dryRun: true"),
    "Y41-unknown-measure": gate("fairness: EqualizedOddsDiference", "by: gender", "max: 0.1"),
    "Y41-without-column": gate("fairness: EqualizedOddsDifference", "max: 0.1"),
    "Y41-wrong-side": gate("fairness: EqualizedOddsRatio", "by: gender", "max: 0.1"),
    "Y41-right": gate("fairness: EqualizedOddsDifference", "by: gender", "max: 0.1", "minRows: 300"),
    "Y46-future": changed(("v1alpha1", "v2")),
    "Y46-kind": changed(("kind: ModelSpec", "kind: ModelSpce")),
    "Y46-group": changed(("mainspring.dev", "mainsprng.dev")),
    "Y47": b"---\n".join(
        [BASE.encode().replace(b"name: churn", b"name: m%d" % i) for i in range(4)] + [changed(("f1", "f2"))]
    ),
    "Y48": BASE.encode() + b"---\n" + BASE.encode(),
    "Y53": BASE.encode() + b"status: {stage: Serving}\n",
    "Y55": changed(("https://git", "https://bot:hunter2@git")),
    "Y56": sp('  suspend: "false"\n'),
    "Y02-empty-value": changed(("      min: 0.85", "      min:")),
    "Y02-missing": changed(("    target: churned", "    id: x")),
    "Y17-scalar": changed(("target: churned", "target: churned\n    positive: [1]")),
    "Y31-unpinned": tr("    image: a/b:1\n"),
    "Y03-metadata": changed(("  namespace: ml", "  namespace: ml\n  labls: {a: b}")),
}
"""Text of every case by its id: the row, and what makes it special."""
