"""Reads what a scanner reported: SARIF 2.1, Trivy JSON or Grype JSON that the training left, counted by severity.

The file is hostile: size and place first, then its form; nothing of it is kept but five counts.  A report that is
not complete, or not understood, is a note by which its gate fails; it never counts as "nothing found".
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from controller.api.modelrevision import ScanEvidence

SIZE_MAX: Final = 16 * 2**20
"""Largest report that is read, bytes."""
WORDS: Final = {
    "CRITICAL": "Critical",
    "HIGH": "High",
    "MEDIUM": "Medium",
    "MODERATE": "Medium",
    "LOW": "Low",
    "NEGLIGIBLE": "Low",
}
"""Severities as Trivy and Grype write them; every other word is Unknown."""
LEVELS: Final = {"error": "High", "warning": "Medium", "note": "Low"}
"""Levels of SARIF, where no security-severity stands beside them; `none` is no finding."""


class _NotUsableError(ValueError):
    """The report cannot be used; the message says why."""


def read_scan(output: Path, path: str) -> ScanEvidence:
    """Read one report below the training's output; raises nothing for what it holds."""
    try:
        data = _bytes(output, path)
        form, found = _findings(_json(data))
        counts = Counter(found)
    except _NotUsableError as error:
        return ScanEvidence(path=path, note=str(error))
    except OSError as error:
        return ScanEvidence(path=path, note=f"it cannot be read: {error.strerror}")
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return ScanEvidence(path=path, format=form, counts=dict(sorted(counts.items())), sha256=digest)


def _bytes(output: Path, path: str) -> bytes:
    file = output
    for part in path.split("/"):
        file = file / part
        if file.is_symlink():
            raise _NotUsableError("it is, or lies behind, a symbolic link")
    if not file.is_file():
        raise _NotUsableError("the training left no such file in MAINSPRING_OUTPUT")
    with file.open("rb") as stream:
        data = stream.read(SIZE_MAX + 1)
    if len(data) > SIZE_MAX:
        raise _NotUsableError(f"it has more than {SIZE_MAX:,} bytes")
    return data


def _json(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise _NotUsableError("it is not JSON in UTF-8") from None
    if not isinstance(found, dict):
        raise _NotUsableError("it is no report of SARIF, Trivy or Grype")
    return found


def _findings(report: dict[str, Any]) -> tuple[str, Iterator[str]]:
    """Tell the format, and name the severity of every finding."""
    if "runs" in report:
        return "SARIF", _sarif(report)
    if "SchemaVersion" in report and ("Results" in report or "ArtifactName" in report):
        return "Trivy", _trivy(report)
    if "matches" in report:
        return "Grype", _grype(report)
    raise _NotUsableError("it is no report of SARIF, Trivy or Grype")


def _list(value: Any, what: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
        raise _NotUsableError(f"its {what} are no list of objects")
    return value


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _word(value: Any) -> str:
    return WORDS.get(str(value).upper(), "Unknown")


def _trivy(report: dict[str, Any]) -> Iterator[str]:
    for result in _list(report.get("Results") or [], "Results"):
        for kind in ("Vulnerabilities", "Secrets", "Misconfigurations", "Licenses"):
            for finding in _list(result.get(kind) or [], kind):
                if finding.get("Status") not in ("PASS", "EXCEPTION") or kind != "Misconfigurations":
                    yield _word(finding.get("Severity"))


def _grype(report: dict[str, Any]) -> Iterator[str]:
    for match in _list(report["matches"], "matches"):
        yield _word(_dict(match.get("vulnerability")).get("severity"))


def _sarif(report: dict[str, Any]) -> Iterator[str]:
    """Walk the results of all runs (SARIF 2.1.0, 3.14 and 3.27).

    Raises:
        _NotUsableError: a run without results, or one that did not succeed: it did not look everywhere.
    """
    for run in _list(report["runs"], "runs"):
        if run.get("results") is None:
            raise _NotUsableError("a run in it has no results: the scanner did not finish")
        for invocation in _list(run.get("invocations") or [], "invocations"):
            if invocation.get("executionSuccessful") is False:
                raise _NotUsableError("the scanner did not finish: executionSuccessful is false")
        tool = _dict(run.get("tool"))
        rules = _rules(tool)
        for result in _list(run["results"], "results"):
            if result.get("kind", "fail") not in ("fail", "open", "review") or _is_suppressed(result):
                continue
            severity = _severity(result, _rule(result, rules))
            if severity:
                yield severity


def _rules(tool: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Give the rules of the driver by index, and those of it and its extensions by id."""
    driver = _list(_dict(tool.get("driver")).get("rules") or [], "rules")
    everywhere = [*driver]
    for extension in _list(tool.get("extensions") or [], "extensions"):
        everywhere += _list(extension.get("rules") or [], "rules")
    return driver, {str(r.get("id")): r for r in everywhere}


def _rule(result: dict[str, Any], rules: tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]) -> dict[str, Any]:
    by_index, by_id = rules
    own = _dict(result.get("rule"))
    name = result.get("ruleId", own.get("id"))
    if str(name) in by_id:
        return by_id[str(name)]
    index = result.get("ruleIndex")
    if isinstance(index, int) and not isinstance(index, bool) and 0 <= index < len(by_index):
        return by_index[index]
    return {}


def _is_suppressed(result: dict[str, Any]) -> bool:
    """Tell whether somebody accepted the finding; under review or rejected is not accepted (3.35.3)."""
    found = _list(result.get("suppressions") or [], "suppressions")
    return bool(found) and all(s.get("status", "accepted") == "accepted" for s in found)


def _severity(result: dict[str, Any], rule: dict[str, Any]) -> str:
    """Grade a result: by security-severity, a CVSS score as GitHub reads it, else by its level; empty for none."""
    for holder in (result, rule):
        given = _dict(holder.get("properties")).get("security-severity")
        if given is not None:
            return _of_score(given)
    level = result.get("level") or _dict(rule.get("defaultConfiguration")).get("level") or "warning"
    return "" if level == "none" else LEVELS.get(str(level), "Unknown")


def _of_score(given: Any) -> str:
    """Grade a score from 0 to 10: critical from 9, high from 7, medium from 4; what is no score is Unknown."""
    try:
        score = float(given)
    except (TypeError, ValueError):
        return "Unknown"
    if not 0 <= score <= 10:
        return "Unknown"
    return "Critical" if score >= 9 else "High" if score >= 7 else "Medium" if score >= 4 else "Low"
