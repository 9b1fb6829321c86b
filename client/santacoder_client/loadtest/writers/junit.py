"""The thresholds of a result as JUnit XML: a test case each, and one for the measurement itself."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from santacoder_client.loadtest.result import Result
from santacoder_client.loadtest.writers.files import write_whole

SUITE = "santacoder-load"
NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(path: str | Path, result: Result) -> None:
    """Writes the cases. Raises LoadTestError, as for a full disk."""
    write_whole(path, to_junit(result))


def to_junit(result: Result) -> str:
    """The cases as text."""
    problems = {"measured": _problem(result)}
    for each in result.thresholds:
        got = "nothing to judge" if each.value is None else f"{each.value:g}"
        problems[each.expression] = "" if each.passed else f"got {got}"
    suites = Element("testsuites", _counts(SUITE, problems))
    suite = SubElement(suites, "testsuite", _counts(f"{SUITE} {result.verb}", problems))
    suite.set("timestamp", _xml(result.started_at))
    for case, problem in problems.items():
        element = SubElement(suite, "testcase", classname=SUITE, name=_xml(case), time="0")
        if problem:
            SubElement(element, "failure", message=_xml(problem), type="threshold")
    indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(suites, "unicode") + "\n"


def _counts(name: str, problems: dict[str, str]) -> dict[str, str]:
    failed = sum(bool(problem) for problem in problems.values())
    return {"name": name, "tests": str(len(problems)), "failures": str(failed), "errors": "0"}


def _problem(result: Result) -> str:
    """Why there is nothing to judge; empty if there is."""
    if result.interrupted:
        return "interrupted before its end"
    if result.outcomes.ok:
        return ""
    if not result.errors:
        return "no request was answered"
    worst = result.errors[0]
    return f"no request was answered: {worst.status} {worst.reason}: {worst.example}"


def _xml(text: str) -> str:
    """Without the characters that XML has no way to write."""
    return NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
