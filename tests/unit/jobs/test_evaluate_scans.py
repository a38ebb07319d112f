"""Reports of scanners: counted as their makers count, and never taken for clean when they are not whole."""

from __future__ import annotations

import json

import pytest

from controller.jobs.evaluate_scans import SIZE_MAX, read_scan


def sarif(*results, rules=(), **run):
    return {
        "version": "2.1.0",
        "runs": [{"tool": {"driver": {"name": "x", "rules": list(rules)}}, "results": list(results), **run}],
    }


RULES = (
    {"id": "A", "properties": {"security-severity": "9.8"}},
    {"id": "B", "defaultConfiguration": {"level": "error"}},
    {"id": "C", "properties": {"security-severity": "5.0"}},
)

REPORTS = {
    "SARIF by the score of its rules, then by level": (
        sarif(
            {"ruleId": "A"},
            {"ruleIndex": 1},
            {"rule": {"id": "C"}, "level": "note"},
            {"level": "note"},
            {},
            rules=RULES,
        ),
        "SARIF",
        {"Critical": 1, "High": 1, "Low": 1, "Medium": 2},
    ),
    "SARIF without what passed, was accepted, or is no problem": (
        sarif({"kind": "pass"}, {"suppressions": [{"kind": "external"}]}, {"level": "none"}, {"level": "error"}),
        "SARIF",
        {"High": 1},
    ),
    "SARIF with a suppression that nobody accepted": (
        sarif({"level": "error", "suppressions": [{"kind": "external", "status": "underReview"}]}),
        "SARIF",
        {"High": 1},
    ),
    "SARIF with a score that is none": (
        sarif({"properties": {"security-severity": "-1"}}, {"level": "fatal"}),
        "SARIF",
        {"Unknown": 2},
    ),
    "SARIF that found nothing": (sarif(), "SARIF", {}),
    "Trivy": (
        {
            "SchemaVersion": 2,
            "ArtifactName": "image",
            "Results": [
                {"Vulnerabilities": [{"Severity": "HIGH"}, {"Severity": "UNKNOWN"}, {"Severity": "CRITICAL"}]},
                {
                    "Misconfigurations": [
                        {"Severity": "HIGH", "Status": "PASS"},
                        {"Severity": "LOW", "Status": "FAIL"},
                    ]
                },
                {"Secrets": [{"Severity": "MEDIUM"}]},
            ],
        },
        "Trivy",
        {"Critical": 1, "High": 1, "Low": 1, "Medium": 1, "Unknown": 1},
    ),
    "Grype": (
        {"matches": [{"vulnerability": {"severity": "High"}}, {"vulnerability": {"severity": "Negligible"}}, {}]},
        "Grype",
        {"High": 1, "Low": 1, "Unknown": 1},
    ),
}


@pytest.mark.parametrize("case", REPORTS)
def test_findings_are_counted_by_severity(tmp_path, case):
    report, form, counts = REPORTS[case]
    (tmp_path / "scan.json").write_text(json.dumps(report), encoding="utf-8-sig")
    found = read_scan(tmp_path, "scan.json")
    assert (found.note, found.format, found.counts) == ("", form, counts)
    assert found.sha256.startswith("sha256:")


BROKEN = {
    "not JSON": (b"<html>", "it is not JSON in UTF-8"),
    "empty": (b"", "it is not JSON in UTF-8"),
    "deep": (b"[" * 200_000, "it is not JSON in UTF-8"),
    "another list": (b"[]", "it is no report of SARIF, Trivy or Grype"),
    "another object": (b'{"ok": true}', "it is no report of SARIF, Trivy or Grype"),
    "no results": (json.dumps({"runs": [{}]}).encode(), "the scanner did not finish"),
    "a scanner that failed": (
        json.dumps(sarif(invocations=[{"executionSuccessful": False}])).encode(),
        "executionSuccessful is false",
    ),
    "runs that are none": (b'{"runs": 3}', "its runs are no list of objects"),
    "matches of text": (b'{"matches": ["<b>"]}', "its matches are no list of objects"),
    "too large": (b" " * (SIZE_MAX + 1), "it has more than 16,777,216 bytes"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_not_a_whole_report_is_never_clean(tmp_path, case):
    data, words = BROKEN[case]
    (tmp_path / "scan.json").write_bytes(data)
    found = read_scan(tmp_path, "scan.json")
    assert words in found.note
    assert (found.counts, found.format) == ({}, "")


@pytest.mark.parametrize("way", ["file", "directory"])
def test_no_link_leads_out_of_what_the_training_left(tmp_path, way):
    outside, output = tmp_path / "outside", tmp_path / "output"
    outside.mkdir()
    output.mkdir()
    (outside / "scan.json").write_text(json.dumps({"matches": []}))
    if way == "file":
        (output / "scan.json").symlink_to(outside / "scan.json")
    else:
        (output / "sub").symlink_to(outside)
    found = read_scan(output, "scan.json" if way == "file" else "sub/scan.json")
    assert "symbolic link" in found.note


def test_a_report_that_is_not_there_is_said_to_be_missing(tmp_path):
    assert read_scan(tmp_path, "scan.json").note == "the training left no such file in MAINSPRING_OUTPUT"
