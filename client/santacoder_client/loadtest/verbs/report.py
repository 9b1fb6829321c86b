"""`santacoder-load report`: shows a result again, as a page and as the table of its end."""

from __future__ import annotations

import argparse
import sys

from santacoder_client.loadtest.page.document import page_of
from santacoder_client.loadtest.result_file import load
from santacoder_client.loadtest.schema import to_json
from santacoder_client.loadtest.table import show_table
from santacoder_client.loadtest.writers.files import check_output, write_whole


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb to the command line."""
    parser = subparsers.add_parser(
        "report", help="show a result again: its table, and a page", allow_abbrev=False
    )
    parser.add_argument("result", help="JSON that run, replay or sweep wrote")
    parser.add_argument("--html", metavar="FILE", help="write one page that needs no other file")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    parser.set_defaults(execute=execute)


def execute(arguments: argparse.Namespace) -> int:
    """Shows it; returns the exit status."""
    page = check_output("--html", arguments.html, arguments.force) if arguments.html else None
    result = load(arguments.result)
    if page is not None:
        write_whole(page, page_of(to_json(result)))
    show_table(result, sys.stdout)
    return 0
