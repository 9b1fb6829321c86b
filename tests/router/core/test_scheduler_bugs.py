"""The seeded bugs still fit the scheduler's source, and the simulation finds a sample of them.

`make scheduler-bugs` hunts them all.
"""

from __future__ import annotations

import os

import pytest
from router.core.bugs.bug import NO_BUG, Bug, install
from router.core.bugs.catalogue import CATALOGUE
from router.core.bugs.hunt import Finding, hunt_all, report

SAMPLE = [
    "a second holder is not counted",
    "results of an old generation are accepted",
    "tenant and salt are left out of the key",
    "low priority goes first",
    "deadlines are ignored",
    "a block is copied before the same plan writes it",
    "a lease has one step more than there is time for",
    "whoever had no output yet is lost with the group",
]


@pytest.mark.parametrize("bug", CATALOGUE, ids=lambda bug: bug.title)
def test_a_bugs_fragment_occurs_once_and_its_replacement_is_python(bug: Bug) -> None:
    compile(bug.mutated_source(), bug.file, "exec")


def test_the_catalogue_has_60_bugs_that_can_be_told_apart() -> None:
    assert len({bug.title for bug in CATALOGUE}) == len(CATALOGUE) >= 60


def test_a_sample_of_bugs_is_found_and_the_scheduler_without_a_bug_holds() -> None:
    sample = [bug for bug in CATALOGUE if bug.description in SAMPLE]
    assert len(sample) == len(SAMPLE)
    findings = list(hunt_all([NO_BUG, *sample], 40, os.cpu_count() or 1))
    assert findings[0] == Finding(NO_BUG, 40, None)
    assert [finding.bug.title for finding in findings if finding.found_by is None] == [NO_BUG.title]


def test_a_process_that_has_the_scheduler_takes_no_bug() -> None:
    import santacoder_router.core.scheduler  # noqa: F401

    with pytest.raises(RuntimeError, match="needs a fresh process"):
        install(NO_BUG)


@pytest.mark.parametrize(("found_count", "is_enough"), [(94, False), (95, True)])
def test_95_percent_have_to_be_found(
    found_count: int, is_enough: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = [Finding(NO_BUG, 7, "I6" if i < found_count else None) for i in range(100)]
    assert report(findings) is is_enough
    assert f"found {found_count} of 100" in capsys.readouterr().out
