"""`--faults`: runs the tests marked with a fault, and ends with a table of all faults.

A pytest plugin; the conftests register it. A test may put figures under the table with
`record_property("figure", "a line")`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from faults.catalogue import FAULTS

PROPERTY = "faults"
FIGURE = "figure"


@dataclass
class Tally:
    """What became of a fault's tests."""

    outcomes: dict[str, str] = field(default_factory=dict)
    """By test: passed, failed or skipped."""
    skip_reasons: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def state(self, excuse: str) -> str:
        """One word, with a reason if there is one."""
        seen = set(self.outcomes.values())
        if "failed" in seen:
            return "FAILED"
        if "passed" in seen:
            return "passed"
        if seen:
            return f"skipped: {self.skip_reasons[0]}"
        return f"excused: {excuse}" if excuse else "NOT COVERED"


def ids_of(item: pytest.Item) -> tuple[str, ...]:
    """The faults that a test shows, each of which is in the catalogue; raises UsageError."""
    ids = tuple(name for marker in item.iter_markers("fault") for name in marker.args)
    for name in ids:
        if name not in FAULTS:
            raise pytest.UsageError(f"{item.nodeid}: fault: not in the catalogue; got {name!r}")
    return ids


def add_option(parser: pytest.Parser) -> None:
    """`--faults`."""
    parser.addoption(
        "--faults",
        action="store",
        default="",
        metavar="all or ID,ID",
        help="only the tests of these faults, and a table of them at the end",
    )


def register(config: pytest.Config) -> None:
    """With `--faults`, and once."""
    wanted = config.getoption("--faults")
    if wanted and not config.pluginmanager.has_plugin(PROPERTY):
        config.pluginmanager.register(FaultReport(wanted), PROPERTY)


class FaultReport:
    """Collects what became of every fault, and fails the run where one is not shown."""

    def __init__(self, wanted: str) -> None:
        """`wanted`: "all" or ids with commas between them; raises UsageError."""
        names = list(FAULTS) if wanted == "all" else wanted.split(",")
        if strangers := [name for name in names if name not in FAULTS]:
            raise pytest.UsageError(f"--faults: no such fault; got {strangers[0]!r}; allowed all")
        self._tallies = {name: Tally() for name in names}
        self._figures: list[str] = []

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Leaves the tests of the faults that are wanted."""
        kept: list[pytest.Item] = []
        others: list[pytest.Item] = []
        for item in items:
            ids = [name for name in ids_of(item) if name in self._tallies]
            item.user_properties.append((PROPERTY, ids))
            (kept if ids else others).append(item)
        config.hook.pytest_deselected(items=others)
        items[:] = kept

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Each test has three reports, of which the worst counts."""
        properties = dict(report.user_properties)
        names = properties.get(PROPERTY, ())
        assert isinstance(names, Sequence)
        for name in names:
            tally = self._tallies[name]
            tally.seconds += report.duration
            if report.failed or report.skipped or report.when == "call":
                tally.outcomes[report.nodeid] = report.outcome
            if report.skipped and isinstance(report.longrepr, tuple):
                tally.skip_reasons.append(report.longrepr[2].removeprefix("Skipped: "))
        if report.when == "teardown":
            self._figures += [str(value) for key, value in report.user_properties if key == FIGURE]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A fault that no test shows, and that has no excuse, fails the run."""
        if session.config.option.collectonly or hasattr(session.config, "workerinput"):
            return
        states = (self._state(name) for name in self._tallies)
        if any(state in ("FAILED", "NOT COVERED") for state in states):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The table."""
        if terminalreporter.config.option.collectonly:
            return
        write = terminalreporter.write_line
        terminalreporter.section("faults")
        write(f"{'id':4} {'what':66} {'tests':>5} {'seconds':>8}  state")
        for name, tally in self._tallies.items():
            count = len(tally.outcomes)
            line = f"{name:4} {FAULTS[name].what:66} {count:5} {tally.seconds:8.1f}"
            write(f"{line}  {self._state(name)}")
        counts: dict[str, int] = {}
        for name in self._tallies:
            word = self._state(name).partition(":")[0]
            counts[word] = counts.get(word, 0) + 1
        write(", ".join(f"{count} {word}" for word, count in counts.items()))
        for figure in self._figures:
            write(figure)

    def _state(self, name: str) -> str:
        return self._tallies[name].state(FAULTS[name].excuse)
