"""Where a result goes: which files, checked before the run and written after it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from santacoder_client.loadtest.errors import LoadTestError, UsageError
from santacoder_client.loadtest.page.document import page_of
from santacoder_client.loadtest.record import RequestRecord
from santacoder_client.loadtest.result import Result
from santacoder_client.loadtest.result_file import save
from santacoder_client.loadtest.schema import to_json
from santacoder_client.loadtest.writers.csv_table import write_csv
from santacoder_client.loadtest.writers.files import check_output, write_whole
from santacoder_client.loadtest.writers.junit import write_junit
from santacoder_client.loadtest.writers.requests import write_requests

_HELP = {
    "--output": "the result, as JSON",
    "--html": "the result as one page that needs no other file",
    "--requests-output": "a line of JSON for every request",
    "--csv": "the figures as CSV",
    "--junit": "the thresholds as JUnit XML",
}


@dataclass(frozen=True, slots=True)
class Outputs:
    """Files to write, by flag."""

    paths: dict[str, Path]

    def save(self, result: Result, records: Sequence[RequestRecord]) -> list[str]:
        """Writes all that can be written; a line for each that could not."""
        writers: dict[str, Callable[[Path], None]] = {
            "--output": lambda path: save(result, path),
            "--html": lambda path: write_whole(path, page_of(to_json(result))),
            "--requests-output": lambda path: write_requests(path, records),
            "--csv": lambda path: write_csv(path, result),
            "--junit": lambda path: write_junit(path, result),
        }
        failures = []
        for flag, path in self.paths.items():
            try:
                writers[flag](path)
            except LoadTestError as error:
                failures.append(str(error))
        return failures


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Files, and what is judged."""
    group = parser.add_argument_group("output")
    for flag, text in _HELP.items():
        group.add_argument(flag, metavar="FILE", help=text)
    group.add_argument("--force", action="store_true", help="replace files that exist")
    group.add_argument(
        "--quiet", action="store_true", help="show nothing while it runs, only the end"
    )


def outputs_of(arguments: argparse.Namespace) -> Outputs:
    """The files, if they can be written. Raises UsageError."""
    paths: dict[str, Path] = {}
    for flag in _HELP:
        given = getattr(arguments, flag.removeprefix("--").replace("-", "_"))
        if given is None:
            continue
        path = check_output(flag, given, arguments.force)
        if path.resolve() in {each.resolve() for each in paths.values()}:
            raise UsageError(f"{flag}: another output goes there; got {given!r}; allowed one each")
        paths[flag] = path
    return Outputs(paths)
